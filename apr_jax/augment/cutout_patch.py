"""A square of each image blanked (Cutout) or filled with noise (Patch Gaussian)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from apr_jax import fast_random
from apr_jax.augment.keys import per_image_keys
from apr_jax.gates import numbers
from apr_jax.gates.images import images_gate


class Patches(NamedTuple):
    """The draws of `patch_gaussian` and `patch_uniform` for N images.

    Attributes:
        centre: int32 [N, 2], row and column, anywhere in the image.
        size: int32 [N], side in pixels.
        scale: float32 [N], of the noise.
        noise: float32 [N, H, W, C], of unit scale.
    """

    centre: jax.Array
    size: jax.Array
    scale: jax.Array
    noise: jax.Array


@images_gate("either", values="finite", rules={"fill": numbers.each_real})
def cutout(
    key: jax.Array,
    images: jax.Array,
    *,
    size: int = 16,
    fill: float | Sequence[float] | jax.Array = 0.0,
) -> jax.Array:
    """Each image with a square of `size` pixels blanked: [N, H, W, C] -> same.

    The centre is anywhere in the image, so the square is often cut by the border
    (DeVries & Taylor 2017, "Improved Regularization of Convolutional Neural Networks
    with Cutout").

    Args:
        key: one key, or one per image [N].
        images: uint8, or floating point of any range.
        size: side of the square; 16 for CIFAR-10, 8 for CIFAR-100.
        fill: in the images' own units, one number or one per channel. The original
            fills zero after normalisation, which is the training set's mean here.

    Raises:
        ValueError: `size` below 1, a `fill` that is no grey level of uint8 images, not
            four axes, or a wrong number of keys.
    """
    numbers.grey_fill(fill, images.dtype)
    count, height, width, channels = images.shape
    centre = draw_centres(key, count, height=height, width=width)
    mask = square_mask(centre, jnp.full(count, size), height=height, width=width)
    filling = jnp.broadcast_to(jnp.asarray(fill, images.dtype), (channels,))
    return jnp.where(mask[..., None], filling.reshape(1, 1, 1, channels), images)


@images_gate("pixels")
def patch_gaussian(
    key: jax.Array,
    images: jax.Array,
    *,
    size: int = 25,
    sigma: float = 0.1,
    random_size: bool = False,
) -> jax.Array:
    """Gaussian noise added in a square of each image, clipped: [N, H, W, C] -> same.

    The centre is anywhere in the image, the standard deviation uniform in [0, sigma]
    (Lopes et al. 2019, "Improving Robustness Without Sacrificing Accuracy with Patch
    Gaussian Augmentation").

    Args:
        key: one key, or one per image [N].
        images: floating point in [0, 1].
        size: side of the square in pixels; an infinite one makes it Gaussian noise.
            25 is for CIFAR-10; the training methods keep it on larger images, where it
            hides less.
        sigma: largest standard deviation.
        random_size: draw the side from 1 to `size` instead, the paper's "<= W".

    Raises:
        TypeError: pixels are not floating point.
        ValueError: `size` below 1, not four axes, or a wrong number of keys.
    """
    return _patch(key, images, size, sigma=sigma, random_size=random_size)


@images_gate("pixels")
def patch_uniform(
    key: jax.Array,
    images: jax.Array,
    *,
    size: int = 25,
    sigma: float = 0.1,
    random_size: bool = False,
) -> jax.Array:
    """`patch_gaussian` with uniform noise, for comparisons on the -C sets.

    Gaussian noise is one of their corruptions, so AugMix (Hendrycks et al. 2020) takes
    uniform noise instead. It doesn't say how it is scaled: here the noise is uniform
    between -s and s with s uniform in [0, sigma sqrt(3)], which has the standard
    deviation of the Gaussian one. Arguments and errors likewise.
    """
    return _patch(key, images, size, sigma=sigma, random_size=random_size, uniform=True)


def draw_centres(key: jax.Array, count: int, *, height: int, width: int) -> jax.Array:
    """Row and column of a pixel for each image, all equally likely: int32 [N, 2]."""
    sides = jnp.array([height, width])
    keys = per_image_keys(key, count)
    return jax.vmap(lambda k: jax.random.randint(k, (2,), 0, sides))(keys)


def draw_patches(
    key: jax.Array,
    shape: tuple[int, ...],
    *,
    size: int,
    sigma: float,
    random_size: bool = False,
    uniform: bool = False,
) -> Patches:
    """The draws of `patch_gaussian`, or `patch_uniform`, for images of this shape."""
    count, height, width, channels = shape
    keys = jax.vmap(lambda k: jax.random.split(k, 4))(per_image_keys(key, count))
    centre = draw_centres(keys[:, 0], count, height=height, width=width)
    lowest = 1 if random_size else size
    sides = jax.vmap(lambda k: jax.random.randint(k, (), lowest, size + 1))(keys[:, 1])
    scale = sigma * jax.vmap(jax.random.uniform)(keys[:, 2])
    pixels = (height, width, channels)
    seeds = fast_random.seeds_of(keys[:, 3])
    if uniform:
        noise = 3**0.5 * (2 * fast_random.uniform(seeds, pixels) - 1)
    else:
        noise = fast_random.normal(seeds, pixels)
    return Patches(centre, sides, scale, noise)


def square_mask(
    centre: jax.Array, size: jax.Array, *, height: int, width: int
) -> jax.Array:
    """True in squares clipped at the border: int [N, 2] and [N] -> bool [N, H, W].

    Rows from centre - size // 2 on, `size` of them, and columns likewise.
    """
    first = centre - (size // 2)[:, None]
    last = first + size[:, None]
    inside = [
        (jnp.arange(side)[None] >= first[:, axis, None])
        & (jnp.arange(side)[None] < last[:, axis, None])
        for axis, side in enumerate((height, width))
    ]
    return inside[0][:, :, None] & inside[1][:, None, :]


def _patch(key: jax.Array, images: jax.Array, size: int, **knobs: Any) -> jax.Array:
    """Noise in a square of each image; knobs as `draw_patches`'s."""
    patches = draw_patches(key, images.shape, size=size, **knobs)
    _, height, width, _ = images.shape
    mask = square_mask(patches.centre, patches.size, height=height, width=width)
    noise = (patches.scale[:, None, None, None] * patches.noise).astype(images.dtype)
    noisy = jnp.clip(images + noise, 0, 1)
    return jnp.where(mask[..., None], noisy, images)
