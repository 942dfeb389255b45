"""THE INDEX: every method by name, its builder, paper, kind, fidelity and file.

A builder is `build(model, learning_rate, *, tx=None, **hyper) -> Method`; `tx` replaces the shared
optimiser (`train.sgd(learning_rate)`). Entries are callable: `METHODS["mimo"](model, 1e-2)`.
"""

import difflib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mmfuse import balancing, objectives, train
from mmfuse.core import Method, Outputs

ALL_TASKS = ("classification", "multilabel", "regression")
LABELLED = ("classification", "multilabel")


class Entry(NamedTuple):
  """A row of the index."""

  build: Callable[..., Method]
  kind: str  # baseline | modulator | weighting | aggregator
  family: str
  fidelity: str  # parity | equations | reconstructed | baseline: what it was checked against
  paper: str
  file: str
  cite: str = ""  # BibTeX
  grid: Mapping[str, tuple] = MappingProxyType({})  # the hyper-parameter that `--tune 9` searches
  tasks: tuple[str, ...] = ALL_TASKS
  rates: tuple[float, ...] | None = None  # the three to search, of a builder with its own optimiser
  per_modality: bool = False  # a row per modality; `build` takes `modality=`

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
  names = sorted(outputs.unimodal_logits)
  present = jnp.stack([mask[m] for m in names])[..., None]
  chances = jnp.stack([jax.nn.log_softmax(outputs.unimodal_logits[m]) for m in names])
  count = jnp.maximum(present.sum(0), 1)
  mean = jax.nn.logsumexp(jnp.where(present, chances, -jnp.inf), axis=0) - jnp.log(count)
  return outputs._replace(logits=jnp.where(present.any(0), mean, 0.0))


def average_logits(outputs: Outputs, mask: dict) -> Outputs:
  """The mean of the present modalities' outputs: for multi-label logits and regression."""
  names = sorted(outputs.unimodal_logits)
  present = jnp.stack([mask[m] for m in names])[..., None]
  total = jnp.where(present, jnp.stack([outputs.unimodal_logits[m] for m in names]), 0.0).sum(0)
  return outputs._replace(logits=total / jnp.maximum(present.sum(0), 1))


def late_average(model, learning_rate=0.03, *, tx=None, task="classification") -> Method:
  """Independent uni-modal models, averaged at the end."""
  mean = average_predictions if task == "classification" else average_logits
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


# Weightings and aggregators: rules on the fused and uni-modal losses.


def _ruled(rule: Callable[..., balancing.Aggregator]) -> Callable[..., Method]:
  def build(model, learning_rate=0.03, *, tx=None, parts=1, **hyper) -> Method:
    return train.supervised(
      model,
      objectives.fused_and_unimodal,
      _tx(tx, learning_rate),
      aggregator=rule(_num_objectives(model), **hyper),
      parts=parts,
    )

  build.__doc__ = rule.__doc__
  return build


_OGM = """@inproceedings{peng2022balanced,
  title={Balanced Multimodal Learning via On-the-fly Gradient Modulation},
  author={Peng, Xiaokang and Wei, Yake and Deng, Andong and Wang, Dong and Hu, Di},
  booktitle={CVPR}, year={2022}
}"""
_MIMO = """@article{fernando2025mimo,
  title={Mitigating Modality Imbalance in Multi-modal Learning via Multi-objective Optimization},
  author={Fernando, Heshan and Ram, Parikshit and Zhou, Yi and Dan, Soham
    and Samulowitz, Horst and Baracaldo, Nathalie and Chen, Tianyi},
  journal={arXiv:2511.06686}, year={2025}
}"""
_STCH = """@inproceedings{lin2024smooth,
  title={Smooth Tchebycheff Scalarization for Multi-Objective Optimization},
  author={Lin, Xi and Zhang, Xiaoyuan and Yang, Zhiyuan and Liu, Fei and Wang,
    Zhenkun and Zhang, Qingfu},
  booktitle={ICML}, year={2024}
}"""
_MMPARETO = """@inproceedings{wei2024mmpareto,
  title={MMPareto: Boosting Multimodal Learning with Innocent Unimodal Assistance},
  author={Wei, Yake and Hu, Di},
  booktitle={ICML}, year={2024}
}"""
_MGDA = """@inproceedings{sener2018multi,
  title={Multi-Task Learning as Multi-Objective Optimization},
  author={Sener, Ozan and Koltun, Vladlen},
  booktitle={NeurIPS}, year={2018}
}"""
_PCGRAD = """@inproceedings{yu2020gradient,
  title={Gradient Surgery for Multi-Task Learning},
  author={Yu, Tianhe and Kumar, Saurabh and Gupta, Abhishek and Levine, Sergey
    and Hausman, Karol and Finn, Chelsea},
  booktitle={NeurIPS}, year={2020}
}"""
_CAGRAD = """@inproceedings{liu2021conflict,
  title={Conflict-Averse Gradient Descent for Multi-task Learning},
  author={Liu, Bo and Liu, Xingchao and Jin, Xiaojie and Stone, Peter and Liu, Qiang},
  booktitle={NeurIPS}, year={2021}
}"""
_BOGC = """@article{guo2025bogc,
  title={Multi-Modal Learning with Bayesian-Oriented Gradient Calibration},
  author={Guo, Peizheng and Wang, Jingyao and Guo, Huijie and Li, Jiangmeng
    and Sun, Chuxiong and Zheng, Changwen and Qiang, Wenwen},
  journal={arXiv:2505.23071}, year={2025}
}"""

