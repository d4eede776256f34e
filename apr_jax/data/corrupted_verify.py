"""Corrupted sets from elsewhere beside those that are made here, set by set.

What is drawn at random can't agree pixel by pixel. So each set is compared by what it
does to the images, the mean and the spread of corrupted less clean levels, and by the
error of a network where there is one; what draws nothing should be near the same image.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from apr_jax import corruptions as corruptions_lib
from apr_jax import data
from apr_jax.config import Data
from apr_jax.corruptions import SEVERITIES, published_form
from apr_jax.data import corrupted, folder
from apr_jax.data import images as images_lib
from apr_jax.errors import DataError

# uint8 images [B, S, S, 3] -> the classes that a network answers, int [B].
Answer = Callable[[np.ndarray], np.ndarray]
_AT_ONCE = 256


@dataclasses.dataclass(frozen=True)
class Effect:
    """The effect of a corruption, in grey levels.

    Attributes:
        mean, spread: of corrupted less clean levels: mean and standard deviation.
        error: of the network, or None.
    """

    mean: float
    spread: float
    error: float | None


@dataclasses.dataclass(frozen=True)
class Compared:
    """One set, stored and made.

    Attributes:
        name, severity: which set.
        n: images.
        theirs, ours: the effect in the files and as made here.
        apart: mean distance of the two, in grey levels; of what is drawn at random it
            is about what two draws are apart.
    """

    name: str
    severity: int
    n: int
    theirs: Effect
    ours: Effect
    apart: float

    def line(self) -> str:
        """The comparison in words."""
        both = (self.theirs, self.ours)
        effects = [f"{e.mean:+.2f} +- {e.spread:.2f}" for e in both]
        text = f"{self.name}/{self.severity}: {effects[0]} in the files, {effects[1]} "
        text += f"made here, {self.apart:.2f} apart; {self.n:,} images"
        if self.theirs.error is None:
            return text
        errors = [f"{100 * (e.error or 0):.1f} %" for e in both]
        return f"{text}; errors {errors[0]} and {errors[1]}"


def compare(
    described: Data,
    root: pathlib.Path,
    names: Sequence[str],
    *,
    examples: int = 0,
    seed: int = 0,
    frost_dir: str = "",
    answer: Answer | None = None,
) -> Iterator[Compared]:
    """Compares corrupted files with the same corruptions of the clean split.

    Args:
        described: the clean images.
        root: a folder as CIFAR-10-C, or a tree as ImageNet-C whose images have the
            names of the clean ones.
        names: of the corruptions.
        examples: the first so many images; 0 is all.
        seed, frost_dir: of the corruptions that are made.
        answer: the classes that a network answers.

    Raises:
        DataError: files are missing or don't fit the clean images.
    """
    clean, labels, read = _open(described, root, names, examples)
    size = described.image_size
    make = functools.partial(
        corruptions_lib.corrupt,
        jax.random.key(seed),
        frost=frost_dir or None,
        stored_as=published_form((size, size)),
    )
    for name in names:
        for severity in SEVERITIES:
            sums = np.zeros((2, 3))
            apart = 0.0
            for start in range(0, len(labels), _AT_ONCE):
                rows = np.arange(start, min(start + _AT_ONCE, len(labels)))
                before = clean(rows)
                theirs = read(name, severity, rows)
                ours = np.asarray(make(before, name, severity, indices=rows))
                apart += np.abs(theirs.astype(np.float64) - ours).sum()
                for total, after in zip(sums, (theirs, ours), strict=True):
                    gap = after.astype(np.float64) - before
                    wrong = 0 if answer is None else (answer(after) != labels[rows])
                    total += gap.sum(), (gap**2).sum(), np.sum(wrong)
            pixels = len(labels) * size * size * 3
            answered = answer is not None
            theirs_all, ours_all = (
                _effect(total, pixels, len(labels), answered) for total in sums
            )
            yield Compared(
                name, severity, len(labels), theirs_all, ours_all, apart / pixels
            )


def _effect(total: np.ndarray, pixels: int, count: int, answered: bool) -> Effect:
    mean = float(total[0] / pixels)
    spread = float(np.sqrt(max(total[1] / pixels - mean**2, 0.0)))
    return Effect(mean, spread, float(total[2] / count) if answered else None)


def _open(
    described: Data, root: pathlib.Path, names: Sequence[str], examples: int
) -> tuple[
    Callable[[np.ndarray], np.ndarray],
    np.ndarray,
    Callable[[str, int, np.ndarray], np.ndarray],
]:
    """The clean images by row, their labels, and the files' images by set and row."""
    split, stop, size = described.test_split, examples or None, described.image_size
    if corrupted.is_npy(root):
        loaded = data.load(described, splits=(split,))
        images, labels = loaded.splits[split]
        count = corrupted.check_npy(
            root,
            names,
            image_size=size,
            num_classes=len(loaded.class_names),
            test_labels=labels,
        )
        if count != len(labels):
            raise DataError(
                f"{root} has {count} images of each set, the clean split {len(labels)}"
            )

        def stored(name: str, severity: int, rows: np.ndarray) -> np.ndarray:
            return corrupted.read_npy(root, name, severity, count).images[rows]

        return lambda rows: np.asarray(images[rows]), labels[:stop], stored
    listing = folder.listing(described, split)
    resize = described.eval_resize or size

    def clean(rows: np.ndarray) -> np.ndarray:
        paths = (listing.root / listing.files[i] for i in rows)
        return np.stack(
            [images_lib.fit(images_lib.read(p), size, resize) for p in paths]
        )

    def tree(name: str, severity: int, rows: np.ndarray) -> np.ndarray:
        top = corrupted.tree_root(root, name) / str(severity)
        read = [_read(top / listing.files[i], size) for i in rows]
        return np.stack(read)

    return clean, listing.labels[:stop], tree


def _read(path: pathlib.Path, size: int) -> np.ndarray:
    """A corrupted image, whatever its suffix."""
    places = (path, path.with_suffix(".JPEG"))
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise DataError(f"{places[1]} is missing, the image of the clean {path.name}")
    image = images_lib.read(found)
    if image.shape[:2] != (size, size):
        raise DataError(f"{found} is {image.shape[1]} x {image.shape[0]}, not {size}")
    return image
