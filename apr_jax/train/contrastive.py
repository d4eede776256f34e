"""Contrastive training in two stages: first the features, then a linear layer of them.

SupCLR (Khosla et al., NeurIPS 2020) draws the projections of two views of each image to
those of other images of its class. CSI (Tack et al., NeurIPS 2020, its extension to
labelled data) does the same with all quarter turns of the images, every turn of a class
being a class of its own. Both have the numbers of Tack et al., whose SupCLR is that of
the APR paper's table: temperature 0.5, projections of 128, SimCLR's augmentations, and
100 of 800 epochs for the second stage.

In the second stage the network is that of evaluation and stays as it is, while the
linear layer learns by cross-entropy, with a learning rate of its own.

Departures: the linear layer learns in the first stage too, from features that it has
no influence on, so that a run can be watched; the optimiser is that of every other
method (they have LARS, and SGD without momentum in the second stage), and pixels are
normalised as for every other method (they are not).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from apr_jax import augment
from apr_jax import config as config_lib
from apr_jax.models import projected
from apr_jax.pixels import normalise
from apr_jax.train import losses, optim, views
from apr_jax.train.state import TrainState

# Shares of the second stage after which the rate is multiplied, and the factor.
_MILESTONES = (0.6, 0.75, 0.9)
_GAMMA = 0.1


def applies(config: config_lib.Config) -> bool:
    """Whether a configuration's method is contrastive."""
    return augment.get_method(config.augment.method).loss.projects


def check(config: config_lib.Config) -> None:
    """Raises ValueError where a contrastive method meets what it can't be used with."""
    if applies(config) and config.adversary.attack != "none":
        raise ValueError(
            f"{config.augment.method!r} has no place for adversary.attack "
            f"{config.adversary.attack!r}; choose 'none'"
        )


def linear_start(config: config_lib.Config, total_steps: int) -> int:
    """The first step of the second stage; ``total_steps`` where there is none."""
    if not applies(config):
        return total_steps
    return total_steps - round(config.contrast.linear_share * total_steps)


def schedule(
    config: config_lib.Config, epoch_steps: float, total_steps: int
) -> optim.Schedule:
    """Returns the learning rate as a function of the step.

    That of ``optim``; of a contrastive method its whole course in the first stage, and
    then ``contrast.linear_rate``, multiplied by 0.1 after 60, 75 and 90 percent of
    the second.

    Args:
        config: that of the run.
        epoch_steps: steps an epoch takes, not necessarily a whole number.
        total_steps: steps of the run.
    """
    start = linear_start(config, total_steps)
    if start == total_steps:
        return optim.schedule(config.optim, epoch_steps)
    share = start / total_steps
    first = optim.schedule(
        dataclasses.replace(
            config.optim,
            epochs=share * config.optim.epochs,
            warmup_epochs=share * config.optim.warmup_epochs,
            milestones=tuple(share * m for m in config.optim.milestones),
        ),
        epoch_steps,
    )
    ends = [start + round(m * (total_steps - start)) for m in _MILESTONES]

    def rate(step: Any) -> Any:
        passed = sum(jnp.asarray(step >= end, jnp.float32) for end in ends)
        second = config.contrast.linear_rate * _GAMMA**passed
        return jnp.where(step < start, first(step), second)

    return rate


def make_objective(
    model: nn.Module,
    config: config_lib.Config,
    *,
    shifts: int,
    linear: bool,
    axis_name: str | None,
) -> Callable[..., tuple[jax.Array, tuple[jax.Array, Any]]]:
    """Returns the loss of a stage, as ``step.make_train_step`` takes it.

    Args:
        model: the network, of ``network.make_model``.
        config: its ``augment``, ``contrast`` and ``data`` parts are used.
        shifts: quarter turns of each image; 1 for none.
        linear: whether it is the second stage's.
        axis_name: the mapped axis; None on a single unmapped device.
    """

    def objective(
        params: Any, state: TrainState, seen: views.Views, pixels: jax.Array, key: Any
    ) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        labels = seen.labels[0]
        upright_and_turned = shifts * len(labels)
        (logits, projections), updates = model.apply(
            {"params": params, "batch_stats": state.batch_stats, **state.fixed},
            normalise(pixels[:upright_and_turned] if linear else pixels, config.data),
            train=not linear,
            project=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        logits = logits[:upright_and_turned]
        loss = losses.linear_loss(
            logits, labels, shifts, smoothing=config.augment.label_smoothing
        )
        if linear:
            return loss, (logits, state.batch_stats)
        turn = jnp.arange(len(seen.labels)) % shifts
        loss += losses.supervised_contrastive(
            projections,
            (seen.labels * shifts + turn[:, None]).reshape(-1),
            temperature=config.contrast.temperature,
            axis_name=axis_name,
        )
        return loss, (logits, updates.get("batch_stats", {}))

    return objective


def linear_alone(
    optimizer: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    """Returns an optimiser that moves the linear layers and nothing else."""

    def update(
        grads: Any, state: Any, params: Any = None, **further: Any
    ) -> tuple[Any, Any]:
        updates, state = optimizer.update(grads, state, params, **further)
        # Without a gradient there would still be momentum and weight decay.
        still = {name: jax.tree.map(jnp.zeros_like, u) for name, u in updates.items()}
        return still | {projected.HEADS: updates[projected.HEADS]}, state

    return optax.GradientTransformationExtraArgs(optimizer.init, update)
