"""Missing modality prediction: is a predicted embedding better than none, where most rows lack a modality?

Claim (paper): with training and test rows that lack modalities, predicting the embedding of an absent one
  from the others' beats leaving it out. Here 70 % of the training rows lose one of two modalities, tables of
  10 to 90 % of the test rows do (one stored table a rate). `missing_prediction` is VICReg, prediction_mse the
  squared error alone. zero_fill is the joint loss on the same Transformers, trained whole; frozen_zero_fill
  has the same two phases and frozen weights, and zeros where a prediction would be: what differs is the
  prediction. mean_fill and modality dropout on those Transformers, and the joint row's own encoders, beside.
Paper: Kim and Kim, ECCV 2024; its tables (MM-IMDb, Food-101, Hateful Memes) were not seen: n/a.
Command: python -m experiments.missing_prediction                  (halves of digits)
         python -m experiments.missing_prediction --part emoji     (two drawings of an emoji)
         python -m experiments.missing_prediction --full           (20 seeds, twice the epochs, nine rates)
         python -m experiments.missing_prediction --smoke          (few rows, random content)
Expected: on digits missing_prediction less zero fill beyond noise at 70 and 90 %, or the null with its
  interval; VICReg within noise of the squared error.
Results: experiments/results/missing_prediction.md and experiments/results/missing_prediction_emoji.md.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import jax
import numpy as np
import tyro

from experiments import _common
from mmfuse import encoders, fusion, masks, methods, objectives, protocol, report, train
from mmfuse.core import Method
from mmfuse.methods.missing import missing_prediction
from mmfuse.protocol._missing import split
from mmfuse.tree import FUSED, HEADS

TRAIN = 0.7  # of the training rows lose a modality
RATES = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the test rows
FULL_RATES = tuple(round(0.1 * i, 1) for i in range(1, 10))
SETTINGS: dict[str, dict[str, Any]] = {
  "digits": {"data": "digits", "modalities": ("A", "B"), "seeds": 5, "epochs": 40},
  "emoji": {"data": "emoji", "seeds": 3, "epochs": 15},
}
CONTRASTS = (
  ("missing_prediction", "zero_fill"),
  ("missing_prediction", "frozen_zero_fill"),
  ("missing_prediction", "mean_fill_tokens"),
  ("missing_prediction", "dropout_tokens"),
  ("missing_prediction", "prediction_mse"),
  ("prediction_mse", "zero_fill"),
)


@dataclasses.dataclass(frozen=True)
class Config:
  part: Literal["digits", "emoji"] = "digits"
  """Which data."""
  seeds: int | None = None
  """Default 5 of digits, 3 of emoji."""
  full: bool = False
  """20 seeds, twice the epochs, nine rates."""
  smoke: bool = False


def on_tokens(model: fusion.LateFusion) -> fusion.LateFusion:
  """`model` with the Transformers of `missing_prediction`, less prompts and predictors."""
  transformer = encoders.Transformer(32, 2, 4, pool="mean", position_std=1.0)
  encoder = encoders.Chain((encoders.Tokens(), transformer))
  return dataclasses.replace(model, encoders=dict.fromkeys(model.modalities, encoder))


def _swapped(name: str) -> methods.Entry:
  """A row of the index on these Transformers."""
  return methods.Entry(lambda model, tx: methods.METHODS[name].build(on_tokens(model), tx))


@dataclasses.dataclass(frozen=True)
class _Moves:
  """Encoders and their own heads; or, with `biases`, biases and heads."""

  biases: bool

  def __call__(self, path: str) -> bool:
    if self.biases:
      return path.startswith(f"{HEADS}/") or path.endswith("/bias")
    return not path.startswith(f"{HEADS}/{FUSED}/")


def frozen_zero_fill(model: Any, tx: Any) -> Method:
  """The phases of `missing_prediction` without its prediction: an absent embedding is zero."""
  model = on_tokens(model)
  first = train.supervised(
    model,
    objectives.unimodal,
    train.moving_only(tx, _Moves(False)),
    predict=fusion.mean_logits,
    name="encoders",
  )
  second = train.supervised(model, objectives.fused, train.moving_only(tx, _Moves(True)))
  return train.then(first, second, 0.5)


PREDICTIONS = {  # whose predictions are measured
  "missing_prediction": missing_prediction,
  "prediction_mse": functools.partial(missing_prediction, std=0.0, cov=0.0),
}
OWN = {
  "zero_fill": _swapped("joint"),
  "mean_fill_tokens": _swapped("mean_fill"),
  "dropout_tokens": _swapped("dropout"),
  "frozen_zero_fill": methods.Entry(frozen_zero_fill),
  "prediction_mse": methods.Entry(PREDICTIONS["prediction_mse"]),
}


def settings(cfg: Config) -> dict[str, Any]:
  """Of the shared protocol."""
  chosen = SETTINGS[cfg.part]
  seeds = cfg.seeds or (20 if cfg.full else chosen["seeds"])
  return {
    **chosen,
    "seeds": seeds,
    "epochs": chosen["epochs"] * (2 if cfg.full else 1),
    "trial_seeds": 1,
    "optimizer": "adam",
    "missing": True,
    "missing_train": TRAIN,
    "missing_rate": FULL_RATES if cfg.full else RATES,
    "smoke": cfg.smoke,
  }


def compared(cfg: Config) -> _common.Compared:
  """All rows under the shared protocol."""
  own = {k: v for k, v in OWN.items() if not cfg.smoke or k in ("zero_fill", "prediction_mse")}
  rows = ("joint", "missing_prediction")
  return _common.compared("missing_prediction", own=own, methods=rows, **settings(cfg))


def curve(records: list[dict], method: str) -> dict[float, dict[int, float]]:
  """{rate: {seed: test score in percent}}, rate 0 first."""
  found: dict[float, dict[int, float]] = {}
  for r in records:
    if r["method"] == method:
      scores = {0.0: r["test"][FUSED], **{e["rate"]: e["score"] for e in r["missing_rates"]}}
      for rate, score in scores.items():
        if score is not None:
          found.setdefault(rate, {})[r["seed"]] = 100 * score
  return found


def differences(a: Mapping, b: Mapping) -> dict[float, report.Difference | None]:
  """a less b at each rate, paired over the seeds that both have; Holm over the rates."""
  found = {}
  for rate in a:
    seeds = sorted(set(a[rate]) & set(b.get(rate, {})))
    found[rate] = report.paired([a[rate][s] for s in seeds], [b[rate][s] for s in seeds])
  adjusted = report.holm({q: d.p for q, d in found.items() if d is not None and d.p is not None})
  return {
    q: d._replace(p_holm=adjusted.get(q)) if d is not None else None for q, d in found.items()
  }


def tables(records: list[dict]) -> str:
  """The scores over the missing rate, and the differences that the claim is about."""
  curves = {m: curve(records, m) for m in dict.fromkeys(r["method"] for r in records)}
  rates = list(next(iter(curves.values())))
  head = ["missing rate", *(f"{q:g}" for q in rates)]
  scores = [
    [m, *(_common.interval(c[q].values()) if q in c else "n/a" for q in rates)]
    for m, c in curves.items()
  ]
  mark = lambda d: _common.figure(d, "+") + "*" * bool(d and d.significant)
  contrasts = [
    [f"{a} less {b}", *(mark(d) for d in differences(curves[a], curves[b]).values())]
    for a, b in CONTRASTS
    if a in curves and b in curves
  ]
  return "\n\n".join((_common.table(head, scores), _common.table(head, contrasts)))


def explained(method: Method, state: Any, test: Any) -> dict[str, float]:
  """{"A from B": R^2 of the predicted embedding over complete test rows, all coordinates together}."""
  batch = train.to_batch(test)
  mask = masks.full(batch.mask, batch.weight.shape[0])
  complete = np.all([np.asarray(v) for v in batch.mask.values()], axis=0)
  said = jax.device_get(jax.jit(method.predict)(state, batch.inputs, mask))
  found = {}
  for m, predictions in said.aux["predictions"].items():
    h = said.features[m][complete]
    total = np.square(h - h.mean(0)).sum()
    for n, g in predictions.items():
      found[f"{m} from {n}"] = float(1 - np.square(h - g[complete]).sum() / total)
  return found


def predicted(cfg: Config, records: list[dict]) -> str:
  """R^2 of both losses, of the very models of the table: same splits, rates, seeds."""
  asked = protocol.Compare(methods=("joint",), **{**settings(cfg), "smoke": False})
  splits = split(asked, protocol.load_table(dataclasses.replace(asked, smoke=cfg.smoke)), None)
  model = protocol.make_model(splits)
  found: dict[str, dict[str, list[float]]] = {}
  for name, build in PREDICTIONS.items():
    method = build(model, train.adam())
    for r in (r for r in records if r["method"] == name):
      result = train.fit(
        method,
        splits.sealed(),
        epochs=1 if cfg.smoke else asked.epochs,
        seeds=[r["seed"]],
        learning_rate=r["learning_rate"],
        select="mean/accuracy",
        diagnose=False,
      )
      for pair, value in explained(method, result.state(), splits.test).items():
        found.setdefault(name, {}).setdefault(pair, []).append(value)
  pairs = list(found["missing_prediction"])
  cell = lambda values: _common.figure(report.estimate(values), scale=100)
  rows = [[name, *(cell(of[p]) for p in pairs)] for name, of in found.items()]
  return _common.table(["R^2 of embeddings, percent", *pairs], rows)


def main(argv=None) -> None:
  """Runs a part and writes its page."""
  cfg = tyro.cli(Config, args=argv)
  train.enable_compilation_cache()
  found = compared(cfg)
  command = _common.command("missing_prediction", cfg)
  seeds = sorted({r["seed"] for r in found.records})
  text = _common.heading(
    f"# missing_prediction: {cfg.part}, {TRAIN:.0%} of the training rows lack a modality",
    command,
    f"{seeds[0]}..{seeds[-1]}",
  )
  text += (
    "\nTest accuracy in percent over the share of test rows that lose a modality, mean ± half-width of the "
    "95 % t interval over seeds; differences in points, paired by seed; * = beyond noise (Holm-adjusted "
    "p < .05 over the rates of a line). zero_fill, mean_fill_tokens, dropout_tokens: `joint`, `mean_fill`, "
    "`dropout` on the Transformers of missing_prediction; frozen_zero_fill: its phases with zeros in place "
    "of predictions; prediction_mse: std = cov = 0. Paper: n/a.\n\n"
  )
  text += f"{tables(found.records)}\n\n{predicted(cfg, found.records)}\n\n"
  text += f"## All rows\n\n{report.markdown(found.summary)}\n"
  name = "missing_prediction" + ("" if cfg.part == "digits" else f"_{cfg.part}")
  _common.write(name, text, cfg.smoke)


if __name__ == "__main__":
  main()
