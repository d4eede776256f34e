"""Scores by likeness to stored training features: SHE and NNGuide."""

import jax
import jax.numpy as jnp

from apr_jax.gates import knobs
from apr_jax.ood.scores import Found, energy, of_features, of_logits, parts


def she(logits: jax.Array, features: jax.Array, fitted: Found) -> jax.Array:
    """Inner product with the stored pattern of the predicted class.

    The pattern is the mean feature of the class's training examples that are
    classified correctly (Zhang et al., "Out-of-Distribution Detection based on
    In-Distribution Data Patterns Memorization with Modern Hopfield Energy", ICLR
    2023, its simplified score). A class without any has the pattern 0.

    Args:
        logits: [N, K].
        features: [N, F].
        fitted: its `patterns` are used.
    """
    (patterns,) = parts("she", fitted, "patterns")
    values = of_features(features, patterns.shape[1])
    scores = of_logits(logits, count=len(values), classes=len(patterns))
    # The first of equal logits, and no gather by an index of a NaN.
    chosen = jax.lax.top_k(scores, 1)[1][:, 0]
    return jnp.sum(values * patterns[chosen], axis=-1)


def nnguide(
    logits: jax.Array, features: jax.Array, fitted: Found, *, k: int = 100
) -> jax.Array:
    """Energy, guided by the likeness to sure training examples.

    The mean of the k largest inner products with training features, all of unit
    length and each times its own energy, times the example's energy (Park et al.,
    "Nearest Neighbor Guidance for Out-of-Distribution Detection", ICCV 2023). Fewer
    than k training examples: all.

    Args:
        logits: [N, K].
        features: [N, F].
        fitted: its `bank` and `bank_energy` are used.
        k: neighbours.
    """
    bank, sure = parts("nnguide", fitted, "bank", "bank_energy")
    knobs.whole("k", k)
    values = of_features(features, bank.shape[1])
    found = energy(of_logits(logits, count=len(values)))
    length = jnp.sqrt(jnp.sum(values * values, axis=-1, keepdims=True))
    unit = values / jnp.maximum(length, 1e-12)
    guide = bank * sure[:, None]
    likeness = jnp.matmul(unit, guide.T, precision=jax.lax.Precision.HIGHEST)
    nearest = jax.lax.top_k(likeness, min(k, bank.shape[0]))[0]
    return jnp.mean(nearest, axis=-1) * found
