"""What the network sees of a batch: its images, augmented, in one view or several.

A view has as many images as the batch, and labels of its own: where images are
blended, two for each image with a weight. Everything random is drawn from the step's
key and the image's position in the global batch, whatever the number of devices.

Source: Chen et al., ICCV 2021, section 4, and the released training loop: the
network sees the clean images and the recombined ones in one batch of twice the size.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

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


def _on_levels(function: Callable[..., jax.Array]) -> Stage:
    return lambda keys, images, config: function(keys, images)


def _on_pixels(function: Callable[..., jax.Array]) -> Stage:
    return lambda keys, images, config: function(keys, to_pixels(images))


# Up to this size AutoAugment's policy is CIFAR's.
_LARGEST_SMALL = 64

# name -> (one key per image [B], images [B, H, W, C] uint8 or pixels, configuration)
# -> the same shape, uint8 or pixels.
IMAGE_STAGES: dict[str, Stage] = {
    "cutout": _cutout,
    "autoaugment": _autoaugment,
    "random_autoaugment": _on_levels(augment.random_autoaugment),
    "augmix": _on_levels(augment.augmix),
    "patch_gaussian": _on_pixels(augment.patch_gaussian),
    "patch_uniform": _on_pixels(augment.patch_uniform),
    "vital_phase": _on_pixels(augment.vital_phase),
    "prime": _on_pixels(augment.prime),
    "simclr": _simclr,
}

# name -> (key, pixels [B, H, W, C], alpha) -> images, partners and weights.
MIXES: dict[str, Callable[..., augment.Mixed]] = {
    "mixup": augment.mixup,
    "cutmix": augment.cutmix,
}


def _apr_p(
    key: jax.Array, pixels: jax.Array, settings: config_lib.Augment, **donors: Any
) -> jax.Array:
    return augment.apr_pair(
        key,
        pixels,
        prob=settings.pair_prob,
        per=settings.pair_per,
        axes=settings.axes,
        clip=settings.pair_clip,
        **donors,
    )


def _hybrid(
    key: jax.Array, pixels: jax.Array, settings: config_lib.Augment, **donors: Any
) -> jax.Array:
    knobs: Any = {"prob": settings.pair_prob, "per": settings.pair_per}
    return augment.hybrid_augment(
        key, pixels, clip=settings.pair_clip, **knobs, **donors
    )


def _hybrid_pp(
    key: jax.Array, pixels: jax.Array, settings: config_lib.Augment, **donors: Any
) -> jax.Array:
    index = donors["donor_index"]
    return augment.hybrid_augment_pp(
        key,
        pixels,
        prob=settings.pair_prob,
        pair_prob=settings.pair_prob,
        per=settings.pair_per,
        axes=settings.axes,
        clip=settings.pair_clip,
        # A third image: the donor of the next one.
        amplitude_index=jnp.roll(index, 1),
        **donors,
    )


def _amplitude_mix(
    key: jax.Array, pixels: jax.Array, settings: config_lib.Augment, **donors: Any
) -> jax.Array:
    return augment.amplitude_mix(key, pixels, clip=settings.pair_clip, **donors)


def _low_amplitude_swap(
    key: jax.Array, pixels: jax.Array, settings: config_lib.Augment, **donors: Any
) -> jax.Array:
    return augment.low_amplitude_swap(key, pixels, clip=settings.pair_clip, **donors)


def _waves(
    key: jax.Array, pixels: jax.Array, settings: config_lib.Augment, **donors: Any
) -> jax.Array:
    del settings, donors
    return augment.fourier_basis_noise(key, pixels)


# name -> (key, pixels [B, H, W, C], settings, donors=, donor_index=) -> pixels.
PAIRS: dict[str, Callable[..., jax.Array]] = {
    "apr_p": _apr_p,
    "hybrid_augment": _hybrid,
    "hybrid_augment_pp": _hybrid_pp,
    "amplitude_mix": _amplitude_mix,
    "low_amplitude_swap": _low_amplitude_swap,
    "fourier_basis_noise": _waves,
}


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
    views = _image_views(image_key, images, positions, method, config)
    first = to_pixels(views[0])
    ones = jnp.ones(len(labels), jnp.float32)
    others, weight = labels, ones
    if method.mix:
        mix_key = _apart(jax.random.fold_in(batch_key, 1), axis_name)
        mixed = MIXES[method.mix](mix_key, first, alpha=settings.mix_alpha)
        first, others, weight = mixed.images, labels[mixed.partner], mixed.weight
    parts = [(first, labels, others, weight)]
    parts += [(to_pixels(view), labels, labels, ones) for view in views[1:]]
    if method.pair:
        second, donor_labels = mix_images(
            batch_key, views[0], positions, settings, axis_name, labels=labels
        )
        parts.append((second, labels, donor_labels, ones))
    pixels, *rest = zip(*parts, strict=True)
    return Views(jnp.concatenate(pixels), *(jnp.stack(part) for part in rest))


def keys_of(key: jax.Array, views: Views, positions: jax.Array) -> jax.Array:
    """One key for each image of each view, [V * B]."""
    count = len(views.labels)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count))
    return jax.vmap(_image_keys, (0, None))(keys, positions).reshape(-1)


def _image_views(
    key: jax.Array,
    images: jax.Array,
    positions: jax.Array,
    method: augment.Method,
    config: config_lib.Config,
) -> list[jax.Array]:
    """The views that need no other image.

    One after the method's image stages; or three, the first of them clean; or for a
    contrastive method two for each quarter turn: all turns of the first, then all of
    the second.
    """
    if method.loss == "contrastive":
        return _contrastive_views(key, images, positions, method, config)
    clean = augment_images(key, images, positions, config.augment)

    def staged(number: int) -> jax.Array:
        keys = _image_keys(jax.random.fold_in(key, 1 + number), positions)
        return _staged(keys, clean, method, config)

    if method.loss == "jensen_shannon":
        return [clean, staged(0), staged(1)]
    return [staged(0)]


def _staged(
    keys: jax.Array,
    images: jax.Array,
    method: augment.Method,
    config: config_lib.Config,
) -> jax.Array:
    """Images after the method's image stages."""
    for place, name in enumerate(method.after):
        here = jax.vmap(jax.random.fold_in, (0, None))(keys, place)
        images = IMAGE_STAGES[name](here, images, config)
    return images


