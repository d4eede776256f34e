"""Brightness, contrast, saturation, elastic deformation, pixels and JPEG."""

import concurrent.futures
import functools
import io
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from PIL import Image

from apr_jax import fast_random
from apr_jax.augment.packed import channel, look_up, pack, pixels_at
from apr_jax.corruptions import resample
from apr_jax.corruptions.constants import CIFAR_SIZE, Arrays, Shape, Values, strength
from apr_jax.corruptions.resample import from_planes, settle, to_planes, to_uint8
from apr_jax.target import by_platform

# --- Shades --------------------------------------------------------------------------


def contrast(seeds: jax.Array, images: jax.Array, values: Values) -> jax.Array:
    """Brings every value nearer to the image's mean of its channel."""
    levels = images.astype(jnp.float32)
    mean = levels.mean(axis=(1, 2), keepdims=True)
    return to_uint8((levels - mean) * values["scale"] + mean)


def brightness(seeds: jax.Array, images: jax.Array, values: Values) -> jax.Array:
    """Adds to the value of HSV, at most up to 1."""
    levels = images.astype(jnp.float32)
    value = levels.max(axis=-1, keepdims=True)
    brighter = jnp.minimum(value + 255.0 * values["scale"], 255.0)
    # Hue and saturation stay, so all channels change by the same factor; black has
    # neither and becomes grey.
    scaled = levels * (brighter / jnp.maximum(value, 1.0))
    return to_uint8(jnp.where(value > 0, scaled, brighter))


def saturate(seeds: jax.Array, images: jax.Array, values: Values) -> jax.Array:
    """Multiplies the saturation of HSV and adds to it, within [0, 1]."""
    levels = images.astype(jnp.float32)
    value = levels.max(axis=-1, keepdims=True)
    below = value - levels
    spread = below.max(axis=-1, keepdims=True)
    saturation = spread / jnp.maximum(value, 1.0)
    new = jnp.clip(saturation * values["factor"] + values["shift"], 0.0, 1.0)
    # A channel lies below the value in proportion to the saturation. Grey has hue 0,
    # so what is added to it makes it red.
    red = jnp.array([0.0, 1.0, 1.0])[None, None, None]
    share = jnp.where(spread > 0, below / jnp.maximum(spread, 1.0), red)
    return to_uint8(value - value * new * share)


# --- Elastic -------------------------------------------------------------------------


def elastic_values(name: str, shape: Shape, severity: int) -> Arrays:
    """Displacement, its blur along each axis, and the shift of the corners."""
    farthest, sigma, shift = strength(name, shape, severity)
    # Lengths follow images smaller than CIFAR's.
    below = min(min(shape) / CIFAR_SIZE, 1.0)
    smooth = functools.partial(
        resample.gaussian, sigma=sigma * below, truncate=3.0, border="reflect"
    )
    return {
        "farthest": np.float32(farthest * below),
        **resample.of_both("smooth", shape, smooth),
        "shift": np.float32(shift * below),
    }


def elastic_transform(seeds: jax.Array, images: jax.Array, values: Values) -> jax.Array:
    """A random affine map, then smooth random displacements; bilinear both times."""
    count, height, width, channels = images.shape
    shape = (height, width)
    x, y = _affine(seeds, shape, values["shift"])
    unpacked = lambda pixel: [
        channel(pixel[0], c).astype(jnp.float32) for c in range(channels)
    ]
    mapped = _moved([pack(images)], unpacked, x, y, _mirror_edge, channels)
    wild = fast_random.uniform(seeds, (2, *shape), low=-1.0, lane=1)
    wild = wild.reshape(2 * count, *shape).transpose(1, 2, 0)
    field = resample.both(values["smooth_down"], values["smooth_along"], wild)
    field = field.transpose(2, 0, 1)
    field = values["farthest"] * field.reshape(count, 2, *shape)
    down, along = (jnp.arange(side, dtype=jnp.float32) for side in shape)
    x, y = along[None, None, :] + field[:, 0], down[None, :, None] + field[:, 1]
    moved = _moved(mapped, lambda pixel: pixel, x, y, _mirror, channels)
    return to_uint8(jnp.stack(moved, axis=-1))


