"""Folders for a card: perturbed sequences and cue conflicts, made of some images.

    python -m experiments.checks.card_data IMAGES.npz OUT --sequences 20 --conflicts 200

``IMAGES.npz`` has ``images``, uint8 [N, S, S, 3], ``labels`` and, but for ImageNet's
1,000 classes, ``class_names``. ``OUT/perturbations/NAME.npy`` are the ten perturbations
of CIFAR-10-P (up to 64 pixels) or of ImageNet-P with the strengths of the authors' code
(Hendrycks & Dietterich 2019), drawn anew, and moved within the image where theirs, of
ImageNet, has something beyond its edge. ``OUT/cue_conflict`` has images with the phase
of one and the amplitude of another, called as those of Geirhos et al. (2019): what they
show is shape against texture only as far as these are phase and amplitude. They stand
for the published sets where those can't be had, so that every measurement is run; their
numbers are no one else's.
"""

import argparse
import pathlib
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image
from scipy import ndimage

import apr_jax
from apr_jax.evaluate import cue_conflict, perturbations
from apr_jax.gates import places

_SMALL = 64  # pixels, up to which CIFAR-10-P's strengths are taken
Make = Callable[[np.ndarray, np.random.Generator], list[np.ndarray]]


def sequences(size: int) -> dict[str, Make]:
    """Functions of an image in [0, 1] to its frames, by the perturbation's name."""
    small = size <= _SMALL
    shifts = range(-7, 9) if small else range(-20, 21)
    scales = [70 + 2 * i if small else 40 + 2.5 * i for i in range(31)]
    tilt = 0.75 if small else 1.0
    made: dict[str, Make] = {
        "gaussian_noise": lambda x, rng: [
            x,
            *(x + rng.normal(0, 0.02 if small else 0.03, x.shape) for _ in range(30)),
        ],
        "shot_noise": lambda x, rng: [
            x,
            *(rng.poisson(x * rate) / rate for rate in [700 if small else 300] * 30),
        ],
        "motion_blur": lambda x, rng: [
            streaked(x, 6, 1.8, 9.0 * (i - 20))
            if small
            else streaked(x, 10, 3, 4.0 * (i - 30))
            for i in range(21 if small else 31)
        ],
        "zoom_blur": lambda x, rng: zoomed(x),
        "brightness": lambda x, rng: [
            brighter(x, (i - 15) * (0.015 if small else 0.02)) for i in range(31)
        ],
        "translate": lambda x, rng: [moved(x, shift=s) for s in shifts],
        "rotate": lambda x, rng: [moved(x, angle=i - 15) for i in range(31)],
        "tilt": lambda x, rng: [tilted(x, tilt * (i - 15)) for i in range(31)],
        "scale": lambda x, rng: [moved(x, scale=s / 100) for s in scales],
    }
    return {**made, **({"spatter": spattered} if small else {"snow": snowed})}


def moved(
    image: np.ndarray, *, angle: float = 0, scale: float = 1, shift: float = 0
) -> np.ndarray:
    """An image turned by degrees, scaled, and moved right by pixels; black outside."""
    side = len(image)
    matrix = cv2.getRotationMatrix2D(((side - 1) / 2,) * 2, angle, scale)
    matrix[0, 2] += shift
    return cv2.warpAffine(image, matrix, (side, side))


def tilted(image: np.ndarray, degrees: float) -> np.ndarray:
    """An image turned in space about both of its axes, seen from its diagonal away."""
    side, angle = len(image), np.deg2rad(degrees)
    cos, sin, far = np.cos(angle), np.sin(angle), np.sqrt(2) * side
    about_x = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    about_y = np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
    plane = np.array([[1, 0, -side / 2], [0, 1, -side / 2], [0, 0, 0]])
    seen = about_x @ about_y @ plane
    seen[2, 2] += far
    camera = np.array([[far, 0, side / 2], [0, far, side / 2], [0, 0, 1]])
    return cv2.warpPerspective(image, camera @ seen, (side, side))


def zoomed(image: np.ndarray) -> list[np.ndarray]:
    """Means over more and more scales."""
    total, frames = image.copy(), [image]
    for i in range(1, 31):
        total += moved(image, scale=1 + 0.004 * i)
        frames.append(total / (i + 1))
    return frames


