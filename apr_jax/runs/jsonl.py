"""Files of one JSON object a line, which survive being cut off while written."""

import contextlib
import functools
import gzip
import json
import os
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

from apr_jax.errors import DataError
from apr_jax.gates.stores import StorePath
from apr_jax.runs import files

# Of files that are compressed; they are written whole.
PACKED = ".gz"


def append(path: files.Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Appends rows, each as one line, and waits until they are on the disk.

    All lines go out in one write at the end of the file, so that two processes do not
    mix theirs. Where an earlier write was cut off, the new rows start on a line of
    their own. In a store the file is put anew with them: only who holds the folder
    (``claims.claimed``) may append there.

    Raises:
        ValueError: for a value that JSON cannot hold, NaN and infinity included.
        OSError: where the file cannot be written, naming it.
    """
    data = encode(rows)
    if not data:
        return
    if isinstance(path, StorePath):
        try:
            before = path.read_bytes()
        except FileNotFoundError:
            before = b""
        ended = b"" if before[-1:] in (b"", b"\n") else b"\n"
        files.write_bytes(path, before + ended + data)
        return
    with files.naming(path):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b"\n":
                data = b"\n" + data
            while data:
                # One write takes it all, unless the disk is filling up.
                data = data[os.write(file, data) :]
            os.fsync(file)
        finally:
            os.close(file)


def replace(path: files.Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a file of these rows alone; at any moment it is the old or the new one.

    It is compressed where its name ends in `PACKED`.

    Raises:
        ValueError, OSError: as ``append``; the old file then stays.
    """
    data = encode(rows)
    if files.named(path).endswith(PACKED):
        data = gzip.compress(data, mtime=0)
    files.write_bytes(path, data)


def read(path: files.Path) -> list[tuple[int, dict[str, Any]]]:
    """Reads the rows with their line numbers, which start at 1.

    A line that is not a whole JSON object, as a killed process leaves behind, is left
    out with a warning that names it.

    Raises:
        FileNotFoundError: where there is no such file.
        DataError: it is there, and can't be read.
    """
    rows, broken = [], []
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if isinstance(row, dict):
                rows.append((number, row))
            else:
                broken.append(str(number))
    if broken:
        warnings.warn(
            f"{files.named(path)}: left out line {', '.join(broken)}, which is not a "
            "whole JSON object (cut off while it was written?)",
            stacklevel=2,
        )
    return rows


@contextlib.contextmanager
def _opened(path: files.Path) -> Iterator[IO[bytes]]:
    try:
        with files.opened(path) as file:
            packed = files.named(path).endswith(PACKED)
            yield gzip.GzipFile(fileobj=file) if packed else file  # type: ignore[misc]
    except FileNotFoundError:
        raise
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"can't read {files.named(path)}: {error}") from error
    except OSError as error:
        raise DataError(f"can't read {files.named(path)}: {error.strerror}") from error


def encode(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """The lines of the rows. Raises ValueError for what JSON cannot hold."""
    return b"".join(_line(row) for row in rows)


def _line(row: Mapping[str, Any]) -> bytes:
    text = functools.partial(json.dumps, dict(row), allow_nan=False, default=_plain)
    try:
        return (text(ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # half of a pair, as a file's odd name becomes
        return (text() + "\n").encode()


def _plain(value: Any) -> Any:
    """NumPy and JAX scalars and arrays as Python numbers and lists."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise ValueError(f"{value!r} of type {type(value).__name__} is not for JSON")
