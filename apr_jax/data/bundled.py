"""A small set of real images that works offline: digits over crops of photographs.

Made of what scikit-learn ships: 1,797 handwritten digits (8x8, UCI) and two
photographs, 640x427. Each class of digits has its own kind of background: sky,
water, roof tiles, petals, ... In training, and in the split "test", the background
goes with the digit nine times out of ten; in the split "test_shifted" it
never does. So brightness and texture of the background, its amplitude spectrum, are a
shortcut that a network can take, and that misleads it when the images shift.

Training and test images share neither digits nor pixels of the photographs. An
image of "test_shifted" is the image of "test" of the same number, with another
background: the difference in error is due to the background alone.
"""

import dataclasses
import hashlib
from typing import Any

import numpy as np
from PIL import Image

from apr_jax.config import Data
from apr_jax.data.batches import ArraySplit
from apr_jax.data.cache import Entry
from apr_jax.errors import DataError

SIZE = 32
_VERSION = 1  # of the code below; another one makes other images
SPLITS = ("train", "test", "test_shifted")
CLASSES = tuple(str(digit) for digit in range(10))

# Edge of the squares that the areas of the photographs are cut into: room for a
# crop of 32 pixels at 81 places.
_TILE = 40

# Numbers of the random streams that a seed has.
_DIGITS, _LABELS, _KINDS, _LOOKS, _BACKGROUNDS = range(5)

_CHINA, _FLOWER = 0, 1  # places in scikit-learn's load_sample_images

