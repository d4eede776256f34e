"""What the network sees of a batch: its images, augmented, in one view or several.

A view has as many images as the batch, and labels of its own: where images are
blended, two for each image with a weight. Everything random is drawn from the step's
key and the image's position in the global batch, whatever the number of devices.

Source: Chen et al., ICCV 2021, section 4, and the released training loop: the
network sees the clean images and the recombined ones in one batch of twice the size.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from apr_jax import augment
from apr_jax import config as config_lib


class Views(NamedTuple):
    """V views of a batch of B images.

    Attributes:
        pixels: float32 [V * B, H, W, C] in [0, 1], beyond it by ringing; view by view.
        labels: int32 [V, B].
        others: int32 [V, B]: the label of the image that was blended in, or that gave
            the amplitude; that of the image itself where there is no such image.
        weight: float32 [V, B], of ``labels``; ``others`` have the rest.
    """

    pixels: jax.Array
    labels: jax.Array
    others: jax.Array
    weight: jax.Array


def to_pixels(images: jax.Array) -> jax.Array:
    """Returns uint8 grey levels as float32 pixels in [0, 1]; floats unchanged."""
    if images.dtype == jnp.uint8:
        return images.astype(jnp.float32) / 255.0
    return images


# name -> (one key per image [B], uint8 [B, H, W, C], settings, data) -> the same shape,
# uint8 or pixels.
IMAGE_STAGES: dict[str, Callable[..., jax.Array]] = {}

# name -> (key, pixels [B, H, W, C], settings) -> (pixels, partner int [B], weight of
# the image's own label [B]).
MIXES: dict[str, Callable[..., tuple[jax.Array, jax.Array, jax.Array]]] = {}


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
        axis_name: of the mapped axis of devices, if there is one.
    """
    settings = config.augment
    method = augment.get_method(settings.method)
    clean = augment_images(image_key, images, positions, settings)
    views = _image_views(image_key, clean, positions, method, config)
    first = to_pixels(views[0])
    ones = jnp.ones(len(labels), jnp.float32)
    others, weight = labels, ones
    if method.mix:
        mix_key = _apart(jax.random.fold_in(batch_key, 1), axis_name)
        first, partner, weight = MIXES[method.mix](mix_key, first, settings)
        others = labels[partner]
    parts = [(first, labels, others, weight)]
    parts += [(to_pixels(view), labels, labels, ones) for view in views[1:]]
    if method.pair:
        mixed, donor_labels = mix_images(
            batch_key, views[0], positions, settings, axis_name, labels=labels
        )
        parts.append((mixed, labels, donor_labels, ones))
    pixels, *rest = zip(*parts, strict=True)
    return Views(jnp.concatenate(pixels), *(jnp.stack(part) for part in rest))


def keys_of(key: jax.Array, views: Views, positions: jax.Array) -> jax.Array:
    """One key for each image of each view, [V * B]."""
    count = len(views.labels)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count))
    return jax.vmap(_image_keys, (0, None))(keys, positions).reshape(-1)


def _image_views(
    key: jax.Array,
    clean: jax.Array,
    positions: jax.Array,
    method: augment.Method,
    config: config_lib.Config,
) -> list[jax.Array]:
    """One view after the method's image stages; or three, the first of them clean."""

    def staged(number: int) -> jax.Array:
        keys = _image_keys(jax.random.fold_in(key, 1 + number), positions)
        images = clean
        for place, name in enumerate(method.after):
            here = jax.vmap(jax.random.fold_in, (0, None))(keys, place)
            images = IMAGE_STAGES[name](here, images, config)
        return images

    if method.loss == "jensen_shannon":
        return [clean, staged(0), staged(1)]
    return [staged(0)]


def augment_images(
    key: jax.Array,
    images: jax.Array,
    positions: jax.Array,
    settings: config_lib.Augment,
) -> jax.Array:
    """APR-S, crop and flip, in the order of the paper's code.

    Args:
        key: the step's key; image i draws from it and ``positions[i]`` alone.
        images: uint8 [B, H, W, C].
        positions: int32 [B], places in the global batch.
        settings: which method, and its numbers.

    Returns:
        uint8 [B, H, W, C].
    """
    keys = _image_keys(key, positions)
    single_keys, crop_keys, flip_keys = jnp.unstack(
        jax.vmap(lambda k: jax.random.split(k, 3))(keys), axis=1
    )
    if augment.get_method(settings.method).single:
        images = augment.apr_single(
            single_keys,
            images,
            prob=settings.single_prob,
            level=settings.single_level,
            ops=settings.single_ops,
            axes=settings.axes,
            overflow=settings.single_overflow,
        )
    if settings.crop_pad:
        images = augment.random_crop(
            crop_keys, images, pad=settings.crop_pad, fill=settings.crop_fill
        )
    if settings.flip:
        images = augment.random_flip(flip_keys, images)
    return images


def mix_images(
    key: jax.Array,
    images: jax.Array,
    positions: jax.Array,
    settings: config_lib.Augment,
    axis_name: str | None,
    *,
    labels: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """APR-P: pixels in [0, 1] of the images, amplitudes from other images.

    With ``pair_donors`` "global" the amplitudes come from the whole batch, whatever
    the number of devices; with "device" from the images on the same device.

    Returns:
        Pixels [B, H, W, C], and the labels [B] of what their amplitudes are from.
    """
    # The coin is the batch's, the same on every device; the donors are drawn apart.
    coin_key, donor_key = jax.random.split(key)
    # None: the donors are the images themselves, transformed once for both.
    donors, donor_labels = None, labels
    shared_donors = settings.pair_donors == "global"
    if axis_name is not None and shared_donors:
        donors = to_pixels(jax.lax.all_gather(images, axis_name, tiled=True))
        donor_labels = jax.lax.all_gather(labels, axis_name, tiled=True)
    elif axis_name is not None:
        donor_key = _apart(donor_key, axis_name)
    order = jax.random.permutation(donor_key, len(donor_labels))
    index = order[positions] if shared_donors else order
    prob, per = settings.pair_prob, settings.pair_per
    mixed = augment.apr_pair(
        coin_key,
        to_pixels(images),
        donors=donors,
        donor_index=index,
        axes=settings.axes,
        clip=settings.pair_clip,
        prob=prob,
        per=per,
    )
    coin = augment.pair_coin(coin_key, len(labels), prob=prob, per=per)
    return mixed, jnp.where(coin, donor_labels[index], labels)


def _image_keys(key: jax.Array, positions: jax.Array) -> jax.Array:
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)


def _apart(key: jax.Array, axis_name: str | None) -> jax.Array:
    """A key of this device's own."""
    if axis_name is None:
        return key
    return jax.random.fold_in(key, jax.lax.axis_index(axis_name))
