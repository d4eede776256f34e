"""Drops of water with their lights, or of mud.

The water follows OpenCV step by step: Canny edges, the distance to them, an equalised
histogram and an embossing filter, all over the whole batch at once.
"""

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax import fast_random
from apr_jax.corruptions import resample
from apr_jax.corruptions.constants import Arrays, Shape, Values, strength
from apr_jax.corruptions.resample import to_uint8

_WATER = np.array([175.0, 238.0, 238.0], np.float32)
_MUD = np.array([63.0, 42.0, 20.0], np.float32)
# Canny's thresholds, and the tangents of 22.5 and 67.5 degrees between its directions.
_WEAK, _STRONG = 50.0, 150.0
_FLAT, _STEEP = 0.41421356, 2.41421356
# OpenCV's lengths of a step to a side, to a corner and of a knight's move. It counts in
# 1/65536, a little below 1.4 and 2.1969, which decides what is truncated to what.
_SIDE, _CORNER, _KNIGHT = 1.0, 91750 / 2**16, 143976 / 2**16
_FARTHEST = 20
_EMBOSS = ((-2, -1, 0), (-1, 1, 1), (0, 1, 2))


def spatter_values(name: str, shape: Shape, severity: int) -> Arrays:
    """Values of the liquid, and of what is made of it."""
    mean, deviation, sigma, threshold, last, mud = strength(name, shape, severity)
    smooth = lambda size: resample.gaussian(size, sigma)
    blur = (lambda size: resample.gaussian(size, last)) if mud else np.eye
    return {
        "mean": np.float32(mean),
        "deviation": np.float32(deviation),
        **resample.of_both("smooth", shape, smooth),
        "threshold": np.float32(threshold),
        "strength": np.float32(last),
        **resample.of_both("blur", shape, blur),
        "mud": np.bool_(mud),
    }


def spatter(seeds: jax.Array, images: jax.Array, values: Values) -> jax.Array:
    """Covers parts of the image."""
    draw = fast_random.normal(seeds, images.shape[1:3]).transpose(1, 2, 0)
    liquid = values["mean"] + values["deviation"] * draw
    liquid = resample.both(values["smooth_down"], values["smooth_along"], liquid)
    liquid = jnp.where(liquid < values["threshold"], 0.0, liquid)
    levels = images.astype(jnp.float32)

    def mud() -> jax.Array:
        wet = (liquid > values["threshold"]).astype(jnp.float32)
        share = resample.both(values["blur_down"], values["blur_along"], wet)
        share = jnp.where(share < 0.8, 0.0, share).transpose(2, 0, 1)[..., None]
        return levels * (1 - share) + _MUD[None, None, None] * share

    def water() -> jax.Array:
        # A whole number that may not fit is taken modulo 256, as by a cast in C.
        whole = (255.0 * liquid).astype(jnp.int32) & 255
        whole = whole.astype(jnp.float32)
        light = whole * _relief(whole)
        light /= jnp.maximum(light.max(axis=(0, 1), keepdims=True), 1e-6)
        light = (values["strength"] * light).transpose(2, 0, 1)[..., None]
        return levels + light * _WATER[None, None, None]

    return to_uint8(jax.lax.cond(values["mud"], mud, water))


def _relief(liquid: jax.Array) -> jax.Array:
    """The lights on the drops: grey levels [S, S, N] of the same."""
    far = _distance(_canny(liquid))
    far = jnp.floor(_mean(far) + 1e-6)
    embossed = _filter(_equalised(far), _EMBOSS)
    return jnp.round(_mean(jnp.clip(embossed, 0, 255)))


def _shifted(planes: jax.Array, down: int, right: int, fill: float) -> jax.Array:
    """The pixels ``down`` and ``right`` of each pixel; ``fill`` outside."""
    reach = max(abs(down), abs(right))
    width = ((reach, reach), (reach, reach), (0, 0))
    padded = jnp.pad(planes, width, constant_values=fill)
    height, side, _ = planes.shape
    row, column = reach + down, reach + right
    return padded[row : row + height, column : column + side]


