"""The strengths of the corruptions: five severities, for 32, 64, 224 and 299 pixels.

The values are those of CIFAR-10-C, Tiny ImageNet-C and ImageNet-C in its two sizes
(Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions
and Perturbations", ICLR 2019, and its generators). They were tuned by eye for each size
and follow no law, so between two sizes every value is interpolated linearly; below 32
pixels those of 32 hold, above 299 those of 299. Of images that are not square the
shorter side counts. Lengths are in pixels, noise and shades in units where white is 1.
"""

import functools
from collections.abc import Callable

import jax
import numpy as np
import numpy.typing as npt

from apr_jax.config import C_BAR, CORRUPTIONS, EXTRA_CORRUPTIONS

CIFAR_SIZE = 32
# The published sets, by the side of their images in pixels.
PUBLISHED = {
    CIFAR_SIZE: "CIFAR-10-C",
    64: "Tiny ImageNet-C",
    224: "ImageNet-C",
    299: "ImageNet-C, Inception",
}

# The values of a corruption by name: on the host, and as its program takes them.
Arrays = dict[str, npt.NDArray | np.generic]
Values = dict[str, jax.Array]

# Height and width of images, in pixels.
Shape = tuple[int, int]
Row = tuple[float, ...]
Rows = tuple[Row, Row, Row, Row, Row]


def _singles(*values: float) -> Rows:
    """Five severities of a single value."""
    one, two, three, four, five = ((value,) for value in values)
    return one, two, three, four, five


