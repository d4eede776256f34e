"""Streams of TFDS sets in ArrayRecord files, without TensorFlow.

ArrayRecord files have an index, so any record can be read, and the order is that of
image folders: the examples of step s are those of ``global_indices``, spread over the
processes, so they depend on no number of processes. A stream that is taken up at a step
starts there; the windows of an image are drawn as in a folder, from seed, epoch and
example. Grain (https://google-grain.readthedocs.io) reads ahead, in threads
or in ``data.workers`` processes, which changes no bit.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from apr_jax.config import Data
from apr_jax.data import extra, folder, jpeg, shards, tf_example, tfds
from apr_jax.data import images as images_lib
from apr_jax.data.batches import Batch, Mix, epoch_seed, mixed_numbers
from apr_jax.errors import DataError

# Rows of a batch that are made in one go.
_CHUNK = 32
# Chunks of a stream without an end: more than any run has.
_FOR_EVER = 1 << 40


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


def train_stream(
    data: Data,
    *,
    seed: int,
    start_step: int,
    batch_size: int,
    rows: int,
    process_index: int,
) -> Iterator[Batch]:
    """Returns a stream as ``imagenet.train_stream``, of ``rows`` of each batch."""
    check_installed()
    records = Records(shards.pieces(data, data.train_split))
    names = tfds.class_names(tfds.open_builder(data)) if data.extra_dirs else ()
    files = folder.Files(extra.listings(data, names))
    work = _Train(
        records=records,
        files=files,
        mix=Mix(len(records), len(files), data.extra_ratio),
        seed=seed,
        first=start_step * batch_size + process_index * rows,
        batch_size=batch_size,
        rows=rows,
        size=data.image_size,
    )
    return _batches(data, work, rows, _FOR_EVER)


def eval_stream(data: Data, split: str, part: range, rows: int) -> Iterator[Batch]:
    """Returns batches of the examples at some places, in order; the last is shorter."""
    check_installed()
    records = Records(shards.cut(shards.pieces(data, split), part))
    work = _Eval(records, rows, data.image_size, data.eval_resize)
    return _batches(data, work, rows, -(-len(records) // rows))


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


class _Chunk(NamedTuple):
    """Some rows of a batch.

    Attributes:
        image: uint8 [N, S, S, 3]; black where it is broken.
        label: int32 [N].
        good: bool [N].
        trouble: [name, reason] of each image that is broken, as JSON; or, as a text,
            what the stream must end with.
    """

    image: np.ndarray
    label: np.ndarray
    good: np.ndarray
    trouble: str


# Encoded image, label and name, and how to make pixels of the image.
_Row = tuple[Callable[[], tuple[bytes, int]], str, Callable[[bytes, str], np.ndarray]]


@dataclasses.dataclass(frozen=True)
class _Train:
    """The rows of a process's training batches, chunk by chunk."""

    records: Records
    files: folder.Files
    mix: Mix
    seed: int
    first: int
    batch_size: int
    rows: int
    size: int

    def __call__(self, step: int, start: int) -> _Chunk:
        stop = min(start + _CHUNK, self.rows)
        numbers = self.first + step * self.batch_size + np.arange(start, stop)
        indices, epochs, seeds = mixed_numbers(self.seed, numbers, self.mix)
        mixing = [
            epoch_seed(int(s), int(e)) for s, e in zip(seeds, epochs, strict=True)
        ]
        drawn = jpeg.draws(np.stack([mixing, indices], axis=1))

        def row(i: int) -> _Row:
            index = int(indices[i])
            pixels = lambda contents, name: jpeg.train_pixels(
                contents, drawn[i], self.size, name=name
            )
            if index < self.mix.main:
                return (
                    lambda: self.records.read(index),
                    self.records.name(index),
                    pixels,
                )
            index -= self.mix.main
            path = self.files.path(index)
            label = int(self.files.labels[index])
            return lambda: (path.read_bytes(), label), str(path), pixels

        return _made([row(i) for i in range(stop - start)], self.size)


@dataclasses.dataclass(frozen=True)
class _Eval:
    """The rows of batches in order, chunk by chunk."""

    records: Records
    rows: int
    size: int
    shorter: int

    def __call__(self, step: int, start: int) -> _Chunk:
        first = step * self.rows
        stop = min(first + min(start + _CHUNK, self.rows), len(self.records))

        def pixels(contents: bytes, name: str) -> np.ndarray:
            whole = images_lib.decode(contents, name=name)
            return images_lib.fit(whole, self.size, self.shorter)

        def row(i: int) -> _Row:
            return lambda: self.records.read(i), self.records.name(i), pixels

        return _made([row(i) for i in range(first + start, stop)], self.size)


def _made(rows: Sequence[_Row], size: int) -> _Chunk:
    """Decodes rows; what is broken is noted, to be counted by the first process."""
    image = np.zeros((len(rows), size, size, 3), np.uint8)
    label, good = np.zeros(len(rows), np.int32), np.ones(len(rows), bool)
    trouble: Any = []
    for i, (read, name, pixels) in enumerate(rows):
        try:
            contents, label[i] = read()
            image[i] = pixels(contents, name)
        except (images_lib.BrokenImageError, OSError) as error:
            good[i] = False
            trouble.append([name, str(error)])
        except DataError as error:
            trouble = str(error)
            break
    return _Chunk(image, label, good, json.dumps(trouble))


class _Chunks:
    """All chunks of a stream by number, for Grain."""

    def __init__(self, work: Callable[[int, int], _Chunk], each: int, count: int):
        self._work, self._each, self._count = work, each, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> _Chunk:
        step, place = divmod(int(number), self._each)
        return self._work(step, place * _CHUNK)


def _batches(
    data: Data, work: Callable[[int, int], _Chunk], rows: int, steps: int
) -> Iterator[Batch]:
    """Joins the chunks of ``steps`` batches, which are made ahead.

    Yields:
        Batches of ``rows`` or fewer; the mask is false where a file is broken.
    """
    import grain

    each = -(-rows // _CHUNK)
    broken = images_lib.Broken(data.max_broken)
    threads = 1 if data.workers else os.cpu_count() or 1
    ahead = 2 if data.workers else max(2 * threads, 2 * each)
    chunks = grain.MapDataset.source(_Chunks(work, each, steps * each))
    found = chunks.to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    )
    if data.workers:
        # Grain asks its flags how to start processes, also where a program has none.
        from absl import flags

        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        found = found.mp_prefetch(
            grain.MultiprocessingOptions(data.workers, per_worker_buffer_size=2)
        )
    made = iter(found)
    try:
        for _ in range(steps):
            parts = [next(made) for _ in range(each)]
            for part in parts:
                trouble = json.loads(part.trouble)
                if isinstance(trouble, str):
                    raise DataError(trouble)
                for name, reason in trouble:
                    broken.add(name, reason)
            yield Batch(*(np.concatenate([p[i] for p in parts]) for i in range(3)))
    finally:
        if hasattr(made, "close"):
            made.close()


def _opened(pieces: Sequence[shards.Piece]) -> Any:
    from array_record.python import array_record_data_source

    return array_record_data_source.ArrayRecordDataSource(
        [_Instruction(p.file, p.skip, p.take, p.take) for p in pieces]
    )
