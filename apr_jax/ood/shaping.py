"""Scores of shaped activations: ASH in its variants, and SCALE.

A share of each example's activations, the lowest, is pruned; energy is what remains.
"""

import jax
import jax.numpy as jnp

from apr_jax.gates import knobs
from apr_jax.ood.scores import Found, Unused, energy, linear, of_features, parts

ASH_VARIANTS = ("s", "p", "b")


def ash(
    logits: Unused,
    features: jax.Array,
    fitted: Found,
    *,
    prune: float = 0.9,
    variant: str = "s",
) -> jax.Array:
    """Energy of shaped activations (Djurisic et al. 2023).

    Args:
        logits: not used.
        features: [N, F] activations.
        fitted: its `weight` and `bias` are used.
        prune: share of each example's activations that is set to zero, the lowest.
        variant: what the others become: "s" grow by exp(sum before / sum after), "p"
            stay, "b" all share the sum before equally.

    Raises:
        ArgumentError: for an unknown variant, or a `prune` outside [0, 1).
    """
    knobs.one_of("variant", variant, ASH_VARIANTS)
    weight, bias = parts("ash", fitted, "weight", "bias")
    values = of_features(features, weight.shape[0])
    kept = _highest(values, prune)
    shaped = jnp.where(kept, values, 0.0)
    if variant == "b":
        before = jnp.sum(values, axis=-1, keepdims=True)
        many = jnp.sum(kept, axis=-1, keepdims=True).astype(jnp.float32)
        shaped = jnp.where(kept, before / many, 0.0)
    elif variant == "s":
        shaped = shaped * jnp.exp(_ratio(values, shaped))
    return energy(linear(shaped, weight, bias))


def ash_p(
    logits: Unused, features: jax.Array, fitted: Found, *, prune: float = 0.9
) -> jax.Array:
    """`ash` whose variant is "p": what isn't pruned stays."""
    return ash(logits, features, fitted, prune=prune, variant="p")


def ash_b(
    logits: Unused, features: jax.Array, fitted: Found, *, prune: float = 0.9
) -> jax.Array:
    """`ash` whose variant is "b": what isn't pruned shares the sum equally."""
    return ash(logits, features, fitted, prune=prune, variant="b")


def scale(
    logits: Unused, features: jax.Array, fitted: Found, *, prune: float = 0.85
) -> jax.Array:
    """Energy of activations that all grow as those of ASH-S do (Xu et al. 2024).

    By exp(sum before / sum after) of what pruning would do, but nothing is pruned.

    Args:
        logits: not used.
        features: [N, F] activations.
        fitted: its `weight` and `bias` are used.
        prune: share of each example's activations that the sum after leaves out.

    Raises:
        ArgumentError: for a `prune` outside [0, 1).
    """
    weight, bias = parts("scale", fitted, "weight", "bias")
    values = of_features(features, weight.shape[0])
    rest = jnp.where(_highest(values, prune), values, 0.0)
    return energy(linear(values * jnp.exp(_ratio(values, rest)), weight, bias))


def _highest(values: jax.Array, prune: float) -> jax.Array:
    """Which activations [N, F] are not pruned, one or more of each example."""
    knobs.real("prune", prune, low=0, below=1)
    size = values.shape[-1]
    keep = max(1, size - round(size * prune))
    # By place rather than by value, so that equal activations do not all stay.
    places = jax.lax.top_k(values, keep)[1]
    return jnp.put_along_axis(
        jnp.zeros(values.shape, bool), places, True, axis=-1, inplace=False
    )


def _ratio(values: jax.Array, rest: jax.Array) -> jax.Array:
    """Sum before over sum after, [N, 1]; 1 where nothing positive is left."""
    before, after = (jnp.sum(x, axis=-1, keepdims=True) for x in (values, rest))
    return jnp.where(after > 0, before / jnp.where(after > 0, after, 1.0), 1.0)
