"""Missing modality prediction on parity cases: VICReg, read-only prompts, the predictor, substitution."""

import jax
import jax.numpy as jnp

from mmfuse import objectives
from mmfuse.encoders._attend import attend
from mmfuse.encoders._transformer import attend_read_only
from mmfuse.methods.missing import _prompted

from ._cases import Case


def vicreg(case: Case) -> dict:
  numbers = {k: float(case.hp[k]) for k in ("sim", "std", "cov", "gamma", "eps")}
  loss = lambda x, y: objectives.vicreg_loss(x, y, **numbers)
  x, y = (jnp.asarray(case.inputs[k], jnp.float32) for k in "xy")
  value, (of_x, of_y) = jax.value_and_grad(loss, (0, 1))(x, y)
  return {"loss": value, "grad_x": of_x, "grad_y": of_y}


def read_only_attention(case: Case) -> dict:
  """Tokens, then prompts; who may read whom is asked of the layer itself, by values that name a place."""
  get = lambda k: jnp.asarray(case.inputs[k], jnp.float32)
  tokens, prompts, heads = get("tokens"), get("prompts"), int(case.hp["heads"])
  rows, count = tokens.shape[:2]
  valid = jnp.ones((rows, count), bool)

  def dealt(x):
    deal = lambda w: jnp.einsum("btd,ed->bte", x, get(w)).reshape(*x.shape[:2], heads, -1)
    return deal("wq"), deal("wk"), deal("wv")

  own, asked = dealt(tokens), dealt(prompts)
  both = [attend(*own, valid[:, None]), attend_read_only(asked, own, valid)]
  out = jnp.concatenate(both, 1).reshape(rows, -1, tokens.shape[2])
  total = count + prompts.shape[1]
  place = jnp.broadcast_to(jnp.eye(total)[None, :, None], (rows, total, heads, total))
  named = (*own[:2], place[:, :count]), (*asked[:2], place[:, count:])
  reach = [attend(*named[0], valid[:, None]), attend_read_only(named[1], named[0], valid)]
  seen = jnp.concatenate(reach, 1) > 0  # [B, reader, heads, read]
  return {"out": out, "allow_mask": seen.all((0, 2)).astype(jnp.float32)}


def predictor(case: Case) -> dict:
  w = {k: jnp.asarray(case.inputs[k], jnp.float32) for k in case.inputs}
  layer = lambda i: {"kernel": w[f"w{i}"].T, "bias": w[f"b{i}"]}
  params = {"params": {"up": layer(1), "down": layer(2)}}
  hidden, features = w["w1"].shape[0], w["w2"].shape[0]
  say = lambda a: _prompted.Predictor(hidden, features, a).apply(params, w["x"])
  return {key: say(key.removeprefix("y_")) for key in case.outputs}


def substitution(case: Case) -> dict:
  """Whatever is absent is as all the others predict it; columns of the mask as the inputs stand."""
  names = [k for k in case.inputs if k != "mask" and not k.startswith("pred_")]
  mask = {m: case.inputs["mask"][:, i] > 0 for i, m in enumerate(names)}
  given = {
    m: {n: jnp.asarray(case.inputs[f"pred_{m}"], jnp.float32) for n in names if n != m}
    for m in names
  }
  h = {m: jnp.asarray(case.inputs[m], jnp.float32) for m in names}
  filled = _prompted.substitute(h, given, mask)
  return {"fused": jnp.concatenate([filled[m] for m in names], 1)}
