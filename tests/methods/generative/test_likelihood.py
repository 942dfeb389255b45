"""Likelihoods against SciPy, steps and tokens that say nothing, and what is refused."""

import numpy as np
import pytest
import scipy.stats

from mmfuse.core import Sequence, Unavailable
from mmfuse.methods.generative.vae._likelihood import (
  Likelihood,
  described,
  likelihood_of,
  parse,
)

RNG = np.random.default_rng(0)
SAID, X = (RNG.normal(size=s).astype(np.float32) for s in ((3, 5, 4), (5, 4)))


def test_of_numbers():
  normal = scipy.stats.norm(SAID, 0.5).logpdf(X).sum(-1)
  np.testing.assert_allclose(parse("normal:.5").log_prob(SAID, X), normal, rtol=1e-5)
  laplace = scipy.stats.laplace(SAID, 0.75).logpdf(X).sum(-1)
  np.testing.assert_allclose(parse("laplace:.75").log_prob(SAID, X), laplace, rtol=1e-5)
  bits, p = (X > 0).astype(np.float32), 1 / (1 + np.exp(-SAID))
  coin = scipy.stats.bernoulli(p).logpmf(bits).sum(-1)
  np.testing.assert_allclose(parse("bernoulli").log_prob(SAID, bits), coin, rtol=1e-4)
  np.testing.assert_allclose(parse("bernoulli").shown(SAID, bits), p, rtol=1e-5)


def test_of_classes_and_tokens():
  of = parse("categorical")
  log_p = SAID - np.log(np.exp(SAID).sum(-1, keepdims=True))
  shares = np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 3]]
  np.testing.assert_allclose(of.log_prob(SAID, shares), (log_p * shares).sum(-1), rtol=1e-5)
  token = np.array([0, 1, 2, 3, 9], np.int32)  # the last is unknown: the last class
  np.testing.assert_allclose(of.log_prob(SAID, token), (log_p * shares).sum(-1), rtol=1e-5)
  rows = np.array([[0, -1], [3, 2]], np.int32)  # a negative token says nothing
  said = RNG.normal(size=(2, 2, 4)).astype(np.float32)
  each = said - np.log(np.exp(said).sum(-1, keepdims=True))
  wanted = [each[0, 0, 0], each[1, 0, 3] + each[1, 1, 2]]
  np.testing.assert_allclose(of.log_prob(said, rows), wanted, rtol=1e-5)
  assert np.asarray(of.shown(said, rows)).tolist() == said.argmax(-1).tolist()


def test_what_stands_after_the_end_of_a_row_says_nothing():
  values = X[:2, :, None].copy()
  said = SAID[:, :2, :, None]
  values[0, 2:] = np.nan
  found = Likelihood("normal").log_prob(said, Sequence(values, np.array([2, 4], np.int32)))
  wanted = scipy.stats.norm(said[..., 0], 1).logpdf(X[:2])
  wanted[:, 0, 2:] = 0
  np.testing.assert_allclose(found, wanted.sum(-1), rtol=1e-5)


def test_words():
  assert str(parse("normal")) == "normal(1)" and str(parse("laplace:.75")) == "laplace(0.75)"
  assert described({"a": "normal", "b": "normal"}) == "normal(1)"
  assert described({"a": "bernoulli", "b": "auto"}) == "a bernoulli, b auto"
  for spec in ("gauss", "normal:0", "normal:x", "bernoulli:1"):
    with pytest.raises(ValueError, match="likelihood"):
      parse(spec)
  assert likelihood_of("auto", "a", X).kind == "normal"
  assert likelihood_of("auto", "t", np.zeros((2, 3), np.int32)).kind == "categorical"
  with pytest.raises(Unavailable, match="'t' holds tokens"):
    likelihood_of("normal", "t", np.zeros((2, 3), np.int32))
