"""What a method may cost over a plain step, in floating-point operations, where encoders dominate."""

import functools

import jax
import pytest

from experiments.bench import method_overhead
from mmfuse import methods, train
from mmfuse.core import Clock

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def flops(name, model="mlp", **problem):
  """Of one compiled step."""
  return cost(name, model, **problem).flops


@functools.cache
def cost(name, model="mlp", modalities=2, batch_size=64, classes=7):
  """XLA's, of one compiled step."""
  cfg = method_overhead.Config(
    model=model, modalities=modalities, batch_size=batch_size, classes=classes
  )
  built, batch = method_overhead.build(cfg)
  method = methods.METHODS[name](built)
  state = jax.eval_shape(functools.partial(train.initial, method), jax.random.key(0), batch)
  clock = Clock(*(jax.numpy.int32(v) for v in (0, 0, 0, 1, 1)))
  step = jax.jit(method.phases[-1].step, compiler_options=QUICK)
  return train.cost_of(step.lower(state, batch, jax.random.key(1), clock).compile())


@pytest.mark.parametrize(
  "name, modalities",
  [
    ("uniform", 2),
    ("mimo", 2),
    ("uw", 2),
    ("ogm", 2),
    ("mslr", 2),
    ("agm", 2),
    ("mmpareto", 2),
    ("upgrad", 2),
    ("mmpareto", 4),
    pytest.param("mimo", 4, marks=pytest.mark.slow),
    pytest.param("upgrad", 4, marks=pytest.mark.slow),
  ],
)
def test_no_more_than_its_limit(name, modalities):
  ratio = flops(name, modalities=modalities) / flops("joint", modalities=modalities)
  assert 0.99 < ratio <= method_overhead.LIMITS[name].flops


def test_noise_on_convolutions():
  """The noise is as large as the parameters: cheap where each is used at many positions."""
  ratio = flops("ogm_ge", model="conv1d") / flops("joint", model="conv1d")
  assert 1.0 < ratio <= method_overhead.LIMITS["ogm_ge"].flops


def test_prototypes_of_many_classes():
  """309 classes at batch 64: distances to all prototypes, no loop over rows or classes."""
  ratio = flops("pmr", classes=309) / flops("joint", classes=309)
  assert 1.0 < ratio <= method_overhead.LIMITS["pmr"].flops


@pytest.mark.parametrize(
  "name",
  [
    "mimo",
    "mmpareto",
    *(pytest.param(n, marks=pytest.mark.slow) for n in ("ogm_ge", "agm", "pmr", "upgrad", "bogc")),
  ],
)
def test_activations_are_held_once(name):
  ratio = cost(name, "lenet").temp_bytes / cost("joint", "lenet").temp_bytes
  assert 0.9 < ratio <= method_overhead.LIMITS[name].memory


def test_noise_is_drawn_where_it_is_added():
  ratio = cost("ogm_ge", model="conv1d").temp_bytes / cost("joint", model="conv1d").temp_bytes
  assert 1.0 < ratio <= method_overhead.LIMITS["ogm_ge"].memory


def test_a_gaussian_head_is_cheap_beside_encoders_and_runs_once():
  """Two square layers, forward and twice backward: the pass that fits the probes runs neither again."""
  joint, found = flops("joint", "lenet"), flops("dmrnet", "lenet")
  assert 1.0 < found / joint <= method_overhead.LIMITS["dmrnet"].flops
  width = 6 * 2**5 + 6 * 2**3  # features of the two LeNets
  layers = 2 * 3 * 2 * 64 * width**2
  assert layers < found - joint < 1.25 * layers


def test_a_student_costs_its_teachers_forward_pass_more():
  """MMANet's second phase, on the LeNet pair: the teacher's pass, the similarities, a second head."""
  ratio = flops("mmanet", "lenet") / flops("joint", "lenet")
  assert 1.25 < ratio <= method_overhead.LIMITS["mmanet"].flops == 1.45


def test_a_step_waits_for_no_host():
  """No implicit transfer between host and device inside a compiled step, whatever the kind."""
  cfg = method_overhead.Config(model="mlp", batch_size=8)
  built, batch = method_overhead.build(cfg)
  for name in ("mimo", "ogm_ge", "upgrad", "famo", "pmr"):
    method = methods.METHODS[name](built)
    state = train.initial(method, jax.random.key(0), batch)
    args = (batch, jax.random.key(1), Clock(*(jax.numpy.int32(v) for v in (0, 0, 0, 1, 1))))
    step = jax.jit(method.phases[-1].step, compiler_options=QUICK)
    compiled = step.lower(state, *args).compile()
    with jax.transfer_guard("disallow"):
      state, _ = compiled(state, *args)
    assert not any(w in compiled.as_text() for w in ("outfeed", "infeed", "host_callback"))