def _contrastive_views(
    key: jax.Array,
    images: jax.Array,
    positions: jax.Array,
    method: augment.Method,
    config: config_lib.Config,
) -> list[jax.Array]:
    # SimCLR has a crop of its own.
    settings = dataclasses.replace(config.augment, crop_pad=0)
    turned, keys = [], []
    for view_key in jax.random.split(key):
        upright_key, *turn_keys = jax.random.split(view_key, 1 + method.shifts)
        upright = augment_images(upright_key, images, positions, settings)
        for turn, turn_key in enumerate(turn_keys):
            turned.append(augment.quarter_turns(upright, turn))
            keys.append(_image_keys(turn_key, positions))
    # All at once: the stages are much to compile.
    staged = _staged(jnp.concatenate(keys), jnp.concatenate(turned), method, config)
    return jnp.split(staged, len(turned))


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
    """APR-P, or another of ``PAIRS``: images that take something from other images.

    With ``pair_donors`` "global" these come from the whole batch, whatever the number
    of devices; with "device" from the images on the same device.

    Returns:
        Pixels [B, H, W, C]; and for APR-P the labels [B] of what their amplitudes are
        from, for the others those of the images themselves.
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
    pair = augment.get_method(settings.method).pair
    mixed = PAIRS[pair](
        coin_key, to_pixels(images), settings, donors=donors, donor_index=index
    )
    if pair != "apr_p":
        return mixed, labels
    coin = augment.pair_coin(
        coin_key, len(labels), prob=settings.pair_prob, per=settings.pair_per
    )
    return mixed, jnp.where(coin, donor_labels[index], labels)


def _image_keys(key: jax.Array, positions: jax.Array) -> jax.Array:
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)


def _apart(key: jax.Array, axis_name: str | None) -> jax.Array:
    """A key of this device's own."""
    if axis_name is None:
        return key
    return jax.random.fold_in(key, jax.lax.axis_index(axis_name))
