"""Walks of folders: the one place that says which entries are classes and images.

As torchvision's ImageFolder, whatever is read: class folders, extra images, out sets,
corrupted sets, and the sets that are to be corrupted.

- Images are the files whose names end in one of ``EXTENSIONS``, in a folder or in the
  folders in it, and what links lead to. Pipes, sockets and devices are none.
- Names that start with a dot, and those of ``JUNK``, are neither classes nor images:
  ``.ipynb_checkpoints``, ``._x.jpg``, ``__MACOSX``.
- A link that leads nowhere is an error that names it. If it is named as an image it
  is a broken image, as a damaged file is: ``data.max_broken`` may allow some.
- A link back to a folder that it lies in is not followed, and named in a warning.
"""

import logging
import os
import pathlib
from collections.abc import Iterator

from apr_jax.data import classes
from apr_jax.errors import DataError

_LOG = logging.getLogger(__name__)

EXTENSIONS = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm"),
    *(".tif", ".tiff", ".webp"),
)
# Folders that systems and programs leave beside those of the user.
JUNK = frozenset(
    {"__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"}
)


def folders(root: str | os.PathLike[str]) -> tuple[str, ...]:
    """The names of the folders in one, in the order of ``classes.ordered``.

    Raises:
        DataError: the folder can't be listed, or a link in it leads nowhere.
    """
    return classes.ordered(n for n, kind, _ in _entries(root) if kind == "folder")


def images(root: str | os.PathLike[str]) -> list[str]:
    """The paths, below a folder, of the images in it and in the folders in it.

    In the order of torchvision: folder by folder, sorted, the files of each sorted.

    Raises:
        DataError: as ``folders``.
    """
    real = pathlib.Path(root).resolve()
    above = frozenset(_identity(p) for p in (real, *real.parents) if p.exists())
    found = sorted(_walk(pathlib.Path(root), "", above))
    return [
        f"{below}/{name}" if below else name for below, names in found for name in names
    ]


def no_images(where: str) -> DataError:
    """The error of a place that has none."""
    return DataError(
        f"no images in {where}; their names end in one of {' '.join(EXTENSIONS)}"
    )


def stat(path: pathlib.Path) -> os.stat_result:
    """The facts of a listed file; those of the link where it leads nowhere."""
    try:
        return path.stat()
    except OSError:
        return path.lstat()


def _entries(root: str | os.PathLike[str]) -> Iterator[tuple[str, str, str]]:
    """Yields (name, kind, path) of the entries that aren't hidden, sorted by name.

    The kind is "folder", "image", or the empty string.
    """
    try:
        with os.scandir(root) as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"can't list {os.fspath(root)}: {error.strerror}") from error
    for entry in entries:
        if entry.name.startswith(".") or entry.name in JUNK:
            continue
        named = entry.name.lower().endswith(EXTENSIONS)
        link = entry.is_symlink()
        if link and not os.path.exists(entry.path) and not named:
            raise DataError(f"{entry.path} is a link that leads nowhere")
        kind = ""
        if os.path.isdir(entry.path) if link else entry.is_dir():
            kind = "folder"
        elif named and (_may_be_image(entry.path) if link else entry.is_file()):
            kind = "image"
        yield entry.name, kind, entry.path


def _may_be_image(link: str) -> bool:
    return os.path.isfile(link) or not os.path.exists(link)


def _walk(
    root: pathlib.Path, below: str, above: frozenset[tuple[int, int]]
) -> Iterator[tuple[str, list[str]]]:
    """Yields (path below ``root``, sorted names of images) of each folder."""
    names = []
    for name, kind, path in _entries(root / below):
        if kind == "image":
            names.append(name)
        elif kind == "folder":
            here = _identity(path)
            if here in above:
                _LOG.warning("%s leads back to where it lies; not followed", path)
                continue
            deeper = f"{below}/{name}" if below else name
            yield from _walk(root, deeper, above | {here})
    yield below, names


def _identity(path: str | os.PathLike[str]) -> tuple[int, int]:
    facts = os.stat(path)
    return facts.st_dev, facts.st_ino
