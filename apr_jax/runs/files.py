"""Files written whole or not at all, and NumPy and JSON read with clear errors."""

import contextlib
import io
import json
import os
import pathlib
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np

from apr_jax.errors import ConfigError, DataError, UserError
from apr_jax.gates.stores import Place, StorePath
from apr_jax.runs import leases

Path = str | os.PathLike[str] | StorePath


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Names a file in the errors of a block that writes it: a full disk names none."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = named(path)
        raise


def named(path: Path) -> str:
    """The text of a path, or of an address."""
    return str(path) if isinstance(path, StorePath) else os.fspath(path)


def at(path: Path) -> Place:
    """A path or an address with the methods of ``pathlib``."""
    return path if isinstance(path, StorePath) else pathlib.Path(path)


def with_suffix(path: Place, suffix: str) -> Place:
    """The path with another ending of its name."""
    return path.parent / pathlib.PurePath(path.name).with_suffix(suffix).name


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Opens a new file for ``path``, which takes its place at the block's end.

    It lies beside ``path`` until it is whole and on the disk, or for a store in memory;
    an exception removes it and leaves the old file. Missing folders are made.
    """
    if isinstance(path, StorePath):
        whole = io.BytesIO()
        yield whole
        leases.check(path)
        path.write_bytes(whole.getvalue())
        return
    target = pathlib.Path(path)
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    with naming(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)


def growing(path: Path) -> IO[bytes]:
    """Opens a file to write at its end; closed, it is whole.

    A store has the newest state of a while ago, as each is put whole.
    """
    return _Growing(path) if isinstance(path, StorePath) else open(path, "ab")


class _Growing(io.BytesIO):
    """What is in memory of an object, put now and then, and at the end."""

    _EVERY = 60.0  # seconds

    def __init__(self, path: StorePath) -> None:
        super().__init__()
        self._path, self._put = path, time.monotonic()

    def flush(self) -> None:
        if not self.closed and time.monotonic() - self._put > self._EVERY:
            write_bytes(self._path, self.getvalue())
            self._put = time.monotonic()

    def close(self) -> None:
        if not self.closed:
            write_bytes(self._path, self.getvalue())
        super().close()


def check_target(path: Place, name: str) -> None:
    """Checks that a file can be written, or written anew, as ``replacing`` does it.

    Args:
        path: of the file; its folder is made if it isn't there.
        name: of the flag that names it, for the message.

    Raises:
        ConfigError: it can't, or is something else than a file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}"
        beside.touch()
        beside.unlink()
        why = "it is no file" if path.exists() and not path.is_file() else ""
    except OSError as error:
        why = str(error.strerror)
    if why:
        raise ConfigError(f"{name} is {str(path)!r}, which can't be written: {why}")


def write_bytes(path: Path, contents: bytes) -> None:
    """Writes a file whole or not at all."""
    with replacing(path) as file:
        file.write(contents)


def write_text(path: Path, text: str) -> None:
    """Writes a file of UTF-8 whole or not at all; of no character, its number."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_arrays(
    path: Path, arrays: Mapping[str, Any], *, compress: bool = False
) -> None:
    """Writes an ``.npz`` archive whole or not at all."""
    with replacing(path) as file:
        (np.savez_compressed if compress else np.savez)(file, **arrays)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Names the file in the errors of a block that reads it, NumPy arrays or JSON.

    Raises:
        DataError: the file isn't there, is damaged, or lacks what was looked for.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of zip files, headers, JSON: there is no common kind
        what = (
            f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        )
        text = error.strerror if isinstance(error, OSError) else what
        raise DataError(
            f"can't read {named(path)}: {str(text).splitlines()[0]}"
        ) from error


def read_json(path: Path) -> Any:
    """What is in a JSON file of UTF-8.

    Raises:
        DataError: as ``reading``.
    """
    with reading(path), opened(path) as file:
        return json.loads(file.read().decode("utf-8"))


def opened(path: Path) -> IO[bytes]:
    """Opens a file to read it."""
    return path.open() if isinstance(path, StorePath) else open(path, "rb")


def read_array(path: Path, *, mapped: bool = True) -> np.ndarray:
    """The array in an ``.npy`` file, by default read from the disk where it is used.

    In a store it is read at once.

    Raises:
        DataError: as ``reading``.
    """
    with reading(path):
        if mapped and not isinstance(path, StorePath):
            return np.lib.format.open_memmap(path, mode="r")
        with opened(path) as file:
            found: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
        return found


@contextlib.contextmanager
def archive(path: Path) -> Iterator[Mapping[str, np.ndarray]]:
    """Opens an ``.npz`` archive; each array is read when it is asked for.

    Raises:
        DataError: as ``reading``, of what happens in the block, too.
    """
    with reading(path), opened(path) as file:
        stored = np.load(file, allow_pickle=False)
        if not isinstance(stored, np.lib.npyio.NpzFile):
            raise DataError(f"can't read {named(path)}: it is no .npz archive")
        with stored:
            yield stored