_B = "balancing"

# fmt: off
METHODS: dict[str, Entry] = {
  "unimodal": Entry(
    unimodal, "baseline", _B, "baseline", "each modality alone", "methods.py", per_modality=True),
  "late_average": Entry(
    late_average, "baseline", _B, "baseline", "independent models, averaged", "methods.py"),
  "joint": Entry(joint, "baseline", _B, "baseline", "fused loss only", "methods.py"),
  "uniform": Entry(
    uniform, "baseline", _B, "baseline", "sum of fused and uni-modal losses", "methods.py"),
  "ogm": Entry(
    ogm, "modulator", _B, "parity", "Peng et al., CVPR 2022",
    "balancing/_ogm.py", _OGM, {"alpha": (0.1, 0.3, 0.8)}, LABELLED),
  "ogm_ge": Entry(
    ogm_ge, "modulator", _B, "parity", "Peng et al., CVPR 2022",
    "balancing/_ogm.py", _OGM, {"alpha": (0.1, 0.3, 0.8)}, LABELLED),
  "mimo": Entry(
    _ruled(balancing.mimo), "weighting", _B, "reconstructed",
    "Fernando et al., arXiv 2511.06686, 2025",
    "balancing/_mimo.py", _MIMO, {"lam": (0.3, 1.0, 3.0)}),
  "stch": Entry(
    _ruled(balancing.stch), "weighting", _B, "parity", "Lin et al., ICML 2024",
    "balancing/_stch.py", _STCH, {"mu": (0.3, 1.0, 3.0)}),
  "mmpareto": Entry(
    _ruled(balancing.mmpareto), "aggregator", _B, "parity", "Wei and Hu, ICML 2024",
    "balancing/_mmpareto.py", _MMPARETO, {"gamma": (1.0, 1.5, 2.0)}),
  "mgda": Entry(
    _ruled(balancing.mgda), "aggregator", _B, "parity", "Sener and Koltun, NeurIPS 2018",
    "balancing/_mgda.py", _MGDA),
  "pcgrad": Entry(
    _ruled(balancing.pcgrad), "aggregator", _B, "parity", "Yu et al., NeurIPS 2020",
    "balancing/_pcgrad.py", _PCGRAD),
  "cagrad": Entry(
    _ruled(balancing.cagrad), "aggregator", _B, "parity", "Liu et al., NeurIPS 2021",
    "balancing/_cagrad.py", _CAGRAD, {"c": (0.2, 0.5, 0.8)}),
  "bogc": Entry(
    _ruled(balancing.bogc), "aggregator", _B, "reconstructed",
    "Guo et al., arXiv 2505.23071, 2025",
    "balancing/_bogc.py", _BOGC, {"evidence_scale": (0.01, 1.0, 100.0)}),
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
  close = difflib.get_close_matches(name, METHODS, n=3, cutoff=0.4)
  hint = f"closest: {', '.join(close)}" if close else f"available: {', '.join(METHODS)}"
  raise ValueError(f"unknown method {name!r}; {hint}")


def citation(name: str) -> str:
  """BibTeX of a method's paper; "" for a baseline without one."""
  return get(name).cite
