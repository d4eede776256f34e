"""Corrupted sets from elsewhere beside those that are made here, set by set.

What is drawn at random can't agree pixel by pixel. So each set is compared by what it
does to the images, the mean and the spread of corrupted less clean levels, and by the
error of a network where there is one; what draws nothing should be near the same image.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from apr_jax import corruptions as corruptions_lib
from apr_jax import data
from apr_jax.config import Data
from apr_jax.corruptions import SEVERITIES, published_form
from apr_jax.data import corrupted, folder
from apr_jax.data import images as images_lib
from apr_jax.errors import DataError
from apr_jax.gates import knobs

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
        root: a folder as CIFAR-10-C, whose images may have another order than the
            clean ones; or a tree as ImageNet-C whose images have the clean ones' names.
            It may hold some of the images only.
        names: of the corruptions.
        examples: the first so many images of the files; 0 is all.
        seed, frost_dir: of the corruptions that are made.
        answer: the classes that a network answers.

    Raises:
        DataError: files are missing or don't fit the clean images.
    """
    knobs.whole("examples", examples, low=0)
    files = _open(described, root, names)
    labels, size = files.labels[: examples or None], described.image_size
    make = functools.partial(
        corruptions_lib.corrupt,
        jax.random.key(seed),
        frost=frost_dir or None,
        stored_as=files.stored_as,
    )
    for name in names:
        for severity in SEVERITIES:
            sums = np.zeros((2, 3))
            apart = 0.0
            for start in range(0, len(labels), _AT_ONCE):
                rows = np.arange(start, min(start + _AT_ONCE, len(labels)))
                places = files.places[rows]
                before = files.clean(places)
                theirs = files.read(name, severity, rows)
                ours = np.asarray(make(before, name, severity, indices=places))
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


class _Files(NamedTuple):
    """Corrupted files, and the clean images they were made of.

    Attributes:
        labels: int [N], of the corrupted images.
        places: int [N], the rows of the clean split that they were made of.
        clean: rows of the clean split -> images.
        read: (corruption, severity, rows of the files) -> images.
        stored_as: one of ``corruptions.STORED``.
    """

    labels: np.ndarray
    places: np.ndarray
    clean: Callable[[np.ndarray], np.ndarray]
    read: Callable[[str, int, np.ndarray], np.ndarray]
    stored_as: str


def _open(described: Data, root: pathlib.Path, names: Sequence[str]) -> _Files:
    if not root.is_dir():
        raise DataError(f"{root} is no folder of corrupted files")
    if corrupted.is_npy(root):
        return _npy(described, root, names)
    if described.source != "folder":
        raise DataError(
            f"{root} has no .npy; a tree of images is compared with a folder "
            f"SPLIT/CLASS/IMAGE, and --data is of the kind {described.source!r}"
        )
    return _tree(described, root, names)


def _npy(described: Data, root: pathlib.Path, names: Sequence[str]) -> _Files:
    split = described.test_split
    loaded = data.load(described, splits=(split,))
    images, labels = loaded.splits[split]
    count = corrupted.check_npy(
        root,
        names,
        image_size=described.image_size,
        num_classes=len(loaded.class_names),
        test_labels=labels,
    )
    if count > len(labels):
        raise DataError(
            f"{root} has {count} images of each set, the clean split {len(labels)}"
        )

    def stored(name: str, severity: int, rows: np.ndarray) -> np.ndarray:
        return corrupted.read_npy(root, name, severity, count).images[rows]

    first, own = corrupted.read_npy(root, names[0], 1, count)
    places = _matched(np.asarray(images), np.asarray(labels), np.asarray(first), own)
    if places is None:
        raise DataError(f"the images in {root} aren't those of the clean split")
    clean = lambda rows: np.asarray(images[rows])
    form = published_form((described.image_size,) * 2)
    return _Files(own, places, clean, stored, form)


def _matched(
    clean: np.ndarray, labels: np.ndarray, stored: np.ndarray, own: np.ndarray
) -> np.ndarray | None:
    """The clean image that each corrupted one was made of; None where they don't fit.

    Sets come in several orders: those of TensorFlow Datasets are shuffled.

    Args:
        clean: uint8 [M, ...], with their ``labels`` [M].
        stored: uint8 [N, ...] of the weakest severity, with their ``own`` labels [N].
    """
    places = np.arange(len(own))
    if (labels[: len(own)] == own).all():
        return places
    for label in np.unique(own):
        rows, there = np.flatnonzero(own == label), np.flatnonzero(labels == label)
        if not len(there):
            return None
        alike = _standard(stored[rows]) @ _standard(clean[there]).T
        places[rows] = there[np.argmax(alike, axis=1)]
    return places if len(np.unique(places)) == len(places) else None


def _standard(images: np.ndarray) -> np.ndarray:
    """Images as vectors [N, D] whose products are correlations."""
    flat = images.reshape(len(images), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def _tree(described: Data, root: pathlib.Path, names: Sequence[str]) -> _Files:
    size = described.image_size
    listing = folder.listing(described, described.test_split)
    resize = described.eval_resize or size

    def clean(rows: np.ndarray) -> np.ndarray:
        paths = (listing.root / listing.files[i] for i in rows)
        return np.stack(
            [images_lib.fit(images_lib.read(p), size, resize) for p in paths]
        )

    def top(name: str, severity: int) -> pathlib.Path:
        return corrupted.tree_root(root, name) / str(severity)

    first = top(names[0], 1)
    there = [i for i, file in enumerate(listing.files) if _find(first / file)]
    places = np.asarray(there, np.int64)
    if not there:
        raise DataError(f"{first} has no image by the name of a clean one")

    def tree(name: str, severity: int, rows: np.ndarray) -> np.ndarray:
        folder_of = top(name, severity)
        files = (folder_of / listing.files[i] for i in places[rows])
        return np.stack([_read(file, size) for file in files])

    return _Files(listing.labels[places], places, clean, tree, "jpeg")


def _find(path: pathlib.Path) -> pathlib.Path | None:
    """The file of a corrupted image, whatever its suffix."""
    both = (path, path.with_suffix(".JPEG"))
    return next((place for place in both if place.is_file()), None)


def _read(path: pathlib.Path, size: int) -> np.ndarray:
    found = _find(path)
    if found is None:
        missing = path.with_suffix(".JPEG")
        raise DataError(f"{missing} is missing, the image of the clean {path.name}")
    image = images_lib.read(found)
    if image.shape[:2] != (size, size):
        raise DataError(f"{found} is {image.shape[1]} x {image.shape[0]}, not {size}")
    return image
