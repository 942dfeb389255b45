"""Modalities that learn at different speeds, and their page of the index.

A method that is a rule or a loss is made of it here, where its row is; what is more (hooks, several
phases, a model of its own) has a builder `name(model, tx, **hyper)`, whose losses and state machines
stand beside it. One that is undefined for a model or for data raises `core.Unavailable`.
"""

from mmfuse import balancing as rules
from mmfuse import objectives
from mmfuse.methods._entry import CLASSES, LABELLED, Entry, row
from mmfuse.methods._made import of_loss, of_modulator, of_rule
from mmfuse.methods.balancing._agm import agm
from mmfuse.methods.balancing._amco import amco
from mmfuse.methods.balancing._bogc_laplace import on_features
from mmfuse.methods.balancing._gblending import gblending
from mmfuse.methods.balancing._greedy import greedy
from mmfuse.methods.balancing._lfm import lfm
from mmfuse.methods.balancing._linear_probe import joint_then_probe
from mmfuse.methods.balancing._mla import mla
from mmfuse.methods.balancing._mmcosine import mmcosine
from mmfuse.methods.balancing._mses import mses
from mmfuse.methods.balancing._mslr import mslr
from mmfuse.methods.balancing._opm import opm
from mmfuse.methods.balancing._pmr import pmr
from mmfuse.methods.balancing._reconboost import reconboost
from mmfuse.methods.balancing._relearning import relearning
from mmfuse.methods.balancing._tcmax import tcmax
from mmfuse.methods.balancing._umt import umt
from mmfuse.methods.balancing._valuation import valuation_modality
from mmfuse.methods.balancing._valuation import valuation_sample

__all__ = [
  "agm",
  "amco",
  "gblending",
  "greedy",
  "joint_then_probe",
  "lfm",
  "mla",
  "mmcosine",
  "mses",
  "mslr",
  "opm",
  "pmr",
  "reconboost",
  "relearning",
  "tcmax",
  "umt",
  "valuation_modality",
  "valuation_sample",
]


def _rule(rule, kind, fidelity, key, grid=None, *, parts=1) -> Entry:
  """A row for a rule on the fused and uni-modal losses."""
  return row(of_rule(rule, parts), kind, fidelity, key, grid, of=rule)


