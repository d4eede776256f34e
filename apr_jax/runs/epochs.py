"""Rows that a run writes at the ends of its epochs."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from apr_jax.errors import DataError
from apr_jax.gates import stores
from apr_jax.runs import files, jsonl

FILE_NAME = "watch.jsonl"
HELD_OUT = "held_out.jsonl"


def epoch_ends(epoch_steps: float, total_steps: int) -> np.ndarray:
    """The steps at which epochs end: 0, those nearest to each end, and the last.

    Args:
        epoch_steps: steps of an epoch, not necessarily whole.
        total_steps: of the run.
    """
    epochs = np.arange(1 + int(total_steps / epoch_steps + 0.5))
    return np.unique([*np.rint(epochs * epoch_steps), total_steps])


def read(path: files.Path) -> list[dict[str, Any]]:
    """Reads the rows of ``watch.jsonl``, or of the directory that holds it, by step.

    Each has "step", "epoch", "watch" (a name of ``WATCHES``), "split" and "examples"
    (which images, and how many), and what that watch says; "not_finite" where logits
    were NaN or infinite: how many.

    Raises:
        FileNotFoundError: where there is no such file.
        DataError: a line is no such row; names file and line.
    """
    path = files.at(path)
    inside = path.is_dir() and path.name != FILE_NAME
    return _by_step(path / FILE_NAME if inside else path)


def table(
    rows: Iterable[Mapping[str, Any]], watch: str, value: str
) -> tuple[np.ndarray, np.ndarray]:
    """One value of one watch over the epochs.

    Returns:
        Epochs [T] and values [T, ...], NaN where there was no number.
    """
    mine = [row for row in rows if row["watch"] == watch]
    return (
        np.array([row["epoch"] for row in mine], np.float64),
        np.array([row[value] for row in mine], np.float64),
    )


def answered(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Accuracy and loss that rows say, by split: {"test_accuracy": ..., "test_loss"}.

    Of several rows of a split the last; NaN where there was no number.
    """
    return {
        f"{row['split']}_{kind}": math.nan if row[kind] is None else row[kind]
        for row in rows
        if row.get("watch") == "accuracy"
        for kind in ("accuracy", "loss")
    }


def read_held_out(root: stores.Place) -> list[dict[str, Any]]:
    """Reads ``held_out.jsonl`` of a work directory, in the order of the steps.

    Rows have "step", "epoch", "robust_accuracy" (a fraction of the "examples" held
    out) and "collapsed", and "not_finite" as in ``read``; none where there is no such
    file.
    """
    path = root / HELD_OUT
    return _by_step(path) if path.exists() else []


def _by_step(path: stores.Place) -> list[dict[str, Any]]:
    wanted = ("robust_accuracy", "collapsed") if path.name == HELD_OUT else ("watch",)
    rows = jsonl.read(path)
    for number, row in rows:
        missing = [k for k in ("step", "epoch", *wanted) if k not in row]
        if missing:
            raise DataError(
                f"{path}, line {number}, is no row of an epoch: it has no "
                f"{', '.join(missing)}"
            )
    return sorted((row for _, row in rows), key=lambda row: row["step"])
