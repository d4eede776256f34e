"""Measurements at the ends of epochs: when they are due, and the rows they leave.

A training loop runs a list of hooks. They draw nothing from the run's key and change
no bit of the training.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from apr_jax import config as config_lib
from apr_jax import data, network, parallel
from apr_jax.console import say
from apr_jax.data import samples
from apr_jax.errors import CheckpointError
from apr_jax.runs import checkpoint, epochs, jsonl
from apr_jax.train import overfitting
from apr_jax.train.plan import Plan
from apr_jax.train.state import TrainState
from apr_jax.train.watch import WATCHES, Predict

# Draws the test images that are watched of streamed data; the same ones for every run.
_WATCH_SEED = 0


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

    def __init__(
        self, plan: Plan, first: int, images: data.ArraySplit, file: str
    ) -> None:
        """Reads the rows that there are.

        Args:
            plan: of the run to be followed.
            first: the step where training goes on, 0 for a new run.
            images: those to measure on.
            file: name of the rows' file in the run's directory.
        """
        self._plan, self._first, self._images = plan, first, images
        self._path = plan.run.root / file
        self._ends = epochs.epoch_ends(plan.epoch_steps, plan.total_steps)
        self._predict = network.make_predict(plan.model, plan.config)
        self.rows = epochs.read(self._path) if self._path.exists() else []

    def cut(self) -> None:
        """Drops the rows beyond the step that training goes on from: a kill's."""
        self.rows = [row for row in self.rows if row["step"] <= self._first]
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

    def scalars(self, done: int) -> dict[str, float]:
        """What the rows of step ``done`` say in one number each, by its name."""
        return {}

    def go_back(self, saved: checkpoint.Checkpoints, like: Any) -> tuple[int, Any]:
        """Returns step and state that a run which the hook ended is left with."""
        raise NotImplementedError

    def close(self) -> None:
        """Frees what the hook holds."""

    def _append(self, rows: Sequence[dict[str, Any]]) -> None:
        self.rows += rows
        if parallel.is_primary():
            jsonl.append(self._path, rows)

    def _row(self, done: int, bad: int, **values: Any) -> dict[str, Any]:
        """A row; it says how many logits were not finite, if any."""
        epoch, count = done / self._plan.epoch_steps, len(self._images.labels)
        row = {"step": done, "epoch": epoch, **values, "examples": count}
        if not bad:
            return row
        say(
            f"{bad:,} logits behind step {done:,} of {self._path.name} are not finite; "
            "such answers count as wrong"
        )
        return row | {"not_finite": bad}

    def _each(
        self, gather: Callable[[Any, Any], Any], state: TrainState, *knobs: Any
    ) -> tuple[np.ndarray, int]:
        """The findings for each image, in order, and how many logits aren't finite.

        Args:
            gather: a function of variables and (images, labels, places in the split,
                *knobs), of ``parallel.make_gather``; it gives the findings, and the
                count for each image.
            state: replicated.
            knobs: one for each local device.
        """
        size, layout = self._plan.config.train.batch_size, self._plan.layout
        rows, start, parts, bad = parallel.local_rows(size, layout), 0, [], 0
        for batch in data.eval_batches(self._images, size):
            places = np.arange(start, start + size)
            mine = (batch.image[rows], batch.label[rows], places[rows])
            shared = (*parallel.split_batch(mine, layout), *knobs)
            found, counts = gather(state.variables, shared)
            parts.append(found[batch.mask])
            bad += int(counts[batch.mask].sum())
            start += size
        return np.concatenate(parts), bad


class Watcher(EpochHook):
    """Measures before the first step, and at the end of every epoch.

    What says nothing of an untrained network is not measured before the first step.
    """

    def __init__(self, plan: Plan, first: int) -> None:
        """Rows beyond step ``first`` are dropped; see ``EpochHook``."""
        config, settings = plan.config, plan.config.train
        if plan.resident is not None:
            test = plan.resident.splits[config.data.test_split]
        else:
            # Each process reads all of them, so that none has to send pixels.
            test = samples.load(
                config.data,
                config.data.test_split,
                examples=settings.watch_examples,
                seed=_WATCH_SEED,
            )
        watched = samples.watched(test, settings.watch_examples)
        super().__init__(plan, first, watched, epochs.FILE_NAME)
        self.cut()
        self._gather = {
            name: parallel.make_gather(
                _with_knob(WATCHES[name].each, self._predict), plan.layout
            )
            for name in settings.watch
        }

    def due(self, before: int, done: int) -> bool:
        """Whether an epoch ended after ``before``, and has not all its rows."""
        return super().due(before, done) and bool(self._missing(done))

    def measure(self, state: TrainState, done: int) -> bool:
        """Adds a row for each watch; never ends the run."""
        self._append([self._found(name, state, done) for name in self._missing(done)])
        return False

    def scalars(self, done: int) -> dict[str, float]:
        """Accuracy and loss on the images that are watched: "test_accuracy"."""
        return epochs.answered(row for row in self.rows if row["step"] == done)

    def _missing(self, done: int) -> list[str]:
        known = {row["watch"] for row in self.rows if row["step"] == done}
        return [
            name
            for name in self._gather
            if name not in known and (done or WATCHES[name].untrained)
        ]

    def _found(self, name: str, state: TrainState, done: int) -> dict[str, Any]:
        watch, devices = WATCHES[name], len(self._plan.layout.local)
        knobs = watch.knobs(self._plan.config.data.image_size)
        found, bad = zip(
            *(
                self._each(
                    self._gather[name], state, np.full(devices, knob, np.float32)
                )
                for knob in knobs
            ),
            strict=True,
        )
        values = watch.summarise(knobs, found)
        split = self._plan.config.data.test_split
        row = self._row(done, sum(bad), watch=name, split=split)
        return row | {key: _finite(value) for key, value in values.items()}


