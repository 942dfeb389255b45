"""Which function answers which parity case, and how closely.

A function takes a case and returns {output name: value}; every shape and hyper-parameter comes from
the case. Errors are measured against the largest entry of the output.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from . import (
  _balancing,
  _cmimh,
  _dmrnet,
  _ensembles,
  _family,
  _fusion,
  _i2m2,
  _mdrnn,
  _metrics,
  _missing_prediction,
  _mla,
  _mmanet,
  _mmiai,
  _modality_distillation,
  _modulation,
  _moo,
  _provable,
  _umurl,
  _unseen_interaction,
  _vaes,
  _weightings,
  _wss_cmer,
)
from ._cases import Case


class Kernel(NamedTuple):
  """Claims the cases of `slug` whose names start with a match of `prefix`."""

  slug: str
  prefix: str
  function: Callable[[Case], dict[str, Any]]
  rtol: float = 1e-5  # of the largest entry
  atol: float = 0.0
  loose: dict[str, float] = {}  # {output: rtol} where one output is looser, and why below
  # {start of an output: what it is rounded like}: a number, or the start of the inputs it scales. The
  # tolerance is at least float32 rounding of that: a difference of numbers near 1 has no more digits.
  rounded: dict[str, float | str] = {}
  host: bool = False  # it looks at numbers, so that it cannot be traced

  def run(self, case: Case) -> dict[str, Any]:
    """The outputs of a case, as one program where that can be: it compiles in a tenth of the time."""
    if self.host:
      return self.function(case)
    names = tuple(case.inputs)  # a traced dict would come back in another order

    def traced(*arrays):
      got = self.function(case._replace(inputs=dict(zip(names, arrays))))
      return {key: got[key] for key in case.outputs if key in got}

    return jax.jit(traced)(*case.inputs.values())

  def least(self, output: str, inputs: dict[str, Any]) -> float:
    """The absolute tolerance below which float32 cannot tell."""
    found = [size for start, size in self.rounded.items() if output.startswith(start)]
    largest = lambda start: max(
      (float(np.abs(x).max(initial=0.0)) for n, x in inputs.items() if n.startswith(start)),
      default=0.0,
    )
    sizes = [largest(size) if isinstance(size, str) else size for size in found]
    return float(np.finfo(np.float32).eps) * max(sizes, default=0.0)

  def claims(self, slug: str, name: str) -> bool:
    return slug == self.slug and re.match(self.prefix, name) is not None


DAMPED: dict[str, float | str] = {
  "coeff_": 1.0,
  "ogm_": "grad_",
  "ge_": "grad_",
}  # 1 - tanh, times it
KERNELS = [
  # Noise times (std + 1e-8) is 1e-8 in one case: no absolute tolerance.
  Kernel("ogm_ge", r"concat|sum|equal", _balancing.ogm_ge, rounded=DAMPED, host=True),
  Kernel("ogm_ge", r"bb_", _balancing.ogm_balance_benchmark, rounded=DAMPED),
  Kernel("mmpareto", r"conflict|zero", _balancing.mmpareto, host=True),
  # Opposite vectors: the minimum is 0, what is left is rounding of |g|^2.
  Kernel("mmpareto", r"minnorm", _balancing.min_norm, atol=2e-6, host=True),
  Kernel("mimo", r"trajectory", _balancing.mimo_trajectory),
  Kernel("mimo", r"(?!trajectory)", _balancing.mimo_kernel, host=True),
  # Float32 here, float64 there; the covariance is inverted.
  Kernel("bogc", r"laplace", _balancing.bogc_laplace, rtol=5e-5),
  Kernel("bogc", r"precision", _balancing.bogc_precision),
  Kernel("bogc", r"evidence|edge", _balancing.bogc_evidence),
  Kernel("moo_baselines", r"mgda_[^_]+_m2", _balancing.mgda, atol=1e-6),
  # K >= 3: that solver stops at a change of 1e-5, an iteration earlier or later by rounding.
  Kernel("moo_baselines", r"mgda_[^_]+_m(?!2)", _balancing.mgda, rtol=3e-5, atol=1e-6),
  Kernel("moo_baselines", r"pcgrad", _balancing.pcgrad, atol=1e-6),
  # A general-purpose solver with default tolerances there: the page allows 1e-3 on the direction.
  Kernel("moo_baselines", r"cagrad", _balancing.cagrad, rtol=1e-3, atol=1e-6, loose={"w": 5e-2}),
  Kernel("moo_baselines", r"stch", _balancing.stch),
  # As published: normalised by the sum of the raw weights, whatever its sign.
  Kernel("moo_baselines", r"imtl_g", _moo.imtl_g_case),
  # A convex solver stopped after 20 rounds there: the page allows 1e-3. Our residual is smaller than theirs.
  Kernel("moo_baselines", r"nash", _moo.nash, 1e-3, 1e-5, {"fixed_point_residual": 1.0}),
  Kernel("moo_baselines", r"aligned", _moo.aligned),
  Kernel("moo_baselines", r"fairgrad", _moo.fairgrad),
  Kernel("moo_baselines", r"moco", _weightings.moco_sequence),
  Kernel("moo_baselines", r"famo", _weightings.famo_sequence),
  Kernel("gblending", r"paper", _weightings.gblending_paper, host=True),
  Kernel("gblending", r"bb_", _weightings.gblending_released, host=True),
  Kernel("balance_family", r"cml_", _family.cml),
  Kernel("balance_family", r"mbsd_", _family.mbsd),
  Kernel("balance_family", r"lfm_", _family.lfm),
  Kernel("balance_family", r"mmcosine_", _family.mmcosine),
  Kernel("balance_family", r"reconboost_", _family.reconboost),
  Kernel("balance_family", r"opm_q_", _family.opm_rates),
  Kernel("balance_family", r"amco_schedule", _family.amco_schedule),
  Kernel("agm", r"m\d", _modulation.agm),
  Kernel("agm", r"bb_", _modulation.agm_balance_benchmark),
  Kernel("pmr", r"step_", _modulation.pmr_step),
  Kernel("pmr", r"proto_", _modulation.pmr_prototypes),
  Kernel("balance_family", r"relearning_purity", _modulation.relearning_purity, host=True),
  Kernel("balance_family", r"greedy_speed", _modulation.greedy_speed),
  Kernel("mla", r"gate\d_released", _mla.gate_batch),
  Kernel("mla", r"gate\d_(per_sample|masked)", _mla.gate_sample),
  Kernel("mla", r"gs_paper", _mla.rls),
  Kernel("mla", r"gs_zero", _mla.released, host=True),
  Kernel("mla", r"gs_released_plain", _mla.plain_linear),
  # P is divided entry by entry by alpha + k h^T, which passes near 0: float32 and float64 of the same
  # recursion differ by 2e-5 (median), 1.5e-3 (95 %) over random features.
  Kernel("mla", r"gs_released_active", _mla.released, 2e-3, host=True),
  Kernel("mla", r"gs_balancebenchmark", _mla.balance_benchmark, 2e-3, host=True),
  Kernel("mla", r"alt\d_\w+_released", _mla.epoch),
  # The same pole, through an epoch: float64 is 8e-3 (P) and 3e-4 (head) from that float32 code.
  Kernel(
    "mla",
    r"alt\d_\w+_gs_active",
    _mla.epoch,
    1e-4,
    loose={"P_final": 2e-2, "w1.fusion_module.fc_out.weight": 1e-3},
  ),
  Kernel("provable_mml", r"gen_w", _provable.generator, host=True),
  Kernel("provable_mml", r"bayes_mse_table", _provable.risk_table, host=True),
  Kernel("provable_mml", r"latent_quality", _provable.latent_quality, host=True),
  Kernel("mdrnn", r"mp_", _mdrnn.multi_prediction),
  Kernel("mdrnn", r"cdpl", _mdrnn.percloss),
  Kernel("mdrnn", r"pcd|cd(?!pl)", _mdrnn.contrastive),
  Kernel("mdrnn", r"hybrid", _mdrnn.hybrid),
  Kernel("mdrnn", r"infer", _mdrnn.infer),
  Kernel("mdrnn", r"exact", _mdrnn.exact),
  Kernel("fusion_heads", r"concat\d", _fusion.concat),
  Kernel("fusion_heads", r"stack", _fusion.stack),
  Kernel("fusion_heads", r"tfn", _fusion.tensor),
  Kernel("fusion_heads", r"lmf", _fusion.low_rank),
  Kernel("fusion_heads", r"mi\d", _fusion.multiplicative),
  Kernel("fusion_heads", r"nlgate", _fusion.non_local_gate),
  Kernel("fusion_heads", r"sum", _fusion.sum_head),
  Kernel("fusion_heads", r"concat_linear", _fusion.concat_head),
  Kernel("fusion_heads", r"film", _fusion.film),
  Kernel("fusion_heads", r"gated", _fusion.gated),
  Kernel("fusion_heads", r"mult_(cross|self)", _fusion.mult_encoder),
  Kernel("fusion_heads", r"mult_positions", _fusion.mult_positions),
  Kernel("fusion_heads", r"gauss_poe", _fusion.gaussian),
  Kernel("fusion_heads", r"cca", _fusion.cca, host=True),
  Kernel("fusion_heads", r"gradient_blend_paper", _fusion.blend_paper, host=True),
  Kernel("fusion_heads", r"gradient_blend_released", _fusion.blend_released, host=True),
  Kernel("fusion_heads", r"tmm_attention", _fusion.attention),
  Kernel("fusion_heads", r"tmm_deepset", _fusion.deep_set),
  Kernel("i2m2", r"poe\d_(?!m\d)|intra", _i2m2.product),
  Kernel("i2m2", r"poe\d_m\d", _i2m2.stacked_product),
  Kernel("i2m2", r"vqa_head", _i2m2.vqa_head),
  Kernel("i2m2", r"train_", _i2m2.epochs),
  Kernel("i2m2_encoders", r"lenet", _i2m2.lenet),
  Kernel("i2m2_encoders", r"gru", _i2m2.gru),
  Kernel("i2m2_encoders", r"auprc", _i2m2.auprc, host=True),
  Kernel("balance_family", r"shapley", _metrics.shapley, host=True),
  Kernel("missing_protocol", r"acer", _metrics.acer, host=True),
  Kernel("missing_protocol", r"miou", _metrics.segmentation, host=True),
  Kernel("missing_protocol", r"combos_m\d", _metrics.combinations, host=True),
  Kernel("missing_protocol", r"mean_over_combos", _metrics.mean_over_combinations, host=True),
  Kernel("missing_protocol", r"f1_multilabel", _metrics.f1, host=True),
  Kernel("missing_protocol", r"auroc", _metrics.auroc, host=True),
  Kernel("dmrnet", r"drop_", _dmrnet.drop),
  Kernel("dmrnet", r"unbalanced", _dmrnet.unbalanced),
  Kernel("dmrnet", r"pme_head_(?!dense)", _dmrnet.head),
  Kernel("dmrnet", r"pme_head_dense", _dmrnet.dense_head),
  Kernel("dmrnet", r"kl_", _dmrnet.kl),
  Kernel("dmrnet", r"hcr_(?!seg)", _dmrnet.hard),
  # Without a hard sample the released loss is the number it starts from, 1e-16; ours is exactly 0.
  Kernel("dmrnet", r"hcr_seg", _dmrnet.segmentation, atol=1e-15),
  Kernel("dmrnet", r"variance_stat", _dmrnet.variance),
  Kernel("dmrnet", r"weak_choice", _dmrnet.weak),
  Kernel("mmanet", r"mad_cls", _mmanet.margin),
  Kernel("mmanet", r"sp_", _mmanet.similarity),
  Kernel("mmanet", r"mad_seg_(?!pipeline)", _mmanet.dense_rows),
  Kernel("mmanet", r"mad_seg_pipeline", _mmanet.dense_maps),
  Kernel("mmanet", r"mar_m\d", _mmanet.weak_loss, host=True),
  Kernel("mmanet", r"mar_mining_m\d+(?!\d|_seg)", _mmanet.mining, host=True),
  Kernel("mmanet", r"mar_mining_m\d+_seg", _mmanet.segmentation_mining, host=True),
  Kernel("mmanet", r"total_cls", _mmanet.total),
  Kernel("mmanet", r"lr_schedule", _mmanet.schedule),
  Kernel("mmanet", r"drop_m\d", _mmanet.dropped),
  Kernel("unseen_interaction", r"label_smooth", _unseen_interaction.label_smoothing),
  Kernel("unseen_interaction", r"token_distance", _unseen_interaction.token_distance),
  Kernel("unseen_interaction", r"train_losses", _unseen_interaction.step),
  Kernel("unseen_interaction", r"reorganization", _unseen_interaction.reorganization),
  Kernel("unseen_interaction", r"branch_attention", _unseen_interaction.branch_attention),
  Kernel("unseen_interaction", r"branch_average", _unseen_interaction.branch_average),
  Kernel("unseen_interaction", r"fusion_and", _unseen_interaction.fusion_and_tokens),
  Kernel("unseen_interaction", r"pseudo_choice", _unseen_interaction.pseudo_choice),
  # The estimate is a difference of means near 1, and 3 % off in float32 where it is 2e-6.
  Kernel("modality_distillation", r"mmd_", _modality_distillation.discrepancy, atol=2e-7),
  Kernel("modality_distillation", r"cross_translation", _modality_distillation.translation),
  Kernel("modality_distillation", r"soft_target", _modality_distillation.soft_target),
  Kernel("modality_distillation", r"logits_mse", _modality_distillation.logits),
  Kernel("modality_distillation", r"pkt_mmd", _modality_distillation.similarities),
  Kernel("modality_distillation", r"jmmd", _modality_distillation.joint),
  Kernel("modality_distillation", r"objective_sketch", _modality_distillation.sketch),
  Kernel("cmimh", r"mi_", _cmimh.information, host=True),
  Kernel("cmimh", r"map_", _cmimh.ranking, host=True),
  Kernel("dibs", r"adv_", _ensembles.adversary),
  Kernel("dibs", r"vib_", _ensembles.bottleneck),
  Kernel("diverse_representations", r"ctc_", _ensembles.total_correlation),
  Kernel("diverse_representations", r"objective_", _ensembles.objective),
  Kernel("diverse_representations", r"gauss_tc", _ensembles.gaussian),
  Kernel("missing_prediction", r"missing_table", _metrics.missing_table, host=True),
  Kernel("missing_prediction", r"vicreg", _missing_prediction.vicreg),
  Kernel("missing_prediction", r"read_only", _missing_prediction.read_only_attention),
  Kernel("missing_prediction", r"predictor_mlp", _missing_prediction.predictor),
  Kernel("missing_prediction", r"embedding_substitution", _missing_prediction.substitution),
  Kernel("multimodal_vaes", r"poe_M", _vaes.poe),
  Kernel("multimodal_vaes", r"poe_prior", _vaes.poe_prior),
  Kernel("multimodal_vaes", r"poe_missing", _vaes.poe_missing),
  Kernel("multimodal_vaes", r"kl", _vaes.kl),
  Kernel("multimodal_vaes", r"mvae_M", _vaes.mvae),
  Kernel("multimodal_vaes", r"mvae_masked", _vaes.mvae_masked),
  Kernel("multimodal_vaes", r"mopoe", _vaes.mopoe),
  Kernel("multimodal_vaes", r"mvtcae", _vaes.mvtcae),
  Kernel("multimodal_vaes", r"jmvae", _vaes.jmvae),
  Kernel("multimodal_vaes_is", r"mmvae_", _vaes.mmvae),
  Kernel("multimodal_vaes_is", r"mmvaeplus", _vaes.mmvae_plus),
  Kernel("multimodal_vaes_is", r"shi_", _vaes.shi),
  Kernel("mmiai", r"elbo_grad", _mmiai.elbo_gradient),
  Kernel("mmiai", r"refine", _mmiai.refined),
  Kernel("mmiai", r"align", _mmiai.align),
  Kernel("mmiai", r"fixedpoint", _mmiai.fixed_point),
  Kernel("umurl", r"modgen", _umurl.streams),
  Kernel("umurl", r"vcreg", _umurl.spread),
  Kernel("umurl", r"loss", _umurl.loss),
  Kernel("umurl", r"backbone", _umurl.backbone),
  # Torch resizes with positions in float32: the page allows 1e-4.
  Kernel("umurl", r"tcrop|tcenter", _umurl.crop, atol=1e-4),
  Kernel("umurl", r"shear", _umurl.shear),
  Kernel("umurl", r"jointcorrupt", _umurl.corrupt),
  Kernel("wss_cmer", r"maxnorm", _wss_cmer.max_norm),
  Kernel("wss_cmer", r"samplenorm", _wss_cmer.sample_norm),
  Kernel("wss_cmer", r"maploss", _wss_cmer.map_loss),
  # Grad-CAM++ divides by 2 g^2 + sum a g^3, which passes near 0: that float32 code is 2e-7 (median),
  # 3e-5 (99 %) from float64 over random features.
  Kernel("wss_cmer", r"cams", _wss_cmer.saliency, loose={"gradcampp": 5e-5}, host=True),
  Kernel("wss_cmer", r"camhead", _wss_cmer.head),
  Kernel("wss_cmer", r"objective_", _wss_cmer.objective),
]


def claiming(slug: str, name: str) -> list[Kernel]:
  """The kernels that answer a case; exactly one, or none."""
  return [k for k in KERNELS if k.claims(slug, name)]
