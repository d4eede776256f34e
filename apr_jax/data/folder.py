"""Folders of image files, ``SPLIT/CLASS/*.jpg``, as torchvision's ImageFolder reads.

The files of a class are those at any depth of its folder (``apr_jax.data.walk``).
Classes are numbered in the sorted order of their folders' names, which are sorted as
numbers where all of them are (``classes.ordered``).
"""

import hashlib
import json
import logging
import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from apr_jax.config import Data
from apr_jax.data import classes, walk
from apr_jax.data import images as images_lib
from apr_jax.data.batches import ArraySplit
from apr_jax.data.cache import Entry
from apr_jax.errors import DataError
from apr_jax.gates import places

_LOG = logging.getLogger(__name__)


class Listing(NamedTuple):
    """The files of one split.

    Attributes:
        root: folder of the split.
        files: paths below ``root``, CLASS/.../NAME, sorted.
        labels: int32 [N].
        class_names: in the order of the labels.
    """

    root: pathlib.Path
    files: list[str]
    labels: np.ndarray
    class_names: tuple[str, ...]


class Files:
    """The files of several listings, numbered through.

    Attributes:
        labels: int32 [N].
    """

    def __init__(self, listings: Iterable[Listing]) -> None:
        """Takes the listings; their labels count the same classes."""
        self._listings = tuple(listings)
        counts = [len(each.files) for each in self._listings]
        self._starts = np.cumsum([0, *counts])
        self.labels = np.concatenate(
            [np.zeros(0, np.int32), *(each.labels for each in self._listings)]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, number: int) -> pathlib.Path:
        """Returns the path of a file."""
        at = int(np.searchsorted(self._starts, number, side="right")) - 1
        found = self._listings[at]
        return found.root / found.files[number - self._starts[at]]


def listing(data: Data, split: str) -> Listing:
    """Lists the image files of a split.

    Raises:
        DataError: there is no such folder, it has no images, or its classes aren't
            those of the training split.
    """
    root = _root(data)
    names = _classes(root, split)
    if split != data.train_split and (root / data.train_split).is_dir():
        train = _classes(root, data.train_split)
        if names != train:
            raise DataError(
                f"the classes of split {split!r} in {data.data_dir} aren't those of "
                f"{data.train_split!r}: {classes.difference(names, train)}"
            )
    return list_classes(root / split, names)


def list_classes(root: pathlib.Path, names: tuple[str, ...]) -> Listing:
    """Lists the image files of the class folders ``names`` below ``root``.

    Raises:
        DataError: there are none.
    """
    files, labels = [], []
    for label, name in enumerate(names):
        found = walk.images(root / name)
        if not found:
            _LOG.warning("the class %s in %s has no images", name, root)
        files += [f"{name}/{file}" for file in found]
        labels += [label] * len(found)
    if not files:
        raise walk.no_images(f"{root}/*/")
    return Listing(root, files, np.asarray(labels, np.int32), names)


def fingerprint(data: Data, split: str) -> dict[str, Any]:
    """Returns what the contents of a split depend on, as JSON values."""
    return fingerprint_files(data, listing(data, split))


def fingerprint_files(data: Data, files: Listing) -> dict[str, Any]:
    """Returns what the contents of listed files depend on, as JSON values."""
    stats = ((name, walk.stat(files.root / name)) for name in files.files)
    facts = [[name, s.st_size, s.st_mtime_ns] for name, s in stats]
    text = json.dumps([files.class_names, facts])
    return {
        "root": str(files.root.resolve()),
        "files": hashlib.sha256(text.encode()).hexdigest(),
        "max_broken": data.max_broken,
        "rules": images_lib.RULES,
    }


def read(data: Data, split: str) -> Entry:
    """Decodes a split; images that aren't square are resized and cropped.

    The shorter side is resized to ``data.eval_resize``, or where that is 0 to
    ``data.image_size``, then the centre is cut out; an image that has its size
    already is left alone.

    Raises:
        DataError: more than ``data.max_broken`` files can't be decoded.
    """
    return read_files(data, listing(data, split))


def read_files(data: Data, files: Listing) -> Entry:
    """Decodes listed files, as ``read`` does."""
    size, shorter = data.image_size, data.eval_resize or data.image_size
    images = np.empty((len(files.files), size, size, 3), np.uint8)
    good = np.ones(len(files.files), bool)
    broken = images_lib.Broken(data.max_broken)
    for i, name in enumerate(files.files):
        image = broken.fitted(files.root / name, size, shorter)
        good[i] = image is not None
        if image is not None:
            images[i] = image
    split_arrays = ArraySplit(images[good], files.labels[good])
    return Entry(split_arrays, files.class_names, tuple(broken.files))


def _root(data: Data) -> pathlib.Path:
    if not data.data_dir:
        raise DataError(
            "data.data_dir is empty; for data.source 'folder' it names a folder with "
            f"{data.train_split}/CLASS/IMAGE.jpg and {data.test_split}/CLASS/IMAGE.jpg"
        )
    return places.local(data.data_dir, "data.data_dir")


def _classes(root: pathlib.Path, split: str) -> tuple[str, ...]:
    if not root.is_dir():
        raise DataError(f"data.data_dir is {str(root)!r}, which is no folder")
    folder = root / split
    if not folder.is_dir():
        there = ", ".join(walk.folders(root)) or "no folder"
        raise DataError(f"no split {split!r} in data.data_dir {str(root)!r}: {there}")
    names = walk.folders(folder)
    if not names:
        raise DataError(f"no class folders in {folder}; it must have CLASS/IMAGE.jpg")
    return names
