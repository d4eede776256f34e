"""What a training will take: measured on its first steps, of which nothing is kept."""

import time
from typing import Any, NamedTuple

import jax

from apr_jax import parallel
from apr_jax.train import dispatch, seeds
from apr_jax.train.plan import Plan

_SECONDS = 5.0  # of steps that are measured, after the one that compiles
_CALLS = 200  # and at most so many of them


class Forecast(NamedTuple):
    """What a training will take, measuring and the page apart.

    Attributes:
        first: seconds to the end of the first call, compiling included.
        seconds: of all steps after it.
        images_per_second: of training images, views not counted.
        memory: bytes at the peak of the steps measured, of a device or, on a CPU, of
            this process; None: not known.
        images: bytes of the images in memory; 0: they are streamed.
        disk: bytes of the checkpoints that are kept, uncompressed.
    """

    first: float
    seconds: float
    images_per_second: float
    memory: int | None
    images: int
    disk: int


def measure(plan: Plan) -> Forecast:
    """Trains for some seconds from the start, and throws the state away.

    Args:
        plan: of a work directory that may be thrown away.
    """
    lanes = seeds.Lanes([plan])
    began = time.monotonic()
    with dispatch.advancing(lanes.plans, 0) as call:
        first, each = _seconds(lanes, call, began)
    lanes.close()
    numbers = sum(leaf.nbytes for leaf in jax.tree.leaves(lanes.starts[0]))
    splits = [] if plan.resident is None else plan.resident.splits.values()
    count = min(plan.steps_per_call, plan.stage_end(0))
    return Forecast(
        first=first,
        seconds=each * max(plan.total_steps - count, 0),
        images_per_second=plan.config.train.batch_size / each,
        memory=parallel.peak_memory(plan.layout.local[0]),
        images=sum(split.images.nbytes for split in splits),
        disk=numbers * plan.config.checkpoint.keep,
    )


def _seconds(
    lanes: seeds.Lanes, call: dispatch.Advance, began: float
) -> tuple[float, float]:
    """Seconds from ``began`` to the end of the first call, and of a step after it."""
    plan = lanes.plans[0]
    state, end = lanes.on_devices(), plan.stage_end(0)
    count = min(plan.steps_per_call, end)

    def advance(state: Any, done: int) -> Any:
        state, metrics = call(state, done, count)
        jax.block_until_ready(metrics)
        return state

    state, done, calls = advance(state, 0), count, 0
    first = time.monotonic() - began
    began = time.monotonic()
    while calls < _CALLS and done + count <= end:
        state, done, calls = advance(state, done), done + count, calls + 1
        if time.monotonic() - began > _SECONDS:
            break
    each = (time.monotonic() - began) / (calls * count) if calls else first / count
    return first, each
