"""Corrupted test sets from files: as the benchmarks publish them.

- ``npy``: a folder with ``NAME.npy``, uint8 [5 N, S, S, 3], severity s in rows
  (s - 1) N to s N, and ``labels.npy``, [N] or [5 N]: CIFAR-10-C, CIFAR-100-C,
  CIFAR-10-C-bar.
- ``tree``: ``NAME/SEVERITY/CLASS/IMAGE.JPEG``: ImageNet-C; of ImageNet-C-bar five
  folders of levels stand for the severities. The images have their final size and are
  never resized.
- ``tfds``: ``cifar10_corrupted`` and ``imagenet2012_corrupted`` of TensorFlow Datasets,
  a configuration NAME_SEVERITY each.
"""

import concurrent.futures
import dataclasses
import os
import pathlib
import re
from collections.abc import Iterator, Sequence

import numpy as np

from apr_jax.config import Corruption, Data
from apr_jax.corruptions import names_of
from apr_jax.data import classes, folder, tfds, walk
from apr_jax.data import images as images_lib
from apr_jax.data.batches import ArraySplit, Batch, pad
from apr_jax.errors import ConfigError, DataError
from apr_jax.gates import knobs
from apr_jax.runs import files as files_lib

SEVERITIES = 5
# A folder of ImageNet-C-bar.
_LEVEL = re.compile(r"\d+\.\d\d")
# Set of TFDS -> how it calls corruptions that have another name there.
_TFDS_NAMES = {
    "cifar10_corrupted": {
        "glass_blur": "frosted_glass_blur",
        "elastic_transform": "elastic",
    }
}


def chosen(settings: Corruption, image_size: int) -> tuple[str, ...]:
    """The corruptions that settings name, or those of their sets.

    Raises:
        ConfigError: there are none, one is named twice, or both are given.
    """
    names, sets = settings.corruptions, settings.sets
    if len(set(names)) < len(names):
        raise ConfigError(f"corruptions is {list(names)}; give each once")
    if not sets or len(set(sets)) < len(sets):
        raise ConfigError(f"sets is {list(sets)}; give one or more, each once")
    if names and sets != Corruption().sets:
        raise ConfigError(
            f"corruptions is {list(names)} and sets {list(sets)}; give one of the two"
        )
    return names or names_of(sets, (image_size, image_size))


# --- NumPy ---------------------------------------------------------------------------


def is_npy(root: pathlib.Path) -> bool:
    """Whether a folder holds sets in the form of CIFAR-10-C."""
    return (root / "labels.npy").is_file() or any(root.glob("[!.]*.npy"))


def check_npy(
    root: pathlib.Path,
    names: Sequence[str],
    *,
    image_size: int,
    num_classes: int,
    test_labels: np.ndarray | None = None,
) -> int:
    """Checks the sets of a folder and returns N, the number of images of each.

    Args:
        root: the folder.
        names: of the corruptions.
        image_size: that the classifier wants.
        num_classes: that it tells apart.
        test_labels: of the undisturbed split, if it is at hand; as often as there each
            label must occur here, where the sizes are equal.

    Raises:
        DataError: a file is missing or can't be read, its shape or type is another,
            or the labels don't fit; the message names the file.
    """
    missing = [f"{n}.npy" for n in (*names, "labels") if not _npy(root, n).is_file()]
    if missing:
        raise DataError(f"{root} lacks {', '.join(missing)}")
    count = None
    for name in names:
        images = _open_npy(root, name)
        shape = [f"{SEVERITIES} N", image_size, image_size, 3]
        fits = images.ndim == 4 and list(images.shape[1:]) == shape[1:]
        if images.dtype != np.uint8 or not fits or len(images) % SEVERITIES:
            raise DataError(
                f"{_npy(root, name)} is {images.dtype} {list(images.shape)}; it must "
                f"be uint8 [{', '.join(map(str, shape))}]"
            )
        count = count or len(images) // SEVERITIES
        if len(images) != SEVERITIES * count:
            raise DataError(
                f"{_npy(root, name)} has {len(images)} images, {names[0]}.npy has "
                f"{SEVERITIES * count}"
            )
    assert count is not None
    labels = _npy_labels(root, count)
    bad = (labels < 0) | (labels >= num_classes)
    if bad.any():
        raise DataError(
            f"{_npy(root, 'labels')} has the label {labels[bad][0]}; the classifier's "
            f"{num_classes} classes allow 0 to {num_classes - 1}"
        )
    if test_labels is not None and len(test_labels) == count:
        wanted, found = (
            np.bincount(x, minlength=num_classes) for x in (test_labels, labels)
        )
        if (wanted != found).any():
            first = int(np.argmax(wanted != found))
            raise DataError(
                f"{_npy(root, 'labels')} has label {first} {found[first]} times, the "
                f"test split {wanted[first]} times: these are other labels"
            )
    return count


