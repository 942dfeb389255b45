"""Latent quality by hand and by its invariants; the generator's best errors by linear algebra."""

import itertools

import numpy as np
import pytest

from mmfuse import masks
from mmfuse.data import _provable
from mmfuse.metrics._latent_quality import LBFGS, latent_quality, least_squares, logistic_regression

RNG = np.random.default_rng(0)
Z, Y = RNG.normal(size=(40, 3)), RNG.normal(size=40)


def test_by_hand():
  """y = (0, 1, 2, 5) on x = (0, 1, 2, 3): slope 1.6, residuals .4, -.2, -.8, .6."""
  x, y = np.arange(4.0)[:, None], np.array([0.0, 1.0, 2.0, 5.0])
  assert latent_quality(x, y) == pytest.approx((0.16 + 0.04 + 0.64 + 0.36) / 4)
  assert latent_quality(x, y, best=0.1) == pytest.approx(0.2)
  assert latent_quality(x, y, heldout=(x[:1] + 4, y[:1] + 7.0)) == pytest.approx((7 - 6.0) ** 2)
  assert latent_quality(np.zeros((4, 0)), y) == pytest.approx(y.var())


def test_ridge_by_hand():
  """Centred x = (-1, 1), y = (-1, 1): W = 1 / (1 + lambda)."""
  x, y = np.array([[1.0], [3.0]]), np.array([4.0, 6.0])
  assert latent_quality(x, y, ridge=1.0) == pytest.approx(0.25)


def test_invertible_maps_change_nothing_and_columns_never_hurt():
  a = RNG.normal(size=(3, 3)) + 3 * np.eye(3)
  eta = latent_quality(Z, Y)
  assert eta == pytest.approx(latent_quality(Z @ a + 2.0, Y), rel=1e-9)
  values = [latent_quality(Z[:, :k], Y) for k in range(4)]
  assert all(a > b for a, b in itertools.pairwise(values)) and values[-1] == pytest.approx(eta)
  twice = np.concatenate([Z, Z], 1)
  assert latent_quality(twice, Y) == pytest.approx(eta, rel=1e-9)


def test_modalities_are_joined_and_flattened():
  parts = {"b": Z[:, :1], "a": Z[:, 1:].reshape(40, 2, 1)}
  assert latent_quality(parts, Y) == pytest.approx(latent_quality(Z, Y))
  both = np.stack([Y, 2 * Y], 1)
  assert latent_quality(Z, both) == pytest.approx(2.5 * latent_quality(Z, Y))


def test_fewer_rows_than_columns_have_the_smallest_solution():
  x, y = RNG.normal(size=(3, 5)), RNG.normal(size=(3, 1))
  np.testing.assert_allclose(least_squares(x, y), np.linalg.pinv(x) @ y, rtol=1e-8)
  many, target = RNG.normal(size=(9, 4)), RNG.normal(size=(9, 2))
  np.testing.assert_allclose(least_squares(many, target), np.linalg.pinv(many) @ target, rtol=1e-8)
  shrunk = [least_squares(x, y, 0.3), np.linalg.solve(x.T @ x + 0.9 * np.eye(5), x.T @ y)]
  np.testing.assert_allclose(*shrunk, rtol=1e-8)


def test_classes_are_judged_by_their_share_of_errors():
  label = np.array([3, 3, 7, 7, 7])
  x = np.array([[0.0], [0.1], [1.0], [0.9], [0.0]])
  assert latent_quality(x, label) == pytest.approx(0.2)
  assert latent_quality(x[:, :0], label) == pytest.approx(0.4)  # the majority
  assert latent_quality(x, label, heldout=(x[:2], label[2:4])) == pytest.approx(1.0)


def test_logistic_regression_by_hand():
  """One column of 0 and 1 has the class frequencies: odds 1 / 3 at 0, 3 at 1, so slope log 9."""
  x, label = np.repeat([[0.0], [1.0]], 4, 0), np.array([0, 0, 0, 1, 0, 1, 1, 1])
  kernel, bias = logistic_regression(x - 0.5, label, 2)
  assert kernel[0, 1] - kernel[0, 0] == pytest.approx(np.log(9), rel=1e-4)
  assert bias[0, 1] - bias[0, 0] == pytest.approx(0.0, abs=1e-4)
  assert latent_quality(x, label) == pytest.approx(0.25)


def test_logistic_regression_has_no_gradient_left():
  """(1/N) x' (p - onehot) + 2 lambda W = 0 and mean (p - onehot) = 0, with columns of any scale."""
  x, label, ridge = Z * np.array([[1.0, 1e-3, 50.0]]), RNG.integers(0, 3, 40), 0.01
  kernel, bias = logistic_regression(x, label, 3, ridge)
  p = np.exp(x @ kernel + bias)
  residual = p / p.sum(-1, keepdims=True) - np.eye(3)[label]
  slope = x.T @ residual / 40 + 2 * ridge * kernel
  np.testing.assert_allclose(slope / np.abs(x).max(0)[:, None], 0.0, atol=1e-5)
  np.testing.assert_allclose(residual.mean(0), 0.0, atol=1e-5)
  assert all(
    np.array_equal(a, b) for a, b in zip((kernel, bias), logistic_regression(x, label, 3, ridge))
  )


def test_classes_that_least_squares_confuses_are_told_apart():
  """Three clusters on a line: their one-hot labels are masked by least squares, not by logits."""
  label = np.repeat([0, 1, 2], 20)
  x = 4.0 * label[:, None] + RNG.uniform(-1, 1, (60, 1))
  onehot = np.eye(3)[label] - 1 / 3
  masked = (x - x.mean()) @ least_squares(x - x.mean(), onehot)
  assert np.mean(masked.argmax(-1) != label) == pytest.approx(1 / 3, abs=0.05)
  assert latent_quality(x, label) == 0.0


