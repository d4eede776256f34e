"""Records of detection: of a set by a score, means over groups, scores from files."""

import dataclasses
import pathlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from apr_jax import metrics
from apr_jax.errors import ConfigError, DataError
from apr_jax.evaluate.measurement import Measurement
from apr_jax.gates import places
from apr_jax.metrics import detection
from apr_jax.runs import files
from apr_jax.runs.records import Record

JOB = "evaluate.ood"
GROUPS = ("near", "far", "all")
# The metrics of a set and a score; "oscr" needs to know which answers were right.
METRICS = (
    "auroc",
    "aupr_in",
    "aupr_out",
    "fpr95_id_positive",
    "fpr95_ood_positive",
    "tnr_at_tpr95",
    "detection_accuracy",
    "oscr",
)
_ROC_POINTS = 40
_BINS = 30


def group_of(name: str, near: Collection[str]) -> str:
    """ "near" or "far"."""
    return "near" if name in near else "far"


def _records(
    job: Measurement,
    split: str,
    score: str,
    numbers: Mapping[str, metrics.Measured],
    *,
    note: str = "",
    figures: Mapping[str, Any] | None = None,
    not_finite: int = 0,
    **extra: Any,
) -> list[Record]:
    """Records of a set or group by one score; ``figures`` go to the AUROC's."""
    return job.records(
        {f"{score}.{metric}": number for metric, number in numbers.items()},
        split,
        extra_of={f"{score}.auroc": figures} if figures else None,
        not_finite=not_finite,
        score=score,
        **({"note": note, **extra} if note else extra),
    )


def records_of_score(
    job: Measurement,
    split: str,
    score: str,
    inside: np.ndarray,
    outside: np.ndarray,
    correct: np.ndarray | None,
    *,
    near: Collection[str],
    note: str = "",
    not_finite: int = 0,
    convention: str = "exact",
    extra: Mapping[str, Any] | None = None,
) -> list[Record]:
    """All metrics of one score on one out set, and how many logits were not finite.

    The score "authors" has a convention of its own; ``extra`` goes to each record.
    """
    convention = "authors" if score == "authors" else convention
    try:
        values = metrics.ood_detection(inside, outside, convention=convention)
    except ValueError as error:
        raise DataError(
            f"the score {score!r} can't be measured on {split!r}: {error}"
        ) from error
    if correct is not None:
        values["oscr"] = metrics.oscr(inside, correct, outside, convention=convention)
    exact = convention != "authors"
    ends = detection.ood_intervals(inside, outside) if exact else {}
    count = len(inside) + len(outside)
    numbers = {}
    for metric, value in values.items():
        low, high = ends.get(metric, (None, None))
        numbers[metric] = metrics.Measured(value, low, high, "fraction", count)
    return _records(
        job,
        split,
        score,
        numbers,
        note=note,
        figures=_figures(inside, outside),
        group=group_of(split, near),
        not_finite=not_finite,
        inside=len(inside),
        outside=len(outside),
        **(extra or {}),
    )


def _figures(inside: np.ndarray, outside: np.ndarray) -> dict[str, Any]:
    """ROC curve and histograms, rounded, for the page to draw."""
    fpr, tpr = detection.roc_curve(inside, outside, points=_ROC_POINTS)
    both = np.concatenate([inside, outside])
    finite = both[np.isfinite(both)]
    low, high = np.quantile(finite, [0.005, 0.995]) if len(finite) else (0.0, 1.0)
    if not high > low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _BINS + 1)
    share = lambda x: np.histogram(np.clip(x, low, high), edges)[0] / len(x)
    return {
        "roc": {"fpr": fpr.round(4).tolist(), "tpr": tpr.round(4).tolist()},
        "histogram": {
            "low": float(f"{low:.6g}"),
            "high": float(f"{high:.6g}"),
            "inside": share(inside).round(4).tolist(),
            "outside": share(outside).round(4).tolist(),
        },
    }


