"""Images made small once, in ArrayRecord files: ``apr-jax pack``.

Each image is decoded, its shorter side brought to some pixels by the filter of
evaluation, and written as a JPEG whose blocks stand alone (``jpeg_blocks``), so that
training decodes the window that it takes, and nothing else. The result is a set of TFDS
(``file_format`` array_record), which ``array_records`` reads, and TFDS does.

    OUT/NAME/1.0.0/dataset_info.json, features.json, label.labels.txt
    OUT/NAME/1.0.0/NAME-SPLIT.array_record-00000-of-00008
    OUT/NAME/1.0.0/packed.json                  how it was made

It is made in ``OUT/NAME/1.0.0.incomplete``, whose files get their names when they are
whole, and renamed at the end: a stopped call goes on when it is repeated.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import pathlib
from collections.abc import Iterable, Iterator

from apr_jax import console
from apr_jax.config import Data
from apr_jax.data import (
    array_records,
    cache,
    folder,
    jpeg_blocks,
    records,
    shards,
    tf_example,
    tfds,
    tfrecords,
    walk,
)
from apr_jax.data import images as images_lib
from apr_jax.data.batches import epoch_order
from apr_jax.errors import ConfigError, DataError
from apr_jax.gates import places
from apr_jax.runs import files as files_lib

VERSION = "1.0.0"
_RECIPE = "packed.json"
_BROKEN = "broken.json"  # file -> broken images that aren't in it, and why
# Images of a file: some 60 MB of ImageNet's.
_IMAGES = 2048
# Of the order of a folder's images, by which the first ones stand for a draw.
_SEED = 0


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What decides about the contents of a packed set.

    Attributes:
        data: the set that it is made of.
        splits: its splits.
        shorter: pixels of the shorter side; smaller images stay as they are.
        quality: of the JPEGs, 1 to 100.
    """

    data: Data
    splits: tuple[str, ...]
    shorter: int
    quality: int


@dataclasses.dataclass(frozen=True)
class _Shard:
    """A file to write: the examples of a split at the places ``part``."""

    recipe: Recipe
    split: str
    part: range
    path: pathlib.Path


def described(what: str, data_dir: str = "", max_broken: int = 0) -> Data:
    """The data that a word says: "folder:PATH", or the name of a set of TFDS.

    Raises:
        DataError: the folder has no SPLIT/CLASS.
    """
    source, _, place = what.partition(":")
    if source != "folder":
        return Data(name=what, data_dir=data_dir, max_broken=max_broken)
    root = places.local(place, "--data")
    names = walk.folders(root) if root.is_dir() else ()
    if not names:
        raise DataError(f"--data is {what!r}, which has no SPLIT/CLASS/IMAGE")
    return Data(
        source="folder",
        name=root.resolve().name,
        data_dir=str(root),
        train_split="train" if "train" in names else names[0],
        max_broken=max_broken,
    )


def write(
    data: Data,
    out: pathlib.Path,
    name: str,
    *,
    splits: Iterable[str] = (),
    shorter: int = 256,
    quality: int = 90,
    workers: int = 1,
    quiet: bool = False,
) -> pathlib.Path:
    """Packs splits of a set of images, and returns the folder of the packed one.

    Args:
        data: the set, of ``described``.
        out: folder of packed sets.
        name: of this one.
        splits: of the set; none: all.
        shorter: pixels of the shorter side; smaller images aren't enlarged.
        quality: of the JPEGs, 1 to 100.
        workers: processes that work on it; 1: this one.
        quiet: no progress bar.

    Raises:
        ConfigError: there is such a set already, or the beginning of another.
        DataError: the data aren't there, or can't be read.
    """
    array_records.check_installed()
    given = tuple(splits) or _splits(data)
    recipe = Recipe(data, given, shorter, quality)
    sizes = {split: records.num_examples(data, split) for split in given}
    names = records.class_names(data)
    final = out / name / VERSION
    if final.exists():
        raise ConfigError(f"{final} is there already; give another --name or --out")
    beside = final.with_name(f"{VERSION}.incomplete")
    with cache.locked(beside, wait=False):
        _claim(beside, recipe, sizes, names)
        _write_all(recipe, sizes, beside, name, workers, quiet)
        _describe(recipe, sizes, beside, name, names)
        beside.rename(final)
    return final


