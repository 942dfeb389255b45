"""THE INDEX: every method by name, its builder, paper, kind, fidelity and file.

A builder is `build(model, learning_rate, *, tx=None, **hyper) -> Method`; `tx` replaces the shared
optimiser (`train.sgd(learning_rate)`). Entries are callable: `METHODS["mimo"](model, 1e-2)`.
"""

import importlib.resources
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import optax

from mmfuse import balancing, fusion, objectives, schemes, train
from mmfuse.core import Method, Outputs
from mmfuse.names import CLASSIFICATION, MULTILABEL, REGRESSION, closest

ALL_TASKS = (CLASSIFICATION, MULTILABEL, REGRESSION)  # with a label a row
LABELLED = (CLASSIFICATION, MULTILABEL)
CLASSES = (CLASSIFICATION,)


class Entry(NamedTuple):
  """A row of the index."""

  build: Callable[..., Method]
  kind: str  # baseline | modulator | weighting | aggregator | objective | forward | data | schedule | head
  family: str
  fidelity: str  # parity | equations | reconstructed | baseline: what it was checked against
  paper: str
  file: str
  cite: str = ""  # BibTeX
  grid: Mapping[str, tuple] = MappingProxyType({})  # the hyper-parameter that `--tune 9` searches
  tasks: tuple[str, ...] = ALL_TASKS
  rates: tuple[float, ...] | None = None  # the three to search, of a builder with its own optimiser
  per_modality: bool = False  # a row per modality; `build` takes `modality=`
  reads_validation: bool = False  # validation rows also steer its training, not its selection alone
  by_name: bool = False  # `all` leaves it out: it is no method, but what methods are measured by

  def __call__(self, model: Any, learning_rate: float = 0.03, **hyper) -> Method:
    return self.build(model, learning_rate, **hyper)


def _tx(tx, learning_rate):
  return train.sgd(learning_rate) if tx is None else tx


def _num_objectives(model) -> int:
  return 1 + len(model.modalities)


# Baselines.


def unimodal(model, learning_rate=0.03, *, tx=None, modality=None) -> Method:
  """One modality alone (the first one by default): its encoder and its head."""
  modality = sorted(model.modalities)[0] if modality is None else modality
  return train.supervised(
    model.restrict((modality,)),
    objectives.unimodal,
    _tx(tx, learning_rate),
    predict=lambda o, mask: o._replace(logits=o.unimodal_logits[modality]),
  )


def average_predictions(outputs: Outputs, mask: dict) -> Outputs:
  """log of the mean over present modalities of softmax(z_m) [B, C]; 0 where none is present."""
  return outputs._replace(logits=fusion.mix_experts(outputs.unimodal_logits, mask))


def late_average(model, learning_rate=0.03, *, tx=None, task=CLASSIFICATION) -> Method:
  """Independent uni-modal models, averaged at the end."""
  mean = average_predictions if task == CLASSIFICATION else schemes.mean_logits
  return train.supervised(model, objectives.unimodal, _tx(tx, learning_rate), predict=mean)


def joint(model, learning_rate=0.03, *, tx=None) -> Method:
  """The fused loss alone."""
  return train.supervised(model, objectives.fused, _tx(tx, learning_rate))


def uniform(model, learning_rate=0.03, *, tx=None) -> Method:
  """The plain sum of the fused and all uni-modal losses."""
  return train.supervised(model, objectives.fused_and_unimodal, _tx(tx, learning_rate))


# Modulators: links of the optimiser, on the joint loss.


def ogm(model, learning_rate=0.03, *, tx=None, alpha=0.3, **options) -> Method:
  """On-the-fly gradient modulation of the joint loss, without noise."""
  return train.supervised(
    model,
    objectives.fused,
    optax.chain(balancing.ogm(alpha=alpha, **options), _tx(tx, learning_rate)),
  )


def ogm_ge(model, learning_rate=0.03, *, tx=None, alpha=0.3, **options) -> Method:
  """On-the-fly gradient modulation with generalisation-enhancing noise."""
  return train.supervised(
    model,
    objectives.fused,
    optax.chain(balancing.ogm_ge(alpha=alpha, **options), _tx(tx, learning_rate)),
  )


# Objectives: other losses on the same model.


def _with_loss(loss: Callable[..., Any]) -> Callable[..., Method]:
  def build(model, learning_rate=0.03, *, tx=None, **hyper) -> Method:
    return train.supervised(model, loss(**hyper), _tx(tx, learning_rate))

  build.__doc__ = loss.__doc__
  return build


