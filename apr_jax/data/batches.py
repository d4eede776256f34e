"""What the rest of the project sees of data, and the order in which it sees it.

The order of training examples is a function of (seed, step) alone: example number
``t = step * batch_size + i`` of a run is example ``t % size`` of the permutation
that belongs to epoch ``t // size``. So a batch may straddle two epochs, every epoch
has every example exactly once, and a run can be taken up at any step.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

# Keeps the stream of the orders apart from others drawn from the same seed.
_ORDER_STREAM = 0x0DE5


class DataError(ValueError):
    """Data that can't be used or isn't there; the message says what to do."""


class Batch(NamedTuple):
    """A batch of examples.

    Attributes:
        image: uint8 [N, H, W, 3].
        label: int32 [N].
        mask: bool [N]; false where a row is padding and must not be counted.
    """

    image: np.ndarray
    label: np.ndarray
    mask: np.ndarray


class ArraySplit(NamedTuple):
    """A split of small images in memory, or mapped from a file.

    Attributes:
        images: uint8 [N, H, W, 3]; may be a ``np.memmap``.
        labels: int32 [N], each from 0 to the number of classes less one.
    """

    images: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class DataSet:
    """The splits of one set of small images.

    Attributes:
        name: what to call the set.
        class_names: names of the classes, in the order of the labels.
        splits: the splits by name.
        fingerprint: hexadecimal digest of all images, labels and class names.
    """

    name: str
    class_names: tuple[str, ...]
    splits: dict[str, ArraySplit]
    fingerprint: str


@functools.lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """Returns the permutation int32 [size] in which an epoch visits a split.

    The array is cached and read-only. ``seed`` and ``epoch`` are at least 0.
    """
    # Sorting raw bits: NumPy keeps the bits of a bit generator from release to
    # release, but promises nothing of the kind for Generator.permutation.
    seeds = np.random.SeedSequence([_ORDER_STREAM, seed, epoch])
    bits = np.random.Philox(seeds).random_raw(size)
    order = np.argsort(bits, kind="stable").astype(np.int32)
    order.flags.writeable = False
    return order


def example_numbers(
    seed: int, numbers: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns which examples are at the given places of a run.

    Args:
        seed: of the run.
        numbers: int64 [N], increasing: places counted from the start of the run.
        size: examples in the split.

    Returns:
        Indices into the split and epochs, both int64 [N].
    """
    epochs, offsets = np.divmod(numbers, size)
    indices = np.empty(len(numbers), np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        indices[here] = epoch_order(seed, int(epoch), size)[offsets[here]]
    return indices, epochs


def global_indices(
    seed: int, start_step: int, steps: int, batch_size: int, size: int
) -> np.ndarray:
    """Returns the examples of ``steps`` batches, int32 [steps, batch_size].

    Args:
        seed: of the run, at least 0.
        start_step: the first of the steps, counted from the start of the run.
        steps: how many steps.
        batch_size: examples in a batch, over all devices and processes.
        size: examples in the split, at least 1.
    """
    if size < 1:
        raise DataError(f"a split of {size} examples has no order; it needs at least 1")
    first = start_step * batch_size
    numbers = np.arange(first, first + steps * batch_size, dtype=np.int64)
    indices, _ = example_numbers(seed, numbers, size)
    return indices.astype(np.int32).reshape(steps, batch_size)


def eval_batches(split: ArraySplit, batch_size: int) -> Iterator[Batch]:
    """Yields every example of a split exactly once, in order.

    All batches have ``batch_size`` rows; the last is filled up with black images of
    label 0 whose mask is false.
    """
    size = len(split.labels)
    for start in range(0, size, batch_size):
        rows = slice(start, min(start + batch_size, size))
        yield pad(split.images[rows], split.labels[rows], batch_size)


def pad(images: np.ndarray, labels: np.ndarray, batch_size: int) -> Batch:
    """Returns a batch of ``batch_size`` rows, filled up with rows masked out.

    Args:
        images: uint8 [N, H, W, 3], N at most ``batch_size``.
        labels: int32 [N].
        batch_size: rows of the batch.
    """
    count = len(labels)
    image = np.zeros((batch_size, *images.shape[1:]), np.uint8)
    label = np.zeros(batch_size, np.int32)
    image[:count] = images
    label[:count] = labels
    return Batch(image, label, np.arange(batch_size) < count)