def splits_of(made: pathlib.Path) -> tuple[str, ...]:
    """The splits of a packed set, of the folder that ``write`` returns."""
    info = json.loads((made / "dataset_info.json").read_text())
    return tuple(split["name"] for split in info["splits"])


def _splits(data: Data) -> tuple[str, ...]:
    if data.source == "folder":
        return walk.folders(data.data_dir)
    with tfds.reading(data):
        return tuple(tfds.open_builder(data).info.splits)


def _claim(
    place: pathlib.Path, recipe: Recipe, sizes: dict[str, int], names: tuple[str, ...]
) -> None:
    """Makes the folder of a set that is begun, or sees that it is this one's."""
    facts = {
        "data": f"{recipe.data.source}:{recipe.data.name}",
        "splits": sizes,
        "classes": hashlib.sha256(repr(names).encode()).hexdigest()[:16],
        "shorter": recipe.shorter,
        "quality": recipe.quality,
        "images_a_file": _IMAGES,
    }
    known = place / _RECIPE
    if not known.exists():
        files_lib.write_text(known, json.dumps(facts, indent=1))
        return
    with files_lib.reading(known):
        before = json.loads(known.read_text())
    for key, value in facts.items():
        if before.get(key) != value:
            raise ConfigError(
                f"{place} was begun with {key} {before.get(key)!r}, now it is "
                f"{value!r}; remove it, or give another --name"
            )


def _write_all(
    recipe: Recipe,
    sizes: dict[str, int],
    place: pathlib.Path,
    name: str,
    workers: int,
    quiet: bool,
) -> None:
    """Writes the files that aren't there."""
    wanted = [
        _Shard(recipe, split, part, place / file)
        for split, size in sizes.items()
        for file, part in _files(name, split, size)
    ]
    missing = [shard for shard in wanted if not shard.path.exists()]
    broken = images_lib.Broken(recipe.data.max_broken)
    known = place / _BROKEN
    kept: dict[str, dict[str, str]] = {}
    if known.exists():
        with files_lib.reading(known):
            kept = json.loads(known.read_text())
    for file in kept:
        if (place / file).exists():
            for name_of, reason in kept[file].items():
                broken.add(name_of, reason)
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(console.make_bar(disable=quiet))
        done = sum(len(s.part) for s in wanted) - sum(len(s.part) for s in missing)
        task = bar.add_task("images", total=sum(sizes.values()), completed=done)
        results: Iterable[dict[str, str]] = map(_write_shard, missing)
        if workers > 1 and len(missing) > 1:
            pool = concurrent.futures.ProcessPoolExecutor(
                min(workers, len(missing)), multiprocessing.get_context("spawn")
            )
            stack.callback(pool.shutdown, cancel_futures=True)
            results = pool.map(_write_shard, missing)
        for shard, left_out in zip(missing, results, strict=True):
            kept[shard.path.name] = left_out
            files_lib.write_text(known, json.dumps(kept, indent=1))
            for file, reason in left_out.items():
                broken.add(file, reason)
            bar.update(task, advance=len(shard.part))


