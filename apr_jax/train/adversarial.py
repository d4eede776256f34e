"""Adversarial training: the images of a step are moved against the network first.

Source: Wong et al., "Fast is better than free" (ICLR 2020): one signed step from a
random start (``fgsm``); Madry et al. (ICLR 2018): several steps (``pgd``).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from apr_jax import config as config_lib
from apr_jax.attacks import norms


def perturb(
    keys: jax.Array,
    loss_of: Callable[[jax.Array], jax.Array],
    pixels: jax.Array,
    settings: config_lib.Adversary,
    *,
    unroll: bool,
) -> jax.Array:
    """Returns images in the ball around ``pixels`` and in [0, 1] with a higher loss.

    Starts anywhere in ball and box, then takes signed steps of ``step_size``. Pixels
    beyond [0, 1], which recombination leaves, are brought into it first. The
    original's network learns its running statistics in this pass, too; here only in
    the step that follows.

    Args:
        keys: one for each image [N].
        loss_of: pixels [N, H, W, C] -> loss; differentiable.
        pixels: float32 [N, H, W, C].
        settings: radius, length and number of the steps.
        unroll: no loop in the program: on a CPU convolutions in one are slow.
    """
    origin = jnp.clip(pixels, 0.0, 1.0)
    eps = jnp.full(len(pixels), settings.eps, pixels.dtype)
    start = norms.random_inside(keys, origin, eps, "linf")

    def step(_: int, moved: jax.Array) -> jax.Array:
        way = jnp.sign(jax.grad(loss_of)(moved))
        return norms.project(moved + settings.step_size * way, origin, eps, "linf")

    count = 1 if settings.attack == "fgsm" else settings.steps
    if unroll or count == 1:
        moved = start
        for number in range(count):
            moved = step(number, moved)
    else:
        moved = jax.lax.fori_loop(0, count, step, start)
    return jax.lax.stop_gradient(moved)
