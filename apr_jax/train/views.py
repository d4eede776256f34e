"""Views of a batch: its images as the network sees them, augmented, once or more.

A view has as many images as the batch, and labels of its own: where images are
blended, two for each image with a weight. Everything random is drawn from the step's
key and the image's position in the global batch, whatever the number of devices.

Source: Chen et al., ICCV 2021, section 4, and the released training loop: the
network sees the clean images and the recombined ones in one batch of twice the size.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from apr_jax import augment
from apr_jax import config as config_lib
from apr_jax.pixels import to_pixels
from apr_jax.train import feature_mixing
from apr_jax.train.image_pairs import Share, blend_images, mix_images
from apr_jax.train.single_image import (
    augment_images,
    image_keys,
    run_stage,
    run_stages,
)

# Past every place in a batch: what is folded in from here on is no image's key.
BEYOND = 1 << 30
# The same of the last stages of views.
_LAST = BEYOND + 1000


class Views(NamedTuple):
    """V views of a batch of B images.

    Attributes:
        pixels: float32 [V * B, H, W, C] in [0, 1], beyond it by ringing; view by view.
        labels: int32 [V, B].
        others: int32 [V, B]: the label of the image that was blended in, or that gave
            the amplitude; that of the image itself where there is no such image.
        weight: float32 [V, B], of ``labels``; ``others`` have the rest.
        softness: float32 [V, B], the share of both labels that is spread evenly over
            all classes; None where they stay.
        mixing: how features are blended inside the network, if they are.
    """

    pixels: jax.Array
    labels: jax.Array
    others: jax.Array
    weight: jax.Array
    softness: jax.Array | None = None
    mixing: feature_mixing.Mixing | None = None


def make_views(
    image_key: jax.Array,
    batch_key: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    positions: jax.Array,
    config: config_lib.Config,
    *,
    axis_name: str | None = None,
) -> Views:
    """Augments a batch as the configuration's method says.

    Args:
        image_key: the step's, for what happens to each image.
        batch_key: the step's, for what happens between images.
        images: uint8 [B, H, W, C].
        labels: int [B].
        positions: int32 [B], places in the global batch.
        config: its ``augment`` and ``data`` parts are used.
        axis_name: the mapped axis of devices, if there is one.
    """
    method = augment.get_method(config.augment.method)
    share = Share(labels, positions, config, axis_name)
    clean, views = _image_views(image_key, images, method, share)
    first = to_pixels(views[0])
    ones = jnp.ones(len(labels), jnp.float32)
    others, weight = labels, ones
    if method.mix:
        first, others, weight = blend_images(batch_key, first, method.mix, share)
    parts: list[tuple[jax.Array, ...]] = [(first, labels, others, weight)]
    parts += [(to_pixels(view), labels, labels, ones) for view in views[1:]]
    if method.pair:
        # An auxiliary view is of the images before the other stages (AFA).
        base = clean if method.auxiliary else views[0]
        second, givers = mix_images(batch_key, base, method.pair, share)
        pair = second, labels, givers, ones
        parts = [pair] if method.instead else [*parts, pair]
    softness = None
    if method.last:
        parts, softness = _change_last(image_key, parts, method.last, share)
    pixels, *rest = zip(*parts, strict=True)
    labels, others, weight = (jnp.stack(part) for part in rest)
    seen = Views(jnp.concatenate(pixels), labels, others, weight, softness)
    if not method.features:
        return seen
    mixing, others, weight = feature_mixing.draw(batch_key, share)
    shape = seen.labels.shape
    return seen._replace(
        others=jnp.broadcast_to(others[None], shape),
        weight=jnp.broadcast_to(weight, shape),
        mixing=mixing,
    )


def keys_of(key: jax.Array, views: Views, positions: jax.Array) -> jax.Array:
    """One key for each image of each view, [V * B]."""
    count = len(views.labels)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count))
    return jax.vmap(image_keys, (0, None))(keys, positions).reshape(-1)


def _image_views(
    key: jax.Array, images: jax.Array, method: augment.Method, share: Share
) -> tuple[jax.Array, list[jax.Array]]:
    """The images after crop and flip, and the views that need no other image.

    One after the method's image stages; or three, the first of them clean; or for a
    contrastive method two for each quarter turn: all turns of the first, then all of
    the second.
    """
    if method.loss.projects:
        return images, _contrastive_views(key, images, method, share)
    _, positions, config, _ = share
    clean = augment_images(key, images, positions, config, method.single)
    views = [clean] if method.loss.alike else []
    for number in range(method.loss.views):
        keys = image_keys(jax.random.fold_in(key, BEYOND + number), positions)
        views.append(run_stages(method.after, keys, clean, config))
    return clean, views


def _change_last(
    key: jax.Array,
    parts: Sequence[tuple[jax.Array, ...]],
    stage: augment.Stage,
    share: Share,
) -> tuple[list[tuple[jax.Array, ...]], jax.Array]:
    """Views, pixels first, behind the last stage; and their labels' softness [V, B]."""
    changed, softness = [], []
    for number, (pixels, *rest) in enumerate(parts):
        keys = image_keys(jax.random.fold_in(key, _LAST + number), share.positions)
        found = run_stage(stage, keys, pixels, share.config)
        changed.append((found.images, *rest))
        softness.append(found.softness)
    return changed, jnp.stack(softness)


def _contrastive_views(
    key: jax.Array, images: jax.Array, method: augment.Method, share: Share
) -> list[jax.Array]:
    _, positions, config, _ = share
    # SimCLR has a crop of its own.
    uncropped = dataclasses.replace(
        config, augment=dataclasses.replace(config.augment, crop_pad=0)
    )
    turned, keys = [], []
    for view_key in jax.random.split(key):
        upright_key, *turn_keys = jax.random.split(view_key, 1 + method.shifts)
        upright = augment_images(
            upright_key, images, positions, uncropped, method.single
        )
        for turn, turn_key in enumerate(turn_keys):
            turned.append(augment.quarter_turns(upright, turn))
            keys.append(image_keys(turn_key, positions))
    # All at once: the stages are much to compile.
    staged = run_stages(
        method.after, jnp.concatenate(keys), jnp.concatenate(turned), config
    )
    return jnp.split(staged, len(turned))
