"""Covers of C-bar that hide parts of images: sparkles, squares and lines.

Of Mintun et al. (NeurIPS 2021); see ``patterns``.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax import fast_random
from apr_jax.augment.packed import look_up
from apr_jax.corruptions.constants import Arrays, Shape, Values, strength
from apr_jax.corruptions.patterns import each, places
from apr_jax.corruptions.resample import to_uint8

_TURN = 2 * math.pi
_RAYS = (50, 200)  # at least, and fewer than
_SPARKS = 5
_WHITE, _GREY = 255.0, 128.0
# Cells along each axis of the board at most.
_CELLS = 41


# --- Sparkles ------------------------------------------------------------------------


def draw_sparkles(seeds: jax.Array, shape: Shape, count: int) -> Values:
    """``count`` centres in pixels, rays, and a draw for each ray's length.

    "y", "x" and "rays" are [N, K], "lengths" is [N, K, 200], of the standard normal
    distribution.
    """
    draw = fast_random.uniform(seeds, (3, count))
    low, high = _RAYS
    return {
        "y": shape[0] * draw[:, 0],
        "x": shape[1] * draw[:, 1],
        "rays": low + jnp.floor((high - low) * draw[:, 2]).astype(jnp.int32),
        "lengths": fast_random.normal(seeds, (count, high), lane=1),
    }


def _light(
    drawn: Values, number: int, lengths: jax.Array, power: jax.Array, shape: Shape
) -> jax.Array:
    """Light of one sparkle on each pixel, in [0, 1], [N, H, W]; ``lengths`` [N, R]."""
    y, x = places(shape)
    down, across = y - each(drawn["y"][:, number]), x - each(drawn["x"][:, number])
    rays = each(drawn["rays"][:, number])
    turned = (jnp.arctan2(across, down) + math.pi) / _TURN * rays.astype(jnp.float32)
    low = jnp.floor(turned)
    between = turned - low
    first = (jnp.arange(len(lengths)) * lengths.shape[1])[:, None, None]
    flat, place = lengths.reshape(-1), low.astype(jnp.int32)
    here, there = (look_up(flat, first + (place + i) % rays) for i in (0, 1))
    length = here + between * (there - here)
    reach = (length**2 / (down**2 + across**2 + 1e-4)) ** power
    return jnp.clip((1 - (between - 0.5) ** 2) * reach, 0, 1)


def sparkle(images: jax.Array, drawn: Values, values: Values) -> jax.Array:
    """Five white sparkles, one after the other."""
    shape = (images.shape[1], images.shape[2])
    radius = values["radius"] * min(shape)
    levels = images.astype(jnp.float32)
    for number in range(drawn["rays"].shape[1]):
        spread = drawn["lengths"][:, number]
        lengths = jnp.maximum(1.0, radius + 0.25 * radius * spread)
        light = _light(drawn, number, lengths, jnp.float32(1), shape)[..., None]
        levels += light * (_WHITE - levels)
    return to_uint8(levels)


def sparkles(seeds: jax.Array, images: jax.Array, values: Values) -> jax.Array:
    """White sparkles at random places."""
    shape = (images.shape[1], images.shape[2])
    return sparkle(images, draw_sparkles(seeds, shape, _SPARKS), values)


def draw_hole(seeds: jax.Array, shape: Shape) -> Values:
    """As ``draw_sparkles``, of a single one in the middle half of the image."""
    drawn = draw_sparkles(seeds, shape, 1)
    middle = {
        name: side / 4 + drawn[name] / 2 for name, side in zip("yx", shape, strict=True)
    }
    return drawn | middle


def spare_hole(images: jax.Array, drawn: Values, values: Values) -> jax.Array:
    """White all around what one sparkle would light."""
    shape = (images.shape[1], images.shape[2])
    radius = 0.25 * min(shape)
    lengths = radius + 0.25 * radius * drawn["lengths"][:, 0]
    light = _light(drawn, 0, lengths, values["power"], shape)[..., None]
    return to_uint8(_WHITE + light * (images.astype(jnp.float32) - _WHITE))


def inverse_sparkles(seeds: jax.Array, images: jax.Array, values: Values) -> jax.Array:
    """White all around a random place."""
    shape = (images.shape[1], images.shape[2])
    return spare_hole(images, draw_hole(seeds, shape), values)


# --- Checkerboard --------------------------------------------------------------------


def draw_board(seeds: jax.Array, shape: Shape) -> Values:
    """Angle, side of a cell in pixels [N], and a draw for each cell [N, 41, 41]."""
    draw = fast_random.uniform(seeds, (2,))
    side = (0.1 + 0.15 * draw[:, 1]) * min(shape)
    return {
        "angle": _TURN * draw[:, 0],
        "side": jnp.maximum(side, 1.0),
        "cells": fast_random.uniform(seeds, (_CELLS, _CELLS), lane=1),
    }


def cut_cells(images: jax.Array, drawn: Values, values: Values) -> jax.Array:
    """Some cells of one colour become grey."""
    shape = (images.shape[1], images.shape[2])
    y, x = places(shape)
    side, angle = each(drawn["side"]), each(drawn["angle"])
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    turned = (cos * y + sin * x) / side, (cos * x - sin * y) / side
    even = jnp.floor(turned[0] % 2) == jnp.floor(turned[1] % 2)
    # As an index cuts off and counts from the end below 0: cells about 0 are larger.
    cells = jnp.floor(4 * min(shape) / side).astype(jnp.int32)
    row, column = (jnp.trunc(place).astype(jnp.int32) % cells for place in turned)
    size = drawn["cells"].shape[1]
    first = (jnp.arange(len(images)) * size**2)[:, None, None]
    draw = look_up(drawn["cells"].reshape(-1), first + row * size + column)
    cut = even & (draw < values["share"])
    return jnp.where(cut[..., None], jnp.uint8(_GREY), images)


def checkerboard_cutout(
    seeds: jax.Array, images: jax.Array, values: Values
) -> jax.Array:
    """Some cells of a random checkerboard become grey."""
    shape = (images.shape[1], images.shape[2])
    return cut_cells(images, draw_board(seeds, shape), values)


# --- Lines ---------------------------------------------------------------------------


def line_values(name: str, shape: Shape, severity: int) -> Arrays:
    """The number of lines."""
    (level,) = strength(name, shape, severity)
    return {"count": np.int32(int(level / 10 * min(shape)))}


def draw_lines(seeds: jax.Array, shape: Shape) -> Values:
    """Middles in pixels and angles of as many lines as there may be; [N, K] each."""
    common = fast_random.uniform(seeds, (2,))
    draw = fast_random.uniform(seeds, (3, min(shape)), lane=1)
    spread = _TURN * (0.1 + 0.9 * common[:, 1:])
    return {
        "y": shape[0] * draw[:, 0],
        "x": shape[1] * draw[:, 1],
        "angle": _TURN * common[:, :1] + spread * (draw[:, 2] - 0.5),
    }


def cover_lines(images: jax.Array, drawn: Values, values: Values) -> jax.Array:
    """Draws grey lines with smooth edges, each twice as long as the image."""
    shape = (images.shape[1], images.shape[2])
    reach = min(shape)

    def add(number: jax.Array, levels: jax.Array) -> jax.Array:
        y, x, angle = (drawn[name][:, number] for name in ("y", "x", "angle"))
        down, along = jnp.cos(angle) * reach, jnp.sin(angle) * reach
        y0, x0, y1, x1 = (
            jnp.trunc(end).astype(jnp.int32)
            for end in (y - down, x - along, y + down, x + along)
        )
        share = line_share(y0, x0, y1, x1, shape)[..., None]
        mixed = (1 - share) * levels + share * _GREY
        return to_uint8(mixed).astype(jnp.float32)

    levels = jax.lax.fori_loop(0, values["count"], add, images.astype(jnp.float32))
    return levels.astype(jnp.uint8)


def lines(seeds: jax.Array, images: jax.Array, values: Values) -> jax.Array:
    """Draws random grey lines."""
    shape = (images.shape[1], images.shape[2])
    return cover_lines(images, draw_lines(seeds, shape), values)


def line_share(
    y0: jax.Array, x0: jax.Array, y1: jax.Array, x1: jax.Array, shape: Shape
) -> jax.Array:
    """How much of each pixel a line covers, float32 [N, H, W].

    That of Bresenham's algorithm with smooth edges, as scikit-image's ``line_aa`` goes
    along the line, for all pixels at once. At step k along the longer axis the main
    pixel is m = floor((2 k + 1) b / (2 a)) steps along the shorter one, where the line
    extends over a and b pixels; a pixel's share falls with its distance to the line,
    and beside the main pixel only the next one is drawn, and the last one where m grew.

    Args:
        y0, x0, y1, x1: the ends, int32 [N].
        shape: H and W.
    """
    steep = jnp.abs(y1 - y0) > jnp.abs(x1 - x0)
    row, column = (jnp.arange(side, dtype=jnp.int32) for side in shape)
    way_y, way_x = (
        jnp.where(ends[1] < ends[0], -1, 1) for ends in ((y0, y1), (x0, x1))
    )
    down = way_y[:, None] * (row[None] - y0[:, None])
    along = way_x[:, None] * (column[None] - x0[:, None])
    full = (len(y0), *shape)
    down = jnp.broadcast_to(down[:, :, None], full)
    along = jnp.broadcast_to(along[:, None, :], full)
    upright = each(steep)
    major, minor = jnp.where(upright, down, along), jnp.where(upright, along, down)
    extent = jnp.abs(y1 - y0), jnp.abs(x1 - x0)
    longer, shorter = each(jnp.maximum(*extent)), each(jnp.minimum(*extent))
    length = jnp.sqrt((longer**2 + shorter**2).astype(jnp.float32))
    twice = jnp.maximum(2 * longer, 1)
    main = (2 * major + 1) * shorter // twice
    before = (2 * major - 1) * shorter // twice
    distance = jnp.abs(major * shorter - minor * longer).astype(jnp.float32)
    beyond = (minor == main + 1) & (major < longer)
    behind = (minor == main - 1) & (major > 0) & (main > before)
    near = (beyond | behind) & (distance < length)
    inside = (major >= 0) & (major <= longer)
    drawn = inside & ((minor == main) | near)
    return jnp.where(drawn, 1 - distance / jnp.maximum(length, 1), 0)
