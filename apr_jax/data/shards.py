"""The files that a split of a prepared set of TFDS consists of."""

from typing import NamedTuple

from etils import epath

from apr_jax.config import Data
from apr_jax.data import tfds
from apr_jax.errors import DataError

# With an index of its own, so that any record can be read: see array_records.
INDEXED = "array_record"
FORMATS = ("tfrecord", INDEXED)


class Piece(NamedTuple):
    """A run of records in one file: ``take`` of them from ``skip`` on.

    ``first`` is the number, in the split, of the first of them.
    """

    file: str
    skip: int
    take: int
    first: int


def are_indexed(data: Data) -> bool:
    """Whether the files of a set are such that any record can be read.

    Raises:
        DataError: the set isn't there.
    """
    return data.source == "tfds" and _format(data) == INDEXED


def pieces(data: Data, split: str) -> list[Piece]:
    """Returns the files that a split consists of.

    Raises:
        DataError: the set, the split or a file isn't there, or the files are of a form
            that isn't read.
    """
    tfds.check_split(tfds.prepared_dir(data), split)
    form = _format(data)
    if form not in FORMATS:
        raise DataError(
            f"the files of {data.name!r} are {form}; streams read "
            f"{' and '.join(FORMATS)}: `tfds build {data.name} "
            "--file_format=array_record`"
        )
    found, first = [], 0
    with tfds.reading(data):
        parts = tfds.open_builder(data).info.splits[split].file_instructions
    for part in parts:
        if not epath.Path(part.filename).exists():
            raise DataError(f"{part.filename} of {data.name!r} isn't there")
        take = part.take if part.take >= 0 else part.examples_in_shard - part.skip
        found.append(Piece(str(part.filename), part.skip, take, first))
        first += take
    return found


def cut(whole: list[Piece], part: range) -> list[Piece]:
    """Returns the pieces of the examples whose places are in ``part``."""
    found = []
    for piece in whole:
        start = max(part.start, piece.first)
        stop = min(part.stop, piece.first + piece.take)
        if start < stop:
            skip = piece.skip + start - piece.first
            found.append(Piece(piece.file, skip, stop - start, start))
    return found


def _format(data: Data) -> str:
    builder = tfds.open_builder(data)
    return str(builder.info.file_format.value)
