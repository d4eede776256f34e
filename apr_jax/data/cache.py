"""Decoded images on disk, so that only the first start has to decode them.

One folder for each split:

    NAME-SPLIT-KEY/manifest.json   shapes, checksums, class names, the whole key
    NAME-SPLIT-KEY/images.npy      uint8 [N, H, W, 3], mapped into memory when read
    NAME-SPLIT-KEY/labels.npy      int32 [N]

A folder is written under another name and renamed when complete, so that whatever
has the final name is whole. The checksums are compared once per process.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from apr_jax.config import Data
from apr_jax.data.batches import ArraySplit
from apr_jax.errors import DataError
from apr_jax.gates import places

_LOG = logging.getLogger(__name__)
_FORMAT = 1
_MANIFEST = "manifest.json"
_ARRAYS = ("images", "labels")
_FULL = (errno.ENOSPC, errno.EDQUOT)

# The folder of compiled programs among the entries, and what these are called.
PROGRAMS = "xla"
_ENTRY = re.compile(r"(\.?)[A-Za-z0-9_.]+-[0-9a-f]{16}(\.tmp\w*)?")

# Digests of the entries whose checksums this process has compared already.
_compared: set[str] = set()


class Entry(NamedTuple):
    """One split as a source reads it, or as the cache gives it back.

    Attributes:
        split: images and labels.
        class_names: in the order of the labels.
        left_out: names of broken files that are not in the split.
    """

    split: ArraySplit
    class_names: tuple[str, ...]
    left_out: tuple[str, ...] = ()


class _DamagedError(Exception):
    """A fault of an entry."""


def folder(cache_dir: str) -> pathlib.Path:
    """Returns the folder of all entries; ``cache_dir`` "" is the user's default."""
    if cache_dir:
        return places.local(cache_dir, "data.cache_dir")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return places.local(base, "XDG_CACHE_HOME") / "apr_jax"


def load_or_build(
    root: pathlib.Path, name: str, key: Mapping[str, Any], build: Callable[[], Entry]
) -> tuple[Entry, str]:
    """Returns an entry of the cache and the digest of its contents.

    An entry that isn't there, or is damaged, is made with ``build`` and written.
    Several processes may call this at once: one builds, the others wait for it.

    Args:
        root: folder of all entries, made where it is missing.
        name: for people to recognise the entry by.
        key: all that the contents depend on, as JSON values.
        build: reads the split from its source.

    Raises:
        DataError: the folder can't be written, or the disk is full.
    """
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    label = re.sub(r"[^A-Za-z0-9_.]+", "_", name).strip("_.")[:100]
    final = root / f"{label}-{digest[:16]}"
    # Without the lock first: a complete cache may lie where nothing can be written.
    with contextlib.suppress(_DamagedError):
        if (found := _read(final)) is not None:
            return found
    with locked(final):
        with _explained(root):
            found = _recover(final)
        if found is None:
            entry = build()
            with _explained(root):
                _write(final, key, entry)
                found = _read(final)
    if found is None:
        raise DataError(f"the cache entry {final} vanished while it was written")
    return found


def load_split(
    data: Data,
    name: str,
    facts: Mapping[str, Any],
    read: Callable[[], Entry],
    *,
    called: str,
) -> tuple[Entry, str]:
    """``load_or_build`` of a split in the folder and the sizes of images of ``data``.

    Args:
        data: the set.
        name: for people to recognise the entry by.
        facts: what else the contents depend on, as JSON values.
        read: reads the split from its source.
        called: the split in the warning of broken files that are left out.
    """
    sizes = {"image_size": data.image_size, "eval_resize": data.eval_resize}
    place = folder(data.cache_dir)
    entry, digest = load_or_build(place, name, {**sizes, **facts}, read)
    if left_out := entry.left_out:
        listed = ", ".join(left_out)
        _LOG.warning("%s is without %d broken files: %s", called, len(left_out), listed)
    return entry, digest


def entries(root: pathlib.Path) -> list[pathlib.Path]:
    """The folders of all entries, and of those that a killed process left half made."""
    found = sorted(root.iterdir()) if root.is_dir() else []
    names = [(path, _ENTRY.fullmatch(path.name)) for path in found]
    return [
        path
        for path, name in names
        if name and bool(name[1]) == bool(name[2])
        if path.is_dir() and not path.is_symlink()
    ]


def remove(entry: pathlib.Path) -> None:
    """Removes one of ``entries``; a process that reads its images keeps them.

    Raises:
        DataError: another process is making it.
    """
    name = entry.name.partition(".tmp")[0].lstrip(".")
    with locked(entry.with_name(name), wait=False):
        shutil.rmtree(entry)


