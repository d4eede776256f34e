"""Flips along sequences of slowly perturbed frames: ImageNet-P, CIFAR-10-P.

Hendrycks and Dietterich, ICLR 2019; see ``metrics.stability``. A folder has a file or a
folder for each perturbation, by the published names:

- ``NAME.npy``, uint8 [N, frames, H, W, 3], as CIFAR-10-P is published;
- ``NAME/…/CLIP/FRAME.png``, a folder of frames for each sequence, by their numbers.

ImageNet-P's videos are not read: a program such as ffmpeg takes them apart.
"""

import hashlib
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from apr_jax import config as config_lib
from apr_jax import console, data, metrics, parallel
from apr_jax.data import batches as batches_lib
from apr_jax.data import images as images_lib
from apr_jax.data import samples, walk
from apr_jax.errors import DataError
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate import ood_sets
from apr_jax.evaluate.measurement import Measurement
from apr_jax.gates import places
from apr_jax.metrics import stability
from apr_jax.runs import files
from apr_jax.runs.records import Record

SPLIT = "perturbation"
# Those of the mean. The authors' code has spatter in the place of snow up to 64 pixels.
_SHARED = ("gaussian_noise", "shot_noise", "motion_blur", "zoom_blur", "brightness")
_MOVED = ("translate", "rotate", "tilt", "scale")
_EXTRA = ("speckle_noise", "gaussian_blur", "shear")
_LEVELS = ("", "_2", "_3")  # of noise, by difficulty
NAMES = tuple(
    name + level
    for name in (*_SHARED, "snow", "spatter", *_MOVED, *_EXTRA)
    for level in (_LEVELS if name.endswith("_noise") else ("",))
)
_SMALL = 64  # pixels
_AT_ONCE = 2**26  # logits in memory


class Sequences(NamedTuple):
    """The sequences of one perturbation.

    Attributes:
        name: of ``NAMES``.
        frames: int [N], of each sequence.
        read: number of a sequence -> its frames, uint8 [frames, S, S, 3].
        mark: changes with the files.
    """

    name: str
    frames: np.ndarray
    read: Callable[[int], np.ndarray]
    mark: str

    @property
    def noise(self) -> bool:
        """Whether frames are compared with the first one."""
        return "noise" in self.name


def opened(
    settings: config_lib.Shift, described: config_lib.Data
) -> tuple[Sequences, ...]:
    """The perturbations of a folder, in the order of ``NAMES``.

    Raises:
        DataError: it isn't there, has none of these names, or one of them has no
            sequence of two frames.
    """
    root = places.local(settings.perturbations, "perturbations")
    if not root.is_dir():
        raise DataError(f"perturbations is {str(root)!r}, which is no folder")
    folders = set(walk.folders(root))
    found = []
    for name in NAMES:
        file = root / f"{name}.npy"
        if file.is_file():
            found.append(_of_array(name, file, described, settings.fit))
        elif name in folders:
            found.append(_of_folder(name, root / name, described, settings.fit))
    if not found:
        raise DataError(
            f"perturbations: {root} has neither NAME.npy nor a folder NAME of any of "
            f"{', '.join(NAMES)}"
        )
    return tuple(found)


def measured(
    job: Callable[[str], Measurement], settings: config_lib.Shift
) -> Iterator[Record]:
    """Measures how often an answer flips along sequences.

    Args:
        job: the measurement of a perturbation, by what its files are.
        settings: ``perturbations`` is the folder, ``examples`` how many sequences of
            each, ``fit`` what becomes of frames of another size.

    Yields:
        For each perturbation, as split "perturbation/NAME": "top5_distance" and
        "flip_probability", with bootstrapped intervals over the sequences; then as
        "perturbation/mean" their means over the benchmark's ten, if all are there. They
        aren't divided by AlexNet's.

    Raises:
        DataError: as ``opened``.
    """
    means: dict[str, dict[str, Record]] = {}
    any_job, every = job(""), ""
    classifier, context = any_job.classifier, any_job.context
    collect = classifier_lib.make_collect(classifier, context, features=False)
    for sequences in opened(settings, classifier.config.data):
        own, split = job(sequences.mark), f"{SPLIT}/{sequences.name}"
        every += sequences.mark
        found = own.of_split(split)
        if any(r.metric == "flip_probability" for r in found):
            yield from own.hidden(found)
        else:
            found = _of_one(own, collect, sequences, settings, split)
            yield from found
        means[sequences.name] = {r.metric: r for r in found}
    yield from _mean(job(hashlib.sha256(every.encode()).hexdigest()[:12]), means)


