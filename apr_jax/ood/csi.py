"""The score of CSI: a network's certainty of one class over all turns of an image."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

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
    """
    return msp(mean_logits(shift_logits, images))


def mean_logits(
    shift_logits: Callable[[jax.Array], jax.Array], images: jax.Array
) -> jax.Array:
    """Logits [N, K], averaged over all turns; arguments as `csi`'s."""
    upright = shift_logits(images)
    total, turns = upright[:, 0].astype(jnp.float32), upright.shape[1]
    for turn in range(1, turns):
        logits = shift_logits(jnp.rot90(images, turn, axes=(1, 2)))
        total = total + logits[:, turn]
    return total / turns
