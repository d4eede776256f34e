"""Undecoded examples of TFRecord files, in a reproducible order, as ``tf.data``.

Each example is (handle, label, seed, name): the handle is the contents of an image; the
seed belongs to (run, epoch, example). Where extra images are mixed in, the handle of
one is its path after ``file:``.
"""

import os
import pathlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from apr_jax.config import Data
from apr_jax.data import extra, folder, shards, tfds, tfrecords
from apr_jax.data.batches import Mix, epoch_seed, mixed_numbers

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
    return sum(piece.take for piece in shards.pieces(data, split))


def class_names(data: Data) -> tuple[str, ...]:
    """Returns the names of the classes, in the order of the labels."""
    if data.source == "folder":
        return folder.listing(data, data.train_split).class_names
    return tfds.class_names(tfds.open_builder(data))


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
    pieces = shards.pieces(data, data.train_split)
    size = sum(p.take for p in pieces)
    mine = shards.cut(pieces, share(size, process_index, process_count))
    if not data.extra_dirs:
        return _inline(tfrecords.train(data, seed, start_step * rows, mine))
    files = folder.Files(extra.listings(data, class_names(data)))
    mix = Mix(size, len(files), data.extra_ratio)
    starts = np.arange(start_step + 1, dtype=np.int64) * batch_size
    starts += process_index * rows
    further = mix.extra_before(starts + rows) - mix.extra_before(starts)
    seen = start_step * rows - int(further[:-1].sum())
    main = tfrecords.train(data, seed, seen, mine)
    return _mixed(main, files, mix, seed, int(starts[-1]), rows, batch_size)


def evaluate(data: Data, split: str, part: range) -> Raw:
    """Returns the examples of a split whose places are in ``part``, in order."""
    pieces = shards.cut(shards.pieces(data, split), part)
    return _inline(tfrecords.evaluate(pieces))


def share(size: int, process_index: int, process_count: int) -> range:
    """Returns the places of the examples that a process has; shares differ by 1."""
    start, stop = ((process_index + i) * size // process_count for i in range(2))
    return range(start, stop)


# Paths, labels int64 [N], and seeds int64 [N, 2] of some files.
Block = tuple[np.ndarray, np.ndarray, np.ndarray]


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


def _of_files(block: Callable[[np.ndarray], Block]) -> Any:
    """Examples of blocks 0, 1, ... for ever, whose handles are paths."""
    tf = tfds.engine().tf

    def block_in_graph(i: Any) -> Any:
        kinds = (tf.string, tf.int64, tf.int64)
        paths, labels, seeds = tf.numpy_function(block, [i], kinds)
        for part, shape in ((paths, [None]), (labels, [None]), (seeds, [None, 2])):
            part.set_shape(shape)
        return paths, labels, seeds, paths

    # Not Dataset.from_generator: at the end of the program it complains of Python
    # being gone.
    return tf.data.Dataset.counter().map(block_in_graph).unbatch()


def _inline(examples: Any) -> Raw:
    """Examples whose handles are contents, read along with the record."""
    return Raw(examples, lambda contents: contents, lambda contents: contents)


def _mixed(
    main: Any,
    files: folder.Files,
    mix: Mix,
    seed: int,
    first: int,
    rows: int,
    batch_size: int,
) -> Raw:
    """Puts extra images into the places of a run that a mix gives them.

    Args:
        main: dataset of examples for the other places, whose handles are contents.
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

    extra_examples = _of_files(block).map(
        lambda path, *others: (tf.strings.join([_PATH, path]), *others)
    )
    choices = tf.data.Dataset.counter().map(choice_in_graph).unbatch()
    examples = tf.data.Dataset.choose_from_datasets([main, extra_examples], choices)
    return Raw(examples, tf_contents, contents)
