"""Trains a network: data -> step -> checkpoint, and goes on where it stopped.

``train`` can be killed at any moment. Started again in the same work directory it
takes up the newest good checkpoint and ends with the same bits as a run that was
never stopped, on the same devices.
"""

import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from apr_jax import (
    augment,
    checkpoint,
    contrast,
    curves,
    data,
    models,
    optim,
    overfitting,
    parallel,
    rundir,
    watch,
)
from apr_jax import config as config_lib
from apr_jax import step as step_lib
from apr_jax.data import imagenet
from apr_jax.evaluate import samples
from apr_jax.interrupt import StopSignal
from apr_jax.progress import Diverged, Meter, say

# On an accelerator so many steps at most go into one call: enough to hide the
# host's work, few enough to answer a signal within a second or two.
_MAX_STEPS_PER_CALL = 32
# Draws the test images that are watched of streamed data; the same ones for every run.
_WATCH_SEED = 0


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run will do, resolved before any long work starts."""

    config: config_lib.Config
    run: rundir.RunDir
    layout: parallel.Layout
    class_names: tuple[str, ...]
    mix: data.Mix  # of the training images
    resident: data.DataSet | None  # None: the images are streamed
    rows: np.ndarray | None  # of ``training_images``; None: all of them
    model: nn.Module

    @property
    def train_size(self) -> int:
        """Images of the training split; an epoch has so many."""
        return self.mix.main

    @property
    def epoch_steps(self) -> float:
        """Steps an epoch takes; not necessarily a whole number."""
        return self.train_size / self.config.train.batch_size

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return max(1, round(self.config.optim.epochs * self.epoch_steps))

    def stage_end(self, step: int) -> int:
        """The last step of the stage of training that goes on from ``step``."""
        first = contrast.linear_start(self.config, self.total_steps)
        return first if step < first else self.total_steps

    @property
    def steps_per_call(self) -> int:
        """Steps between two looks of the host."""
        asked = self.config.train.steps_per_call
        if self.resident is None:
            return 1
        if asked:
            return asked
        if not self.layout.accelerated:
            return 1
        return max(
            k for k in range(1, _MAX_STEPS_PER_CALL + 1) if self.total_steps % k == 0
        )


@dataclasses.dataclass(frozen=True)
class Trained:
    """Where a call of ``train`` ended."""

    step: int
    stopped_by: str | None  # name of the signal that ended it before the last step
    collapsed_at: int | None  # step of catastrophic overfitting; ``state`` is before it
    state: step_lib.TrainState  # NumPy arrays
    seconds_to_first_step: float | None  # None: there was no step left to do


def plan(config: config_lib.Config, workdir: pathlib.Path) -> Plan:
    """Checks everything that can be checked and loads the data.

    Raises:
        ConfigError: a field can't be used; the message names it, its value and the
            choices. Names, sizes and the work directory are checked before data are
            read.
        DataError: the data aren't there or can't be used.
    """
    config_lib.check(config)
    _check_names(config)
    watch.check(config)
    overfitting.check(config)
    layout = parallel.make_layout(config.train.devices)
    parallel.check_batch("train.batch_size", config.train.batch_size, layout)
    parallel.check_batch("eval.batch_size", config.eval.batch_size, layout)
    run = rundir.prepare(workdir, config, write=parallel.is_primary())
    rows = None
    if config.data.streaming:
        resident, names = None, imagenet.class_names(config.data)
        mix = imagenet.mix(config.data)
    else:
        resident = data.load(config.data)
        names = tuple(resident.class_names)
        size = len(resident.splits[config.data.train_split].labels)
        further = 0 if resident.extra is None else len(resident.extra.labels)
        if config.adversary.held_out:
            kept = overfitting.hold_out(size, config.adversary.held_out)[0]
            rows = np.r_[kept, size + np.arange(further, dtype=np.int32)]
            size = len(kept)
        mix = data.Mix(size, further, config.data.extra_ratio)
    if config.train.batch_size > mix.main:
        raise config_lib.ConfigError(
            f"train.batch_size is {config.train.batch_size}; there are only {mix.main} "
            f"images in data.train_split {config.data.train_split!r}"
        )
    if parallel.is_primary():
        rundir.write_class_names(run, names)
    return Plan(
        config=config,
        run=run,
        layout=layout,
        class_names=names,
        mix=mix,
        resident=resident,
        rows=rows,
        model=step_lib.make_model(
            config,
            num_classes=len(names),
            sync_axis=parallel.AXIS if config.train.sync_batch_norm else None,
        ),
    )


def _check_names(config: config_lib.Config) -> None:
    """Raises ConfigError unless method and model exist and fit the images."""
    size = config.data.image_size
    try:
        field = "augment.method"
        method = augment.get_method(config.augment.method)
        if method.auxiliary and config.model.norm == "none":
            raise ValueError(
                f"{config.augment.method!r} needs a second BatchNorm, and with "
                "model.norm 'none' there is no first"
            )
        contrast.check(config)
        field = "model.name"
        models.minimum_size(config.model.name)
        models.build(
            config.model.name,
            num_classes=1,
            dropout=config.model.dropout,
            norm=config.model.norm,
        )
        field = "data.image_size"
        models.check_image_size(config.model.name, size, size)
    except ValueError as error:
        raise config_lib.ConfigError(f"{field}: {error}") from error


def initial_state(plan: Plan) -> tuple[step_lib.TrainState, optim.Schedule]:
    """Returns the state before the first step, as NumPy arrays, and the schedule."""
    state, rate = _init(plan)
    return jax.tree.map(np.asarray, state), rate


def _init(plan: Plan) -> tuple[step_lib.TrainState, optim.Schedule]:
    rate = contrast.schedule(plan.config, plan.epoch_steps, plan.total_steps)
    size = plan.config.data.image_size
    state = step_lib.init_state(
        jax.random.key(plan.config.seed),
        plan.model,
        optim.sgd(plan.config.optim, rate),
        (size, size, len(plan.config.data.mean)),
        second_norm=augment.get_method(plan.config.augment.method).auxiliary,
    )
    return state, rate


def parameter_count(plan: Plan) -> int:
    """Returns how many numbers the network learns."""
    state = jax.eval_shape(lambda: _init(plan)[0])
    return sum(leaf.size for leaf in jax.tree.leaves(state.params))


def saved_step(plan: Plan) -> int:
    """Returns the step of the newest checkpoint, 0 if there is none."""
    saved = checkpoint.Checkpoints(
        plan.run.checkpoints,
        keep=plan.config.checkpoint.keep,
        owner=config_lib.config_hash(plan.config),
    )
    steps = saved.steps
    saved.close()
    return steps[-1] if steps else 0


def example_images(plan: Plan, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns ``count`` training images, uint8 [N, H, W, C], and their labels.

    They are the first of different classes, as far as there are so many.
    """
    config = plan.config
    if plan.resident is not None:
        split = plan.resident.splits[config.data.train_split]
        labels = np.asarray(split.labels)
        order = np.unique(labels, return_index=True)[1]
        chosen = np.resize(order, count)
        return np.asarray(split.images[chosen]), labels[chosen]
    batch = next(_stream(plan, 0))
    return batch.image[:count], batch.label[:count]


