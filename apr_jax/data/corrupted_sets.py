"""Corrupted test sets as files: what is corrupted, and in which form it is kept."""

import functools
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from apr_jax import data
from apr_jax.config import Data
from apr_jax.corruptions import (
    check,
    frost_files,
    published,
    published_form,
)
from apr_jax.data import corrupted_files, folder, parquet
from apr_jax.errors import ConfigError, DataError
from apr_jax.gates import knobs, places

# Larger images are written as JPEG files.
_LARGEST_ARRAY = 64


def describe(
    what: str, *, data_dir: str, split: str, image_size: int, resize: int
) -> Data:
    """The description of the data that ``--data`` names.

    Args:
        what: a path, "bundled", or the name of a set of TensorFlow Datasets.
        data_dir: where TensorFlow Datasets keeps its sets; "" is its default.
        split: to corrupt.
        image_size: pixels, square.
        resize: pixels of the shorter side before the centre is cut out; 0: none.

    Raises:
        ArgumentError: sizes that there can't be.
    """
    knobs.whole("image_size", image_size)
    knobs.whole("resize", resize, low=0)
    path = places.local(what, "--data")
    if what == "bundled":
        source = "bundled"
    elif not path.exists():
        source = "tfds"
    elif (path / split).is_dir() and not any((path / split).glob("*.parquet")):
        source = "folder"
    else:
        packed = path.is_dir() and parquet.listed(path)
        source = "parquet" if packed else "arrays"
    on_disk = source in ("arrays", "folder", "parquet")
    return Data(
        source=source,
        name=path.stem if on_disk else what,
        data_dir=str(path) if on_disk else data_dir,
        train_split=split,  # whose classes the labels count
        test_split=split,
        image_size=image_size,
        eval_resize=resize,
        max_broken=0,
    )


def default_resize(size: int) -> int:
    """As ImageNet's crop, 256 pixels for 224; 0, no resizing, for small images."""
    return round(size * 256 / 224) if size > _LARGEST_ARRAY else 0


def write(
    described: Data,
    out: pathlib.Path,
    names: Sequence[str],
    *,
    form: str = "auto",
    examples: int = 0,
    seed: int = 0,
    frost_dir: str = "",
    stored_as: str = "auto",
    quiet: bool = False,
) -> None:
    """Corrupts a split in every severity and writes it.

    Args:
        described: of ``describe``.
        out: folder of the files.
        names: of the corruptions.
        form: "npy", "jpeg", or "auto", which is "npy" up to 64 pixels.
        examples: the first so many; 0 is all.
        seed: of the corruptions.
        frost_dir: photographs of frost; "" takes those of ``imagecorruptions``.
        stored_as: "jpeg" puts arrays through JPEG of quality 85, as the files of a tree
            are in any case; "auto" does as the published set of that size.
        quiet: no progress bar.

    Raises:
        ConfigError: a name or folder that can't be used.
        ArgumentError: ``examples`` is below 0.
        DataError: the data aren't there, or ``out`` holds other sets.
    """
    try:
        for name in names:
            check(name, 1)
        if "frost" in names:
            frost_files.load(frost_dir)
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(str(error)) from error
    knobs.whole("examples", examples, low=0)
    size, split, stop = described.image_size, described.test_split, examples or None
    save: Callable[..., None]
    shape = (size, size)
    tree = form == "jpeg" or (form == "auto" and size > _LARGEST_ARRAY)
    if tree and stored_as == "array":
        raise ConfigError("stored_as is 'array'; JPEG files are not, see format")
    if stored_as == "auto":
        stored_as = "jpeg" if tree else published_form(shape)
    if tree:
        if described.source != "folder":
            raise DataError(
                f"--data is of the kind {described.source!r}; JPEG files are made of "
                "a folder SPLIT/CLASS/IMAGE, whose names they keep"
            )
        listing = folder.listing(described, split)
        files, labels = listing.files[:stop], listing.labels[:stop]
        listing = listing._replace(files=files, labels=labels)
        digest = corrupted_files.digest_files(listing)
        resize = described.eval_resize or size
        save = functools.partial(corrupted_files.write_tree, listing, resize=resize)
    else:
        images, labels = data.load(described, splits=(split,)).splits[split]
        labels = labels[:stop]
        arrays = data.ArraySplit(np.asarray(images[:stop]), labels)
        digest = corrupted_files.digest_arrays(arrays)
        save = functools.partial(corrupted_files.write_npy, arrays)
    source = f"{described.source} {described.name} {split}"
    recipe = corrupted_files.Recipe(
        source, len(labels), size, seed, digest, stored_as, published(shape)
    )
    save(out, names, recipe=recipe, frost_dir=frost_dir, quiet=quiet)
