"""Error rates of presentation attack detection (live or attack), on the host."""

import math

import numpy as np

VARIANTS = ("iso", "released", "released_old")


def _rate(part: int, whole: int) -> float:
  return part / whole if whole else math.nan


def _six(value: float) -> float:
  return float(f"{value:.6f}")


def acer(logits, label, *, live: int = 1, variant: str = "iso") -> dict[str, float]:
  r"""Classification error rates of live samples and attacks, and their mean, ACER.

  apcer = attacks called live / attacks; bpcer = live called attack / live; acer = (apcer + bpcer) / 2
  (ISO/IEC 30107-3). NaN where there is no attack, or no live sample: such a rate is undefined.

  Args:
    logits: [B, 2], the larger one is the prediction (ties: the lower class).
    label: int [B] of 0 and 1.
    live: the label of live samples, default 1.
    variant: "iso"; or what the helpers of Wei et al. (MMANet, DMRNet) return: "released" has
      accuracy (6 decimals), apcer, npcer, acer with the two names **swapped** (its apcer is live
      called attack / live) and 0 where a class is not there; "released_old" has accuracy, far, frr,
      hter = (far + frr) / 2, which is the true ACER, and apcer = live called attack / called attack,
      npcer = attacks called live / called live, which are not ISO's; all 6 decimals, and 1 where any
      divisor is 0.

  Raises:
    ValueError: no rows, unequal lengths, other than two columns, labels outside 0 and 1, an unknown
      variant.
  """
  if variant not in VARIANTS:
    raise ValueError(f"unknown variant {variant!r}; expected one of: {', '.join(VARIANTS)}")
  logits, label = np.asarray(logits), np.asarray(label)
  if logits.ndim != 2 or logits.shape[1] != 2 or label.shape != logits.shape[:1] or not len(label):
    raise ValueError(
      f"acer expects logits [B, 2] and label [B], got {list(logits.shape)} and {list(label.shape)}"
    )
  if not np.isin(label, (0, 1)).all() or live not in (0, 1):
    raise ValueError("acer expects labels of 0 and 1, live among them")
  truth, said = label == live, logits.argmax(1) == live
  missed, false = int((truth & ~said).sum()), int((~truth & said).sum())
  lives, attacks = int(truth.sum()), int((~truth).sum())
  accuracy = float((truth == said).mean())
  live_error, attack_error = _rate(missed, lives), _rate(false, attacks)
  mean = (live_error + attack_error) / 2
  if variant == "iso":
    return {"accuracy": accuracy, "apcer": attack_error, "bpcer": live_error, "acer": mean}
  accuracy = _six(accuracy)
  if variant == "released":
    filled = (0.0, 0.0, 0.0) if math.isnan(mean) else (live_error, attack_error, mean)
    return dict(zip(("accuracy", "apcer", "npcer", "acer"), (accuracy, *filled)))
  called_live = int(said.sum())
  rates = (
    attack_error,
    live_error,
    mean,
    _rate(missed, len(said) - called_live),
    _rate(false, called_live),
  )
  old = [1.0 if any(map(math.isnan, rates)) else _six(rate) for rate in rates]
  return dict(zip(("accuracy", "far", "frr", "hter", "apcer", "npcer"), (accuracy, *old)))
