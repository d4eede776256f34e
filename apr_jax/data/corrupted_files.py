"""Writes corrupted test sets: ``python -m apr_jax.corruptions --data ... --out ...``.

Small images become what CIFAR-10-C is: ``NAME.npy``, uint8 [5 N, S, S, 3], and
``labels.npy``. Large ones become what ImageNet-C is: ``NAME/SEVERITY/CLASS/FILE.JPEG``.
A file gets its name when it is whole; what has its name already is kept, so a stopped
call goes on when it is repeated.
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import math
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from PIL import Image

from apr_jax import console
from apr_jax import corruptions as corruptions_lib
from apr_jax.corruptions import SEVERITIES
from apr_jax.data import cache, walk
from apr_jax.data import images as images_lib
from apr_jax.data.batches import ArraySplit
from apr_jax.data.folder import Listing
from apr_jax.errors import DataError
from apr_jax.runs import files as files_lib

# Of the JPEG files, as ImageNet-C has.
_QUALITY = 85
_SETTINGS = "corruptions.json"
# Chunks of images that are worked on before the oldest is read.
_UNDER_WAY = 4


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The facts that decide about the contents of the files.

    Attributes:
        data: where the images come from, in words.
        count: how many there are.
        size: of the side, in pixels.
        seed: of the corruptions.
        digest: of the images and labels; of files, of their names and sizes.
        stored_as: one of ``corruptions.STORED``; a tree is JPEG files in any case.
        strengths: of which published set, or "interpolated".
    """

    data: str
    count: int
    size: int
    seed: int
    digest: str
    stored_as: str = "array"
    strengths: str = ""


def digest_arrays(split: ArraySplit) -> str:
    """Hexadecimal digits that change with the images or their labels."""
    found = hashlib.sha256(repr(split.images.shape).encode())
    found.update(np.ascontiguousarray(split.images).data)
    found.update(np.ascontiguousarray(split.labels, np.int32).data)
    return found.hexdigest()[:16]


def digest_files(listing: Listing) -> str:
    """Hexadecimal digits that change with the names or sizes of image files."""
    facts = [[name, walk.stat(listing.root / name).st_size] for name in listing.files]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def write_npy(
    split: ArraySplit,
    out: pathlib.Path,
    names: Sequence[str],
    *,
    recipe: Recipe,
    frost_dir: str = "",
    quiet: bool = False,
) -> None:
    """Writes ``NAME.npy`` for each name, and ``labels.npy``.

    Args:
        split: N images of one size.
        out: folder; made if it isn't there.
        names: of the corruptions.
        recipe: of these images.
        frost_dir: as ``frost`` of ``corruptions.corrupt``.
        quiet: no progress bar.

    Raises:
        DataError: the folder holds sets of another recipe, another process writes
            there, or the disk is full.
    """
    claim(out, recipe)
    with cache.locked(out / "sets", wait=False):
        _write_npy(split, out, names, recipe, frost_dir, quiet)


def _write_npy(
    split: ArraySplit,
    out: pathlib.Path,
    names: Sequence[str],
    recipe: Recipe,
    frost_dir: str,
    quiet: bool,
) -> None:
    images, labels = split
    count, size = len(labels), images.shape[1]
    kind = np.uint8 if labels.max() < 256 else np.int32
    with files_lib.replacing(out / "labels.npy") as file:
        np.save(file, np.tile(labels.astype(kind), len(SEVERITIES)))
    missing = [name for name in names if not (out / f"{name}.npy").exists()]
    corrupt = functools.partial(
        _corruptor(recipe, frost_dir), stored_as=recipe.stored_as
    )
    total = len(names) * len(SEVERITIES) * count
    with console.make_bar("{task.fields[said]}", disable=quiet) as bar:
        start = (len(names) - len(missing)) * len(SEVERITIES) * count
        task = bar.add_task("images", total=total, completed=start, said="")
        for name in missing:
            bar.update(task, said=name)
            partial = out / f".{name}.npy.part"
            shape = (len(SEVERITIES) * count, size, size, 3)
            _check_room(out, math.prod(shape) - _size_of(partial))
            target = np.lib.format.open_memmap(
                partial, mode="w+", dtype=np.uint8, shape=shape
            )
            for where, result in _chunks(corrupt, images, name):
                target[where : where + len(result)] = result
                bar.update(task, advance=len(result))
            target.flush()
            del target
            partial.replace(out / f"{name}.npy")


def _size_of(path: pathlib.Path) -> int:
    """Bytes of a file on its disk, 0 where there is none."""
    return path.stat().st_blocks * 512 if path.exists() else 0


def _check_room(folder: pathlib.Path, needed: int) -> None:
    """Raises DataError unless so many bytes fit: a mapped file dies of a full disk."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{folder} has {free / 1e6:,.1f} MB of room, and the next file takes "
            f"{needed / 1e6:,.1f} MB"
        )


def _corruptor(recipe: Recipe, frost_dir: str) -> Callable[..., jax.Array]:
    """``corruptions.corrupt`` with a recipe's key and a folder of photographs."""
    return functools.partial(
        corruptions_lib.corrupt, jax.random.key(recipe.seed), frost=frost_dir or None
    )


