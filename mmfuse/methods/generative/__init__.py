"""Representations learnt without labels, and their page of the index: each with a linear head.

`mdrnn` and `mdrnn_deep` are the models alone; energies, samples and inference are in `mrbm`. The VAEs
share networks, likelihoods and the ELBO they are judged by in `vae`; the task "generation" is for them.
"""

from mmfuse.methods._entry import ALL_TASKS, row
from mmfuse.methods.generative._jmvae import jmvae
from mmfuse.methods.generative._mdrnn import mdrnn
from mmfuse.methods.generative._mdrnn_deep import mdrnn_deep
from mmfuse.methods.generative._mdrnn_with_head import mdrnn_pcd_with_head
from mmfuse.methods.generative._mdrnn_with_head import mdrnn_with_head
from mmfuse.methods.generative._mmiai import mmiai
from mmfuse.methods.generative._mmvae import mmvae
from mmfuse.methods.generative._mmvae_plus import mmvae_plus
from mmfuse.methods.generative._mopoe import mopoe
from mmfuse.methods.generative._mvae import mvae
from mmfuse.methods.generative._mvtcae import mvtcae
from mmfuse.names import GENERATION

__all__ = [
  "jmvae",
  "mdrnn",
  "mdrnn_deep",
  "mdrnn_pcd_with_head",
  "mdrnn_with_head",
  "mmiai",
  "mmvae",
  "mmvae_plus",
  "mopoe",
  "mvae",
  "mvtcae",
]

_RATES = (0.03, 0.1, 0.3)  # of plain gradients
_BETA = {"beta": (0.5, 1.0, 2.5)}


def _vae(build, key, grid, fidelity="parity", **more):
  """The row of a VAE: with a head where there are labels, alone where there are none."""
  return row(
    build,
    "schedule",
    fidelity,
    key,
    grid,
    needs=("task", "likelihood"),
    tasks=(*ALL_TASKS, GENERATION),
    **more,
  )


# fmt: off
ROWS = {
  "mdrnn": row(
    mdrnn_with_head, "schedule", "parity", "sohn2014improved", {"reveal": (0.0, 0.25, 0.5)},
    needs=("learning_rate",), rates=_RATES),
  "mdrnn_pcd": row(
    mdrnn_pcd_with_head, "schedule", "parity", "sohn2014improved", {"kcd": (1, 5, 10)},
    as_in=True, needs=("learning_rate",), rates=_RATES),
  "jmvae": _vae(
    jmvae, "suzuki2016joint", {"alpha": (0.01, 0.1, 1.0)}, complete_rows=True),
  "mvae": _vae(mvae, "wu2018multimodal", _BETA),
  "mmvae": _vae(mmvae, "shi2019variational", {"objective": ("dreg_looser", "iwae_looser", "elbo")}),
  "mmvae_plus": _vae(mmvae_plus, "palumbo2023mmvaeplus", _BETA),
  "mopoe": _vae(mopoe, "sutter2021generalized", _BETA),
  "mvtcae": _vae(mvtcae, "hwang2021multiview", {"alpha": (0.1, 0.5, 0.9)}),
  "mmiai": _vae(
    mmiai, "oshima2024enhancing", {"alpha": (0.1, 1.0, 10.0)}, "reconstructed", complete_rows=True),
}
# fmt: on
