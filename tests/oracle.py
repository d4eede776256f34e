"""Independent versions of what the package computes: NumPy in float64, and Pillow."""

import functools
import math
import pathlib

import numpy as np
from PIL import Image, ImageEnhance, ImageOps


def recombine(amplitude_from, phase_from, *, axes=(-3, -2, -1)):
    """The plain formula: |F(a)| exp(i angle F(p)), real part of the inverse."""
    magnitude = np.abs(np.fft.fftn(np.asarray(amplitude_from, np.float64), axes=axes))
    angle = np.angle(np.fft.fftn(np.asarray(phase_from, np.float64), axes=axes))
    return np.fft.ifftn(magnitude * np.exp(1j * angle), axes=axes).real


def low_pass(images, radius):
    """Images without the frequencies `radius` or more from the zero frequency."""
    height, width = images.shape[-3:-1]
    rows, columns = np.meshgrid(
        np.arange(height) - height // 2, np.arange(width) - width // 2, indexing="ij"
    )
    mask = np.fft.ifftshift(np.sqrt(rows**2 + columns**2) < radius)
    spectrum = np.fft.fft2(np.asarray(images, np.float64), axes=(-3, -2))
    return np.fft.ifft2(spectrum * mask[..., None], axes=(-3, -2)).real


def pillow_op(image, name, level, negate=False):
    """One AugMix operation on a uint8 [H, W, C] array, computed by Pillow."""
    picture = Image.fromarray(image if image.shape[-1] == 3 else image[..., 0])
    changed = np.asarray(_pillow(picture, name, level, -1 if negate else 1))
    return changed.reshape(image.shape)


def _pillow(picture, name, level, sign):
    width, height = picture.size

    def warp(*matrix):
        bilinear = Image.Resampling.BILINEAR
        return picture.transform(
            picture.size, Image.Transform.AFFINE, matrix, resample=bilinear
        )

    match name:
        case "autocontrast":
            return ImageOps.autocontrast(picture)
        case "equalize":
            return ImageOps.equalize(picture)
        case "posterize":
            return ImageOps.posterize(picture, 4 - int(level * 4 / 10))
        case "rotate":
            degrees = sign * int(level * 30 / 10)
            return picture.rotate(degrees, resample=Image.Resampling.BILINEAR)
        case "invert":
            return ImageOps.invert(picture)
        case "solarize":
            return ImageOps.solarize(picture, 256 - int(level * 256 / 10))
        case "shear_x":
            return warp(1, sign * level * 0.3 / 10, 0, 0, 1, 0)
        case "shear_y":
            return warp(1, 0, 0, sign * level * 0.3 / 10, 1, 0)
        case "translate_x":
            return warp(1, 0, sign * int(level * (width / 3) / 10), 0, 1, 0)
        case "translate_y":
            return warp(1, 0, 0, 0, 1, sign * int(level * (height / 3) / 10))
    enhancer = {
        "color": ImageEnhance.Color,
        "contrast": ImageEnhance.Contrast,
        "brightness": ImageEnhance.Brightness,
        "sharpness": ImageEnhance.Sharpness,
    }[name]
    return enhancer(picture).enhance(level * 1.8 / 10 + 0.1)


def photo_crops(size, count, seed=0):
    """Random crops of scikit-learn's two photographs: uint8 [count, H, W, 3]."""
    from sklearn.datasets import load_sample_images

    height, width = size
    rng = np.random.default_rng(seed)
    crops = []
    for photo in load_sample_images().images * math.ceil(count / 2):
        # At half size a small crop still shows something.
        photo = (
            photo if min(size) > 64 else np.asarray(Image.fromarray(photo).reduce(4))
        )
        top = rng.integers(photo.shape[0] - height + 1)
        left = rng.integers(photo.shape[1] - width + 1)
        crops.append(photo[top : top + height, left : left + width])
    return np.stack(crops[:count])


@functools.cache
def cifar10_test(shared: pathlib.Path, count):
    """The first test images of the shared CIFAR-10 file: uint8 [count, 32, 32, 3].

    Its lossless mosaics hold `per_tile` images each, in rows of `cols`.
    """
    import io

    packed = np.load(shared / "data" / "cifar10" / "test.npz")
    per_tile, columns, size = (int(packed[k]) for k in ("per_tile", "cols", "size"))
    tiles = []
    for number in range(math.ceil(count / per_tile)):
        start, stop = packed["offsets"][number : number + 2]
        mosaic = Image.open(io.BytesIO(packed["data"][start:stop].tobytes()))
        rows = np.asarray(mosaic.convert("RGB")).reshape(-1, size, columns, size, 3)
        tiles.append(rows.swapaxes(1, 2).reshape(-1, size, size, 3)[:per_tile])
    return np.concatenate(tiles)[:count]
