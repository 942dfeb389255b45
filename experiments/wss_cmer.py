"""wss_cmer: lesions found from tags, by activation maps that turn with the image and agree over modalities.

Claim: maps that were learnt from tags alone are a poor mask; equivariance (ER) and agreement of modalities
  (CMER), then of their predictions (KL), make them a better one, at about the same accuracy on the tags.
Paper: Patel and Dolz, Medical Image Analysis 2022. Its tables were not visible to us.
Command: python -m experiments.wss_cmer --part cam          (and er, cmer, full, supervised)
         python -m experiments.wss_cmer --smoke             (--full: width 16, 600 steps)
Expected: CE < + ER <= + ER + CMER (+ KL) by several points of DSC; the full objective at least 3 points above
  cross-entropy alone, mean over modalities.
Setting: the set `lesions` of each seed (slices, masks, initialisation, batches, transforms), 400 / 100 / 200,
  as they are; width 8, batch 16, 300 steps, flips and quarter turns, Adam; the epoch of the best validation
  accuracy on tags. A threshold for each modality by the Dice on validation masks, which no step sees.
  `supervised` are the same networks on the masks themselves, last state: what tags could at best be worth.
Results: experiments/results/wss_cmer.md, wss_cmer.json (a part adds its rows), wss_cmer_<part>.png.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tyro

from experiments import _common, _wss_supervised
from mmfuse import data, encoders, fusion, methods, metrics, report, train
from mmfuse.data import _phantom
from mmfuse.names import SEGMENTATION

MODALITIES = ("a", "b")
SUPERVISED = "supervised"
# {part: (words, options)}: what is added from line to line
PARTS: dict[str, tuple[str, dict[str, float]]] = {
  "cam": ("cam (CE alone)", {"equivariance": 0.0, "cross": 0.0, "mutual": 0.0}),
  "er": ("+ ER", {"cross": 0.0, "mutual": 0.0}),
  "cmer": ("+ ER + CMER", {"mutual": 0.0}),
  "full": ("+ ER + CMER + KL", {}),
  SUPERVISED: ("supervised", {}),
}
LEAST = 3.0  # points of DSC that `full` is to be above `cam` by
SHOWN = 8  # slices of a picture
SMOKE, SMOKED = (12, 8, 8), ("cam", "full", SUPERVISED)  # rows and parts of a smoke run


@dataclasses.dataclass(frozen=True)
class Config:
  part: str = "all"
  """One of cam, er, cmer, full, supervised, or all of them."""
  seeds: int = 5
  width: int = 8
  steps: int = 300
  batch_size: int = 16
  rate: float = 3e-3
  levels: int = 4
  full: bool = False
  """Width 16 and 600 steps."""
  smoke: bool = False


def make_splits(seed: int, smoke: bool, masks: bool) -> data.Splits:
  """The slices of a seed, labelled by tag or, with `masks`, by mask."""
  counts = SMOKE if smoke else _phantom.ROWS[32]
  table = _phantom.lesions_table(seed, counts)
  if masks:
    table = dataclasses.replace(table, label=table.truth["mask"], task=SEGMENTATION)
  return table.splits(scale=dict.fromkeys(MODALITIES, "raw"))


def make_method(cfg: Config, part: str):
  """The method of a part."""
  tx = train.adam(cfg.rate)
  if part == SUPERVISED:
    return _wss_supervised.supervised(MODALITIES, cfg.width, cfg.levels, tx)
  model = fusion.LateFusion(dict.fromkeys(MODALITIES, encoders.MLP(2, ())), 2)
  sizes = {"width": cfg.width, "levels": cfg.levels}
  return methods.METHODS["wss_cmer"](model, tx=tx, **sizes, **PARTS[part][1])


def run(cfg: Config, seed: int, splits: data.Splits, method: Any, part: str):
  """({score: value} on test rows, what a picture shows of them)."""
  result = train.fit(
    method, splits, steps=cfg.steps, batch_size=cfg.batch_size, seeds=[seed], diagnose=False
  )
  state = result.state()
  found, parts = metrics.weak_segmentation(), {n: splits.parts[n] for n in ("validation", "test")}
  outputs = {n: train.predict_split(method, state, p) for n, p in parts.items()}
  scores = found.compute(outputs, parts)
  if part != SUPERVISED:
    tagged = metrics.weak_segmentation(tagged=True).compute(outputs, parts)
    scores |= {f"tagged/{k}": v for k, v in tagged.items()}
    for name, p in parts.items():
      right = np.asarray(outputs[name].logits).argmax(-1) == p.label
      scores[f"accuracy/{name}"] = float(right.mean())
    for m in MODALITIES:
      right = metrics.said_classes(outputs["test"], m) == parts["test"].label
      scores[f"accuracy/{m}"] = float(right.mean())
    scores["epoch"] = float(result.logs[0].selected_epoch)
  return scores, pictures(outputs["test"], parts["test"], scores)


def pictures(outputs, split, scores) -> list[tuple[str, list[np.ndarray]]]:
  """Lines of a grid: images, masks, and by modality its map and what it says, of slices with a lesion."""
  mask = masks_of(split)
  rows = np.flatnonzero((mask == 1).any((1, 2)))[:SHOWN]
  pick = lambda x: [np.asarray(x)[i] for i in rows]
  lines = [(m, pick(split.inputs[m][..., 0])) for m in MODALITIES]
  lines.append(("mask", pick(mask == 1)))
  for m in MODALITIES:
    maps, said = outputs.aux["cams"][m], metrics.said_classes(outputs, m)
    found = metrics.thresholded(maps, said, scores[f"map_threshold/{m}"]) * (mask >= 0)
    lines += [(f"map of {m}", pick(maps[..., 1])), (f"said by {m}", pick(found))]
  return [(words, [np.asarray(p, np.float32) for p in shown]) for words, shown in lines]


def masks_of(split) -> np.ndarray:
  """int [N, H, W]."""
  return np.asarray(split.truth["mask"]).astype(int)


def measure(cfg: Config) -> dict[str, list[dict[str, float]]]:
  """{part: scores, a seed each}; draws seed 0 of a full run."""
  names = list(PARTS) if cfg.part == "all" else [cfg.part]
  if unknown := sorted(set(names) - set(PARTS)):
    raise ValueError(f"no part {unknown[0]!r}; there are: {', '.join(PARTS)}, all")
  names = list(SMOKED) if cfg.smoke else names
  out: dict[str, list[dict[str, float]]] = {}
  for part in names:
    method, out[part] = make_method(cfg, part), []
    for seed in range(cfg.seeds):
      splits = make_splits(seed, cfg.smoke, part == SUPERVISED)
      scores, lines = run(cfg, seed, splits, method, part)
      out[part].append(scores)
      said = ", ".join(f"{m} {scores[f'dice_of_slices/{m}']:.3f}" for m in MODALITIES)
      print(f"{part}, seed {seed}: DSC {said}", flush=True)
      if seed == 0 and not cfg.smoke:
        report.samples(lines, _common.RESULTS / f"wss_cmer_{part}.png")
  return out


def column(runs: Sequence[Mapping[str, float]], name: str, scale: float = 100) -> str:
  """Mean and interval over seeds; n/a where a seed has no such score."""
  values = [r[name] for r in runs if name in r and np.isfinite(r[name])]
  return _common.figure(report.estimate(values), scale=scale) if len(values) == len(runs) else "n/a"


COLUMNS: list[tuple[str, str, float]] = [
  *((f"DSC {m}", f"dice_of_slices/{m}", 100.0) for m in MODALITIES),
  ("DSC, mean", "dice_of_slices", 100.0),
  *((f"ASSD {m}", f"assd/{m}", 1.0) for m in MODALITIES),
  *((f"empty {m}", f"empty_predictions/{m}", 1.0) for m in MODALITIES),
  *((f"DSC {m}, tag given", f"tagged/dice_of_slices/{m}", 100.0) for m in MODALITIES),
  *((f"accuracy {m}", f"accuracy/{m}", 100.0) for m in MODALITIES),
  ("accuracy, both", "accuracy/test", 100.0),
]


def scores_table(found: Mapping[str, list]) -> str:
  """A line a part."""
  rows = [
    [PARTS[p][0], *(column(found[p], name, scale) for _, name, scale in COLUMNS)]
    for p in PARTS
    if p in found
  ]
  return _common.table(["networks", *(words for words, _, _ in COLUMNS)], rows)


PAIRS = (("er", "cam"), ("cmer", "er"), ("full", "cmer"), ("full", "cam"), (SUPERVISED, "full"))


def contrasts(found: Mapping[str, list]) -> str:
  """Paired differences in points of DSC, and whether what was claimed holds."""
  names = [*(f"dice_of_slices/{m}" for m in MODALITIES), "dice_of_slices"]
  rows, said = [], ""
  for one, other in PAIRS:
    if one not in found or other not in found:
      continue
    of = lambda part, name: [r[name] for r in found[part]]
    less = [report.estimate(_common.less(of(one, n), of(other, n))) for n in names]
    words = f"{PARTS[one][0]} less {PARTS[other][0]}"
    rows.append([words, *(_common.figure(d, "+", 100) for d in less)])
    mean = less[-1]
    if (one, other) == ("full", "cam") and mean is not None:
      clear = mean.half is not None and mean.mean - mean.half > 0
      holds = "holds" if clear and 100 * mean.mean >= LEAST else "does not hold: a null"
      said = (
        f"\n\nAt least {LEAST:.0f} points above cross-entropy alone, mean over modalities, interval "
        f"above 0: {holds}."
      )
  header = ["paired difference, points of DSC", *MODALITIES, "mean"]
  return (_common.table(header, rows) if rows else "") + said


def page(cfg: Config, found: Mapping[str, list], commands: Sequence[str]) -> str:
  """All of it."""
  text = _common.heading(
    "# wss_cmer: where lesions are, learnt from whether there are any",
    "`, `".join(commands),
    f"0..{cfg.seeds - 1}",
  )
  return text + (
    "\nTest slices with a lesion; DSC and accuracy in percent, ASSD in pixels, mean ± half-width of the "
    "95 % t interval over seeds (slices, initialisation, batches, transforms). A place is a lesion where the "
    "network of the modality says that there is one and its normalised map exceeds the threshold of "
    "that modality, which has the best DSC on validation masks; `tag given`: the tag says whether there "
    "is one. An empty prediction counts 0 in DSC and has no ASSD; how many there are stands under "
    "`empty`. `supervised` sees masks in training and has no tag to say.\n\n"
    + scores_table(found)
    + "\n\n"
    + contrasts(found)
    + "\n"
  )


def merged(cfg: Config, found: dict[str, list]) -> tuple[dict[str, list], list[str]]:
  """(all parts of this setting that were measured, their commands), kept beside the page."""
  setting = {k: v for k, v in dataclasses.asdict(cfg).items() if k not in ("part", "smoke")}
  path, kept = _common.RESULTS / "wss_cmer.json", {"setting": setting, "parts": {}, "commands": {}}
  if path.exists() and (stored := json.loads(path.read_text()))["setting"] == setting:
    kept = stored
  command = _common.command("wss_cmer", cfg)
  kept["parts"] |= found
  kept["commands"] |= dict.fromkeys(found, command)
  _common.write_json("wss_cmer", kept, cfg.smoke)
  order = [p for p in PARTS if p in kept["parts"]]
  commands = list(dict.fromkeys(kept["commands"][p] for p in order))
  return {p: kept["parts"][p] for p in order}, commands


def main(argv=None) -> None:
  """One page, of all parts that were measured so far."""
  cfg = tyro.cli(Config, args=argv)
  train.enable_compilation_cache()
  if cfg.full:
    cfg = dataclasses.replace(cfg, width=16, steps=600)
  if cfg.smoke:
    cfg = dataclasses.replace(cfg, seeds=2, steps=2, width=2, levels=2, batch_size=6)
  found = measure(cfg)
  if cfg.smoke:
    every, commands = found, [_common.command("wss_cmer", cfg)]
  else:
    every, commands = merged(cfg, found)
  _common.write("wss_cmer", page(cfg, every, commands), cfg.smoke)


if __name__ == "__main__":
  main()
