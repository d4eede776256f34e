"""The records of TFDS sets in ArrayRecord files, which have an index."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from apr_jax.data import shards, tf_example
from apr_jax.errors import DataError


class _Instruction(NamedTuple):
    """Which records of a file are meant, as ArrayRecord asks for it."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


class Records:
    """The records of a split, opened where they are read.

    Args:
        pieces: of the split, or of a part of it.
    """

    def __init__(self, pieces: Sequence[shards.Piece]) -> None:
        self._pieces = tuple(pieces)
        self._starts = np.cumsum([0, *(piece.take for piece in self._pieces)])
        self._source: Any = None

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_source": None}

    def name(self, number: int) -> str:
        """What a record is called: its file and its place there, as by TFDS."""
        at = int(np.searchsorted(self._starts, number, side="right")) - 1
        piece = self._pieces[at]
        return f"{piece.file}__{piece.skip + number - int(self._starts[at])}"

    def read(self, number: int) -> tuple[bytes, int]:
        """An encoded image and its label.

        Raises:
            DataError: the record can't be read, or isn't of an image and a label.
        """
        if self._source is None:
            self._source = _opened(self._pieces)
        try:
            return tf_example.decode(self._source[number])
        except (RuntimeError, ValueError, OSError, IndexError) as error:
            text = (str(error).strip().splitlines() or [""])[0]
            raise DataError(f"{self.name(number)} can't be read: {text}") from error


def check_installed() -> None:
    """Raises DataError where the packages that read such files aren't there."""
    try:
        import array_record  # noqa: F401
        import grain  # noqa: F401
    except ModuleNotFoundError as error:
        raise DataError(
            f"{error.name} is not installed, which reads ArrayRecord files: pip "
            "install 'apr_jax[grain]'"
        ) from error


def _opened(pieces: Sequence[shards.Piece]) -> Any:
    from array_record.python import array_record_data_source

    return array_record_data_source.ArrayRecordDataSource(
        [_Instruction(p.file, p.skip, p.take, p.take) for p in pieces]
    )