# Background of each class: areas (photograph, left, top, columns, rows), in tiles.
_AREAS: dict[str, tuple[tuple[int, int, int, int, int], ...]] = {
    "sky": ((_CHINA, 360, 0, 7, 2),),
    "water": ((_CHINA, 350, 240, 5, 1),),
    "bush": ((_CHINA, 340, 307, 5, 3),),
    "leaves": ((_CHINA, 0, 347, 4, 2),),
    "fir": ((_CHINA, 560, 187, 2, 6),),
    "roof": ((_CHINA, 180, 240, 4, 1), (_CHINA, 200, 347, 3, 1)),
    "columns": ((_CHINA, 100, 185, 5, 1), (_CHINA, 105, 295, 5, 1)),
    "teal": ((_FLOWER, 0, 80, 3, 6),),
    "petals": ((_FLOWER, 180, 110, 6, 5),),
    "dark": ((_FLOWER, 440, 240, 4, 3),),
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The making of the set; a change makes another set."""

    seed: int = 0
    train: int = 9000  # images
    test: int = 2000  # images, of each of the two test splits
    # A share of the 1,797 digits; the others are for the test splits.
    train_digits: float = 0.7
    # Share of images whose background is of their class's kind. Lower, and a network
    # does well to leave the background alone; at 1 nothing would say that the digit
    # is what matters.
    shortcut: float = 0.9
    # Contrast of a background about its mean, of the photograph's. At 1 digits on
    # leaves or roof tiles are hard to read.
    texture: float = 0.7
    # Grey levels between a digit and the mean of what is under it, up or down. Easy
    # for a person; to a network that starts, the background is easier still.
    contrast: tuple[float, float] = (110.0, 170.0)
    tint: float = 25.0  # grey levels, up to, that each channel of the ink is off grey
    height: tuple[int, int] = (24, 30)  # pixels of the square that a digit fills


RECIPE = Recipe()


def fingerprint(data: Data, split: str) -> dict[str, Any]:
    """Returns what the contents of a split depend on, as JSON values.

    Raises:
        DataError: there is no such split, or ``data.image_size`` isn't 32.
    """
    if split not in SPLITS:
        choices = ", ".join(SPLITS)
        raise DataError(f"no split {split!r} in the bundled set; choose from {choices}")
    if data.image_size != SIZE:
        raise DataError(
            f"data.image_size is {data.image_size}; images of the bundled set have "
            f"{SIZE} pixels"
        )
    recipe = hashlib.sha256(repr((_VERSION, RECIPE, _AREAS)).encode()).hexdigest()
    return {"recipe": recipe}


def read(data: Data, split: str) -> Entry:
    """Makes a split; always the same one."""
    return Entry(compose(split, RECIPE), CLASSES)


def compose(split: str, recipe: Recipe) -> ArraySplit:
    """Makes the images of a split, with balanced classes in mixed order."""
    train = split == "train"
    labels, kinds = _kinds(split, recipe)
    size = len(labels)
    # The two test splits draw the same digits in the same places.
    rng = np.random.default_rng([recipe.seed, _LOOKS, int(train)])
    opacity = _opacities(rng, labels, _digits(train, recipe), recipe)
    contrast = rng.choice([-1.0, 1.0], size) * rng.uniform(*recipe.contrast, size)
    tint = rng.uniform(-recipe.tint, recipe.tint, (size, 3))

    rng = np.random.default_rng([recipe.seed, _BACKGROUNDS, SPLITS.index(split)])
    backgrounds = _crops(rng, kinds, _tiles(train)).astype(np.float32)
    mean = backgrounds.mean((1, 2), keepdims=True)
    backgrounds = mean + recipe.texture * (backgrounds - mean)
    backgrounds = _turn_hue(backgrounds, rng.uniform(0, 2 * np.pi, size))
    return ArraySplit(_blend(backgrounds, opacity, contrast, tint), labels)


def _kinds(split: str, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """Draws labels, int32 [N], and the kinds of the backgrounds, int64 [N]."""
    train = split == "train"
    size = recipe.train if train else recipe.test
    rng = np.random.default_rng([recipe.seed, _LABELS, int(train)])
    labels = rng.permutation(np.arange(size) % len(CLASSES)).astype(np.int32)
    rng = np.random.default_rng([recipe.seed, _KINDS, SPLITS.index(split)])
    share = 0.0 if split == "test_shifted" else recipe.shortcut
    others = (labels + rng.integers(1, len(CLASSES), size)) % len(CLASSES)
    return labels, np.where(rng.random(size) < share, labels, others)


def _digits(train: bool, recipe: Recipe) -> list[np.ndarray]:
    """Returns each class's digits of one side of the division, float [K, 8, 8]."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng([recipe.seed, _DIGITS]).permutation(len(found.target))
    cut = round(recipe.train_digits * len(order))
    chosen = order[:cut] if train else order[cut:]
    images, labels = found.images[chosen] / 16.0, found.target[chosen]
    return [images[labels == digit] for digit in range(len(CLASSES))]


def _opacities(
    rng: np.random.Generator,
    labels: np.ndarray,
    digits: list[np.ndarray],
    recipe: Recipe,
) -> np.ndarray:
    """Draws digits, their sizes and places; returns float32 [N, 32, 32] in [0, 1]."""
    low, high = recipe.height
    opacity = np.zeros((len(labels), SIZE, SIZE), np.float32)
    for canvas, label in zip(opacity, labels, strict=True):
        digit = digits[label][rng.integers(len(digits[label]))]
        height = int(rng.integers(low, high + 1))
        top, left = rng.integers(0, SIZE - height + 1, 2)
        enlarged = Image.fromarray(digit.astype(np.float32)).resize(
            (height, height), Image.Resampling.BICUBIC
        )
        canvas[top : top + height, left : left + height] = np.asarray(enlarged)
    return np.clip(opacity, 0, 1)


def _corners(train: bool) -> list[list[tuple[int, int, int]]]:
    """Returns each class's squares of photograph: (photograph, top, left).

    Every third square is for the test splits, so that both sides have all that an
    area shows.
    """
    corners = []
    for areas in _AREAS.values():
        squares = [
            (photo, top + _TILE * row, left + _TILE * column)
            for photo, left, top, columns, rows in areas
            for row in range(rows)
            for column in range(columns)
        ]
        corners.append([c for i, c in enumerate(squares) if (i % 3 == 1) != train])
    return corners


def _tiles(train: bool) -> list[np.ndarray]:
    """Returns each class's squares of photograph, uint8 [K, 40, 40, 3]."""
    from sklearn.datasets import load_sample_images

    photos = load_sample_images().images
    return [
        np.stack([photos[p][y : y + _TILE, x : x + _TILE] for p, y, x in corners])
        for corners in _corners(train)
    ]


def _crops(
    rng: np.random.Generator, kinds: np.ndarray, tiles: list[np.ndarray]
) -> np.ndarray:
    """Draws a crop of the given kind for each image, uint8 [N, 32, 32, 3]."""
    crops = np.empty((len(kinds), SIZE, SIZE, 3), np.uint8)
    for i, kind in enumerate(kinds):
        tile = tiles[kind][rng.integers(len(tiles[kind]))]
        top, left = rng.integers(0, _TILE - SIZE + 1, 2)
        crop = tile[top : top + SIZE, left : left + SIZE]
        crops[i] = crop[:, ::-1] if rng.random() < 0.5 else crop
    return crops


def _turn_hue(pixels: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Turns the colours of float [N, H, W, 3] about the grey axis by angles [N].

    So that no class has a hue of its own. A transform over the channels too, as the
    paper's code has it, keeps the hue in the phase, where amplitude-phase
    recombination leaves it; the shortcut here shall be in the amplitude.
    """
    cosine, sine = np.cos(angles), np.sin(angles)
    # Rodrigues' rotation about (1, 1, 1) / sqrt(3).
    own = (cosine + (1 - cosine) / 3)[:, None, None]
    before = ((1 - cosine) / 3 - sine / np.sqrt(3))[:, None, None]
    after = ((1 - cosine) / 3 + sine / np.sqrt(3))[:, None, None]
    red, green, blue = np.moveaxis(pixels, -1, 0)
    turned = np.stack(
        [
            own * red + before * green + after * blue,
            own * green + before * blue + after * red,
            own * blue + before * red + after * green,
        ],
        axis=-1,
    )
    return np.clip(turned, 0, 255)


def _blend(
    backgrounds: np.ndarray, opacity: np.ndarray, contrast: np.ndarray, tint: np.ndarray
) -> np.ndarray:
    """Paints digits onto backgrounds.

    Args:
        backgrounds: float [N, 32, 32, 3] in [0, 255].
        opacity: float [N, 32, 32] in [0, 1].
        contrast: float [N], grey levels that the ink is lighter than the mean of
            its background, or darker; turned round where there is no room.
        tint: float [N, 3], added to the ink's channels.

    Returns:
        uint8 [N, 32, 32, 3].
    """
    weight = opacity[..., None]
    under = (backgrounds * weight).sum((1, 2)) / weight.sum((1, 2))
    grey = under.mean(-1)
    outside = (grey + contrast < 0) | (grey + contrast > 255)
    contrast = np.where(outside, -contrast, contrast)
    ink = np.clip(under + contrast[:, None] + tint, 0, 255)[:, None, None]
    return np.rint(backgrounds + weight * (ink - backgrounds)).astype(np.uint8)
