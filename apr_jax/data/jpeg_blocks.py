"""Decoding a window of a JPEG whose blocks stand alone.

A JPEG is a row of Huffman codes that can only be read from its start, unless it has
restart markers: what follows one is decoded without what came before. ``encode`` puts
one behind each block of 16 x 16 pixels (ITU-T T.81, B.2.4.4), some 5 % more bytes; any
decoder reads such a file. ``cut`` makes of it the JPEG of the blocks that a window
needs, by copying bytes, to be decoded in their place: the window's pixels are the same,
to the bit.
"""

import io
import struct

import numpy as np
from PIL import Image

_SIDE = 16  # pixels of a block, whose colours are stored at half the resolution
_START, _INTERVAL, _SCAN, _END = b"\xff\xd8", 0xDD, 0xDA, b"\xff\xd9"
_BASELINE = 0xC0
_SUBSAMPLING = 2  # Pillow's number of 4:2:0
_NUMBERS = np.arange(0xD0, 0xD8, dtype=np.uint8)  # of restart markers
_HALVED = b"\x03\x01\x22"  # components, and the first of them: twice as fine, both ways


def encode(image: np.ndarray, quality: int) -> bytes:
    """Returns the JPEG of uint8 [H, W, 3], each of its blocks to be decoded alone.

    Args:
        image: the pixels.
        quality: 1 to 100, as Pillow and libjpeg count it.
    """
    file = io.BytesIO()
    Image.fromarray(image).save(
        file,
        "JPEG",
        quality=quality,
        subsampling=_SUBSAMPLING,
        restart_marker_blocks=1,
    )
    return file.getvalue()


def sides(contents: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG that ``encode`` has made; None for other files."""
    found = _heads(contents)
    return None if found is None else found[2:]


def cut(
    contents: bytes, window: tuple[int, int, int, int]
) -> tuple[bytes, tuple[int, int]] | None:
    """Returns a JPEG with a window of another, and the window's place in it.

    Args:
        contents: a file.
        window: (top, left, height, width).

    Returns:
        The file, and (top, left) of the window in it; None where the blocks don't stand
        alone, or it is no JPEG that ``encode`` has made.
    """
    if (found := _heads(contents)) is None:
        return None
    frame, start, tall, wide = found
    top, left, height, width = window
    # Colours of a pixel at a block's edge are interpolated with the next block's.
    rows = _blocks(top, height, tall)
    columns = _blocks(left, width, wide)
    across = -(-wide // _SIDE)
    codes = np.frombuffer(contents, np.uint8)[start:]
    marks = np.flatnonzero(codes[:-1] == 0xFF)
    marks = marks[codes[marks + 1] & 0xF8 == 0xD0]  # the restart markers
    if len(marks) + 1 != across * -(-tall // _SIDE) or contents[-2:] != _END:
        return None
    # Block b lies from starts[b] to starts[b + 1], with its marker, but for the last.
    # The last block of the whole has the end of the file for one.
    starts = np.empty(len(marks) + 2, np.int64)
    starts[0], starts[1:-1], starts[-1] = 0, marks + 2, len(codes)
    firsts = np.arange(rows.start, rows.stop)[:, None] * across
    # int64 [rows, columns + 1]: where the blocks of the window start, and the next.
    places = starts[firsts + np.arange(columns.start, columns.stop + 1)]
    scan = np.concatenate([codes[row[0] : row[-1]] for row in places])
    ends = np.diff(places).ravel().cumsum() - 1
    scan[ends] = _NUMBERS[np.arange(len(ends)) % 8]
    scan[-1] = _END[1]
    size = struct.pack(
        ">HH",
        min(rows.stop * _SIDE, tall) - rows.start * _SIDE,
        min(columns.stop * _SIDE, wide) - columns.start * _SIDE,
    )
    head = contents[: frame + 5] + size + contents[frame + 9 : start]
    place = top - rows.start * _SIDE, left - columns.start * _SIDE
    return head + scan.tobytes(), place


def _blocks(first: int, count: int, size: int) -> range:
    """The blocks that pixels need along an axis of an image."""
    last = min(first + count, size - 1)
    return range(max(first - 1, 0) // _SIDE, last // _SIDE + 1)


def _heads(contents: bytes) -> tuple[int, int, int, int] | None:
    """Place of the frame's head, start of the codes, height and width.

    None where a JPEG isn't of the kind that ``encode`` makes.
    """
    if contents[:2] != _START:
        return None
    at, frame, restarts = 2, -1, False
    while at + 4 <= len(contents) and contents[at] == 0xFF:
        kind = contents[at + 1]
        (length,) = struct.unpack_from(">H", contents, at + 2)
        if kind == _BASELINE:
            if contents[at + 9 : at + 12] != _HALVED:
                return None
            frame = at
        elif kind == _INTERVAL:
            restarts = contents[at + 4 : at + 6] == b"\0\1"
        elif kind == _SCAN:
            if frame < 0 or not restarts:
                return None
            tall, wide = struct.unpack_from(">HH", contents, frame + 5)
            return frame, at + 2 + length, tall, wide
        at += 2 + length
    return None
