"""Images in NumPy files.

``data.data_dir`` is one of

- an ``.npz`` file with ``SPLIT_images`` and ``SPLIT_labels`` for each split;
- a folder with ``SPLIT.npz``, which has ``images`` and ``labels``;
- a folder with ``SPLIT_images.npy`` and ``SPLIT_labels.npy``;
- a folder with ``SPLIT.npy`` and one ``labels.npy`` for all, as CIFAR-10-C has.

Images are [N, H, W, 3], [N, H, W, 1] or [N, H, W]; uint8, or floats in [0, 1], which
are multiplied by 255 and rounded. Labels are integers [N]. Names of the classes are
optional: ``class_names`` in an ``.npz``, or ``class_names.txt`` in the folder, one a
line (see ``apr_jax.data.classes``). Without them classes are named by number, and the
training labels must have each from 0 to the largest.
"""

import pathlib
from typing import Any

import numpy as np

from apr_jax.config import Data
from apr_jax.data import classes as classes_lib
from apr_jax.data import images as images_lib
from apr_jax.data.batches import ArraySplit
from apr_jax.data.cache import Entry
from apr_jax.errors import DataError
from apr_jax.gates import places
from apr_jax.runs import files as files_lib


def fingerprint(data: Data, split: str) -> dict[str, Any]:
    """Returns what the contents of a split depend on, as JSON values.

    Raises:
        DataError: the split isn't there.
    """
    root = _root(data)
    used = {*_find(root, split), *_find_classes(root, data.train_split)}
    stats = {str(p.relative_to(root.parent)): p.stat() for p in sorted(used)}
    return {
        "root": str(root.resolve()),
        "train_split": data.train_split,
        "files": {k: [s.st_size, s.st_mtime_ns] for k, s in stats.items()},
    }


def read(data: Data, split: str) -> Entry:
    """Reads a split.

    Raises:
        DataError: shape, type or range of the arrays isn't what the module's
            documentation says.
    """
    found, names = read_raw(data, split)
    names = names or _by_number(_root(data), data.train_split, found.labels)
    size, shorter = data.image_size, data.eval_resize or data.image_size
    images = images_lib.fit_all(found.images, size, shorter)
    return Entry(ArraySplit(images, found.labels), names)


def read_raw(data: Data, split: str) -> tuple[ArraySplit, tuple[str, ...] | None]:
    """Reads a split in its own size; and the names of classes, None without.

    Raises:
        DataError: as ``read``.
    """
    root = _root(data)
    images, labels = _load(root, split, alone=split == data.test_split)
    where = f"split {split!r} of {root}"
    labels = classes_lib.labels(labels, len(images), where)
    images = images_lib.to_uint8(images_lib.checked_shape(images, where), where)
    return ArraySplit(images, labels), _class_names(root, data.train_split)


def _root(data: Data) -> pathlib.Path:
    if not data.data_dir:
        raise DataError(
            "data.data_dir is empty; for data.source 'arrays' it names an .npz file "
            "or a folder of .npy or .npz files"
        )
    root = places.local(data.data_dir, "data.data_dir")
    if not root.exists():
        raise DataError(f"data.data_dir is {str(root)!r}, which isn't there")
    return root


def _find(root: pathlib.Path, split: str) -> tuple[pathlib.Path, ...]:
    """Returns the files of a split: one .npz, or images and labels."""
    if root.is_file():
        return (root,)
    for names in (
        (f"{split}.npz",),
        (f"{split}_images.npy", f"{split}_labels.npy"),
        (f"{split}.npy", "labels.npy"),
    ):
        if all((root / name).is_file() for name in names):
            return tuple(root / name for name in names)
    there = ", ".join(sorted(p.name for p in root.glob("*.np[yz]"))) or "no such files"
    raise DataError(
        f"no split {split!r} in data.data_dir {str(root)!r}: looked for {split}.npz, "
        f"for {split}_images.npy with {split}_labels.npy, and for {split}.npy with "
        f"labels.npy; there is {there}"
    )


def _find_classes(root: pathlib.Path, train_split: str) -> tuple[pathlib.Path, ...]:
    """Returns the files that the class names come from, if there are any."""
    if root.is_dir() and (root / "class_names.txt").is_file():
        return (root / "class_names.txt",)
    try:
        return _find(root, train_split)
    except DataError:
        return ()


def _load(
    root: pathlib.Path, split: str, *, alone: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels; a split that stands ``alone`` in a file needs no name."""
    files = _find(root, split)
    if len(files) == 2:
        images, labels = map(files_lib.read_array, files)
        return images, labels
    prefix = f"{split}_" if root.is_file() else ""
    with files_lib.archive(files[0]) as packed:
        if alone and not any(key.endswith("_images") for key in packed):
            prefix = ""
        for key in (f"{prefix}images", f"{prefix}labels"):
            if key not in packed:
                raise DataError(f"no {key!r} in {files[0]}; it has {', '.join(packed)}")
        return packed[f"{prefix}images"], packed[f"{prefix}labels"]


def _class_names(root: pathlib.Path, train_split: str) -> tuple[str, ...] | None:
    """Returns given names, or None."""
    files = _find_classes(root, train_split)
    if files and files[0].suffix == ".txt":
        return classes_lib.read_text(files[0])
    if files and files[0].suffix == ".npz":
        with files_lib.archive(files[0]) as packed:
            if "class_names" in packed:
                return classes_lib.of_array(packed["class_names"], str(files[0]))
    return None


def _by_number(
    root: pathlib.Path, train_split: str, labels: np.ndarray
) -> tuple[str, ...]:
    """Returns numbers up to the largest training label."""
    if _find_classes(root, train_split):
        counted, labels = _load(root, train_split)
        labels = classes_lib.labels(labels, len(counted), str(root))
    return classes_lib.by_number(labels, f"the split {train_split!r} of {root}")