def _files(name: str, split: str, size: int) -> Iterator[tuple[str, range]]:
    """The files of a split, and the places of the examples in each."""
    count = max(1, -(-size // _IMAGES))
    for i in range(count):
        file = f"{name}-{split}.array_record-{i:05d}-of-{count:05d}"
        yield file, records.share(size, i, count)


def _write_shard(shard: _Shard) -> dict[str, str]:
    """Writes a file; returns the broken images that aren't in it, and why."""
    from array_record.python import array_record_module

    recipe, left_out = shard.recipe, {}
    part = shard.path.with_name(f".{shard.path.name}.part")
    # Without compression, as JPEGs don't get smaller.
    writer = array_record_module.ArrayRecordWriter(
        str(part), "group_size:1,uncompressed"
    )
    for contents, label, name in _examples(recipe.data, shard.split, shard.part):
        try:
            if isinstance(contents, OSError):
                raise contents
            image = images_lib.decode(contents, name=name)
        except (images_lib.BrokenImageError, OSError) as error:
            left_out[name] = str(error)
            if len(left_out) > recipe.data.max_broken:
                break
            continue
        if min(image.shape[:2]) > recipe.shorter:
            image = images_lib.resize_shorter(image, recipe.shorter)
        packed = jpeg_blocks.encode(image, recipe.quality)
        writer.write(tf_example.encode(packed, label))
    writer.close()
    if len(left_out) <= recipe.data.max_broken:
        part.replace(shard.path)
    return left_out


def _examples(
    data: Data, split: str, part: range
) -> Iterator[tuple[bytes | OSError, int, str]]:
    """Encoded images, labels and names, at some places of a split.

    In place of a file that can't be read, what is said of it.
    """
    if data.source == "folder":
        listed = folder.listing(data, split)
        for i in epoch_order(_SEED, 0, len(listed.files))[part.start : part.stop]:
            path = listed.root / listed.files[i]
            contents: bytes | OSError
            try:
                contents = path.read_bytes()
            except OSError as error:
                contents = error
            yield contents, int(listed.labels[i]), str(path)
        return
    pieces = shards.cut(shards.pieces(data, split), part)
    if shards.are_indexed(data):
        there = array_records.Records(pieces)
        for i in range(len(there)):
            yield *there.read(i), there.name(i)
        return
    with tfds.reading(data):
        found = tfrecords.evaluate(pieces).as_numpy_iterator()
        for contents, label, _, name in found:
            yield contents, int(label), name.decode()


def _describe(
    recipe: Recipe,
    sizes: dict[str, int],
    place: pathlib.Path,
    name: str,
    class_names: tuple[str, ...],
) -> None:
    """Writes what TFDS wants to know of a set."""
    from array_record.python import array_record_module

    described_splits = []
    for split, size in sizes.items():
        lengths, count = [], 0
        for file, _ in _files(name, split, size):
            reader = array_record_module.ArrayRecordReader(str(place / file))
            lengths.append(str(reader.num_records()))
            reader.close()
            count += (place / file).stat().st_size
        described_splits.append(
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": split,
                "numBytes": str(count),
                "shardLengths": lengths,
            }
        )
    about = (
        f"{recipe.data.name}, shorter side {recipe.shorter} pixels, JPEG quality "
        f"{recipe.quality}, packed by apr_jax"
    )
    info = {
        "description": about,
        "fileFormat": shards.INDEXED,
        "name": name,
        "splits": described_splits,
        "version": VERSION,
    }
    shape = {"dimensions": ["-1", "-1", "3"]}
    image = {"dtype": "uint8", "encodingFormat": "jpeg", "shape": shape}
    parts = {
        "image": {
            "image": image,
            "pythonClassName": f"{_FEATURES}.image_feature.Image",
        },
        "label": {
            "classLabel": {"numClasses": str(len(class_names))},
            "pythonClassName": f"{_FEATURES}.class_label_feature.ClassLabel",
        },
    }
    features = {
        "featuresDict": {"features": parts},
        "pythonClassName": f"{_FEATURES}.features_dict.FeaturesDict",
    }
    files_lib.write_text(
        place / "label.labels.txt", "".join(f"{n}\n" for n in class_names)
    )
    files_lib.write_text(place / "features.json", json.dumps(features, indent=1))
    files_lib.write_text(place / "dataset_info.json", json.dumps(info, indent=1))


_FEATURES = "tensorflow_datasets.core.features"
