"""Images as one 32-bit word per pixel, and work on part of a batch.

One word holds all channels of a pixel, so a warp looks a neighbour up once instead of
once per channel, and moving images about copies whole words.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from apr_jax.target import by_platform

CHANNELS = (1, 3)


class OnCpu(NamedTuple):
    """A chunk for a CPU alone; elsewhere all rows are computed at once."""

    rows: int


# What `update_rows` takes: a number of rows, or all.
Chunk = int | OnCpu | None


def pack(images: jax.Array) -> jax.Array:
    """uint8 [N, H, W, C] -> uint32 [N, H, W], channel c in bits 8c to 8c + 7.

    Raises:
        ValueError: not four axes, or neither one channel nor three.
    """
    if images.ndim != 4 or images.shape[-1] not in CHANNELS:
        raise ValueError(
            f"images must be [N, H, W, C] with C of {CHANNELS}, got {images.shape}"
        )
    spare = 4 - images.shape[-1]
    padded = jnp.pad(images, ((0, 0), (0, 0), (0, 0), (0, spare)))
    return jax.lax.bitcast_convert_type(padded, jnp.uint32)


def unpack(words: jax.Array, channels: int) -> jax.Array:
    """uint32 [N, H, W] -> uint8 [N, H, W, C], the inverse of `pack`."""
    return jax.lax.bitcast_convert_type(words, jnp.uint8)[..., :channels]


def channel(words: jax.Array, index: int) -> jax.Array:
    """One channel as int32 grey levels, same shape as `words`."""
    return (words >> (8 * index) & 255).astype(jnp.int32)


def join(levels: list[jax.Array]) -> jax.Array:
    """int32 grey levels of each channel, in [0, 255] -> words."""
    words = levels[0].astype(jnp.uint32)
    for index, level in enumerate(levels[1:], start=1):
        words = words | level.astype(jnp.uint32) << (8 * index)
    return words


def look_up(flat: jax.Array, index: jax.Array) -> jax.Array:
    """flat[index] for an index known to be valid: [M] and int32 [...] -> [...]."""
    # Unsigned, or JAX adds code for negative indices.
    return flat.at[index.astype(jnp.uint32)].get(mode="promise_in_bounds")


def pixels_at(
    planes: Sequence[jax.Array],
    rows: Sequence[jax.Array],
    columns: Sequence[jax.Array],
) -> list[list[jax.Array]]:
    """The pixels of each image in each of some rows at each of some columns.

    Args:
        planes: packed words of three channels at most, or finite float32: [N, H, W]
            each.
        rows, columns: valid indices, int32 [N, ...] each.

    Returns:
        For all columns of the first row, then of the next, that pixel of each plane,
        of its type: [N, ...].
    """
    small = max(planes[0].shape[1:]) <= _BY_PRODUCTS
    there = _at_by_products if small else _at_by_index
    lists = [[*each] for each in (planes, rows, columns)]
    return by_platform(*lists, tpu=there, default=_at_by_index)


def _at_by_index(
    planes: list[jax.Array], rows: list[jax.Array], columns: list[jax.Array]
) -> list[list[jax.Array]]:
    count, height, width = planes[0].shape
    # One flat index: several times faster on a CPU than an index per axis.
    first = jnp.arange(count) * (height * width)
    first = first.reshape(-1, *(1,) * (rows[0].ndim - 1))
    flat = [plane.reshape(-1) for plane in planes]
    indices = [first + row * width + column for row in rows for column in columns]
    return [[look_up(plane, index) for plane in flat] for index in indices]


# A TPU looks single words up one by one. Images of sides up to this have their pixels
# copied by products with ones among zeros instead, the whole line of the row first.
_BY_PRODUCTS = 64


def _at_by_products(
    planes: list[jax.Array], rows: list[jax.Array], columns: list[jax.Array]
) -> list[list[jax.Array]]:
    """`_at_by_index` without a gather: words have 24 bits, as many as float32."""
    count, height, width = planes[0].shape
    which = lambda index, side: (
        index.reshape(count, 1, -1) == jnp.arange(side)[None, :, None]
    )
    chosen = [which(column, width) for column in columns]
    found = []
    for row in rows:
        one = which(row, height).astype(jnp.bfloat16)
        lines = [_lines(plane, one) for plane in planes]
        for column in chosen:
            pixels = (jnp.sum(jnp.where(column, x, 0.0), axis=1) for x in lines)
            found.append(
                [
                    pixel.astype(plane.dtype).reshape(row.shape)
                    for pixel, plane in zip(pixels, planes, strict=True)
                ]
            )
    return found


def _lines(plane: jax.Array, one: jax.Array) -> jax.Array:
    """The row of each place: [N, H, W] and ones among zeros [N, H, P] -> [N, W, P]."""
    total, rest = jnp.zeros((), jnp.float32), plane.astype(jnp.float32)
    # Three parts of eight bits are exact in bfloat16, and so are their sums here.
    for _ in range(3):
        part = jax.lax.reduce_precision(rest, 8, 7)
        rest = rest - part
        total = total + jnp.einsum(
            "nhw,nhp->nwp",
            part.astype(jnp.bfloat16),
            one,
            preferred_element_type=jnp.float32,
        )
    return total


def update_rows(
    kind: jax.Array,
    functions: Sequence[Callable[..., jax.Array]],
    rows: jax.Array,
    *arguments: jax.Array,
    chunk: Chunk,
) -> jax.Array:
    """Each row through the function of its kind.

    Args:
        kind: int [N], index into `functions`; rows past its end stay as they are.
        functions: each maps [K, ...] rows and arguments to the new [K, ...] rows, every
            row by itself, for any K.
        rows: [N, ...].
        *arguments: [N, ...] each.
        chunk: None computes every function for all N rows and selects. A number brings
            the rows of a kind together and computes as many chunks of that size as hold
            them, which pays where work is done in sequence. The result is the same.
    """
    if isinstance(chunk, OnCpu):
        run = lambda chunk: (
            lambda *arrays: update_rows(arrays[0], functions, *arrays[1:], chunk=chunk)
        )
        return by_platform(
            kind, rows, *arguments, cpu=run(chunk.rows), default=run(None)
        )
    count = rows.shape[0]
    if chunk is None:
        for number, function in enumerate(functions):
            new = function(rows, *arguments)
            rows = jnp.where(_like(kind == number, rows), new, rows)
        return rows
    chunk = min(chunk, count)
    order = jnp.argsort(kind)
    in_order = [array[order] for array in (rows, kind, *arguments)]
    stop = jnp.sum(kind < len(functions))

    def step(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        position, rows = state
        # The last chunk may have to begin earlier; what precedes `position` is done.
        first = jnp.minimum(position, count - chunk)
        old, kinds, *rest = [
            jax.lax.dynamic_slice_in_dim(array, first, chunk)
            for array in (rows, *in_order[1:])
        ]
        number = jax.lax.dynamic_index_in_dim(in_order[1], position, keepdims=False)
        new = jax.lax.switch(number, functions, old, *rest)
        mine = (kinds == number) & (first + jnp.arange(chunk) >= position)
        new = jnp.where(_like(mine, rows), new, old)
        rows = jax.lax.dynamic_update_slice_in_dim(rows, new, first, 0)
        return position + jnp.sum(mine), rows

    start = (jnp.zeros_like(stop), in_order[0])
    _, rows = jax.lax.while_loop(lambda state: state[0] < stop, step, start)
    return jnp.zeros_like(rows).at[order].set(rows, unique_indices=True)


def _like(mine: jax.Array, rows: jax.Array) -> jax.Array:
    return mine.reshape(-1, *(1,) * (rows.ndim - 1))
