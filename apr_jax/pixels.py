"""Pixels in [0, 1]: from grey levels, and to the numbers a network is given."""

from typing import Protocol

import jax
import jax.flatten_util
import jax.numpy as jnp

from apr_jax.gates import images as gates


class Statistics(Protocol):
    """What pixels are normalised by, such as ``config.data``."""

    @property
    def mean(self) -> tuple[float, ...]:
        """Of each channel."""

    @property
    def std(self) -> tuple[float, ...]:
        """Of each channel."""


def to_pixels(images: jax.Array) -> jax.Array:
    """Returns uint8 grey levels as float32 pixels in [0, 1]; floats unchanged.

    Raises:
        TypeError: neither of them.
    """
    gates.check_type(images, "either")
    if images.dtype == jnp.uint8:
        return images.astype(jnp.float32) / 255.0
    return images


def normalise(pixels: jax.Array, by: Statistics) -> jax.Array:
    """Returns (pixels - mean) / std, per channel; pixels [..., C] in [0, 1]."""
    shape = (1,) * (pixels.ndim - 1) + (len(by.mean),)
    mean = jnp.asarray(by.mean, pixels.dtype).reshape(shape)
    std = jnp.asarray(by.std, pixels.dtype).reshape(shape)
    return (pixels - mean) / std
