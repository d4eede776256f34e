"""Blurring and resizing as matrices, and what else the corruptions share.

Every filter here is linear and separable, with its treatment of the border part of the
matrix: an [H, H] matrix for the rows, a [W, W] one for the columns. Matrices are made
in float64 on the host and applied in float32. "Planes" are images as [H, W, N * C]: the
batch comes last, so that a filter is one matrix product and runs along memory.
"""

import math
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from apr_jax.augment.packed import channel, look_up
from apr_jax.corruptions.constants import Arrays, Shape

T = TypeVar("T")
Matrix = npt.NDArray[np.float64]

# Of a grey level: what should be a whole level may come out of float32 a little below
# it, and must not lose a level by truncation.
_SLACK = 2.0**-9


def to_uint8(levels: jax.Array) -> jax.Array:
    """Clips to [0, 255] and truncates, as the benchmark's files were made."""
    return (jnp.clip(levels, 0.0, 255.0) + _SLACK).astype(jnp.uint8)


def settle(tree: T) -> T:
    """Computes arrays that are looked up in, or used often, once and for all.

    The compiler would rather compute them again for each place that is looked up.
    """
    return jax.lax.optimization_barrier(tree)


def to_planes(images: jax.Array) -> jax.Array:
    """uint8 [N, H, W, C] -> float32 [H, W, N * C], in grey levels."""
    count, height, width, channels = images.shape
    moved = images.transpose(1, 2, 0, 3).reshape(height, width, count * channels)
    return moved.astype(jnp.float32)


def from_planes(planes: jax.Array, channels: int) -> jax.Array:
    """[H, W, N * C] -> [N, H, W, C]."""
    height, width, _ = planes.shape
    return planes.reshape(height, width, -1, channels).transpose(2, 0, 1, 3)


def rows(matrix: jax.Array, planes: jax.Array) -> jax.Array:
    """Applies a matrix [S, H] down the rows: [H, W, M] -> [S, W, M]."""
    height, width, depth = planes.shape
    flat = planes.reshape(height, width * depth)
    return jnp.matmul(matrix, flat, precision="highest").reshape(-1, width, depth)


def columns(matrix: jax.Array, planes: jax.Array) -> jax.Array:
    """Applies a matrix [S, W] along the columns: [H, W, M] -> [H, S, M]."""
    return jnp.einsum("sw,hwm->hsm", matrix, planes, precision="highest")


def both(down: jax.Array, along: jax.Array, planes: jax.Array) -> jax.Array:
    """Applies a matrix down the rows and one along the columns: [H, W, M] -> same."""
    return columns(along, rows(down, planes))


def of_both(name: str, shape: Shape, make: Callable[[int], Matrix]) -> Arrays:
    """The matrices of ``both`` by name, "NAME_down" and "NAME_along", float32."""
    sides = zip(("down", "along"), shape, strict=True)
    return {f"{name}_{side}": make(size).astype(np.float32) for side, size in sides}


def gaussian(
    size: int, sigma: float, *, truncate: float = 4.0, border: str = "nearest"
) -> Matrix:
    """A Gaussian blur of ``size`` pixels, [size, size], as SciPy's.

    Args:
        size: pixels.
        sigma: standard deviation in pixels; 0 is the identity.
        truncate: standard deviations after which the kernel ends.
        border: "nearest" repeats the outermost pixel, "reflect" mirrors the image
            with that pixel.
    """
    radius = int(truncate * sigma + 0.5)
    if radius == 0:
        return np.eye(size)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    source = np.arange(size)[:, None] + offsets[None]
    if border == "nearest":
        source = np.clip(source, 0, size - 1)
    else:
        source %= 2 * size
        source = np.minimum(source, 2 * size - 1 - source)
    return _scatter(source, np.broadcast_to(kernel, source.shape), size)


def zoom(size: int, factor: float) -> Matrix:
    """Enlarges the centre by ``factor``, [size, size], as SciPy's linear zoom does.

    The smallest central part that fills the image is enlarged, and the middle of the
    result is kept.
    """
    part = math.ceil(size / factor)
    enlarged = round(part * factor)
    place = (enlarged - size) // 2 + np.arange(size)
    where = place * ((part - 1) / max(enlarged - 1, 1))
    low = np.minimum(np.floor(where).astype(int), part - 1)
    high = np.minimum(low + 1, part - 1)
    first = (size - part) // 2
    source = first + np.stack([low, high], axis=1)
    weight = np.stack([1 - (where - low), where - low], axis=1)
    return _scatter(source, weight, size)


