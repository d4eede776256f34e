"""Undecoded examples of TFDS sets in TFRecord files, as ``tf.data``.

A file of this form has no index, and is read from its start. An epoch that is taken up
in its middle is therefore made of the same steps as a whole one, the files by turns and
then the buffer that shuffles, but that records which were seen before are left unread:
their places hold empty examples, which are passed over. So the order is that of the
whole epoch, and what is read is what will be seen (and some between it, see ``_GAP``).
"""

from typing import Any

import numpy as np

from apr_jax.config import Data
from apr_jax.data import tfds
from apr_jax.data.batches import epoch_order, epoch_seed
from apr_jax.data.shards import Piece
from apr_jax.errors import DataError

# Files that are read by turns, and how many examples of one at a time.
_FILES_AT_ONCE = 16
_EXAMPLES_AT_ONCE = 16
# So many records between two that are wanted are read, too: passing over one means
# reading its length, and every run of records is looked for from its file's start.
_GAP = 4
# Numbers that the order of an epoch is handed over in.
_BLOCK = 8192


def train(data: Data, seed: int, first: int, mine: list[Piece]) -> Any:
    """Returns endless examples of pieces, shuffled anew in every epoch.

    Args:
        data: the set.
        seed: of the run.
        first: how many examples have been seen since the start of the run.
        mine: pieces that follow one another.

    Returns:
        A tf.data.Dataset of (contents string, label int64, seed int64 [2], name
        string).
    """
    tf = tfds.engine().tf
    size = sum(piece.take for piece in mine)
    if size == 0:
        raise DataError(
            f"split {data.train_split!r} of {data.name!r} has fewer examples than "
            "there are processes"
        )
    first_epoch, seen = divmod(first, size)
    at_once = min(_FILES_AT_ONCE, len(mine))

    def ordered(epoch: np.ndarray) -> tuple[Any, ...]:
        order = epoch_order(seed, int(epoch), len(mine))
        return *_columns([mine[i] for i in order]), epoch_seed(seed, int(epoch))

    def one_epoch(epoch: Any) -> Any:
        kinds = (tf.string, tf.int64, tf.int64, tf.int64, tf.int64)
        *columns, mixing = tf.numpy_function(ordered, [epoch], kinds)
        for column in columns:
            column.set_shape([None])
        mixing.set_shape([])
        reader = _Reader(tf, mixing)
        examples = _by_turns(tf, columns, reader.records, at_once)
        return _shuffled(examples, data, mixing)

    if not seen:
        return tf.data.Dataset.counter(np.int64(first_epoch)).flat_map(one_epoch)
    columns = _columns([mine[i] for i in epoch_order(seed, first_epoch, len(mine))])
    mixing = tf.constant(epoch_seed(seed, first_epoch), tf.int64)
    # The same steps with numbers alone tell which records have been seen.
    numbers = _by_turns(
        tf, columns, lambda _, skip, take, at: _numbers(tf, at, take), at_once
    )
    before = _shuffled(numbers, data, mixing).take(seen).batch(_BLOCK)
    wanted = np.ones(size, bool)
    for block in before.as_numpy_iterator():
        wanted[block - mine[0].first] = False
    remote = any("://" in piece.file for piece in mine)
    reader = _Reader(tf, mixing, wanted, mine[0].first, remote=remote)
    rest = _by_turns(tf, columns, reader.wanted_records, at_once)
    rest = _shuffled(rest, data, mixing).skip(seen)
    later = tf.data.Dataset.counter(np.int64(first_epoch + 1)).flat_map(one_epoch)
    return rest.concatenate(later)


def evaluate(part: list[Piece]) -> Any:
    """Returns the examples of pieces in order, as ``train`` has them."""
    tf = tfds.engine().tf
    columns = [tf.constant(column) for column in _columns(part)]
    reader = _Reader(tf, tf.constant(0, tf.int64))
    return _by_turns(tf, columns, reader.records, 1)


def runs_of(wanted: np.ndarray, gap: int = _GAP) -> np.ndarray:
    """Returns which places to read, and which to leave, to have all that is wanted.

    Args:
        wanted: bool [N].
        gap: so many places between two that are wanted are read as well.

    Returns:
        int64 [R, 3], runs from place 0 to N: start, length, and 1 for reading.
    """
    places = np.flatnonzero(wanted)
    if not len(places):
        return np.array([[0, len(wanted), 0]], np.int64)
    breaks = np.flatnonzero(np.diff(places) > gap + 1)
    starts = places[np.r_[0, breaks + 1]]
    stops = places[np.r_[breaks, len(places) - 1]] + 1
    ends = np.unique(np.r_[0, starts, stops, len(wanted)])
    lengths = np.diff(ends)
    return np.stack([ends[:-1], lengths, np.isin(ends[:-1], starts)], 1)