class Guard(EpochHook):
    """Attacks the held-out images epoch by epoch, and ends the run when they fall.

    The state of the last good epoch is kept beside the checkpoints, and the accuracies
    in ``held_out.jsonl``.
    """

    def __init__(self, plan: Plan, first: int) -> None:
        """Rows and states beyond step ``first`` are dropped; see ``EpochHook``."""
        config, layout = plan.config, plan.layout
        assert plan.resident is not None
        images, labels = plan.resident.splits[config.data.train_split]
        out = samples.hold_out(len(labels), config.adversary.held_out)[1]
        held = data.ArraySplit(np.asarray(images[out]), labels[out])
        super().__init__(plan, first, held, epochs.HELD_OUT)
        for row in self.rows:
            if row["collapsed"]:
                self.ended_at = row["step"]
        self._good = checkpoint.Checkpoints(
            plan.run.root / overfitting.FOLDER,
            keep=2,
            owner=config_lib.config_hash(config),
        )
        if self.ended_at is None:
            self.cut()
            self._good.forget_after(first)
        self._settings, unroll = config.adversary, not layout.accelerated
        self._right = parallel.make_gather(
            lambda variables, batch: overfitting.right_under_attack(
                self._predict, variables, batch, self._settings, unroll=unroll
            ),
            layout,
        )

    def begin(self, state: TrainState, done: int) -> None:
        """Keeps the state that training goes on from, if no good one is left."""
        wanted = done and self.ended_at is None and self._settings.stop_drop
        if wanted and not self._good.steps:
            self._keep(state, done)

    def due(self, before: int, done: int) -> bool:
        """Whether an epoch ended after ``before``, in a step done here."""
        known = any(row["step"] == done for row in self.rows)
        return super().due(before, done) and done > self._first and not known

    def measure(self, state: TrainState, done: int) -> bool:
        """Adds a row; whether accuracy fell by more than ``adversary.stop_drop``."""
        (accuracy, bad), drop = self._accuracy(state), self._settings.stop_drop
        last = self.rows[-1]["robust_accuracy"] if self.rows else 0.0
        collapsed = 0 < drop < last - accuracy
        if not collapsed and drop:
            self._keep(parallel.first_copy(state), done)
        row = self._row(done, bad, robust_accuracy=accuracy)
        self._append([row | {"collapsed": collapsed}])
        if collapsed:
            self.ended_at = done
        return collapsed

    def go_back(self, saved: checkpoint.Checkpoints, like: Any) -> tuple[int, Any]:
        """Makes the state of the last good epoch the newest checkpoint.

        Args:
            saved: the run's checkpoints.
            like: a state of the same structure.

        Returns:
            Its step, and the state as NumPy arrays.

        Raises:
            CheckpointError: it can't be read.
        """
        found = self._good.restore(like)
        if found is None:
            raise CheckpointError(
                f"the state before step {self.ended_at} is not in {overfitting.FOLDER}"
            )
        kept, state = found
        fall = [row["robust_accuracy"] for row in self.rows][-2:]
        say(
            "catastrophic overfitting: accuracy under PGD on held-out images fell from "
            f"{100 * fall[0]:.1f} to {100 * fall[1]:.1f} % up to step "
            f"{self.ended_at:,}; the network of step {kept:,} is kept"
        )
        saved.rewind(kept, state)
        return kept, state

    def close(self) -> None:
        """Frees what the kept state's files hold."""
        self._good.close()

    def _keep(self, state: TrainState, done: int) -> None:
        self._good.save(done, state)
        self._good.wait()

    def _accuracy(self, state: TrainState) -> tuple[float, int]:
        right, bad = self._each(self._right, state)
        return float(np.mean(right)), bad


def make_hooks(plan: Plan, first: int) -> list[EpochHook]:
    """Returns the hooks of a run that goes on from step ``first``."""
    hooks: list[EpochHook] = []
    if plan.config.train.watch:
        hooks.append(Watcher(plan, first))
    if plan.rows is not None:
        hooks.append(Guard(plan, first))
    return hooks


def _with_knob(each: Callable[..., Any], predict: Predict) -> Callable[..., Any]:
    def run(variables: Any, both: tuple[jax.Array, ...]) -> Any:
        images, labels, _, knob = both
        return each(predict, variables, images, labels, knob)

    return run


def _finite(values: Any) -> Any:
    """Numbers and lists of them for JSON, which has no NaN: null in its place."""
    array = np.asarray(values, np.float64).astype(object)
    array[~np.isfinite(array.astype(np.float64))] = None
    return array.tolist()