def coarse(size: int, small: int) -> Matrix:
    """Averages to ``small`` pixels and repeats back, [size, size]: Pillow's BOX."""
    scale = size / small
    down = np.zeros((small, size))
    for i in range(small):
        centre = (i + 0.5) * scale
        near = (np.arange(size) + 0.5 - centre) / scale
        # Half open, as Pillow's box is.
        down[i] = (near > -0.5) & (near <= 0.5)
    down /= down.sum(axis=1, keepdims=True)
    nearest = ((np.arange(size) + 0.5) / scale).astype(int)
    return down[np.minimum(nearest, small - 1)]


def _scatter(source: npt.NDArray, weight: npt.NDArray, size: int) -> Matrix:
    """The matrix whose row i has ``weight[i]`` at the columns ``source[i]``."""
    matrix = np.zeros((len(source), size))
    np.add.at(matrix, (np.arange(len(source))[:, None], source), weight)
    return matrix


def motion_taps(radius: int, sigma: float, count: int) -> npt.NDArray[np.float32]:
    """Weights of ImageMagick's motion blur, filled up with zeros to ``count``.

    One side of a Gaussian, over the 2 radius + 1 pixels of the kernel's width.
    """
    width = 2 * radius + 1
    taps = np.exp(-0.5 * (np.arange(width) / sigma) ** 2)
    result = np.zeros(count, np.float32)
    result[:width] = taps / taps.sum()
    return result


def motion_offsets(degrees: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """The offsets of ImageMagick's motion blur: (down, right), int32 [N, count] pixels.

    Tap j is the pixel nearest to j steps in the direction of the angle, halves to the
    lower side.
    """
    radians = jnp.deg2rad(degrees)[:, None]
    step = jnp.arange(count, dtype=jnp.float32)[None]
    nearest = lambda x: jnp.ceil(x - 0.5).astype(jnp.int32)
    return nearest(step * jnp.sin(radians)), nearest(step * jnp.cos(radians))


def channels_at(words: jax.Array, index: jax.Array, count: int) -> list[jax.Array]:
    """Levels of each of ``count`` channels at flat indices of packed words, float32."""
    word = look_up(words, index)
    return [channel(word, c).astype(jnp.float32) for c in range(count)]


def along_motion(
    levels_at: Callable[[jax.Array], list[jax.Array]],
    taps: jax.Array,
    degrees: jax.Array,
    shape: Shape,
    channels: int,
) -> list[jax.Array]:
    """Motion blur of each image in its own direction, each channel [N, H, W].

    Args:
        levels_at: flat indices int32 [N, H, W] -> float32 levels of each channel.
        taps: weights, of ``motion_taps``.
        degrees: float32 [N].
        shape: H and W.
        channels: how many ``levels_at`` gives.
    """
    offsets = motion_offsets(degrees, len(taps))
    down, right = (settle(offset.T) for offset in offsets)

    def add(tap: jax.Array, total: list[jax.Array]) -> list[jax.Array]:
        index = shifted_index(down[tap], right[tap], shape)
        return [
            before + taps[tap] * level
            for before, level in zip(total, levels_at(index), strict=True)
        ]

    start = [jnp.zeros((len(degrees), *shape))] * channels
    return jax.lax.fori_loop(0, jnp.sum(taps > 0), add, start)


def shifted_index(down: jax.Array, right: jax.Array, shape: Shape) -> jax.Array:
    """Flat index of each image's pixels when it is moved; the edge is repeated.

    Args:
        down, right: int32 [N], pixels.
        shape: H and W of the images.

    Returns:
        int32 [N, H, W], into the [N * H * W] pixels of the batch.
    """
    height, width = shape
    row = jnp.clip(jnp.arange(height)[None] + down[:, None], 0, height - 1)
    column = jnp.clip(jnp.arange(width)[None] + right[:, None], 0, width - 1)
    first = jnp.arange(len(down))[:, None] * height + row
    return first[:, :, None] * width + column[:, None, :]
