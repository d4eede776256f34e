"""Mollification: images noised or blurred at random, labels softened as much.

Heinonen et al., "Robust Classification by Coupling Data Mollification with Label
Smoothing", AISTATS 2025. Numbers are those of the released code.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax import fast_random
from apr_jax.augment.keys import per_image_keys
from apr_jax.gates import numbers
from apr_jax.gates.images import images_gate

# The least width of the blur's kernel in pixels; the largest is a side of the image.
_LEAST_WIDTH = 0.3


class Mollified(NamedTuple):
    """What `mollify` makes of images and labels.

    Attributes:
        images: [N, H, W, C]; noise goes beyond [0, 1].
        softness: float32 [N] in [0, 1], the share of each label that is to be spread
            evenly over all classes.
    """

    images: jax.Array
    softness: jax.Array


@images_gate("pixels", rules={"beta": numbers.positive})
def mollify(
    key: jax.Array,
    images: jax.Array,
    *,
    beta: float = 2.0,
    noise_power: float = 1.0,
    blur_power: float = 1.0,
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
) -> Mollified:
    """Each image as it is, noised, or blurred, with a chance of a third each.

    The time t is drawn from Beta(1, `beta`) for each image. Noise is that of diffusion
    models on normalised images, cos(pi t / 2) z + sin(pi t / 2) N(0, 1), and the label
    loses the share sin(pi t / 2)^2 to the power `noise_power`. Blur is heat that
    spreads with mirrored edges, exp(-(w_x^2 + w_y^2) s^2 / 2) times the cosine
    transform at the frequencies w, where s goes from 0.3 pixels at t = 0 to the image's
    longer side at t = 1, evenly in its logarithm; the label loses t to the power
    `blur_power`.

    Args:
        key: one key, or one per image [N].
        images: floating point [N, H, W, C] in [0, 1].
        beta: positive; the larger, the weaker.
        noise_power, blur_power: positive; the larger, the surer stay the labels.
        mean, std: by which the network normalises pixels: one for each channel, or one
            for all.

    Raises:
        TypeError: pixels are not floating point.
        ValueError: a number out of range, or another shape.
    """
    count, height, width, _ = images.shape
    keys = per_image_keys(key, count)
    draws = jax.vmap(lambda k: jax.random.uniform(k, (2,), jnp.float32))(keys)
    time = beta_one(draws[:, 0], beta)
    kind = jnp.floor(3 * draws[:, 1])
    seeds = fast_random.seeds_of(jax.vmap(jax.random.fold_in, (0, None))(keys, 1))
    pixels = images.astype(jnp.float32)
    noise = fast_random.normal(seeds, images.shape[1:])
    noised = add_noise(pixels, noise, time, mean=mean, std=std)
    blurred = dissipate(pixels, blur_width(time, longest=max(height, width)))
    is_noised, is_blurred = kind == 1, kind == 2
    choose = lambda mask: mask[:, None, None, None]
    mixed = jnp.where(choose(is_noised), noised, pixels)
    mixed = jnp.where(choose(is_blurred), blurred, mixed)
    lost = jnp.where(is_noised, noise_share(time) ** noise_power, jnp.zeros_like(time))
    lost = jnp.where(is_blurred, time**blur_power, lost)
    return Mollified(mixed.astype(images.dtype), lost)


def beta_one(uniform: jax.Array, beta: float) -> jax.Array:
    """Numbers from Beta(1, beta), of uniform ones in [0, 1) by its inverse."""
    return 1 - (1 - uniform) ** (1 / beta)


def noise_share(time: jax.Array) -> jax.Array:
    """The noise's share of the variance at times in [0, 1]."""
    return jnp.sin(0.5 * math.pi * time) ** 2


def add_noise(
    images: jax.Array,
    noise: jax.Array,
    time: jax.Array,
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> jax.Array:
    """Pixels whose normalised values are mixed with normal noise, float32 [N, H, W, C].

    Args:
        images: float32 [N, H, W, C].
        noise: of the same shape and type.
        time: float32 [N].
        mean, std: by which pixels are normalised.
    """
    middle, spread = (
        jnp.asarray(np.asarray(v, np.float32)).reshape(1, 1, 1, -1) for v in (mean, std)
    )
    angle = (0.5 * math.pi * time)[:, None, None, None]
    return middle + jnp.cos(angle) * (images - middle) + jnp.sin(angle) * spread * noise


def blur_width(time: jax.Array, *, longest: int) -> jax.Array:
    """The blur's kernel width in pixels at times in [0, 1], float32 [N]."""
    low, high = math.log(_LEAST_WIDTH), math.log(longest)
    return jnp.exp((1 - time) * low + time * high)


def dissipate(images: jax.Array, width: jax.Array) -> jax.Array:
    """Heat spread in images with mirrored edges, each by a width of its own.

    Args:
        images: float32 [N, H, W, C].
        width: float32 [N], standard deviations of the kernels in pixels.
    """
    highest = jax.lax.Precision.HIGHEST
    rows, columns = (_spread(side, width) for side in images.shape[1:3])
    once = jnp.einsum("nij,njwc->niwc", rows, images, precision=highest)
    return jnp.einsum("nij,nhjc->nhic", columns, once, precision=highest)


def _spread(side: int, width: jax.Array) -> jax.Array:
    """The matrices [N, side, side] that spread heat along one axis."""
    places = np.arange(side)
    basis = np.cos(np.pi * np.outer(places, places + 0.5) / side) * np.sqrt(2 / side)
    basis[0] /= np.sqrt(2)
    frequency = jnp.asarray((np.pi * places / side) ** 2, jnp.float32)
    kept = jnp.exp(-0.5 * frequency[None] * width[:, None] ** 2)
    cosines = jnp.asarray(basis, jnp.float32)
    highest = jax.lax.Precision.HIGHEST
    return jnp.einsum("ki,nk,kj->nij", cosines, kept, cosines, precision=highest)
