"""Late average: what is averaged, by hand."""

import jax.numpy as jnp
import numpy as np

from mmfuse.core import Outputs
from mmfuse.methods import METHODS
from mmfuse.methods.ensembles._late_average import average_predictions

from .. import _small


def test_late_average_of_classes_is_the_mean_probability_of_the_present_modalities():
  logits = {
    "a": jnp.log(jnp.array([[0.8, 0.2], [0.8, 0.2], [0.8, 0.2]])),
    "b": jnp.log(jnp.array([[0.4, 0.6], [0.4, 0.6], [0.4, 0.6]])),
  }
  mask = {"a": jnp.array([True, True, False]), "b": jnp.array([True, False, False])}
  mean = average_predictions(Outputs(None, logits, {}, {}), mask).logits
  np.testing.assert_allclose(np.exp(mean), [[0.6, 0.4], [0.8, 0.2], [1.0, 1.0]], rtol=1e-6)


def test_other_labels_are_averaged_themselves():
  given = _small.batch()
  for task, same in (("classification", False), ("regression", True)):
    method = METHODS["late_average"](_small.model(), 0.1, task=task)
    outputs = method.predict(_small.start(method), given.inputs, given.mask)
    both = given.mask["a"] & given.mask["b"]
    mean = sum(outputs.unimodal_logits.values()) / 2
    assert np.allclose(outputs.logits[both], mean[both]) == same
