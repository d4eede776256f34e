"""Brightness, contrast, saturation, elastic deformation, pixels and JPEG."""

import concurrent.futures
import io
import os
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from PIL import Image

from apr_jax import fast_random
from apr_jax.augment.packed import look_up, pack
from apr_jax.corruptions import resample
from apr_jax.corruptions.constants import CIFAR_SIZE, Arrays, Values, strength
from apr_jax.corruptions.resample import from_planes, settle, to_planes, to_uint8

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


def elastic_values(name: str, size: int, severity: int) -> Arrays:
    """Displacement, its blur along one axis, and the shift of the corners."""
    farthest, sigma, shift = strength(name, size, severity)
    below = min(size / CIFAR_SIZE, 1.0)  # lengths follow images smaller than CIFAR's
    smooth = resample.gaussian(size, sigma * below, truncate=3.0, border="reflect")
    return {
        "farthest": np.float32(farthest * below),
        "smooth": smooth.astype(np.float32),
        "shift": np.float32(shift * below),
    }


def elastic_transform(seeds: jax.Array, images: jax.Array, values: Values) -> jax.Array:
    """A random affine map, then smooth random displacements; bilinear both times."""
    count, size, _, channels = images.shape
    x, y = _affine(seeds, size, values["shift"])
    words = pack(images).reshape(-1)
    first_at = lambda index: resample.channels_at(words, index, channels)
    mapped = _bilinear(first_at, x, y, size, _mirror_edge, channels)
    wild = fast_random.uniform(seeds, (2, size, size), low=-1.0, lane=1)
    wild = wild.reshape(2 * count, size, size).transpose(1, 2, 0)
    field = resample.both(values["smooth"], wild).transpose(2, 0, 1)
    field = values["farthest"] * field.reshape(count, 2, size, size)
    along = jnp.arange(size, dtype=jnp.float32)
    x, y = along[None, None, :] + field[:, 0], along[None, :, None] + field[:, 1]
    flat = [level.reshape(-1) for level in mapped]
    then_at = lambda index: [look_up(level, index) for level in flat]
    moved = _bilinear(then_at, x, y, size, _mirror, channels)
    return to_uint8(jnp.stack(moved, axis=-1))


def _affine(
    seeds: jax.Array, size: int, shift: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The place that each pixel comes from, x and y [N, S, S].

    The map takes three points about the centre to places up to ``shift`` away in each
    direction; each pixel looks up its place under the inverse.
    """
    middle, arm = size // 2, size // 3
    old = jnp.array([[arm, arm], [arm, -arm], [-arm, -arm]], jnp.float32) + middle
    new = old[None] + shift * fast_random.uniform(seeds, (3, 2), low=-1.0)
    # Columns are the two edges that leave the third point.
    before = (old[:2] - old[2:]).T[None]
    after = (new[:, :2] - new[:, 2:]).transpose(0, 2, 1)
    a, b, c, d = (after[:, i, j] for i in (0, 1) for j in (0, 1))
    inverse = jnp.stack([jnp.stack([d, -b], -1), jnp.stack([-c, a], -1)], axis=1)
    inverse /= (a * d - b * c)[:, None, None]
    matrix = jnp.matmul(before, inverse, precision="highest")
    along = jnp.arange(size, dtype=jnp.float32)
    x = along[None, None, :] - new[:, 2, 0][:, None, None]
    y = along[None, :, None] - new[:, 2, 1][:, None, None]
    m = lambda i, j: matrix[:, i, j][:, None, None]
    return (
        m(0, 0) * x + m(0, 1) * y + old[2, 0],
        m(1, 0) * x + m(1, 1) * y + old[2, 1],
    )


def _bilinear(
    levels_at: Callable[[jax.Array], list[jax.Array]],
    x: jax.Array,
    y: jax.Array,
    size: int,
    border: Callable[[jax.Array, int], jax.Array],
    channels: int,
) -> list[jax.Array]:
    """Levels in between the pixels, each channel [N, S, S].

    Args:
        levels_at: flat indices int32 [N, S, S] -> float32 levels of each channel.
        x, y: places, float32 [N, S, S].
        size: S.
        border: maps indices outside the image, of one axis, to those inside.
        channels: how many ``levels_at`` gives.
    """
    left, top = settle((jnp.floor(x), jnp.floor(y)))
    first = (jnp.arange(len(x)) * size**2)[:, None, None]

    # A loop, or the compiler looks everything up once more for each channel.
    def add(corner: jax.Array, total: list[jax.Array]) -> list[jax.Array]:
        down, right = corner // 2, corner % 2
        row = border(top.astype(jnp.int32) + down, size)
        column = border(left.astype(jnp.int32) + right, size)
        weight_x = jnp.where(right == 1, x - left, 1 - (x - left))
        weight_y = jnp.where(down == 1, y - top, 1 - (y - top))
        index, weight = first + row * size + column, weight_x * weight_y
        return [
            before + weight * level
            for before, level in zip(total, levels_at(index), strict=True)
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


def pixelate_matrix(name: str, size: int, severity: int) -> Arrays:
    """Averaging and repeating along one axis."""
    small = max(int(size * strength(name, size, severity)[0]), 1)
    return {"coarse": resample.coarse(size, small).astype(np.float32)}


def pixelate(seeds: jax.Array, images: jax.Array, values: Values) -> jax.Array:
    """Makes the image small and large again by Pillow's BOX filter."""
    # Pillow rounds after each of the two directions, across first.
    across = resample.columns(values["coarse"], to_planes(images))
    down = resample.rows(values["coarse"], jnp.floor(across + 0.5))
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


def jpeg_compression(images: npt.ArrayLike, severity: int) -> npt.NDArray[np.uint8]:
    """JPEG of the quality that belongs to size and severity, on the host."""
    array = np.asarray(images)
    size = array.shape[1]
    return jpeg(array, round(strength("jpeg_compression", size, severity)[0]))