# Weightings and aggregators: rules on the fused and uni-modal losses.


def _ruled(
  rule: Callable[..., balancing.Aggregator], default_parts: int, on: str
) -> Callable[..., Method]:
  def build(model, learning_rate=0.03, *, tx=None, parts=default_parts, **hyper) -> Method:
    return train.supervised(
      model,
      objectives.fused_and_unimodal,
      _tx(tx, learning_rate),
      aggregator=rule(_num_objectives(model), **hyper),
      parts=parts,
      aggregate_on=on,
    )

  build.__doc__ = rule.__doc__
  return build


def bogc_laplace(model, learning_rate=0.03, *, tx=None, **hyper) -> Method:
  """BOGC on features: the last layers' Laplace posteriors say how far each gradient is trusted."""
  fused = getattr(model, "fusion", None)
  if not isinstance(fused, fusion.Concat | fusion.Sum):
    raise schemes.Unavailable(
      "its posterior is that of linear last layers: needs the fusion concat or sum, "
      f"got {type(fused).__name__}"
    )
  build = _ruled(balancing.bogc_laplace, 1, "features")
  return build(model, learning_rate, tx=tx, **hyper)


def _papers() -> dict[str, str]:
  """{key: BibTeX entry} of papers.bib."""
  text = (importlib.resources.files("mmfuse") / "papers.bib").read_text(encoding="utf-8")
  entries = [e.strip() for e in re.split(r"\n(?=@)", text) if e.strip()]
  return {e[e.index("{") + 1 : e.index(",")]: e for e in entries}


_PAPERS = _papers()


def _row(
  build, kind, fidelity, paper, key="", grid=None, *, of=None, family="balancing", **more
) -> Entry:
  """An entry; its file is that of `of`, by default of the builder."""
  module = (build if of is None else of).__module__
  file = module.removeprefix("mmfuse.").replace(".", "/") + ".py"
  cite = _PAPERS[key] if key else ""
  return Entry(build, kind, family, fidelity, paper, file, cite, grid or {}, **more)


def _rule(rule, kind, fidelity, paper, key, grid=None, *, parts=1, **more) -> Entry:
  """An entry for a rule on the fused and uni-modal losses."""
  return _row(_ruled(rule, parts, "parameters"), kind, fidelity, paper, key, grid, of=rule, **more)


