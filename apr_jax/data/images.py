"""Decoding, resizing and cropping of image files with Pillow."""

import io
import logging
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from apr_jax.errors import DataError

_LOG = logging.getLogger(__name__)

# Changes with the rules of ``decode``, so that no cache keeps images of older ones.
RULES = 3
# Pillow's modes, by the rule for them.
_PLAIN = (
    *("1", "L", "P", "RGB", "CMYK", "YCbCr", "LAB", "HSV"),
    *("LA", "PA", "RGBA", "RGBa", "RGBX"),
)
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
# Formats whose grey images of 16 bits Pillow may open as ones of 32.
_SIXTEEN_AS_MORE = ("PNG", "PPM")
# Tags of TIFF.
_BITS, _LARGEST = 258, 281
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0


class BrokenImageError(ValueError):
    """A file that isn't an image, or a damaged one."""


class Broken:
    """Counts broken files, names each once, and stops at one too many.

    Args:
        limit: how many are tolerated.
    """

    def __init__(self, limit: int) -> None:
        self.files: dict[str, str] = {}
        self._limit = limit

    def add(self, file: str, reason: str) -> None:
        """Notes a broken file.

        Raises:
            DataError: there are now more than the limit; the message lists them.
        """
        if file in self.files:
            return
        self.files[file] = reason
        _LOG.warning("broken image %d: %s (%s)", len(self.files), file, reason)
        if len(self.files) > self._limit:
            listed = "; ".join(f"{f}: {why}" for f, why in self.files.items())
            count = len(self.files)
            noun = "image is" if count == 1 else "images are"
            raise DataError(
                f"{count} {noun} broken, and data.max_broken is {self._limit}: {listed}"
            )

    def fitted(self, path: pathlib.Path, size: int, shorter: int) -> np.ndarray | None:
        """The image of a file as ``fit`` makes it; None where it is broken.

        Raises:
            DataError: as ``add``.
        """
        try:
            return fit(decode(path), size, shorter)
        except BrokenImageError as error:
            self.add(str(path), str(error))
            return None


def read(source: pathlib.Path | bytes, *, name: str = "") -> np.ndarray:
    """``decode`` of an image that must not be broken.

    Raises:
        DataError: it is; the message names it.
    """
    try:
        return decode(source, name=name)
    except BrokenImageError as error:
        raise DataError(f"{name or source!s} can't be read: {error}") from error


def decode(source: str | os.PathLike[str] | bytes, *, name: str = "") -> np.ndarray:
    """Returns an image as RGB, uint8 [H, W, 3]: of all modes, the same for all readers.

    - Eight bits and fewer: as Pillow converts them, and so torchvision. Grey is
      repeated; palettes are looked up; CMYK is converted without a profile, (255 - C)
      (255 - K) / 255; transparency is dropped, the colours below it stay.
    - 16 bits, grey or coloured: the upper eight, as libpng and TensorFlow have it.
      (Those of a coloured PPM Pillow scales and rounds, one level more at most.) Grey
      TIFFs of fewer bits, by their BitsPerSample or a MaxSampleValue such as 4095: the
      upper eight of those; coloured ones are refused. Levels of 12 bits in a file that
      doesn't say so come out dark.
    - Floats: in [0, 1], times 255, rounded, as ``to_uint8`` does.
    - Integers of 32 bits, and floats beyond [0, 1], have no right rule.
    - Of moving images the first. The orientation that a camera noted (EXIF) is left
      alone, as in the published training on ImageNet.

    Args:
        source: a path, or the bytes of the file.
        name: of the image in messages; the path without it.

    Raises:
        BrokenImageError: it can't be decoded whole.
        DataError: it has no right rule; the message has the name.
    """
    return _decoded(source, name, _rgb)


def decode_window(
    source: str | os.PathLike[str] | bytes,
    choose: Callable[[int, int], tuple[int, int, int, int]],
    size: int,
    *,
    name: str = "",
) -> np.ndarray:
    """``resize`` of a window of what ``decode`` returns, uint8 [size, size, 3].

    It has the same bits, with fewer copies where the file has eight-bit colours.

    Args:
        source: as of ``decode``.
        choose: height and width to (top, left, height, width).
        size: pixels.
        name: as of ``decode``.

    Raises:
        BrokenImageError, DataError: as ``decode``.
    """

    def window(image: Image.Image, name: str) -> np.ndarray:
        top, left, tall, wide = choose(image.height, image.width)
        if image.mode == "RGB" and image.format == "JPEG":
            part = image.crop((left, top, left + wide, top + tall))
            return np.asarray(_resized(part, size, size))
        whole = _rgb(image, name)
        return resize(whole[top : top + tall, left : left + wide], size, size)

    return _decoded(source, name, window)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes uint8 [H, W, 3] bilinearly with antialiasing, as torchvision does."""
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(_resized(Image.fromarray(image), height, width))


def resize_shorter(image: np.ndarray, shorter: int) -> np.ndarray:
    """Resizes uint8 [H, W, 3] so that its shorter side is ``shorter`` pixels."""
    height, width, _ = image.shape
    return resize(image, *shorter_size(height, width, shorter))


def shorter_size(height: int, width: int, shorter: int) -> tuple[int, int]:
    """Returns (height, width) with the shorter side scaled to ``shorter``.

    The longer side is rounded down, as torchvision's ``Resize`` does.
    """
    if height <= width:
        return shorter, int(shorter * width / height)
    return int(shorter * height / width), shorter


def centre_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Returns the central uint8 [size, size, 3]; the image must be large enough."""
    top, left = (round((side - size) / 2) for side in image.shape[:2])
    return image[top : top + size, left : left + size]


