"""Catastrophic overfitting: seen on held-out images, and answered by going back.

Training against one signed step can lose all robustness within an epoch while its own
loss still falls. Some training images are therefore held out and attacked by PGD at the
end of every epoch; a sudden fall ends the run with the network of the epoch before.

Source: Wong et al., "Fast is better than free", ICLR 2020, section 5.4, whose code
looks at the first batch of an epoch instead.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from apr_jax import config as config_lib
from apr_jax import data, parallel
from apr_jax.console import say
from apr_jax.errors import CheckpointError, ConfigError
from apr_jax.pixels import to_pixels
from apr_jax.runs import checkpoint, epochs, jsonl
from apr_jax.train import adversarial
from apr_jax.train.meter import Meter
from apr_jax.train.state import TrainState

FOLDER = "before_overfitting"

# What the held-out images are attacked with: steps, and their length in radii.
_STEPS, _LENGTH = 10, 0.25
# Keeps the starts of attacks apart from other draws.
_STREAM = 0x5C1E


def check(config: config_lib.Config) -> None:
    """Raises ConfigError where fields of ``adversary`` don't go together."""
    settings = config.adversary
    if settings.stop_drop and not settings.held_out:
        raise ConfigError(
            f"adversary.stop_drop is {settings.stop_drop}, and adversary.held_out is "
            "0; a fall is seen on held-out images, such as 1000"
        )
    if not settings.held_out:
        return
    if settings.attack == "none":
        raise ConfigError(
            f"adversary.held_out is {settings.held_out}, and adversary.attack is "
            "'none'; there is nothing to overfit to"
        )
    if config.data.streaming:
        raise ConfigError(
            f"adversary.held_out is {settings.held_out}; it needs training images in "
            "memory, which data.streaming does without"
        )


def right_under_attack(
    predict: Callable[..., Any],
    variables: Any,
    batch: tuple[jax.Array, jax.Array, jax.Array],
    settings: config_lib.Adversary,
    *,
    unroll: bool,
) -> jax.Array:
    """Whether images are still classified rightly after ten steps of PGD, bool [B].

    L-infinity, from a random start in the radius of ``settings``, by steps of a quarter
    of it, with running statistics.

    Args:
        predict: of ``network.make_predict``.
        variables: its first argument.
        batch: images uint8 [B, H, W, C]; labels int [B]; and int [B], which images
            they are, from which their starts are drawn.
        settings: the radius.
        unroll: see ``adversary.perturb``.
    """
    images, labels, positions = batch
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(_STREAM), positions)
    attack = dataclasses.replace(
        settings, attack="pgd", steps=_STEPS, step_size=_LENGTH * settings.eps
    )

    def loss_of(pixels: jax.Array) -> jax.Array:
        logits, _ = predict(variables, pixels)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.sum()

    moved = adversarial.perturb(keys, loss_of, to_pixels(images), attack, unroll=unroll)
    return predict(variables, moved)[0].argmax(-1) == labels


