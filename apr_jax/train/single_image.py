"""Stages of each image by itself while training, before the crop and after it.

Every function takes one key per image.
"""

import operator
from typing import Any

import jax
import jax.numpy as jnp

from apr_jax import augment
from apr_jax import config as config_lib
from apr_jax.pixels import to_pixels


def image_keys(key: jax.Array, positions: jax.Array) -> jax.Array:
    """A key for each place in the global batch, [B]."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)


def run_stage(
    stage: augment.Stage,
    keys: jax.Array,
    images: jax.Array,
    config: config_lib.Config,
    **more: Any,
) -> Any:
    """Result of a stage whose knobs have the configuration's values.

    Args:
        stage: one of a method.
        keys: one for each image [B], or one for the batch.
        images: uint8, or pixels in [0, 1], [B, H, W, C].
        config: its fields that the stage names are used, and ``augment.strengths``.
        more: further arguments of the stage's function.
    """
    images = to_pixels(images) if stage.pixels else images
    return stage.function(keys, images, **knobs_of(stage, config), **more)


def knobs_of(stage: augment.Stage, config: config_lib.Config) -> dict[str, Any]:
    """The arguments of a stage's function that the configuration decides on."""
    knobs = {k: operator.attrgetter(field)(config) for k, field in stage.knobs.items()}
    return {**knobs, **stage.strengths.get(config.augment.strengths, {})}


def run_stages(
    stages: tuple[augment.Stage, ...],
    keys: jax.Array,
    images: jax.Array,
    config: config_lib.Config,
) -> jax.Array:
    """Images after several stages, each with draws of its own."""
    for place, stage in enumerate(stages):
        here = jax.vmap(jax.random.fold_in, (0, None))(keys, place)
        images = run_stage(stage, here, images, config)
    return images


def augment_images(
    key: jax.Array,
    images: jax.Array,
    positions: jax.Array,
    config: config_lib.Config,
    single: augment.Stage | None,
) -> jax.Array:
    """Images after a method's first stage, crop and flip, as in the paper's code.

    Args:
        key: the step's key; image i draws from it and ``positions[i]`` alone.
        images: uint8 [B, H, W, C].
        positions: int32 [B], places in the global batch.
        config: its ``augment`` part says how to crop and flip. Where ``flip_by`` is
            "epoch", the images come mirrored already; see ``dispatch``.
        single: APR-S or another stage before the crop.

    Returns:
        uint8 [B, H, W, C].
    """
    settings = config.augment
    single_keys, crop_keys, flip_keys = jnp.unstack(
        jax.vmap(lambda k: jax.random.split(k, 3))(image_keys(key, positions)), axis=1
    )
    if single:
        images = run_stage(single, single_keys, images, config)
    if settings.crop_pad:
        images = augment.random_crop(
            crop_keys,
            images,
            pad=settings.crop_pad,
            fill=settings.crop_fill,
            edge=settings.crop_edge,
        )
    if not settings.flip or settings.flip_by != "coin":
        return images
    return augment.random_flip(flip_keys, images)