def read_npy(root: pathlib.Path, name: str, severity: int, count: int) -> ArraySplit:
    """One severity of a set that ``check_npy`` has passed; images are memory-mapped."""
    rows = slice((severity - 1) * count, severity * count)
    return ArraySplit(_open_npy(root, name)[rows], _npy_labels(root, count))


def _npy(root: pathlib.Path, name: str) -> pathlib.Path:
    return root / f"{name}.npy"


def _open_npy(root: pathlib.Path, name: str) -> np.ndarray:
    return files_lib.read_array(_npy(root, name))


def _npy_labels(root: pathlib.Path, count: int) -> np.ndarray:
    labels = np.asarray(_open_npy(root, "labels"))
    path = _npy(root, "labels")
    labels = classes.labels(labels, len(labels), str(path))
    if len(labels) not in (count, SEVERITIES * count):
        raise DataError(
            f"{path} has {len(labels)} labels; {SEVERITIES} times {count} images need "
            f"{count} or {SEVERITIES * count}"
        )
    first = labels[:count]
    if len(labels) > count and (labels.reshape(SEVERITIES, count) != first).any():
        raise DataError(f"{path} isn't the same labels {SEVERITIES} times over")
    return first


# --- JPEG trees ----------------------------------------------------------------------


def tree_root(root: pathlib.Path, name: str) -> pathlib.Path:
    """The folder of a corruption: ROOT/NAME, or ROOT/GROUP/NAME as in the archives.

    Raises:
        DataError: there is neither.
    """
    groups = walk.folders(root)
    for found in (root / name, *(root / group / name for group in groups)):
        if found.is_dir():
            return found
    there = ", ".join(groups[:20])
    raise DataError(f"{root} has no folder {name!r}; there is {there or 'no folder'}")


def tree_set(root: pathlib.Path, name: str, severity: int) -> pathlib.Path:
    """The folder of one severity, which may not be there.

    Called by its number; or one of five that are called by growing levels, such as
    "2.35", as ImageNet-C-bar's are.

    Raises:
        DataError: there is no folder of the corruption.
    """
    top = tree_root(root, name)
    found = top / str(severity)
    if not found.is_dir():
        levels = [folder for folder in walk.folders(top) if _LEVEL.fullmatch(folder)]
        if len(levels) == SEVERITIES:
            return top / sorted(levels, key=float)[severity - 1]
    return found


