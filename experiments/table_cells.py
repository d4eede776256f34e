"""What the cells of each table are, of the records of a run: fractions by column."""

from collections.abc import Iterable, Sequence

from apr_jax import metrics, results
from apr_jax.corruptions import SEVERITIES


def _find(records: Iterable[results.Record], **fields: str) -> float | None:
    found = results.find(records, **fields)
    return None if found is None else found.value


def _known(cells: dict[str, float | None]) -> dict[str, float]:
    return {column: value for column, value in cells.items() if value is not None}


def corruption_cells(records: Sequence[results.Record]) -> dict[str, float]:
    """Table 1: "" is the mean error under corruption, beside "clean error"."""
    means = [
        r
        for r in records
        if r.job == "evaluate.corruption"
        and r.metric == "error"
        and r.split.startswith("mean")
        and "/" not in r.split
    ]
    mean = means[-1].value if means else None
    clean = _find(records, job="evaluate.clean", metric="error")
    return _known({"": mean, "clean error": clean})


def out_cells(
    records: Sequence[results.Record], score: str = "msp"
) -> dict[str, float]:
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


def turned_cells(records: Sequence[results.Record]) -> dict[str, dict[str, float]]:
    """The row of Table 2 that a run trained by CSI has for its own score."""
    cells = out_cells(records, "csi")
    return {"csi_turns": cells} if cells else {}


# TFDS's name -> the paper's.
_SAME = {"svhn_cropped": "svhn"}


def robust_cells(records: Sequence[results.Record]) -> dict[str, float]:
    """Table 3: "accuracy", and "robust", that under attack."""
    return _known(
        {
            "accuracy": _find(records, job="evaluate.clean", metric="accuracy"),
            "robust": _find(
                records, job="evaluate.adversarial", metric="robust_accuracy"
            ),
        }
    )


def imagenet_cells(records: Sequence[results.Record]) -> dict[str, float]:
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