def _columns(part: list[Piece]) -> tuple[np.ndarray, ...]:
    """Returns files, and skip, take and first as int64, for TensorFlow."""
    return (
        np.asarray([piece.file.encode() for piece in part], np.bytes_),
        *(np.asarray([p[i] for p in part], np.int64) for i in range(1, 4)),
    )


def _by_turns(tf: Any, columns: Any, records: Any, at_once: int) -> Any:
    """Returns what ``records`` makes of pieces, by turns.

    Args:
        tf: the module.
        columns: of the pieces.
        records: (file, skip, take, first) to the examples of a piece.
        at_once: pieces that are read at a time.
    """
    return tf.data.Dataset.from_tensor_slices(tuple(columns)).interleave(
        records,
        cycle_length=at_once,
        block_length=_EXAMPLES_AT_ONCE,
        num_parallel_calls=at_once,
        deterministic=True,
    )


def _shuffled(examples: Any, data: Data, mixing: Any) -> Any:
    return examples.shuffle(
        data.shuffle_buffer, seed=mixing, reshuffle_each_iteration=False
    )


def _numbers(tf: Any, first: Any, count: Any) -> Any:
    return tf.data.Dataset.range(first, first + count)


class _Reader:
    """Examples of the records of a piece.

    They are (contents, label, seed, name); the seed is ``mixing`` and the number.

    Args:
        tf: the module.
        mixing: int64, of the epoch.
        wanted: bool [N], which records aren't left out, counted from ``first``.
        first: number of the first record.
        remote: whether the files are on another machine.
    """

    def __init__(
        self,
        tf: Any,
        mixing: Any,
        wanted: np.ndarray | None = None,
        first: int = 0,
        *,
        remote: bool = False,
    ) -> None:
        self._tf, self._mixing = tf, mixing
        self._wanted, self._first = wanted, first
        # Without a buffer what is passed over isn't read but for its length; from
        # afar many small reads take longer than one of everything.
        self._buffer = None if remote else 0

    def records(self, file: Any, skip: Any, take: Any, first: Any) -> Any:
        """All of a piece's examples."""
        found = self._tf.data.TFRecordDataset(file).skip(skip).take(take)
        return self._parsed(found, file, skip, first)

    def wanted_records(self, file: Any, skip: Any, take: Any, first: Any) -> Any:
        """A piece's examples, empty ones in the place of those that are left out."""
        tf = self._tf

        def runs(first: np.ndarray, take: np.ndarray) -> np.ndarray:
            assert self._wanted is not None
            start = int(first) - self._first
            return runs_of(self._wanted[start : start + int(take)])

        def run(row: Any) -> Any:
            whole = tf.data.TFRecordDataset(file, buffer_size=self._buffer)
            found = whole.skip(skip + row[0]).take(row[1] * row[2])
            left = _numbers(tf, 0, row[1] * (1 - row[2])).map(self._empty)
            parsed = self._parsed(found, file, skip + row[0], first + row[0])
            return parsed.concatenate(left)

        rows = tf.numpy_function(runs, [first, take], tf.int64)
        rows.set_shape([None, 3])
        return tf.data.Dataset.from_tensor_slices(rows).flat_map(run)

    def _parsed(self, found: Any, file: Any, skip: Any, first: Any) -> Any:
        """Examples of records, of which ``first`` is the number of the first one."""
        tf = self._tf
        wanted = {
            "image": tf.io.FixedLenFeature([], tf.string),
            "label": tf.io.FixedLenFeature([], tf.int64),
        }

        def parsed(number: Any, record: Any) -> Any:
            example = tf.io.parse_single_example(record, wanted)
            place = tf.strings.as_string(skip + number - first)
            name = tf.strings.join([file, place], "__")
            seed = tf.stack([self._mixing, number])
            return example["image"], example["label"], seed, name

        return found.enumerate(first).map(parsed)

    def _empty(self, _: Any) -> Any:
        tf = self._tf
        return "", tf.constant(0, tf.int64), tf.zeros(2, tf.int64), ""
