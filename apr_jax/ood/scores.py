"""Scores of logits and of penultimate features; all of them need only one pass.

Every score is `(logits [N, K], features [N, F], fitted) -> float32 [N]`, higher for an
example that looks more in-distribution, pure and good under `jit`. What a score does
not use may be None. Logarithms stand where probabilities would round to one: they rank
examples alike, and a network that is sure of many keeps them apart.
"""

import jax
import jax.numpy as jnp

from apr_jax.errors import ArgumentError
from apr_jax.gates import answers, knobs
from apr_jax.ood.fitting import Fitted

# What a score does not use may be None.
Unused = jax.Array | None
Found = Fitted | None


def msp(logits: jax.Array, features: Unused = None, fitted: Found = None) -> jax.Array:
    """Logarithm of the largest softmax probability (Hendrycks and Gimpel 2017)."""
    return -jnp.log1p(jnp.sum(_odds_of_others(of_logits(logits)), axis=-1))


def max_logit(
    logits: jax.Array, features: Unused = None, fitted: Found = None
) -> jax.Array:
    """The largest logit (Hendrycks et al. 2022); what the authors of APR score by."""
    return jnp.max(of_logits(logits), axis=-1)


def energy(
    logits: jax.Array,
    features: Unused = None,
    fitted: Found = None,
    *,
    temperature: float = 1.0,
) -> jax.Array:
    """Negative free energy, T log sum exp(logits / T) (Liu et al. 2020)."""
    knobs.real("temperature", temperature, above=0)
    return temperature * jax.nn.logsumexp(of_logits(logits) / temperature, axis=-1)


def entropy(
    logits: jax.Array, features: Unused = None, fitted: Found = None
) -> jax.Array:
    """Negative entropy of the softmax, in nats: from -log K to 0.

    A logit of -inf is a class of probability zero, which adds nothing.
    """
    scores = of_logits(logits)
    shifted = scores - jnp.max(scores, axis=-1, keepdims=True)
    log_p = shifted + msp(scores, features, fitted)[..., None]
    known = jnp.where(log_p == -jnp.inf, 0.0, log_p)
    return jnp.sum(jnp.exp(log_p) * known, axis=-1)


def gen(
    logits: jax.Array,
    features: Unused = None,
    fitted: Found = None,
    *,
    gamma: float = 0.1,
    top: int = 100,
) -> jax.Array:
    """Negative generalised entropy of the most likely classes (Liu et al. 2023).

    -sum p^gamma (1 - p)^gamma over the `top` largest probabilities, or over all where
    there are fewer classes.
    """
    knobs.real("gamma", gamma, above=0)
    knobs.whole("top", top)
    scores = of_logits(logits)
    count = min(top, scores.shape[-1])
    ordered = jax.lax.top_k(scores, count)[0]
    log_p = ordered - jax.nn.logsumexp(scores, axis=-1, keepdims=True)
    p = jnp.exp(log_p)
    # One minus the largest is the sum of the others: it may be far below rounding.
    others = jnp.sum(_odds_of_others(scores), axis=-1, keepdims=True)
    rest = jnp.concatenate([others / (1 + others), 1 - p[..., 1:]], axis=-1)
    # A power below one is infinitely steep at zero, where nothing is added.
    product = p * rest
    power = jnp.where(product == 0, 1.0, product) ** gamma
    return -jnp.sum(jnp.where(product == 0, 0.0, power), axis=-1)


def react(logits: Unused, features: jax.Array, fitted: Found) -> jax.Array:
    """Energy with activations cut off at a quantile of training (Sun et al. 2021)."""
    limit, weight, bias = parts("react", fitted, "react_limit", "weight", "bias")
    values = of_features(features, weight.shape[0])
    return energy(linear(jnp.minimum(values, limit), weight, bias))


def dice(logits: Unused, features: jax.Array, fitted: Found) -> jax.Array:
    """Energy through the weights that contribute most (Sun and Li 2022)."""
    weight, bias = parts("dice", fitted, "dice_weight", "bias")
    return energy(linear(of_features(features, weight.shape[0]), weight, bias))


def mahalanobis(logits: Unused, features: jax.Array, fitted: Found) -> jax.Array:
    """Negative squared distance to the nearest class mean (Lee et al. 2018).

    In units of the covariance within classes, shared by all; features of the
    penultimate layer alone, the input as it is.
    """
    means, whiten = parts("mahalanobis", fitted, "class_means", "class_whiten")
    return -_nearest(of_features(features, means.shape[1]), means, whiten)