def means(
    job: Measurement,
    table: Mapping[str, Mapping[str, Record]],
    near: Collection[str],
    prefix: str = "",
) -> Iterator[Record]:
    """Means over the sets of each group; the sets weigh the same.

    Groups have the prefix in their names.
    """
    job = dataclasses.replace(
        job, settings={**(job.settings or {}), "near": sorted(near)}
    )
    found = job.found()
    groups = {
        "near": [name for name in table if name in near],
        "far": [name for name in table if name not in near],
        "all": list(table),
    }
    for group, members in groups.items():
        # Without near sets "far" would say what "all" says.
        if not members or (group == "far" and not groups["near"]):
            continue
        shared = set.intersection(*(set(table[name]) for name in members))
        for name in (m for m in table[members[0]] if m in shared):
            if (prefix + group, name) in found:
                yield from job.hidden([found[prefix + group, name]])
                continue
            rows = [table[member][name] for member in members]
            score, _, metric = name.rpartition(".")
            mean = metrics.Measured(
                float(np.mean([r.value for r in rows])),
                None,
                None,
                "fraction",
                sum(r.n for r in rows),
            )
            yield from _records(
                job,
                prefix + group,
                score,
                {metric: mean},
                not_finite=sum(r.extra.get("not_finite", 0) for r in rows),
                group=group,
                members=members,
            )


# --- Scores from elsewhere -----------------------------------------------------------


def as_file(
    out_set: str,
    inside: Mapping[str, np.ndarray],
    outside: Mapping[str, np.ndarray],
    correct: np.ndarray,
) -> dict[str, np.ndarray]:
    """Scores of single images, by the names that ``read_scores`` wants."""
    found = {"correct": correct}
    for score, values in inside.items():
        found[f"{score}/id"] = values.astype(np.float32)
        found[f"{score}/{out_set}"] = outside[score].astype(np.float32)
    return found


def read_scores(path: str) -> dict[str, np.ndarray]:
    """Arrays of a file of scores, by name; ``evaluate.ood`` says how it looks.

    Raises:
        ConfigError: it can't be read, or isn't what it should be.
    """
    try:
        with files.archive(places.local(path, "scores_file")) as stored:
            arrays = {name: stored[name] for name in stored if name != "about"}
    except DataError as error:
        raise ConfigError(f"scores_file {path}: {error}") from error
    prefixes = {n.removesuffix("id") for n in arrays if n == "id" or n.endswith("/id")}
    if not prefixes:
        raise ConfigError(
            f"scores_file {path} has no 'id' or 'SCORE/id'; it has "
            f"{', '.join(arrays) or 'nothing'}"
        )
    for name, array in arrays.items():
        if array.ndim != 1 or not len(array):
            raise ConfigError(
                f"scores_file {path}: {name!r} is {list(array.shape)}; it must be [N] "
                "with N > 0"
            )
        prefix = name.rpartition("/")[0]
        if name != "correct" and (f"{prefix}/" if prefix else "") not in prefixes:
            raise ConfigError(
                f"scores_file {path} has {name!r}, but no scores of the same kind "
                "for the in-distribution side"
            )
    if "correct" in arrays:
        for prefix in prefixes:
            if len(arrays[f"{prefix}id"]) != len(arrays["correct"]):
                raise ConfigError(
                    f"scores_file {path}: 'correct' and {prefix + 'id'!r} differ in "
                    "length"
                )
    return arrays


def measure_given(
    job: Measurement,
    arrays: Mapping[str, np.ndarray],
    path: pathlib.Path,
    near: Collection[str],
) -> Iterator[Record]:
    """Measures scores from a file, as those of the score that they are called."""
    mark = places.local(str(path), "scores_file").stat()
    settings = {"scores_file": str(path), "stat": [mark.st_size, mark.st_mtime_ns]}
    job = dataclasses.replace(job, settings=settings)
    found = job.found()
    correct = arrays.get("correct")
    table: dict[str, dict[str, Record]] = {}
    for name, outside in arrays.items():
        prefix, slash, out_set = name.rpartition("/")
        if name == "correct" or out_set == "id":
            continue
        score = prefix or path.stem
        rows = {
            m: r
            for (split, m), r in found.items()
            if split == out_set and m.rpartition(".")[0] == score
        }
        if not rows:
            made = records_of_score(
                job,
                out_set,
                score,
                arrays[f"{prefix}{slash}id"].astype(np.float64),
                outside.astype(np.float64),
                correct,
                near=near,
                note=f"scores from {path.name}",
            )
            yield from made
            rows = {record.metric: record for record in made}
        table.setdefault(out_set, {}).update(rows)
    yield from means(job, table, near)
