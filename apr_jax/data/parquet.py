"""Images in Parquet files, as the Hugging Face Hub serves its sets.

``data.data_dir`` is a folder with the files of each split, in it or up to two folders
below: ``plain_text/train-00000-of-00001.parquet``, ``data/test.parquet``, or
``plain_text/train/0000.parquet``. Of several folders that have the split, such as the
configurations of a set, it must name one.

- The images are the column ``img`` or ``image``, or the only one that has images:
  structs {bytes, path} of encoded images, or their bytes.
- The labels are ``label`` or ``fine_label``, or the only column of integers.
- The classes are named in the files' metadata, ``huggingface``; without it by number,
  and the training labels must have each from 0 to the largest.

PyArrow reads them, which comes with TensorFlow Datasets; TensorFlow is not needed.
"""

import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from apr_jax.config import Data
from apr_jax.data import classes as classes_lib
from apr_jax.data import images as images_lib
from apr_jax.data import walk
from apr_jax.data.batches import ArraySplit
from apr_jax.data.cache import Entry
from apr_jax.errors import DataError
from apr_jax.gates import places
from apr_jax.runs import files as files_lib

_ROWS = 1000  # read at a time
_IMAGES, _LABELS = ("img", "image"), ("label", "fine_label")
# SPLIT-00000-of-00002-HASH.parquet, SPLIT.parquet; or 0000.parquet in a folder SPLIT.
_NAME = re.compile(r"(.+?)(?:-(\d{5})-of-(\d{5})(?:-[0-9a-f]+)?)?\.parquet")
_NUMBER = re.compile(r"\d+\.parquet")
# The Hub's CIFAR-100 has "cra" where everybody else has "crab".
_MISSPELT = {"cra": "crab"}


def fingerprint(data: Data, split: str) -> dict[str, Any]:
    """Returns what the contents of a split depend on, as JSON values.

    Raises:
        DataError: the split isn't there, or not whole.
    """
    root = _root(data)
    used = _find(root, split)
    if split != data.train_split and not _names(used[0]):
        used = [*used, *_find(root, data.train_split)]
    stats = {str(path.relative_to(root)): walk.stat(path) for path in used}
    return {
        "root": str(root.resolve()),
        "train_split": data.train_split,
        "files": {k: [s.st_size, s.st_mtime_ns] for k, s in stats.items()},
        "rules": images_lib.RULES,
    }


def read(data: Data, split: str) -> Entry:
    """Decodes a split; images that aren't square are resized and cropped.

    As for image folders, the shorter side becomes ``data.eval_resize`` or, where that
    is 0, ``data.image_size`` pixels; then the centre is cut out.

    Raises:
        DataError: a file or an image in it is damaged, or it has no images or labels;
            the message names the file.
    """
    root = _root(data)
    size, shorter = data.image_size, data.eval_resize or data.image_size
    images, labels = [], []
    files = _find(root, split)
    for path in files:
        for name, contents in _images(path):
            image = images_lib.read(contents, name=name)
            images.append(images_lib.fit(image, size, shorter))
        labels.append(_labels(path))
    pixels = np.reshape(np.asarray(images, np.uint8), (-1, size, size, 3))
    names = _names(files[0])
    if not names:
        counted = np.concatenate([_labels(p) for p in _find(root, data.train_split)])
        where = f"the split {data.train_split!r} of {root}"
        names = classes_lib.by_number(counted, where)
    return Entry(ArraySplit(pixels, np.concatenate(labels)), names)


def _root(data: Data) -> pathlib.Path:
    if not data.data_dir:
        raise DataError(
            "data.data_dir is empty; for data.source 'parquet' it names a folder with "
            f"{data.train_split}-00000-of-00001.parquet and the like"
        )
    root = places.local(data.data_dir, "data.data_dir")
    if not root.is_dir():
        raise DataError(f"data.data_dir is {str(root)!r}, which is no folder")
    return root


def listed(root: pathlib.Path) -> list[pathlib.Path]:
    """The Parquet files in a folder, and up to two folders below, sorted."""
    below = [root / name for name in walk.folders(root)]
    deeper = [folder / name for folder in below for name in walk.folders(folder)]
    return [
        path
        for folder in (root, *below, *deeper)
        for path in sorted(folder.glob("*.parquet"))
        if path.is_file() and not path.name.startswith(".")
    ]


def splits(root: pathlib.Path) -> tuple[str, ...]:
    """The names of the splits in a folder, sorted."""
    return tuple(sorted({_split(path) for path in listed(root)}))


def first(data: Data, split: str) -> np.ndarray:
    """The first image of a split as it is stored, uint8 [H, W, 3].

    Raises:
        DataError: as ``read``, or there is none.
    """
    for path in _find(_root(data), split):
        for name, contents in _images(path):
            return images_lib.read(contents, name=name)
    raise DataError(f"split {split!r} in {data.data_dir} has no images")