def _filter(planes: jax.Array, kernel: tuple[tuple[float, ...], ...]) -> jax.Array:
    """Correlation with a 3 x 3 kernel, mirrored at the edge."""
    padded = jnp.pad(planes, ((1, 1), (1, 1), (0, 0)), mode="reflect")
    return _correlate(padded, kernel)


def _correlate(padded: jax.Array, kernel: tuple[tuple[float, ...], ...]) -> jax.Array:
    height, width = padded.shape[0] - 2, padded.shape[1] - 2
    total = jnp.zeros((height, width, padded.shape[2]))
    for i, row in enumerate(kernel):
        for j, weight in enumerate(row):
            if weight:
                total += weight * padded[i : i + height, j : j + width]
    return total


def _mean(planes: jax.Array) -> jax.Array:
    return _filter(planes, ((1, 1, 1),) * 3) / 9.0


def _canny(planes: jax.Array) -> jax.Array:
    """Edges of grey levels, [S, S, N] bool: Canny's with OpenCV's rules for ties."""
    padded = jnp.pad(planes, ((1, 1), (1, 1), (0, 0)), mode="edge")
    across = _correlate(padded, ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)))
    down = _correlate(padded, ((-1, -2, -1), (0, 0, 0), (1, 2, 1)))
    size = jnp.abs(across) + jnp.abs(down)
    near = lambda i, j: _shifted(size, i, j, 0.0)
    level = (size > near(0, -1)) & (size >= near(0, 1))
    upright = (size > near(-1, 0)) & (size >= near(1, 0))
    falling = (size > near(-1, -1)) & (size > near(1, 1))
    rising = (size > near(-1, 1)) & (size > near(1, -1))
    flat = jnp.abs(down) < _FLAT * jnp.abs(across)
    steep = jnp.abs(down) > _STEEP * jnp.abs(across)
    opposed = (across < 0) != (down < 0)
    crest = jnp.where(
        flat, level, jnp.where(steep, upright, jnp.where(opposed, rising, falling))
    )
    possible = crest & (size > _WEAK)

    def grow(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        edges, _ = state
        grown = edges
        for i, j in np.ndindex(3, 3):
            grown = grown | _shifted(edges, i - 1, j - 1, False)
        grown = grown & possible
        return grown, jnp.any(grown != edges)

    start = (possible & (size > _STRONG), jnp.bool_(True))
    return jax.lax.while_loop(lambda state: state[1], grow, start)[0]


def _distance(edges: jax.Array) -> jax.Array:
    """Distance to the nearest edge in OpenCV's 5 x 5 steps, at most 20. [S, S, N]."""
    steps = [
        (i, j, _SIDE if 0 in (i, j) else _CORNER if abs(i) == abs(j) else _KNIGHT)
        for i in range(-2, 3)
        for j in range(-2, 3)
        if max(abs(i), abs(j)) == 1 or abs(i) + abs(j) == 3
    ]

    def relax(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        far, _ = state
        nearer = far
        for i, j, length in steps:
            nearer = jnp.minimum(nearer, _shifted(far, i, j, _FARTHEST) + length)
        return nearer, jnp.any(nearer < far)

    start = jnp.where(edges, 0.0, float(_FARTHEST))
    return jax.lax.while_loop(lambda state: state[1], relax, (start, jnp.bool_(True)))[
        0
    ]


def _equalised(planes: jax.Array) -> jax.Array:
    """Histogram equalisation of whole levels from 0 to 20, [S, S, N]."""
    total = planes.shape[0] * planes.shape[1]
    lowest = planes.min(axis=(0, 1), keepdims=True)
    count = lambda mask: jnp.sum(mask, axis=(0, 1), keepdims=True).astype(jnp.float32)
    first = count(planes == lowest)
    scale = 255.0 / jnp.maximum(total - first, 1.0)
    result = jnp.zeros_like(planes)
    for level in range(_FARTHEST + 1):
        below = count(planes <= level) - first
        result = jnp.where(planes == level, jnp.round(below * scale), result)
    # A single level stays as it is.
    return jnp.where(first == total, planes, result)
