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
    settings = config.augment
    method = augment.get_method(settings.method)
    originals = jnp.asarray(images)
    single_key, pair_key = jax.random.split(jax.random.key(config.seed))
    single = originals
    if method.single == "apr_s":
        single = augment.apr_single(
            single_key,
            originals,
            prob=1.0,
            level=settings.single_level,
            ops=settings.single_ops,
            axes=settings.axes,
            overflow=settings.single_overflow,
        )
    donor = np.roll(np.arange(len(images)), 1)
    mixed: Any = None
    if method.pair == "apr_p" and method.single in ("", "apr_s"):
        mixed = augment.apr_pair(
            pair_key,
            to_pixels(single),
            prob=1.0,
            axes=settings.axes,
            clip=settings.pair_clip,
            donor_index=jnp.asarray(donor),
        )
    return Examples(
        original=np.asarray(images),
        single=np.asarray(single) if method.single == "apr_s" else None,
        mixed=None if mixed is None else np.asarray(mixed),
        donor=None if mixed is None else donor,
        seen=_seen(config, originals, labels) if _further(method) else None,
        labels=[class_names[label] for label in labels],
    )


def _further(method: augment.Method) -> bool:
    """Whether a method does more to images than APR."""
    contrastive = method.loss == "contrastive"
    return (
        bool(method.after or method.mix or contrastive)
        or method.single not in ("", "apr_s")
        or method.pair not in ("", "apr_p")
    )


def _seen(
    config: config_lib.Config, images: jax.Array, labels: np.ndarray
) -> np.ndarray:
    """The views of a batch of these images alone, [V, N, H, W, C], four at most."""
    changed = dataclasses.replace(
        config.augment, crop_pad=0, flip=False, pair_prob=1.0, pair_donors="device"
    )
    key = jax.random.key(config.seed)
    views_of = jax.jit(
        lambda key, images, labels: (
            views.make_views(
                key,
                jax.random.fold_in(key, 1),
                images,
                labels,
                jnp.arange(len(labels)),
                dataclasses.replace(config, augment=changed),
            ).pixels
        )
    )
    pixels = np.asarray(views_of(key, images, jnp.asarray(labels, jnp.int32)))
    return pixels.reshape(-1, *images.shape)[:_VIEWS]


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
