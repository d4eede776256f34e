"""Runs a classifier on images whose frequencies were changed, on all devices."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from apr_jax import config as config_lib
from apr_jax import console, data, parallel, spectral
from apr_jax.errors import DataError
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate import fourier_programs as programs
from apr_jax.evaluate.context import Context
from apr_jax.gates import stores
from apr_jax.runs import files

# The parts of a recombined image that an answer may follow.
FOLLOWS = ("phase", "amplitude", "neither")

# Waves in one call of an accelerator, and waves between two saves.
_PER_CALL = 16
_PER_SAVE = 32
# Keeps the draws of pairs apart from others of the same seed.
_PAIR_STREAM = 0x9A185


class Pairs(NamedTuple):
    """What is said of images that join the phase of one with the amplitude of another.

    Attributes:
        follows: place in ``FOLLOWS`` [N].
        recognised: whether both images are [N].
        labels: of the images that give their phase [N].
        donors: numbers of those that give their amplitude [N].
        answers: classes [N]; -1 where there is none.
    """

    follows: np.ndarray
    recognised: np.ndarray
    labels: np.ndarray
    donors: np.ndarray
    answers: np.ndarray


class Probe:
    """A classifier and the images that it is tried on."""

    def __init__(
        self,
        classifier: classifier_lib.Classifier,
        context: Context,
        images: data.ArraySplit,
    ) -> None:
        """Takes uint8 images [N, H, W, C] with labels; N above 0."""
        self._classifier = classifier
        self._context, self._layout = context, context.layout
        self._images = images
        layout = self._layout
        self._variables = parallel.replicate(classifier.variables, layout)
        self._clean: tuple[np.ndarray, int] | None = None
        self._not_finite = 0
        rows = parallel.local_rows(self._batch_size, layout)
        self._share = lambda batch: parallel.split_batch(
            jax.tree.map(lambda x: x[rows], batch), layout
        )

    @property
    def size(self) -> int:
        """Number of images."""
        return len(self._images.labels)

    def clean_wrong(self) -> int:
        """Images that are not recognised as they are."""
        return int(np.sum(self._clean_answers() != self._images.labels))

    def take_not_finite(self) -> int:
        """Logits, NaN or infinite, since this was last asked, and of clean images."""
        self._clean_answers()
        assert self._clean is not None
        found, self._not_finite = self._not_finite + self._clean[1], 0
        return found

    def heatmap(self, norm: float, extent: int) -> np.ndarray:
        """Images that are not recognised under a wave of each frequency.

        Args:
            norm: L2 norm of the wave in each channel, before clipping to [0, 1]. Its
                sign is drawn for each image, frequency and channel.
            extent: frequencies on each side of the map.

        Returns:
            int64 [extent, extent], the zero frequency at (extent // 2, extent // 2).
            A frequency and its negative are one wave, measured once.
        """
        height, width = self._images.images.shape[1:3]
        places, number = unique_waves(height, width, extent)
        path = self._context.kept(
            "fourier/{}.npy",
            lambda: [
                f"heatmap {norm} {extent}",
                config_lib.config_hash(self._classifier.config),
                self._classifier.step,
                classifier_lib.weights_digest(self._classifier),
                self.size,
                hashlib.sha256(self._images.images.tobytes()).hexdigest(),
            ],
        )
        counts = _read_counts(path, len(places))
        count, step = self._counter(norm), _PER_CALL if self._layout.accelerated else 1
        first = int(np.sum(counts[:, 0] >= 0))
        with self._context.bar() as bar:
            task = bar.add_task("frequencies", total=len(places), completed=first)
            for start in range(first, len(places), step):
                end = min(start + step, len(places))
                counts[start:end] = count(places[start:end])
                bar.update(task, completed=end)
                if (end // step) % max(1, _PER_SAVE // step) == 0:
                    _write_counts(path, counts)
        _write_counts(path, counts)
        self._not_finite += int(counts[:, 1].sum())
        return counts[number, 0]

    def waves(self, norm: float) -> Callable[[np.ndarray], np.ndarray]:
        """Counts the images that are not recognised under waves of an L2 norm.

        Returns:
            A function of (row, column) of each wave in the unshifted spectrum, [M, 2],
            to int64 [M]; one program for all waves, on all devices.
        """
        count = self._counter(norm)
        return lambda places: count(places)[:, 0]

    def _counter(self, norm: float) -> Callable[[np.ndarray], np.ndarray]:
        """As ``waves``, but int64 [M, 2]: beside them the logits not finite."""
        in_program = self._layout.accelerated
        at_once = _PER_CALL if in_program else 1
        gather = programs.wave_counter(
            self._classifier.asked,
            self._layout,
            norm,
            self._classifier.config.seed,
            in_program,
        )
        put = parallel.map_devices(lambda batch: batch, self._layout)
        batches = [put(self._share(batch)) for batch in self._batches()]

        def count(places: np.ndarray) -> np.ndarray:
            found = []
            for start in range(0, len(places), at_once):
                # The last wave fills up a call.
                rows = np.minimum(np.arange(start, start + at_once), len(places) - 1)
                waves = self._everywhere(places[rows].astype(np.int32))
                counts = [self._sum(gather, (batch, waves)) for batch in batches]
                both = np.sum(counts, axis=0).reshape(-1, 2)
                found.append(both[: len(places) - start])
            return np.concatenate(found)

        return count

    def bands(self, radii: Sequence[float]) -> list[tuple[int, int]]:
        """Images not recognised once low-pass and once high-pass filtered.

        Filtered images are not clipped; a high part has no mean brightness.

        Args:
            radii: of the circle of frequencies that parts the two; one program
                serves all.
        """
        masks = self._band_masks(radii)

        gather = programs.parts_counter(self._classifier.asked, self._layout)
        found = []
        with self._context.bar() as bar:
            task = bar.add_task("low and high pass", total=len(masks))
            for keep in masks:
                counts = np.zeros(4, np.int64)
                for batch in self._batches():
                    counts += self._sum(
                        gather, (self._share(batch), self._everywhere(keep))
                    )
                found.append((int(counts[0]), int(counts[2])))
                self._not_finite += int(counts[1] + counts[3])
                bar.update(task, advance=1)
        return found

    def phase_or_amplitude(self, axes: Sequence[int]) -> Pairs:
        """The image whose label the answer is, of one's phase and another's amplitude.

        Each image gives its phase once; the other of another label is drawn by the
        seed. Recombined images are not clipped.

        Args:
            axes: of the transform, as in ``spectral.recombine``.

        Raises:
            DataError: all images have one label.
        """
        labels = self._images.labels
        donors = draw_donors(labels, self._classifier.config.seed)

        gather = programs.pair_looker(self._classifier.asked, self._layout, tuple(axes))
        said = []
        with self._context.bar() as bar:
            task = bar.add_task("phase or amplitude", total=self.size)
            for images, _, mask, numbers in self._batches():
                donor = self._images.images[donors[numbers]]
                pair = self._share((images, np.asarray(donor)))
                found, bad = gather(self._variables, pair)
                said.append(found[mask])
                self._not_finite += int(bad[mask].sum())
                bar.update(task, advance=int(mask.sum()))
        given = np.concatenate(said)
        follows = np.where(given == labels, 0, np.where(given == labels[donors], 1, 2))
        right = self._clean_answers() == labels
        return Pairs(follows, right & right[donors], labels, donors, given)

    # --- Inner workings --------------------------------------------------------------

    @property
    def _batch_size(self) -> int:
        return self._classifier.config.eval.batch_size

    def _batches(self) -> Iterator[tuple[np.ndarray, ...]]:
        """(images, labels, mask, numbers), all of the same number of rows.

        Padding has the number 0. With few images a batch is no larger than needed.
        """
        each = self._layout.count
        rows = min(self._batch_size, -(-self.size // each) * each)
        if jax.process_count() > 1:
            rows = self._batch_size
        for start, batch in enumerate(data.eval_batches(self._images, rows)):
            numbers = np.arange(start * rows, (start + 1) * rows)
            yield (*batch, np.where(batch.mask, numbers, 0))

    def _everywhere(self, leaf: np.ndarray) -> np.ndarray:
        return np.stack([leaf] * len(self._layout.local))

    def _sum(self, gather: Callable[..., Any], batch: Any) -> np.ndarray:
        """The sum of the devices' counts."""
        counts = gather(self._variables, batch)
        return counts.reshape(self._layout.count, -1).sum(axis=0).astype(np.int64)

    def _clean_answers(self) -> np.ndarray:
        if self._clean is None:
            gather = programs.looker(self._classifier.asked, self._layout)
            said, bad = [], 0
            for images, _, mask, _ in self._batches():
                found, count = gather(self._variables, self._share(images))
                said.append(found[mask])
                bad += int(count[mask].sum())
            self._clean = np.concatenate(said), bad
        return self._clean[0]

    def _band_masks(self, radii: Sequence[float]) -> list[np.ndarray]:
        """The frequencies that the low part keeps, float32 [H, W // 2 + 1] a radius."""
        height, width = self._images.images.shape[1:3]
        masks = (np.asarray(spectral.radial_mask(height, width, r)) for r in radii)
        half = slice(width // 2 + 1)
        return [np.fft.ifftshift(mask)[:, half].astype(np.float32) for mask in masks]


def unique_waves(height: int, width: int, extent: int) -> tuple[np.ndarray, np.ndarray]:
    """The waves of a map: a frequency and its negative are the same one.

    Args:
        height, width: of the images.
        extent: side of the map, up to either.

    Returns:
        (row, column) of each wave in the unshifted spectrum, int64 [M, 2], from low to
        high frequency; and which of them is at each place of the map, [extent, extent].
    """
    offsets = np.arange(extent) - extent // 2
    numbers: dict[tuple[int, int], int] = {}
    by_distance = sorted(
        ((i, j) for i in offsets.tolist() for j in offsets.tolist()),
        key=lambda ij: (ij[0] ** 2 + ij[1] ** 2, ij),
    )
    places: list[tuple[int, int]] = []
    number = np.empty((extent, extent), np.int64)
    for i, j in by_distance:
        here, there = (i % height, j % width), (-i % height, -j % width)
        if here not in numbers:
            numbers[here] = numbers[there] = len(places)
            places.append(here)
        number[i + extent // 2, j + extent // 2] = numbers[here]
    return np.array(places, np.int64), number


def draw_donors(labels: np.ndarray, seed: int) -> np.ndarray:
    """For each example another one of another label: int64 [N], drawn by the seed.

    Raises:
        DataError: there is no other label.
    """
    count = len(labels)
    if len(np.unique(labels)) < 2:
        raise DataError(
            f"all {count} images have the label {labels[0]}; phase and amplitude "
            "must be of two classes"
        )
    rng = np.random.Generator(np.random.Philox([_PAIR_STREAM, seed]))
    donors = rng.integers(0, count, count)
    while (same := labels[donors] == labels).any():
        donors[same] = rng.integers(0, count, int(same.sum()))
    return donors


def _read_counts(path: stores.Place | None, size: int) -> np.ndarray:
    """Counts so far, int64 [``size``, 2], -1 where there is none."""
    if path is not None and path.exists():
        try:
            stored = files.read_array(path, mapped=False)
            if stored.shape == (size,):  # of versions that kept the first count alone
                stored = np.stack([stored, np.minimum(stored, 0)], axis=1)
            if stored.shape == (size, 2):
                return np.asarray(stored, np.int64)
        except DataError as error:
            console.say(f"{error}; it is made again")
    return np.full((size, 2), -1, np.int64)


def _write_counts(path: stores.Place | None, counts: np.ndarray) -> None:
    if path is not None:
        with files.replacing(path) as file:
            np.save(file, counts)
