"""Decoding for training and evaluation on large images, in TensorFlow.

Training takes a random window of the image (Szegedy et al., 2015, as torchvision's
RandomResizedCrop draws it): area 8 to 100 % of the image's, aspect ratio 3/4 to 4/3,
ten tries, then the largest central window of an allowed ratio. Only the window is
decoded. It is resized with antialiasing, as Pillow does it, on which the published
results rest.

Every function for TensorFlow has a twin in NumPy and Pillow (``images``), for the files
that TensorFlow can't decode, and to test against.
"""

import contextlib
import math
import types
from typing import Any

import numpy as np

from apr_jax.data import images as images_lib
from apr_jax.data import jpeg_blocks, philox
from apr_jax.errors import DataError

SCALE = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
TRIES = 10

# With the fast one pixels differ from what Pillow, and so PyTorch, decodes.
_DCT = "INTEGER_ACCURATE"


def uniforms(tf: types.ModuleType, seed: Any) -> Any:
    """Draws what a window is made of, float64 [TRIES, 4] in [0, 1), from a seed.

    Args:
        tf: the module.
        seed: int64 [2].
    """
    # The algorithm is named so that the numbers are the same on every machine.
    return tf.random.stateless_uniform([TRIES, 4], seed, dtype=tf.float64, alg="philox")


def draws(seeds: np.ndarray) -> np.ndarray:
    """``uniforms`` of seeds int64 [N, 2], without TensorFlow: [N, TRIES, 4]."""
    return philox.uniform(seeds, TRIES * 4).reshape(-1, TRIES, 4)


def window(draws: np.ndarray, height: int, width: int) -> tuple[int, int, int, int]:
    """Returns a random window, (top, left, height, width).

    Args:
        draws: float64 [TRIES, 4] in [0, 1): area, ratio, and place down and across.
        height, width: of the image.
    """
    low, high = map(math.log, RATIO)
    # Floats of Python: for ten numbers NumPy takes longer to be called than to add.
    for area, ratio, down, across in draws.tolist():
        area = height * width * (SCALE[0] + (SCALE[1] - SCALE[0]) * area)
        ratio = math.exp(low + (high - low) * ratio)
        wide, tall = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < tall <= height:
            top = math.floor(down * (height - tall + 1))
            return top, math.floor(across * (width - wide + 1)), tall, wide
    return _central(height, width)


def train_image(image: np.ndarray, draws: np.ndarray, size: int) -> np.ndarray:
    """Cuts a random window out of uint8 [H, W, 3], resized to [size, size, 3]."""
    top, left, tall, wide = window(draws, *image.shape[:2])
    return images_lib.resize(image[top : top + tall, left : left + wide], size, size)


def train_pixels(
    contents: bytes, draws: np.ndarray, size: int, *, name: str = ""
) -> np.ndarray:
    """``train_image`` of a file, to the bit.

    Of a JPEG whose blocks stand alone the window's are decoded, and no others.

    Raises:
        BrokenImageError, DataError: as ``images.decode``.
    """
    choose = lambda height, width: window(draws, height, width)
    sides = jpeg_blocks.sides(contents)
    place = window(draws, *sides) if sides else None
    found = jpeg_blocks.cut(contents, place) if place else None
    if place and found:
        contents, (top, left) = found
        choose = lambda height, width: (top, left, place[2], place[3])
    return images_lib.decode_window(contents, choose, size, name=name)


def tf_train_image(tf: types.ModuleType, contents: Any, draws: Any, size: int) -> Any:
    """``train_image`` of a file, for TensorFlow; fails on one that it can't decode."""

    def fused() -> Any:
        shape = tf.image.extract_jpeg_shape(contents)
        place = _tf_window(tf, draws, shape[0], shape[1])
        return tf.image.decode_and_crop_jpeg(
            contents, place, channels=3, dct_method=_DCT
        )

    def other() -> Any:
        image = _tf_decode_other(tf, contents)
        shape = tf.shape(image)
        top, left, tall, wide = tf.unstack(_tf_window(tf, draws, shape[0], shape[1]))
        return image[top : top + tall, left : left + wide]

    image = tf.cond(_tf_is_jpeg(tf, contents), fused, other)
    return _tf_resize(tf, image, tf.stack([size, size]), tf.zeros(2, tf.int32), size)


def tf_eval_image(tf: types.ModuleType, contents: Any, size: int, shorter: int) -> Any:
    """``images.fit`` of a whole image, for TensorFlow: uint8 [size, size, 3].

    Resizing computes the pixels of the central crop only.
    """
    image = tf.cond(
        _tf_is_jpeg(tf, contents),
        lambda: tf.io.decode_jpeg(contents, channels=3, dct_method=_DCT),
        lambda: _tf_decode_other(tf, contents),
    )
    sides = tf.shape(image)[:2]
    smallest = tf.reduce_min(sides)
    wanted = tf.maximum(shorter, size)
    if shorter == 0:
        wanted = tf.maximum(smallest, size)
    # An image of the right size already is left as it is.
    wanted = tf.where(tf.reduce_all(sides == size), size, wanted)
    # The longer side is rounded down, as by images.shorter_size.
    exact = tf.cast(wanted, tf.float64) * tf.cast(sides, tf.float64)
    resized = tf.cast(exact / tf.cast(smallest, tf.float64), tf.int32)
    resized = tf.where(sides == smallest, wanted, resized)
    corner = tf.cast(tf.round((tf.cast(resized, tf.float64) - size) / 2), tf.int32)
    return _tf_resize(tf, image, resized, corner, size)