class Guard:
    """Attacks the held-out images epoch by epoch; does nothing where there are none.

    The state of the last good epoch is kept beside the checkpoints, and the accuracies
    in ``held_out.jsonl``.
    """

    def __init__(
        self,
        config: config_lib.Config,
        predict: Callable[..., Any],
        held: data.ArraySplit | None,
        layout: parallel.Layout,
        root: pathlib.Path,
        *,
        epoch_steps: float,
        total_steps: int,
        resume_step: int,
    ) -> None:
        """Rows beyond ``resume_step``, of a killed run, are dropped.

        Args:
            config: its ``adversary`` part is used.
            predict: of ``network.make_predict``.
            held: the held-out images; None for none.
            layout: the devices.
            root: the run's directory.
            epoch_steps: steps of an epoch, not necessarily whole.
            total_steps: of the run.
            resume_step: where training goes on, 0 for a new run.
        """
        self._held = held
        self.collapsed_at: int | None = None  # step of the fall, once there was one
        if held is None:
            return
        self._config = config
        self._layout = layout
        self._path = root / epochs.HELD_OUT
        self._epoch_steps = epoch_steps
        self._ends = epochs.epoch_ends(epoch_steps, total_steps)
        self._rows = epochs.read_held_out(root)
        for row in self._rows:
            if row["collapsed"]:
                self.collapsed_at = row["step"]
        if self.collapsed_at is None:
            self._rows = [row for row in self._rows if row["step"] <= resume_step]
            if parallel.is_primary() and self._path.exists():
                jsonl.replace(self._path, self._rows)
        self._good = checkpoint.Checkpoints(
            root / FOLDER, keep=2, owner=config_lib.config_hash(config)
        )
        if self.collapsed_at is None:
            self._good.forget_after(resume_step)
        settings, unroll = config.adversary, not layout.accelerated
        self._right = parallel.make_gather(
            lambda variables, batch: right_under_attack(
                predict, variables, batch, settings, unroll=unroll
            ),
            layout,
        )

    def begin(self, state: TrainState, done: int) -> None:
        """Keeps the state that training goes on from, if no good one is left.

        Args:
            state: NumPy arrays.
            done: its step.
        """
        if self._held is None or self.collapsed_at is not None or not done:
            return
        if self._config.adversary.stop_drop and not self._good.steps:
            self._good.save(done, state)
            self._good.wait()

    def follow(self, meter: Meter, state: TrainState, before: int, done: int) -> bool:
        """Measures if an epoch ended after step ``before`` and up to ``done``.

        Args:
            meter: looks at the losses first, and leaves the time out of the speed.
            state: replicated, after step ``done``.
            before: step of the last call.
            done: steps done.

        Returns:
            Whether the accuracy has fallen by more than ``adversary.stop_drop`` since
            the epoch before.
        """
        if self._held is None:
            return False
        ended = np.any((self._ends > before) & (self._ends <= done))
        if not ended or any(row["step"] == done for row in self._rows):
            return False
        meter.flush()
        started = time.monotonic()
        accuracy = self._accuracy(state.variables)
        drop = self._config.adversary.stop_drop
        last = self._rows[-1]["robust_accuracy"] if self._rows else 0.0
        collapsed = 0 < drop < last - accuracy
        row = {
            "step": done,
            "epoch": done / self._epoch_steps,
            "robust_accuracy": accuracy,
            "examples": len(self._held.labels),
            "collapsed": collapsed,
        }
        if not collapsed and drop:
            self._good.save(done, parallel.first_copy(state))
            self._good.wait()
        self._rows.append(row)
        if parallel.is_primary():
            jsonl.append(self._path, [row])
        if collapsed:
            self.collapsed_at = done
        meter.leave_out(time.monotonic() - started)
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
                f"the state before step {self.collapsed_at} is not in {FOLDER}"
            )
        kept, state = found
        fall = [row["robust_accuracy"] for row in self._rows][-2:]
        say(
            "catastrophic overfitting: accuracy under PGD on held-out images fell from "
            f"{100 * fall[0]:.1f} to {100 * fall[1]:.1f} % up to step "
            f"{self.collapsed_at:,}; the network of step {kept:,} is kept"
        )
        saved.rewind(kept, state)
        return kept, state

    def close(self) -> None:
        """Frees what the kept state's files hold."""
        if self._held is not None:
            self._good.close()

    def _accuracy(self, variables: Any) -> float:
        assert self._held is not None
        size = self._config.train.batch_size
        rows = parallel.local_rows(size, self._layout)
        right, start = [], 0
        for batch in data.eval_batches(self._held, size):
            places = np.arange(start, start + size)
            mine = (batch.image[rows], batch.label[rows], places[rows])
            found = self._right(variables, parallel.split_batch(mine, self._layout))
            right.append(found[batch.mask])
            start += size
        return float(np.mean(np.concatenate(right)))
