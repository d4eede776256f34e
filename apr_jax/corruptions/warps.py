"""Warps of C-bar, which move what images show: refraction, ripples, rotations.

Of Mintun et al. (NeurIPS 2021); see ``patterns``.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax import fast_random
from apr_jax.augment.packed import channel, pack, pixels_at
from apr_jax.corruptions import resample
from apr_jax.corruptions.constants import Arrays, Shape, Values, strength
from apr_jax.corruptions.patterns import each, places
from apr_jax.corruptions.resample import from_planes, settle, to_planes, to_uint8

_TURN = 2 * math.pi
# Images from this size on have as many cells along an axis as ImageNet's.
_LARGE = 224
# Rotations of the circular blur, and up to which size they are one matrix product.
_ROTATIONS, _ONE_MATRIX = 21, 32


def _bilinear(images: jax.Array, y: jax.Array, x: jax.Array) -> jax.Array:
    """Levels in between the pixels, [N, H, W, C]; outside of the image is black.

    Args:
        images: uint8 [N, H, W, C].
        y, x: places, float32 [N, H, W].
    """
    _, height, width, channels = images.shape
    words = settle(pack(images))
    top, left = jnp.floor(y), jnp.floor(x)
    total = [jnp.zeros(y.shape)] * channels
    for down in (0, 1):
        for right in (0, 1):
            row, column = top.astype(jnp.int32) + down, left.astype(jnp.int32) + right
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            weight_y = y - top if down else 1 - (y - top)
            weight_x = x - left if right else 1 - (x - left)
            weight = jnp.where(inside, weight_y * weight_x, 0)
            row, column = (
                jnp.clip(place, 0, side - 1)
                for place, side in ((row, height), (column, width))
            )
            ((word,),) = pixels_at([words], [row], [column])
            total = [
                before + weight * channel(word, c).astype(jnp.float32)
                for c, before in enumerate(total)
            ]
    return jnp.stack(total, axis=-1)


# --- Ripple --------------------------------------------------------------------------


def draw_ripple(seeds: jax.Array, shape: Shape) -> Values:
    """Wavelengths in pixels and phases, down and along: [N, 2] each."""
    draw = fast_random.uniform(seeds, (2, 2))
    return {
        "wavelength": min(shape) * (0.1 + 0.2 * draw[:, 0]),
        "phase": _TURN * draw[:, 1],
    }


def bend_axes(images: jax.Array, drawn: Values, values: Values) -> jax.Array:
    """Moves rows, and columns, by a wave of their place."""
    shape = (images.shape[1], images.shape[2])
    height = values["height"] * min(shape)
    moved = []
    for axis, place in enumerate(places(shape)):
        wavelength, phase = (each(drawn[k][:, axis]) for k in ("wavelength", "phase"))
        wave = jnp.sin(_TURN * place / wavelength + phase)
        moved.append(jnp.broadcast_to(place + height * wave, images.shape[:3]))
    return to_uint8(_bilinear(images, *moved))


def ripple(seeds: jax.Array, images: jax.Array, values: Values) -> jax.Array:
    """Moves rows, and columns, by random waves."""
    shape = (images.shape[1], images.shape[2])
    return bend_axes(images, draw_ripple(seeds, shape), values)


# --- Pinch and twirl -----------------------------------------------------------------


def _cells(shape: Shape) -> tuple[int, int, int]:
    """Side of a cell in pixels, and cells down and along."""
    side = min(shape) // (5 if min(shape) >= _LARGE else 3)
    return side, shape[0] // side, shape[1] // side


def draw_turns(seeds: jax.Array, shape: Shape) -> Values:
    """Which way each cell is turned: 1 or -1, [N, cells along, cells down]."""
    _, down, along = _cells(shape)
    draw = fast_random.uniform(seeds, (along, down))
    return {"way": jnp.where(draw < 0.5, 1.0, -1.0)}


def turn_cells(images: jax.Array, drawn: Values, values: Values) -> jax.Array:
    """Turns and pinches a disk in each cell, the more the nearer to its middle."""
    shape = (images.shape[1], images.shape[2])
    side, down, along = _cells(shape)
    y, x = places(shape)
    rows, columns = (jnp.arange(n) // side for n in shape)
    inside = ((rows < down)[:, None] & (columns < along)[None, :])[None]
    # Columns come first in the table, as in the published code.
    way = drawn["way"][:, jnp.minimum(columns, along - 1)]
    way = way[:, :, jnp.minimum(rows, down - 1)].swapaxes(1, 2)
    middle = [side * (cells.astype(jnp.float32) + 0.5) for cells in (rows, columns)]
    middle_y, middle_x = middle[0][None, :, None], middle[1][None, None, :]
    across, over = y - middle_y, x - middle_x
    radius = side / 2
    distance = jnp.sqrt(across**2 + over**2)
    share = jnp.minimum(distance / radius, 1)
    moved = inside & (distance <= radius) & (distance >= 5e-4)
    near = jnp.maximum(jnp.sin(0.5 * math.pi * share), 1e-6)
    pinch = near ** (-(values["level"] * 0.04 + 0.1))
    angle = way * (math.pi / 20) * values["level"] * (1 - share) ** 2
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    to_y = middle_y + pinch * (across * cos - over * sin)
    to_x = middle_x + pinch * (across * sin + over * cos)
    full = images.shape[:3]
    to_y = jnp.where(moved, to_y, jnp.broadcast_to(y, full))
    to_x = jnp.where(moved, to_x, jnp.broadcast_to(x, full))
    return to_uint8(_bilinear(images, to_y, to_x))


def pinch_and_twirl(seeds: jax.Array, images: jax.Array, values: Values) -> jax.Array:
    """Turns and pinches disks, each in a random direction."""
    shape = (images.shape[1], images.shape[2])
    return turn_cells(images, draw_turns(seeds, shape), values)


# --- Refraction ----------------------------------------------------------------------


def refraction_values(name: str, shape: Shape, severity: int) -> Arrays:
    """The lens, the light, and the blur of the caustics."""
    (level,) = strength(name, shape, severity)
    smooth = lambda size: resample.gaussian(size, 1.0, border="reflect")
    return {
        "lens": np.float32(0.05 * level * min(shape)),
        "light": np.float32(0.2 * level),
        **resample.of_both("smooth", shape, smooth),
    }


def draw_caustics(seeds: jax.Array, shape: Shape) -> Values:
    """Time, and size in pixels; [N] each."""
    draw = fast_random.uniform(seeds, (2,))
    return {
        "time": 0.5 + 1.5 * draw[:, 0],
        "size": min(shape) * (0.75 + 0.5 * draw[:, 1]),
    }


def _caustics(drawn: Values, shape: Shape) -> jax.Array:
    """The light under moving water, in [0, 1], [N, H, W]."""
    time = each(drawn["time"])
    p, q = (place / each(drawn["size"]) % 1 * _TURN - 250 for place in places(shape))
    total, fine = jnp.ones((), jnp.float32), 0.005
    i, j = p, q
    for turn in range(5):
        t = time * (1 - 3.5 / (turn + 1))
        i, j = (
            p + jnp.cos(t - i) + jnp.sin(t + j),
            q + jnp.sin(t - j) + jnp.cos(t + i),
        )
        length = jnp.sqrt(
            (p * fine / jnp.sin(i + t)) ** 2 + (q * fine / jnp.cos(j + t)) ** 2
        )
        total = total + 1 / length
    return jnp.clip(jnp.abs(1.17 - (total / 5) ** 1.4) ** 8, 0, 1)


def refract(images: jax.Array, drawn: Values, values: Values) -> jax.Array:
    """Looks through caustics as if they were a lens, and lights their slopes."""
    _, height, width, _ = images.shape
    planes = _caustics(drawn, (height, width)).transpose(1, 2, 0)
    planes = resample.both(values["smooth_down"], values["smooth_along"], planes)
    bright = settle(jnp.pad(planes.transpose(2, 0, 1), ((0, 0), (1, 1), (1, 1))))
    slope_y = bright[:, 2:, 1:-1] - bright[:, :-2, 1:-1]
    slope_x = bright[:, 1:-1, 2:] - bright[:, 1:-1, :-2]
    steepness = jnp.sqrt(slope_y**2 + slope_x**2)
    # The angle to the normal, and its refraction at an index of 4.
    angle = jnp.arctan(steepness)
    bent = jnp.sin(angle - jnp.arcsin(jnp.sin(angle) / 4))
    flat = jnp.cos(angle) >= 1 - 1e-3
    by = jnp.where(flat, 0, values["lens"] * bent / jnp.maximum(steepness, 1e-6))
    y, x = places((height, width))
    to_y = y + jnp.round(by * slope_y, 3)
    to_x = x + jnp.round(by * slope_x, 3)
    light = 255 * values["light"] * (slope_y - slope_x)
    return to_uint8(_bilinear(images, to_y, to_x) + light[..., None])


def caustic_refraction(
    seeds: jax.Array, images: jax.Array, values: Values
) -> jax.Array:
    """Looks through random caustics."""
    shape = (images.shape[1], images.shape[2])
    return refract(images, draw_caustics(seeds, shape), values)


# --- Splines -------------------------------------------------------------------------


def _mirrored(xp: Any, index: Any, size: int) -> Any:
    """Mirrors about the outermost pixel: ... 2 1 0 1 2 ..."""
    index = abs(index) % (2 * size - 2)
    return xp.minimum(index, 2 * size - 2 - index)


def _cubic(xp: Any, place: Any, size: int) -> list[tuple[Any, Any]]:
    """Indices and weights of the four cubic splines about each place of an axis."""
    low = xp.floor(place)
    t = place - low
    weights = [
        (1 - t) ** 3 / 6,
        (4 - 6 * t**2 + 3 * t**3) / 6,
        (1 + 3 * t + 3 * t**2 - 3 * t**3) / 6,
        t**3 / 6,
    ]
    start = low.astype(xp.int32) - 1
    return [(_mirrored(xp, start + i, size), w) for i, w in enumerate(weights)]


def spline_zoom(size: int, factor: float) -> np.ndarray:
    """Enlarges the middle by cubic splines as SciPy does, unfiltered: [size, size]."""
    large = round(size * factor)
    first = (large - size) // 2
    place = np.arange(first, first + size) * ((size - 1) / (large - 1))
    matrix = np.zeros((size, size))
    for index, weight in _cubic(np, place, size):
        np.add.at(matrix, (np.arange(size), index), weight)
    return matrix


def chromatic_values(name: str, shape: Shape, severity: int) -> Arrays:
    """A matrix for each of the three enlargements, and axis: [3, S, S]."""
    (level,) = strength(name, shape, severity)
    factors = (1.0, 1 + 0.025 * level, 1 + 0.05 * level)
    make = lambda size: np.stack([spline_zoom(size, factor) for factor in factors])
    return resample.of_both("zoom", shape, make)


def draw_order(seeds: jax.Array) -> Values:
    """Which enlargement each channel has: a permutation, int32 [N, 3]."""
    order = jnp.argsort(fast_random.bits(seeds, (3,)), axis=1)
    return {"order": order.astype(jnp.int32)}


def enlarge_channels(images: jax.Array, drawn: Values, values: Values) -> jax.Array:
    """Enlarges each channel by another factor."""
    count, height, width, channels = images.shape
    planes, result = to_planes(images), jnp.zeros((height, width, count, channels))
    pairs = zip(values["zoom_down"], values["zoom_along"], strict=True)
    for number, (down, along) in enumerate(pairs):
        mine = (drawn["order"][:, :channels] == number)[None, None]
        zoomed = resample.both(down, along, planes).reshape(result.shape)
        result = jnp.where(mine, zoomed, result)
    levels = jnp.floor(jnp.clip(result, 0, 255) + 0.5)
    return levels.transpose(2, 0, 1, 3).astype(jnp.uint8)


def chromatic(seeds: jax.Array, images: jax.Array, values: Values) -> jax.Array:
    """Enlarges the channels by different factors, in random order."""
    return enlarge_channels(images, draw_order(seeds), values)


# --- Circular blur -------------------------------------------------------------------


def _rotation(xp: Any, shape: Shape, degrees: Any) -> list[tuple[Any, Any]]:
    """Flat indices and weights, [H W] each, of the sixteen splines of each pixel.

    As SciPy turns images: about the middle; what comes from outside is black.
    """
    height, width = shape
    radians = degrees * (math.pi / 180)
    cos, sin = xp.cos(radians), xp.sin(radians)
    y = xp.repeat(xp.arange(height), width) - (height - 1) / 2
    x = xp.tile(xp.arange(width), height) - (width - 1) / 2
    from_y = cos * y + sin * x + (height - 1) / 2
    from_x = cos * x - sin * y + (width - 1) / 2
    slack = 1e-4 if xp is jnp else 1e-9
    inside = (from_y >= -slack) & (from_y <= height - 1 + slack)
    inside &= (from_x >= -slack) & (from_x <= width - 1 + slack)
    return [
        (row * width + column, xp.where(inside, weight_y * weight_x, 0))
        for row, weight_y in _cubic(xp, from_y, height)
        for column, weight_x in _cubic(xp, from_x, width)
    ]


def _spline_filter(size: int) -> np.ndarray:
    """The coefficients of the cubic spline through values, mirrored: [size, size]."""
    sampled = np.zeros((size, size))
    for index, weight in _cubic(np, np.arange(size, dtype=float), size):
        np.add.at(sampled, (np.arange(size), index), weight)
    return np.linalg.inv(sampled)


def circular_values(name: str, shape: Shape, severity: int) -> Arrays:
    """The mean over all rotations as one matrix, or their angles and weights."""
    (level,) = strength(name, shape, severity)
    steps = np.linspace(-1, 1, _ROTATIONS)
    degrees, share = 1.5 * level * steps, np.exp(-2 * steps**2)
    share /= share.sum()
    filters = [_spline_filter(size) for size in shape]
    if max(shape) > _ONE_MATRIX:
        parts = {"filter_down": filters[0], "filter_along": filters[1]}
        parts |= {"degrees": degrees, "share": share}
        return {part: array.astype(np.float32) for part, array in parts.items()}
    pixels = shape[0] * shape[1]
    turned = np.zeros((pixels, pixels))
    for angle, weight in zip(degrees, share, strict=True):
        for index, part in _rotation(np, shape, angle):
            np.add.at(turned, (np.arange(pixels), index), weight * part)
    whole = turned.reshape(pixels, *shape)
    whole = np.einsum("pij,ik,jl->pkl", whole, *filters, optimize=True)
    return {"whole": whole.reshape(pixels, pixels).astype(np.float32)}


def circular_motion_blur(
    seeds: jax.Array, images: jax.Array, values: Values
) -> jax.Array:
    """The mean of the image turned about its middle by several angles."""
    planes, channels = to_planes(images), images.shape[-1]
    height, width, depth = planes.shape
    if "whole" in values:
        flat = planes.reshape(height * width, depth)
        mean = jnp.matmul(values["whole"], flat, precision="highest")
        return to_uint8(from_planes(mean.reshape(planes.shape), channels))
    planes = resample.both(values["filter_down"], values["filter_along"], planes)
    flat = settle(planes.reshape(height * width, depth))

    def add(number: jax.Array, total: jax.Array) -> jax.Array:
        taps = _rotation(jnp, (height, width), values["degrees"][number])
        for index, weight in taps:
            total += (values["share"][number] * weight)[:, None] * flat[index]
        return total

    mean = jax.lax.fori_loop(0, _ROTATIONS, add, jnp.zeros_like(flat))
    return to_uint8(from_planes(mean.reshape(planes.shape), channels))
