"""Folders and objects in stores such as S3, with the methods of ``pathlib`` for runs.

A store has no folders, no renames and no appends. An object is put whole: nobody sees
half of one, and of two that put it the last one stays. What is in a store is read and
written through fsspec and the package that it has for it, which users install.
"""

import contextlib
import dataclasses
import errno
import fnmatch
import functools
import importlib.util
import io
import pathlib
import posixpath
from collections.abc import Iterator
from typing import IO, Any

from apr_jax.errors import ConfigError

# The stores of addresses, SCHEME://BUCKET/NAME, and the package that opens each.
PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}


@dataclasses.dataclass(frozen=True)
class Stat:
    """What is said of an object: its size in bytes."""

    st_size: int


@dataclasses.dataclass(frozen=True, order=True)
class StorePath:
    """An object, or what would be a folder on a disk: all objects of names below.

    Its methods are those of ``pathlib.Path`` of the same name; every failure is an
    OSError with the address as its ``filename``. It is no ``os.PathLike``, as no
    function of the system can open it.

    Attributes:
        scheme: of ``PACKAGES``.
        key: bucket and name, with no slash at either end.
    """

    scheme: str
    key: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.key}"

    def __truediv__(self, name: str) -> "StorePath":
        return StorePath(self.scheme, f"{self.key}/{name}")

    def joinpath(self, *names: str) -> "StorePath":
        return self / "/".join(names)

    @property
    def name(self) -> str:
        return posixpath.basename(self.key)

    @property
    def suffix(self) -> str:
        return posixpath.splitext(self.name)[1]

    @property
    def parent(self) -> "StorePath":
        return StorePath(self.scheme, posixpath.dirname(self.key) or self.key)

    def absolute(self) -> "StorePath":
        return self

    def resolve(self) -> "StorePath":
        return self

    def is_relative_to(self, other: "StorePath") -> bool:
        return self == other or str(self).startswith(f"{other}/")

    # --- What is there ---

    def exists(self) -> bool:
        return self._kind() != ""

    def is_dir(self) -> bool:
        return self._kind() == "directory"

    def is_file(self) -> bool:
        return self._kind() == "file"

    def stat(self) -> Stat:
        with self._explained() as files:
            return Stat(files.info(self.key)["size"])

    def iterdir(self) -> Iterator["StorePath"]:
        with self._explained() as files:
            try:
                found = files.ls(self.key, detail=False)
            except FileNotFoundError:
                found = []
        names = {key.rstrip("/").lstrip("/") for key in found} - {self.key}
        yield from (StorePath(self.scheme, key) for key in sorted(names))

    def glob(self, pattern: str) -> Iterator["StorePath"]:
        """What is in the folder itself and has a name of a pattern."""
        return (p for p in self.iterdir() if fnmatch.fnmatchcase(p.name, pattern))

    def below(self) -> list[str]:
        """Names of all objects below it, relative to it."""
        with self._explained() as files:
            found = [key.lstrip("/") for key in files.find(self.key)]
        start = len(self.key) + 1
        return [key[start:] for key in found if key[start:]]

    def _kind(self) -> str:
        """ "file", "directory", or "" for nothing."""
        with self._explained() as files:
            try:
                return str(files.info(self.key)["type"])
            except FileNotFoundError:
                return ""

    # --- Reading ---

    def read_bytes(self) -> bytes:
        with self._explained() as files:
            return bytes(files.cat_file(self.key))

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def open(self, mode: str = "rb") -> IO[bytes]:
        """The object, in memory; to be read alone."""
        assert mode == "rb"
        return io.BytesIO(self.read_bytes())

    def download(self, target: pathlib.Path) -> None:
        """Copies the object to a file of this machine."""
        with self._explained() as files:
            files.get_file(self.key, str(target))

    # --- Writing ---

    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: a folder is there as soon as there is something in it."""

    def touch(self) -> None:
        self.write_bytes(b"")

    def write_bytes(self, contents: bytes) -> None:
        with self._explained() as files:
            files.pipe_file(self.key, contents)

    def write_new(self, contents: bytes) -> bool:
        """Puts an object unless there is one; of several who try, one is told True."""
        with self._explained() as files:
            try:
                files.pipe_file(self.key, contents, mode="create")
            except FileExistsError:
                return False
        return True

    def upload(self, source: pathlib.Path) -> None:
        """Copies a file of this machine to the object."""
        with self._explained() as files:
            files.put_file(str(source), self.key)

    def copy(self, target: "StorePath") -> None:
        """Copies the object to another one of the same store."""
        with self._explained() as files:
            files.cp_file(self.key, target.key)

    def unlink(self, missing_ok: bool = False) -> None:
        with self._explained() as files:
            try:
                files.rm_file(self.key)
            except FileNotFoundError:
                if not missing_ok:
                    raise

    @contextlib.contextmanager
    def _explained(self) -> Iterator[Any]:
        """The store's files; what goes wrong with them is an OSError of this name."""
        try:
            yield _files(self.scheme)
        except OSError as error:
            number, said = error.errno, error.strerror or str(error)
            if number is None:
                missing = isinstance(error, FileNotFoundError)
                number = errno.ENOENT if missing else errno.EIO
            raise OSError(number, _line(said or repr(error)), str(self)) from error
        except Exception as error:  # each package has kinds of its own
            said = f"{type(error).__name__}: {_line(str(error))}"
            raise OSError(errno.EIO, said, str(self)) from error


# A file or a folder: of this machine, or in a store.
Place = pathlib.Path | StorePath


def find(address: str, name: str) -> StorePath:
    """The place of an address.

    Args:
        address: SCHEME://BUCKET/NAME.
        name: of the flag or field, for the message.

    Raises:
        ConfigError: it is of another scheme, names no bucket, or the package that
            opens it isn't installed.
    """
    scheme, _, key = address.partition("://")
    if scheme not in PACKAGES:
        known = ", ".join(f"{known}://" for known in PACKAGES)
        raise ConfigError(
            f"{name} is {address!r}; it must be a file or folder that this machine "
            f"sees, or in a store ({known}). Mount what lies elsewhere"
        )
    parts = [part for part in key.split("/") if part]
    if not parts or {".", ".."} & set(parts):
        raise ConfigError(f"{name} is {address!r}; it must be {scheme}://BUCKET/NAME")
    if importlib.util.find_spec(PACKAGES[scheme]) is None:
        raise ConfigError(
            f"{name} is {address!r}, and {PACKAGES[scheme]} is not installed: pip "
            f"install {PACKAGES[scheme]}"
        )
    return StorePath(scheme, "/".join(parts))


@functools.cache
def _files(scheme: str) -> Any:
    import fsspec

    # What another process has just written must be seen.
    return fsspec.filesystem(scheme, use_listings_cache=False)


def _line(text: str) -> str:
    return text.strip().split("\n")[0][:300]
