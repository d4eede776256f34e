"""Several seeds of one configuration in one program, a lane for each.

A small network leaves most of an accelerator idle. ``jax.vmap`` over the seeds gives
its matrix products more to do at once; the images lie there once for all of them. Each
lane draws what its run would draw alone and has that run's work directory, so that any
of them can be gone on with by itself; the sums of its products are rounded otherwise.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from apr_jax import config as config_lib
from apr_jax import parallel
from apr_jax.errors import CheckpointError, ConfigError
from apr_jax.train import init_from
from apr_jax.train import plan as plan_lib
from apr_jax.train.state import TrainState


def check(plans: Sequence[plan_lib.Plan]) -> None:
    """Raises ConfigError unless the plans can share a program.

    They must differ in seed, name and work directory only, have their images in
    memory, and neither watch nor hold out anything.
    """
    first = plans[0].config
    for plan in plans:
        config = plan.config
        other = dataclasses.replace(config, seed=first.seed, name=first.name)
        differs = config_lib.differences(first, other)
        if differs:
            field, here, there = differs[0]
            raise ConfigError(
                f"runs that train together differ in seed and name only; {field} is "
                f"{here!r} in {first.name!r} and {there!r} in {config.name!r}"
            )
        if plan.resident is None:
            raise ConfigError(
                "data.streaming is True; runs that train together need their images in "
                "memory"
            )
        if config.train.watch or config.adversary.held_out:
            raise ConfigError(
                "train.watch and adversary.held_out are for runs that train alone; "
                f"{config.name!r} has one of them"
            )
    if len({plan.run.root for plan in plans}) < len(plans):
        raise ConfigError("runs that train together need work directories of their own")


class Lanes:
    """Runs in one program, or a run alone: their states and checkpoints.

    Attributes:
        plans: those of the runs.
        starts: the states before the first step, NumPy arrays.
        saved: the checkpoints of each.
        states: those held last, or those that training begins with; NumPy arrays.
        held: the step of states that aren't saved yet, or None.
        step: the one at which all of them stand at first.
    """

    def __init__(self, plans: Sequence[plan_lib.Plan]) -> None:
        """Takes up the newest checkpoint of each, or the start.

        Raises:
            ConfigError: several don't fit together.
            CheckpointError: none can be read, or they stand at different steps.
        """
        if len(plans) > 1:
            check(plans)
        self.plans = plans
        self.held: int | None = None
        self.starts = [plan_lib.initial_state(plan) for plan in plans]
        self.saved = [plan_lib.open_checkpoints(plan) for plan in plans]
        self.states = []
        for number, (plan, saved) in enumerate(zip(plans, self.saved, strict=True)):
            found = saved.restore(self.starts[number])
            if found is None and plan.config.train.init_from:
                self.starts[number] = init_from.begin(
                    plan.config, self.starts[number], plan.class_names
                )
            self.states.append(self.starts[number] if found is None else found[1])
        steps = [int(state.step) for state in self.states]
        if len(set(steps)) > 1:
            listed = ", ".join(
                f"{plan.config.name} at {step:,}"
                for plan, step in zip(plans, steps, strict=True)
            )
            raise CheckpointError(
                f"runs that train together must stand at one step; there are {listed}"
            )
        self.step = steps[0]

    def on_devices(self) -> TrainState:
        """Returns the states on each device, of several with an axis of lanes."""
        state = self.states[0]
        if len(self.states) > 1:
            state = jax.tree.map(lambda *leaves: np.stack(leaves), *self.states)
        return parallel.replicate(state, self.plans[0].layout)

    def hold(self, step: int, on_devices: TrainState) -> None:
        """Takes the state of each run after ``step``, to be saved if it is good."""
        self.held = step
        state, count = parallel.first_copy(on_devices), len(self.plans)
        self.states = [state]
        if count > 1:
            self.states = [
                jax.tree.map(lambda leaf, lane=lane: np.asarray(leaf[lane]), state)
                for lane in range(count)
            ]

    def save_held(self) -> None:
        """Saves the states that are held, as the losses computed from them are finite.

        A step can leave a state that gives NaN, though its own loss was a number.
        """
        if self.held is not None:
            for saved, state in zip(self.saved, self.states, strict=True):
                saved.save(self.held, state)
        self.held = None

    def left_behind(self) -> str:
        """Says what a diverged run leaves behind, or which runs it was one of."""
        if len(self.plans) > 1:
            return f", in one of {', '.join(plan.config.name for plan in self.plans)}"
        kept = "there is no checkpoint yet"
        if steps := self.saved[0].steps:
            kept = f"the last good checkpoint, of step {steps[-1]}, is kept"
        return (
            f"; {kept}. A lower optim.learning_rate may help, which is another "
            "configuration and needs another --workdir"
        )

    def close(self) -> None:
        """Waits for the checkpoints' files."""
        for saved in self.saved:
            saved.close()