# Severities 1 to 5 at 32 pixels.
_CIFAR: dict[str, Rows] = {
    # Standard deviation.
    "gaussian_noise": _singles(0.04, 0.06, 0.08, 0.09, 0.10),
    # Photons that make white.
    "shot_noise": _singles(500, 250, 100, 75, 50),
    # Share of values replaced.
    "impulse_noise": _singles(0.01, 0.02, 0.03, 0.05, 0.07),
    # Radius of the disk, and of the blur of its edge.
    "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    # Blur before and after, farthest displacement, rounds.
    "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    # Radius of the kernel, its standard deviation.
    "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    # Factors go from 1 to the first number in steps of the second.
    "zoom_blur": ((1.06, 0.01), (1.11, 0.01), (1.15, 0.01), (1.2, 0.01), (1.25, 0.01)),
    # Flakes: mean, deviation, zoom, threshold; motion: radius, deviation; share of
    # the image that stays as it is.
    "snow": (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    # Weights of image and photograph.
    "frost": ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    # Brightness of the fog, and how fast its finer parts fade.
    "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    # Added to the value of HSV.
    "brightness": _singles(0.05, 0.1, 0.15, 0.2, 0.3),
    # Factor about the mean.
    "contrast": _singles(0.75, 0.5, 0.4, 0.3, 0.15),
    # Largest displacement, its blur, shift of the three points of the affine map.
    "elastic_transform": (
        (0, 0, 2.56),
        (1.6, 6.4, 2.24),
        (2.56, 1.92, 1.92),
        (3.2, 1.28, 1.6),
        (3.2, 0.96, 0.96),
    ),
    # Side of the small image, as a share.
    "pixelate": _singles(0.95, 0.9, 0.85, 0.75, 0.65),
    # Quality.
    "jpeg_compression": _singles(80, 65, 58, 50, 40),
    # Standard deviation, of a factor.
    "speckle_noise": _singles(0.06, 0.1, 0.12, 0.16, 0.2),
    # Standard deviation in pixels.
    "gaussian_blur": _singles(0.4, 0.6, 0.7, 0.8, 1),
    # Liquid: mean, deviation, blur, threshold; strength of the water, or blur of the
    # mud; whether it is mud.
    "spatter": (
        (0.62, 0.1, 0.7, 0.7, 0.5, 0),
        (0.65, 0.1, 0.8, 0.7, 0.5, 0),
        (0.65, 0.3, 1, 0.69, 0.5, 0),
        (0.65, 0.1, 0.7, 0.69, 0.6, 1),
        (0.65, 0.1, 0.5, 0.68, 0.6, 1),
    ),
    # Factor of the saturation of HSV, and what is added.
    "saturate": ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
}
# The same at 224 pixels.
_IMAGENET: dict[str, Rows] = {
    "gaussian_noise": _singles(0.08, 0.12, 0.18, 0.26, 0.38),
    "shot_noise": _singles(60, 25, 12, 5, 3),
    "impulse_noise": _singles(0.03, 0.06, 0.09, 0.17, 0.27),
    "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    "zoom_blur": ((1.11, 0.01), (1.15, 0.01), (1.2, 0.02), (1.24, 0.02), (1.3, 0.03)),
    "snow": (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    "frost": ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    "brightness": _singles(0.1, 0.2, 0.3, 0.4, 0.5),
    "contrast": _singles(0.4, 0.3, 0.2, 0.1, 0.05),
    # The generator has 244 for 224; the published files were made so.
    "elastic_transform": (
        (488, 170.8, 24.4),
        (488, 19.52, 48.8),
        (12.2, 2.44, 4.88),
        (17.08, 2.44, 4.88),
        (29.28, 2.44, 4.88),
    ),
    "pixelate": _singles(0.6, 0.5, 0.4, 0.3, 0.25),
    "jpeg_compression": _singles(25, 18, 15, 10, 7),
    "speckle_noise": _singles(0.15, 0.2, 0.35, 0.45, 0.6),
    "gaussian_blur": _singles(1, 2, 3, 4, 6),
    "spatter": (
        (0.65, 0.3, 4, 0.69, 0.6, 0),
        (0.65, 0.3, 3, 0.68, 0.6, 0),
        (0.65, 0.3, 2, 0.68, 0.5, 0),
        (0.65, 0.3, 1, 0.65, 1.5, 1),
        (0.67, 0.4, 1, 0.65, 1.5, 1),
    ),
    "saturate": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
}
# The same at 64 pixels.
_TINY: dict[str, Rows] = {
    "gaussian_noise": _singles(0.04, 0.08, 0.12, 0.15, 0.18),
    "shot_noise": _singles(250, 100, 50, 30, 15),
    "impulse_noise": _singles(0.01, 0.02, 0.05, 0.08, 0.14),
    "defocus_blur": ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
    "glass_blur": ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
    "motion_blur": ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
    "zoom_blur": _CIFAR["zoom_blur"],
    "snow": (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.8),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.8),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6),
    ),
    "frost": ((1, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)),
    "fog": ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
    "brightness": _IMAGENET["brightness"],
    "contrast": _IMAGENET["contrast"],
    "elastic_transform": (
        (0, 0, 5.12),
        (3.2, 19.2, 3.84),
        (6.4, 5.12, 3.84),
        (6.4, 1.92, 1.92),
        (10.24, 1.92, 1.28),
    ),
    "pixelate": _singles(0.9, 0.8, 0.7, 0.6, 0.5),
    "jpeg_compression": _singles(65, 58, 50, 40, 25),
    "speckle_noise": _singles(0.15, 0.2, 0.25, 0.3, 0.35),
    "gaussian_blur": _singles(0.5, 0.75, 1, 1.25, 1.5),
    "spatter": (
        (0.62, 0.1, 0.7, 0.7, 0.6, 0),
        (0.65, 0.1, 0.8, 0.7, 0.6, 0),
        (0.65, 0.3, 1, 0.69, 0.6, 0),
        (0.65, 0.1, 0.7, 0.68, 0.6, 1),
        (0.65, 0.1, 0.5, 0.67, 0.6, 1),
    ),
    "saturate": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (30, 0.2)),
}
# The same at 299 pixels, where they are not those of 224.
_INCEPTION: dict[str, Rows] = _IMAGENET | {
    "gaussian_noise": _singles(0.09, 0.13, 0.19, 0.27, 0.4),
    "shot_noise": _singles(50, 20, 10, 5, 3),
    "impulse_noise": _singles(0.04, 0.07, 0.1, 0.18, 0.28),
    "defocus_blur": ((4, 0.1), (5, 0.5), (7, 0.5), (10, 0.5), (12, 0.5)),
    "glass_blur": ((0.8, 1, 3), (1, 3, 1), (1.1, 2, 4), (1.2, 4, 2), (1.6, 5, 2)),
    "motion_blur": ((12, 4), (17, 6), (17, 9), (17, 13), (22, 16)),
    "fog": ((1.5, 2), (2, 2), (2.5, 1.8), (2.5, 1.6), (3, 1.5)),
    "elastic_transform": (
        (720, 252, 36),
        (720, 28.8, 72),
        (18, 3.6, 7.2),
        (25.2, 3.6, 7.2),
        (43.2, 3.6, 7.2),
    ),
    "pixelate": _singles(0.5, 0.4, 0.3, 0.25, 0.2),
    "jpeg_compression": _singles(23, 16, 13, 8, 5),
    "speckle_noise": _singles(0.16, 0.21, 0.36, 0.46, 0.61),
    "gaussian_blur": _singles(1.5, 2.5, 3.5, 4.5, 6.5),
    "spatter": (
        (0.65, 0.3, 4, 0.69, 0.9, 0),
        (0.65, 0.3, 3.5, 0.68, 0.9, 0),
        (0.65, 0.3, 3, 0.68, 0.8, 0),
        (0.65, 0.3, 1.2, 0.65, 1.8, 1),
        (0.67, 0.4, 1.2, 0.65, 1.8, 1),
    ),
}
# Name -> the severities at each of the sizes.
TABLE = {
    name: dict(
        zip(
            PUBLISHED,
            (_CIFAR[name], _TINY[name], _IMAGENET[name], _INCEPTION[name]),
            strict=True,
        )
    )
    for name in _CIFAR
}
SEVERITIES = (1, 2, 3, 4, 5)
# The levels of CIFAR-10-C-bar and ImageNet-C-bar, which their published code turns into
# lengths and shades (Mintun et al., "On Interaction Between Augmentations and
# Corruptions in Natural Corruption Robustness", NeurIPS 2021). What one of the sets
# lacks has the other's at every size.
_C_BAR_LEVELS: dict[str, dict[int, Rows]] = {
    "blue_noise_sample": {
        CIFAR_SIZE: _singles(0.7, 1.4, 2.1, 3.5, 4.2),
        224: _singles(0.8, 1.6, 2.4, 4, 5.6),
    },
    "brownish_noise": {
        CIFAR_SIZE: _singles(2.5, 4, 5.5, 6.5, 7),
        224: _singles(1, 2, 3, 4, 5),
    },
    "checkerboard_cutout": {
        CIFAR_SIZE: _singles(1, 2, 3, 4, 5),
        224: _singles(2, 3, 4, 5, 6),
    },
    "inverse_sparkles": {
        CIFAR_SIZE: _singles(1, 1.5, 2.5, 4.5, 5),
        224: _singles(1, 2, 4, 9, 10),
    },
    "sparkles": {
        CIFAR_SIZE: _singles(0.7, 3.5, 5.6, 6.3, 7),
        224: _singles(1, 2, 3, 5, 6),
    },
    "pinch_and_twirl": {CIFAR_SIZE: _singles(5.5, 6, 6.5, 8.5, 10)},
    "ripple": {CIFAR_SIZE: _singles(5.5, 6, 6.5, 7.5, 8)},
    "circular_motion_blur": {CIFAR_SIZE: _singles(2.8, 3.6, 4.4, 5.2, 6)},
    "lines": {CIFAR_SIZE: _singles(0.5, 1, 1.5, 2, 2.5)},
    "transverse_chromatic_abberation": {CIFAR_SIZE: _singles(1, 2, 5, 9, 10)},
    "plasma_noise": {224: _singles(4.75, 7, 8.5, 9.25, 10)},
    "cocentric_sine_waves": {224: _singles(3, 5, 8, 9, 10)},
    "single_frequency_greyscale": {224: _singles(1, 1.5, 2, 4.5, 5)},
    "caustic_refraction": {224: _singles(2.35, 3.2, 4.9, 6.6, 9.15)},
    "perlin_noise": {224: _singles(4.6, 5.2, 5.8, 7.6, 8.8)},
}


