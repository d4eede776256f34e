"""The score of CSI: a network's certainty of one class over all turns of an image."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from apr_jax.errors import ArgumentError
from apr_jax.gates import answers
from apr_jax.ood.scores import msp


def csi(shift_logits: Callable[[jax.Array], jax.Array], images: jax.Array) -> jax.Array:
    """Logarithm of the largest softmax probability of logits averaged over turns.

    Each quarter turn k of an image gives the logits of the classes in turn k; their
    mean is what "CSI-ens" predicts by (Tack et al., NeurIPS 2020, and their code).

    Args:
        shift_logits: square images [N, H, W, C] -> logits of the classes in each of S
            turns, [N, S, K].
        images: upright.

    Returns:
        float32 [N], higher = more in-distribution.

    Raises:
        ArgumentError: the function returns something else.
    """
    return msp(mean_logits(shift_logits, images))


def mean_logits(
    shift_logits: Callable[[jax.Array], jax.Array], images: jax.Array
) -> jax.Array:
    """Logits [N, K], averaged over all turns; arguments and errors as `csi`'s."""
    upright = answers.numbers(shift_logits(images), "the function's logits")
    if upright.ndim != 3 or len(upright) != len(images):
        raise ArgumentError(
            f"the function's logits must be [{len(images)}, S, K], of the classes in "
            f"each turn, not {list(upright.shape)}"
        )
    total, turns = upright[:, 0].astype(jnp.float32), upright.shape[1]
    for turn in range(1, turns):
        logits = shift_logits(jnp.rot90(images, turn, axes=(1, 2)))
        total = total + logits[:, turn]
    return total / turns
