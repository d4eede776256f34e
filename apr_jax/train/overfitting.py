"""Catastrophic overfitting: seen on held-out images, and answered by going back.

Training against one signed step can lose all robustness within an epoch while its own
loss still falls. Some training images are therefore held out and attacked by PGD at the
end of every epoch; a sudden fall ends the run with the network of the epoch before.

Source: Wong et al., "Fast is better than free", ICLR 2020, section 5.4, whose code
looks at the first batch of an epoch instead.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from apr_jax import config as config_lib
from apr_jax import data, parallel
from apr_jax.console import say
from apr_jax.errors import CheckpointError, ConfigError
from apr_jax.pixels import to_pixels
from apr_jax.runs import checkpoint, epochs
from apr_jax.train import adversarial, hooks
from apr_jax.train.state import TrainState

FOLDER = "before_overfitting"

# The attack on the held-out images: steps, and their length in radii.
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
        predict: the network, of ``network.make_predict``.
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
    loss_of = hooks.loss_of(predict, variables, labels)
    moved = adversarial.perturb(keys, loss_of, to_pixels(images), attack, unroll=unroll)
    return predict(variables, moved)[0].argmax(-1) == labels


class Guard(hooks.EpochHook):
    """Attacks the held-out images epoch by epoch, and ends the run when they fall.

    The state of the last good epoch is kept beside the checkpoints, and the accuracies
    in ``held_out.jsonl``.
    """

    def __init__(self, run: hooks.Run, held: data.ArraySplit) -> None:
        """Rows and states beyond the step that training goes on from are dropped.

        Args:
            run: the ``adversary`` part of its configuration is used.
            held: the held-out images.
        """
        super().__init__(run, held, epochs.HELD_OUT)
        for row in self.rows:
            if row["collapsed"]:
                self.ended_at = row["step"]
        self._good = checkpoint.Checkpoints(
            run.root / FOLDER, keep=2, owner=config_lib.config_hash(run.config)
        )
        if self.ended_at is None:
            self.cut()
            self._good.forget_after(run.first)
        self._settings, unroll = run.config.adversary, not run.layout.accelerated
        self._right = parallel.make_gather(
            lambda variables, batch: right_under_attack(
                run.predict, variables, batch, self._settings, unroll=unroll
            ),
            run.layout,
        )

    def begin(self, state: TrainState, done: int) -> None:
        """Keeps the state that training goes on from, if no good one is left."""
        wanted = done and self.ended_at is None and self._settings.stop_drop
        if wanted and not self._good.steps:
            self._keep(state, done)

    def due(self, before: int, done: int) -> bool:
        """Whether an epoch ended after ``before``, in a step done here."""
        known = any(row["step"] == done for row in self.rows)
        return super().due(before, done) and done > self._run.first and not known

    def measure(self, state: TrainState, done: int) -> bool:
        """Adds a row; whether accuracy fell by more than ``adversary.stop_drop``."""
        accuracy, drop = self._accuracy(state), self._settings.stop_drop
        last = self.rows[-1]["robust_accuracy"] if self.rows else 0.0
        collapsed = 0 < drop < last - accuracy
        if not collapsed and drop:
            self._keep(parallel.first_copy(state), done)
        row = self._row(done, robust_accuracy=accuracy)
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
                f"the state before step {self.ended_at} is not in {FOLDER}"
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

    def _accuracy(self, state: TrainState) -> float:
        return float(np.mean(self._each(self._right, state)))
