"""Measurements while a network learns: rows of ``watch.jsonl``, epoch by epoch.

``train.watch`` names what is measured before the first step and at the end of every
epoch, on the same test images each time. Watching draws no random numbers, changes no
bit of the training, and chooses nothing.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax import config as config_lib
from apr_jax import spectral
from apr_jax.errors import ConfigError
from apr_jax.gates import answers
from apr_jax.pixels import to_pixels
from apr_jax.train import losses

# The radii of HFC (CVPR 2020), section 5, as shares of a side of 32 pixels.
_BAND_SHARES = tuple(r / 32 for r in (4, 8, 12, 16, 20, 24, 28))

Predict = Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Watch:
    """One kind of measurement.

    Attributes:
        knobs: side of the images -> values of a scalar; one program serves all.
        each: (predict, variables, images uint8 [B, H, W, C], labels [B], knob) -> what
            is found for each image, [B, ...], and how many of the logits behind it
            are not finite, [B].
        summarise: knobs, and for each of them what was found for all N images,
            [N, ...] -> what a row says, by name.
        untrained: whether it says something of a network before its first step.
    """

    knobs: Callable[[int], Sequence[float]]
    each: Callable[
        [Predict, Any, jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]
    ]
    summarise: Callable[[Sequence[float], Sequence[np.ndarray]], dict[str, Any]]
    untrained: bool = True


def input_gradient(
    predict: Predict, variables: Any, images: jax.Array, labels: jax.Array
) -> jax.Array:
    """Gradient of each image's cross-entropy to its pixels in [0, 1].

    Args:
        predict: of ``network.make_predict``, with running statistics, so that no image
            depends on another.
        variables: its first argument.
        images: uint8, or pixels in [0, 1], [B, H, W, C].
        labels: integers [B].

    Returns:
        float32 [B, H, W, C].
    """
    return jax.grad(losses.loss_of_pixels(predict, variables, labels))(
        to_pixels(images)
    )


def _gradient_profile(
    predict: Predict,
    variables: Any,
    images: jax.Array,
    labels: jax.Array,
    _: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    gradient = input_gradient(predict, variables, images, labels)
    # XLA sees that the gradient needs the same logits.
    logits, _ = predict(variables, to_pixels(images))
    profile = spectral.azimuthal_profile(
        gradient, channels="sum", log=False, normalise=False
    )
    return profile, answers.not_finite_each(logits)


def _summarise_profile(
    _: Sequence[float], found: Sequence[np.ndarray]
) -> dict[str, Any]:
    raw = found[0].astype(np.float64).mean(axis=0)
    span = raw.max() - raw.min()
    return {"raw": raw, "spectrum": (raw - raw.min()) / (span or 1.0)}


def _right_by_band(
    predict: Predict,
    variables: Any,
    images: jax.Array,
    labels: jax.Array,
    radius: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    parts = spectral.split_bands(to_pixels(images), radius)
    logits = jnp.stack([predict(variables, part)[0] for part in parts], axis=1)
    right = answers.answer(logits) == labels[:, None]
    return right, answers.not_finite_each(logits).sum(axis=1)


def _summarise_bands(
    radii: Sequence[float], found: Sequence[np.ndarray]
) -> dict[str, Any]:
    *bands, everything = [right.mean(axis=0) for right in found]
    return {
        "radius": list(radii[:-1]),
        "low": [band[0] for band in bands],
        "high": [band[1] for band in bands],
        "accuracy": everything[0],
    }


def _right_and_loss(
    predict: Predict,
    variables: Any,
    images: jax.Array,
    labels: jax.Array,
    _: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    logits, _ = predict(variables, to_pixels(images))
    right = answers.answer(logits) == labels
    found = jnp.stack([right, losses.cross_entropies(logits, labels)], axis=1)
    return found, answers.not_finite_each(logits)


def _summarise_answers(
    _: Sequence[float], found: Sequence[np.ndarray]
) -> dict[str, Any]:
    accuracy, loss = found[0].astype(np.float64).mean(axis=0)
    return {"accuracy": accuracy, "loss": loss}


WATCHES: dict[str, Watch] = {
    # "accuracy" and "loss", the mean cross-entropy, on the images as they are.
    "accuracy": Watch(
        lambda _: (0.0,), _right_and_loss, _summarise_answers, untrained=False
    ),
    # Learning priority (IJCAI 2022): "spectrum" and "raw" [K], the mean amplitude of
    # the loss's gradient to the pixels over rings of frequency (see
    # ``spectral.azimuthal_profile``), scaled to [0, 1] and as it is.
    "input_spectrum": Watch(lambda _: (0.0,), _gradient_profile, _summarise_profile),
    # HFC (CVPR 2020): "low" and "high" [R], accuracy on what lies within and beyond
    # each "radius" (never clipped), and "accuracy" on all of it.
    "bands": Watch(
        # Within an infinite radius lies the whole image.
        lambda size: (*(share * size for share in _BAND_SHARES), float("inf")),
        _right_by_band,
        _summarise_bands,
    ),
}


def check(config: config_lib.Config) -> None:
    """Raises ConfigError, listing the choices, for what can't be watched."""
    for name in config.train.watch:
        if name not in WATCHES:
            listed = ", ".join(WATCHES)
            raise ConfigError(f"train.watch has {name!r}; choose from {listed}")
    everything = config.train.watch_examples == 0
    if config.train.watch and config.data.streaming and everything:
        raise ConfigError(
            "train.watch_examples is 0, all test images; they are held in memory, and "
            "with data.streaming they may not fit: give a number"
        )
