"""Baseline JPEG and back on the device, to the bits of libjpeg.

What Pillow writes and reads by default: YCbCr, chroma at half the size of both sides,
the quantisation tables of Annex K scaled by the quality, the integer DCT that libjpeg
calls "islow", and chroma enlarged by a triangle filter ("fancy upsampling"). Entropy
coding loses nothing and is left out. All in int32, by slices along leading axes, so
that nothing is looked up; the quotients of quantisation are in float32, which is exact
enough.

Source: ITU-T T.81 (the standard and its tables); Loeffler, Ligtenberg and Moschytz,
"Practical fast 1-D DCT algorithms with 11 multiplications", ICASSP 1989, whose
constants libjpeg rounds to 13 bits.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from apr_jax.corruptions.constants import Arrays, Shape, Values
from apr_jax.corruptions.digital import jpeg_quality

_BLOCK = 8
# Annex K, K.1 and K.2, by rows: the second has 99 everywhere else.
_LUMA = """
    16 11 10 16 24 40 51 61      12 12 14 19 26 58 60 55
    14 13 16 24 40 57 69 56      14 17 22 29 51 87 80 62
    18 22 37 56 68 109 103 77    24 35 55 64 81 104 113 92
    49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99
"""
_CHROMA = "17 18 24 47  18 21 26 66  24 26 56 99  47 66 99 99"

# Bits behind the point: of the DCT's constants, of what lies between its two
# directions, and of the weights of colours.
_CONST, _BETWEEN, _COLOUR = 13, 2, 16


def tables(quality: int) -> Arrays:
    """The quantisation tables of a quality from 1 to 100, int32 [8, 8] by rows."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    luma = np.array(_LUMA.split(), np.int32).reshape(_BLOCK, _BLOCK)
    chroma = np.full_like(luma, 99)
    chroma[:4, :4] = np.array(_CHROMA.split(), np.int32).reshape(4, 4)
    scaled = lambda table: np.clip((table * scale + 50) // 100, 1, 255)
    return {"luma": scaled(luma), "chroma": scaled(chroma)}


def values(name: str, shape: Shape, severity: int) -> Arrays:
    """The tables of the JPEG corruption."""
    return tables(jpeg_quality(shape, severity))


def compress(seeds: jax.Array | None, images: jax.Array, values: Values) -> jax.Array:
    """Through JPEG and back. uint8 [N, H, W, 3] -> uint8 [N, H, W, 3].

    Args:
        seeds: as all corruptions have; not used.
        images: of 5 pixels or more; of fewer chroma is enlarged in another way.
        values: of ``tables``.
    """
    luma, blue, red = _to_ycc(images.astype(jnp.int32))
    _, height, width, _ = images.shape
    luma = _requantised(luma, values["luma"])[:, :height, :width]
    blue, red = (
        _enlarged(_requantised(_halved(x), values["chroma"]), (height, width))
        for x in (blue, red)
    )
    return _to_rgb(luma, blue, red).astype(jnp.uint8)


# --- Colours -------------------------------------------------------------------------


def _fixed(number: float, bits: int = _COLOUR) -> int:
    return int(number * (1 << bits) + 0.5)


def _to_ycc(images: jax.Array) -> list[jax.Array]:
    """Y, Cb and Cr, int32 [N, H, W] each."""
    r, g, b = (images[..., i] for i in range(3))
    half = 1 << (_COLOUR - 1)
    # Half is rounded down in chroma, so that it stays below 256.
    middle = (128 << _COLOUR) + half - 1
    f = _fixed
    luma = f(0.299) * r + f(0.587) * g + f(0.114) * b + half
    blue = -f(0.16874) * r - f(0.33126) * g + f(0.5) * b + middle
    red = f(0.5) * r - f(0.41869) * g - f(0.08131) * b + middle
    return [x >> _COLOUR for x in (luma, blue, red)]


def _to_rgb(luma: jax.Array, blue: jax.Array, red: jax.Array) -> jax.Array:
    """int32 [N, H, W] each -> int32 [N, H, W, 3] from 0 to 255."""
    half, f = 1 << (_COLOUR - 1), _fixed
    b, r = blue - 128, red - 128
    added = (
        f(1.402) * r + half,
        -f(0.34414) * b - f(0.71414) * r + half,
        f(1.772) * b + half,
    )
    levels = [luma + (x >> _COLOUR) for x in added]
    return jnp.clip(jnp.stack(levels, axis=-1), 0, 255)


# --- Chroma --------------------------------------------------------------------------


def _halved(plane: jax.Array) -> jax.Array:
    """Means of two by two, [N, H, W] -> [N, ceil(H / 2), 8 ceil(W / 16)].

    Columns are filled up before, by the last one, to those of whole blocks.
    """
    _, height, width = plane.shape
    more = ((0, 0), (0, height % 2), (0, -width % (2 * _BLOCK)))
    plane = jnp.pad(plane, more, mode="edge")
    rows = plane[:, 0::2] + plane[:, 1::2]
    both = rows[:, :, 0::2] + rows[:, :, 1::2]
    # A quarter and three are rounded by turns.
    bias = 1 + jnp.arange(both.shape[2], dtype=jnp.int32) % 2
    return (both + bias[None, None]) >> 2


def _enlarged(plane: jax.Array, shape: Shape) -> jax.Array:
    """Twice as high and wide, up to ``shape``: 9, 3, 3 and 1 sixteenths of neighbours.

    Args:
        plane: int32 [N, >= ceil(H / 2), >= ceil(W / 2)]; what is more is padding.
        shape: H and W.
    """
    height, width = shape
    plane = plane[:, : (height + 1) // 2, : (width + 1) // 2]
    up, down = _neighbours(plane, 1)
    rows = _by_turns([3 * plane + up, 3 * plane + down], 1)
    left, right = _neighbours(rows, 2)
    # Rounded otherwise by turns, as there.
    both = _by_turns([(3 * rows + left + 8) >> 4, (3 * rows + right + 7) >> 4], 2)
    return both[:, :height, :width]


def _neighbours(plane: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """What comes before and after along an axis; at the ends the plane itself."""
    size = plane.shape[axis]
    part = lambda start, stop: jax.lax.slice_in_dim(plane, start, stop, axis=axis)
    before = jnp.concatenate([part(0, 1), part(0, size - 1)], axis)
    after = jnp.concatenate([part(1, size), part(size - 1, size)], axis)
    return before, after


def _by_turns(planes: Sequence[jax.Array], axis: int) -> jax.Array:
    """One of each, and so on: [N, H, W] of two become twice as long."""
    shape = list(planes[0].shape)
    shape[axis] *= len(planes)
    return jnp.stack(planes, axis + 1).reshape(shape)


# --- Blocks --------------------------------------------------------------------------


def _requantised(plane: jax.Array, table: jax.Array) -> jax.Array:
    """DCT, quantisation and back, int32 [N, H, W] -> [N, 8 ceil(H/8), 8 ceil(W/8)]."""
    count, height, width = plane.shape
    more = ((0, 0), (0, -height % _BLOCK), (0, -width % _BLOCK))
    plane = jnp.pad(plane, more, mode="edge")
    down, along = plane.shape[1] // _BLOCK, plane.shape[2] // _BLOCK
    blocks = plane.reshape(count, down, _BLOCK, along, _BLOCK)
    blocks = blocks.transpose(2, 4, 0, 1, 3).reshape(_BLOCK, _BLOCK, -1) - 128
    # Along first, as the rounding in between shows.
    found = _forward(blocks.swapaxes(0, 1), _CONST - _BETWEEN).swapaxes(0, 1)
    found = _forward(found, _CONST + _BETWEEN)
    # The DCT is 8 times that of the standard.
    steps = (table << 3)[:, :, None]
    size = jnp.abs(found) + (steps >> 1)
    quotient = (size.astype(jnp.float32) + 0.5) / steps.astype(jnp.float32)
    kept = jnp.sign(found) * jnp.floor(quotient).astype(jnp.int32) * table[:, :, None]
    back = _backward(kept, _CONST - _BETWEEN).swapaxes(0, 1)
    back = _backward(back, _CONST + _BETWEEN + 3).swapaxes(0, 1)
    levels = jnp.clip(back + 128, 0, 255)
    levels = levels.reshape(_BLOCK, _BLOCK, count, down, along)
    return levels.transpose(2, 3, 0, 4, 1).reshape(plane.shape)


def _halves() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The DCT of sums and of differences about the middle, integers [4, 4] each.

    Rows are frequencies, even and odd ones. They are the sums of products that the
    fast algorithm makes, with its constants rounded one by one.
    """
    f = lambda number: _fixed(number, _CONST)
    one, low = f(1.0), f(0.541196100)
    a, b = low + f(0.765366865), low - f(1.847759065)
    even = [[one] * 4, [a, low, -low, -a], [one, -one, -one, one], [low, b, -b, -low]]
    # Of the differences 0-7, 1-6, 2-5 and 3-4: what each has in the outputs 1, 3, 5, 7.
    all_of, near, far = f(1.175875602), f(0.899976223), f(2.562915447)
    even_of, odd_of = f(1.961570560), f(0.390180644)
    own = [f(1.501321110), f(3.072711026), f(2.053119869), f(0.298631336)]
    odd = np.full((4, 4), all_of)
    odd += np.diag(own)
    for i, j in ((0, 0), (0, 3), (3, 0), (3, 3)):
        odd[i, j] -= near
    for i, j in ((1, 1), (1, 2), (2, 1), (2, 2)):
        odd[i, j] -= far
    for i, j in ((3, 3), (3, 1), (1, 3), (1, 1)):
        odd[i, j] -= even_of
    for i, j in ((0, 0), (0, 2), (2, 0), (2, 2)):
        odd[i, j] -= odd_of
    return np.array(even), odd


_EVEN, _ODD = _halves()


def _forward(x: jax.Array, shift: int) -> jax.Array:
    """The DCT along the first axis, int32 [8, ...]; rounded by so many bits."""
    sums = [x[i] + x[7 - i] for i in range(4)]
    differences = [x[i] - x[7 - i] for i in range(4)]
    even, odd = _product(_EVEN, sums), _product(_ODD, differences)
    return jnp.stack(
        [_rounded(part[i], shift) for i in range(4) for part in (even, odd)]
    )


def _backward(x: jax.Array, shift: int) -> jax.Array:
    """The inverse of ``_forward``, its transpose."""
    even = _product(_EVEN.T, [x[i] for i in (0, 2, 4, 6)])
    odd = _product(_ODD.T, [x[i] for i in (1, 3, 5, 7)])
    first = [_rounded(even[i] + odd[i], shift) for i in range(4)]
    last = [_rounded(even[i] - odd[i], shift) for i in reversed(range(4))]
    return jnp.stack(first + last)


def _product(
    matrix: npt.NDArray[np.int64], parts: Sequence[jax.Array]
) -> list[jax.Array]:
    """Rows of a matrix times arrays, without a dot product of integers."""
    rows = []
    for row in matrix.tolist():
        terms = [number * part for number, part in zip(row, parts, strict=True)]
        rows.append(terms[0] + terms[1] + terms[2] + terms[3])
    return rows


def _rounded(x: jax.Array, shift: int) -> jax.Array:
    return (x + (1 << (shift - 1))) >> shift
