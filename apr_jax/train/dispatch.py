"""One call of the devices after the other: images in memory, or read on the fly."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from apr_jax import data, parallel
from apr_jax.data import imagenet
from apr_jax.train import contrastive, optim
from apr_jax.train import step as step_lib
from apr_jax.train.plan import Plan

# (state, step, count) -> (state, metrics): ``count`` steps from ``step`` on.
Advance = Callable[[Any, int, int], tuple[Any, Any]]


def make_step(plan: Plan, rate: optim.Schedule, first: int) -> step_lib.TrainStep:
    """Returns the training step of a plan, for one device of several.

    It is that of the stage of training that goes on from step ``first``.
    """
    return step_lib.make_train_step(
        plan.model,
        optim.sgd(plan.config.optim, rate),
        plan.config,
        linear=first >= contrastive.linear_start(plan.config, plan.total_steps),
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


def resident(plan: Plan, rate: optim.Schedule, first: int) -> Advance:
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


def streamed(plan: Plan, rate: optim.Schedule, first: int) -> Advance:
    """Returns ``(state, step, 1) -> (state, metrics)``; images read on the fly.

    The stream begins at step ``first`` and gives one batch after the other.
    """
    key, positions = constants(plan)
    batches = stream(plan, first)
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


def stream(plan: Plan, first: int) -> Iterator[data.Batch]:
    """Returns this process's share of the batches from step ``first`` on."""
    return imagenet.train_stream(
        plan.config.data,
        seed=plan.config.seed,
        start_step=first,
        batch_size=plan.config.train.batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