def between(values: dict[int, Row], shape: Shape) -> Row:
    """Values known for some sizes, interpolated linearly for that of a shape.

    Args:
        values: by side in pixels, increasing.
        shape: height and width; the shorter side counts.
    """
    sides, side = list(values), min(shape)
    side = min(max(side, sides[0]), sides[-1])
    if side in values:
        return values[side]
    above = next(i for i, known in enumerate(sides) if known > side)
    low, high = sides[above - 1], sides[above]
    share = (side - low) / (high - low)
    pairs = zip(values[low], values[high], strict=True)
    return tuple((1 - share) * a + share * b for a, b in pairs)


def published(shape: Shape) -> str:
    """The set whose strengths images of a shape have, or "interpolated".

    Sizes beyond the smallest and the largest have those of the nearest set.
    """
    sides = list(PUBLISHED)
    side = min(max(min(shape), sides[0]), sides[-1])
    return PUBLISHED.get(side, "interpolated")


@functools.cache
def strength(name: str, shape: Shape, severity: int) -> Row:
    """The values of a corruption for images of a shape.

    Args:
        name: of the corruption.
        shape: height and width in pixels.
        severity: 1 to 5.

    Raises:
        ValueError: an unknown name or severity; the message lists the choices.
    """
    check(name, severity)
    known = TABLE.get(name) or _C_BAR_LEVELS[name]
    rows = {side: rows[severity - 1] for side, rows in known.items()}
    return between(rows, shape)


def scaled(**factors: float) -> Callable[[str, Shape, int], Arrays]:
    """A function that gives multiples of C-bar's level under these names, float32."""

    def values(name: str, shape: Shape, severity: int) -> Arrays:
        (level,) = strength(name, shape, severity)
        return {part: np.float32(level * factor) for part, factor in factors.items()}

    return values


def named(*parts: str) -> Callable[[str, Shape, int], Arrays]:
    """A function that gives a corruption's values under these names, float32."""

    def values(name: str, shape: Shape, severity: int) -> Arrays:
        numbers = strength(name, shape, severity)
        return {p: np.float32(n) for p, n in zip(parts, numbers, strict=True)}

    return values


def check(name: str, severity: int) -> None:
    """Raises ValueError, listing the choices, for an unknown name or severity."""
    if name not in TABLE and name not in _C_BAR_LEVELS:
        raise ValueError(
            f"unknown corruption {name!r}; choose from "
            f"{', '.join(CORRUPTIONS + EXTRA_CORRUPTIONS + C_BAR)}"
        )
    if severity not in SEVERITIES:
        raise ValueError(f"severity is {severity!r}; choose from {SEVERITIES}")
