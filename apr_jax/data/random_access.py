"""Streams of images that can be read in any order: image folders, ArrayRecord files.

The examples of step s are those of ``global_indices``, spread over the processes, so
they depend on no number of processes. A stream that is taken up at a step starts there.
The random window of an image is drawn from (seed, epoch, example). TensorFlow isn't
needed: Pillow decodes, in threads, or in ``data.workers`` processes of Grain
(https://google-grain.readthedocs.io), which changes no bit; records are read by Grain
in either case.
"""

import collections
import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent import futures
from typing import Any, NamedTuple, Protocol

import numpy as np

from apr_jax.config import Data
from apr_jax.data import array_records, extra, folder, jpeg, records, shards
from apr_jax.data import images as images_lib
from apr_jax.data.batches import Batch, Mix, epoch_seed, mixed_numbers
from apr_jax.errors import DataError

# Rows of a batch that are made in one go.
_CHUNK = 32
# Chunks of a stream without an end: more than any run has.
_FOR_EVER = 1 << 40


def serves(data: Data) -> bool:
    """Whether a set can be read in any order.

    Raises:
        DataError: a set of TFDS isn't there.
    """
    return data.source == "folder" or shards.are_indexed(data)


class Items(Protocol):
    """Encoded images and labels by number."""

    def __len__(self) -> int: ...

    def name(self, number: int) -> str:
        """What an image is called."""
        ...

    def read(self, number: int) -> tuple[bytes, int]:
        """The file's contents, and the label."""
        ...


class FileItems:
    """Files of folders.

    Args:
        files: numbered.
    """

    def __init__(self, files: folder.Files) -> None:
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def name(self, number: int) -> str:
        """The path."""
        return str(self._files.path(number))

    def read(self, number: int) -> tuple[bytes, int]:
        """The contents and the label."""
        contents = self._files.path(number).read_bytes()
        return contents, int(self._files.labels[number])


def train_work(
    data: Data,
    *,
    seed: int,
    start_step: int,
    batch_size: int,
    rows: int,
    process_index: int,
) -> Callable[[int, int], "_Chunk"]:
    """Returns what makes rows of ``imagenet.train_stream``, ``rows`` of each batch.

    It makes those of a step, counted from ``start_step``, from one of them on.
    """
    main = _items(data, data.train_split)
    names = records.class_names(data) if data.extra_dirs else ()
    further = FileItems(folder.Files(extra.listings(data, names)))
    return _Train(
        main=main,
        further=further,
        mix=Mix(len(main), len(further), data.extra_ratio),
        seed=seed,
        first=start_step * batch_size + process_index * rows,
        batch_size=batch_size,
        rows=rows,
        size=data.image_size,
    )


def eval_stream(data: Data, split: str, part: range, rows: int) -> Iterator[Batch]:
    """Returns batches of the examples at some places, in order; the last is shorter."""
    items = _items(data, split)
    work = _Eval(items, part, rows, data.image_size, data.eval_resize)
    return batches(data, work, rows, steps=-(-len(part) // rows))


def _items(data: Data, split: str) -> Items:
    if data.workers or data.source != "folder":
        array_records.check_installed()
    if data.source == "folder":
        return FileItems(folder.Files([folder.listing(data, split)]))
    return array_records.Records(shards.pieces(data, split))


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

    main: Items
    further: Items
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
            index, items = int(indices[i]), self.main
            if index >= self.mix.main:
                index, items = index - self.mix.main, self.further
            pixels = lambda contents, name: jpeg.train_pixels(
                contents, drawn[i], self.size, name=name
            )
            return lambda: items.read(index), items.name(index), pixels

        return _made([row(i) for i in range(stop - start)], self.size)


@dataclasses.dataclass(frozen=True)
class _Eval:
    """The rows of batches in order, chunk by chunk."""

    items: Items
    part: range
    rows: int
    size: int
    shorter: int

    def __call__(self, step: int, start: int) -> _Chunk:
        first = self.part.start + step * self.rows
        stop = min(first + min(start + _CHUNK, self.rows), self.part.stop)

        def pixels(contents: bytes, name: str) -> np.ndarray:
            whole = images_lib.decode(contents, name=name)
            return images_lib.fit(whole, self.size, self.shorter)

        def row(i: int) -> _Row:
            return lambda: self.items.read(i), self.items.name(i), pixels

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

    def __init__(
        self, work: Callable[[int, int], _Chunk], each: int, count: int
    ) -> None:
        self.each = each
        self._work, self._count = work, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> _Chunk:
        step, place = divmod(int(number), self.each)
        return self._work(step, place * _CHUNK)


def batches(
    data: Data,
    work: Callable[[int, int], _Chunk],
    rows: int,
    *,
    steps: int = _FOR_EVER,
) -> Iterator[Batch]:
    """Joins the chunks of batches, which are made ahead.

    Args:
        data: says by how many processes, and how many files may be broken.
        work: of ``train_work``.
        rows: of a batch.
        steps: how many batches.

    Yields:
        Batches of ``rows`` or fewer; the mask is false where a file is broken.
    """
    each = -(-rows // _CHUNK)
    broken = images_lib.Broken(data.max_broken)
    chunks = _Chunks(work, each, steps * each)
    indexed = data.source != "folder"
    made = _by_grain(data, chunks) if data.workers or indexed else _by_threads(chunks)
    with contextlib.closing(made):
        for _ in range(steps):
            parts = [next(made) for _ in range(each)]
            for part in parts:
                trouble = json.loads(part.trouble)
                if isinstance(trouble, str):
                    raise DataError(trouble)
                for name, reason in trouble:
                    broken.add(name, reason)
            if each == 1:
                yield Batch(*parts[0][:3])
            else:
                yield Batch(*(np.concatenate([p[i] for p in parts]) for i in range(3)))


def _by_grain(data: Data, chunks: _Chunks) -> Generator[_Chunk, None, None]:
    """Chunks made ahead by Grain, in ``data.workers`` processes or in threads."""
    import grain

    threads = 1 if data.workers else os.cpu_count() or 1
    # Memory for two batches, or for what all threads are at.
    ahead = 2 if data.workers else max(2 * threads, 2 * chunks.each)
    found = grain.MapDataset.source(chunks).to_iter_dataset(
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
        yield from made
    finally:
        made.close()


def _by_threads(chunks: _Chunks) -> Generator[_Chunk, None, None]:
    """Chunks made ahead by threads: Pillow lets go of Python while it decodes."""
    threads = os.cpu_count() or 1
    ahead = max(2 * threads, 2 * chunks.each)
    pool = futures.ThreadPoolExecutor(threads, thread_name_prefix="decode")
    ready: collections.deque[futures.Future[_Chunk]] = collections.deque()
    try:
        for number in range(len(chunks)):
            ready.append(pool.submit(chunks.__getitem__, number))
            if len(ready) > ahead:
                yield ready.popleft().result()
        while ready:
            yield ready.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