# fmt: off
METHODS: dict[str, Entry] = {
  # Baselines.
  "unimodal": _row(
    unimodal, "baseline", "baseline", "each modality alone", per_modality=True),
  "late_average": _row(
    late_average, "baseline", "baseline", "independent models, averaged"),
  "joint": _row(joint, "baseline", "baseline", "fused loss only"),
  "uniform": _row(uniform, "baseline", "baseline", "sum of fused and uni-modal losses"),
  # Baselines where modalities are missing.
  "dropout": _row(
    schemes.dropout, "baseline", "baseline", "features of uniformly drawn subsets",
    family="missing"),
  "moddrop": _row(
    schemes.moddrop, "forward", "equations", "Neverova et al., TPAMI 2016",
    "neverova2016moddrop", {"drop": (0.2, 0.5, 0.8)}, family="missing"),
  "mean_fill": _row(
    schemes.mean_fill, "baseline", "baseline", "absent features are their training mean",
    family="missing"),
  "custom": _row(
    schemes.custom, "baseline", "baseline", "a model per subset of modalities",
    family="missing", by_name=True),
  # Modulators: the gradients of each encoder are scaled.
  "ogm": _row(
    ogm, "modulator", "parity", "Peng et al., CVPR 2022", "peng2022balanced",
    {"alpha": (0.1, 0.3, 0.8)}, of=balancing.ogm, tasks=LABELLED),
  "ogm_ge": _row(
    ogm_ge, "modulator", "parity", "Peng et al., CVPR 2022", "peng2022balanced",
    {"alpha": (0.1, 0.3, 0.8)}, of=balancing.ogm_ge, tasks=LABELLED),
  "agm_light": _row(
    schemes.agm_light, "modulator", "equations", "Li et al., ICCV 2023", "li2023boosting",
    {"alpha": (0.3, 1.0, 2.5)}, of=balancing.agm_light, tasks=LABELLED),
  "mslr": _row(
    schemes.mslr, "modulator", "equations", "Yao and Mihalcea, Findings of ACL 2022",
    "yao2022modality", tasks=LABELLED, reads_validation=True),
  "mses": _row(
    schemes.mses, "modulator", "equations", "Fujimori et al., ACPR 2019",
    "fujimori2019modality", reads_validation=True),
  # Weightings: the losses are weighed, one backward pass.
  "mimo": _rule(
    balancing.mimo, "weighting", "reconstructed", "Fernando et al., arXiv 2511.06686, 2025",
    "fernando2025mimo", {"lam": (0.3, 1.0, 3.0)}),
  "stch": _rule(
    balancing.stch, "weighting", "parity", "Lin et al., ICML 2024", "lin2024smooth",
    {"mu": (0.3, 1.0, 3.0)}),
  "uw": _rule(
    balancing.uw, "weighting", "equations", "Kendall et al., CVPR 2018", "kendall2018multi"),
  "imtl_l": _rule(
    balancing.imtl_l, "weighting", "equations", "Liu et al., ICLR 2021", "liu2021towards"),
  "famo": _rule(
    balancing.famo, "weighting", "parity", "Liu et al., NeurIPS 2023", "liu2023famo"),
  "dwa": _rule(
    balancing.dwa, "weighting", "equations", "Liu et al., CVPR 2019", "liu2019end",
    {"temperature": (1.0, 2.0, 4.0)}),
  "rlw": _rule(
    balancing.rlw, "weighting", "equations", "Lin et al., TMLR 2022", "lin2022reasonable"),
  "gblending": _row(
    schemes.gblending, "weighting", "equations", "Wang et al., CVPR 2020", "wang2020makes",
    reads_validation=True),
  # Aggregators: the gradients of the losses are combined.
  "mmpareto": _rule(
    balancing.mmpareto, "aggregator", "parity", "Wei and Hu, ICML 2024", "wei2024mmpareto",
    {"gamma": (1.0, 1.5, 2.0)}),
  "mgda": _rule(
    balancing.mgda, "aggregator", "parity", "Sener and Koltun, NeurIPS 2018", "sener2018multi"),
  "pcgrad": _rule(
    balancing.pcgrad, "aggregator", "parity", "Yu et al., NeurIPS 2020", "yu2020gradient"),
  "cagrad": _rule(
    balancing.cagrad, "aggregator", "parity", "Liu et al., NeurIPS 2021", "liu2021conflict",
    {"c": (0.2, 0.5, 0.8)}),
  "gradnorm": _rule(
    balancing.gradnorm, "aggregator", "equations", "Chen et al., ICML 2018", "chen2018gradnorm",
    {"alpha": (0.5, 1.5, 3.0)}),
  "imtl_g": _rule(
    balancing.imtl_g, "aggregator", "parity", "Liu et al., ICLR 2021", "liu2021towards"),
  "nash_mtl": _rule(
    balancing.nash_mtl, "aggregator", "parity", "Navon et al., ICML 2022", "navon2022multi"),
  "aligned_mtl": _rule(
    balancing.aligned_mtl, "aggregator", "parity", "Senushkin et al., CVPR 2023",
    "senushkin2023independent"),
  "fairgrad": _rule(
    balancing.fairgrad, "aggregator", "parity", "Ban and Ji, ICML 2024", "ban2024fair",
    {"alpha": (0.5, 1.0, 2.0)}),
  "graddrop": _rule(
    balancing.graddrop, "aggregator", "equations", "Chen et al., NeurIPS 2020", "chen2020just",
    {"leak": (0.0, 0.25, 0.5)}),
  "gradvac": _rule(
    balancing.gradvac, "aggregator", "equations", "Wang et al., ICLR 2021", "wang2021gradient",
    {"beta": (0.01, 0.1, 0.5)}),
  "moco": _rule(
    balancing.moco, "aggregator", "parity", "Fernando et al., ICLR 2023",
    "fernando2023mitigating", {"gamma": (0.01, 0.1, 1.0)}),
  "modo": _rule(
    balancing.modo, "aggregator", "equations", "Chen et al., NeurIPS 2023", "chen2023three",
    {"gamma": (1e-3, 1e-2, 1e-1)}, parts=balancing.PARTS),
  "sdmgrad": _rule(
    balancing.sdmgrad, "aggregator", "equations", "Xiao et al., NeurIPS 2023",
    "xiao2023direction", {"lam": (0.1, 0.3, 1.0)}, parts=balancing.PARTS),
  "excess_mtl": _rule(
    balancing.excess_mtl, "aggregator", "equations", "He et al., ICML 2024", "he2024robust",
    {"step_size": (0.001, 0.01, 0.1)}),
  "upgrad": _rule(
    balancing.upgrad, "aggregator", "equations", "Quinton and Rey, arXiv 2406.16232, 2024",
    "quinton2024jacobian"),
  "dualproj": _rule(
    balancing.dualproj, "aggregator", "equations", "Lopez-Paz and Ranzato, NeurIPS 2017",
    "lopez2017gradient"),
  "bogc": _rule(
    balancing.bogc, "aggregator", "reconstructed", "Guo et al., arXiv 2505.23071, 2025",
    "guo2025bogc", {"evidence_scale": (0.01, 1.0, 100.0)}),
  "bogc_laplace": _row(
    bogc_laplace, "aggregator", "reconstructed", "Guo et al., arXiv 2505.23071, 2025",
    "guo2025bogc", {"evidence_scale": (0.01, 1.0, 100.0)}, of=balancing.bogc_laplace,
    tasks=CLASSES),
  # Objectives: other losses, or losses with a memory.
  "agm": _row(
    schemes.agm, "objective", "parity", "Li et al., ICCV 2023", "li2023boosting",
    {"alpha": (0.3, 1.0, 2.5)}, tasks=LABELLED),
  "pmr": _row(
    schemes.pmr, "objective", "parity", "Fan et al., CVPR 2023", "fan2023pmr",
    {"alpha": (0.3, 1.0, 3.0)}, tasks=CLASSES),
  "mbsd": _row(
    _with_loss(objectives.mbsd), "objective", "parity", "as in Xu et al., arXiv 2502.10816, 2025",
    "xu2025balancebenchmark", of=objectives.mbsd, tasks=CLASSES),
  "cml": _row(
    _with_loss(objectives.cml), "objective", "parity", "Ma et al., ICML 2023",
    "ma2023calibrating", {"lam": (0.03, 0.1, 0.3)}, of=objectives.cml, tasks=CLASSES),
  "lfm": _row(
    schemes.lfm, "objective", "equations", "Yang et al., NeurIPS 2024", "yang2024facilitating",
    {"a1": (0.05, 0.2, 0.5)}, tasks=CLASSES, reads_validation=True),
  # Forward: other features or another head while training.
  "mmcosine": _row(
    schemes.mmcosine, "forward", "parity", "Xu et al., ICASSP 2023", "xu2023mmcosine",
    {"scale": (5.0, 15.0, 30.0)}, tasks=LABELLED),
  "opm": _row(
    schemes.opm, "forward", "equations", "Wei et al., TPAMI 2024", "wei2024onthefly",
    {"q_base": (0.2, 0.4, 0.6)}, tasks=LABELLED),
  "amco": _row(
    schemes.amco, "forward", "equations", "Zhou et al., ICASSP 2023", "zhou2023adaptive",
    {"sigma": (0.5, 0.6, 0.8)}, tasks=CLASSES),
  "greedy": _row(
    schemes.greedy, "forward", "equations", "Wu et al., ICML 2022", "wu2022characterizing"),
  "i2m2": _row(
    schemes.i2m2, "forward", "parity", "Madaan et al., NeurIPS 2024", "madaan2024jointly",
    tasks=CLASSES, family="fusion"),
  "intra": _row(
    schemes.intra, "forward", "parity", "as in Madaan et al., NeurIPS 2024", "madaan2024jointly",
    tasks=CLASSES, family="fusion"),
  "inter": _row(
    joint, "forward", "equations", "as in Madaan et al., NeurIPS 2024", "madaan2024jointly",
    of=schemes.i2m2, tasks=CLASSES, family="fusion"),  # the joint expert alone is `joint`
  # Data: other rows, or rows without some of their modalities.
  "valuation_sample": _row(
    schemes.valuation_sample, "data", "equations", "Wei et al., CVPR 2024", "wei2024enhancing",
    tasks=CLASSES),
  "valuation_modality": _row(
    schemes.valuation_modality, "data", "equations", "Wei et al., CVPR 2024", "wei2024enhancing",
    {"part_ratio": (0.1, 0.2, 0.5)}, tasks=CLASSES),
  # Schedules: stages, teachers, weights that start again.
  "umt": _row(
    schemes.umt, "schedule", "equations", "Du et al., ICML 2023", "du2023unimodal",
    {"scaling": (1.0, 10.0, 30.0)}),
  "mla": _row(
    schemes.mla, "schedule", "parity", "Zhang et al., CVPR 2024", "zhang2024multimodal",
    {"alpha": (0.1, 1.0, 10.0)}, tasks=CLASSES),
  "relearning": _row(
    schemes.relearning, "schedule", "equations", "Wei et al., ECCV 2024", "wei2024diagnosing",
    tasks=CLASSES, reads_validation=True),
  "reconboost": _row(
    schemes.reconboost, "schedule", "parity", "Hua et al., ICML 2024", "hua2024reconboost",
    {"boost_rate": (0.01, 0.1, 1.0)}, tasks=CLASSES),
  "linear_probe": _row(
    schemes.linear_probe, "schedule", "equations", "Alain and Bengio, arXiv 1610.01644, 2016",
    "alain2016understanding", {"share": (0.5, 0.7, 0.9)}),
  # Generative: a representation learnt without labels, then a head.
  "mdrnn": _row(
    schemes.mdrnn, "schedule", "parity", "Sohn et al., NIPS 2014", "sohn2014improved",
    {"reveal": (0.0, 0.25, 0.5)}, family="generative", rates=(0.03, 0.1, 0.3)),
  "mdrnn_pcd": _row(
    schemes.mdrnn_pcd, "schedule", "parity", "as in Sohn et al., NIPS 2014", "sohn2014improved",
    {"kcd": (1, 5, 10)}, family="generative", rates=(0.03, 0.1, 0.3)),
}

