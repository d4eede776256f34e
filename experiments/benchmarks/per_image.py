"""The methods' augmentations of one image, by Pillow, NumPy and SciPy.

A function is called as the method that it computes, and takes a generator, the image
and another one, uint8 [H, W, 3]. It returns uint8, or floats that count up to 255.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import scipy.ndimage

from apr_jax.augment.autoaugment import POLICIES
from apr_jax.augment.ops import OP_SETS
from tests import oracle

Rng = np.random.Generator
Floats = np.ndarray


def box(rng: Rng, image: Floats, height: int, width: int) -> tuple[slice, slice]:
    """A rectangle around a random pixel, cut by the border."""
    places = []
    for side, length in zip(image.shape, (height, width), strict=False):
        centre = int(rng.integers(side))
        low = max(0, centre - length // 2)
        places.append(slice(low, max(0, min(side, centre + length // 2))))
    return places[0], places[1]


def cutout(rng: Rng, image: Floats, other: Floats) -> Floats:
    """Half the side."""
    image = image.copy()
    image[box(rng, image, len(image) // 2, len(image) // 2)] = 0
    return image


def patch_gaussian(rng: Rng, image: Floats, other: Floats) -> Floats:
    """Three quarters of the side."""
    size = len(image) * 3 // 4
    noisy = image / 255
    place = box(rng, image, size, size)
    noisy[place] += rng.uniform(0, 0.1) * rng.normal(size=noisy[place].shape)
    return noisy * 255


def mixup(rng: Rng, image: Floats, other: Floats) -> Floats:
    """Uniform weights."""
    weight = rng.beta(1, 1)
    return weight * image + (1 - weight) * other


def cutmix(rng: Rng, image: Floats, other: Floats) -> Floats:
    """Uniform areas."""
    side = int(len(image) * np.sqrt(rng.uniform()))
    place = box(rng, image, side, side)
    mixed = image.copy()
    mixed[place] = other[place]
    return mixed


def drawn_operation(image: np.ndarray, draw: Sequence[float]) -> np.ndarray:
    """One of AugMix's nine at a level of up to 3, from three uniform draws."""
    name, level = OP_SETS["base"][int(draw[0] * 9)], 0.1 + 2.9 * draw[1]
    return oracle.pillow_op(image, name, level, negate=draw[2] < 0.5)


def one_or_two(
    image: np.ndarray, draw: Sequence[float], join: Callable[[Floats, Floats], Floats]
) -> Floats:
    """One changed version of an image, or two joined, from eight uniform draws."""
    once = drawn_operation(image, draw[0:3])
    if draw[6] >= 0.5:
        return once
    twice = drawn_operation(once, draw[3:6])
    return join(twice, once) if draw[7] < 0.5 else join(once, twice)


def as_uint8(levels: Floats) -> np.ndarray:
    """The nearest grey levels."""
    if levels.dtype == np.uint8:
        return levels
    return np.clip(np.round(levels), 0, 255).astype(np.uint8)


def augmix(rng: Rng, image: Floats, other: Floats) -> Floats:
    """Three chains of AugMix's operations."""
    return chains(rng, image, lambda r, x: drawn_operation(x, r.uniform(size=3)))


def chains(rng: Rng, image: Floats, step: Callable[[Rng, Floats], Floats]) -> Floats:
    """Three chains of one to three steps, mixed and blended with the image."""
    mix = np.zeros(image.shape)
    for weight in rng.dirichlet((1, 1, 1)):
        view = image
        for _ in range(rng.integers(1, 4)):
            view = step(rng, view)
        mix += weight * view
    blend = rng.beta(1, 1)
    return (1 - blend) * image + blend * mix


def autoaugment(rng: Rng, image: Floats, other: Floats) -> Floats:
    """CIFAR's policy for small images, ImageNet's for large ones."""
    policy = POLICIES["cifar10" if len(image) == 32 else "imagenet"]
    for name, prob, magnitude in policy[rng.integers(len(policy))]:
        if rng.uniform() < prob:
            image = oracle.pillow_op(image, name, magnitude, rng.uniform() < 0.5)
    return image


def random_autoaugment(rng: Rng, image: Floats, other: Floats) -> Floats:
    """Two of nine operations, any probability and magnitude."""
    for _ in range(2):
        if rng.uniform() * 10 < rng.integers(11):
            name = str(rng.choice(OP_SETS["base"]))
            level = float(rng.integers(10))
            image = oracle.pillow_op(image, name, level, rng.uniform() < 0.5)
    return image


def low_part(image: Floats) -> Floats:
    """A blur of three pixels."""
    return scipy.ndimage.gaussian_filter(
        image.astype(np.float64), 0.5, mode="mirror", radius=1, axes=(0, 1)
    )


def hybrid_augment(rng: Rng, image: Floats, other: Floats) -> Floats:
    """Own low part, the other's high one."""
    return low_part(image) + other - low_part(other)