def train(plan: Plan, *, until: int | None = None, quiet: bool = False) -> Trained:
    """Trains from the newest checkpoint, or the start, to the end.

    A SIGTERM or SIGINT ends it after the call under way, with the state saved.

    Args:
        plan: from ``plan``.
        until: stop after this step, with the state saved, if it comes before the end.
        quiet: no progress bar.

    Raises:
        Diverged: the loss is not finite; the last good checkpoint stays.
        CheckpointError: a state could not be saved, or none can be read.
    """
    started = time.monotonic()
    config, total = plan.config, plan.total_steps
    start, rate = initial_state(plan)
    saved = checkpoint.Checkpoints(
        plan.run.checkpoints,
        keep=config.checkpoint.keep,
        owner=config_lib.config_hash(config),
    )
    state, found = start, saved.restore(start)
    if found is not None:
        state = found[1]
        say(f"going on from the checkpoint of step {found[0]:,} of {total:,}")
    first = done = int(state.step)
    writer = None
    if parallel.is_primary():
        writer = curves.curve_writer(
            plan.run.root, resume_step=first, tensorboard=config.train.tensorboard
        )
    meter = Meter(
        first=first,
        total=total,
        batch_size=config.train.batch_size,
        epoch_steps=plan.epoch_steps,
        log_every=config.train.log_every,
        rate=rate,
        curve=writer,
        started=started,
        quiet=quiet or not parallel.is_primary(),
    )
    watcher, guard = _watcher(plan, first), _guard(plan, first)
    make = _streamed if plan.resident is None else _resident
    advance = make(plan, rate, first)
    last = total if until is None else min(until, total)
    stopped_by = None
    if guard.collapsed_at is not None:
        last = done  # of an earlier start; go_back finishes what it began
    try:
        with StopSignal() as signal, writer or contextlib.nullcontext(), meter:
            on_devices = parallel.replicate(state, plan.layout)
            watcher.follow(meter, on_devices.variables, -1, done)
            while done < last and stopped_by is None:
                end = min(last, plan.stage_end(done))
                count = min(plan.steps_per_call, end - done)
                on_devices, metrics = advance(on_devices, done, count)
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


def _watcher(plan: Plan, first: int) -> watch.Watcher:
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
        step_lib.make_predict(plan.model, config),
        test,
        plan.layout,
        plan.run.root,
        epoch_steps=plan.epoch_steps,
        total_steps=plan.total_steps,
        resume_step=first,
    )


