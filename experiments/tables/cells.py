"""The cells of each table, of the records of a run: fractions by column."""

import re
from collections.abc import Iterable, Sequence

from apr_jax import metrics
from apr_jax.corruptions import C_BAR_CIFAR, CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES
from apr_jax.runs import records as records_lib
from apr_jax.runs.records import Record


def _find(records: Iterable[Record], **fields: str) -> float | None:
    found = records_lib.find(records, **fields)
    return None if found is None else found.value


def _known(cells: dict[str, float | None]) -> dict[str, float]:
    return {column: value for column, value in cells.items() if value is not None}


def corruption_cells(records: Sequence[Record]) -> dict[str, float]:
    """Table 1: "" is the mean error under corruption, beside "clean error"."""
    mean = mean_corruption(records)
    clean = _find(records, job="evaluate.clean", metric="error")
    return _known({"": None if mean is None else mean.value, "clean error": clean})


def mean_corruption(records: Sequence[Record]) -> Record | None:
    """The mean error over all corruptions and severities.

    Where there is none (frost needs photographs) that over the most corruptions, whose
    split says how many: "mean of 14".
    """
    found: dict[int, Record] = {}
    for record in records:
        if record.job == "evaluate.corruption" and record.metric == "error":
            if record.split == "mean":
                found[len(CORRUPTIONS)] = record
            elif count := _MEAN_OF.fullmatch(record.split):
                found[int(count[1])] = record
    return found[max(found)] if found else None


def held_out_cells(records: Sequence[Record]) -> dict[str, float]:
    """The search: "" is the mean error under C-bar's ten and the four held out.

    Every kind and severity counts alike; "c_bar" and "extra" are the means of each set.
    """
    means = {
        name: _find(
            records, job="evaluate.corruption", metric="error", split=f"mean {name}"
        )
        for name in _HELD_OUT
    }
    found = _known(
        {**means, "clean error": corruption_cells(records).get("clean error")}
    )
    if len(found) <= len(means):
        return found
    count = sum(map(len, _HELD_OUT.values()))
    total = sum(len(kinds) * found[name] for name, kinds in _HELD_OUT.items())
    return {"": total / count, **found}


_HELD_OUT = {"c_bar": C_BAR_CIFAR, "extra": EXTRA_CORRUPTIONS}
_MEAN_OF = re.compile(r"mean of (\d+)")


def out_cells(records: Sequence[Record], score: str = "msp") -> dict[str, float]:
    """Table 2: "accuracy", the AUROC of a score for each out set, and their "mean"."""
    found = {}
    for record in records:
        if record.job == "evaluate.ood" and record.metric == f"{score}.auroc":
            if record.split == "all":
                found["mean"] = record.value
            elif record.split not in ("near", "far"):
                found[_SAME.get(record.split, record.split)] = record.value
    if score != "msp":  # the accuracy is not that of what it scores
        return found
    accuracy = _find(records, job="evaluate.clean", metric="accuracy")
    return _known({"accuracy": accuracy, **found})


def turned_cells(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """The row of Table 2 that a run trained by CSI has for its own score."""
    cells = out_cells(records, "csi")
    return {"csi_turns": cells} if cells else {}


# TFDS's name -> the paper's.
_SAME = {"svhn_cropped": "svhn"}


def robust_cells(records: Sequence[Record]) -> dict[str, float]:
    """Table 3: "accuracy", and "robust", that under AutoAttack, L-infinity.

    Where several radii were measured the largest; other attacks and norms don't count.
    """
    robust = _by_radius(records)
    accuracy = _find(records, job="evaluate.clean", metric="accuracy")
    return _known({"accuracy": accuracy, "robust": robust[max(robust)]})


def radius(records: Sequence[Record]) -> float:
    """The radius of ``robust_cells``; 0 where nothing was attacked."""
    return max(_by_radius(records))


def _by_radius(records: Sequence[Record]) -> dict[float, float | None]:
    robust: dict[float, float | None] = {0.0: None}
    for record in records:
        found = _AUTO_ATTACK.fullmatch(record.split)
        kind = record.job, record.metric
        if found and kind == ("evaluate.adversarial", "robust_accuracy"):
            robust[float(found[1])] = record.value
    return robust


# Single attacks have their name behind the radius.
_AUTO_ATTACK = re.compile(r"linf/([^/]+)")


def imagenet_cells(records: Sequence[Record]) -> dict[str, float]:
    """Table 4: "error", "mce", and the CE of each corruption."""
    job = "evaluate.corruption"
    cells = {
        "error": _find(records, job="evaluate.clean", metric="error"),
        "mce": _find(records, job=job, split="mean", metric="mce"),
    }
    for name, alexnet in metrics.ALEXNET_ERROR.items():
        errors = [
            _find(records, job=job, split=f"{name}/{severity}", metric="error")
            for severity in SEVERITIES
        ]
        if None not in errors:
            cells[name] = sum(e for e in errors if e is not None) / 5 / alexnet
    return _known(cells)
