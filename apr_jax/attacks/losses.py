"""The hills that attacks climb: losses of logits, one number for each example.

All take logits [B, K], labels [B] and targets [B], and grow as the label loses.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from apr_jax.gates import knobs

_TINY = 1e-12

Loss = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def logit_of(logits: jax.Array, classes: jax.Array) -> jax.Array:
    """Returns each example's logit [B] of its class."""
    return jnp.take_along_axis(logits, classes[:, None], axis=1)[:, 0]


def _ranked(logits: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    return jax.lax.top_k(logits, min(count, logits.shape[1]))


def cross_entropy(
    logits: jax.Array, labels: jax.Array, targets: jax.Array
) -> jax.Array:
    """Cross-entropy of the labels, in nats."""
    return jax.nn.logsumexp(logits, axis=1) - logit_of(logits, labels)


def margin(logits: jax.Array, labels: jax.Array, targets: jax.Array) -> jax.Array:
    """Largest other logit less the label's; above 0 where the answer is wrong."""
    own = jax.nn.one_hot(labels, logits.shape[1], dtype=bool)
    return jnp.where(own, -jnp.inf, logits).max(1) - logit_of(logits, labels)


def probabilities(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the largest other probability and the label's, [B] each.

    Where the label's is the larger half it is 1 less the others': where it is 1 to the
    last bit, the gradient of a softmax would lose the label's logit to rounding.
    """
    own = jax.nn.one_hot(labels, logits.shape[1], dtype=bool)
    others = jnp.where(own, -jnp.inf, logits)
    total = jax.nn.logsumexp(logits, axis=1)
    rest = jnp.exp(jax.nn.logsumexp(others, axis=1) - total)
    small = jnp.exp(logit_of(logits, labels) - total)
    return jnp.exp(others.max(1) - total), jnp.where(rest < 0.5, 1.0 - rest, small)


def probability_margin(
    logits: jax.Array, labels: jax.Array, targets: jax.Array
) -> jax.Array:
    """Largest other probability less the label's (Xie et al. 2025)."""
    other, own = probabilities(logits, labels)
    return other - own


def dlr(logits: jax.Array, labels: jax.Array, targets: jax.Array) -> jax.Array:
    """Difference of logits ratio (Croce and Hein 2020, equation 6).

    The margin over the distance from the largest to the third logit, so that scaling
    all logits changes nothing. With two classes there is no third: the plain margin;
    likewise where the third logit is -inf, as of a class that is left out.
    """
    values, order = _ranked(logits, 3)
    other = jnp.where(order[:, 0] == labels, values[:, 1], values[:, 0])
    lead = other - logit_of(logits, labels)
    if logits.shape[1] < 3:
        return lead
    return _over(lead, values[:, 0] - values[:, 2], values[:, 2])


def target_lead(logits: jax.Array, labels: jax.Array, targets: jax.Array) -> jax.Array:
    """The target's logit less the label's."""
    return logit_of(logits, targets) - logit_of(logits, labels)


def targeted_dlr(logits: jax.Array, labels: jax.Array, targets: jax.Array) -> jax.Array:
    """Targeted difference of logits ratio (Croce and Hein 2020, equation 7).

    Needs four classes; with fewer, or where the fourth logit is -inf, it is the
    difference of the two logits.
    """
    lead = target_lead(logits, labels, targets)
    if logits.shape[1] < 4:
        return lead
    values, _ = _ranked(logits, 4)
    distance = values[:, 0] - 0.5 * (values[:, 2] + values[:, 3])
    return _over(lead, distance, values[:, 3])


def _over(lead: jax.Array, distance: jax.Array, last: jax.Array) -> jax.Array:
    """``lead / distance`` [B], or ``lead`` where the ``last`` logit in it is -inf."""
    exists = last != -jnp.inf
    return lead / jnp.where(exists, distance + _TINY, 1.0)


LOSSES: dict[str, Loss] = {
    "ce": cross_entropy,
    "dlr": dlr,
    "dlr-targeted": targeted_dlr,
    "margin": margin,
    "probability-margin": probability_margin,
}
# Those that need a target.
TARGETED = ("dlr-targeted",)


def get_loss(name: str) -> Loss:
    """Returns a loss by name.

    Raises:
        ArgumentError: there is none of that name; the message lists the choices.
    """
    return LOSSES[knobs.one_of("loss", name, LOSSES)]
