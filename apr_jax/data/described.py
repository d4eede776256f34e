"""Data in one word, such as "cifar10" or "folder:PATH", and their classes matched.

- ``cifar10``, ``imagenet2012`` or another set of TFDS; ``NAME/SPLIT`` for a split that
  isn't "test" ("validation" for ImageNet);
- ``bundled``: digits over photographs, offline;
- ``folder:PATH`` with CLASS/IMAGE, or with that below "test", "val" or "validation";
- ``arrays:PATH``: an ``.npz`` file with ``images`` and ``labels``, or what
  ``apr_jax.data.arrays`` reads;
- ``parquet:PATH``: a folder of Parquet files as the Hugging Face Hub serves them, with
  a split "test" or "validation".
"""

import dataclasses
import hashlib
import re
from collections.abc import Sequence

import numpy as np

from apr_jax import console, data
from apr_jax.config import Data
from apr_jax.data import arrays, classes, folder, imagenet, parquet, walk
from apr_jax.data import images as images_lib
from apr_jax.errors import ConfigError, DataError
from apr_jax.gates import places

_SPLITS = ("test", "val", "validation")
_NO_TRAIN = "none to train on"  # a split that isn't there
_LARGE = 224  # pixels, where a set has images of many sizes
_SMALL = 64  # pixels, up to which a set's own size is taken
# Memory for images, in bytes; what needs more is read from disk all the time.
_ROOM = 4e9


def parse(text: str) -> Data:
    """What a word says of data, with an image size of their own.

    Raises:
        ConfigError: it says nothing.
        DataError: the folder or file isn't there.
    """
    source, colon, where = text.partition(":")
    if text == "bundled":
        return Data(source="bundled", name="bundled", shifted_splits=("test_shifted",))
    if colon and source == "folder":
        return _folder(where)
    if colon and source == "arrays":
        return _arrays(where)
    if colon and source == "parquet":
        return _parquet(where)
    name, _, split = text.partition("/")
    if not re.fullmatch(r"\w+(:\d[\w.*-]*)?", name) or source == "tfds":
        raise ConfigError(
            f"data is {text!r}; write the name of a set of TFDS such as cifar10, "
            "bundled, folder:PATH, arrays:PATH or parquet:PATH"
        )
    if name.startswith("imagenet"):
        return Data(
            name=name,
            test_split=split or "validation",
            image_size=_LARGE,
            streaming=True,
        )
    return Data(name=name, test_split=split or "test")


def _folder(where: str) -> Data:
    root = places.local(where, "data")
    if not root.is_dir():
        raise DataError(f"data is 'folder:{where}', which is no folder")
    split = next((name for name in _SPLITS if (root / name).is_dir()), "")
    top = root if split else root.resolve().parent
    split = split or root.resolve().name
    train = "train"
    beside = split != train and (top / train).is_dir()
    if not beside or walk.folders(top / split) != walk.folders(top / train):
        train = _NO_TRAIN
    described = Data(
        source="folder",
        name=root.resolve().name,
        data_dir=str(top),
        test_split=split,
        train_split=train,
    )
    listed = folder.listing(described, split)
    height, width = images_lib.read(listed.root / listed.files[0]).shape[:2]
    return dataclasses.replace(described, image_size=_own_size(height, width))


def _arrays(where: str) -> Data:
    path = places.local(where, "data")
    described = Data(source="arrays", name=path.stem, data_dir=str(path))
    found, _ = arrays.read_raw(described, described.test_split)
    return dataclasses.replace(described, image_size=found.images.shape[1])


def _parquet(where: str) -> Data:
    path = places.local(where, "data")
    if not path.is_dir():
        raise DataError(f"data is 'parquet:{where}', which is no folder")
    there = parquet.splits(path)
    split = next((name for name in _SPLITS if name in there), None)
    if split is None:
        raise DataError(
            f"data is 'parquet:{where}', which has no split {' or '.join(_SPLITS)}; "
            f"there is {', '.join(there) or 'no Parquet file'}"
        )
    described = Data(
        source="parquet", name=path.resolve().name, data_dir=str(path), test_split=split
    )
    size = _own_size(*parquet.first(described, split).shape[:2])
    return dataclasses.replace(described, image_size=size)


def _own_size(height: int, width: int) -> int:
    """The image size of a set whose first image is of this one."""
    return height if height == width <= _SMALL else _LARGE