def relative_mahalanobis(
    logits: Unused, features: jax.Array, fitted: Found
) -> jax.Array:
    """As `mahalanobis`, less the distance to all of training (Ren et al. 2021)."""
    name = "relative_mahalanobis"
    mean, whiten = parts(name, fitted, "all_mean", "all_whiten")
    background = _nearest(of_features(features, mean.shape[0]), mean[None], whiten)
    return mahalanobis(logits, features, fitted) + background


def knn(
    logits: Unused,
    features: jax.Array,
    fitted: Found,
    *,
    k: int = 50,
) -> jax.Array:
    """Negative distance to the k-th nearest training example (Sun et al. 2022).

    Features are scaled to unit length. Fewer than k training examples: the farthest.
    """
    (bank,) = parts("knn", fitted, "bank")
    knobs.whole("k", k)
    values = of_features(features, bank.shape[1])
    length = jnp.sqrt(jnp.sum(values * values, axis=-1, keepdims=True))
    unit = values / jnp.maximum(length, 1e-12)
    likeness = jnp.matmul(unit, bank.T, precision=jax.lax.Precision.HIGHEST)
    kth = jax.lax.top_k(likeness, min(k, bank.shape[0]))[0][..., -1]
    return -jnp.sqrt(jnp.maximum(2 - 2 * kth, 0.0))


def vim(logits: jax.Array, features: jax.Array, fitted: Found) -> jax.Array:
    """Energy less the virtual logit of the residual (Wang et al. 2022)."""
    origin, residual, alpha = parts(
        "vim", fitted, "vim_origin", "vim_residual", "vim_alpha"
    )
    values = of_features(features, origin.shape[0])
    outside = linear(values - origin[None], residual, None)
    found = of_logits(logits, count=len(values))
    return energy(found) - alpha * jnp.sqrt(jnp.sum(outside**2, axis=-1))


# --- Inner workings ------------------------------------------------------------------


def of_logits(
    values: jax.Array | None, *, count: int | None = None, classes: int | None = None
) -> jax.Array:
    """Logits [N, K] as float32, whatever they were; of a number, if it is known.

    Raises:
        ArgumentError: another shape or type, or fewer than two classes.
    """
    found = answers.logits(values, count=count, classes=classes)
    return jnp.asarray(found).astype(jnp.float32)


def of_features(values: jax.Array | None, size: int) -> jax.Array:
    """Features [N, `size`] as float32, whatever they were.

    Raises:
        ArgumentError: another shape or type; the message says both sizes.
    """
    found = answers.features(values, size=size)
    return jnp.asarray(found).astype(jnp.float32)


def _odds_of_others(scores: jax.Array) -> jax.Array:
    """exp(logit - largest) of every class but the (first) largest, which gets 0."""
    top = jnp.argmax(scores, axis=-1)
    is_top = jnp.arange(scores.shape[-1])[None] == top[:, None]
    largest = jnp.max(scores, axis=-1, keepdims=True)
    return jnp.where(is_top, 0.0, jnp.exp(scores - largest))


def linear(features: jax.Array, weight: jax.Array, bias: Unused) -> jax.Array:
    """The logits of a last layer, at float32's precision on every device."""
    # On accelerators the default precision of a product is lower than float32's.
    product = jnp.matmul(features, weight, precision=jax.lax.Precision.HIGHEST)
    return product if bias is None else product + bias[None]


def _nearest(values: jax.Array, means: jax.Array, whiten: jax.Array) -> jax.Array:
    """Squared whitened distance [N] to the nearest of the means [C, F]."""
    # Around the means' middle, so that float32 keeps the digits of the difference.
    middle = jnp.mean(means, axis=0, keepdims=True)
    points = linear(values - middle, whiten, None)
    centres = linear(means - middle, whiten, None)
    distance = lambda centre: jnp.sum((points - centre[None]) ** 2, axis=-1)
    return jnp.min(jax.lax.map(distance, centres), axis=0)


def parts(name: str, fitted: Found, *fields: str) -> list[jax.Array]:
    """The fields of `fitted` that the score `name` needs.

    Raises:
        ArgumentError: some were not fitted; the message names them.
    """
    missing = [f for f in fields if getattr(fitted, f, None) is None]
    if missing:
        raise ArgumentError(
            f"the score {name!r} needs {', '.join(missing)} of training; "
            "apr_jax.ood.fit makes them"
        )
    return [jnp.asarray(getattr(fitted, f)) for f in fields]
