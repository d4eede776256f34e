"""Pixels in [0, 1]: from grey levels, and to the numbers a network is given."""

import jax
import jax.flatten_util
import jax.numpy as jnp

from apr_jax import config as config_lib
from apr_jax.gates import images as gates


def to_pixels(images: jax.Array) -> jax.Array:
    """Returns uint8 grey levels as float32 pixels in [0, 1]; floats unchanged.

    Raises:
        TypeError: neither of them.
    """
    gates.check_type(images, "either")
    if images.dtype == jnp.uint8:
        return images.astype(jnp.float32) / 255.0
    return images


def normalise(pixels: jax.Array, data: config_lib.Data) -> jax.Array:
    """Returns (pixels - mean) / std, per channel; pixels [..., C] in [0, 1]."""
    shape = (1,) * (pixels.ndim - 1) + (len(data.mean),)
    mean = jnp.asarray(data.mean, pixels.dtype).reshape(shape)
    std = jnp.asarray(data.std, pixels.dtype).reshape(shape)
    return (pixels - mean) / std