def brighter(image: np.ndarray, more: float) -> np.ndarray:
    """An image with more value, of hue, saturation and value."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hsv[..., 2] = np.clip(hsv[..., 2] + more, 0, 1)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def streaked(image: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    """An image smeared to one side, with the weights of half a Gaussian."""
    weights = np.exp(-0.5 * np.square(np.arange(2 * radius + 1) / sigma))
    total = np.zeros_like(image)
    for distance, weight in enumerate(weights / weights.sum()):
        right = distance * np.cos(np.deg2rad(angle))
        down = distance * np.sin(np.deg2rad(angle))
        matrix = np.array([[1, 0, np.rint(right)], [0, 1, np.rint(down)]])
        side = image.shape[:2][::-1]
        total += np.float32(weight) * cv2.warpAffine(
            image, matrix, side, borderMode=cv2.BORDER_REPLICATE
        )
    return total


def snowed(image: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Snow whose streaks turn, over an image that is paler."""
    side = len(image)
    flakes = rng.normal(0.05, 0.3, (side, side))
    inner = -(-side // 3)
    low = (side - inner) // 2
    flakes = ndimage.zoom(flakes[low : low + inner, low : low + inner], 3, order=1)
    flakes = np.where(flakes < 0.5, 0, flakes)[:side, :side].clip(0, 1)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    pale = 0.85 * image + 0.15 * np.maximum(image, 1.5 * grey + 0.5)
    frames = []
    for i in range(31):
        layer = streaked(np.float32(flakes), 14, 4, 4.0 * i - 150)[..., None]
        frames.append(pale + layer + np.rot90(layer, 2))
    return frames


def spattered(image: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Drops of water that run down."""
    liquid = ndimage.gaussian_filter(rng.normal(0.6, 0.265, image.shape[:2]), 1.75)
    liquid = np.where(liquid < 0.7, 0, liquid)
    water = np.array([175, 238, 238], np.float32) / 255
    frames = []
    for _ in range(31):
        levels = (255 * liquid).astype(np.uint8)
        far = cv2.distanceTransform(255 - cv2.Canny(levels, 50, 150), cv2.DIST_L2, 5)
        near = cv2.blur(np.minimum(far, 20), (3, 3)).astype(np.uint8)
        kernel = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
        edges = cv2.filter2D(cv2.equalizeHist(near), cv2.CV_8U, kernel)
        drops = levels * cv2.blur(edges, (3, 3)).astype(np.float32)
        drops *= 0.6 / max(drops.max(), 1e-6)
        frames.append(image + drops[..., None] * water)
        fallen = np.vstack([np.zeros_like(liquid[:1]), liquid[:-1]])
        liquid = 0.2 * liquid + 0.8 * fallen
    return frames


def write_sequences(images: np.ndarray, folder: pathlib.Path) -> None:
    """Writes ``NAME.npy``, uint8 [N, frames, S, S, 3], of every perturbation."""
    folder.mkdir(parents=True, exist_ok=True)
    floats = images.astype(np.float32) / 255
    for name, make in sequences(images.shape[1]).items():
        assert name in perturbations.NAMES
        rng = np.random.default_rng(0)
        frames = np.stack([np.stack(make(image, rng)) for image in floats])
        levels = 255 * np.clip(frames, 0, 1)
        np.save(folder / f"{name}.npy", levels.astype(np.uint8))


def write_conflicts(
    images: np.ndarray,
    labels: np.ndarray,
    classes: list[str],
    folder: pathlib.Path,
    count: int,
) -> None:
    """Writes images with the phase of one category and the amplitude of another."""
    categories = {
        i: name
        for name, own in zip(
            cue_conflict.CATEGORIES, cue_conflict.classes_of(classes), strict=True
        )
        for i in own
    }
    mine = [i for i, label in enumerate(labels) if int(label) in categories]
    rng, written = np.random.default_rng(0), set()
    most = len(mine) * (len(mine) - 1)
    while len(written) < min(count, most // 2):
        one, other = rng.choice(mine, 2, replace=False)
        shape, texture = (categories[int(labels[i])] for i in (one, other))
        if shape == texture or (one, other) in written:
            continue
        written.add((one, other))
        pair = [np.float32(images[i]) / 255 for i in (other, one)]
        mixed = np.clip(np.asarray(apr_jax.recombine(*pair)), 0, 1)
        place = folder / shape
        place.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(np.rint(255 * mixed).astype(np.uint8))
        picture.save(place / f"{shape}{one}-{texture}{other}.png")


def main() -> None:
    """Makes what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("images", type=places.argument)
    parser.add_argument("out", type=places.argument)
    parser.add_argument("--sequences", type=int, default=20)
    parser.add_argument("--conflicts", type=int, default=200)
    asked = parser.parse_args()
    with np.load(asked.images) as stored:
        images, labels = stored["images"], stored["labels"]
        names = stored["class_names"] if "class_names" in stored.files else range(1000)
        classes = [str(name) for name in names]
    write_sequences(images[: asked.sequences], asked.out / "perturbations")
    conflicts = asked.out / "cue_conflict"
    write_conflicts(images, labels, classes, conflicts, asked.conflicts)


if __name__ == "__main__":
    main()
