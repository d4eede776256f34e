"""One call of the devices after the other: images in memory, or read on the fly."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax import config as config_lib
from apr_jax import data, fast_random, parallel
from apr_jax.data import imagenet
from apr_jax.train import ahead, averaging, contrastive, optim
from apr_jax.train import step as step_lib
from apr_jax.train.plan import Plan

# (state, step, count) -> (state, metrics): ``count`` steps from ``step`` on.
Advance = Callable[[Any, int, int], tuple[Any, Any]]


def make_step(plan: Plan, first: int) -> step_lib.TrainStep:
    """Returns the training step of a plan, for one device of several.

    It is that of the stage of training that goes on from step ``first``.
    """
    return step_lib.make_train_step(
        plan.model,
        optim.make_optimizer(plan.config.optim, plan.rate),
        plan.config,
        linear=first >= contrastive.linear_start(plan.config, plan.total_steps),
        average=averaging.make_update(plan.config, plan.total_steps),
        axis_name=parallel.AXIS,
        fuse=not plan.layout.accelerated,
    )


def map_steps(plan: Plan, step: int, count: int, *, lanes: bool) -> Callable[..., Any]:
    """Returns ``count`` steps of a plan from ``step`` on, mapped over its devices.

    It is one program for all calls of a stage of training that have as many steps;
    with ``lanes`` states, indices and keys have an axis of several runs.
    """
    run = make_step(plan, step)
    if plan.resident is None:
        run = step_lib.make_streamed_step(run)
    else:
        signed = _by_turns(plan.config)
        shape = plan.resident.splits[plan.config.data.train_split].images.shape[1:]
        run = step_lib.make_resident_steps(run, count, shape=shape, signed=signed)
    if lanes:
        run = jax.vmap(run, in_axes=(0, None, None, 0, None, 0))
    return parallel.map_devices(run, plan.layout, donate=(0,), same=True)


@contextlib.contextmanager
def advancing(plans: Sequence[Plan], first: int) -> Iterator[Advance]:
    """A context with ``(state, step, count) -> (state, metrics)`` from ``first`` on.

    Images lie on the devices, or are streamed, one batch a call, by a thread that ends
    with the context. Of several plans, with images in memory, states and metrics have
    an axis of lanes.
    """
    plan, layout = plans[0], plans[0].layout
    lanes, by_turns = len(plans) > 1, _by_turns(plan.config)
    keys = [run_key(each.config.seed) for each in plans]
    key = parallel.replicate(jnp.stack(keys) if lanes else keys[0], layout)
    batch = plan.config.train.batch_size
    rows = parallel.local_rows(batch, layout)
    positions = np.arange(batch, dtype=np.int32)[rows]
    positions = parallel.split_batch(positions, layout)
    mapped: dict[tuple[int, int], Callable[..., Any]] = {}

    def run_of(step: int, count: int) -> Callable[..., Any]:
        stage = plan.stage_end(step), count
        if stage not in mapped:  # the last call of a stage may be shorter
            mapped[stage] = map_steps(plan, step, count, lanes=lanes)
        return mapped[stage]

    if plan.resident is None:

        def put(read: data.Batch) -> tuple[jax.Array, jax.Array]:
            put: tuple[jax.Array, jax.Array]
            put = parallel.put_batch((read.image, read.label), layout)
            return put

        with ahead.read_ahead(stream(plan, first), put) as batches:

            def streamed(state: Any, step: int, count: int) -> tuple[Any, Any]:
                return run_of(step, count)(state, *next(batches), positions, key)

            yield streamed
        return
    found = training_images(plan)
    rows_of = step_lib.flat_images(found.images)
    images, labels = parallel.replicate((rows_of, found.labels), layout)

    def resident(state: Any, step: int, count: int) -> tuple[Any, Any]:
        each = [indices_of(plan, step, count)[:, rows] for plan in plans]
        if by_turns:
            each = [
                np.where(mirrored_of(plan, step, count)[:, rows], ~indices, indices)
                for plan, indices in zip(plans, each, strict=True)
            ]
        indices = np.stack(each) if lanes else each[0]
        mine = parallel.split_batch(indices, layout, axis=indices.ndim - 1)
        return run_of(step, count)(state, images, labels, mine, positions, key)

    yield resident


def run_key(seed: int) -> jax.Array:
    """Returns the key that every step of a run takes."""
    # Data order and augmentation must not repeat the numbers of the initial weights.
    return jax.random.fold_in(fast_random.typed_keys(jax.random.key(seed)), 1)


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


def mirrored_of(plan: Plan, step: int, count: int) -> np.ndarray:
    """Returns which images the steps see mirrored, where that goes by turns.

    bool [count, batch size]; see ``augment.flip_by``.
    """
    config = plan.config
    return data.mirrored(config.seed, step, count, config.train.batch_size, plan.mix)


def _by_turns(config: config_lib.Config) -> bool:
    return config.augment.flip and config.augment.flip_by == "epoch"


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
