"""What happens to each image by itself while training, before the crop and after it.

Every function takes one key per image and what the configuration says of its
augmentation. The numbers that an augmentation's authors chose for a data set are here,
chosen by ``augment.strengths``.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax

from apr_jax import augment
from apr_jax import config as config_lib
from apr_jax.pixels import to_pixels

Stage = Callable[[jax.Array, jax.Array, config_lib.Config], jax.Array]


def _cutout(keys: jax.Array, images: jax.Array, config: config_lib.Config) -> jax.Array:
    # The original fills with zeros after normalisation, which is the mean.
    return augment.cutout(
        keys, to_pixels(images), size=config.augment.cutout_size, fill=config.data.mean
    )


def _autoaugment(
    keys: jax.Array, images: jax.Array, config: config_lib.Config
) -> jax.Array:
    policy = "cifar10" if config.data.image_size <= _LARGEST_SMALL else "imagenet"
    return augment.autoaugment(keys, images, policy=policy)


def _simclr(keys: jax.Array, images: jax.Array, config: config_lib.Config) -> jax.Array:
    return augment.simclr(keys, to_pixels(images), area=config.contrast.crop_area)


def _on_levels(name: str, function: Callable[..., jax.Array]) -> Stage:
    return lambda keys, images, config: function(
        keys, images, **strengths_of(config.augment, name)
    )


def _on_pixels(name: str, function: Callable[..., jax.Array]) -> Stage:
    return lambda keys, images, config: function(
        keys, to_pixels(images), **strengths_of(config.augment, name)
    )


# Up to this size AutoAugment's policy is CIFAR's.
_LARGEST_SMALL = 64

# The set of ``augment.strengths`` -> augmentation -> what its authors take there; as
# the function has it by itself, for CIFAR-10, where nothing stands here.
STRENGTHS: dict[str, dict[str, dict[str, Any]]] = {
    "cifar10": {},
    "cifar100": {"vital_phase": {"vital": 0.005, "nonvital": 0.012}},
    "imagenet": {
        "augmix": {"severity": 1.0},
        "hybrid": {"sigma": 1.0},
        "prime": {
            "deform_cut": 500,
            "colour_cut": 500,
            "colour_scale": 0.05,
            "colour_band": 20,
        },
        "vital_phase": {"vital": 0.001, "nonvital": 0.005},
        "waves": {"mean_strength": 10.0},
    },
}


def strengths_of(settings: config_lib.Augment, name: str) -> dict[str, Any]:
    """What an augmentation takes for the set that the configuration names."""
    return STRENGTHS[settings.strengths].get(name, {})


# name -> (one key per image [B], images [B, H, W, C] uint8 or pixels, configuration)
# -> the same shape, uint8 or pixels.
IMAGE_STAGES: dict[str, Stage] = {
    "cutout": _cutout,
    "autoaugment": _autoaugment,
    "random_autoaugment": _on_levels("random_autoaugment", augment.random_autoaugment),
    "augmix": _on_levels("augmix", augment.augmix),
    "patch_gaussian": _on_pixels("patch", augment.patch_gaussian),
    "patch_uniform": _on_pixels("patch", augment.patch_uniform),
    "prime": _on_pixels("prime", augment.prime),
    "simclr": _simclr,
}


def _apr_s(
    keys: jax.Array, images: jax.Array, settings: config_lib.Augment
) -> jax.Array:
    return augment.apr_single(
        keys,
        images,
        prob=settings.single_prob,
        level=settings.single_level,
        ops=settings.single_ops,
        axes=settings.axes,
        overflow=settings.single_overflow,
    )


def _hybrid_s(
    keys: jax.Array,
    images: jax.Array,
    settings: config_lib.Augment,
    *,
    plus: bool = False,
) -> jax.Array:
    return augment.hybrid_augment_single(
        keys,
        images,
        prob=settings.single_prob,
        plus=plus,
        level=settings.single_level,
        ops=settings.single_ops,
        **strengths_of(settings, "hybrid"),
    )


def _vital_phase(
    keys: jax.Array, images: jax.Array, settings: config_lib.Augment
) -> jax.Array:
    return augment.vital_phase_single(
        keys,
        images,
        prob=settings.single_prob,
        level=settings.single_level,
        ops=settings.single_ops,
        **strengths_of(settings, "vital_phase"),
    )


# name -> (one key per image [B], uint8 [B, H, W, C], settings) -> the same, before the
# crop.
SINGLES: dict[str, Callable[..., jax.Array]] = {
    "apr_s": _apr_s,
    "hybrid_augment_s": _hybrid_s,
    "hybrid_augment_pp_s": functools.partial(_hybrid_s, plus=True),
    "vital_phase": _vital_phase,
}
