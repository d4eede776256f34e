"""Noise of each value by itself: Gaussian, shot, impulse and speckle noise."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from apr_jax import fast_random
from apr_jax.augment.packed import look_up
from apr_jax.corruptions.constants import Arrays, Shape, Values, strength
from apr_jax.corruptions.resample import to_uint8


def gaussian_noise(seeds: jax.Array, images: jax.Array, values: Values) -> jax.Array:
    """Adds the same Gaussian noise everywhere."""
    noise = 255.0 * values["scale"] * fast_random.normal(seeds, images.shape[1:])
    return to_uint8(images.astype(jnp.float32) + noise)


def speckle_noise(seeds: jax.Array, images: jax.Array, values: Values) -> jax.Array:
    """Adds Gaussian noise in proportion to the value."""
    noise = values["scale"] * fast_random.normal(seeds, images.shape[1:])
    return to_uint8(images.astype(jnp.float32) * (1.0 + noise))


def impulse_noise(seeds: jax.Array, images: jax.Array, values: Values) -> jax.Array:
    """Sets some values to 0 or 255, either with the same chance."""
    draw = fast_random.uniform(seeds, images.shape[1:])
    extreme = jnp.where(draw < values["scale"] / 2, 255, 0).astype(jnp.uint8)
    return jnp.where(draw < values["scale"], extreme, images)


def shot_table(name: str, shape: Shape, severity: int) -> Arrays:
    """Chance of a level or a lower one after shot noise, for each level before it.

    A level v of 255 stands for a Poisson count of mean c v / 255; the count k becomes
    the level 255 k / c, truncated and at most 255.
    """
    photons = strength(name, shape, severity)[0]
    levels = np.arange(256.0)
    # The largest count that ends up at a level or below.
    largest = np.ceil((levels + 1) * photons / 255 - 1e-9) - 1
    below = scipy.special.pdtr(largest[None], photons / 255 * levels[:, None])
    below[0] = 1.0  # no light, no photons
    below[:, -1] = 1.0
    return {"below": below.astype(np.float32)}


def shot_noise(seeds: jax.Array, images: jax.Array, values: Values) -> jax.Array:
    """Draws the Poisson counts of light: the level that a uniform draw falls in."""
    draw = fast_random.uniform(seeds, images.shape[1:])
    # Bisection; exact, and free of the rejections that vary from draw to draw.
    flat = values["below"].reshape(-1)
    place = images.astype(jnp.int32) * 256
    for step in (128, 64, 32, 16, 8, 4, 2, 1):
        place += jnp.where(look_up(flat, place + (step - 1)) <= draw, step, 0)
    return (place & 255).astype(jnp.uint8)
