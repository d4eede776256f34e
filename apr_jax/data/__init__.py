"""Images and labels, from wherever they are, as arrays and batches.

Small images are decoded once, cached on disk and held in memory (``load``); large
ones are streamed from their files (``apr_jax.data.imagenet``). The only part of the
project that imports TensorFlow, inside the functions that need it.
"""

import hashlib
import json
import types
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from apr_jax.config import Data
from apr_jax.data import arrays, bundled, cache, extra, folder, imagenet, parquet, tfds
from apr_jax.data.batches import (
    ArraySplit,
    Batch,
    DataSet,
    Mix,
    epoch_order,
    eval_batches,
    global_indices,
    mirrored,
)
from apr_jax.errors import DataError

__all__ = [
    "ArraySplit",
    "Batch",
    "DataError",
    "DataSet",
    "Description",
    "Mix",
    "describe",
    "epoch_order",
    "eval_batches",
    "eval_fingerprint",
    "extra",
    "fingerprint",
    "global_indices",
    "imagenet",
    "load",
    "mirrored",
]

# Each has fingerprint(data, split), which is quick, and read(data, split).
_SOURCES: dict[str, types.ModuleType] = {
    "bundled": bundled,
    "tfds": tfds,
    "folder": folder,
    "arrays": arrays,
    "parquet": parquet,
}


class Description(NamedTuple):
    """The facts that a network has to know of its data.

    Attributes:
        class_names: in the order of the labels.
        train_size: examples of the training split.
    """

    class_names: tuple[str, ...]
    train_size: int


def describe(data: Data) -> Description:
    """Returns the classes and the size of the training split, streamed or not.

    Raises:
        DataError: the data aren't there.
    """
    if data.streaming:
        size = imagenet.num_examples(data, data.train_split)
        return Description(imagenet.class_names(data), size)
    found = load(data, splits=(data.train_split,))
    return Description(found.class_names, len(found.splits[data.train_split].labels))


def load(data: Data, *, splits: Sequence[str] | None = None) -> DataSet:
    """Loads splits of small images, from the cache on disk where they are there.

    Args:
        data: says which set; ``data.streaming`` must be false.
        splits: names of splits; None is all that ``data`` names, and the extra
            images.

    Raises:
        DataError: the source is unknown, or the data isn't there, can't be read, or
            can't be cached. The message names the field and what to do.
    """
    if data.source not in _SOURCES:
        choices = ", ".join(map(repr, _SOURCES))
        raise DataError(f"data.source is {data.source!r}; choose from {choices}")
    if data.streaming:
        raise DataError(
            "data.streaming is true: such a set is not loaded into memory; see "
            "apr_jax.data.imagenet"
        )
    source = _SOURCES[data.source]
    extra_too = splits is None
    if splits is None:
        splits = (data.train_split, data.test_split, *data.shifted_splits)
    entries, digests = {}, {}
    for split in splits:
        facts = {"source": data.source, "name": data.name, "split": split}
        entries[split], digests[split] = cache.load_split(
            data,
            f"{data.source}-{data.name}-{split}",
            {**facts, **source.fingerprint(data, split)},
            lambda split=split: _read(source, data, split),  # type: ignore[misc]
            called=f"split {split!r}",
        )
    names = {split: entry.class_names for split, entry in entries.items()}
    if len(set(names.values())) > 1:
        counts = ", ".join(f"{split!r} {len(n)}" for split, n in names.items())
        raise DataError(
            f"the splits of {data.name!r} differ in their classes: {counts}"
        )
    class_names = next(iter(names.values()))
    return DataSet(
        name=data.name or data.source,
        class_names=class_names,
        splits={split: entry.split for split, entry in entries.items()},
        fingerprint=hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest(),
        extra=extra.load(data, class_names) if extra_too else None,
        digests=digests,
    )


def fingerprint(data: Data, resident: DataSet | None) -> str:
    """Returns hexadecimal digits that change with the images a run is trained on.

    They don't change with the place of the files. Of images in memory, all that is
    loaded counts; of streamed ones what their TFDS set says of itself, or the names of
    classes and files, as reading all of them would take too long. Extra images that
    are streamed don't count.

    Args:
        data: says which set.
        resident: the images, where they are in memory.
    """
    if resident is None:
        return _streamed_digest(data, data.train_split)
    if resident.extra is None:
        return resident.fingerprint
    digest = hashlib.sha256(resident.fingerprint.encode())
    for array in resident.extra:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def eval_fingerprint(data: Data, resident: DataSet | None = None) -> str:
    """Returns digits as ``fingerprint`` does, of the images that a run is measured on.

    Args:
        data: says which set.
        resident: the images, where they are in memory already.

    Raises:
        DataError: they aren't there.
    """
    if data.streaming:
        return _streamed_digest(data, data.test_split)
    found = resident or load(data, splits=(data.test_split,))
    return found.digests[data.test_split]


def _streamed_digest(data: Data, split: str) -> str:
    if data.source == "tfds":
        facts: Any = tfds.fingerprint(data, split)
    else:
        listed = folder.listing(data, split)
        facts = [listed.class_names, list(listed.files)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _read(source: types.ModuleType, data: Data, split: str) -> cache.Entry:
    """Reads a split from its source and checks it before it is cached."""
    entry: cache.Entry = source.read(data, split)
    images, labels = entry.split
    size = data.image_size
    if images.dtype != np.uint8 or images.shape[1:] != (size, size, 3):
        raise DataError(
            f"images of split {split!r} are {images.dtype} {list(images.shape)}; "
            f"data.image_size {size} wants uint8 [N, {size}, {size}, 3]"
        )
    if len(labels) == 0:
        raise DataError(f"split {split!r} of {data.name or data.source!r} is empty")
    outside = (labels < 0) | (labels >= len(entry.class_names))
    if outside.any():
        first = int(np.argmax(outside))
        raise DataError(
            f"label {labels[first]} of example {first} in split {split!r} is out of "
            f"range: {len(entry.class_names)} classes allow 0 to "
            f"{len(entry.class_names) - 1}"
        )
    return entry
