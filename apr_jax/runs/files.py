"""Files written whole or not at all, and NumPy and JSON read with clear errors."""

import contextlib
import json
import os
import pathlib
import uuid
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np

from apr_jax.errors import ConfigError, DataError, UserError


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Names a file in the errors of a block that writes it: a full disk names none."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = os.fspath(path)
        raise


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Opens a new file for ``path``, which takes its place at the block's end.

    It lies beside ``path`` until it is whole and on the disk; an exception removes it
    and leaves the old file. Missing folders are made.
    """
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


def check_target(path: pathlib.Path, name: str) -> None:
    """Checks that a file can be written, or written anew, as ``replacing`` does it.

    Args:
        path: of the file; its folder is made if it isn't there.
        name: of the flag that names it, for the message.

    Raises:
        ConfigError: it can't, or is something else than a file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        beside.touch()
        beside.unlink()
        why = "it is no file" if path.exists() and not path.is_file() else ""
    except OSError as error:
        why = str(error.strerror)
    if why:
        raise ConfigError(f"{name} is {str(path)!r}, which can't be written: {why}")


def write_bytes(path: str | os.PathLike[str], contents: bytes) -> None:
    """Writes a file whole or not at all."""
    with replacing(path) as file:
        file.write(contents)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a file of UTF-8 whole or not at all; of no character, its number."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_arrays(
    path: str | os.PathLike[str], arrays: Mapping[str, Any], *, compress: bool = False
) -> None:
    """Writes an ``.npz`` archive whole or not at all."""
    with replacing(path) as file:
        (np.savez_compressed if compress else np.savez)(file, **arrays)


@contextlib.contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[None]:
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
            f"can't read {os.fspath(path)}: {str(text).splitlines()[0]}"
        ) from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """What is in a JSON file of UTF-8.

    Raises:
        DataError: as ``reading``.
    """
    with reading(path), open(path, encoding="utf-8") as file:
        return json.load(file)


def read_array(path: str | os.PathLike[str], *, mapped: bool = True) -> np.ndarray:
    """The array in an ``.npy`` file, by default read from the disk where it is used.

    Raises:
        DataError: as ``reading``.
    """
    with reading(path):
        if mapped:
            return np.lib.format.open_memmap(path, mode="r")
        with open(path, "rb") as file:
            found: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
        return found


@contextlib.contextmanager
def archive(path: str | os.PathLike[str]) -> Iterator[Mapping[str, np.ndarray]]:
    """Opens an ``.npz`` archive; each array is read when it is asked for.

    Raises:
        DataError: as ``reading``, of what happens in the block, too.
    """
    with reading(path), open(path, "rb") as file:
        stored = np.load(file, allow_pickle=False)
        if not isinstance(stored, np.lib.npyio.NpzFile):
            raise DataError(f"can't read {os.fspath(path)}: it is no .npz archive")
        with stored:
            yield stored
