"""Multi-modal VAEs on five textured digits: who explains the data, and who agrees on the digit.

Claim: mixtures (MMVAE, MoPoE) generate the other modalities most coherently from one; products (MVAE,
  MVTCAE) reach the higher joint ELBO, and MVAE's inference from one modality is the worst.
Command: python -m experiments.multimodal_vaes --part products     (jmvae, mvae, mvtcae; minutes)
         python -m experiments.multimodal_vaes --part mixtures     (mmvae, mmvae_plus, mopoe)
         python -m experiments.multimodal_vaes --full              (28 x 28, convolutions, K = 10; hours)
         python -m experiments.multimodal_vaes --smoke             (seconds; no file is needed)
Expected: coherence given one modality highest for mixtures and rising with the number given; IWAE above
  ELBO in every row. No FID: Inception's weights cannot be had.
Results: experiments/results/multimodal_vaes_products.md, experiments/results/multimodal_vaes_mixtures.md,
  and a grid of samples of each row beside them
"""

import dataclasses
import json
import pathlib
import shutil
import tempfile
from collections.abc import Sequence
from typing import Literal

import tyro

from experiments import _common
from mmfuse import data, encoders, protocol, report
from mmfuse.names import GENERATION

PARTS = {
  "products": ("jmvae", "mvae", "mvtcae"),
  "mixtures": ("mmvae", "mmvae_plus", "mopoe"),
}
LIKELIHOOD = "laplace:.75"
# Figures of MultiVae's page on PolyMNIST, 28 x 28, 60,000 tuples: coherence given 1, 2, 3, 4.
PAPER = {"mopoe": (66, 77, 81, 83), "mvtcae": (69, 77, 83, 86)}


@dataclasses.dataclass(frozen=True)
class Config:
  part: Literal["products", "mixtures"] = "products"
  """Which rows: each part is a command of its own."""
  seeds: int = 3
  """Runs of every row at the rate chosen for it."""
  epochs: int = 20
  """Passes over the training rows in every run."""
  train_size: int = 2_000
  """Training rows."""
  num_latent: int = 32
  """L; of mmvae_plus half is shared and half private."""
  full: bool = False
  """28 x 28, convolutions, K = 10, 20,000 rows, 100 epochs."""
  smoke: bool = False
  """A generated twin of the data, one epoch, two rows."""


def make_data(cfg: Config) -> data.Table:
  """Five modalities with the encoders of the size asked for."""
  name = "mini_polymnist_28" if cfg.full else "mini_polymnist"
  size = 20_000 if cfg.full and cfg.train_size == Config.train_size else cfg.train_size
  table = data.load(name, **({"fake": True} if cfg.smoke else {"train_size": size}))
  if cfg.smoke:
    table = data.load(table, modalities=table.modalities[:2])
  kind = encoders.Conv2D(128, (32, 64, 128)) if cfg.full else encoders.MLP(128, (128,))
  return data.load(table, task=GENERATION, encoders=dict.fromkeys(table.modalities, kind))


def settings(cfg: Config) -> tuple[str, ...]:
  """`--set` of all rows: L, K and the authors' alpha of mvtcae on PolyMNIST."""
  rows, half = PARTS[cfg.part], cfg.num_latent // 2
  found = [f"{r}.num_latent={half if r == 'mmvae_plus' else cfg.num_latent}" for r in rows]
  if "mmvae" in rows:
    k = 10 if cfg.full else 1
    found += [
      f"mmvae.num_samples={k}",
      f"mmvae_plus.num_samples={k}",
      f"mmvae_plus.num_private={half}",
    ]
  if "mvtcae" in rows:
    found += ["mvtcae.alpha=.8333333"]
  return tuple(found)


def run(cfg: Config, pictures: pathlib.Path | None) -> tuple[report.Summary, list[dict]]:
  """The comparison; grids of samples are copied to `pictures`, if given."""
  rows = PARTS[cfg.part][1:] if cfg.smoke else PARTS[cfg.part]
  chosen = tuple(s for s in settings(cfg) if s.split(".")[0] in rows)
  with tempfile.TemporaryDirectory() as scratch:
    folder = pathlib.Path(scratch) / "run"
    asked = protocol.Compare(
      out=str(folder),
      methods=rows,
      set=chosen,
      likelihood=(LIKELIHOOD,),
      optimizer="adam",
      task=GENERATION,
      seeds=1 if cfg.smoke else cfg.seeds,
      trial_seeds=1,
      tune=1 if cfg.smoke else 3,
      epochs=1 if cfg.smoke else 100 if cfg.full else cfg.epochs,
      batch_size=16 if cfg.smoke else 64,
    )
    summary = protocol.run(
      asked, command=_common.command("multimodal_vaes", cfg), table=make_data(cfg)
    )
    for path in sorted(folder.glob("samples_*.png")) if pictures is not None else ():
      size = "_full" if cfg.full else ""
      shutil.copy(
        path, pictures / f"multimodal_vaes{size}_{path.stem.removeprefix('samples_')}.png"
      )
    return summary, report.read_jsonl(folder / "results.jsonl")


def score_table(records: Sequence[dict]) -> str:
  """A line a row: ELBO and IWAE in nats, coherence and probes in percent."""
  rows = list(dict.fromkeys(r["method"] for r in records))
  scores = lambda row: [r["scores"]["test"] for r in records if r["method"] == row]
  names = list(scores(rows[0])[0])
  given = sorted(n for n in names if n.startswith("coherence/"))
  probes = [n for n in names if n.startswith("probe/")]
  errors = [n for n in names if n.startswith("reconstruction/")]
  mean = lambda values: sum(values) / len(values)

  def line(row):
    runs = scores(row)
    yield row
    yield _common.interval([r["elbo"] for r in runs])
    yield _common.interval([r["iwae"] for r in runs])
    for n in given:
      yield _common.interval([100 * r[n] for r in runs])
    yield _common.interval([100 * mean([r[n] for n in probes]) for r in runs])
    yield _common.interval([mean([r[n] for n in errors]) for r in runs])

  heads = ["row", "ELBO", "IWAE(64)", *(f"coherence given {n.split('/')[1]}" for n in given)]
  return _common.table((*heads, "probe, mean", "squared error, mean"), map(list, map(line, rows)))


def paper_table() -> str:
  """What MultiVae's page says of PolyMNIST itself: other backgrounds, 28 x 28, 60,000 rows."""
  rows = [(name, *map(str, values)) for name, values in PAPER.items()]
  return _common.table(("paper, PolyMNIST", *(f"given {k}" for k in range(1, 5))), rows)


def main(argv=None) -> None:
  """Runs and writes the tables."""
  cfg = tyro.cli(Config, args=argv)
  pictures = None if cfg.smoke else _common.RESULTS
  if pictures is not None:
    pictures.mkdir(exist_ok=True)
  summary, records = run(cfg, pictures)
  claim = f"# multimodal_vaes: {cfg.part} on {summary.info['name']}\n\n{report.caption(summary)}"
  heading = _common.heading(
    claim, summary.info["command"], json.dumps(sorted({r["seed"] for r in records}))
  )
  name = f"multimodal_vaes_{cfg.part}{'_full' if cfg.full else ''}"
  text = f"{heading}\n{score_table(records)}\n\n{paper_table()}\n\n{report.markdown(summary)}\n"
  _common.write(name, text, cfg.smoke)


if __name__ == "__main__":
  main()
