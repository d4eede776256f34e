"""Measurements at the ends of epochs: when they are due, and the rows they leave.

A training loop runs a list of hooks. They draw nothing from the run's key and change
no bit of the training.
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from apr_jax import config as config_lib
from apr_jax import data, parallel
from apr_jax.runs import checkpoint, epochs, jsonl
from apr_jax.train.state import TrainState

Predict = Callable[[Any, Any], tuple[Any, Any]]


class Run(NamedTuple):
    """The run that hooks follow.

    Attributes:
        config: its configuration.
        predict: the network, of ``network.make_predict``.
        layout: the devices.
        root: its directory.
        epoch_steps: steps of an epoch, not necessarily whole.
        total_steps: steps of the run.
        first: the step where training goes on, 0 for a new run.
    """

    config: config_lib.Config
    predict: Predict
    layout: parallel.Layout
    root: pathlib.Path
    epoch_steps: float
    total_steps: int
    first: int


def loss_of(predict: Predict, variables: Any, labels: jax.Array) -> Callable[..., Any]:
    """Returns ``pixels -> loss``, the sum of the images' cross-entropies.

    Args:
        predict: of ``network.make_predict``, with running statistics, so that no image
            depends on another.
        variables: its first argument.
        labels: integers [B].
    """

    def loss(pixels: jax.Array) -> jax.Array:
        logits, _ = predict(variables, pixels)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.sum()

    return loss


class EpochHook:
    """A measurement at the ends of epochs, and the file of its rows.

    An epoch ends with the step nearest to it, and so that of the last epoch is the
    run's last. Where one call of the devices does several steps the measurement waits
    for its end, rather than have other programs compiled.

    Attributes:
        ended_at: the step at which the hook ended the run, None while it has not.
        rows: those of the file, in the order of the steps.
    """

    ended_at: int | None = None

    def __init__(self, run: Run, images: data.ArraySplit, file: str) -> None:
        """Reads the rows that there are.

        Args:
            run: to be followed.
            images: those to measure on.
            file: name of the rows' file in the run's directory.
        """
        self._run, self._images = run, images
        self._path = run.root / file
        self._ends = epochs.epoch_ends(run.epoch_steps, run.total_steps)
        self.rows = epochs.read(self._path) if self._path.exists() else []

    def cut(self) -> None:
        """Drops the rows beyond the step that training goes on from: a kill's."""
        self.rows = [row for row in self.rows if row["step"] <= self._run.first]
        if parallel.is_primary() and self._path.exists():
            jsonl.replace(self._path, self.rows)

    def begin(self, state: TrainState, done: int) -> None:
        """Takes the state that training goes on from, NumPy arrays, and its step."""

    def due(self, before: int, done: int) -> bool:
        """Whether an epoch ended after step ``before`` and up to ``done``."""
        return bool(np.any((self._ends > before) & (self._ends <= done)))

    def measure(self, state: TrainState, done: int) -> bool:
        """Measures the replicated state of step ``done``; whether it ends the run."""
        raise NotImplementedError

    def go_back(self, saved: checkpoint.Checkpoints, like: Any) -> tuple[int, Any]:
        """Returns step and state that a run which the hook ended is left with."""
        raise NotImplementedError

    def close(self) -> None:
        """Frees what the hook holds."""

    def _append(self, rows: Sequence[dict[str, Any]]) -> None:
        self.rows += rows
        if parallel.is_primary():
            jsonl.append(self._path, rows)

    def _row(self, done: int, **values: Any) -> dict[str, Any]:
        epoch, count = done / self._run.epoch_steps, len(self._images.labels)
        return {"step": done, "epoch": epoch, **values, "examples": count}

    def _each(
        self, gather: Callable[[Any, Any], Any], state: TrainState, *knobs: Any
    ) -> np.ndarray:
        """The findings for each image, in order.

        Args:
            gather: a function of variables and (images, labels, places in the split,
                *knobs), of ``parallel.make_gather``.
            state: replicated.
            knobs: one for each local device.
        """
        size, layout = self._run.config.train.batch_size, self._run.layout
        rows, start, parts = parallel.local_rows(size, layout), 0, []
        for batch in data.eval_batches(self._images, size):
            places = np.arange(start, start + size)
            mine = (batch.image[rows], batch.label[rows], places[rows])
            shared = (*parallel.split_batch(mine, layout), *knobs)
            parts.append(gather(state.variables, shared)[batch.mask])
            start += size
        return np.concatenate(parts)
