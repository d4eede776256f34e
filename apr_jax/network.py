"""The network of a configuration: built, answering, its outputs by heads and turns."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.flatten_util
import jax.numpy as jnp

from apr_jax import augment, models
from apr_jax import config as config_lib
from apr_jax.models import projected
from apr_jax.pixels import normalise, to_pixels

Variables = Mapping[str, Any]


def make_model(
    config: config_lib.Config, *, num_classes: int, sync_axis: str | None = None
) -> nn.Module:
    """Returns the network of a configuration.

    With two heads it has 2 ``num_classes`` outputs: those of the phase first, then
    those of the amplitude, each a linear layer of the same features. For a contrastive
    method it also has projections. With ``sync_axis`` BatchNorm shares its statistics
    over that mapped axis.
    """
    method = augment.get_method(config.augment.method)
    outputs = num_classes * method.heads
    network = models.build(
        config.model.name,
        num_classes=1 if method.loss.projects else outputs,
        dtype=jnp.dtype(config.model.dtype),
        sync_axis=sync_axis,
        dropout=config.model.dropout,
        norm=config.model.norm,
    )
    if method.loss.projects:
        return projected.Projected(network, outputs, config.contrast.width)
    return network


@dataclasses.dataclass(frozen=True)
class Predict:
    """A network's answers; equal ones of the same variables are the same program.

    Attributes:
        model: the network.
        mean, std: of each channel, by which pixels are normalised.
        heads: linear layers that share its outputs.
        weight: of the phase's where two are joined; None where the first answers.
    """

    model: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    heads: int
    weight: float | None

    def __call__(
        self, variables: Variables, images: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Uint8 or pixels in [0, 1], [B, H, W, C] -> logits [B, K], features [B, F]."""
        inputs = normalise(to_pixels(images), self)
        outputs: Any = self.model.apply(variables, inputs, train=False, capture=True)
        logits, features = outputs
        logits = _of_classes(logits, self.heads, self.weight)
        return logits.astype(jnp.float32), features.astype(jnp.float32)


def make_predict(model: nn.Module, config: config_lib.Config) -> Predict:
    """Returns ``(variables, images) -> (logits, features)``.

    Images are uint8 or pixels in [0, 1], [B, H, W, C]; normalisation happens
    inside, logits [B, K] and penultimate features [B, F] are float32. Of several linear
    layers the logits are those of ``class_logits``.
    """
    mean, std = tuple(config.data.mean), tuple(config.data.std)
    return Predict(model, mean, std, *_heads(config.augment))


def split_heads(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[..., 2 K] of a network with two heads -> phase's and amplitude's, [..., K]."""
    phase, amplitude = jnp.split(logits, 2, axis=-1)
    return phase, amplitude


def join_heads(logits: jax.Array, weight: float | jax.Array) -> jax.Array:
    """[..., 2 K] -> weight * phase's + (1 - weight) * amplitude's logits, [..., K].

    The prediction of the paper's section 5.3.
    """
    phase, amplitude = split_heads(logits)
    return weight * phase + (1 - weight) * amplitude


def class_logits(logits: jax.Array, settings: config_lib.Augment) -> jax.Array:
    """Outputs [..., heads * K] of a method's network -> logits of classes [..., K].

    Two heads are joined; of a contrastive method's the first is that of the classes.
    """
    return _of_classes(logits, *_heads(settings))


def _heads(settings: config_lib.Augment) -> tuple[int, float | None]:
    """A method's linear layers, and the weight of the first where two are joined."""
    method = augment.get_method(settings.method)
    joined = method.loss.heads > 1
    return method.heads, settings.heads_weight if joined else None


def _of_classes(logits: jax.Array, heads: int, weight: float | None) -> jax.Array:
    if weight is not None:
        return join_heads(logits, weight)
    return logits[..., : logits.shape[-1] // heads]


def shift_logits(logits: jax.Array, shifts: int) -> jax.Array:
    """[..., (1 + S) K] -> those of the classes in each of the S turns, [..., S, K]."""
    count = logits.shape[-1] // (1 + shifts)
    return logits[..., count:].reshape(*logits.shape[:-1], shifts, count)


def make_shift_logits(
    model: nn.Module, config: config_lib.Config
) -> Callable[[Variables, jax.Array], jax.Array]:
    """Returns ``(variables, images) -> logits`` of the classes in each turn, [B, S, K].

    Images are uint8 or pixels in [0, 1], [B, H, W, C]; normalisation happens inside.

    Raises:
        ValueError: the configuration's method has no turns.
    """
    shifts = augment.get_method(config.augment.method).shifts
    if shifts == 1:
        raise ValueError(f"the method {config.augment.method!r} has no turns")

    def predict(variables: Variables, images: jax.Array) -> jax.Array:
        inputs = normalise(to_pixels(images), config.data)
        logits: Any = model.apply(variables, inputs, train=False)
        return shift_logits(logits.astype(jnp.float32), shifts)

    return predict
