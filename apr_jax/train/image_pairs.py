"""Images that take something from others of a batch: second views, and blends.

What the batch has in common is drawn from its key, the same on every device; what an
image has for itself from that key and its place in the global batch. The setting
``augment.pair_donors`` says where donors are from.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from apr_jax import augment
from apr_jax import config as config_lib
from apr_jax.pixels import to_pixels
from apr_jax.train.single_image import image_keys, run_stage


class Share(NamedTuple):
    """A device's share of a batch, and how it is augmented.

    Attributes:
        labels: int [B].
        positions: int32 [B], places in the global batch.
        config: its ``augment`` and ``data`` parts are used.
        axis_name: the mapped axis of devices, if there is one.
    """

    labels: jax.Array
    positions: jax.Array
    config: config_lib.Config
    axis_name: str | None


class Donors(NamedTuple):
    """Images that those of a batch take something from.

    Attributes:
        donors: pixels [M, H, W, C] of all devices, or None for the images themselves.
        labels: int [M], or [B].
        donor_index: int32 [B], which of them gives to which image.
        amplitude_index: int32 [B], another for each: the donor of the image before.
    """

    donors: jax.Array | None
    labels: jax.Array
    donor_index: jax.Array
    amplitude_index: jax.Array

    def given(self, stage: augment.Stage) -> dict[str, Any]:
        """The fields that are arguments of a stage's function."""
        return {field: getattr(self, field) for field in stage.takes}


def choose_donors(key: jax.Array, images: jax.Array, share: Share) -> Donors:
    """A random order of the images that ``pair_donors`` names.

    "global": from the whole batch, whatever the number of devices; "device": from the
    images on the same device.
    """
    labels, positions, config, axis_name = share
    pool, pool_labels = None, labels
    shared = config.augment.pair_donors == "global"
    if axis_name is not None and shared:
        pool = to_pixels(jax.lax.all_gather(images, axis_name, tiled=True))
        pool_labels = jax.lax.all_gather(labels, axis_name, tiled=True)
    elif axis_name is not None:
        key = apart(key, axis_name)
    order = jax.random.permutation(key, len(pool_labels))
    first, second = (
        each[positions] if shared else each for each in (order, jnp.roll(order, 1))
    )
    return Donors(pool, pool_labels, first, second)


def blend_images(
    key: jax.Array, pixels: jax.Array, mix: augment.Stage, share: Share
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mixup, or another way of blending, of a batch or of none of its images.

    Each device draws a weight of its own where ``pair_donors`` is "device".

    Returns:
        Pixels [B, H, W, C], the labels [B] of what was blended in, and the weights
        float32 [B] of the images' own.
    """
    labels, settings = share.labels, share.config.augment
    # 0 and 1 are those of `mix_images`.
    mix_key, donor_key, coin_key = (jax.random.fold_in(key, i) for i in (2, 3, 4))
    donors = choose_donors(donor_key, pixels, share)
    if settings.pair_donors == "device":
        mix_key = apart(mix_key, share.axis_name)
    mixed = run_stage(mix, mix_key, pixels, share.config, **donors.given(mix))
    # A coin of the batch's, the same on every device.
    coin = jax.random.bernoulli(coin_key, settings.mix_prob)
    return (
        jnp.where(coin, mixed.images, pixels),
        jnp.where(coin, donors.labels[mixed.partner], labels),
        jnp.where(coin, mixed.weight, jnp.ones(len(labels), jnp.float32)),
    )


def mix_images(
    key: jax.Array, images: jax.Array, pair: augment.Stage, share: Share
) -> tuple[jax.Array, jax.Array]:
    """APR-P, or another second view: images that take something from other images.

    Returns:
        Pixels [B, H, W, C]; and the labels [B] of what their amplitudes are from, if
        these are whole, otherwise those of the images themselves.
    """
    labels, positions, config, _ = share
    settings = config.augment
    # What the batch has in common, as its coin, is the same on every device; what an
    # image has for itself follows its position; the donors are drawn apart.
    coin_key, donor_key = jax.random.split(key)
    keys = {"batch": coin_key, "image": image_keys(coin_key, positions)}
    per = pair.per or settings.pair_per
    drawn = keys[per]
    donors = choose_donors(donor_key, images, share)
    mixed = run_stage(pair, drawn, to_pixels(images), config, **donors.given(pair))
    if not pair.whole:
        return mixed, labels
    coin = augment.pair_coin(drawn, len(labels), prob=settings.pair_prob, per=per)
    return mixed, jnp.where(coin, donors.labels[donors.donor_index], labels)


def apart(key: jax.Array, axis_name: str | None) -> jax.Array:
    """A key of this device's own; the same one without devices."""
    if axis_name is None:
        return key
    return jax.random.fold_in(key, jax.lax.axis_index(axis_name))
