"""Several seeds of one configuration in one program, a lane for each.

A small network leaves most of an accelerator idle. ``jax.vmap`` over the seeds gives
its matrix products more to do at once; the images lie there once for all of them. Each
lane draws what its run would draw alone and has that run's work directory, so that any
of them can be gone on with by itself; the sums of its products are rounded otherwise.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax import config as config_lib
from apr_jax import parallel
from apr_jax.console import say
from apr_jax.errors import CheckpointError, ConfigError, Diverged
from apr_jax.process import StopSignal
from apr_jax.train import dispatch
from apr_jax.train import loop as loop_lib
from apr_jax.train import plan as plan_lib
from apr_jax.train import step as step_lib
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


def train(
    plans: Sequence[plan_lib.Plan], *, until: int | None = None, quiet: bool = False
) -> list[loop_lib.Trained]:
    """Trains several runs from their checkpoints, or the start, to the end.

    A SIGTERM or SIGINT ends them after the call under way, with all states saved.

    Args:
        plans: from ``plan.plan``; see ``check``.
        until: stop after this step, with the states saved, if it comes before the end.
        quiet: no progress bar.

    Raises:
        ConfigError: they don't fit together, or stand at different steps.
        Diverged: the loss of one is not finite. The last good checkpoints of all of
            them stay, and each can be gone on with alone.
        CheckpointError: a state could not be saved, or none can be read.
    """
    check(plans)
    started = time.monotonic()
    total = plans[0].total_steps
    saved = [plan_lib.open_checkpoints(plan) for plan in plans]
    states = []
    for plan, checkpoints in zip(plans, saved, strict=True):
        start, rate = plan_lib.initial_state(plan)
        found = checkpoints.restore(start)
        states.append(start if found is None else found[1])
    first = _common_step(plans, states)
    done, last = first, total if until is None else min(until, total)
    if first:
        say(f"going on from the checkpoints of step {first:,} of {total:,}")
    stopped_by = None
    with contextlib.ExitStack() as open_files:
        signal = open_files.enter_context(StopSignal())
        meters = []
        for lane in range(len(plans)):
            writer, meter = loop_lib.make_meter(
                plans[lane],
                first=first,
                rate=rate,
                started=started,
                quiet=quiet or lane > 0,  # the first lane has the progress bar
                lane=lane,
            )
            open_files.enter_context(writer)
            meters.append(open_files.enter_context(meter))
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *states)
        state = parallel.replicate(stacked, plans[0].layout)
        call = _advance(plans, rate)
        try:
            while done < last and stopped_by is None:
                end = min(last, plans[0].stage_end(done))
                count = min(plans[0].steps_per_call, end - done)
                state, metrics = call(state, done, count)
                for meter in meters:
                    meter.add(done, metrics)
                before, done = done, done + count
                stopped_by = loop_lib.stop_requested(saved[0], done, signal)
                every = plans[0].config.checkpoint.every_steps
                if stopped_by or done == last or done // every > before // every:
                    for meter in meters:
                        meter.flush()  # so that no state after a bad loss is saved
                    states = _unstacked(state, len(plans))
                    for checkpoints, one in zip(saved, states, strict=True):
                        checkpoints.save(done, one)
        except Diverged as error:
            for checkpoints in saved:
                checkpoints.close()
            names = ", ".join(plan.config.name for plan in plans)
            raise Diverged(f"{error}, in one of {names}") from None
    for checkpoints in saved:
        checkpoints.close()
    return [
        loop_lib.Trained(
            step=done,
            stopped_by=stopped_by if done < total else None,
            collapsed_at=None,
            state=one,
            seconds_to_first_step=meters[0].seconds_to_first_step,
        )
        for one in states
    ]


def _common_step(plans: Sequence[plan_lib.Plan], states: Sequence[TrainState]) -> int:
    steps = [int(state.step) for state in states]
    if len(set(steps)) > 1:
        listed = ", ".join(
            f"{plan.config.name} at {step:,}"
            for plan, step in zip(plans, steps, strict=True)
        )
        raise CheckpointError(
            f"runs that train together must stand at one step; there are {listed}"
        )
    return steps[0]


def _advance(
    plans: Sequence[plan_lib.Plan], rate: Any
) -> Callable[[Any, int, int], tuple[Any, Any]]:
    """Returns ``(states, step, count) -> (states, metrics)``, all with a lane axis."""
    plan = plans[0]
    config, layout = plan.config, plan.layout
    images, labels = parallel.replicate(tuple(dispatch.training_images(plan)), layout)
    keys = jnp.stack([dispatch.run_key(each.config.seed) for each in plans])
    keys = parallel.replicate(keys, layout)
    _, positions = dispatch.constants(plan)
    rows = parallel.local_rows(config.train.batch_size, layout)
    mapped: dict[tuple[int, int], Callable[..., Any]] = {}

    def call(state: Any, step: int, count: int) -> tuple[Any, Any]:
        call = plan.stage_end(step), count
        if call not in mapped:  # the last call of a stage may be shorter
            train_step = dispatch.make_step(plan, rate, step)
            lanes = jax.vmap(
                step_lib.make_resident_steps(train_step, count),
                in_axes=(0, None, None, 0, None, 0),
            )
            mapped[call] = parallel.map_devices(lanes, layout, donate=(0,))
        indices = np.stack(
            [dispatch.indices_of(each, step, count)[:, rows] for each in plans]
        )
        mine = parallel.split_batch(indices, layout, axis=2)
        return mapped[call](state, images, labels, mine, positions, keys)

    return call


def _unstacked(state: Any, count: int) -> list[TrainState]:
    """Returns the states of the lanes, as NumPy arrays."""
    stacked = parallel.first_copy(state)
    return [
        jax.tree.map(lambda leaf, lane=lane: np.asarray(leaf[lane]), stacked)
        for lane in range(count)
    ]
