"""A set of tiny images and a configuration that trains on it in seconds."""

import argparse
import dataclasses
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from apr_jax import augment, presets
from apr_jax import config as config_lib
from apr_jax.models.layers import BatchNorm, StageEnd
from apr_jax.train import dispatch
from apr_jax.train import plan as plan_lib
from apr_jax.train import step as step_lib
from experiments import lab_options

CLASSES = 4
ROOT = pathlib.Path(__file__).resolve().parents[1]
STARTED: list[subprocess.Popen] = []  # ended after each test; see conftest


class TinyNet(nn.Module):
    """One convolution with BatchNorm: compiles in a fraction of a second."""

    num_classes: int
    dtype: jnp.dtype = jnp.float32
    sync_axis: str | None = None
    minimum_size: int = 4

    @nn.compact
    def __call__(self, x, *, train, capture=False):
        x = nn.Conv(8, (3, 3), use_bias=False, dtype=self.dtype)(x)
        norm = BatchNorm(axis_name=self.sync_axis, dtype=self.dtype)
        x = StageEnd(1)(nn.relu(norm(x, train=train)))
        features = x.mean((1, 2))
        logits = nn.Dense(self.num_classes, dtype=self.dtype)(features)
        return (logits, features) if capture else logits


def write_arrays(folder: pathlib.Path, size: int = 8) -> None:
    """Writes train.npz (96 images) and test.npz (50): noise over a shade per class."""
    rng = np.random.default_rng(7)
    for split, count in (("train", 96), ("test", 50)):
        labels = rng.integers(0, CLASSES, count)
        labels[:CLASSES] = np.arange(CLASSES)
        noise = rng.integers(0, 80, (count, size, size, 3))
        images = (noise + 45 * labels[:, None, None, None]).astype(np.uint8)
        np.savez(folder / f"{split}.npz", images=images, labels=labels)


def settings(folder: pathlib.Path, **changes: object) -> ml_collections.ConfigDict:
    """Returns a configuration for ``folder``; ``changes`` are optim__epochs=3."""
    config = presets.base()
    config.name = "toy"
    config.data.update(
        source="arrays",
        name="toy",
        data_dir=str(folder),
        cache_dir=str(folder / "cache"),
        image_size=8,
    )
    config.model.name = "tiny"
    config.augment.crop_pad = 1
    config.augment.method = "apr_p"
    config.augment.pair_donors = "global"
    config.optim.update(epochs=4.0, milestones=(3.0,))
    config.train.update(
        batch_size=16, sync_batch_norm=True, log_every=5, tensorboard=False, watch=()
    )
    config.checkpoint.update(every_steps=7, keep=2)
    config.eval.batch_size = 16
    for field, value in changes.items():
        config.update_from_flattened_dict({field.replace("__", "."): value})
    return config


def config(folder: pathlib.Path, **changes: object) -> config_lib.Config:
    """Returns ``settings`` parsed."""
    return config_lib.parse(settings(folder, **changes).to_dict())


class Programs:
    """What training compiles, kept for the next run of the same program.

    To trace and lower a step takes longer than the tests' runs of it. Only those of
    the tests' own networks are kept, by all that a program is made of; a test that
    replaces a part of them has programs of its own.
    """

    def __init__(self) -> None:
        self._kept: dict[Any, Any] = {}

    def clear(self) -> None:
        self._kept.clear()

    def once(self, make: Callable[..., Any]) -> Callable[..., Any]:
        """Returns ``make``, a function of a plan, that is called once for each kind."""

        def made(plan: plan_lib.Plan, step: int = 0, *rest: Any, **more: Any) -> Any:
            arguments = (plan, step, *rest) if rest else (plan,)
            if not type(plan.model).__module__.startswith("tests."):
                return make(*arguments, **more)
            config = dataclasses.replace(
                plan.config,
                name="",
                data=dataclasses.replace(plan.config.data, data_dir="", cache_dir=""),
                # Of the host alone: what it follows, and when it says so or ends.
                adversary=dataclasses.replace(plan.config.adversary, stop_drop=0.0),
                train=dataclasses.replace(
                    plan.config.train, watch=(), watch_examples=0, log_every=1
                ),
                checkpoint=config_lib.Checkpoint(),
                eval=config_lib.Eval(),
            )
            parts = (
                dispatch.make_step,
                step_lib.make_train_step,
                step_lib._make_objective,
                step_lib.views.make_views,
                step_lib.adversarial.perturb,
                augment.get_method(config.augment.method),
            )
            kind = (
                (make, repr(config), plan.mix, plan.model, plan.layout, parts),
                (plan.resident is None, plan.stage_end(step), rest, *more.items()),
            )
            if kind not in self._kept:
                self._kept[kind] = make(*arguments, **more)
            return self._kept[kind]

        return made


def farthest(one: Any, other: Any) -> float:
    """Returns the largest difference between two trees of arrays, number by number."""
    gaps = jax.tree.map(lambda a, b: np.abs(np.asarray(a) - b).max(), one, other)
    return float(max(jax.tree.leaves(gaps)))


def has_learnt(right: np.ndarray) -> bool:
    """Whether more answers are right than by chance, a quarter give or take 6 %."""
    return bool(np.mean(right) > 0.4)


def small_experiments(monkeypatch: pytest.MonkeyPatch, *, eval_batch: int) -> None:
    """Lets experiments train and measure in batches that suit ``write_arrays``."""
    base_of = lab_options.base_of

    def smaller(options: argparse.Namespace) -> ml_collections.ConfigDict:
        base = base_of(options)
        base.train.batch_size = 16
        base.eval.batch_size = eval_batch
        base.augment.crop_pad = 1
        return base

    monkeypatch.setattr(lab_options, "base_of", smaller)


# Of JAX, as conftest sets it: programs without the stack of each operation, and those
# that compile in less than a second kept, too.
_QUICK = {
    "JAX_TRACEBACK_IN_LOCATIONS_LIMIT": "0",
    "JAX_INCLUDE_FULL_TRACEBACKS_IN_LOCATIONS": "0",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.05",
}


def start(*arguments: object, stderr: int = subprocess.STDOUT) -> subprocess.Popen:
    """Starts Python on the CPU with these arguments; what it prints is in a pipe."""
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=dict(os.environ, JAX_PLATFORMS="cpu", PYTHONPATH=str(ROOT), **_QUICK),
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )
    STARTED.append(process)
    return process


def end_started() -> None:
    """Kills programs that still run, and closes the pipes of all."""
    while STARTED:
        with STARTED.pop() as process:
            process.kill()