def fitted(described: Data, like: Data) -> Data:
    """Data for a network: of its image size, with its normalisation.

    Larger images are resized and cropped as the network says (``eval_resize``), or as
    for ImageNet, 256 for 224 pixels.
    """
    size, streaming = like.image_size, described.streaming
    resize = 0
    if streaming or (described.source in ("folder", "parquet") and size > _SMALL):
        resize = like.eval_resize or round(size * 256 / 224)
    elif described.source == "arrays":
        resize = like.eval_resize
    if described.source == "folder":
        count = len(folder.listing(described, described.test_split).files)
        streaming = count * size * size * 3 > _ROOM
    return dataclasses.replace(
        described,
        image_size=size,
        eval_resize=resize,
        streaming=streaming,
        mean=like.mean,
        std=like.std,
    )


def load(described: Data) -> tuple[data.DataSet | None, tuple[str, ...]]:
    """The images to measure on, unless they are streamed, and the names of classes.

    Raises:
        DataError: they aren't there.
    """
    if described.streaming:
        if described.source == "folder":
            listed = folder.listing(described, described.test_split)
            return None, listed.class_names
        return None, imagenet.class_names(described)
    if described.source != "arrays":
        splits = (described.test_split, *described.shifted_splits)
        found = data.load(described, splits=splits)
        return found, found.class_names
    raw, names = arrays.read_raw(described, described.test_split)
    return _resident(described, raw, names)


def of_arrays(
    described: Data, images: np.ndarray, labels: np.ndarray
) -> tuple[data.DataSet, tuple[str, ...]]:
    """As ``load``, of images [N, H, W, 3] in memory and their labels [N]."""
    found = images_lib.checked_shape(np.asarray(images), "data")
    if not len(found):
        raise DataError("data has no images")
    found = images_lib.to_uint8(found, "data")
    numbers = classes.labels(np.asarray(labels), len(found), "data")
    return _resident(described, data.ArraySplit(found, numbers), None)


def _resident(
    described: Data, raw: data.ArraySplit, names: tuple[str, ...] | None
) -> tuple[data.DataSet, tuple[str, ...]]:
    size = described.image_size
    larger = min(raw.images.shape[1:3]) > size
    shorter = described.eval_resize if larger else 0
    fitted = images_lib.fit_all(raw.images, size, shorter or size)
    height, width = raw.images.shape[1:3]
    if height != width:
        console.say(
            f"images of {height} x {width} are resized and cropped to {size} x {size}"
        )
    split = data.ArraySplit(fitted, raw.labels)
    names = names or tuple(map(str, range(int(raw.labels.max()) + 1)))
    digest = hashlib.sha256(split.images.tobytes() + split.labels.tobytes()).hexdigest()
    test = described.test_split
    resident = data.DataSet(
        name=described.name,
        class_names=names,
        splits={test: split},
        fingerprint=digest,
        extra=None,
        digests={test: digest},
    )
    return resident, names


def matched(
    resident: data.DataSet | None, found: Sequence[str], wanted: Sequence[str]
) -> tuple[data.DataSet | None, tuple[str, ...]]:
    """The images with the labels of a network, and the names of its classes.

    Args:
        resident: the images, where they are in memory.
        found: the names of their classes.
        wanted: those of the network, in the order of its logits; numbers where only
            their count is known.

    Raises:
        DataError: they don't fit; the message says what to do.
    """
    found, wanted = tuple(found), tuple(wanted)
    numbers = lambda names: tuple(map(str, range(len(names))))
    if found == wanted or (
        found == numbers(found) and resident and len(found) <= len(wanted)
    ):
        return resident, wanted
    if wanted == numbers(wanted) and len(found) == len(wanted):
        return resident, found
    if set(found) <= set(wanted) and resident is not None:
        console.say(
            f"the data have {len(found):,} of the network's {len(wanted):,} classes, "
            "found by name"
        )
        places_ = np.array([wanted.index(name) for name in found], np.int32)
        splits = {
            name: data.ArraySplit(split.images, places_[split.labels])
            for name, split in resident.splits.items()
        }
        return dataclasses.replace(resident, splits=splits, class_names=wanted), wanted
    first = f"the data have {len(found):,} classes ({', '.join(found[:3])}, …)"
    if len(found) > len(wanted):
        raise DataError(f"{first}, and the network {len(wanted):,}: too few")
    if set(found) <= set(wanted):
        raise DataError(f"{first} in another order than the network, and are streamed")
    raise DataError(
        f"{first}, the network {len(wanted):,} ({', '.join(wanted[:3])}, …): name the "
        "network's in the order of its logits (classes=[…], or --classes FILE, one a "
        f"line); those of the data are found by name. {_apart(found, wanted)}"
    )


def _apart(found: Sequence[str], wanted: Sequence[str]) -> str:
    return f"Now the data's and the network's are {classes.difference(found, wanted)}"
