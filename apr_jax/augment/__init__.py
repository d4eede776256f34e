"""Augmentations, key first: APR on single images and on pairs, crop and flip.

`AUGMENTS` names the training methods.
"""

from collections.abc import Sequence

import jax

from apr_jax.augment.afa import fourier_basis_noise
from apr_jax.augment.apr_noise import apr_noise, apr_waves, coloured_noise
from apr_jax.augment.apr_pair import apr_pair, pair_coin
from apr_jax.augment.apr_single import apr_single, recombine_levels
from apr_jax.augment.augmix import augmix, jensen_shannon
from apr_jax.augment.autoaugment import autoaugment, random_autoaugment
from apr_jax.augment.crop_flip import random_crop, random_flip
from apr_jax.augment.cutout_patch import cutout, patch_gaussian, patch_uniform
from apr_jax.augment.fact_fda import amplitude_mix, low_amplitude_swap
from apr_jax.augment.hybrid_augment import (
    hybrid_augment,
    hybrid_augment_pp,
    hybrid_augment_single,
)
from apr_jax.augment.method import Loss, Method, Stage
from apr_jax.augment.methods import APR_P, APR_S, AUGMENTS, ONE_VIEW, get_method
from apr_jax.augment.mixup_cutmix import Mixed, cutmix, mixup
from apr_jax.augment.mollification import Mollified, mollify
from apr_jax.augment.noisy_mix import Blend, draw_blend, noisy_mixup
from apr_jax.augment.ops import OPS, apply_op
from apr_jax.augment.prime import prime
from apr_jax.augment.simclr import (
    color_jitter,
    quarter_turns,
    random_grey,
    random_resized_crop,
    simclr,
)
from apr_jax.augment.trivialaugment import trivialaugment
from apr_jax.augment.vipaug import vital_mask, vital_phase, vital_phase_single
from apr_jax.gates.images import images_gate
from apr_jax.pixels import to_pixels

__all__ = [
    "APR_P",
    "APR_S",
    "AUGMENTS",
    "ONE_VIEW",
    "OPS",
    "Blend",
    "Loss",
    "Method",
    "Mixed",
    "Mollified",
    "Stage",
    "amplitude_mix",
    "apply_op",
    "apr",
    "apr_noise",
    "apr_pair",
    "apr_single",
    "apr_waves",
    "augmix",
    "autoaugment",
    "color_jitter",
    "coloured_noise",
    "cutmix",
    "cutout",
    "draw_blend",
    "fourier_basis_noise",
    "get_method",
    "hybrid_augment",
    "hybrid_augment_pp",
    "hybrid_augment_single",
    "jensen_shannon",
    "low_amplitude_swap",
    "mixup",
    "mollify",
    "noisy_mixup",
    "pair_coin",
    "patch_gaussian",
    "patch_uniform",
    "prime",
    "quarter_turns",
    "random_autoaugment",
    "random_crop",
    "random_flip",
    "random_grey",
    "random_resized_crop",
    "recombine_levels",
    "simclr",
    "trivialaugment",
    "vital_mask",
    "vital_phase",
    "vital_phase_single",
]


@images_gate("either")
def apr(
    key: jax.Array,
    images: jax.Array,
    *,
    single_prob: float | jax.Array = 0.5,
    pair_prob: float | jax.Array = 0.6,
    level: float | jax.Array = 3.0,
    ops: str = "base",
    per: str = "batch",
    axes: Sequence[int] = (-3, -2, -1),
    overflow: str = "clip",
    clip: bool = False,
    backend: str = "auto",
) -> jax.Array:
    """APR-SP: `apr_single`, then `apr_pair` on the result.

    Args:
        key: one key.
        images: [N, H, W, C], C of 1 or 3: uint8, or floating point in [0, 1].
        single_prob, level, ops, overflow: as `apr_single`'s (`prob` for the first).
        pair_prob, per, clip: as `apr_pair`'s (`prob` for the first).
        axes, backend: of both.

    Returns:
        [N, H, W, C] in [0, 1] up to ringing; float32 for uint8 images, else their type.
    """
    single_key, pair_key = jax.random.split(key)
    images = apr_single(
        single_key,
        images,
        prob=single_prob,
        level=level,
        ops=ops,
        axes=axes,
        overflow=overflow,
        backend=backend,
    )
    return apr_pair(
        pair_key,
        to_pixels(images),
        prob=pair_prob,
        per=per,
        axes=axes,
        clip=clip,
        backend=backend,
    )
