"""Catastrophic overfitting: seen on held-out images, and answered by going back.

Training against one signed step can lose all robustness within an epoch while its own
loss still falls. Some training images are therefore held out and attacked by PGD at the
end of every epoch; a sudden fall ends the run with the network of the epoch before.

Source: Wong et al., "Fast is better than free", ICLR 2020, section 5.4, whose code
looks at the first batch of an epoch instead.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from apr_jax import config as config_lib
from apr_jax import fast_random
from apr_jax.errors import ConfigError
from apr_jax.gates import answers
from apr_jax.pixels import to_pixels
from apr_jax.train import adversarial, losses

FOLDER = "before_overfitting"

# The attack on the held-out images: steps, and their length in radii.
_STEPS, _LENGTH = 10, 0.25
# Keeps the starts of attacks apart from other draws.
_STREAM = 0x5C1E


def check(config: config_lib.Config) -> None:
    """Raises ConfigError where fields of ``adversary`` don't go together."""
    settings = config.adversary
    if settings.stop_drop and not settings.held_out:
        raise ConfigError(
            f"adversary.stop_drop is {settings.stop_drop}, and adversary.held_out is "
            "0; a fall is seen on held-out images, such as 1000"
        )
    if not settings.held_out:
        return
    if settings.attack == "none":
        raise ConfigError(
            f"adversary.held_out is {settings.held_out}, and adversary.attack is "
            "'none'; there is nothing to overfit to"
        )
    if config.data.streaming:
        raise ConfigError(
            f"adversary.held_out is {settings.held_out}; it needs training images in "
            "memory, which data.streaming does without"
        )


def right_under_attack(
    predict: Callable[..., Any],
    variables: Any,
    batch: tuple[jax.Array, jax.Array, jax.Array],
    settings: config_lib.Adversary,
    *,
    unroll: bool,
) -> tuple[jax.Array, jax.Array]:
    """Whether images are still classified rightly after ten steps of PGD.

    L-infinity, from a random start in the radius of ``settings``, by steps of a quarter
    of it, with running statistics.

    Args:
        predict: the network, of ``network.make_predict``.
        variables: its first argument.
        batch: images uint8 [B, H, W, C]; labels int [B]; and int [B], which images
            they are, from which their starts are drawn.
        settings: the radius.
        unroll: see ``adversary.perturb``.

    Returns:
        Bool [B]; and int [B], how many of the logits are not finite.
    """
    images, labels, positions = batch
    keys = jax.vmap(jax.random.fold_in, (None, 0))(
        fast_random.key_of(_STREAM), positions
    )
    attack = dataclasses.replace(
        settings, attack="pgd", steps=_STEPS, step_size=_LENGTH * settings.eps
    )
    loss_of = losses.loss_of_pixels(predict, variables, labels)
    moved = adversarial.perturb(keys, loss_of, to_pixels(images), attack, unroll=unroll)
    logits, _ = predict(variables, moved)
    return answers.answer(logits) == labels, answers.not_finite_each(logits)