def _of_one(
    job: Measurement,
    collect: Callable[..., classifier_lib.Outputs],
    sequences: Sequences,
    settings: config_lib.Shift,
    split: str,
) -> list[Record]:
    """The records of one perturbation."""
    classifier, context = job.classifier, job.context
    seed = classifier.config.seed
    chosen = samples.subset(len(sequences.frames), settings.examples, seed)
    flipped, moved, bad = [], [], 0
    most = max(1, _AT_ONCE // len(classifier.class_names))
    for part in _parts(sequences.frames[chosen], most):
        numbers = chosen[part]
        counts = sequences.frames[numbers]
        rows = context.rows(classifier.config.eval.batch_size, int(counts.sum()))
        batches = _batches(sequences, numbers, rows)
        own = classifier_lib.share(batches, parallel.local_rows(rows, context.layout))
        outputs = collect(own, int(counts.sum()), what=split)
        bad += outputs.not_finite
        for logits in np.split(outputs.logits, np.cumsum(counts)[:-1]):
            flipped.append(stability.flips(logits, noise=sequences.noise))
            moved.append(stability.top5_distance(logits, noise=sequences.noise))
    numbers_of = {
        "top5_distance": stability.over_sequences(moved, "1", seed=seed),
        "flip_probability": stability.over_sequences(flipped, "fraction", seed=seed),
    }
    return job.records(
        numbers_of,
        split,
        not_finite=bad,
        compared_with="first" if sequences.noise else "before",
        frames=int(sequences.frames[chosen].max()),
    )


def _mean(job: Measurement, means: dict[str, dict[str, Record]]) -> list[Record]:
    """The records of the means over the benchmark's ten perturbations."""
    split = f"{SPLIT}/mean"
    small = job.classifier.config.data.image_size <= _SMALL
    wanted = (*_SHARED, "spatter" if small else "snow", *_MOVED)
    missing = [name for name in wanted if name not in means]
    if missing:
        console.say(f"{split}: none, as of its ten {', '.join(missing)} lacks")
        return []
    found = job.of_split(split)
    if found:
        return job.hidden(found)
    numbers = {}
    for metric, unit in (("top5_distance", "1"), ("flip_probability", "fraction")):
        records = [means[name][metric] for name in wanted]
        value = float(np.mean([record.value for record in records]))
        n = min(record.n for record in records)
        numbers[metric] = metrics.Measured(value, None, None, unit, n)
    return job.records(numbers, split, members=[f"{SPLIT}/{name}" for name in wanted])


def _parts(frames: np.ndarray, most: int) -> Iterator[slice]:
    """Yields ranges of sequences with no more frames than that, or one sequence."""
    start = total = 0
    for number, count in enumerate(frames):
        if total and total + count > most:
            yield slice(start, number)
            start, total = number, 0
        total += int(count)
    yield slice(start, len(frames))


def _batches(
    sequences: Sequences, numbers: Sequence[int] | np.ndarray, rows: int
) -> Iterator[data.Batch]:
    """Yields the frames of some sequences, one after the other."""
    waiting: list[np.ndarray] = []
    for number in numbers:
        waiting.extend(sequences.read(int(number)))
        while len(waiting) >= rows:
            yield _batch(waiting[:rows], rows)
            del waiting[:rows]
    if waiting:
        yield _batch(waiting, rows)


def _batch(frames: Sequence[np.ndarray], rows: int) -> data.Batch:
    return batches_lib.pad(np.stack(frames), np.zeros(len(frames), np.int32), rows)


def _of_array(
    name: str, file: pathlib.Path, described: config_lib.Data, fit: str
) -> Sequences:
    frames = files.read_array(file)
    if frames.ndim != 5 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise DataError(
            f"{file} is {frames.dtype} {list(frames.shape)}; it must be uint8 "
            "[N, frames, H, W, 3]"
        )
    count, length = frames.shape[:2]
    _check(file, np.full(count, length))

    def read(number: int) -> np.ndarray:
        return np.stack(
            [ood_sets.fitted(x, described, fit, str(file)) for x in frames[number]]
        )

    facts = walk.stat(file)
    mark = repr((name, fit, facts.st_size, facts.st_mtime_ns))
    return Sequences(name, np.full(count, length), read, _digest(mark))


def _of_folder(
    name: str, folder: pathlib.Path, described: config_lib.Data, fit: str
) -> Sequences:
    clips: dict[str, list[str]] = {}
    for file in walk.images(folder):
        clips.setdefault(file.rpartition("/")[0], []).append(file)
    if not clips:
        raise DataError(
            f"{folder} has no images: sequences are folders of frames, CLIP/01.png; "
            "videos must be taken apart first"
        )
    ordered = [sorted(own, key=_by_number) for own in clips.values()]
    counts = np.array([len(own) for own in ordered])
    _check(folder, counts)

    def read(number: int) -> np.ndarray:
        pairs = ((images_lib.read(folder / file), file) for file in ordered[number])
        return np.stack([ood_sets.fitted(x, described, fit, f) for x, f in pairs])

    sizes = [(f, walk.stat(folder / f).st_size) for own in ordered for f in own]
    return Sequences(name, counts, read, _digest(repr((name, fit, sizes))))


def _check(place: pathlib.Path, counts: np.ndarray) -> None:
    if not len(counts) or counts.min() < 2:
        raise DataError(f"{place} has no sequence, or one of fewer than two frames")


def _by_number(file: str) -> tuple[list[tuple[int, str]], str]:
    """A key by which frame 2 comes before frame 10."""
    parts = re.findall(r"\d+|\D+", file)
    keys = [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
    return keys, file


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
