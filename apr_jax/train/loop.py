"""Trains a network: data -> step -> checkpoint, and goes on where it stopped.

``train`` can be killed at any moment. Started again in the same work directory it
takes up the newest good checkpoint and ends with the same bits as a run that was
never stopped, on the same devices.
"""

import contextlib
import dataclasses
import errno
import os
import pathlib
import time
from collections.abc import Sequence

from apr_jax import parallel
from apr_jax.console import say
from apr_jax.errors import CheckpointError, Diverged
from apr_jax.gates import stores
from apr_jax.process import StopSignal, signal_name
from apr_jax.train import dispatch, seeds
from apr_jax.train import hooks as hooks_lib
from apr_jax.train import plan as plan_lib
from apr_jax.train.meter import Meter
from apr_jax.train.state import TrainState


@dataclasses.dataclass(frozen=True)
class Trained:
    """The end of a call of ``train``: its step, its state, and why."""

    step: int
    stopped_by: str | None  # name of the signal that ended it before the last step
    collapsed_at: int | None  # step of catastrophic overfitting; ``state`` is before it
    state: TrainState  # NumPy arrays
    seconds_to_first_step: float | None  # None: there was no step left to do


def train(
    plan: plan_lib.Plan, *, until: int | None = None, quiet: bool = False
) -> Trained:
    """Trains from the newest checkpoint, or the start, to the end.

    SIGTERM, SIGINT or SIGHUP ends it after the call under way, with the state saved; of
    several processes all of them, one call later, whichever has the signal.

    Args:
        plan: from ``plan.plan``.
        until: stop after this step, with the state saved, if it comes before the end.
        quiet: no progress bar.

    Raises:
        Diverged: the loss is not finite; the last good checkpoint stays.
        CheckpointError: a state, or another file of the run, could not be saved, or
            none can be read.
    """
    return train_together([plan], until=until, quiet=quiet)[0]


def train_together(
    plans: Sequence[plan_lib.Plan], *, until: int | None = None, quiet: bool = False
) -> list[Trained]:
    """Trains several runs as ``train`` does one, each with its own checkpoints.

    Args:
        plans: from ``plan.plan``; see ``seeds.check``.
        until, quiet: as ``train``'s.

    Raises:
        ConfigError: they don't fit together.
        Diverged: the loss of one is not finite. The last good checkpoints of all of
            them stay, and each can be gone on with alone.
        CheckpointError: they stand at different steps, or as in ``train``.
    """
    try:
        return _train(plans, until=until, quiet=quiet)
    except OSError as error:
        _explain(error, [plan.run.root for plan in plans])
        raise


def _explain(error: OSError, roots: Sequence[stores.Place]) -> None:
    """Raises CheckpointError for a file of a run that can't be written or read."""
    name = error.filename
    if isinstance(name, str) and any(_is_within(name, root) for root in roots):
        full = error.errno == errno.ENOSPC
        what = "the disk is full" if full else error.strerror
        raise CheckpointError(f"training ends at {name}: {what}") from error


def _is_within(name: str, root: stores.Place) -> bool:
    if isinstance(root, stores.StorePath):
        return name.startswith(f"{root}/")
    return pathlib.Path(name).absolute().is_relative_to(root.absolute())


def _train(
    plans: Sequence[plan_lib.Plan], *, until: int | None, quiet: bool
) -> list[Trained]:
    started = time.monotonic()
    lanes = seeds.Lanes(plans)
    plan, done, total = plans[0], lanes.step, plans[0].total_steps
    if done:
        which = "checkpoint" if len(plans) == 1 else "checkpoints"
        say(f"going on from the {which} of step {done:,} of {total:,}")
    hooks = hooks_lib.make_hooks(plan, done)
    last = total if until is None else min(until, total)
    for hook in hooks:
        hook.begin(lanes.states[0], done)
        if hook.ended_at is not None:
            last = done  # of an earlier start; go_back finishes what it began
    with StopSignal() as signal:  # until the last save is on the disk
        trained = _to_the_end(lanes, hooks, signal, last, started, quiet)
    if signal.number and trained[0].stopped_by is None:
        os.kill(os.getpid(), signal.number)  # it came too late for the loop
    return trained


def _to_the_end(
    lanes: seeds.Lanes,
    hooks: Sequence[hooks_lib.EpochHook],
    signal: StopSignal,
    last: int,
    started: float,
    quiet: bool,
) -> list[Trained]:
    """Trains up to step ``last``; lets a hook that ended the run go back."""
    plans, first = lanes.plans, lanes.step
    try:
        with contextlib.ExitStack() as opened:
            meters = [
                Meter(
                    plan,
                    first=first,
                    started=started,
                    quiet=quiet or lane > 0,  # the first lane has the progress bar
                    lane=lane if len(plans) > 1 else None,
                )
                for lane, plan in enumerate(plans)
            ]
            for meter in meters:
                opened.enter_context(meter)
            call = opened.enter_context(dispatch.advancing(plans, first))
            done, stopped_by = _steps(lanes, hooks, meters, signal, call, last)
    except Diverged as error:
        lanes.close()
        raise Diverged(f"{error}{lanes.left_behind()}") from None
    collapsed_at = None
    for hook in hooks:
        if hook.ended_at is not None:
            collapsed_at = hook.ended_at
            done, lanes.states[0] = hook.go_back(lanes.saved[0], lanes.starts[0])
        hook.close()
    lanes.close()
    return [
        Trained(
            step=done,
            stopped_by=stopped_by if done < plans[0].total_steps else None,
            collapsed_at=collapsed_at,
            state=state,
            seconds_to_first_step=meters[0].seconds_to_first_step,
        )
        for state in lanes.states
    ]


def _steps(
    lanes: seeds.Lanes,
    hooks: Sequence[hooks_lib.EpochHook],
    meters: Sequence[Meter],
    signal: StopSignal,
    call: dispatch.Advance,
    last: int,
) -> tuple[int, str | None]:
    """Trains up to step ``last``; returns the steps done and what signal ended them."""
    plan, done, stopped_by = lanes.plans[0], lanes.step, None
    every = plan.config.checkpoint.every_steps
    state = lanes.on_devices()
    agree = parallel.make_agreement(plan.layout)
    _follow(hooks, meters[0], state, done - 1, done)
    while done < last and stopped_by is None:
        end = min(last, plan.stage_end(done))
        count = min(plan.steps_per_call, end - done)
        before, done = done, done + count
        state, metrics = call(state, before, count)
        for meter in meters:
            meter.add(before, metrics)
        if lanes.held is not None:
            for meter in meters:
                meter.flush()
            lanes.save_held()
        if _follow(hooks, meters[0], state, before, done):
            break
        stopped_by = signal_name(agree(signal.number))
        if stopped_by or done == last or done // every > before // every:
            lanes.hold(done, state)
    if lanes.held is not None:
        # No further step shows whether the last state is good; this one is for that.
        _, metrics = call(state, done, count)
        for meter in meters:
            meter.flush()
            meter.check(done, metrics)
        lanes.save_held()
    return done, stopped_by


def _follow(
    hooks: Sequence[hooks_lib.EpochHook],
    meter: Meter,
    state: TrainState,
    before: int,
    done: int,
) -> bool:
    """Runs the hooks that are due; returns whether one ends the run.

    The meter looks at the losses first, so that nothing is measured of a state that is
    not finite.
    """
    ends = False
    for hook in hooks:
        if hook.due(before, done):
            with meter.paused():
                ends |= hook.measure(state, done)
            meter.note(done, hook.scalars(done))
    return ends