def _split(path: pathlib.Path) -> str:
    """The split that a file belongs to."""
    return path.parent.name if _NUMBER.fullmatch(path.name) else _part(path)[0]


def _find(root: pathlib.Path, split: str) -> list[pathlib.Path]:
    """Returns the files of a split, all of its parts in their order."""
    found: dict[pathlib.Path, list[pathlib.Path]] = {}
    others = set()
    for path in listed(root):
        if (called := _split(path)) == split:
            in_folder = _NUMBER.fullmatch(path.name)
            place = path.parent.parent if in_folder else path.parent
            found.setdefault(place, []).append(path)
        else:
            others.add(called)
    if not found:
        there = ", ".join(sorted(others)) or "no Parquet files"
        raise DataError(f"no split {split!r} in data.data_dir {str(root)!r}: {there}")
    if len(found) > 1:
        several = " and ".join(map(str, found))
        raise DataError(
            f"data.data_dir is {str(root)!r}, and {several} have a split {split!r}; "
            "name one of them"
        )
    ((place, files),) = found.items()
    parts = [_part(path)[1:] for path in files]
    wanted = [(i, len(files)) for i in range(len(files))]
    if len(files) > 1 or parts[0] != (None, None):
        numbered = all(_NUMBER.fullmatch(path.name) for path in files)
        if not numbered and parts != wanted:
            names = ", ".join(path.name for path in files)
            raise DataError(f"split {split!r} in {place} isn't whole; there is {names}")
    return files


def _part(path: pathlib.Path) -> tuple[str, int | None, int | None]:
    """The split that a file is named for, and which part of how many it is."""
    match = _NAME.fullmatch(path.name)
    assert match
    split, part, count = match.groups()
    return (split, None, None) if part is None else (split, int(part), int(count))


def _opened(path: pathlib.Path) -> Any:
    """PyArrow's reader of a file."""
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise DataError(
            f"{error.name} is not installed, which reads Parquet files: pip install "
            "pyarrow"
        ) from error
    with files_lib.reading(path):
        return pyarrow.parquet.ParquetFile(path)


def _column(path: pathlib.Path, schema: Any, usual: tuple[str, ...], kind: str) -> str:
    """The name of the column of images or labels."""
    import pyarrow

    def fits(column: Any) -> bool:
        if kind == "labels":
            return bool(pyarrow.types.is_integer(column.type))
        binary = column.type
        if pyarrow.types.is_struct(binary):
            inside = {field.name: field.type for field in binary}
            binary = inside.get("bytes", pyarrow.null())
        return binary in (pyarrow.binary(), pyarrow.large_binary())

    possible = [column.name for column in schema if fits(column)]
    chosen = [name for name in usual if name in possible] or possible
    if not chosen or (len(possible) > 1 and chosen == possible):
        there = ", ".join(f"{column.name} ({column.type})" for column in schema)
        raise DataError(
            f"{path} has no column of {kind}, or several; looked for "
            f"{' and '.join(usual)}, there is {there}"
        )
    return chosen[0]


def _images(path: pathlib.Path) -> Iterator[tuple[str, bytes]]:
    """Yields what each image is called, and its encoded bytes."""
    file, number = _opened(path), 0
    name = _column(path, file.schema_arrow, _IMAGES, "images")
    with files_lib.reading(path):
        for batch in file.iter_batches(batch_size=_ROWS, columns=[name]):
            for row in batch.column(0).to_pylist():
                contents = row["bytes"] if isinstance(row, dict) else row
                called = f"row {number} of {path}"
                if contents is None:
                    raise DataError(f"{called} has no image in it")
                yield called, contents
                number += 1


def _labels(path: pathlib.Path) -> np.ndarray:
    """The labels in a file, int32."""
    file = _opened(path)
    name = _column(path, file.schema_arrow, _LABELS, "labels")
    with files_lib.reading(path):
        found = file.read(columns=[name]).column(0).to_numpy()
        return classes_lib.labels(found, file.metadata.num_rows, str(path))


def _names(path: pathlib.Path) -> tuple[str, ...]:
    """The names of the classes in a file's metadata; none where it has none."""
    schema = _opened(path).schema_arrow
    told = (schema.metadata or {}).get(b"huggingface")
    if told is None:
        return ()
    label = _column(path, schema, _LABELS, "labels")
    with files_lib.reading(path):
        features = json.loads(told).get("info", {}).get("features", {})
        names = features.get(label, {}).get("names") or []
    names = [_MISSPELT.get(name, name) for name in names]
    return classes_lib.each_once(names, f"classes {{}} of {path}", first=0)
