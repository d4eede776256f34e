"""ODIN, the one score that needs the gradient with respect to the image."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from apr_jax.gates import answers, knobs
from apr_jax.ood.scores import msp


def odin(
    logits_fn: Callable[[jax.Array], jax.Array],
    images: jax.Array,
    *,
    temperature: float = 1000.0,
    epsilon: float = 0.0014,
) -> jax.Array:
    """Log of the largest softmax probability at a temperature, after a small step.

    Each image moves by `epsilon` along the sign of the gradient that makes its own
    prediction surer; in-distribution images gain more (Liang et al. 2018, eq. 2). The
    result of the step is not clipped.

    Args:
        logits_fn: pixels in [0, 1], [N, H, W, C] -> logits [N, K]; differentiable, and
            each image's logits its own (no batch statistics).
        images: float [N, H, W, C] in [0, 1].
        temperature: divides the logits.
        epsilon: step in pixels of [0, 1]. In the original's code the step is in
            normalised units and divided by the standard deviation: the same thing.

    Returns:
        float32 [N], higher = more in-distribution.

    Raises:
        ArgumentError: the function returns no logits, or a knob is out of range.
    """
    moved = perturb(logits_fn, images, temperature, epsilon)
    return msp(_of(logits_fn, moved) / temperature)


def perturb(
    logits_fn: Callable[[jax.Array], jax.Array],
    images: jax.Array,
    temperature: float,
    epsilon: float,
) -> jax.Array:
    """The images that `odin` scores: float [N, H, W, C], not clipped."""
    knobs.real("temperature", temperature, above=0)
    knobs.real("epsilon", epsilon, low=0)
    surer = lambda x: jnp.sum(msp(_of(logits_fn, x) / temperature))
    return images + epsilon * jnp.sign(jax.grad(surer)(images))


def _of(logits_fn: Callable[[jax.Array], jax.Array], images: jax.Array) -> jax.Array:
    """The logits that a function gives, checked, in their own type."""
    found = logits_fn(images)
    checked: jax.Array = answers.logits(
        found, name="the function's logits", count=len(images)
    )
    return checked
