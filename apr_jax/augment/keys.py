"""One random key for each image, and the draws of a batch or of each of its images.

With a key of its own an image's fate depends on nothing beside it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from apr_jax.fast_random import typed_keys

PER = ("batch", "image")


def check_per(per: str) -> None:
    """ValueError where it is none of `PER`."""
    if per not in PER:
        raise ValueError(f"unknown per {per!r}, choose from {PER}")


def per_image_keys(key: jax.Array, count: int) -> jax.Array:
    """Typed keys [count] from one key; one key per image is returned as it is.

    Key i of a single key is `fold_in(key, i)`, whatever `count` is. Keys of any kind
    are taken, see `typed_keys`.

    Raises:
        TypeError: no keys.
        ValueError: neither one key nor `count` of them.
    """
    key = typed_keys(key)
    if key.ndim == 0:
        return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count))
    if key.shape != (count,):
        raise ValueError(
            f"key must be one key or one per image ({count}), got shape {key.shape}"
        )
    return key


def split_keys(key: jax.Array, count: int) -> tuple[jax.Array, ...]:
    """`jax.random.split` of one key, or of one per image [N]: `count` of its kind."""
    key = typed_keys(key)
    if key.ndim == 0:
        return tuple(jax.random.split(key, count))
    return jnp.unstack(jax.vmap(lambda k: jax.random.split(k, count))(key), axis=1)


def image_coins(key: jax.Array, count: int, prob: float | jax.Array) -> jax.Array:
    """A coin for each image, of one key or of one per image: bool [count]."""
    if key.ndim == 0:
        return jax.random.bernoulli(key, prob, (count,))
    return jax.vmap(jax.random.uniform)(key) < prob


def draw_per(
    draw: Callable[[jax.Array], jax.Array], key: jax.Array, count: int, per: str
) -> jax.Array:
    """A draw for each image, [N, ...].

    Args:
        draw: of one key.
        key: one key; or one per image, for `per` "image".
        count: N.
        per: "batch" draws once for all, "image" for each.

    Raises:
        ValueError: an unknown `per`, or a wrong number of keys.
    """
    check_per(per)
    if per == "batch":
        one = draw(key)
        return jnp.broadcast_to(one, (count, *one.shape))
    return jax.vmap(draw)(per_image_keys(key, count))
