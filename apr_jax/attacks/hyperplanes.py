"""The smallest change that puts a point of the box onto a hyperplane.

Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary
attack", ICML 2020, section 2: a linear function is made zero by a perturbation of
least norm that keeps the point in [0, 1]^D.
"""

import jax
import jax.numpy as jnp

from apr_jax.attacks import norms

# Each Newton step fixes at least one more coordinate at the box; in practice a few do.
_MOST_STEPS = 60
_Carry = tuple[jax.Array, jax.Array, jax.Array]


def to_hyperplane(
    points: jax.Array, normal: jax.Array, value: jax.Array, norm: str
) -> jax.Array:
    """Returns the least changes d with normal . d = -value and points + d in [0, 1].

    Where the box doesn't reach the hyperplane, d leads to the corner nearest to it.

    Args:
        points: [B, D] in [0, 1].
        normal: [B, D], of the hyperplanes.
        value: [B], normal . point + offset: how far each point is from its plane.
        norm: "linf", "l2" or "l1", which is to be least.

    Returns:
        [B, D].
    """
    way = -jnp.sign(value)[:, None] * jnp.sign(normal)
    room = jnp.where(way > 0, 1.0 - points, points) * jnp.abs(way)
    need, weight = jnp.abs(value), jnp.abs(normal)
    if norm == "l1":
        return way * _steepest_first(room, weight, need)
    speed = jnp.where(weight > 0, 1.0, 0.0) if norm == "linf" else weight
    return way * _together(room, weight, speed, need)


def _together(
    room: jax.Array, weight: jax.Array, speed: jax.Array, need: jax.Array
) -> jax.Array:
    """min(t speed, room) with the t at which weight . that reaches need.

    The sum is piecewise linear, increasing and concave in t, so Newton's method comes
    from below and ends exactly there.
    """

    def more(t: jax.Array) -> jax.Array:
        full = t[:, None] * speed >= room
        slope = jnp.where(full, 0.0, weight * speed).sum(1)
        left = need - jnp.where(full, weight * room, 0.0).sum(1)
        reached = left / jnp.where(slope > 0, slope, 1.0)
        # Without a slope there is nothing left to move: the corner.
        return jnp.maximum(t, jnp.where(slope > 0, reached, t))

    def going(carry: _Carry) -> jax.Array:
        old, new, count = carry
        return (count < _MOST_STEPS) & jnp.any(new > old)

    def go(carry: _Carry) -> _Carry:
        _, t, count = carry
        return t, more(t), count + 1

    start = jnp.zeros_like(need)
    _, t, _ = jax.lax.while_loop(going, go, (start, more(start), jnp.int32(1)))
    return jnp.minimum(t[:, None] * speed, room)


def _steepest_first(room: jax.Array, weight: jax.Array, need: jax.Array) -> jax.Array:
    """Uses up the room of the largest weights first, until need is met.

    Of equal weights on which it ends each uses the same share of its room.
    """
    gain = weight * room
    sum_where = lambda chosen: jnp.where(chosen, gain, 0.0).sum(1)
    last = norms.largest(
        lambda least: sum_where(weight >= least[:, None]) >= need, need
    )[:, None]
    left = need - sum_where(weight > last)
    there = sum_where(weight == last)
    share = jnp.clip(left / jnp.where(there > 0, there, 1.0), 0.0, 1.0)
    partly = jnp.where(weight == last, share[:, None], 0.0)
    return room * jnp.where(weight > last, 1.0, jnp.where(weight > 0, partly, 0.0))
