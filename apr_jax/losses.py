"""What training minimises: cross-entropies of views, two heads, like answers."""

import jax
import jax.numpy as jnp
import optax

from apr_jax import augment
from apr_jax import config as config_lib
from apr_jax.views import Views


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the mean cross-entropy of logits [N, K] and integer labels [N]."""
    return _cross_entropies(logits, labels).mean()


def _cross_entropies(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


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


def training_loss(
    logits: jax.Array, views: Views, settings: config_lib.Augment
) -> jax.Array:
    """Returns what the method of a configuration minimises.

    "cross_entropy": the sum over the views of the mean cross-entropy, as the paper's
    code has it, with both labels where images are blended. "heads": in its place for
    each view weight * CE(phase head, label) + (1 - weight) * CE(amplitude head, label
    of the amplitude), equation 7. "jensen_shannon": only the first of the three views
    has a cross-entropy; the divergence of the three is added, times
    ``jsd_weight``.

    Args:
        logits: [V * B, K], or [V * B, 2 K] with two heads.
        views: what they are of.
        settings: names the method, and its weights.
    """
    method = augment.get_method(settings.method)
    count = views.labels.shape[0]
    logits = logits.reshape(count, -1, logits.shape[-1])
    if method.loss == "heads":
        phase, amplitude = split_heads(logits)
        weight = settings.heads_weight
        each = weight * _cross_entropies(phase, views.labels)
        each += (1 - weight) * _cross_entropies(amplitude, views.others)
        return each.mean(1).sum()
    each = _cross_entropies(logits, views.labels)
    if method.mix:
        each = views.weight * each
        each += (1 - views.weight) * _cross_entropies(logits, views.others)
    losses = each.mean(1)
    if method.loss == "jensen_shannon":
        divergence = augment.jensen_shannon(*logits[:3])
        return losses[0] + losses[3:].sum() + settings.jsd_weight * divergence
    return losses.sum()


def training_accuracy(
    logits: jax.Array, views: Views, settings: config_lib.Augment
) -> jax.Array:
    """Share of right answers on the first view; blended labels count by weight."""
    method = augment.get_method(settings.method)
    first = logits[: views.labels.shape[1]]
    if method.loss == "heads":
        first = join_heads(first, settings.heads_weight)
    answer = first.argmax(-1)
    weight = views.weight[0]
    right = weight * (answer == views.labels[0])
    return jnp.mean(right + (1 - weight) * (answer == views.others[0]))
