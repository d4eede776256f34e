"""A network's answer to each image of a measurement, kept beside the records.

    predictions/JOB/DATA/SPLIT.npz

has "index", "label", "predicted" and "confidence" (of detection: the scores), and
"about" with the rest as JSON.
``difference`` tells what two runs' answers to the same images say of a number:

    difference(run, record, other_run, other_record) -> metrics.Paired | None
"""

import dataclasses
import itertools
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from apr_jax.errors import DataError
from apr_jax.gates import stores
from apr_jax.runs import files
from apr_jax.runs import records as records_lib
from apr_jax.runs.records import Record
from apr_jax.runs.workdir import RunDir

if TYPE_CHECKING:
    from apr_jax.metrics import Paired

# The numbers that answers decide alone.
METRICS = ("accuracy", "error", "robust_accuracy", "follows_phase")
# End of the name of a number that scores decide.
_DETECTION = ".auroc"
# Settings of detection that are of one set of unknown images.
_OF_A_SET = ("source", "fingerprint", "note")
_ARRAYS = ("index", "label", "predicted", "confidence")


@dataclasses.dataclass(frozen=True, kw_only=True)
class About:
    """Whose answers they are, and to which images.

    Attributes:
        job, data, split, config_hash, step: as in ``Record``.
        settings: as in the records' ``extra["settings"]``; None where there are none.
        images: fingerprint of the images, as far as it is known; or "".
    """

    job: str
    data: str
    split: str
    config_hash: str
    step: int
    settings: Mapping[str, Any] | None = None
    images: str = ""

    def alike(self, other: "About | Record") -> bool:
        """Whether something else is of the same network, measured in the same way."""
        own, theirs = (
            (x.config_hash, x.step, json.loads(json.dumps(_settings(x))))
            for x in (self, other)
        )
        return own == theirs

    def path(self, folder: stores.Place) -> stores.Place:
        """The file of the answers below a run's folder of them."""
        return _path(folder, self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predictions:
    """The answers to the images of one split or condition.

    Attributes:
        about: whose, and to what.
        index: int [N], numbers of the examples among those measured.
        label: int [N].
        predicted: int [N], classes; -1 where there is no answer.
        confidence: float32 [N], probability of the class predicted; NaN without one.
    """

    about: About
    index: np.ndarray
    label: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """The examples that are classified correctly, bool [N]."""
        right: np.ndarray = self.predicted == self.label
        return right


def write(folder: stores.Place, about: About, arrays: Mapping[str, Any]) -> None:
    """Keeps arrays that say the answers, in place of earlier ones to the same split."""
    text = np.array(json.dumps(dataclasses.asdict(about)))
    path = about.path(folder)
    files.write_arrays(path, {"about": text, **arrays}, compress=True)


def read_about(path: stores.Place) -> About:
    """Reads whose answers a file has.

    Raises:
        DataError: the file isn't there, or isn't as it was written.
    """
    with files.archive(path) as stored:
        return About(**json.loads(str(stored["about"])))


def read(path: stores.Place) -> Predictions:
    """Reads the answers of a file.

    Raises:
        DataError: as ``read_about``.
    """
    with files.archive(path) as stored:
        arrays = {name: stored[name] for name in _ARRAYS}
    return Predictions(about=read_about(path), **arrays)


def behind(run: RunDir, record: Record) -> list[Predictions] | None:
    """The answers that a number was computed from; None unless all are kept.

    Those of other weights, or measured otherwise than the record, are not.
    """
    if record.metric not in METRICS:
        return None
    found = []
    for split in splits(record):
        path = _path(run.predictions, dataclasses.replace(record, split=split))
        if not path.exists():
            return None
        found.append(read(path))
        if not found[-1].about.alike(record):
            return None
    return found


def difference(
    run: RunDir, record: Record, other_run: RunDir, other_record: Record
) -> "Paired | None":
    """The difference of two runs in a number, on the same images.

    Args:
        run, other_run: they may have kept answers.
        record, other_record: of the number: an accuracy or error of a split, a mean
            over corruptions, an AUROC or its mean over sets.

    Returns:
        ``metrics.paired_difference`` of the answers, or ``paired_detection`` of the
        scores, in errors also where the number is an accuracy or an AUROC; None where
        answers aren't kept, or not those of the records.

    Raises:
        DataError: both are kept, and they are of other images, in one line.
    """
    if record.metric.endswith(_DETECTION):
        return _detection(run, record, other_run, other_record)
    mine, theirs = behind(run, record), behind(other_run, other_record)
    if not mine or not theirs:
        return None
    if len(mine) != len(theirs):
        raise DataError(f"{run.root} and {other_run.root} have other corruptions")
    for one, other in zip(mine, theirs, strict=True):
        if why := _otherness(one, other):
            where = f"{record.job.rpartition('.')[2]} {one.about.data}"
            raise DataError(
                f"{run.root} and {other_run.root} answered other images of {where} "
                f"{one.about.split}: {why}"
            )
    from apr_jax import metrics  # JAX, which takes a while to load

    rights = [np.stack([part.right for part in parts]) for parts in (mine, theirs)]
    return metrics.paired_difference(*rights)


def can_pair(metric: str) -> bool:
    """Whether kept answers say how two runs differ in a number."""
    return metric in METRICS or metric.endswith(_DETECTION)


@dataclasses.dataclass(frozen=True)
class _Scores:
    """The scores of one set of unknown images, and of the known ones beside it."""

    about: About
    inside: np.ndarray
    outside: np.ndarray


def _detection(
    run: RunDir, record: Record, other_run: RunDir, other_record: Record
) -> "Paired | None":
    mine, theirs = _scores(run, record), _scores(other_run, other_record)
    if not mine or not theirs:
        return None
    for one, other in itertools.zip_longest(mine, theirs):
        if one is None or other is None:
            raise DataError(f"{run.root} and {other_run.root} have other sets")
        if why := _other_settings(one.about, other.about) or _other_number(one, other):
            raise DataError(
                f"{run.root} and {other_run.root} scored other images of "
                f"{one.about.data} or {one.about.split}: {why}"
            )
    from apr_jax import metrics  # JAX, which takes a while to load

    return metrics.paired_detection(
        mine[0].inside,
        [part.outside for part in mine],
        theirs[0].inside,
        [part.outside for part in theirs],
    )


def _scores(run: RunDir, record: Record) -> list[_Scores] | None:
    """The scores that an AUROC was computed from; None unless all are kept."""
    score = record.metric.removesuffix(_DETECTION)
    found = []
    for name in splits(record):
        path = _path(run.predictions, dataclasses.replace(record, split=name))
        if not path.exists():
            return None
        about = read_about(path)
        with files.archive(path) as stored:
            names = (f"{score}/id", f"{score}/{name}")
            if not _is_behind(about, record) or any(n not in stored for n in names):
                return None
            found.append(_Scores(about, *(stored[n] for n in names)))
    return found


def _is_behind(about: About, record: Record) -> bool:
    """Whether scores of a set are those of a record, or of a mean over sets."""
    if "members" not in record.extra:
        return about.alike(record)
    own, joint = dict(about.settings or {}), dict(record.extra.get("settings") or {})
    marks = [about.split, *(own.pop(mark, None) for mark in _OF_A_SET)]
    same = (about.config_hash, about.step) == (record.config_hash, record.step)
    return (
        same
        and marks in joint.get("sets", [])
        and all(joint.get(name) == value for name, value in own.items())
    )


def _other_number(one: _Scores, other: _Scores) -> str:
    for mine, theirs in ((one.inside, other.inside), (one.outside, other.outside)):
        if len(mine) != len(theirs):
            return f"{len(mine):,} and {len(theirs):,} examples"
    return ""


def splits(record: Record) -> list[str]:
    """The splits behind a number: its own, or of a mean over corruptions or sets."""
    if "members" in record.extra:
        return list(record.extra["members"])
    if "corruptions" not in record.extra:
        return [record.split]
    severity = record.split.partition("/")[2]
    chosen = [severity] if severity else record.extra["severities"]
    return [f"{name}/{s}" for name in record.extra["corruptions"] for s in chosen]


def _otherness(one: Predictions, other: Predictions) -> str:
    """What of the images of two splits differs, in words; "" for the same images."""
    here, there = one.about, other.about
    if why := _other_settings(here, there):
        return why
    if here.images and there.images and here.images != there.images:
        return f"their fingerprints are {here.images[:12]} and {there.images[:12]}"
    if len(one.index) != len(other.index):
        return f"{len(one.index):,} and {len(other.index):,} examples"
    if not np.array_equal(one.index, other.index):
        return "the numbers of the examples differ"
    if not np.array_equal(one.label, other.label):
        return f"{int(np.sum(one.label != other.label)):,} labels differ"
    return ""


def _other_settings(here: About, there: About) -> str:
    """What two measurements were told differently of their images; "" if nothing."""
    if (here.data, here.split) != (there.data, there.split):
        return f"there {there.data} {there.split}"
    return records_lib.otherwise(here.settings, there.settings)


def _path(folder: stores.Place, of: About | Record) -> stores.Place:
    """The file of the answers that a record, or what is known of them, is about."""
    parts = [of.job.rpartition(".")[2], of.data.replace("/", "_"), *of.split.split("/")]
    return folder.joinpath(*parts[:-1], f"{parts[-1]}.npz")


def _settings(of: About | Record) -> Any:
    return of.settings if isinstance(of, About) else of.extra.get("settings")