def list_tree(
    root: pathlib.Path,
    name: str,
    severity: int,
    class_names: Sequence[str],
    *,
    examples: int = 0,
) -> folder.Listing:
    """Lists the images of one severity, in sorted order.

    Args:
        root: folder of all corruptions.
        name, severity: which set.
        class_names: of the classifier, in the order of its labels; the folders of the
            classes must have these names.
        examples: so many images, evenly spread over the sorted files; 0 is all.

    Raises:
        DataError: a folder is missing, or its classes aren't the classifier's.
    """
    top = tree_set(root, name, severity)
    if not top.is_dir():
        raise DataError(f"{top} is missing")
    there = walk.folders(top)
    if sorted(there) != sorted(class_names):
        raise DataError(
            f"the classes in {top} aren't the classifier's: "
            f"{classes.difference(there, class_names)}"
        )
    found = folder.list_classes(top, there)
    knobs.whole("examples", examples, low=0)
    label_of = {name: label for label, name in enumerate(class_names)}
    labels = np.asarray([label_of[name] for name in there], np.int32)[found.labels]
    chosen = np.arange(len(labels))
    if 0 < examples < len(labels):
        chosen = np.linspace(0, len(labels) - 1, examples).round().astype(int)
    files = [found.files[i] for i in chosen]
    return folder.Listing(top, files, labels[chosen], tuple(class_names))


def tree_batches(
    tree: folder.Listing, *, image_size: int, batch_size: int, rows: slice = slice(None)
) -> Iterator[Batch]:
    """Decodes a tree on several threads, in order, the last batch filled up.

    Args:
        tree: of ``list_tree``.
        image_size: pixels that each image must have on both sides.
        batch_size: over all processes.
        rows: the part of each batch that this process reads.

    Raises:
        DataError: an image is damaged or has another size; the message names it.
    """

    def read(number: int) -> np.ndarray:
        path = tree.root / tree.files[number]
        image = images_lib.read(path)
        if image.shape[:2] != (image_size, image_size):
            height, width = image.shape[:2]
            raise DataError(
                f"{path} has {width} x {height} pixels; corrupted images are measured "
                f"as they are, and this classifier takes {image_size} x {image_size}"
            )
        return image

    workers = min(os.cpu_count() or 1, 16)
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        starts = range(0, len(tree.files), batch_size)
        parts = [
            np.arange(start, min(start + batch_size, len(tree.files)))[rows]
            for start in starts
        ]
        waiting = [[pool.submit(read, i) for i in p] for p in parts[:1]]
        for number, part in enumerate(parts):
            if number + 1 < len(parts):
                ahead = [pool.submit(read, i) for i in parts[number + 1]]
                waiting.append(ahead)
            images = [future.result() for future in waiting.pop(0)]
            stacked = np.stack(images) if images else _nothing(image_size)
            size = len(range(*rows.indices(batch_size)))
            yield pad(stacked, tree.labels[part], size)


def _nothing(image_size: int) -> np.ndarray:
    return np.zeros((0, image_size, image_size, 3), np.uint8)


# --- TensorFlow Datasets -------------------------------------------------------------


def tfds_data(data: Data, name: str, severity: int) -> Data:
    """The description of one corrupted set of TFDS, with its configuration named.

    Raises:
        DataError: TFDS has no corrupted form of the set.
    """
    base = data.name.partition(":")[0].partition("/")[0].removesuffix("_corrupted")
    known = ("cifar10", "imagenet2012")
    if base not in known:
        raise DataError(
            f"data.name is {data.name!r}; TFDS has corrupted forms of "
            f"{' and '.join(known)} only"
        )
    whole = f"{base}_corrupted"
    there = _TFDS_NAMES.get(whole, {}).get(name, name)
    split = "validation" if base == "imagenet2012" else "test"
    return dataclasses.replace(
        data,
        source="tfds",
        name=f"{whole}/{there}_{severity}",
        test_split=split,
        # Images there have their final size: never resized again.
        eval_resize=0,
    )


def check_tfds(data: Data, class_names: Sequence[str]) -> None:
    """Checks one corrupted set of TFDS; ``data`` is from ``tfds_data``.

    Raises:
        DataError: it isn't there, has other classes, or images of another size.
    """
    builder = tfds.open_builder(data)
    shape = list(builder.info.features["image"].shape)
    size = data.image_size
    if shape[:2] != [size, size]:
        raise DataError(
            f"images of {data.name!r} are {shape}; this classifier takes {size} x "
            f"{size}, and corrupted images are never resized"
        )
    classes.check_same(tfds.class_names(builder), class_names, data.name)
