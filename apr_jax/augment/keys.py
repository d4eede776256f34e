"""The gates of augmentations: checked images, and one random key for each of them.

With a key of its own an image's fate depends on nothing beside it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

PER = ("batch", "image")


def check_shape(images: jax.Array) -> None:
    """ValueError where images are not [N, H, W, C]."""
    if images.ndim != 4:
        raise ValueError(f"images must be [N, H, W, C], got shape {images.shape}")


def check_pixels(images: jax.Array) -> None:
    """TypeError where pixels are not floating point, ValueError for another shape."""
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(
            f"images must be floating point in [0, 1], got {images.dtype}: for uint8 "
            "pass images.astype(jnp.float32) / 255"
        )
    check_shape(images)


def check_per(per: str) -> None:
    """ValueError where it is none of `PER`."""
    if per not in PER:
        raise ValueError(f"unknown per {per!r}, choose from {PER}")


def per_image_keys(key: jax.Array, count: int) -> jax.Array:
    """Typed keys [count] from one key; one key per image is returned as it is.

    Key i of a single key is `fold_in(key, i)`, whatever `count` is. Legacy uint32 keys
    ([2] or [count, 2]) are taken too.

    Raises:
        ValueError: neither one key nor `count` of them.
    """
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    if key.ndim == 0:
        return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count))
    if key.shape != (count,):
        raise ValueError(
            f"key must be one key or one per image ({count}), got shape {key.shape}"
        )
    return key


def split_keys(key: jax.Array, count: int) -> tuple[jax.Array, ...]:
    """`jax.random.split` of one key, or of one per image [N]: `count` of its kind."""
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
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
