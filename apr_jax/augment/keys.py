"""One random key per image, so that an image's fate depends on nothing beside it."""

import jax
import jax.numpy as jnp


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
