"""A few training images and what the augmentation of a run makes of them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax import augment
from apr_jax import config as config_lib
from apr_jax.pixels import to_pixels
from apr_jax.runs.examples import Examples
from apr_jax.train import dispatch, views
from apr_jax.train.plan import Plan
from apr_jax.train.single_image import run_stage

# Each example takes two rows of pictures on the page.
EXAMPLES = 6


def examples(
    config: config_lib.Config,
    images: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
) -> Examples:
    """Shows what the augmentation of a configuration does to a few images.

    APR is applied without chance, so that there is something to see; crop and flip
    are left out, so that the pictures can be compared. Of other methods the views that
    the network has are shown.

    Args:
        config: its ``augment`` part is used.
        images: uint8 [N, H, W, C].
        labels: [N].
        class_names: what the labels mean.
    """
    method = augment.get_method(config.augment.method)
    certain = _changed(config, single_prob=1.0, pair_prob=1.0, pair_per="batch")
    single_key, pair_key = jax.random.split(jax.random.key(config.seed))
    alone = method.single is augment.APR_S
    paired = method.pair is augment.APR_P and method.single in (None, augment.APR_S)
    donor = np.roll(np.arange(len(images)), 1) if paired else None

    @jax.jit
    def change(images: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        if alone:
            images = run_stage(augment.APR_S, single_key, images, certain)
        if donor is None:
            return images, None
        given = {"donor_index": jnp.asarray(donor)}
        pixels = to_pixels(images)
        return images, run_stage(augment.APR_P, pair_key, pixels, certain, **given)

    single, mixed = change(images) if alone or paired else (None, None)
    return Examples(
        original=np.asarray(images),
        single=np.asarray(single) if alone else None,
        mixed=None if mixed is None else np.asarray(mixed),
        donor=donor,
        seen=_seen(config, images, labels) if _further(method) else None,
        labels=[class_names[label] for label in labels],
    )


def _changed(config: config_lib.Config, **fields: Any) -> config_lib.Config:
    return dataclasses.replace(
        config, augment=dataclasses.replace(config.augment, **fields)
    )


def _further(method: augment.Method) -> bool:
    """Whether a method does more to images than APR."""
    return (
        bool(method.after or method.mix or method.last or method.loss.projects)
        or method.single not in (None, augment.APR_S)
        or method.pair not in (None, augment.APR_P)
    )


def _seen(
    config: config_lib.Config, images: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """The views of a batch of these images alone, [V, N, H, W, C], four at most."""
    config = _changed(
        config, crop_pad=0, flip=False, pair_prob=1.0, pair_donors="device"
    )
    key, positions = jax.random.key(config.seed), jnp.arange(len(labels))

    @jax.jit
    def see(key: jax.Array, images: jax.Array, labels: jax.Array) -> jax.Array:
        batch_key = jax.random.fold_in(key, 1)
        return views.make_views(
            key, batch_key, images, labels, positions, config
        ).pixels

    pixels = see(key, jnp.asarray(images), jnp.asarray(labels, jnp.int32))
    return np.asarray(pixels).reshape(-1, *images.shape)[:_VIEWS]


# Views of an image on the page, at most.
_VIEWS = 4


def example_images(plan: Plan, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns ``count`` training images, uint8 [N, H, W, C], and their labels.

    They are the first of different classes, as far as there are so many.
    """
    config = plan.config
    if plan.resident is not None:
        split = plan.resident.splits[config.data.train_split]
        labels = np.asarray(split.labels)
        order = np.unique(labels, return_index=True)[1]
        chosen = np.resize(order, count)
        return np.asarray(split.images[chosen]), labels[chosen]
    batch = next(dispatch.stream(plan, 0))
    return batch.image[:count], batch.label[:count]