def fit(image: np.ndarray, size: int, shorter: int) -> np.ndarray:
    """Makes an image square: uint8 [H, W, 3] to uint8 [size, size, 3].

    The shorter side is resized to ``shorter`` pixels, then the centre is cut out.
    An image that is ``size`` by ``size`` is returned as it is. ``shorter`` 0 means
    no resizing, but for images that are smaller than the crop.
    """
    if image.shape[:2] == (size, size):
        return image
    if shorter == 0 and min(image.shape[:2]) >= size:
        return centre_crop(image, size)
    return centre_crop(resize_shorter(image, max(shorter, size)), size)


def fit_all(images: np.ndarray, size: int, shorter: int) -> np.ndarray:
    """``fit`` of each image: uint8 [N, H, W, 3] to uint8 [N, size, size, 3]."""
    if images.shape[1:3] == (size, size):
        return images
    return np.stack([fit(image, size, shorter) for image in images])


def three_channels(images: np.ndarray) -> np.ndarray:
    """Repeats grey [..., 1] to [..., 3]; leaves [..., 3] alone."""
    if images.shape[-1] == 3:
        return images
    return np.repeat(images, 3, axis=-1)


def checked_shape(images: np.ndarray, where: str) -> np.ndarray:
    """Returns images [N, H, W, 3 or 1], which may come without the last axis.

    Raises:
        DataError: another shape; the message names ``where``.
    """
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        hint = ""
        if images.ndim == 4 and images.shape[1] in (1, 3):
            hint = "; channels come last: images.transpose(0, 2, 3, 1)"
        raise DataError(
            f"images of {where} have the shape {list(images.shape)}; "
            f"it must be [N, H, W, 3], [N, H, W, 1] or [N, H, W]{hint}"
        )
    return images


def to_uint8(images: np.ndarray, where: str) -> np.ndarray:
    """Returns images uint8 [N, H, W, 3] of [N, H, W, 3 or 1].

    Raises:
        DataError: neither uint8 nor floats in [0, 1]; the message names ``where``.
    """
    if images.dtype == np.uint8:
        return three_channels(np.asarray(images))
    if images.dtype.kind != "f":
        raise DataError(
            f"images of {where} are {images.dtype}; they must be uint8, or floats in "
            "[0, 1]"
        )
    low, high = (images.min(), images.max()) if images.size else (0, 0)
    if not (low >= 0 and high <= 1):  # in this form NaN is refused too
        raise DataError(
            f"images of {where} are {images.dtype} from {low:g} to {high:g}; floats "
            "must be in [0, 1]: divide by 255, or undo the normalisation"
        )
    levels = np.rint(np.asarray(images) * 255).astype(np.uint8)
    return three_channels(levels)


def _decoded(
    source: str | os.PathLike[str] | bytes,
    name: str,
    work: Callable[[Image.Image, str], np.ndarray],
) -> np.ndarray:
    """What ``work`` makes of an opened image and its name, with ``decode``'s errors."""
    contents = io.BytesIO(source) if isinstance(source, bytes) else source
    if not name:
        name = "an image" if isinstance(source, bytes) else os.fspath(source)
    try:
        with Image.open(contents) as file:
            return work(file, name)
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise all kinds on damaged files.
        raise BrokenImageError(f"{type(error).__name__}: {error}") from error


def _resized(image: Image.Image, height: int, width: int) -> Image.Image:
    bilinear = Image.Resampling.BILINEAR
    return image.resize((width, height), bilinear, reducing_gap=None)


def _rgb(image: Image.Image, name: str) -> np.ndarray:
    """Returns uint8 [H, W, 3] of an image of any mode, as ``decode`` says."""
    bits = _bits(image)
    if image.mode in _PLAIN and bits in (8, 16):
        # Pillow warns if a palette with transparency is converted in one go.
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")
        return np.asarray(image.convert("RGB"))
    levels = np.asarray(image)[..., None]
    sixteen = image.mode in _SIXTEEN_BITS
    if sixteen or (image.mode == "I" and image.format in _SIXTEEN_AS_MORE):
        levels = np.minimum(levels, 2**bits - 1)
        if _tags(image).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            levels = 2**bits - 1 - levels
        return three_channels((levels >> bits - 8).astype(np.uint8))
    if image.mode == "F":
        return to_uint8(levels, name)
    if image.mode in _PLAIN:
        raise DataError(
            f"{name} has colours of {bits} bits in a TIFF of 16, which Pillow takes "
            "for 16; convert it to PNG of 8 or 16 bits"
        )
    raise DataError(
        f"{name} is of Pillow's mode {image.mode!r}, for which there is no one way to "
        "8 bits; convert it to PNG of 8 or 16 bits"
    )


def _tags(image: Image.Image) -> Mapping[int, Any]:
    found: Mapping[int, Any] = getattr(image, "tag_v2", {})
    return found


def _bits(image: Image.Image) -> int:
    """Bits of a sample: 16 unless a TIFF says otherwise, and 8 for fewer.

    The largest value that is used (MaxSampleValue) counts where it is that of a number
    of bits, such as 4095: then it is what a camera can measure.
    """
    tags = _tags(image)
    bits, largest = np.max(tags.get(_BITS, 16)), np.max(tags.get(_LARGEST, 65535))
    told = int(largest).bit_length()
    if bits == 16 and 8 < told < 16 and largest == 2**told - 1:
        return told
    return int(np.clip(bits, 8, 16))