def test_invertible_maps_change_no_class():
  label = (Z[:, 0] + 0.8 * RNG.normal(size=40) > 0).astype(int)
  a = np.diag([1.0, 0.1, 10.0]) @ (RNG.normal(size=(3, 3)) + 3 * np.eye(3))
  new = RNG.normal(size=(500, 3))
  eta = latent_quality(Z, label, heldout=(new, (new[:, 0] > 0).astype(int)))
  moved = latent_quality(Z @ a + 1, label, heldout=(new @ a + 1, (new[:, 0] > 0).astype(int)))
  assert 0 < eta < 0.5 and moved == pytest.approx(eta, abs=0.003)


def test_more_columns_than_rows_separate_any_classes():
  label = np.array([0, 1, 2, 1])
  assert latent_quality(RNG.normal(size=(4, 9)), label) == 0.0


def test_an_unfinished_fit_is_an_error(monkeypatch):
  monkeypatch.setitem(LBFGS, "maxiter", 1)
  with pytest.raises(RuntimeError, match="not converged"):
    latent_quality(Z, (Z[:, 0] > 0).astype(int), ridge=1e-3)


def test_features_of_an_encoder():
  """What `train.predict_split` collects goes in as it is: {modality: float32 [N, D]}."""
  label = np.array([0, 1] * 10)
  parts = {
    "image": np.stack([label, 0 * label], 1).astype(np.float32),
    "audio": RNG.normal(size=(20, 3, 2)).astype(np.float32),
  }
  assert latent_quality({"image": parts["image"]}, label.astype(np.int32)) == 0.0
  assert latent_quality(parts, label, heldout=(parts, 1 - label)) == 1.0


@pytest.mark.parametrize(
  "change, match",
  [
    ({"ridge": -1.0}, "ridge"),
    ({"label": Y[:5]}, "40 rows of features, 5 labels"),
    ({"features": {}}, "no modality"),
    ({"heldout": (Z[:, :2], Y)}, "3 columns, held-out features 2"),
    ({"label": np.zeros((40, 2), int)}, "one class per row"),
    (
      {"label": np.zeros(40, int), "heldout": (Z[:1], np.ones(1, int))},
      "held-out rows have a class",
    ),
  ],
)
def test_refusals(change, match):
  with pytest.raises(ValueError, match=match):
    latent_quality(**{"features": Z, "label": Y, **change})


# The generator.


def by_linear_algebra(subset, w, num, width):
  """Conditional variance of y from the covariance of one coordinate, C C^T."""
  mixing = (1 - w) * np.eye(num)
  mixing[:, 0] += w
  cov, index = mixing @ mixing.T, [i - 1 for i in subset]
  cross = cov[index].sum(1)
  return width * (cov.sum() - cross @ np.linalg.pinv(cov[np.ix_(index, index)]) @ cross)


@pytest.mark.parametrize("num", [1, 2, 4, 5])
@pytest.mark.parametrize("w", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_closed_form_of_every_subset(num, w):
  found = {}
  for subset in masks.every_subset(range(1, num + 1)):
    found[subset] = _provable.overlapping_risk(subset, w, num_modalities=num, width=7)
    expected = by_linear_algebra(subset, w, num, 7)
    assert found[subset] == pytest.approx(expected, abs=1e-9)
  for subset, risk in found.items():
    for more in set(range(1, num + 1)) - set(subset):
      assert found[tuple(sorted((*subset, more)))] <= risk + 1e-9
  variance = 7 * ((1 + (num - 1) * w) ** 2 + (num - 1) * (1 - w) ** 2)
  assert found[()] == pytest.approx(variance)


def test_data_reach_the_closed_form():
  arrays = [_provable.overlapping_arrays(s, 4000, 0.5, width=4) for s in (0, 1)]
  assert sorted(arrays[0]) == ["label", "m1", "m2", "m3", "m4"]
  for names in (("m1",), ("m2", "m3")):
    fit, judge = ({m: a[m] for m in names} for a in arrays)
    subset = [int(m[1]) for m in names]
    eta = latent_quality(fit, arrays[0]["label"], heldout=(judge, arrays[1]["label"]))
    # Four standard deviations of a mean of 4000 squares.
    assert eta == pytest.approx(_provable.overlapping_risk(subset, 0.5, width=4), rel=0.09)
  found = np.corrcoef(arrays[0]["m1"][:, 0], arrays[0]["m2"][:, 0])[0, 1]
  assert found == pytest.approx(_provable.overlapping_correlation(0.5), abs=0.04)


def test_full_overlap_makes_all_equal():
  x, y = _provable.overlapping(RNG.normal(size=(3, 5, 2)), 1.0)
  np.testing.assert_array_equal(x, np.broadcast_to(x[:1], x.shape))
  np.testing.assert_allclose(y, 3 * x[0].sum(-1))


@pytest.mark.parametrize(
  "call, match",
  [
    (lambda: _provable.overlapping_risk((1,), 1.5), r"overlap must lie in \[0, 1\]"),
    (lambda: _provable.overlapping_risk((0, 1), 0.5), r"1\.\.4"),
    (lambda: _provable.overlapping(np.zeros((2, 3)), 0.5), r"\[M, N, D\]"),
  ],
)
def test_generator_refusals(call, match):
  with pytest.raises(ValueError, match=match):
    call()
