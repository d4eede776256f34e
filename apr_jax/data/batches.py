"""Data as the rest of the project sees them, and the order in which it does.

The order of training examples is a function of (seed, step) alone: example number
``t = step * batch_size + i`` of a run is example ``t % size`` of the permutation
that belongs to epoch ``t // size``. So a batch may straddle two epochs, every epoch
has every example exactly once, and a run can be taken up at any step. Where further
sets are mixed in (``Mix``), the same holds for either kind and its own places.
"""

import dataclasses
import fractions
import functools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from apr_jax.errors import DataError

# Keeps the stream of the orders apart from others drawn from the same seed.
_ORDER_STREAM = 0x0DE5
# Keeps the order of further images apart from that of the main set, which may be as
# large, and have the same pictures in another style.
_EXTRA_STREAM = 0xE874
# Keeps the coins of mirror images apart from the orders.
_MIRROR_STREAM = 0xF11B
# Keeps the draws of windows apart from the orders.
_SEED_STREAM = 0xC409
# A share such as 0.3333 is taken for the nearest fraction with no larger denominator.
_FINEST = 10**6


class Batch(NamedTuple):
    """A batch of examples.

    Attributes:
        image: uint8 [N, H, W, 3]; of a stream it may be read-only.
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
        extra: further training images, of ``data.extra_dirs``; None: there are none.
            The fingerprint doesn't know of them.
        digests: those of the splits by name.
    """

    name: str
    class_names: tuple[str, ...]
    splits: dict[str, ArraySplit]
    fingerprint: str
    extra: ArraySplit | None = None
    digests: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Mix:
    """The numbers of training images, and the share of a run that each kind has.

    Of the first t places of a run, floor(t * share) have extra images, for every t. So
    they are spread evenly, and each batch has its share to within one image.

    Attributes:
        main: images of the main set, 0 to ``main - 1``.
        extra: further images, numbered from ``main`` on; 0: none.
        ratio: their share of a run; 0: as many as there are, so that all images come
            up equally often.
    """

    main: int
    extra: int = 0
    ratio: float = 0.0

    @property
    def share(self) -> fractions.Fraction:
        """The share of the extra images."""
        if not self.extra or not self.ratio:
            return fractions.Fraction(self.extra, self.main + self.extra)
        return fractions.Fraction(self.ratio).limit_denominator(_FINEST)

    def extra_before(self, numbers: np.ndarray) -> np.ndarray:
        """The number of places before each of some, int64 [N], with extra images."""
        share = self.share
        return numbers * share.numerator // share.denominator

    def is_extra(self, numbers: np.ndarray) -> np.ndarray:
        """The ones of some places, int64 [N], that have extra images, bool [N]."""
        return self.extra_before(numbers + 1) > self.extra_before(numbers)


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


@functools.lru_cache(maxsize=8)
def epoch_seed(seed: int, epoch: int) -> int:
    """Returns a number from 0 to 2^63 - 1 for an epoch of a run."""
    state = np.random.SeedSequence([_SEED_STREAM, int(seed), int(epoch)])
    return int(state.generate_state(1, np.uint64)[0] >> np.uint64(1))


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


def mixed_numbers(
    seed: int, numbers: np.ndarray, mix: Mix
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns which examples of a mix are at the given places of a run.

    Args:
        seed: of the run.
        numbers: int64 [N], increasing: places counted from the start of the run.
        mix: the sets.

    Returns:
        Indices, epochs of the set that each belongs to, and the seeds that its order
        was drawn from, all int64 [N].
    """
    extra, before = mix.is_extra(numbers), mix.extra_before(numbers)
    other = np.random.SeedSequence([_EXTRA_STREAM, seed]).generate_state(1)
    seeds = np.where(extra, int(other[0]), seed)
    indices, epochs = np.empty_like(numbers), np.empty_like(numbers)
    indices[~extra], epochs[~extra] = example_numbers(
        seed, (numbers - before)[~extra], mix.main
    )
    if extra.any():
        found, epochs[extra] = example_numbers(int(other[0]), before[extra], mix.extra)
        indices[extra] = mix.main + found
    return indices, epochs, seeds


def global_indices(
    seed: int, start_step: int, steps: int, batch_size: int, size: int | Mix
) -> np.ndarray:
    """Returns the examples of ``steps`` batches, int32 [steps, batch_size].

    Args:
        seed: of the run, at least 0.
        start_step: the first of the steps, counted from the start of the run.
        steps: how many steps.
        batch_size: examples in a batch, over all devices and processes.
        size: examples in the split, at least 1; or of a mix, whose indices count the
            extra examples after those of the main set.
    """
    mix = size if isinstance(size, Mix) else Mix(size)
    if mix.main < 1:
        raise DataError(
            f"a split of {mix.main} examples has no order; it needs at least 1"
        )
    first = start_step * batch_size
    numbers = np.arange(first, first + steps * batch_size, dtype=np.int64)
    indices, *_ = mixed_numbers(seed, numbers, mix)
    return indices.astype(np.int32).reshape(steps, batch_size)


def mirrored(
    seed: int, start_step: int, steps: int, batch_size: int, mix: Mix
) -> np.ndarray:
    """Returns which of ``steps`` batches are mirrored, bool [steps, batch_size].

    Half of the images are in the first epoch of their set, the others in the next, and
    so on by turns. Source: the "alternating flip" of Jordan, arXiv:2404.00498.

    Args:
        seed, start_step, steps, batch_size: as of ``global_indices``.
        mix: the sets.
    """
    first = start_step * batch_size
    numbers = np.arange(first, first + steps * batch_size, dtype=np.int64)
    indices, epochs, _ = mixed_numbers(seed, numbers, mix)
    odd = _mirror_coins(seed, mix.main + mix.extra)[indices] ^ (epochs % 2 == 1)
    return odd.reshape(steps, batch_size)


@functools.lru_cache(maxsize=4)
def _mirror_coins(seed: int, size: int) -> np.ndarray:
    """Which images are mirrored in even epochs, bool [size]; cached and read-only."""
    seeds = np.random.SeedSequence([_MIRROR_STREAM, seed])
    coins = np.random.Philox(seeds).random_raw(size) >> np.uint64(63) == 1
    coins.flags.writeable = False
    return coins


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
