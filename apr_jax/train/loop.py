"""Trains a network: data -> step -> checkpoint, and goes on where it stopped.

``train`` can be killed at any moment. Started again in the same work directory it
takes up the newest good checkpoint and ends with the same bits as a run that was
never stopped, on the same devices.
"""

import contextlib
import dataclasses
import time
from typing import Any

import jax
import numpy as np

from apr_jax import data, network, parallel
from apr_jax.console import say
from apr_jax.data import samples
from apr_jax.errors import Diverged
from apr_jax.process import StopSignal
from apr_jax.runs import checkpoint, curves
from apr_jax.train import dispatch, optim, overfitting, watch
from apr_jax.train import plan as plan_lib
from apr_jax.train.meter import Meter
from apr_jax.train.state import TrainState

# Draws the test images that are watched of streamed data; the same ones for every run.
_WATCH_SEED = 0


@dataclasses.dataclass(frozen=True)
class Trained:
    """Where a call of ``train`` ended."""

    step: int
    stopped_by: str | None  # name of the signal that ended it before the last step
    collapsed_at: int | None  # step of catastrophic overfitting; ``state`` is before it
    state: TrainState  # NumPy arrays
    seconds_to_first_step: float | None  # None: there was no step left to do


def train(
    plan: plan_lib.Plan, *, until: int | None = None, quiet: bool = False
) -> Trained:
    """Trains from the newest checkpoint, or the start, to the end.

    A SIGTERM or SIGINT ends it after the call under way, with the state saved.

    Args:
        plan: from ``plan.plan``.
        until: stop after this step, with the state saved, if it comes before the end.
        quiet: no progress bar.

    Raises:
        Diverged: the loss is not finite; the last good checkpoint stays.
        CheckpointError: a state could not be saved, or none can be read.
    """
    started = time.monotonic()
    config, total = plan.config, plan.total_steps
    start, rate = plan_lib.initial_state(plan)
    saved = plan_lib.open_checkpoints(plan)
    state, found = start, saved.restore(start)
    if found is not None:
        state = found[1]
        say(f"going on from the checkpoint of step {found[0]:,} of {total:,}")
    first = done = int(state.step)
    writer, meter = make_meter(
        plan, first=first, rate=rate, started=started, quiet=quiet
    )
    watcher, guard = _watcher(plan, first), _guard(plan, first)
    guard.begin(state, first)
    make = dispatch.streamed if plan.resident is None else dispatch.resident
    call = make(plan, rate, first)
    last = total if until is None else min(until, total)
    stopped_by = None
    if guard.collapsed_at is not None:
        last = done  # of an earlier start; go_back finishes what it began
    try:
        with StopSignal() as signal, writer, meter:
            on_devices = parallel.replicate(state, plan.layout)
            watcher.follow(meter, on_devices.variables, -1, done)
            while done < last and stopped_by is None:
                end = min(last, plan.stage_end(done))
                count = min(plan.steps_per_call, end - done)
                on_devices, metrics = call(on_devices, done, count)
                meter.add(done, metrics)
                before, done = done, done + count
                watcher.follow(meter, on_devices.variables, before, done)
                if guard.follow(meter, on_devices, before, done):
                    break
                stopped_by = stop_requested(saved, done, signal)
                every = config.checkpoint.every_steps
                if stopped_by or done == last or done // every > before // every:
                    meter.flush()  # so that no state after a bad loss is saved
                    state = parallel.first_copy(on_devices)
                    saved.save(done, state)
    except Diverged as error:
        saved.close()
        raise Diverged(f"{error}; {_last_good(saved)}") from None
    if guard.collapsed_at is not None:
        done, state = guard.go_back(saved, start)
    guard.close()
    saved.close()
    return Trained(
        step=done,
        stopped_by=stopped_by if done < total else None,
        collapsed_at=guard.collapsed_at,
        state=state,
        seconds_to_first_step=meter.seconds_to_first_step,
    )


def make_meter(
    plan: plan_lib.Plan,
    *,
    first: int,
    rate: optim.Schedule,
    started: float,
    quiet: bool,
    lane: int | None = None,
) -> tuple[contextlib.AbstractContextManager[Any], Meter]:
    """Returns what writes a run's curve, and the meter that it belongs to.

    Args:
        plan: of the run.
        first: step that training goes on from.
        rate: the learning rate.
        started: in monotonic time.
        quiet: no progress bar.
        lane: of several runs in one program; None for a run alone.
    """
    config, writer = plan.config, None
    if parallel.is_primary():
        writer = curves.curve_writer(
            plan.run.root, resume_step=first, tensorboard=config.train.tensorboard
        )
    meter = Meter(
        first=first,
        total=plan.total_steps,
        batch_size=config.train.batch_size,
        epoch_steps=plan.epoch_steps,
        log_every=config.train.log_every,
        rate=rate,
        curve=writer,
        started=started,
        quiet=quiet or not parallel.is_primary(),
        lane=lane,
    )
    return writer or contextlib.nullcontext(), meter


def _watcher(plan: plan_lib.Plan, first: int) -> watch.Watcher:
    """Returns what watches the run from step ``first`` on."""
    config, test = plan.config, None
    if plan.resident is not None:
        test = plan.resident.splits[config.data.test_split]
    elif config.train.watch:
        # Each process reads all of them, so that none has to send pixels.
        test = samples.load(
            config.data,
            config.data.test_split,
            examples=config.train.watch_examples,
            seed=_WATCH_SEED,
        )
    return watch.Watcher(
        config,
        network.make_predict(plan.model, config),
        test,
        plan.layout,
        plan.run.root,
        epoch_steps=plan.epoch_steps,
        total_steps=plan.total_steps,
        resume_step=first,
    )


def _guard(plan: plan_lib.Plan, first: int) -> overfitting.Guard:
    """Returns what looks for catastrophic overfitting from step ``first`` on."""
    config, held = plan.config, None
    if plan.rows is not None:
        assert plan.resident is not None
        split = plan.resident.splits[config.data.train_split]
        out = samples.hold_out(len(split.labels), config.adversary.held_out)[1]
        held = data.ArraySplit(np.asarray(split.images[out]), split.labels[out])
    return overfitting.Guard(
        config,
        network.make_predict(plan.model, config),
        held,
        plan.layout,
        plan.run.root,
        epoch_steps=plan.epoch_steps,
        total_steps=plan.total_steps,
        resume_step=first,
    )


def _last_good(saved: checkpoint.Checkpoints) -> str:
    """Says which checkpoint a diverged run leaves behind."""
    if not saved.steps:
        return "there is no checkpoint yet. A lower optim.learning_rate may help"
    return (
        f"the last good checkpoint, of step {saved.steps[-1]}, is kept. "
        "A lower optim.learning_rate may help"
    )


def stop_requested(
    saved: checkpoint.Checkpoints, step: int, signal: StopSignal
) -> str | None:
    """Returns the signal that ends the run after ``step``, the same on each process."""
    if jax.process_count() > 1:
        return "SIGTERM" if saved.reached_preemption(step) else None
    return signal.name