@contextlib.contextmanager
def locked(path: pathlib.Path, *, wait: bool = True) -> Iterator[None]:
    """Holds, among the processes of this machine, the lock that belongs to a path.

    Raises:
        DataError: another one holds it, and this one isn't to ``wait``.
    """
    with _explained(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path.with_name(f".{path.name}.lock"), "a")  # noqa: SIM115
    with file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise DataError(f"another process is at work on {path}") from None
        except (ImportError, OSError):
            # No locks on this system or file system. Work may be done twice then,
            # but renaming keeps what is found whole.
            pass
        yield


def _read(final: pathlib.Path) -> tuple[Entry, str] | None:
    """Returns an entry and its digest, or None if there is none."""
    try:
        text = (final / _MANIFEST).read_text()
    except (FileNotFoundError, NotADirectoryError):
        if final.exists():
            raise _DamagedError(f"{_MANIFEST} is missing") from None
        return None
    digest = hashlib.sha256(text.encode()).hexdigest()
    try:
        manifest = json.loads(text)
        arrays = {name: manifest["arrays"][name] for name in _ARRAYS}
        if digest not in _compared:
            for name, facts in arrays.items():
                with open(final / f"{name}.npy", "rb") as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
                if found != facts["sha256"]:
                    raise _DamagedError(
                        f"{name}.npy doesn't have the checksum of its manifest"
                    )
            _compared.add(digest)
        images, labels = (
            np.load(final / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in _ARRAYS
        )
        classes, left_out = tuple(manifest["classes"]), tuple(manifest["left_out"])
    except FileNotFoundError as error:
        raise _DamagedError(f"{error.filename} is missing") from None
    except (ValueError, KeyError, TypeError) as error:
        raise _DamagedError(f"it can't be read ({error})") from None
    entry = Entry(ArraySplit(images, np.asarray(labels)), classes, left_out)
    contents = [classes, *(arrays[name]["sha256"] for name in _ARRAYS)]
    return entry, hashlib.sha256(json.dumps(contents).encode()).hexdigest()


def _recover(final: pathlib.Path) -> tuple[Entry, str] | None:
    """Reads an entry; removes what is damaged or left by a killed process."""
    for leftover in final.parent.glob(f".{final.name}.tmp*"):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        return _read(final)
    except _DamagedError as error:
        _LOG.warning("the cache entry %s is damaged: %s; making it again", final, error)
        shutil.rmtree(final)
        return None


def _write(final: pathlib.Path, key: Mapping[str, Any], entry: Entry) -> None:
    """Writes an entry so that ``final`` is either whole or not there."""
    images, labels = entry.split
    needed = images.nbytes + labels.nbytes + 2**16
    free = shutil.disk_usage(final.parent).free
    if needed > free:
        text = f"{needed / 2**20:.1f} MiB needed, {free / 2**20:.1f} MiB free"
        raise OSError(errno.ENOSPC, text)
    prefix = f".{final.name}.tmp"
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=final.parent))
    try:
        arrays = {}
        for name, array in zip(_ARRAYS, (images, labels), strict=True):
            path = temporary / f"{name}.npy"
            with open(path, "wb") as file:
                digested = _Digested(file)
                np.save(digested, array, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
            facts = {"shape": array.shape, "dtype": array.dtype.name}
            arrays[name] = {"sha256": digested.sha256.hexdigest(), **facts}
        manifest = {
            "format": _FORMAT,
            "key": dict(key),
            "classes": entry.class_names,
            "left_out": entry.left_out,
            "arrays": arrays,
        }
        (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=1))
        temporary.chmod(0o755)  # mkdtemp makes folders that only their owner can read
        # Another process, on a machine that doesn't share our locks, may have been
        # first; its entry is as good as ours.
        try:
            temporary.rename(final)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class _Digested:
    """A file to write to, and the checksum of what was written.

    NumPy writes to a real file by other means, which on a full disk raise an error
    without a number, not to be told from others.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.sha256 = hashlib.sha256()
        self._file = file

    def write(self, contents: bytes) -> int:
        self.sha256.update(contents)
        return self._file.write(contents)


@contextlib.contextmanager
def _explained(root: pathlib.Path) -> Iterator[None]:
    """Turns errors of the file system into ones that name the field to change."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            problem = f"the disk is full ({error.strerror})"
        else:
            problem = str(error)
        raise DataError(
            f"can't write decoded images to {root}: {problem}; set data.cache_dir to "
            "a folder that can be written and has room"
        ) from error
