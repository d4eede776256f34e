"""The training step and prediction, written for one device with a named axis.

Everything random is a function of (seed, step, position in the global batch), so a
resumed run, or one on another number of devices, draws the same numbers. Only dropout
differs between devices, the images that stand in for VIPAug's fractals, and where
``augment.pair_donors`` is "device" what images take from one another. The views of a
batch are in ``apr_jax.train.views``, the losses in ``apr_jax.train.losses``.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax

from apr_jax import augment
from apr_jax import config as config_lib
from apr_jax.pixels import normalise
from apr_jax.train import (
    adversarial,
    auxiliary_norm,
    contrastive,
    feature_mixing,
    losses,
    views,
)
from apr_jax.train.state import TrainState

Metrics = dict[str, jax.Array]
# Loss; logits and new running statistics.
Loss = tuple[jax.Array, tuple[jax.Array, Any]]
TrainStep = Callable[
    [TrainState, jax.Array, jax.Array, jax.Array, jax.Array],
    tuple[TrainState, Metrics],
]


def mean_over(tree: Any, axis_name: str | None, *, fuse: bool) -> Any:
    """Returns the mean of a float tree over the devices of ``axis_name``.

    ``fuse`` makes one collective of all leaves: on a CPU each one is a point where
    the devices of one process wait for each other.
    """
    if axis_name is None:
        return tree
    if not fuse:
        return jax.lax.pmean(tree, axis_name)
    flat, unravel = jax.flatten_util.ravel_pytree(tree)
    return unravel(jax.lax.pmean(flat, axis_name))


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    config: config_lib.Config,
    *,
    linear: bool = False,
    average: Callable[[TrainState], TrainState] | None = None,
    axis_name: str | None = None,
    fuse: bool = False,
) -> TrainStep:
    """Returns the step ``(state, images, labels, positions, key) -> (state, metrics)``.

    The step takes this device's share of the batch: uint8 images [B, H, W, C], int
    labels [B], and their int32 positions [B] in the global batch. ``key`` is the
    run's and stays the same. Metrics are float32 scalars, means over all devices:
    "loss" (what is minimised) and "accuracy" (of the first view).

    Args:
        model: built with ``sync_axis=axis_name`` if statistics are to be shared.
        optimizer: from ``apr_jax.train.optim``.
        config: its ``augment``, ``adversary``, ``contrast`` and ``data`` parts are
            used. Mirroring by turns (``augment.flip_by``) is not the step's.
        linear: whether it is of a contrastive method's second stage, which moves the
            linear layers alone.
        average: of ``apr_jax.train.averaging``, done to the state after the step.
        axis_name: the mapped axis; None on a single unmapped device.
        fuse: see ``mean_over``.
    """
    method = augment.get_method(config.augment.method)
    if method.loss.projects:
        objective = contrastive.make_objective(
            model, config, shifts=method.shifts, linear=linear, axis_name=axis_name
        )
    else:
        objective = _make_objective(model, config, auxiliary=method.auxiliary)
    optimizer = optax.with_extra_args_support(optimizer)
    if linear:
        optimizer = contrastive.linear_alone(optimizer)

    def train_step(
        state: TrainState,
        images: jax.Array,
        labels: jax.Array,
        positions: jax.Array,
        key: jax.Array,
    ) -> tuple[TrainState, Metrics]:
        image_key, batch_key, dropout_key = jax.random.split(
            jax.random.fold_in(key, state.step), 3
        )
        if axis_name is not None:
            dropout_key = jax.random.fold_in(dropout_key, jax.lax.axis_index(axis_name))
        with jax.named_scope("views"):
            seen = views.make_views(
                image_key,
                batch_key,
                images,
                labels,
                positions,
                config,
                axis_name=axis_name,
            )

        def loss_fn(params: Any, pixels: jax.Array) -> Loss:
            return objective(params, state, seen, pixels, dropout_key)

        pixels = seen.pixels
        if config.adversary.attack != "none":
            attack_key = jax.random.fold_in(image_key, views.BEYOND - 1)
            pixels = adversarial.perturb(
                views.keys_of(attack_key, seen, positions),
                lambda pixels: loss_fn(state.params, pixels)[0],
                pixels,
                config.adversary,
                unroll=fuse,
            )
        (loss, (logits, batch_stats)), grads = jax.value_and_grad(
            loss_fn, has_aux=True
        )(state.params, pixels)
        metrics = {
            "loss": loss,
            "accuracy": losses.training_accuracy(logits, seen, config.augment),
        }
        # Running statistics are linear in the batch's, so their mean over devices
        # is that of the whole history, and the state is the same everywhere.
        grads, batch_stats, metrics = mean_over(
            (grads, batch_stats, metrics), axis_name, fuse=fuse
        )
        updates, opt_state = optimizer.update(
            grads, state.opt_state, state.params, batch_stats=batch_stats
        )
        new_state = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        return average(new_state) if average else new_state, metrics

    return train_step


def _make_objective(
    model: nn.Module, config: config_lib.Config, *, auxiliary: bool
) -> Callable[..., Loss]:
    """Returns the loss of all methods but contrastive ones, with its results."""

    def objective(
        params: Any, state: TrainState, seen: views.Views, pixels: jax.Array, key: Any
    ) -> Loss:
        forward = auxiliary_norm.make_forward(
            model, auxiliary=auxiliary, views=len(seen.labels), fixed=state.fixed
        )
        inputs = normalise(pixels, config.data)
        if seen.mixing is not None:
            forward = feature_mixing.through(
                forward, seen.mixing, len(seen.labels), config
            )
        logits, batch_stats = forward(params, state.batch_stats, inputs, key)
        loss = losses.training_loss(logits, seen, config.augment)
        return loss, (logits, batch_stats)

    return objective


def make_resident_steps(
    train_step: TrainStep,
    steps: int,
    *,
    shape: tuple[int, ...],
    signed: bool = False,
) -> Callable[..., Any]:
    """Returns ``steps`` training steps over images that lie on the device.

    The function takes (state, images uint8 [N, H W C], labels [N], indices
    int32 [steps, B], positions [B], key) and returns the state and the metrics with
    a leading axis of ``steps``. Images are rows, as `flat_images` makes them, because
    a TPU pads the last axes of an array: a channel axis of three would take many times
    the memory, and a copy of all images at each call. More than one step is a
    ``lax.scan``, which suits an accelerator; on a CPU convolutions in a loop lose their
    fast kernels.

    Args:
        train_step: of ``make_train_step``.
        steps: how many.
        shape: (H, W, C).
        signed: an index i below 0 stands for image ~i, mirrored.
    """

    def run(
        state: TrainState,
        images: jax.Array,
        labels: jax.Array,
        indices: jax.Array,
        positions: jax.Array,
        key: jax.Array,
    ) -> tuple[TrainState, Metrics]:
        def body(state: TrainState, index: jax.Array) -> tuple[TrainState, Metrics]:
            rows = jnp.maximum(index, ~index) if signed else index
            batch = images[rows].reshape(-1, *shape)
            if signed:
                turned = (index < 0)[:, None, None, None]
                batch = jnp.where(turned, batch[:, :, ::-1], batch)
            return train_step(state, batch, labels[rows], positions, key)

        if steps == 1:
            return make_streamed_step(body)(state, indices[0])
        return jax.lax.scan(body, state, indices)

    return run


def flat_images(images: np.ndarray) -> np.ndarray:
    """Images as rows: [N, H, W, C] -> [N, H W C]."""
    return images.reshape(len(images), -1)


def make_streamed_step(train_step: Callable[..., Any]) -> Callable[..., Any]:
    """Returns one training step whose metrics have a leading axis of one step."""

    def run(state: TrainState, *batch: jax.Array) -> tuple[TrainState, Metrics]:
        state, metrics = train_step(state, *batch)
        return state, jax.tree.map(lambda m: m[None], metrics)

    return run
