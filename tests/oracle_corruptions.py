"""The corruptions one image at a time, with NumPy, SciPy, OpenCV and Pillow.

Written apart from ``apr_jax.corruptions``, after the description of the benchmark
(Hendrycks & Dietterich 2019) and with the figures of its generators: libraries do the
work that the package does by matrices and lookups. Oracle of the tests and the other
side of the benchmark. For images whose shorter side has 32 pixels.
"""

import io
import json
import pathlib

import cv2
import numpy as np
import scipy.ndimage
from PIL import Image

_FIGURES = pathlib.Path(__file__).parent / "corruptions" / "strengths.json"
STRENGTH = {name: rows["32"] for name, rows in json.loads(_FIGURES.read_text()).items()}


def corrupt(rng, image, name, severity, photographs=()):
    """One uint8 [32, 32, 3]; ``photographs`` are the frost's, uint8 RGB."""
    value = STRENGTH[name][severity - 1]
    more = (photographs,) if name == "frost" else ()
    result = globals()[f"_{name}"](rng, image, value, *more)
    if result.dtype == np.uint8:
        return result
    return (np.clip(result, 0, 1) * 255).astype(np.uint8)


def _smooth(image, sigma):
    sigmas = (sigma, sigma, 0)[: image.ndim]
    return scipy.ndimage.gaussian_filter(image, sigmas, mode="nearest", truncate=4)


def _gaussian_noise(rng, image, c):
    return image / 255 + rng.normal(0, c, image.shape)


def _speckle_noise(rng, image, c):
    return image / 255 * (1 + rng.normal(0, c, image.shape))


def _shot_noise(rng, image, c):
    return rng.poisson(image / 255 * c) / c


def _impulse_noise(rng, image, c):
    hit, salt = rng.random(image.shape) < c, rng.random(image.shape) < 0.5
    return np.where(hit, salt * 1.0, image / 255)


def _gaussian_blur(rng, image, c):
    return _smooth(image / 255, c)


def _defocus_blur(rng, image, c):
    at = np.arange(-8, 9)
    kernel = (at[:, None] ** 2 + at**2 <= c[0] ** 2).astype(np.float32)
    kernel = cv2.GaussianBlur(kernel / kernel.sum(), (3, 3), sigmaX=c[1])
    return cv2.filter2D(image / 255, -1, kernel)


def _glass_blur(rng, image, c):
    sigma, _, rounds = c
    pixels = (_smooth(image / 255, sigma) * 255).astype(np.uint8)
    for _ in range(rounds):
        height, width, _ = pixels.shape
        for y in range(height - 1, 1, -1):
            for x in range(width - 1, 1, -1):
                dx, dy = rng.integers(-1, 1, 2)
                pixels[y, x] = pixels[y + dy, x + dx]
    return _smooth(pixels / 255, sigma)


def _moved(image, radius, sigma, degrees):
    """ImageMagick's motion blur, as one kernel for OpenCV."""
    width = 2 * radius + 1
    taps = np.exp(-(np.arange(width) ** 2) / (2 * sigma**2))
    taps /= taps.sum()
    kernel = np.zeros((2 * width + 1, 2 * width + 1))
    angle = np.deg2rad(degrees)
    for j in range(width):
        down, right = (np.ceil(j * f(angle) - 0.5) for f in (np.sin, np.cos))
        kernel[width + int(down), width + int(right)] += taps[j]
    return cv2.filter2D(image, cv2.CV_64F, kernel, borderType=cv2.BORDER_REPLICATE)


def _motion_blur(rng, image, c):
    return _moved(image.astype(np.float64), *c, rng.uniform(-45, 45)) / 255


def _zoomed(image, factor):
    sides = np.array(image.shape[:2])
    part = np.ceil(sides / factor).astype(int)
    (top, left), (high, wide) = (sides - part) // 2, part
    cut = image[top : top + high, left : left + wide]
    large = scipy.ndimage.zoom(cut, (factor, factor, 1), order=1)
    trim = (np.array(large.shape[:2]) - sides) // 2
    (top, left), (high, wide) = trim, sides
    return large[top : top + high, left : left + wide]


def _zoom_blur(rng, image, c):
    pixels = image / 255
    factors = np.arange(1, *c)
    total = pixels + sum(_zoomed(pixels, f) for f in factors)
    return total / (len(factors) + 1)


def _snow(rng, image, c):
    mean, deviation, factor, threshold, radius, sigma, keep = c
    draw = rng.normal(mean, deviation, (*image.shape[:2], 1))
    layer = _zoomed(draw, factor)[..., 0]
    layer[layer < threshold] = 0
    layer = (np.clip(layer, 0, 1) * 255).astype(np.uint8).astype(np.float64)
    layer = np.round(_moved(layer, radius, sigma, rng.uniform(-135, -45))) / 255
    pixels = (image / 255).astype(np.float32)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None]
    pale = np.maximum(pixels, grey * 1.5 + 0.5)
    mixed = keep * pixels + (1 - keep) * pale
    return mixed + (layer + np.rot90(layer, 2))[..., None]


