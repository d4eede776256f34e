"""Names of classes, their order, and labels, wherever they come from."""

import codecs
import functools
import logging
import pathlib
import re
from collections.abc import Iterable, Sequence

import numpy as np

from apr_jax.errors import DataError

_LOG = logging.getLogger(__name__)
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_HOW = (
    "count them from 0 without a gap, or name the classes: class_names.txt beside the "
    "files, or 'class_names' in the .npz"
)


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Returns names of class folders in the order of their labels.

    Sorted as texts, as torchvision's ImageFolder does; where all are numbers, as
    numbers, so that 2 comes before 10, which torchvision does not: a line in the log
    says so where it makes a difference.
    """
    as_texts = tuple(sorted(names))
    if not all(re.fullmatch("[0-9]+", name) for name in as_texts):
        return as_texts
    as_numbers = tuple(sorted(as_texts, key=int))
    if as_numbers != as_texts:
        _say(as_numbers, as_texts)
    return as_numbers


@functools.cache  # once
def _say(as_numbers: tuple[str, ...], as_texts: tuple[str, ...]) -> None:
    _LOG.warning(
        "%d folders named by number, from %s on, are sorted as numbers; torchvision "
        "sorts them as text (%s, ...), so weights from there count classes in that "
        "order",
        *(len(as_texts), as_numbers[0], ", ".join(as_texts[:3])),
    )


def read_text(path: pathlib.Path) -> tuple[str, ...]:
    """Reads names, one a line: UTF-8, UTF-16 with its mark, or else Latin-1.

    Blank lines at the end don't count, nor does it count whether the last line ends.

    Raises:
        DataError: it can't be read, has no names, a blank line between names, or a
            name twice.
    """
    try:
        contents = path.read_bytes()
    except OSError as error:
        raise DataError(f"can't read {path}: {error.strerror}") from error
    marked = [name for mark, name in _MARKS.items() if contents.startswith(mark)]
    for encoding in (*marked, "utf-8", "latin-1"):
        try:
            text = contents.decode(encoding)
            break
        except UnicodeDecodeError:
            continue
    names = [line.strip() for line in re.split("\r\n|\r|\n", text.rstrip())]
    if "" in names:
        raise DataError(
            f"line {names.index('') + 1} of {path} is blank; it must name a class"
        )
    return each_once(names, f"lines {{}} of {path}", first=1)


def of_array(names: np.ndarray, where: str) -> tuple[str, ...]:
    """Returns the names in an array of texts or bytes [K].

    Raises:
        DataError: another shape or type, or a name twice; the message names ``where``.
    """
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise DataError(
            f"class_names of {where} are {names.dtype} {list(names.shape)}; they must "
            "be texts [K]"
        )
    found = [n.decode() if isinstance(n, bytes) else str(n) for n in names]
    return each_once(found, f"class_names {{}} of {where}", first=0)


def each_once(names: Sequence[str], where: str, *, first: int) -> tuple[str, ...]:
    """The names; raises DataError for one that several classes have, and says which."""
    for name in names:
        if names.count(name) > 1:
            places = [i for i, other in enumerate(names, first) if other == name]
            text = where.format(" and ".join(map(str, places)))
            raise DataError(f"{text} are all {name!r}; two classes need two names")
    return tuple(names)


def by_number(labels: np.ndarray, where: str) -> tuple[str, ...]:
    """Returns numbers as the names of classes that have no others.

    Args:
        labels: of all training images, at least 0.
        where: they come from.

    Raises:
        DataError: a label doesn't occur, below the largest: they count from 1, are the
            numbers of some classes among many, or one of them is wrong.
    """
    there = np.unique(labels)
    gaps = np.flatnonzero(there != np.arange(len(there)))
    if len(gaps):
        raise DataError(
            f"labels of {where} go from {there[0]} to {there[-1]}, and none is "
            f"{gaps[0]}; {_HOW}"
        )
    return tuple(map(str, range(len(there))))


def labels(found: np.ndarray, count: int, where: str) -> np.ndarray:
    """Returns labels as int32 [N].

    Raises:
        DataError: no integers, not ``count`` of them, one below 0 or beyond int32; the
            message names ``where``.
    """
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise DataError(
            f"labels of {where} are {found.dtype} {list(found.shape)}; "
            "they must be integers [N]"
        )
    if len(found) != count:
        raise DataError(f"{where} has {count} images and {len(found)} labels")
    outside = (found < 0) | (found > np.iinfo(np.int32).max)
    if outside.any():
        first = int(np.argmax(outside))
        raise DataError(
            f"label {found[first]} of example {first} in {where} is out of range: "
            "labels count from 0"
        )
    return found.astype(np.int32)


def difference(names: Sequence[str], wanted: Sequence[str]) -> str:
    """The difference of some classes from others, in words."""
    missing = sorted(set(wanted) - set(names))[:5]
    added = sorted(set(names) - set(wanted))[:5]
    return f"{len(names)} and {len(wanted)}, missing {missing}, only there {added}"


def check_same(names: Sequence[str], expected: Sequence[str], where: str) -> None:
    """Raises DataError unless a set has the classifier's classes, in their order."""
    if len(names) != len(expected):
        raise DataError(
            f"{where} has {len(names)} classes, the classifier {len(expected)}"
        )
    if list(expected) == [str(i) for i in range(len(expected))]:
        return  # named by number, for want of anything better
    for i, (name, wanted) in enumerate(zip(names, expected, strict=True)):
        if name != wanted:
            raise DataError(
                f"class {i} of {where} is {name!r}, the classifier's is {wanted!r}"
            )
