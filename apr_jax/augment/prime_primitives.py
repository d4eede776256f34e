"""PRIME's three families of random transforms, each of largest entropy.

All act on one image [H, W, C] in [0, 1]; what is random is drawn apart from its use.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from apr_jax import fast_random
from apr_jax.augment.packed import pixels_at
from apr_jax.target import by_platform

# Deformations have this many modes or more.
LEAST_CUT = 2


class Curve(NamedTuple):
    """A colour curve c + sum_j b_j sin(pi (start + j) c) for each channel.

    Attributes:
        start: int32 [], the lowest frequency.
        coefficients: float32 [J, C], the b.
    """

    start: jax.Array
    coefficients: jax.Array


def draw_field(key: jax.Array, height: int, width: int, *, cut: int) -> jax.Array:
    """A smooth random displacement: float32 [2, H, W], in rows and in columns.

    A sum of modes sin(pi i u) sin(pi j v) on the unit square, of Gaussian weight
    sqrt(T) / r for r = sqrt(i^2 + j^2) within a random cut-off, which vanishes at the
    border. T is random between a typical displacement of half a pixel and the largest
    at which the image doesn't fold over (after Petrini et al. 2021).

    Modes past the pixels' resolution are not drawn: on the pixel grid they equal lower
    ones, whose variance they increase.

    Args:
        key: one key.
        height, width: of the image; the scale of T follows the shorter side.
        cut: largest cut-off, more than 2; 100 on CIFAR, 500 on ImageNet.

    Raises:
        ValueError: `cut` out of range.
    """
    if cut <= LEAST_CUT:
        raise ValueError(f"cut must be more than {LEAST_CUT}, got {cut}")
    limit_key, cut_key, scale_key, field_key = jax.random.split(key, 4)
    limit = jax.random.randint(limit_key, (), LEAST_CUT + 1, cut + 1)
    limit = limit.astype(jnp.float32)
    share = _arcsine(cut_key)
    chosen = jnp.floor(share * (limit + 1 - LEAST_CUT)) + LEAST_CUT
    # The share may be rounded to one.
    chosen = jnp.minimum(chosen, limit)
    scale = deformation_scale(chosen, _arcsine(scale_key), size=min(height, width))
    if min(height, width) < 3:
        return jnp.zeros((2, height, width))
    seeds = fast_random.seeds_of(field_key[None])
    noise = fast_random.normal(seeds, (2, height - 2, width - 2))[0]
    weights = noise * jnp.sqrt(mode_variances(chosen, height, width, cut=cut))[None]
    numbers = lambda *ends: jnp.arange(*ends).astype(jnp.float32)
    rows, columns = (
        jnp.sin(jnp.pi * jnp.outer(numbers(side), numbers(1, side - 1)) / (side - 1))
        for side in (height, width)
    )
    highest = jax.lax.Precision.HIGHEST
    field = jnp.einsum("dij,yi,xj->dyx", weights, rows, columns, precision=highest)
    sides = jnp.array([height, width], jnp.float32)
    return jnp.sqrt(scale) * field * sides[:, None, None]


def deformation_scale(cut: jax.Array, share: jax.Array, *, size: int) -> jax.Array:
    """T, `share` of the way from its lowest sensible value to its highest."""
    log = jnp.log(cut)
    low = 1 / (math.pi * size**2 * log)
    high = jnp.maximum(low, 4 / (math.pi**3 * cut**2 * log))
    return low + share * (high - low)


def mode_variances(
    chosen: jax.Array, height: int, width: int, *, cut: int
) -> jax.Array:
    """Variances of a field's modes on the pixel grid, for T = 1: [H - 2, W - 2].

    1 / r^2 where r < chosen + 1/2, and those of all modes up to `cut` that coincide
    with them on the grid.
    """
    index = jnp.arange(cut + 1, dtype=jnp.float32)
    square = index[:, None] ** 2 + index[None, :] ** 2
    # Modes start from one in both directions.
    inside = (jnp.sqrt(square) < chosen + 0.5) & (jnp.outer(index, index) > 0)
    variance = jnp.where(inside, 1 / jnp.maximum(square, 1), 0.0)
    return _folded(_folded(variance, height).T, width).T


def deform(image: jax.Array, field: jax.Array) -> jax.Array:
    """The image at x - d(x), bilinear, the border repeated outside.

    Args:
        image: [H, W, C].
        field: [2, H, W], d in pixels.
    """
    height, width, _ = image.shape
    at = [
        jnp.clip(grid.astype(field.dtype) - shift, 0, side - 1)
        for grid, shift, side in zip(
            jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"),
            field,
            (height, width),
            strict=True,
        )
    ]
    low = [jnp.floor(place).astype(jnp.int32) for place in at]
    high = [
        jnp.minimum(first + 1, side - 1)
        for first, side in zip(low, (height, width), strict=True)
    ]
    down, right = (
        (place - first.astype(place.dtype))[..., None]
        for place, first in zip(at, low, strict=True)
    )
    near = by_platform(image, low, high, tpu=_corners_by_plane, default=_corners)
    upper = near[0] * (1 - right) + near[1] * right
    lower = near[2] * (1 - right) + near[3] * right
    return upper * (1 - down) + lower * down


def _corners(
    image: jax.Array, low: Sequence[jax.Array], high: Sequence[jax.Array]
) -> list[jax.Array]:
    """The pixels above left, above right, below left and below right: [H, W, C]."""
    return [
        image[row, column] for row in (low[0], high[0]) for column in (low[1], high[1])
    ]


def _corners_by_plane(
    image: jax.Array, low: Sequence[jax.Array], high: Sequence[jax.Array]
) -> list[jax.Array]:
    """`_corners` of each channel by itself, where single words are slow."""
    planes = [image[None, :, :, c] for c in range(image.shape[-1])]
    rows, columns = ([place[axis][None] for place in (low, high)] for axis in (0, 1))
    near = pixels_at(planes, rows, columns)
    return [jnp.stack([x[0] for x in pixel], axis=-1) for pixel in near]


def draw_curve(
    key: jax.Array, channels: int, *, cut: int, scale: float, band: int | None = None
) -> Curve:
    """A random colour curve for each channel, with black and white fixed.

    Frequencies go from 1 to a random cut-off, the coefficients are Gaussian, with a
    variance uniform in [0, scale].

    Args:
        key: one key.
        channels: of the image.
        cut: largest cut-off, 1 or more; 100 on CIFAR, 500 on ImageNet.
        scale: largest variance; 0.01 on CIFAR, 0.05 on ImageNet.
        band: as many neighbouring frequencies, from a random one on, instead of all; 20
            on ImageNet.

    Raises:
        ValueError: no frequencies.
    """
    number = cut if band is None else band
    if min(cut, number) < 1:
        raise ValueError(f"cut and band must be 1 or more, got {cut} and {band}")
    cut_key, start_key, scale_key, value_key = jax.random.split(key, 4)
    last = jax.random.randint(cut_key, (), 1, cut + 1)
    start = jnp.ones((), jnp.int32)
    if band is not None:
        start = jax.random.randint(start_key, (), 1, last + 1)
    deviation = jnp.sqrt(scale * jax.random.uniform(scale_key))
    values = deviation * jax.random.normal(value_key, (number, channels))
    used = (start + jnp.arange(number) <= last)[:, None]
    return Curve(start, jnp.where(used, values, 0.0))


def recolour(image: jax.Array, curve: Curve) -> jax.Array:
    """Every level of [H, W, C] through its channel's curve, clipped to [0, 1]."""
    angle = jnp.pi * image
    cos, sin = jnp.cos(angle), jnp.sin(angle)

    # Horner's scheme in z = exp(i angle): one product a frequency, and no sine.
    def add(
        total: tuple[jax.Array, jax.Array], coefficient: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        re, im = total
        return (
            re * cos - im * sin + coefficient[None, None],
            re * sin + im * cos,
        ), None

    zero = jnp.zeros_like(image)
    (re, im), _ = jax.lax.scan(
        add, (zero, zero), curve.coefficients, reverse=True, unroll=4
    )
    first = angle * curve.start.astype(image.dtype)
    return jnp.clip(image + re * jnp.sin(first) + im * jnp.cos(first), 0, 1)


def draw_filter(key: jax.Array, size: int, *, sigma: float) -> jax.Array:
    """The identity plus Gaussian noise of deviation uniform in [0, sigma]: [K, K].

    Raises:
        ValueError: `size` is even or below 1.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size must be odd and positive, got {size}")
    scale_key, value_key = jax.random.split(key)
    deviation = sigma * jax.random.uniform(scale_key)
    noise = deviation * jax.random.normal(value_key, (size, size))
    return noise.at[size // 2, size // 2].add(1)


def convolve(image: jax.Array, kernel: jax.Array) -> jax.Array:
    """[H, W, C] correlated with [K, K], zeros outside, clipped to [0, 1]."""
    height, width, _ = image.shape
    size = len(kernel)
    reach = size // 2
    padded = jnp.pad(image, ((reach, reach), (reach, reach), (0, 0)))
    # Sums of shifted images: convolutions are slow in the loops of a CPU.
    total = jnp.zeros_like(image)
    for i in range(size):
        for j in range(size):
            total += kernel[i, j] * padded[i : i + height, j : j + width]
    return jnp.clip(total, 0, 1)


def _arcsine(key: jax.Array) -> jax.Array:
    """A number from Beta(1/2, 1/2)."""
    return jnp.sin(jnp.pi / 2 * jax.random.uniform(key)) ** 2


def _folded(values: jax.Array, size: int) -> jax.Array:
    """Sums of the modes 0 to M that coincide on `size` points."""
    period = 2 * (size - 1)
    spare = -len(values) % period
    padded = jnp.pad(values, ((0, spare), (0, 0)))
    sums = jnp.sum(padded.reshape(-1, period, values.shape[1]), axis=0)
    # sin(pi (2 (n - 1) - k) x) = -sin(pi k x) on the grid, whose sign is of no account.
    return sums[1 : size - 1] + sums[size:][::-1]
