"""Weather: snow, frost and fog."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from apr_jax import fast_random
from apr_jax.augment.packed import channel, look_up
from apr_jax.corruptions import resample
from apr_jax.corruptions.constants import (
    SEVERITIES,
    Arrays,
    Row,
    Shape,
    Values,
    between,
    strength,
)
from apr_jax.corruptions.resample import settle, to_uint8

# What the photographs are shrunk to, by the side of the images.
_FROST_SHARE: dict[int, Row] = {32: (0.2,), 64: (0.3,), 224: (1.0,)}


# --- Snow ----------------------------------------------------------------------------


def snow_values(name: str, shape: Shape, severity: int) -> Arrays:
    """Values of the flakes, of their motion and of the bleached image."""
    mean, deviation, factor, threshold, radius, sigma, keep = strength(
        name, shape, severity
    )
    radii = [round(strength(name, shape, s)[4]) for s in SEVERITIES]
    return {
        **resample.of_both("zoom", shape, lambda size: resample.zoom(size, factor)),
        "taps": resample.motion_taps(round(radius), sigma, 2 * max(radii) + 1),
        "mean": np.float32(mean),
        "deviation": np.float32(deviation),
        "threshold": np.float32(threshold),
        "keep": np.float32(keep),
    }


def snow(seeds: jax.Array, images: jax.Array, values: Values) -> jax.Array:
    """Flakes blown from above onto a paler image, once more upside down."""
    _, height, width, _ = images.shape
    shape = (height, width)
    draw = fast_random.normal(seeds, shape)
    flakes = values["mean"] + values["deviation"] * draw
    zoom = values["zoom_down"], values["zoom_along"]
    flakes = resample.both(*zoom, flakes.transpose(1, 2, 0)).transpose(2, 0, 1)
    flakes = jnp.where(flakes < values["threshold"], 0.0, flakes)
    flakes = settle(to_uint8(255.0 * flakes).astype(jnp.float32).reshape(-1))
    degrees = 45.0 * fast_random.uniform(seeds, (), low=-1.0, lane=1) - 90.0
    flakes_at = lambda index: [look_up(flakes, index)]
    (blown,) = resample.along_motion(flakes_at, values["taps"], degrees, shape, 1)
    blown = settle(jnp.round(blown))
    blown = blown + blown[:, ::-1, ::-1]
    levels = images.astype(jnp.float32)
    grey = 0.299 * levels[..., 0] + 0.587 * levels[..., 1] + 0.114 * levels[..., 2]
    pale = jnp.maximum(levels, (1.5 * grey + 127.5)[..., None])
    keep = values["keep"]
    return to_uint8(keep * levels + (1 - keep) * pale + blown[..., None])


# --- Frost ---------------------------------------------------------------------------


def frost_sheets(photographs: list[npt.NDArray[np.uint8]], shape: Shape) -> Arrays:
    """The photographs in the size that belongs to images of a shape, side by side.

    Args:
        photographs: uint8 [H, W, 3] each.
        shape: height and width of the images.

    Returns:
        "words", uint32 [P, H, W] with three channels in each (see ``packed.pack``),
        and "sizes", int32 [P, 2], height and width of what is filled.
    """
    (share,) = between(_FROST_SHARE, shape)
    sheets = []
    for photograph in photographs:
        # There must be room for more than one place.
        room = zip(shape, photograph.shape[:2], strict=True)
        factor = max(share, *((side + 1) / whole for side, whole in room))
        sheets.append(_resized(photograph, factor))
    sizes = np.array([sheet.shape[:2] for sheet in sheets], np.int32)
    words = np.zeros((len(sheets), *sizes.max(axis=0)), np.uint32)
    for word, sheet in zip(words, sheets, strict=True):
        wide = sheet.astype(np.uint32)
        filled = wide[..., 0] | wide[..., 1] << 8 | wide[..., 2] << 16
        word[: sheet.shape[0], : sheet.shape[1]] = filled
    return {"words": words, "sizes": sizes}


def _resized(image: npt.NDArray[np.uint8], factor: float) -> npt.NDArray[np.uint8]:
    """Bilinear between pixel centres, without antialiasing, as OpenCV's default."""
    result = image.astype(np.float64)
    for axis in (0, 1):
        old = image.shape[axis]
        new = max(round(old * factor), 1)
        # At a factor of one fifth this is every fifth pixel.
        where = np.clip((np.arange(new) + 0.5) / factor - 0.5, 0, old - 1)
        low = np.floor(where + 1e-9).astype(int)
        share = np.expand_dims(np.maximum(where - low, 0), (1 - axis, 2))
        low_part = np.take(result, low, axis=axis)
        high_part = np.take(result, np.minimum(low + 1, old - 1), axis=axis)
        result = (1 - share) * low_part + share * high_part
    return np.round(result).astype(np.uint8)


