"""Balls, the box and distances: what an attack may do, for each norm.

Images are [B, H, W, C] in [0, 1]; sizes, radii and other numbers of an example [B].
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from apr_jax.gates import knobs

NORMS = ("linf", "l2", "l1")

# A sum of many squares or absolute values is rounded; a ball that is smaller by this
# share keeps the sum, taken exactly, inside the ball that was asked for.
_SLACK = 2e-6
_TINY = 1e-12
# Halvings of an interval of at most the radius: to the last bit of a float32.
_BISECTIONS = 30
_LEAST_NORMAL = 1 << 23  # as bits


def check_norm(norm: str) -> None:
    """Raises ArgumentError, listing the choices, for a norm that isn't there."""
    knobs.one_of("norm", norm, NORMS)


def column(values: jax.Array, like: jax.Array) -> jax.Array:
    """Returns numbers of examples [B] in a shape that multiplies ``like``."""
    return values.reshape((-1,) + (1,) * (like.ndim - 1))


def flat(images: jax.Array) -> jax.Array:
    """Returns [B, ...] as [B, D]."""
    return images.reshape(len(images), -1)


def pick(condition: jax.Array, yes: jax.Array, no: jax.Array) -> jax.Array:
    """``where`` for whole examples: bool [B], and two arrays [B, ...]."""
    return jnp.where(column(condition, yes), yes, no)


def size(delta: jax.Array, norm: str) -> jax.Array:
    """Returns the norm [B] of each perturbation [B, ...]."""
    delta = flat(delta)
    if norm == "linf":
        return jnp.abs(delta).max(1)
    if norm == "l2":
        return jnp.sqrt(jnp.square(delta).sum(1))
    return jnp.abs(delta).sum(1)


def unit(delta: jax.Array, norm: str) -> jax.Array:
    """Returns perturbations scaled to norm 1; zero stays zero."""
    return delta / (column(size(delta, norm), delta) + _TINY)


def steepest(grad: jax.Array, norm: str) -> jax.Array:
    """Returns the way of norm 1 up a gradient, "linf" or "l2", however small it is.

    Zero stays zero. ``unit`` is for lengths that float32 can square.
    """
    if norm == "linf":
        return jnp.sign(grad)
    largest = jnp.abs(flat(grad)).max(1)
    scaled = grad / column(jnp.where(largest > 0, largest, 1.0), grad)
    return unit(scaled, norm)


def radius(eps: jax.Array, norm: str) -> jax.Array:
    """Returns the radius to keep to, so that rounding doesn't leave the ball."""
    return eps if norm == "linf" else eps * (1.0 - _SLACK)


def project(
    images: jax.Array, origin: jax.Array, eps: jax.Array, norm: str
) -> jax.Array:
    """Returns images moved into the ball around ``origin`` and into [0, 1].

    For "linf" and "l1" it is the nearest such point. For "l2" the perturbation is
    scaled, then clipped, which is near it and needs no search.

    Args:
        images: [B, H, W, C].
        origin: [B, H, W, C] in [0, 1].
        eps: [B] radii.
        norm: one of ``NORMS``.
    """
    limit = column(radius(eps, norm), images)
    if norm == "linf":
        near = jnp.clip(images, origin - limit, origin + limit)
        return jnp.clip(near, 0.0, 1.0)
    delta = images - origin
    if norm == "l2":
        length = column(size(delta, norm), delta)
        delta = delta * jnp.minimum(1.0, limit / jnp.maximum(length, _TINY))
        return jnp.clip(origin + delta, 0.0, 1.0)
    return jnp.clip(origin + _into_l1(delta, origin, radius(eps, norm)), 0.0, 1.0)


def _into_l1(delta: jax.Array, origin: jax.Array, limit: jax.Array) -> jax.Array:
    """The nearest perturbation of at most ``limit`` that stays in the box.

    It is sign(delta) clip(|delta| - t, 0, room) with the smallest t >= 0 for which it
    is small enough (Croce and Hein 2021, proposition 2.2); t is found by bisection,
    as the sum falls in t.
    """
    length = flat(jnp.abs(delta))
    room = flat(jnp.where(delta > 0, 1.0 - origin, origin))

    def shrunk(t: jax.Array) -> jax.Array:
        return jnp.clip(length - t[:, None], 0.0, room)

    def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        too_long = shrunk(middle).sum(1) > limit
        return jnp.where(too_long, middle, low), jnp.where(too_long, high, middle)

    start = jnp.zeros_like(limit)
    _, t = jax.lax.fori_loop(0, _BISECTIONS, halve, (start, length.max(1)))
    t = jnp.where(shrunk(start).sum(1) > limit, t, 0.0)
    return jnp.sign(delta) * shrunk(t).reshape(delta.shape)


def largest(holds: Callable[[jax.Array], jax.Array], like: jax.Array) -> jax.Array:
    """Returns the largest float32 of 0 or more [B] for which something holds.

    Sorting for it would take many times as long on a CPU.

    Args:
        holds: numbers [B] -> bool [B], true up to some number and false beyond, such
            as infinity.
        like: [B], anything.
    """
    # The bits of such numbers, read as integers, are in the same order.
    float_of = functools.partial(jax.lax.bitcast_convert_type, new_dtype=jnp.float32)

    def decide(number: int, low: jax.Array) -> jax.Array:
        trial = low | (jnp.int32(1) << (30 - number))
        return jnp.where(holds(float_of(trial)), trial, low)

    start = jnp.zeros(like.shape, jnp.int32)
    bits = jax.lax.fori_loop(0, 31, decide, start)
    # Processors may take numbers below the least normal one for 0.
    return float_of(jnp.where(bits < _LEAST_NORMAL, 0, bits))


def random_direction(keys: jax.Array, like: jax.Array, norm: str) -> jax.Array:
    """Returns random perturbations of norm 1, one for each key.

    Uniform in the cube and stretched to its surface for "linf", Gaussian otherwise,
    as AutoAttack starts.
    """
    shape = like.shape[1:]
    if norm == "linf":
        noise = jax.vmap(
            lambda key: jax.random.uniform(key, shape, jnp.float32, minval=-1.0)
        )(keys)
    else:
        noise = jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys)
    return unit(noise.astype(like.dtype), norm)


def random_inside(
    keys: jax.Array, origin: jax.Array, eps: jax.Array, norm: str
) -> jax.Array:
    """Returns images at random in the ball and the box.

    Uniform for "linf"; a uniform length in a random direction for the others.
    """
    noise_keys, length_keys = jnp.unstack(
        jax.vmap(lambda key: jax.random.split(key, 2))(keys), axis=1
    )
    if norm == "linf":
        delta = jax.vmap(
            lambda key: jax.random.uniform(
                key, origin.shape[1:], jnp.float32, minval=-1.0
            )
        )(noise_keys).astype(origin.dtype)
    else:
        length = jax.vmap(lambda key: jax.random.uniform(key, (), jnp.float32))(
            length_keys
        ).astype(origin.dtype)
        delta = random_direction(noise_keys, origin, norm) * column(length, origin)
    return project(origin + delta * column(eps, origin), origin, eps, norm)
