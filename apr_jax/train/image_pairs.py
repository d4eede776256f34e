"""What a batch's images take from one another: second views, and blended images.

What the batch has in common is drawn from its key, the same on every device; what an
image has for itself from that key and its place in the global batch. Where the donors
are from says ``augment.pair_donors``.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from apr_jax import augment
from apr_jax import config as config_lib
from apr_jax.pixels import to_pixels
from apr_jax.train.single_image import strengths_of

# name -> (key, pixels [B, H, W, C], alpha) -> images, partners and weights.
MIXES: dict[str, Callable[..., augment.Mixed]] = {
    "mixup": augment.mixup,
    "cutmix": augment.cutmix,
}


class Donors(NamedTuple):
    """What images of a batch take something from.

    Attributes:
        pool: pixels [M, H, W, C] of all devices, or None for the images themselves.
        labels: int [M], or [B].
        giver: int32 [B], which of them gives to which image.
        third: int32 [B], another for each: the donor of the image before.
    """

    pool: jax.Array | None
    labels: jax.Array
    giver: jax.Array
    third: jax.Array

    @property
    def knobs(self) -> dict[str, Any]:
        """As the functions of ``apr_jax.augment`` take them."""
        return {"donors": self.pool, "donor_index": self.giver}


def choose_donors(
    key: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    positions: jax.Array,
    settings: config_lib.Augment,
    axis_name: str | None,
) -> Donors:
    """A random order of the images that ``pair_donors`` names.

    "global": from the whole batch, whatever the number of devices; "device": from the
    images on the same device.
    """
    pool, pool_labels = None, labels
    shared = settings.pair_donors == "global"
    if axis_name is not None and shared:
        pool = to_pixels(jax.lax.all_gather(images, axis_name, tiled=True))
        pool_labels = jax.lax.all_gather(labels, axis_name, tiled=True)
    elif axis_name is not None:
        key = _apart(key, axis_name)
    order = jax.random.permutation(key, len(pool_labels))
    giver, third = (
        each[positions] if shared else each for each in (order, jnp.roll(order, 1))
    )
    return Donors(pool, pool_labels, giver, third)


class PairKeys(NamedTuple):
    """What a second view is drawn from: one key for the batch, one for each image."""

    batch: jax.Array
    images: jax.Array

    def coin(self, settings: config_lib.Augment) -> jax.Array:
        """What coins are thrown with: ``pair_per`` says whether for each image."""
        return self.images if settings.pair_per == "image" else self.batch


def _apr_p(
    keys: PairKeys, pixels: jax.Array, settings: config_lib.Augment, donors: Donors
) -> jax.Array:
    return augment.apr_pair(
        keys.coin(settings),
        pixels,
        prob=settings.pair_prob,
        per=settings.pair_per,
        axes=settings.axes,
        clip=settings.pair_clip,
        **donors.knobs,
    )


def _hybrid(
    keys: PairKeys, pixels: jax.Array, settings: config_lib.Augment, donors: Donors
) -> jax.Array:
    return augment.hybrid_augment(
        keys.coin(settings),
        pixels,
        prob=settings.pair_prob,
        per=settings.pair_per,
        clip=settings.pair_clip,
        **strengths_of(settings, "hybrid"),
        **donors.knobs,
    )


def _hybrid_pp(
    keys: PairKeys, pixels: jax.Array, settings: config_lib.Augment, donors: Donors
) -> jax.Array:
    return augment.hybrid_augment_pp(
        keys.coin(settings),
        pixels,
        prob=settings.pair_prob,
        pair_prob=settings.pair_prob,
        per=settings.pair_per,
        axes=settings.axes,
        clip=settings.pair_clip,
        amplitude_index=donors.third,
        **strengths_of(settings, "hybrid"),
        **donors.knobs,
    )


def _amplitude_mix(
    keys: PairKeys, pixels: jax.Array, settings: config_lib.Augment, donors: Donors
) -> jax.Array:
    # Clipped, as FACT stores the mixed image as grey levels.
    del settings
    return augment.amplitude_mix(keys.images, pixels, clip=True, **donors.knobs)


def _low_amplitude_swap(
    keys: PairKeys, pixels: jax.Array, settings: config_lib.Augment, donors: Donors
) -> jax.Array:
    return augment.low_amplitude_swap(
        keys.batch, pixels, clip=settings.pair_clip, **donors.knobs
    )


def _waves(
    keys: PairKeys, pixels: jax.Array, settings: config_lib.Augment, donors: Donors
) -> jax.Array:
    del donors
    return augment.fourier_basis_noise(
        keys.images, pixels, **strengths_of(settings, "waves")
    )


# name -> (keys, pixels [B, H, W, C], settings, donors) -> pixels.
PAIRS: dict[str, Callable[..., jax.Array]] = {
    "apr_p": _apr_p,
    "hybrid_augment": _hybrid,
    "hybrid_augment_pp": _hybrid_pp,
    "amplitude_mix": _amplitude_mix,
    "low_amplitude_swap": _low_amplitude_swap,
    "fourier_basis_noise": _waves,
}


def blend_images(
    key: jax.Array,
    pixels: jax.Array,
    labels: jax.Array,
    positions: jax.Array,
    method: augment.Method,
    settings: config_lib.Augment,
    axis_name: str | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mixup, or another of ``MIXES``, of a batch or of none of its images.

    Each device draws a weight of its own where ``pair_donors`` is "device".

    Returns:
        Pixels [B, H, W, C], the labels [B] of what was blended in, and the weights
        float32 [B] of the images' own.
    """
    # 0 and 1 are those of `mix_images`.
    mix_key, donor_key, coin_key = (jax.random.fold_in(key, i) for i in (2, 3, 4))
    donors = choose_donors(donor_key, pixels, labels, positions, settings, axis_name)
    if settings.pair_donors == "device":
        mix_key = _apart(mix_key, axis_name)
    mixed = MIXES[method.mix](mix_key, pixels, alpha=settings.mix_alpha, **donors.knobs)
    # A coin of the batch's, the same on every device.
    coin = jax.random.bernoulli(coin_key, settings.mix_prob)
    return (
        jnp.where(coin, mixed.images, pixels),
        jnp.where(coin, donors.labels[mixed.partner], labels),
        jnp.where(coin, mixed.weight, jnp.ones(len(labels), jnp.float32)),
    )