def _guard(plan: Plan, first: int) -> overfitting.Guard:
    """Returns what looks for catastrophic overfitting from step ``first`` on."""
    config, held = plan.config, None
    if plan.rows is not None:
        assert plan.resident is not None
        split = plan.resident.splits[config.data.train_split]
        out = overfitting.hold_out(len(split.labels), config.adversary.held_out)[1]
        held = data.ArraySplit(np.asarray(split.images[out]), split.labels[out])
    return overfitting.Guard(
        config,
        step_lib.make_predict(plan.model, config),
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


Advance = Callable[[Any, int, int], tuple[Any, Any]]


def make_step(plan: Plan, rate: optim.Schedule, first: int) -> step_lib.TrainStep:
    """Returns the training step of a plan, for one device of several.

    It is that of the stage of training that goes on from step ``first``.
    """
    make: Callable[..., step_lib.TrainStep] = step_lib.make_train_step
    if contrast.applies(plan.config):
        linear = first >= contrast.linear_start(plan.config, plan.total_steps)
        make = functools.partial(contrast.make_train_step, linear=linear)
    return make(
        plan.model,
        optim.sgd(plan.config.optim, rate),
        plan.config,
        axis_name=parallel.AXIS,
        fuse=not plan.layout.accelerated,
    )


def constants(plan: Plan) -> tuple[Any, np.ndarray]:
    """Returns what every step takes: the run's key, and each device's positions."""
    batch = plan.config.train.batch_size
    rows = np.arange(batch, dtype=np.int32)[parallel.local_rows(batch, plan.layout)]
    return (
        parallel.replicate(run_key(plan.config.seed), plan.layout),
        parallel.split_batch(rows, plan.layout),
    )


def run_key(seed: int) -> jax.Array:
    """Returns the key that every step of a run takes."""
    # Data order and augmentation must not repeat the numbers of the initial weights.
    return jax.random.fold_in(jax.random.key(seed), 1)


def _resident(plan: Plan, rate: optim.Schedule, first: int) -> Advance:
    """Returns ``(state, step, count) -> (state, metrics)``; images on the devices."""
    config = plan.config
    key, positions = constants(plan)
    images, labels = parallel.replicate(tuple(training_images(plan)), plan.layout)
    rows = parallel.local_rows(config.train.batch_size, plan.layout)
    mapped: dict[tuple[int, int], Callable[..., Any]] = {}

    def advance(state: Any, step: int, count: int) -> tuple[Any, Any]:
        call = plan.stage_end(step), count
        if call not in mapped:  # the last call of a stage may be shorter
            run = step_lib.make_resident_steps(make_step(plan, rate, step), count)
            mapped[call] = parallel.map_devices(run, plan.layout, donate=(0,))
        indices = indices_of(plan, step, count)
        mine = parallel.split_batch(indices[:, rows], plan.layout, axis=1)
        return mapped[call](state, images, labels, mine, positions, key)

    return advance


def training_images(plan: Plan) -> data.ArraySplit:
    """Returns images in memory: the training split's, and after them extra ones."""
    assert plan.resident is not None
    images, labels = plan.resident.splits[plan.config.data.train_split]
    if plan.resident.extra is not None:
        images = np.concatenate([images, plan.resident.extra.images])
        labels = np.concatenate([labels, plan.resident.extra.labels])
    return data.ArraySplit(np.asarray(images), np.asarray(labels, np.int32))


def indices_of(plan: Plan, step: int, count: int) -> np.ndarray:
    """Returns which images the steps see, int32 [count, batch size].

    They count ``training_images``.
    """
    config = plan.config
    indices = data.global_indices(
        config.seed, step, count, config.train.batch_size, plan.mix
    )
    return indices if plan.rows is None else plan.rows[indices]


def _streamed(plan: Plan, rate: optim.Schedule, first: int) -> Advance:
    """Returns ``(state, step, 1) -> (state, metrics)``; images read on the fly.

    The stream begins at step ``first`` and gives one batch after the other.
    """
    key, positions = constants(plan)
    batches = _stream(plan, first)
    mapped: dict[int, Callable[..., Any]] = {}

    def advance(state: Any, step: int, count: int) -> tuple[Any, Any]:
        stage = plan.stage_end(step)
        if stage not in mapped:
            run = step_lib.make_streamed_step(make_step(plan, rate, step))
            mapped[stage] = parallel.map_devices(run, plan.layout, donate=(0,))
        batch = next(batches)
        image, label = parallel.split_batch((batch.image, batch.label), plan.layout)
        return mapped[stage](state, image, label, positions, key)

    return advance


def _stream(plan: Plan, first: int) -> Iterator[data.Batch]:
    """Returns this process's share of the batches from step ``first`` on."""
    return imagenet.train_stream(
        plan.config.data,
        seed=plan.config.seed,
        start_step=first,
        batch_size=plan.config.train.batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
