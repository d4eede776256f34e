"""Noise of each value by itself: Gaussian, shot, impulse and speckle noise."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from apr_jax import fast_random
from apr_jax.augment.packed import look_up
from apr_jax.corruptions.constants import Arrays, Shape, Values, strength
from apr_jax.corruptions.resample import to_uint8
from apr_jax.target import by_platform

# Of the table of shot noise that are looked up at a time, where by products.
_ROWS = 2**18


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
    return by_platform(
        images, draw, values["below"], tpu=_counts_by_products, default=_counts
    )


def _counts(images: jax.Array, draw: jax.Array, below: jax.Array) -> jax.Array:
    """How many levels each draw lies above, by the table's row of each level."""
    # Bisection; exact, and free of the rejections that vary from draw to draw.
    flat = below.reshape(-1)
    place = images.astype(jnp.int32) * 256
    for step in (128, 64, 32, 16, 8, 4, 2, 1):
        place += jnp.where(look_up(flat, place + (step - 1)) <= draw, step, 0)
    return (place & 255).astype(jnp.uint8)


def _counts_by_products(
    images: jax.Array, draw: jax.Array, below: jax.Array
) -> jax.Array:
    """`_counts` without looking up single words, which a TPU takes one by one.

    A product with a one among zeros copies a whole row of the table, of which three
    parts in bfloat16 are exact; each draw is then compared with all of the row.
    """
    parts, rest = [], below
    for _ in range(3):
        parts.append(jax.lax.reduce_precision(rest, 8, 7))
        rest = rest - parts[-1]

    def of_image(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        levels, draw = pair
        one = (levels[:, None] == jnp.arange(256)[None]).astype(jnp.bfloat16)
        product = lambda part: jnp.matmul(
            one, part.astype(jnp.bfloat16), preferred_element_type=jnp.float32
        )
        row = product(parts[0]) + product(parts[1]) + product(parts[2])
        # The last is 1, which no draw reaches.
        return jnp.sum(row <= draw[:, None], axis=1)

    count = len(images)
    flat = images.astype(jnp.int32).reshape(count, -1), draw.reshape(count, -1)
    # Rows of 256 for each level would fill the memory.
    at_once = max(1, _ROWS // flat[0].shape[1])
    found = jax.lax.map(of_image, flat, batch_size=at_once)
    return found.reshape(images.shape).astype(jnp.uint8)
