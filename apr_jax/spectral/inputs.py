"""The checks of inputs, and arithmetic that the functions here share."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from apr_jax.gates import images as gates
from apr_jax.spectral import dft

AXES = ((-3, -2, -1), (-3, -2))


def check_axes(axes: Sequence[int]) -> tuple[int, ...]:
    """The axes as a tuple; ValueError where they are none of `AXES`."""
    axes = tuple(axes)
    if axes not in AXES:
        raise ValueError(f"unknown axes {axes}, choose from {AXES}")
    return axes


def float_dtype(images: jax.Array, name: str) -> Any:
    """The type of the pixels; TypeError, calling them `name`, where it is no float."""
    gates.check_type(images, "pixels", name)
    return images.dtype


def image_shape(images: jax.Array) -> tuple[int, int, int]:
    """Height, width and channels of [..., H, W, C]; ValueError for fewer axes."""
    if images.ndim < 3:
        raise ValueError(f"images must be [..., H, W, C], got shape {images.shape}")
    height, width, channels = images.shape[-3:]
    return height, width, channels


def channels_of(images: jax.Array) -> list[jax.Array]:
    """[..., H, W, C] -> C times [..., H, W]."""
    return [images[..., c] for c in range(images.shape[-1])]


def weighted_sum(planes: Sequence[jax.Array], weights: Sequence[float]) -> jax.Array:
    """Sum of weight times plane, a single element-wise expression."""
    total = planes[0] * float(weights[0])
    for plane, weight in zip(planes[1:], weights[1:], strict=True):
        total = total + plane * float(weight)
    return total


def magnitude(spectrum: dft.Pair) -> jax.Array:
    """|F|, with gradient 0 where F is 0."""
    _, square, unit = at_unit_scale(spectrum)
    # Where F is 0 the square is 1, which keeps sqrt's infinite derivative at 0 out of
    # the gradient.
    return unit * jnp.sqrt(square)


def at_unit_scale(spectrum: dft.Pair) -> tuple[dft.Pair, jax.Array, jax.Array]:
    """F / u, |F / u|^2, and u: the power of two just below each coefficient's size.

    Squares neither vanish nor overflow then, whatever the range of the pixels, and a
    power of two changes no digit of them. Where F is 0, u is 0 and the quotient is 1.
    """
    re, im = spectrum
    size = jax.lax.stop_gradient(jnp.maximum(jnp.abs(re), jnp.abs(im)))
    info = jnp.finfo(size.dtype)
    whole = jnp.dtype(f"int{info.bits}")
    exponent = jax.lax.bitcast_convert_type(size, whole) & (
        ((1 << info.nexp) - 1) << info.nmant
    )
    unit = jax.lax.bitcast_convert_type(exponent, size.dtype)
    most = ((1 << info.nexp) - 2) << info.nmant
    inverse = jax.lax.bitcast_convert_type(most - exponent, size.dtype)
    zero = exponent == 0
    re = jnp.where(zero, 1.0, re * inverse)
    im = jnp.where(zero, 0.0, im * inverse)
    return (re, im), re * re + im * im, unit


def as_real(images: jax.Array) -> tuple[jax.Array, Any]:
    """Floating point [..., H, W, C] in float32 or wider, and the type it had.

    Raises:
        TypeError: pixels are not floating point.
        ValueError: fewer axes.
    """
    images = jnp.asarray(images)
    dtype = float_dtype(images, "images")
    image_shape(images)
    return images.astype(jnp.promote_types(dtype, jnp.float32)), dtype


def wave_turns(
    height: int, width: int, i: int | jax.Array, j: int | jax.Array
) -> jax.Array:
    """i n / H + j m / W at row n and column m, up to whole turns: [H, W]."""
    # Reduced as integers first: float32 angles of large products would be inexact.
    rows = jnp.arange(height) * (jnp.asarray(i) % height) % height
    columns = jnp.arange(width) * (jnp.asarray(j) % width) % width
    return rows[:, None] / height + columns[None, :] / width


def min_max(values: jax.Array, axes: int | Sequence[int]) -> jax.Array:
    """Values scaled to [0, 1] over some axes; constant ones become 0."""
    low = jnp.min(values, axis=axes, keepdims=True)
    span = jnp.max(values, axis=axes, keepdims=True) - low
    return (values - low) / jnp.where(span == 0, 1.0, span)
