"""Records by hand for the tests of the report."""


def record(method, seed=0, fused=0.5, *, fold=None, test=None, **changed):
  """A whole record with two modalities; `test` and `validation` default to `fused` everywhere."""
  scores = {"fused": fused, "audio": fused, "image": fused}
  return {
    "method": method,
    "seed": seed,
    "fold": fold,
    "metric": "accuracy",
    "selected_epoch": 3,
    "learning_rate": 0.03,
    "tuning": {"rates": [0.01, 0.03, 0.1], "trials": [], "hyper": {}, "edge": False, "spread": 0.1},
    "validation": scores,
    "test": scores if test is None else test,
    "scores": {"test": {"macro_f1": fused - 0.1}},
    "contribution": {"audio": 0.1, "image": 0.2},
    "seconds_per_step": 0.01,
    "relative_step_time": 1.25,
    "parameters": 1234,
    "gradient_evaluations": 1_200_000,
    "config_hash": "c",
    "data_fingerprint": "d1",
    "versions": {"jax": "0.10.2"},
    **changed,
  }


def rows(**scores):
  """{method: one fused score per seed} as records."""
  return [record(m.replace("__", "/"), s, x) for m, xs in scores.items() for s, x in enumerate(xs)]


NOISY = {
  "joint": [0.50, 0.52, 0.49, 0.51, 0.50],
  "uniform": [0.51, 0.50, 0.52, 0.49, 0.50],
  "better": [0.60, 0.63, 0.58, 0.62, 0.60],
  "worse": [0.40, 0.43, 0.38, 0.41, 0.41],
}