def _affine(
    seeds: jax.Array, shape: Shape, shift: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The place that each pixel comes from, x and y [N, H, W].

    The map takes three points about the centre to places up to ``shift`` away in each
    direction; each pixel looks up its place under the inverse.
    """
    height, width = shape
    middle, arm = jnp.array([width // 2, height // 2]), min(shape) // 3
    old = jnp.array([[arm, arm], [arm, -arm], [-arm, -arm]], jnp.float32)
    old += middle[None].astype(jnp.float32)
    new = old[None] + shift * fast_random.uniform(seeds, (3, 2), low=-1.0)
    # Columns are the two edges that leave the third point.
    before = (old[:2] - old[2:]).T[None]
    after = (new[:, :2] - new[:, 2:]).transpose(0, 2, 1)
    a, b, c, d = (after[:, i, j] for i in (0, 1) for j in (0, 1))
    inverse = jnp.stack([jnp.stack([d, -b], -1), jnp.stack([-c, a], -1)], axis=1)
    inverse /= (a * d - b * c)[:, None, None]
    matrix = jnp.matmul(before, inverse, precision="highest")
    down, along = (jnp.arange(side, dtype=jnp.float32) for side in shape)
    x = along[None, None, :] - new[:, 2, 0][:, None, None]
    y = down[None, :, None] - new[:, 2, 1][:, None, None]
    m = lambda i, j: matrix[:, i, j][:, None, None]
    return (
        m(0, 0) * x + m(0, 1) * y + old[2, 0],
        m(1, 0) * x + m(1, 1) * y + old[2, 1],
    )


def _moved(
    planes: list[jax.Array],
    levels_of: Callable[[list[jax.Array]], list[jax.Array]],
    x: jax.Array,
    y: jax.Array,
    border: Callable[[jax.Array, int], jax.Array],
    channels: int,
) -> list[jax.Array]:
    """``_bilinear`` of planes [N, H, W], whose pixels have these levels."""
    _, height, width = planes[0].shape

    def by_index(planes: list[jax.Array], x: jax.Array, y: jax.Array) -> Any:
        flat = [plane.reshape(-1) for plane in planes]
        first = (jnp.arange(len(x)) * (height * width))[:, None, None]

        def levels_at(row: jax.Array, column: jax.Array) -> list[jax.Array]:
            index = first + row * width + column
            return levels_of([look_up(plane, index) for plane in flat])

        return _bilinear(levels_at, x, y, (height, width), border, channels)

    def by_pixels(planes: list[jax.Array], x: jax.Array, y: jax.Array) -> Any:
        def levels_at(row: jax.Array, column: jax.Array) -> list[jax.Array]:
            return levels_of(pixels_at(planes, [row], [column])[0])

        return _bilinear(levels_at, x, y, (height, width), border, channels)

    moved: list[jax.Array]
    moved = by_platform(planes, x, y, tpu=by_pixels, default=by_index)
    return moved


def _bilinear(
    levels_at: Callable[[jax.Array, jax.Array], list[jax.Array]],
    x: jax.Array,
    y: jax.Array,
    shape: Shape,
    border: Callable[[jax.Array, int], jax.Array],
    channels: int,
) -> list[jax.Array]:
    """Levels in between the pixels, each channel [N, H, W].

    Args:
        levels_at: rows and columns int32 [N, H, W] -> float32 levels of each channel.
        x, y: places, float32 [N, H, W].
        shape: H and W.
        border: maps indices outside the image, of one axis, to those inside.
        channels: how many ``levels_at`` gives.
    """
    left, top = settle((jnp.floor(x), jnp.floor(y)))
    height, width = shape

    # A loop, or the compiler looks everything up once more for each channel.
    def add(corner: jax.Array, total: list[jax.Array]) -> list[jax.Array]:
        down, right = corner // 2, corner % 2
        row = border(top.astype(jnp.int32) + down, height)
        column = border(left.astype(jnp.int32) + right, width)
        weight_x = jnp.where(right == 1, x - left, 1 - (x - left))
        weight_y = jnp.where(down == 1, y - top, 1 - (y - top))
        weight = weight_x * weight_y
        return [
            before + weight * level
            for before, level in zip(total, levels_at(row, column), strict=True)
        ]

    return jax.lax.fori_loop(0, 4, add, [jnp.zeros(x.shape)] * channels)


def _mirror_edge(index: jax.Array, size: int) -> jax.Array:
    """Mirrors about the outermost pixel: ... 2 1 0 1 2 ..."""
    period = max(2 * (size - 1), 1)
    index = jnp.abs(index) % period
    return jnp.minimum(index, period - index)


def _mirror(index: jax.Array, size: int) -> jax.Array:
    """Mirrors about the outer side of it: ... 1 0 0 1 ..."""
    index = index % (2 * size)
    return jnp.minimum(index, 2 * size - 1 - index)


# --- Pixels --------------------------------------------------------------------------


def pixelate_matrix(name: str, shape: Shape, severity: int) -> Arrays:
    """Averaging and repeating along each axis."""
    share = strength(name, shape, severity)[0]
    coarse = lambda size: resample.coarse(size, max(int(size * share), 1))
    return resample.of_both("coarse", shape, coarse)


def pixelate(seeds: jax.Array, images: jax.Array, values: Values) -> jax.Array:
    """Makes the image small and large again by Pillow's BOX filter."""
    # Pillow rounds after each of the two directions, across first.
    across = resample.columns(values["coarse_along"], to_planes(images))
    down = resample.rows(values["coarse_down"], jnp.floor(across + 0.5))
    return from_planes(jnp.floor(down + 0.5), images.shape[-1]).astype(jnp.uint8)


# --- JPEG ----------------------------------------------------------------------------


def jpeg(images: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    """Through Pillow's JPEG and back, uint8 [N, H, W, 3], on all cores."""
    workers = min(os.cpu_count() or 1, 16)
    result = np.empty_like(images)

    def work(part: range) -> None:
        buffer = io.BytesIO()
        for i in part:
            buffer.seek(0)
            buffer.truncate()
            Image.fromarray(images[i]).save(buffer, "JPEG", quality=quality)
            result[i] = np.asarray(Image.open(buffer, formats=("JPEG",)))

    parts = [range(i, len(images), workers) for i in range(min(workers, len(images)))]
    if len(parts) < 2:
        for part in parts:
            work(part)
    else:
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            list(pool.map(work, parts))
    return result


def jpeg_quality(shape: Shape, severity: int) -> int:
    """The quality of the JPEG corruption that belongs to shape and severity."""
    return round(strength("jpeg_compression", shape, severity)[0])
