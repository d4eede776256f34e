"""Smoothness of convolution kernels, and making them smoother.

Source: Wang et al., "High-Frequency Component Helps Explain the Generalization of
Convolutional Neural Networks", CVPR 2020, section 6: adversarially trained networks
have smoother kernels, and smoothing the kernels of others resists small perturbations.
"""

import jax
import jax.numpy as jnp


def smooth(kernels: jax.Array, rho: float | jax.Array) -> jax.Array:
    """Each tap mixed with the mean of its neighbours: (1 - rho) w + rho mean(w').

    Neighbours are the up to eight taps around it in the same kernel. The paper adds
    rho times their sum; as a mean, a constant kernel stays what it is, and so does the
    scale of what follows.

    Args:
        kernels: [h, w, in, out].
        rho: from 0 (unchanged) to 1.

    Raises:
        ValueError: not four axes, or a single tap, which has no neighbours.
    """
    _check(kernels)
    total, count = jnp.zeros_like(kernels), jnp.zeros(kernels.shape[:2])
    height, width = kernels.shape[:2]
    padded = jnp.pad(kernels, ((1, 1), (1, 1), (0, 0), (0, 0)))
    inside = jnp.pad(jnp.ones((height, width)), 1)
    for i in range(3):
        for j in range(3):
            if (i, j) != (1, 1):
                total += padded[i : i + height, j : j + width]
                count += inside[i : i + height, j : j + width]
    return (1 - rho) * kernels + rho * total / count[:, :, None, None]


def roughness(kernels: jax.Array) -> jax.Array:
    """The change of each kernel from tap to tap: [h, w, in, out] -> [in, out].

    The mean squared difference of taps side by side and one above the other, over twice
    the variance of all taps of the kernel about zero: 1 for independent noise, 0 for a
    constant kernel, 2 for one that alternates.
    """
    _check(kernels)
    across = jnp.square(kernels[:, 1:] - kernels[:, :-1])
    down = jnp.square(kernels[1:] - kernels[:-1])
    pairs = across.shape[0] * across.shape[1] + down.shape[0] * down.shape[1]
    difference = (across.sum((0, 1)) + down.sum((0, 1))) / pairs
    power = jnp.square(kernels).mean((0, 1))
    return difference / jnp.maximum(2 * power, 1e-12)


def _check(kernels: jax.Array) -> None:
    if kernels.ndim != 4 or kernels.shape[0] * kernels.shape[1] < 2:
        raise ValueError(
            f"kernels must be [h, w, in, out] with more than one tap, "
            f"got shape {kernels.shape}"
        )
