"""Additive plane waves: Auxiliary Fourier-basis Augmentation (AFA).

Vaish, Wang & Strisciuglio, "Fourier-basis Functions to Bridge Augmentation Gap", CVPR
2024.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from apr_jax.augment.keys import per_image_keys
from apr_jax.gates.images import images_gate

# What the released training takes between 0 and pi, both included.
DIRECTIONS = 448


class Waves(NamedTuple):
    """The draws of `fourier_basis_noise`: float32 [N, C, K] each.

    Attributes:
        frequency: periods along the longer side, 1 to its pixels.
        direction: in radians, from -pi to 0.
        strength: L2 norm at 32 x 32 pixels.
    """

    frequency: jax.Array
    direction: jax.Array
    strength: jax.Array


@images_gate("pixels")
def fourier_basis_noise(
    key: jax.Array,
    images: jax.Array,
    *,
    mean_strength: float | jax.Array = 5.0,
    least_strength: float | jax.Array = 0.0,
    waves: int = 1,
    clip: bool = True,
) -> jax.Array:
    """Images plus a random plane wave in each channel: [N, H, W, C] -> same.

    Frequency and direction are uniform, the strength s exponential; the wave is
    sin(2 pi f (u cos w + v sin w) - pi / 4) scaled to an L2 norm of s sqrt(H W) / 32,
    so that s means as much in any size. AFA's auxiliary branch, with a BatchNorm and a
    loss of its own, belongs to the training: the method "afa".

    Departure: pixels may be H x W instead of square; u and v then share one scale and
    f counts periods along the longer side.

    Args:
        key: one key, or one per image [N].
        images: floating point in [0, 1].
        mean_strength: mean of s above the least; 5 is the default of the released
            class, its ImageNet command takes 10.
        least_strength: added to every s.
        waves: how many for each channel, of which the mean is added.
        clip: clip the result to [0, 1], as the authors do.

    Raises:
        TypeError: pixels are not floating point.
        ValueError: another shape, a wrong number of keys, or no waves.
    """
    count, height, width, channels = images.shape
    drawn = draw_waves(
        key,
        (count, height, width, channels),
        mean_strength=mean_strength,
        least_strength=least_strength,
        waves=waves,
    )
    longest = max(height, width)
    rows, columns = (
        jnp.linspace(-side / 2, side / 2, side) if side > 1 else jnp.zeros(1)
        for side in (height, width)
    )
    turns = 2 * math.pi * drawn.frequency[..., None] / longest
    down = turns * jnp.cos(drawn.direction)[..., None] * rows[None, None, None]
    along = turns * jnp.sin(drawn.direction)[..., None] * columns[None, None, None]
    # sin(a + b) = sin a cos b + cos a sin b: sines of rows and columns, not of pixels.
    down -= math.pi / 4
    left = jnp.stack([jnp.sin(down), jnp.cos(down)], axis=-1)
    right = jnp.stack([jnp.cos(along), jnp.sin(along)], axis=-1)
    product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    # The sum of a wave's squares, without the wave.
    squares = [product("...si,...sj->...ij", side, side) for side in (left, right)]
    square = jnp.sum(squares[0] * squares[1], axis=(-2, -1))
    scale = drawn.strength * (math.sqrt(height * width) / 32)
    scale *= jax.lax.rsqrt(jnp.maximum(square, 1e-12)) / waves
    noise = product("nckhi,nckwi->nchw", left * scale[..., None, None], right)
    noise = jnp.moveaxis(noise, 1, -1).astype(images.dtype)
    return jnp.clip(images + noise, 0, 1) if clip else images + noise


def draw_waves(
    key: jax.Array,
    shape: tuple[int, int, int, int],
    *,
    mean_strength: float | jax.Array,
    least_strength: float | jax.Array,
    waves: int,
) -> Waves:
    """The draws of `fourier_basis_noise` for images of a shape."""
    count, height, width, channels = shape

    def draw(key: jax.Array) -> Waves:
        frequency_key, direction_key, strength_key = jax.random.split(key, 3)
        size = (channels, waves)
        frequency = jax.random.randint(frequency_key, size, 1, max(height, width) + 1)
        step = jax.random.randint(direction_key, size, 0, DIRECTIONS)
        strength = mean_strength * jax.random.exponential(strength_key, size)
        return Waves(
            frequency.astype(jnp.float32),
            step.astype(jnp.float32) * (-math.pi / (DIRECTIONS - 1)),
            least_strength + strength,
        )

    return jax.vmap(draw)(per_image_keys(key, count))
