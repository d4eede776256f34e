"""Undecoded examples of large images, in a reproducible order, as ``tf.data``.

Each example is (handle, label, seed, name): the handle is the path of a file, or the
contents of one; the seed belongs to (run, epoch, example). Where extra images are mixed
in with those of TFDS, the handle of one is its path after ``file:``.
"""

import os
import pathlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from apr_jax.config import Data
from apr_jax.data import extra, folder, tfds
from apr_jax.data.batches import Mix, epoch_order, mixed_numbers
from apr_jax.errors import DataError

_SEED_STREAM = 0xC409
# TFDS files that are read by turns, and how many examples of one at a time.
_FILES_AT_ONCE = 16
_EXAMPLES_AT_ONCE = 16
# Paths that the generator hands over at a time.
_BLOCK = 256
# Before the path of a file where other handles are contents; no image begins so.
_PATH = b"file:"


class Raw(NamedTuple):
    """Undecoded examples, and how to get at the contents of one.

    Attributes:
        examples: tf.data.Dataset of (handle string, label int64, seed int64 [2],
            name string).
        tf_contents: a handle to the contents of the file, in TensorFlow.
        contents: the same for a handle as ``bytes``.
    """

    examples: Any
    tf_contents: Callable[[Any], Any]
    contents: Callable[[bytes], bytes]


def num_examples(data: Data, split: str) -> int:
    """Returns the number of images in a split."""
    if data.source == "folder":
        return len(folder.listing(data, split).files)
    return sum(piece.take for piece in _pieces(data, split))


def train(
    data: Data,
    *,
    seed: int,
    start_step: int,
    batch_size: int,
    process_index: int,
    process_count: int,
) -> Raw:
    """Returns one process's endless training examples, from a step on."""
    rows = batch_size // process_count
    if data.source == "folder":
        first = start_step * batch_size + process_index * rows
        return _folder_train(data, seed, first, rows, batch_size)
    pieces = _pieces(data, data.train_split)
    size = sum(p.take for p in pieces)
    mine = _cut(pieces, share(size, process_index, process_count))
    if not data.extra_dirs:
        return _tfds_train(data, seed, start_step * rows, mine)
    names = tfds.class_names(tfds.open_builder(data))
    files = folder.Files(extra.listings(data, names))
    mix = Mix(size, len(files), data.extra_ratio)
    starts = np.arange(start_step + 1, dtype=np.int64) * batch_size
    starts += process_index * rows
    further = mix.extra_before(starts + rows) - mix.extra_before(starts)
    main = _tfds_train(data, seed, start_step * rows - int(further[:-1].sum()), mine)
    return _mixed(main, files, mix, seed, int(starts[-1]), rows, batch_size)


def evaluate(data: Data, split: str, part: range) -> Raw:
    """Returns the examples of a split whose places are in ``part``, in order."""
    if data.source == "folder":
        return _folder_eval(data, split, part)
    return _tfds_eval(_cut(_pieces(data, split), part))