# fmt: off
ROWS = {
  # Modulators: the gradients of each encoder are scaled.
  "ogm": row(
    of_modulator(rules.ogm), "modulator", "parity", "peng2022balanced",
    {"alpha": (0.1, 0.3, 0.8)}, of=rules.ogm, tasks=LABELLED),
  "ogm_ge": row(
    of_modulator(rules.ogm_ge), "modulator", "parity", "peng2022balanced",
    {"alpha": (0.1, 0.3, 0.8)}, of=rules.ogm_ge, tasks=LABELLED),
  "agm_light": row(
    of_modulator(rules.agm_light, lambda model: {"modalities": model.modalities}),
    "modulator", "equations", "li2023boosting",
    {"alpha": (0.3, 1.0, 2.5)}, of=rules.agm_light, tasks=LABELLED),
  "mslr": row(
    mslr, "modulator", "equations", "yao2022modality", tasks=LABELLED, reads_validation=True),
  "mses": row(mses, "modulator", "equations", "fujimori2019modality", reads_validation=True),
  # Weightings: the losses are weighed, one backward pass.
  "mimo": _rule(
    rules.mimo, "weighting", "reconstructed", "fernando2025mimo", {"lam": (0.3, 1.0, 3.0)}),
  "stch": _rule(rules.stch, "weighting", "parity", "lin2024smooth", {"mu": (0.3, 1.0, 3.0)}),
  "uw": _rule(rules.uw, "weighting", "equations", "kendall2018multi"),
  "imtl_l": _rule(rules.imtl_l, "weighting", "equations", "liu2021towards"),
  "famo": _rule(rules.famo, "weighting", "parity", "liu2023famo"),
  "dwa": _rule(
    rules.dwa, "weighting", "equations", "liu2019end", {"temperature": (1.0, 2.0, 4.0)}),
  "rlw": _rule(rules.rlw, "weighting", "equations", "lin2022reasonable"),
  "gblending": row(
    gblending, "weighting", "equations", "wang2020makes", reads_validation=True),
  # Aggregators: the gradients of the losses are combined.
  "mmpareto": _rule(
    rules.mmpareto, "aggregator", "parity", "wei2024mmpareto", {"gamma": (1.0, 1.5, 2.0)}),
  "mgda": _rule(rules.mgda, "aggregator", "parity", "sener2018multi"),
  "pcgrad": _rule(rules.pcgrad, "aggregator", "parity", "yu2020gradient"),
  "cagrad": _rule(
    rules.cagrad, "aggregator", "parity", "liu2021conflict", {"c": (0.2, 0.5, 0.8)}),
  "gradnorm": _rule(
    rules.gradnorm, "aggregator", "equations", "chen2018gradnorm", {"alpha": (0.5, 1.5, 3.0)}),
  "imtl_g": _rule(rules.imtl_g, "aggregator", "parity", "liu2021towards"),
  "nash_mtl": _rule(rules.nash_mtl, "aggregator", "parity", "navon2022multi"),
  "aligned_mtl": _rule(rules.aligned_mtl, "aggregator", "parity", "senushkin2023independent"),
  "fairgrad": _rule(
    rules.fairgrad, "aggregator", "parity", "ban2024fair", {"alpha": (0.5, 1.0, 2.0)}),
  "graddrop": _rule(
    rules.graddrop, "aggregator", "equations", "chen2020just", {"leak": (0.0, 0.25, 0.5)}),
  "gradvac": _rule(
    rules.gradvac, "aggregator", "equations", "wang2021gradient", {"beta": (0.01, 0.1, 0.5)}),
  "moco": _rule(
    rules.moco, "aggregator", "parity", "fernando2023mitigating", {"gamma": (0.01, 0.1, 1.0)}),
  "modo": _rule(
    rules.modo, "aggregator", "equations", "chen2023three", {"gamma": (1e-3, 1e-2, 1e-1)},
    parts=rules.PARTS),
  "sdmgrad": _rule(
    rules.sdmgrad, "aggregator", "equations", "xiao2023direction", {"lam": (0.1, 0.3, 1.0)},
    parts=rules.PARTS),
  "excess_mtl": _rule(
    rules.excess_mtl, "aggregator", "equations", "he2024robust",
    {"step_size": (0.001, 0.01, 0.1)}),
  "upgrad": _rule(rules.upgrad, "aggregator", "equations", "quinton2024jacobian"),
  "dualproj": _rule(rules.dualproj, "aggregator", "equations", "lopez2017gradient"),
  "bogc": _rule(
    rules.bogc, "aggregator", "reconstructed", "guo2025bogc",
    {"evidence_scale": (0.01, 1.0, 100.0)}),
  "bogc_laplace": row(
    on_features, "aggregator", "reconstructed", "guo2025bogc",
    {"evidence_scale": (0.01, 1.0, 100.0)}, of=rules.bogc_laplace, tasks=CLASSES),
  # Objectives: other losses, or losses with a memory.
  "agm": row(
    agm, "objective", "parity", "li2023boosting", {"alpha": (0.3, 1.0, 2.5)}, tasks=LABELLED),
  "pmr": row(
    pmr, "objective", "parity", "fan2023pmr", {"alpha": (0.3, 1.0, 3.0)}, tasks=CLASSES),
  "mbsd": row(
    of_loss(objectives.mbsd), "objective", "parity", "xu2025balancebenchmark", as_in=True,
    of=objectives.mbsd, tasks=CLASSES),
  "cml": row(
    of_loss(objectives.cml), "objective", "parity", "ma2023calibrating",
    {"lam": (0.03, 0.1, 0.3)}, of=objectives.cml, tasks=CLASSES),
  "tcmax": row(tcmax, "objective", "equations", "yu2026multimodal", tasks=CLASSES),
  "lfm": row(
    lfm, "objective", "equations", "yang2024facilitating", {"a1": (0.05, 0.2, 0.5)},
    tasks=CLASSES, reads_validation=True),
  # Forward: other features or another head while training.
  "mmcosine": row(
    mmcosine, "forward", "parity", "xu2023mmcosine", {"scale": (5.0, 15.0, 30.0)},
    tasks=LABELLED),
  "opm": row(
    opm, "forward", "equations", "wei2024onthefly", {"q_base": (0.2, 0.4, 0.6)},
    tasks=LABELLED),
  "amco": row(
    amco, "forward", "equations", "zhou2023adaptive", {"sigma": (0.5, 0.6, 0.8)},
    tasks=CLASSES),
  "greedy": row(greedy, "forward", "equations", "wu2022characterizing"),
  # Data: other rows, or rows without some of their modalities.
  "valuation_sample": row(
    valuation_sample, "data", "equations", "wei2024enhancing", tasks=CLASSES),
  "valuation_modality": row(
    valuation_modality, "data", "equations", "wei2024enhancing",
    {"part_ratio": (0.1, 0.2, 0.5)}, tasks=CLASSES),
  # Schedules: stages, teachers, weights that start again.
  "umt": row(
    umt, "schedule", "equations", "du2023unimodal", {"scaling": (1.0, 10.0, 30.0)}),
  "mla": row(
    mla, "schedule", "parity", "zhang2024multimodal", {"alpha": (0.1, 1.0, 10.0)},
    tasks=CLASSES),
  "relearning": row(
    relearning, "schedule", "equations", "wei2024diagnosing", tasks=CLASSES,
    reads_validation=True),
  "reconboost": row(
    reconboost, "schedule", "parity", "hua2024reconboost", {"boost_rate": (0.01, 0.1, 1.0)},
    tasks=CLASSES),
  "linear_probe": row(
    joint_then_probe, "schedule", "equations", "alain2016understanding",
    {"share": (0.5, 0.7, 0.9)}),
}
# fmt: on
