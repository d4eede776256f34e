"""Decoding, resizing and cropping of image files with Pillow."""

import io
import logging
import os
import pathlib

import numpy as np
from PIL import Image

from apr_jax.errors import DataError

_LOG = logging.getLogger(__name__)

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".tif", ".tiff", ".webp")


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
            listed = "\n  ".join(f"{f}: {why}" for f, why in self.files.items())
            count = len(self.files)
            noun = "image is" if count == 1 else "images are"
            raise DataError(
                f"{count} {noun} broken, and data.max_broken is {self._limit}:"
                f"\n  {listed}"
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


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image, and doesn't hide it."""
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def read(path: pathlib.Path) -> np.ndarray:
    """``decode`` of a file that must not be broken.

    Raises:
        DataError: it is; the message names it.
    """
    try:
        return decode(path)
    except BrokenImageError as error:
        raise DataError(f"{path} can't be read: {error}") from error


def decode(source: str | os.PathLike[str] | bytes) -> np.ndarray:
    """Returns an image as RGB, uint8 [H, W, 3].

    Grey, palette, CMYK and transparent images are converted, transparency dropped.

    Args:
        source: a path, or the bytes of the file.

    Raises:
        BrokenImageError: it can't be decoded whole.
    """
    try:
        with Image.open(
            io.BytesIO(source) if isinstance(source, bytes) else source
        ) as f:
            return np.asarray(_rgb(f))
    except Exception as error:  # Pillow's decoders raise all kinds on damaged files.
        raise BrokenImageError(f"{type(error).__name__}: {error}") from error


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes uint8 [H, W, 3] bilinearly with antialiasing, as torchvision does."""
    if image.shape[:2] == (height, width):
        return image
    resized = Image.fromarray(image).resize(
        (width, height), Image.Resampling.BILINEAR, reducing_gap=None
    )
    return np.asarray(resized)


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


def _rgb(image: Image.Image) -> Image.Image:
    # Pillow warns if a palette with transparency is converted in one go.
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")