def share(size: int, process_index: int, process_count: int) -> range:
    """Returns the places of the examples that a process has; shares differ by 1."""
    start, stop = ((process_index + i) * size // process_count for i in range(2))
    return range(start, stop)


def epoch_seed(seed: int, epoch: int) -> int:
    """Returns a number from 0 to 2^63 - 1 for an epoch of a run."""
    state = np.random.SeedSequence([_SEED_STREAM, int(seed), int(epoch)])
    return int(state.generate_state(1, np.uint64)[0] >> np.uint64(1))


# Paths, labels int64 [N], and seeds int64 [N, 2] of some files.
Block = tuple[np.ndarray, np.ndarray, np.ndarray]


# --- Image folders: the handle is a path.


def _folder_train(data: Data, seed: int, first: int, rows: int, batch_size: int) -> Raw:
    main = folder.listing(data, data.train_split)
    files = folder.Files([main, *extra.listings(data, main.class_names)])
    size = len(main.files)
    mix = Mix(size, len(files) - size, data.extra_ratio)

    def block(i: np.ndarray) -> Block:
        numbers = _places(first, i, rows, batch_size)
        indices, epochs, seeds = mixed_numbers(seed, numbers, mix)
        return _block(files, indices, map(epoch_seed, seeds, epochs))

    return _folder_raw(block, None)


def _folder_eval(data: Data, split: str, part: range) -> Raw:
    files = folder.Files([folder.listing(data, split)])

    def block(i: np.ndarray) -> Block:
        start = part.start + int(i) * _BLOCK
        indices = np.arange(start, min(start + _BLOCK, part.stop))
        return _block(files, indices, [0] * len(indices))

    return _folder_raw(block, -(-len(part) // _BLOCK))


def _places(first: int, i: np.ndarray, rows: int, batch_size: int) -> np.ndarray:
    """Returns the places, int64 [rows], of the i-th step after ``first`` in a run."""
    start = first + int(i) * batch_size
    return np.arange(start, start + rows, dtype=np.int64)


def _block(files: folder.Files, indices: np.ndarray, seeds: Iterable[int]) -> Block:
    paths = [os.fsencode(files.path(int(i))) for i in indices]
    labels = files.labels[indices].astype(np.int64)
    numbers = np.asarray(list(seeds), np.int64)
    # An empty list of paths would be taken for numbers.
    names = np.asarray(paths, np.bytes_)
    return names, labels, np.stack([numbers, indices], axis=1)


def _folder_raw(block: Callable[[np.ndarray], Block], count: int | None) -> Raw:
    """Makes examples of blocks 0, 1, ... up to ``count``, or for ever."""
    tf = tfds.engine().tf

    def block_in_graph(i: Any) -> Any:
        kinds = (tf.string, tf.int64, tf.int64)
        paths, labels, seeds = tf.numpy_function(block, [i], kinds)
        for part, shape in ((paths, [None]), (labels, [None]), (seeds, [None, 2])):
            part.set_shape(shape)
        return paths, labels, seeds, paths

    # Not Dataset.from_generator: at the end of the program it complains of Python
    # being gone.
    numbers = (
        tf.data.Dataset.counter() if count is None else tf.data.Dataset.range(count)
    )
    return Raw(
        numbers.map(block_in_graph).unbatch(),
        tf.io.read_file,
        lambda path: pathlib.Path(os.fsdecode(path)).read_bytes(),
    )


# --- TFDS: the handle is the contents, read along with the record.


class _Piece(NamedTuple):
    """A run of records in one file: ``take`` of them from ``skip`` on.

    ``first`` is the number, in the split, of the first of them.
    """

    file: str
    skip: int
    take: int
    first: int


def _pieces(data: Data, split: str) -> list[_Piece]:
    """Returns the files that a split consists of."""
    tfds.check_split(tfds.prepared_dir(data), split)
    builder = tfds.open_builder(data)
    if builder.info.file_format.value != "tfrecord":
        raise DataError(
            f"the files of {data.name!r} are {builder.info.file_format.value}; streams "
            f"read tfrecord: `tfds build {data.name} --file_format=tfrecord`"
        )
    pieces, first = [], 0
    with tfds.reading(data):
        parts = builder.info.splits[split].file_instructions
    for part in parts:
        if not epath.Path(part.filename).exists():
            raise DataError(f"{part.filename} of {data.name!r} isn't there")
        take = part.take if part.take >= 0 else part.examples_in_shard - part.skip
        pieces.append(_Piece(str(part.filename), part.skip, take, first))
        first += take
    return pieces


def _cut(pieces: list[_Piece], part: range) -> list[_Piece]:
    """Returns the pieces of the examples whose places are in ``part``."""
    cut = []
    for piece in pieces:
        start = max(part.start, piece.first)
        stop = min(part.stop, piece.first + piece.take)
        if start < stop:
            skip = piece.skip + start - piece.first
            cut.append(_Piece(piece.file, skip, stop - start, start))
    return cut


def _tfds_train(data: Data, seed: int, first: int, pieces: list[_Piece]) -> Raw:
    """Returns endless examples of pieces, shuffled anew in every epoch."""
    tf = tfds.engine().tf
    size = sum(piece.take for piece in pieces)
    if size == 0:
        raise DataError(
            f"split {data.train_split!r} of {data.name!r} has fewer examples than "
            "there are processes"
        )
    first_epoch, skipped = divmod(first, size)

    def ordered(epoch: np.ndarray) -> tuple[Any, ...]:
        order = epoch_order(seed, int(epoch), len(pieces))
        return *_columns([pieces[i] for i in order]), epoch_seed(seed, int(epoch))

    def one_epoch(epoch: Any) -> Any:
        kinds = (tf.string, tf.int64, tf.int64, tf.int64, tf.int64)
        *columns, mixing = tf.numpy_function(ordered, [epoch], kinds)
        for column in columns:
            column.set_shape([None])
        mixing.set_shape([])
        examples = _read(tf, columns, mixing, min(_FILES_AT_ONCE, len(pieces)))
        return examples.shuffle(
            data.shuffle_buffer, seed=mixing, reshuffle_each_iteration=False
        )

    epochs = tf.data.Dataset.counter(np.int64(first_epoch))
    return _tfds_raw(epochs.flat_map(one_epoch).skip(skipped))


def _tfds_eval(pieces: list[_Piece]) -> Raw:
    tf = tfds.engine().tf
    columns = [tf.constant(column) for column in _columns(pieces)]
    return _tfds_raw(_read(tf, columns, tf.constant(0, tf.int64), 1))


def _columns(pieces: list[_Piece]) -> tuple[np.ndarray, ...]:
    """Returns files, and skip, take and first as int64, for TensorFlow."""
    return (
        np.asarray([piece.file.encode() for piece in pieces], np.bytes_),
        *(np.asarray([p[i] for p in pieces], np.int64) for i in range(1, 4)),
    )


def _read(tf: Any, columns: list[Any], mixing: Any, at_once: int) -> Any:
    """Returns examples of the records of pieces, by turns.

    Elements are (contents, label, seed, name); the seed is ``mixing`` and the number.
    """
    wanted = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }

    def records(file: Any, skip: Any, take: Any, first: Any) -> Any:
        def parsed(number: Any, record: Any) -> Any:
            example = tf.io.parse_single_example(record, wanted)
            place = tf.strings.as_string(skip + number - first)
            name = tf.strings.join([file, place], "__")
            seed = tf.stack([mixing, number])
            return example["image"], example["label"], seed, name

        found = tf.data.TFRecordDataset(file).skip(skip).take(take)
        return found.enumerate(first).map(parsed)

    return tf.data.Dataset.from_tensor_slices(tuple(columns)).interleave(
        records,
        cycle_length=at_once,
        block_length=_EXAMPLES_AT_ONCE,
        num_parallel_calls=at_once,
        deterministic=True,
    )


def _tfds_raw(examples: Any) -> Raw:
    return Raw(examples, lambda contents: contents, lambda contents: contents)


# --- TFDS with extra images from folders.


def _mixed(
    main: Raw,
    files: folder.Files,
    mix: Mix,
    seed: int,
    first: int,
    rows: int,
    batch_size: int,
) -> Raw:
    """Puts extra images into the places of a run that a mix gives them.

    Args:
        main: examples for the other places, whose handles are contents.
        files: the extra images.
        mix: the sets.
        seed: of the run.
        first: this process's first place.
        rows: of a batch, that are this process's.
        batch_size: of all processes.
    """
    tf = tfds.engine().tf

    def block(i: np.ndarray) -> Block:
        numbers = _places(first, i, rows, batch_size)
        numbers = numbers[mix.is_extra(numbers)]
        indices, epochs, seeds = mixed_numbers(seed, numbers, mix)
        return _block(files, indices - mix.main, map(epoch_seed, seeds, epochs))

    def choice(i: np.ndarray) -> np.ndarray:
        return mix.is_extra(_places(first, i, rows, batch_size)).astype(np.int64)

    def choice_in_graph(i: Any) -> Any:
        chosen = tf.numpy_function(choice, [i], tf.int64)
        chosen.set_shape([rows])
        return chosen

    def tf_contents(handle: Any) -> Any:
        is_path = tf.strings.substr(handle, 0, len(_PATH)) == _PATH
        path = tf.strings.substr(handle, len(_PATH), tf.strings.length(handle))
        return tf.cond(is_path, lambda: tf.io.read_file(path), lambda: handle)

    def contents(handle: bytes) -> bytes:
        if not handle.startswith(_PATH):
            return handle
        return pathlib.Path(os.fsdecode(handle[len(_PATH) :])).read_bytes()

    extra_examples = _folder_raw(block, None).examples.map(
        lambda path, *others: (tf.strings.join([_PATH, path]), *others)
    )
    choices = tf.data.Dataset.counter().map(choice_in_graph).unbatch()
    examples = tf.data.Dataset.choose_from_datasets(
        [main.examples, extra_examples], choices
    )
    return Raw(examples, tf_contents, contents)
