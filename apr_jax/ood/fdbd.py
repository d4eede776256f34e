"""fDBD: how far a feature lies from the boundaries between classes.

Liu and Qin, "Fast Decision Boundary based Out-of-Distribution Detector", ICML 2024.
"""

import jax
import jax.numpy as jnp

from apr_jax.gates import knobs
from apr_jax.ood.fitting import Fitted
from apr_jax.ood.scores import of_features, of_logits, parts

# What the distance is divided by.
OVER = ("deviation", "norm")


def fdbd(
    logits: jax.Array,
    features: jax.Array,
    fitted: Fitted | None,
    *,
    over: str = "deviation",
) -> jax.Array:
    """Mean distance to the boundaries of the predicted class, over that to the mean.

    The boundary between the predicted class c and another class k lies where their
    logits are equal, at the distance (logit_c - logit_k) / |w_c - w_k| of the feature.
    The mean over k is divided by the feature's distance from the mean of training (the
    paper's regularised form); the authors' code has the sum in its place, which ranks
    examples alike. Classes of one and the same weights have no boundary between them.

    Args:
        logits: [N, K], K of 2 or more.
        features: [N, F] that the last layer makes the logits of.
        fitted: its `weight` and `all_mean` are used.
        over: "deviation" divides by the distance to the mean; "norm" by the feature's
            length, which OpenOOD tries, too.
    """
    knobs.one_of("over", over, OVER)
    weight, mean = parts("fdbd", fitted, "weight", "all_mean")
    values = of_features(features, weight.shape[0])
    scores = of_logits(logits, count=len(values), classes=weight.shape[1])
    # One class at a time: all differences of weights at once would be [K, K, F].
    apart = lambda own: jnp.linalg.norm(weight - own[:, None], axis=0)
    between = jax.lax.map(apart, weight.T)[jnp.argmax(scores, axis=-1)]
    ahead = jnp.max(scores, axis=-1, keepdims=True) - scores
    distance = jnp.where(between > 0, ahead / jnp.where(between > 0, between, 1.0), 0.0)
    centre = mean[None] if over == "deviation" else 0.0
    deviation = jnp.linalg.norm(values - centre, axis=-1)
    others = scores.shape[-1] - 1
    return jnp.sum(distance, axis=-1) / others / jnp.maximum(deviation, 1e-12)