def mix_images(
    key: jax.Array,
    images: jax.Array,
    positions: jax.Array,
    settings: config_lib.Augment,
    axis_name: str | None,
    *,
    labels: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """APR-P, or another of ``PAIRS``: images that take something from other images.

    Returns:
        Pixels [B, H, W, C]; and for APR-P the labels [B] of what their amplitudes are
        from, for the others those of the images themselves.
    """
    # What the batch has in common, as its coin, is the same on every device; what an
    # image has for itself follows its position; the donors are drawn apart.
    coin_key, donor_key = jax.random.split(key)
    keys = PairKeys(coin_key, image_keys(coin_key, positions))
    donors = choose_donors(donor_key, images, labels, positions, settings, axis_name)
    pair = augment.get_method(settings.method).pair
    mixed = PAIRS[pair](keys, to_pixels(images), settings, donors)
    if pair != "apr_p":
        return mixed, labels
    coin = augment.pair_coin(
        keys.coin(settings),
        len(labels),
        prob=settings.pair_prob,
        per=settings.pair_per,
    )
    return mixed, jnp.where(coin, donors.labels[donors.giver], labels)


def image_keys(key: jax.Array, positions: jax.Array) -> jax.Array:
    """A key for each place in the global batch, [B]."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)


def _apart(key: jax.Array, axis_name: str | None) -> jax.Array:
    """A key of this device's own."""
    if axis_name is None:
        return key
    return jax.random.fold_in(key, jax.lax.axis_index(axis_name))