# Fusion heads, each trained as `joint` is; `--fusion` gives any of them to all rows.
_HEADS = {
  "concat": ("parity", "one linear map", ""),
  "early": ("equations", "as in Liang et al., NeurIPS 2021", "liang2021multibench"),
  "sum": ("parity", "one linear map per modality", ""),
  "stack": ("parity", "as in Liang et al., NeurIPS 2021", "liang2021multibench"),
  "gated": ("parity", "as in Peng et al., CVPR 2022", "peng2022balanced"),
  "film": ("parity", "Perez et al., AAAI 2018", "perez2018film"),
  "multiplicative": ("parity", "Jayakumar et al., ICLR 2020", "jayakumar2020multiplicative"),
  "low_rank": ("parity", "Liu et al., ACL 2018", "liu2018efficient"),
  "tensor": ("parity", "Zadeh et al., EMNLP 2017", "zadeh2017tensor"),
  "nl_gate": ("parity", "Wang et al., CVPR 2018", "wang2018nonlocal"),
  "mult": ("parity", "Tsai et al., ACL 2019", "tsai2019multimodal"),
  "bottleneck": ("equations", "Nagrani et al., NeurIPS 2021", "nagrani2021attention"),
  "perceiver": ("equations", "Jaegle et al., ICML 2021", "jaegle2021perceiver"),
  "product_of_experts": ("equations", "Hinton, Neural Computation 2002", "hinton2002training"),
  "gaussian_product": ("parity", "Wu and Goodman, NeurIPS 2018", "wu2018multimodal"),
  "mixture_of_experts": (
    "equations", "Jacobs et al., Neural Computation 1991", "jacobs1991adaptive"),
  "confidence": ("equations", "Zhang et al., ICML 2023", "zhang2023provable"),
  "attention": ("parity", "TorchMultimodal (facebookresearch/multimodal)", ""),
  "deep_set": ("parity", "Zaheer et al., NeurIPS 2017", "zaheer2017deep"),
  "cosine": ("parity", "Xu et al., ICASSP 2023", "xu2023mmcosine"),
  "mmtm": ("equations", "Joze et al., CVPR 2020", "joze2020mmtm"),
}
_HEAD_TASKS = {  # the others are defined for every label
  "product_of_experts": CLASSES, "mixture_of_experts": CLASSES, "confidence": CLASSES,
  "cosine": LABELLED}
HEADS = tuple(fusion.NAMES)
METHODS |= {
  name: _row(schemes.head(name, fusion.NAMES[name]), "head", *_HEADS[name], of=fusion.NAMES[name],
             tasks=_HEAD_TASKS.get(name, ALL_TASKS), family="fusion")
  for name in HEADS
}
# fmt: on

# What `compare` runs unless told otherwise.
DEFAULT = (
  "unimodal",
  "late_average",
  "joint",
  "uniform",
  "ogm_ge",
  "mimo",
  "mmpareto",
  "pcgrad",
  "cagrad",
  "bogc",
)
SMOKE = ("joint", "uniform", "mimo")


def get(name: str) -> Entry:
  """The entry of a name; an unknown one raises ValueError with the closest names."""
  if name in METHODS:
    return METHODS[name]
  raise ValueError(f"unknown method {name!r}; {closest(name, METHODS)}")


def citation(name: str) -> str:
  """BibTeX of a method's paper; "" for a baseline without one."""
  return get(name).cite
