"""The slow half of `check_method`: whole runs, stopped, on four devices, several seeds at once."""

import contextlib
import tempfile
from typing import Any

import jax
from jax.sharding import AxisType

from mmfuse.core import Method
from mmfuse.train._check_trees import demand_same
from mmfuse.train._fit import fit

DEVICES, EPOCHS, CLOSE = 4, 2, 1e-3


class _Stopped(Exception):
  pass


def check(method: Method, splits: Any, batch_size: int) -> None:
  """Raises MethodError where a run depends on being stopped, on devices or on company."""
  size = max(DEVICES, batch_size - batch_size % DEVICES)
  options: dict[str, Any] = {
    "epochs": {p.name: EPOCHS for p in method.phases},
    "batch_size": size,
    "diagnose": False,
    "loop": "scan",
  }
  whole = fit(method, splits, **options).states
  _check_resume(method, splits, whole, options)
  if len(jax.devices()) >= DEVICES:
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(AxisType.Auto,))
    spread = fit(method, splits, mesh=mesh, **options).states
    demand_same(_weights(whole), _weights(spread), "four devices differ from one", rtol=CLOSE)
  if not any(f is not None for p in method.phases for f in (p.begin, p.epoch_end, p.rows)):
    apart, together = (
      fit(method, splits, seeds=2, together=t, **options).states for t in (False, True)
    )
    words = "seeds trained together differ from separate ones"
    demand_same(_weights(apart), _weights(together), words, rtol=CLOSE)


def _weights(states: Any) -> Any:
  return jax.device_get((states.params, states.stats))


def _check_resume(method: Method, splits: Any, whole: Any, options: dict[str, Any]) -> None:
  """Stopped after the first epoch of the last phase, then continued."""
  last = method.phases[-1].name

  def stop(entry):
    if entry["phase"] == last and entry["epoch"] == 1:
      raise _Stopped

  with tempfile.TemporaryDirectory() as folder:
    kept = {"checkpoint_dir": folder, "checkpoint_seconds": 0.0, **options}
    with contextlib.suppress(_Stopped):
      fit(method, splits, on_epoch=stop, **kept)
    found = fit(method, splits, **kept).states
  demand_same(
    jax.device_get(found), jax.device_get(whole), "a continued run differs from a whole one"
  )
