"""The losses of training: cross-entropies of views, two heads, like answers."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from apr_jax import augment
from apr_jax import config as config_lib
from apr_jax.gates import answers
from apr_jax.network import class_logits, split_heads
from apr_jax.train.views import Views


def cross_entropy(
    logits: jax.Array, labels: jax.Array, *, smoothing: float = 0.0
) -> jax.Array:
    """Returns the mean cross-entropy of logits [N, K] and integer labels [N].

    The share ``smoothing`` of each label is spread evenly over all K classes (Szegedy
    et al., CVPR 2016, section 7).
    """
    return cross_entropies(logits, labels, smoothing).mean()


def cross_entropies(
    logits: jax.Array, labels: jax.Array, smoothing: float | jax.Array = 0.0
) -> jax.Array:
    """The cross-entropy of each image, [N]; see ``cross_entropy``.

    There may be a smoothing for each image.
    """
    own = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if isinstance(smoothing, int | float) and not smoothing:
        return own
    every = jax.nn.logsumexp(logits, axis=-1) - logits.mean(-1)
    return (1 - smoothing) * own + smoothing * every


def loss_of_pixels(
    predict: Callable[..., Any], variables: Any, labels: jax.Array
) -> Callable[..., Any]:
    """Returns ``pixels -> loss``, the sum of the images' cross-entropies.

    Args:
        predict: of ``network.make_predict``, with running statistics, so that no image
            depends on another.
        variables: its first argument.
        labels: integers [B].
    """

    def loss(pixels: jax.Array) -> jax.Array:
        logits, _ = predict(variables, pixels)
        return cross_entropies(logits, labels).sum()

    return loss


def supervised_contrastive(
    projections: jax.Array,
    labels: jax.Array,
    *,
    temperature: float,
    axis_name: str | None = None,
) -> jax.Array:
    """Draws projections of one label together and others apart; a number.

    For each anchor i the mean over the others p of its label of -log(exp(s_ip) /
    sum over all a but i of exp(s_ia)), s being the cosine over the temperature; then
    the mean over the anchors. Equation 2 of Khosla et al., NeurIPS 2020. An anchor
    that is alone with its label adds nothing.

    Args:
        projections: [N, D], of any length.
        labels: int [N].
        temperature: above 0.
        axis_name: the mapped axis of devices: each one's anchors are compared with
            the projections of all. The mean over the devices of loss and gradients is
            then that of the whole batch.
    """
    projections = projections.astype(jnp.float32)
    squares = jnp.sum(projections**2, axis=-1, keepdims=True)
    # Under the root, so that a projection of zeros has a gradient.
    unit = projections * jax.lax.rsqrt(jnp.maximum(squares, 1e-12))
    own = jnp.arange(len(labels))
    others, other_labels = unit, labels
    if axis_name is not None:
        own = own + len(labels) * jax.lax.axis_index(axis_name)
        others = jax.lax.all_gather(unit, axis_name, tiled=True)
        other_labels = jax.lax.all_gather(labels, axis_name, tiled=True)
    cosine = jnp.matmul(unit, others.T, precision=jax.lax.Precision.HIGHEST)
    itself = own[:, None] == jnp.arange(len(other_labels))[None]
    likeness = jnp.where(itself, -jnp.inf, cosine / temperature)
    log_share = likeness - jax.nn.logsumexp(likeness, axis=-1, keepdims=True)
    same = (labels[:, None] == other_labels[None]) & ~itself
    total = jnp.sum(jnp.where(same, log_share, 0.0), axis=-1)
    return -jnp.mean(total / jnp.maximum(jnp.sum(same, axis=-1), 1))


def linear_loss(
    logits: jax.Array, labels: jax.Array, shifts: int, *, smoothing: float = 0.0
) -> jax.Array:
    """Cross-entropy of the linear layers of a contrastive method.

    That of the classes learns from upright images; with several turns that of class
    and turn from all of them, and its own cross-entropy is added.

    Args:
        logits: [S * B, K], or [S * B, (1 + S) K] with S > 1 turns; turn by turn.
        labels: int [B], of the classes.
        shifts: S.
        smoothing: of ``cross_entropy``.
    """
    count = len(labels)
    loss = functools.partial(cross_entropy, smoothing=smoothing)
    if shifts == 1:
        return loss(logits, labels)
    classes = logits.shape[-1] // (1 + shifts)
    both = jnp.arange(shifts)[:, None] * classes + labels[None]
    return loss(logits[:count, :classes], labels) + loss(
        logits[:, classes:], both.reshape(-1)
    )


def training_loss(
    logits: jax.Array, views: Views, settings: config_lib.Augment
) -> jax.Array:
    """Returns the loss of a configuration's method, unless it projects.

    The sum over the views of the mean cross-entropy, as the paper's code has it, or
    their mean, as FACT and AFA have it (``Method.mean``), with both labels where images
    or features are blended. With two heads it is for each view weight * CE(phase head,
    label) + (1 - weight) * CE(amplitude head, label of the amplitude), equation 7.
    Where like answers are asked for, only the first of the three views has a
    cross-entropy; the divergence of the three is added, times ``jsd_weight``; so is,
    times ``pair_consistency``, that of the answers on an image and on its pair, of
    which the network sees both anyhow. Labels are smoothed in all cross-entropies
    alike.

    Args:
        logits: [V * B, K], or [V * B, 2 K] with two heads.
        views: the images and labels that they are of.
        settings: names the method, and its weights.
    """
    method = augment.get_method(settings.method)
    logits = logits.reshape(len(views.labels), -1, logits.shape[-1])
    own, other = logits, logits
    weight: jax.Array | float = views.weight
    if method.loss.heads > 1:
        own, other = split_heads(logits)
        weight = settings.heads_weight
    smoothing: float | jax.Array = settings.label_smoothing
    if views.softness is not None:
        # What the one leaves of a label, the other spreads its share of.
        smoothing = 1 - (1 - smoothing) * (1 - views.softness)
    each = cross_entropies(own, views.labels, smoothing)
    if method.mix or method.features or method.loss.heads > 1:
        each = weight * each
        each += (1 - weight) * cross_entropies(other, views.others, smoothing)
    losses = each.mean(1)
    if method.loss.alike:
        losses = jnp.concatenate([losses[:1], losses[3:]])
    total = losses.mean() if method.mean else losses.sum()
    if method.loss.alike:
        total += settings.jsd_weight * augment.jensen_shannon(*logits[:3])
    if method.pair and settings.pair_consistency:
        divergence = augment.jensen_shannon(own[0], own[-1])
        total += settings.pair_consistency * divergence
    return total


def training_accuracy(
    logits: jax.Array, views: Views, settings: config_lib.Augment
) -> jax.Array:
    """Share of right answers on the first view; blended labels count by weight.

    Without an answer (NaN) every label is wrong.
    """
    first = class_logits(logits[: views.labels.shape[1]], settings)
    answer = answers.answer(first)
    weight = views.weight[0]
    right = weight * (answer == views.labels[0])
    return jnp.mean(right + (1 - weight) * (answer == views.others[0]))
