"""The multimodal RBM on parity cases. Their columns are samples; modalities are x and z."""

import jax
import jax.numpy as jnp

from mmfuse.methods.generative.mrbm import _contrastive, _enumerate, _mrbm, _multi_prediction
from mmfuse.methods.generative.mrbm._mrbm import HIDDEN, Factors

from ._cases import Case

NAMES = ("x", "z")


def _rows(x):
  return jnp.asarray(x, jnp.float32).T


def _params(case: Case) -> dict:
  w = {
    k.removeprefix("w."): jnp.asarray(v, jnp.float32)
    for k, v in case.inputs.items()
    if k.startswith("w.")
  }
  params = {m: {"kernel": w[f"v{m}hid"], "bias": w[f"v{m}bias"]} for m in NAMES}
  return {**params, HIDDEN: {"bias": w["hidbias"]}}


def _visible(case: Case) -> dict:
  return {m: _rows(case.inputs[m]) for m in NAMES}


def _factors(case: Case) -> Factors:
  up = {m: case.hp.get(f"upfactor_{m}", 1.0) for m in NAMES}
  return Factors(up, case.hp.get("downfactor", 1.0))


def _named(gradient) -> dict:
  return {
    **{f"grad.v{m}hid": gradient[m]["kernel"] for m in NAMES},
    **{f"grad.v{m}bias": gradient[m]["bias"] for m in NAMES},
    "grad.hidbias": gradient[HIDDEN]["bias"],
  }


def _given(case: Case, pattern: str):
  """The numbers of a case as a function of layer and step: u.<pattern>."""
  count = 1 + max(case.hp["kcd"], 0)

  def uniform(layer, i, shape):
    letter = "h" if layer == HIDDEN else layer
    keys = [f"u.{pattern.format(i=k, layer=letter)}" for k in range(count)]
    found = [_rows(case.inputs[k]) if k in case.inputs else jnp.full(shape, jnp.nan) for k in keys]
    return jnp.stack(found)[i]

  return uniform


def _prediction(case: Case) -> dict:
  hp, factors = case.hp, _factors(case)
  share = {m: hp[f"p{m}"] for m in NAMES}
  revealed = {
    m: _multi_prediction.reveal(
      share[m], jnp.asarray(case.inputs[f"u.mask_scale_{m}"]), _rows(case.inputs[f"u.mask_{m}"])
    )
    for m in NAMES
  }
  visible = _visible(case)
  objective = lambda params, nstop: _multi_prediction.multi_prediction(
    params,
    visible,
    revealed,
    jnp.ones(visible["x"].shape[0]),
    share=share,
    steps=int(hp["nmf"]),
    nstop=nstop,
    sparsity_weight=hp["sp_reg"],
    sparsity_target=hp["sp_target"],
    l2=hp["l2reg"],
    factors=factors,
  )
  return jax.jit(jax.grad(objective))(_params(case), jnp.int32(hp["nstop"]))


def multi_prediction(case: Case) -> dict:
  return _named(_prediction(case))


def _regularised(case: Case, positive, negative):
  hp, difference = case.hp, jax.tree.map(jnp.subtract, positive, negative)
  active = positive[HIDDEN]["bias"]
  running = _contrastive.running_mean(jnp.zeros_like(active), active, hp["sp_damp"])
  return _contrastive.with_regularisers(
    difference, _params(case), running, hp["sp_reg"], hp["sp_target"], hp["l2reg"]
  )


def percloss(case: Case) -> dict:
  params, factors = _params(case), _factors(case)
  visible = _contrastive.binarise(_visible(case), _given(case, "sample_{layer}"))
  # The chain "zx" samples z given x.
  uniforms = {"z": _given(case, "zx_{layer}{i}"), "x": _given(case, "xz_{layer}{i}")}
  weight = jnp.ones(visible["x"].shape[0])
  found = _contrastive.percloss(params, visible, weight, int(case.hp["kcd"]), uniforms, factors)
  return _named(_regularised(case, *found))


def _sampled(case: Case):
  params, visible = _params(case), _visible(case)
  hidden = None
  if case.hp["usepcd"]:
    count = case.inputs["u.pcd_init_h"].shape[1]
    start = _given(case, "pcd_init_{layer}")
    hidden = _contrastive.init_chains(params, count, start).hidden
  positive, negative, _ = _contrastive.contrastive(
    params,
    visible,
    jnp.ones(visible["x"].shape[0]),
    int(case.hp["kcd"]),
    _given(case, "sample_{layer}"),
    _given(case, "neg{i}_{layer}"),
    hidden,
    _factors(case),
  )
  return _regularised(case, positive, negative)


def contrastive(case: Case) -> dict:
  return _named(_sampled(case))


def hybrid(case: Case) -> dict:
  alpha = case.hp["alpha"]
  mix = lambda a, b: alpha * a + (1 - alpha) * b
  return _named(jax.tree.map(mix, _prediction(case), _sampled(case)))


def infer(case: Case) -> dict:
  params, visible, factors = _params(case), _visible(case), _factors(case)
  rows = visible["x"].shape[0]
  out = {}
  for key in case.outputs:
    kind, _, rest = key.partition("_from_")
    if not rest:
      continue
    present, steps = rest.split("_")
    mask = {m: jnp.full(rows, m == present) for m in NAMES}
    h, prob = _mrbm.infer(
      params, visible, mask, int(steps), factors=factors, tolerance=case.hp["stop_tol"]
    )
    out[key] = (h if kind == "h" else prob[kind]).T
  joint = _mrbm.hidden_given(params, visible, factors)
  states = {m: _rows(case.inputs[f"{m}b"]) for m in NAMES}
  return {
    **out,
    "h_joint": joint.T,
    **{f"{m}_recon": _mrbm.visible_given(params, joint, m, factors).T for m in NAMES},
    "free_energy": _mrbm.free_energy(params, states, factors),
    "energy": _mrbm.energy(params, states, _rows(case.inputs["hb"])),
  }


def exact(case: Case) -> dict:
  found = _enumerate.exact(_params(case), _visible(case))
  return {
    "neg_free_energy": found["neg_free_energy"],
    "logZ": found["log_z"],
    "log_joint": found["log_joint"],
    "log_z_given_x": found["log_conditional"]["z"],
    "log_x_given_z": found["log_conditional"]["x"],
    "vi_loss": found["vi_loss"],
    "ml_loss": found["ml_loss"],
    "model_variation_of_information": found["variation_of_information"],
    "model_entropy_x": found["entropies"]["x"],
    "model_entropy_z": found["entropies"]["z"],
    "model_entropy_joint": found["entropy_joint"],
  }