def _frost(rng, image, c, photographs):
    photograph = photographs[rng.integers(5)]
    small = cv2.resize(photograph, (0, 0), fx=0.2, fy=0.2)
    height, width, _ = image.shape
    room = max((height + 1) / small.shape[0], (width + 1) / small.shape[1])
    if room > 1:
        small = cv2.resize(photograph, (0, 0), fx=0.2 * room, fy=0.2 * room)
    y = rng.integers(0, small.shape[0] - height)
    x = rng.integers(0, small.shape[1] - width)
    return c[0] * image / 255 + c[1] * small[y : y + height, x : x + width] / 255.0


def _fog(rng, image, c):
    bright, decay = c
    height, width, _ = image.shape
    side = 1 << (max(height, width) - 1).bit_length()
    cloud, step, wibble = np.zeros((side, side)), side, 100.0
    while step > 1:
        half = step // 2
        wild = lambda n, reach=wibble**2: rng.uniform(-reach, reach, (n, n))
        corner = cloud[::step, ::step]
        n = len(corner)
        right, lower = np.roll(corner, -1, 1), np.roll(corner, -1, 0)
        centre = (corner + right + lower + np.roll(lower, -1, 1)) / 4 + wild(n)
        over, before = np.roll(centre, 1, 0), np.roll(centre, 1, 1)
        cloud[half::step, half::step] = centre
        cloud[::step, half::step] = (corner + right + centre + over) / 4 + wild(n)
        cloud[half::step, ::step] = (corner + lower + centre + before) / 4 + wild(n)
        step, wibble = half, wibble / decay
    cloud = (cloud - cloud.min()) / (cloud.max() - cloud.min())
    cloud = cloud[:height, :width]
    pixels = image / 255
    top = pixels.max()
    return (pixels + bright * cloud[..., None]) * top / (top + bright)


def _spatter(rng, image, c):
    mean, deviation, sigma, threshold, last, mud = c
    liquid = _smooth(rng.normal(mean, deviation, image.shape[:2]), sigma)
    liquid[liquid < threshold] = 0
    pixels = image / 255
    if mud:
        share = _smooth((liquid > threshold).astype(np.float64), last)
        share[share < 0.8] = 0
        share = share[..., None]
        return pixels * (1 - share) + np.array([63, 42, 20]) / 255 * share
    return pixels + last * lights(liquid)[..., None] * np.array([175, 238, 238]) / 255


def lights(liquid):
    """Lights on the water, [32, 32] in [0, 1], by OpenCV."""
    whole = (liquid * 255).astype(np.int64).astype(np.uint8)
    far = cv2.distanceTransform(255 - cv2.Canny(whole, 50, 150), cv2.DIST_L2, 5)
    far = cv2.blur(np.minimum(far, 20), (3, 3)).astype(np.uint8)
    emboss = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    far = cv2.filter2D(cv2.equalizeHist(far), cv2.CV_8U, emboss)
    light = whole * cv2.blur(far, (3, 3)).astype(np.float64)
    return light / max(light.max(), 1e-9)


def _contrast(rng, image, c):
    pixels = image / 255
    mean = pixels.mean((0, 1), keepdims=True)
    return (pixels - mean) * c + mean


def _hsv(image):
    pixels = (image / 255).astype(np.float32)
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)


def _brightness(rng, image, c):
    hsv = _hsv(image)
    hsv[..., 2] = np.clip(hsv[..., 2] + c, 0, 1)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).astype(np.float64) + 1e-6


def _saturate(rng, image, c):
    hsv = _hsv(image)
    hsv[..., 1] = np.clip(hsv[..., 1] * c[0] + c[1], 0, 1)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).astype(np.float64) + 1e-6


def _jpeg_compression(rng, image, quality):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def _pixelate(rng, image, c):
    height, width, _ = image.shape
    box = Image.Resampling.BOX
    small = Image.fromarray(image).resize((int(width * c), int(height * c)), box)
    return np.asarray(small.resize((width, height), box))


def _elastic_transform(rng, image, c):
    farthest, sigma, shift = c
    height, width, _ = image.shape
    middle = np.float32([width // 2, height // 2])
    old = np.float32([[10, 10], [10, -10], [-10, -10]]) + middle
    new = old + rng.uniform(-shift, shift, (3, 2)).astype(np.float32)
    pixels = (image / 255).astype(np.float32)
    pixels = cv2.warpAffine(
        pixels,
        cv2.getAffineTransform(old, new),
        (width, height),
        borderMode=cv2.BORDER_REFLECT_101,
    )
    move = rng.uniform(-1, 1, (2, height, width))
    move = farthest * np.stack(
        [
            scipy.ndimage.gaussian_filter(m, sigma, mode="reflect", truncate=3)
            for m in move
        ]
    )
    places = np.mgrid[:height, :width] + move
    return np.stack(
        [
            scipy.ndimage.map_coordinates(
                pixels[..., k], places, order=1, mode="reflect"
            )
            for k in range(3)
        ],
        axis=-1,
    )