def hybrid_augment_pp(rng: Rng, image: Floats, other: Floats) -> Floats:
    """With APR-P in the low part."""
    blurred = low_part(other)
    return oracle.recombine(blurred, low_part(image)) + other - blurred


def hybrid_augment_single(rng: Rng, image: Floats, other: Floats) -> Floats:
    """Two versions of one image."""
    mix = functools.partial(hybrid_augment, rng)
    return one_or_two(image, rng.uniform(size=8), mix)


def amplitude_mix(rng: Rng, image: Floats, other: Floats) -> Floats:
    """Over each channel."""
    own, donor = (np.fft.fft2(x, axes=(0, 1)) for x in (image, other))
    weight = rng.uniform()
    size = (1 - weight) * np.abs(own) + weight * np.abs(donor)
    return np.fft.ifft2(size * np.exp(1j * np.angle(own)), axes=(0, 1)).real


def low_amplitude_swap(rng: Rng, image: Floats, other: Floats) -> Floats:
    """A square of 0.09."""
    own, donor = (np.fft.fft2(x, axes=(0, 1)) for x in (image, other))
    size, swapped = (np.fft.fftshift(np.abs(x), axes=(0, 1)) for x in (own, donor))
    reach, middle = int(0.09 * len(image)), len(image) // 2
    here = slice(middle - reach, middle + reach + 1)
    size[here, here] = swapped[here, here]
    size = np.fft.ifftshift(size, axes=(0, 1))
    return np.fft.ifft2(size * np.exp(1j * np.angle(own)), axes=(0, 1)).real


def fourier_basis_noise(rng: Rng, image: Floats, other: Floats) -> Floats:
    """A plane wave in each channel."""
    side = len(image)
    place = np.linspace(-side / 2, side / 2, side)
    noisy = image / 255
    for channel in range(3):
        f = rng.integers(1, side + 1) / side
        angle = -np.pi * rng.integers(64) / 63
        along = place[:, None] * np.cos(angle) + place[None] * np.sin(angle)
        wave = np.sin(2 * np.pi * f * along - np.pi / 4)
        wave *= rng.exponential(5) * side / 32 / np.linalg.norm(wave)
        noisy[..., channel] += wave
    return noisy * 255


def vital_phase(rng: Rng, image: Floats, other: Floats) -> Floats:
    """Phase noise by blocks of two frequencies."""
    spectrum = np.fft.fftn(image)
    size, half = np.abs(spectrum), len(image) // 2
    blocks = size.reshape(half, 2, half, 2, 3)
    vital = (blocks == blocks.max((1, 3), keepdims=True)).reshape(size.shape)
    deviation = np.sqrt(np.where(vital, 0.001, 0.014))
    angle = np.angle(spectrum) + deviation * rng.normal(size=size.shape)
    return np.fft.ifftn(size * np.exp(1j * angle)).real


@functools.cache
def modes(side: int, cut: int) -> tuple[Floats, Floats]:
    """The deformations' modes, and their distances from zero."""
    index = np.arange(1, cut + 1)
    waves = np.sin(np.pi * np.outer(np.linspace(0, 1, side), index))
    return waves, np.hypot(index[:, None], index[None])


def primitive(rng: Rng, image: Floats) -> Floats:
    """One of PRIME's three, in [0, 1]."""
    side, small = len(image), len(image) == 32
    largest = 100 if small else 500
    kind = rng.integers(3)
    if kind == 0:
        limit = rng.integers(3, largest + 1)
        cut = int(rng.beta(0.5, 0.5) * (limit - 1)) + 2
        waves, distance = modes(side, cut)
        low = 1 / (np.pi * side**2 * np.log(cut))
        high = max(low, 4 / (np.pi**3 * cut**2 * np.log(cut)))
        scale = np.sqrt(low + rng.beta(0.5, 0.5) * (high - low)) * side
        grid = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
        at = []
        for axis in grid:
            weights = rng.normal(size=(cut, cut)) * (distance < cut + 0.5) / distance
            at.append(np.clip(axis - scale * waves @ weights @ waves.T, 0, side - 1))
        planes = [
            scipy.ndimage.map_coordinates(image[..., c], at, order=1) for c in range(3)
        ]
        return np.stack(planes, axis=-1)
    if kind == 1:
        last = rng.integers(1, largest + 1)
        first = 1 if small else rng.integers(1, last + 1)
        index = np.arange(first, last + 1 if small else min(first + 20, last + 1))
        deviation = np.sqrt(rng.uniform(0, 0.01 if small else 0.05))
        curved = image.copy()
        for k in index:
            curved += deviation * rng.normal(size=3) * np.sin(np.pi * k * image)
        return np.clip(curved, 0, 1)
    kernel = rng.uniform(0, 4) * rng.normal(size=(3, 3))
    kernel[1, 1] += 1
    filtered = scipy.ndimage.correlate(image, kernel[..., None], mode="constant")
    return np.clip(filtered, 0, 1)


def prime(rng: Rng, image: Floats, other: Floats) -> Floats:
    """Three chains of PRIME's primitives."""
    return 255 * chains(rng, image / 255, primitive)