def _central(height: int, width: int) -> tuple[int, int, int, int]:
    """Returns the largest central window whose aspect ratio is allowed."""
    tall, wide = height, width
    if width / height < RATIO[0]:
        tall = round(width / RATIO[0])
    elif width / height > RATIO[1]:
        wide = round(height * RATIO[1])
    return (height - tall) // 2, (width - wide) // 2, tall, wide


def _tf_window(tf: types.ModuleType, draws: Any, height: Any, width: Any) -> Any:
    """``window`` for TensorFlow; returns int32 [4]."""
    tall, wide = tf.cast(height, tf.float64), tf.cast(width, tf.float64)
    areas = tall * wide * (SCALE[0] + (SCALE[1] - SCALE[0]) * draws[:, 0])
    logs = np.log(RATIO)
    ratios = tf.exp(logs[0] + (logs[1] - logs[0]) * draws[:, 1])
    widths, heights = (
        tf.round(tf.sqrt(areas * ratios)),
        tf.round(tf.sqrt(areas / ratios)),
    )
    fits = (widths <= wide) & (heights <= tall) & (widths > 0) & (heights > 0)
    i = tf.argmax(fits)
    top = tf.floor(draws[i, 2] * (tall - heights[i] + 1))
    left = tf.floor(draws[i, 3] * (wide - widths[i] + 1))
    drawn = tf.cast(tf.stack([top, left, heights[i], widths[i]]), tf.int32)
    ratio = wide / tall
    high = tf.where(ratio < RATIO[0], tf.round(wide / RATIO[0]), tall)
    broad = tf.where(ratio > RATIO[1], tf.round(tall * RATIO[1]), wide)
    central = tf.stack([(tall - high) // 2, (wide - broad) // 2, high, broad])
    return tf.where(tf.reduce_any(fits), drawn, tf.cast(central, tf.int32))


def _tf_is_jpeg(tf: types.ModuleType, contents: Any) -> Any:
    """Tells JPEG in grey or RGB by its head; fails on one that doesn't end as JPEGs do.

    TensorFlow has its own rule for CMYK, a level away from Pillow's.

    The fused decoder stops at the last row of its window, so a file that was cut
    off would be found out in some epochs only.
    """
    length = tf.strings.length(contents)
    jpeg = tf.strings.substr(contents, 0, tf.minimum(length, 2)) == b"\xff\xd8"
    end = tf.strings.substr(contents, tf.maximum(length - 2, 0), tf.minimum(length, 2))
    whole = tf.logical_or(tf.logical_not(jpeg), end == b"\xff\xd9")
    with tf.control_dependencies([tf.debugging.Assert(whole, ["cut off"])]):
        return tf.cond(
            jpeg,
            lambda: tf.image.extract_jpeg_shape(contents)[2] != 4,
            lambda: tf.constant(False),
        )


def _tf_decode_other(tf: types.ModuleType, contents: Any) -> Any:
    """Decodes PNG by itself, and all else by ``images.decode``.

    ``tf.io.decode_image`` takes the palette of a BMP for grey levels, and has other
    rules for GIF.
    """

    def decoded(contents: bytes) -> np.ndarray:
        # TensorFlow would print the traceback of an error. The file is decoded once
        # more where errors are counted.
        with contextlib.suppress(images_lib.BrokenImageError, DataError):
            return images_lib.decode(contents)
        return np.zeros((0, 0, 3), np.uint8)

    def other() -> Any:
        image = tf.numpy_function(decoded, [contents], tf.uint8)
        with tf.control_dependencies([tf.debugging.Assert(tf.size(image) > 0, ["no"])]):
            return tf.identity(image)

    mark = tf.strings.substr(contents, 0, tf.minimum(tf.strings.length(contents), 8))
    image = tf.cond(
        mark == b"\x89PNG\r\n\x1a\n",
        lambda: tf.io.decode_png(contents, channels=3),
        other,
    )
    return tf.ensure_shape(image, (None, None, 3))


def _tf_resize(
    tf: types.ModuleType, image: Any, sides: Any, corner: Any, size: int
) -> Any:
    """Resizes with antialiasing and cuts out a square, uint8 [size, size, 3].

    Args:
        tf: the module.
        image: uint8 [H, W, 3].
        sides: int32 [2], height and width to resize to.
        corner: int32 [2], top and left of the square.
        size: of the square; no other pixels are computed.
    """
    shape = tf.shape(image)
    scale = tf.cast(sides / shape[:2], tf.float32)
    shift = -tf.cast(corner, tf.float32)

    def down(pixels: Any, axis: int) -> Any:
        # Resizes the first axis. As an image of a single column, whose pixels have
        # a channel for every value of a row, since the operation is fast where it
        # can add up rows, and slow across.
        before = tf.shape(pixels)
        resized = tf.raw_ops.ScaleAndTranslate(
            images=tf.reshape(pixels, (1, before[0], 1, before[1] * 3)),
            size=(size, 1),
            scale=tf.stack([scale[axis], 1.0]),
            translation=tf.stack([shift[axis], 0.0]),
            kernel_type="triangle",
            antialias=True,
        )
        # Rounded between the two passes too, across first, as Pillow does. The
        # weights add up to 1, so nothing has to be clipped.
        rounded = tf.cast(resized + 0.5, tf.uint8)
        return tf.reshape(rounded, (size, before[1], 3))

    across = tf.transpose(down(tf.transpose(image, (1, 0, 2)), 1), (1, 0, 2))
    return tf.ensure_shape(down(across, 0), (size, size, 3))