def frost(seeds: jax.Array, images: jax.Array, values: Values) -> jax.Array:
    """Adds a random part of one of the photographs."""
    shape, (_, height, width) = images.shape[1:3], values["words"].shape
    draw = fast_random.uniform(seeds, (3,))
    pick = lambda share, count: jnp.floor(share * count).astype(jnp.int32)
    which = pick(draw[:, 0], len(values["sizes"]))
    room = values["sizes"][which] - jnp.array(shape)[None]
    top, left = pick(draw[:, 1], room[:, 0]), pick(draw[:, 2], room[:, 1])
    row = (which * height + top)[:, None] + jnp.arange(shape[0])[None]
    column = left[:, None] + jnp.arange(shape[1])[None]
    index = row[:, :, None] * width + column[:, None, :]
    word = settle(look_up(values["words"].reshape(-1), index))
    levels = [
        values["image"] * images[..., c]
        + values["photograph"] * channel(word, c).astype(jnp.float32)
        for c in range(images.shape[-1])
    ]
    return to_uint8(jnp.stack(levels, axis=-1))


# --- Fog -----------------------------------------------------------------------------


def fog(seeds: jax.Array, images: jax.Array, values: Values) -> jax.Array:
    """Adds a fractal cloud, and darkens to keep the brightest value."""
    _, height, width, _ = images.shape
    levels = images.astype(jnp.float32) / 255.0
    brightest = levels.max(axis=(1, 2, 3), keepdims=True)
    side = 1 << (max(height, width) - 1).bit_length()
    cloud = _plasma(seeds, side, values["decay"])[:, :height, :width, None]
    foggy = levels + values["bright"] * cloud
    return to_uint8(255.0 * foggy * brightest / (brightest + values["bright"]))


def _plasma(seeds: jax.Array, size: int, decay: jax.Array) -> jax.Array:
    """Height maps in [0, 1] by the diamond-square algorithm, [N, size, size].

    The map is periodic. Halving the distance of the points, first the centre of each
    square and then the middle of each edge get the mean of their four neighbours and
    a uniform draw, whose range falls by the square of ``decay``.
    """
    draw = fast_random.uniform(seeds, (size**2,), low=-1.0)
    count = len(seeds)
    grid = jnp.zeros((count, 1, 1))
    used, wibble = 0, jnp.float32(100.0)
    for level in range(int(math.log2(size))):
        side = 1 << level
        area = side**2
        part = draw[:, used : used + 3 * area].reshape(count, 3, side, side)
        part *= wibble**2
        centre = grid + jnp.roll(grid, -1, axis=1)
        centre = (centre + jnp.roll(centre, -1, axis=2)) / 4 + part[:, 0]
        across = centre + jnp.roll(centre, 1, axis=1)
        across = (across + grid + jnp.roll(grid, -1, axis=2)) / 4 + part[:, 1]
        below = centre + jnp.roll(centre, 1, axis=2)
        below = (below + grid + jnp.roll(grid, -1, axis=1)) / 4 + part[:, 2]
        even = jnp.stack([grid, across], axis=-1).reshape(count, side, 2 * side)
        odd = jnp.stack([below, centre], axis=-1).reshape(count, side, 2 * side)
        grid = jnp.stack([even, odd], axis=2).reshape(count, 2 * side, 2 * side)
        grid = settle(grid)
        used += 3 * area
        wibble = wibble / decay
    low = grid.min(axis=(1, 2), keepdims=True)
    high = grid.max(axis=(1, 2), keepdims=True)
    return (grid - low) / (high - low)