def _chunks(
    corrupt: Callable[..., jax.Array], images: np.ndarray, name: str
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (row, corrupted images) of all severities."""
    count, chunk = len(images), corruptions_lib.default_chunk(images.shape[1])
    waiting: list[tuple[int, jax.Array]] = []
    for severity in SEVERITIES:
        for start in range(0, count, chunk):
            part = np.asarray(images[start : start + chunk])
            numbers = np.arange(start, start + len(part))
            result = corrupt(part, name, severity, indices=numbers)
            waiting.append(((severity - 1) * count + start, result))
            # Reading waits; some chunks under way keep all cores busy.
            if len(waiting) > _UNDER_WAY:
                row, oldest = waiting.pop(0)
                yield row, np.asarray(oldest)
    for row, result in waiting:
        yield row, np.asarray(result)


def write_tree(
    listing: Listing,
    out: pathlib.Path,
    names: Sequence[str],
    *,
    recipe: Recipe,
    resize: int,
    frost_dir: str = "",
    quiet: bool = False,
) -> None:
    """Writes ``NAME/SEVERITY/CLASS/FILE`` for each image, as JPEG of quality 85.

    Args:
        listing: image files with their classes.
        out: folder; made if it isn't there.
        names: of the corruptions.
        recipe: of these images; each is cut to its ``size``.
        resize: pixels of the shorter side before the cut.
        frost_dir, quiet: as ``write_npy``.

    Raises:
        DataError: the folder holds sets of another recipe, a file can't be read, or two
            would be written to one place.
    """
    _check_targets(listing)
    claim(out, recipe)
    count, size = len(listing.files), recipe.size
    corrupt = _corruptor(recipe, frost_dir)

    def read(file: str) -> np.ndarray:
        return images_lib.fit(images_lib.read(listing.root / file), size, resize)

    chunk = min(corruptions_lib.default_chunk(size), count)
    total = len(names) * len(SEVERITIES) * count
    with (
        console.make_bar("{task.fields[said]}", disable=quiet) as bar,
        concurrent.futures.ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool,
    ):
        task = bar.add_task("images", total=total, said="")
        for start in range(0, count, chunk):
            files = listing.files[start : start + chunk]
            images: np.ndarray | None = None
            for name in names:
                for severity in SEVERITIES:
                    bar.update(task, said=name, advance=len(files))
                    targets = [_target(out, name, severity, f) for f in files]
                    if all(target.exists() for target in targets):
                        continue
                    if images is None:  # decoded once for all corruptions
                        images = np.stack(list(pool.map(read, files)))
                    numbers = np.arange(start, start + len(files))
                    result = corrupt(images, name, severity, indices=numbers)
                    list(pool.map(_save, targets, np.asarray(result)))


def claim(out: pathlib.Path, recipe: Recipe) -> None:
    """Makes a folder that of a recipe, or checks that it is.

    Raises:
        DataError: it holds sets of another one, or corrupted sets of unknown origin; or
            it can't be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"can't make the folder {out}: {error.strerror}") from error
    settings = out / _SETTINGS
    wanted = dataclasses.asdict(recipe)
    if settings.exists():
        with files_lib.reading(settings):
            found = dict(files_lib.read_json(settings))
        # Older folders have none of these; where strengths changed, they differ.
        known = (
            ("digest", "stored_as", "strengths") if _unchanged(recipe) else ("digest",)
        )
        for field in known:
            found.setdefault(field, wanted[field])
        for field, value in wanted.items():
            if found.get(field) != value:
                raise DataError(
                    f"{out} holds sets with {field} {found.get(field)!r}, now it is "
                    f"{value!r}; choose another folder, or empty this one"
                )
        return
    if any(out.glob("[!.]*.npy")) or any(out.glob("[!.]*/1")):
        raise DataError(
            f"{out} holds files, but no {_SETTINGS} that says how they were made; "
            "choose another folder"
        )
    files_lib.write_text(settings, json.dumps(wanted, indent=1) + "\n")


def _unchanged(recipe: Recipe) -> bool:
    """Whether the strengths for a size are as old as the command."""
    return recipe.size <= 32 or recipe.size == 224


def _check_targets(listing: Listing) -> None:
    """Raises DataError if two images differ in the ends of their names alone."""
    sources: dict[pathlib.Path, str] = {}
    for file in listing.files:
        first = sources.setdefault(_target(pathlib.Path(), "", 0, file), file)
        if first != file:
            raise DataError(
                f"{first} and {file} in {listing.root} would both be written as "
                f"{pathlib.Path(file).with_suffix('.JPEG')}; rename one"
            )


def _target(out: pathlib.Path, name: str, severity: int, file: str) -> pathlib.Path:
    return (out / name / str(severity) / file).with_suffix(".JPEG")


def _save(target: pathlib.Path, image: np.ndarray) -> None:
    picture = Image.fromarray(image)
    with files_lib.replacing(target) as file:
        picture.save(file, "JPEG", quality=_QUALITY, optimize=True)
