"""Random numbers by the million, a hash of (image's seed, place), and keys of one kind.

JAX's own generator, asked for a number per pixel with a key per image, spends more time
on that than noise or corruptions do on the rest, on a CPU by far. It makes one seed for
each image; from there every number is two rounds of a 32-bit integer hash of its place
(the multipliers are those that Chris Wellons found for low bias, "Prospecting for Hash
Functions", 2018).
"""

import math

import jax
import jax.numpy as jnp

# Places of one purpose lie this far apart from those of the next.
_LANE = 1 << 28
_GOLDEN = 0x9E3779B9


def _mix(x: jax.Array) -> jax.Array:
    """A bijection of uint32 whose outputs look independent of its inputs."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


_OWN_KIND = "threefry2x32"
# Raw keys have as many words.
_KINDS = {2: _OWN_KIND, 4: "rbg"}


def key_of(seed: int) -> jax.Array:
    """A key of the one kind that all is drawn with, whatever JAX's default is."""
    return jax.random.key(seed, impl=_OWN_KIND)


def typed_keys(key: jax.Array) -> jax.Array:
    """Keys of the one kind that all random numbers here are drawn with.

    Under ``vmap`` the generators "rbg" and "unsafe_rbg" give all images the numbers of
    the first key. Keys of theirs, and of any other kind, become keys of "threefry2x32"
    that depend on all of their words.

    Args:
        key: typed keys of any shape; or raw ones, uint32 [..., 2] or, of the generators
            above, [..., 4].

    Returns:
        Typed keys of that shape, or of [...].

    Raises:
        TypeError: neither kind of key.
    """
    if not jnp.issubdtype(jnp.result_type(key), jax.dtypes.prng_key):
        shape = jnp.shape(key)
        if jnp.result_type(key) != jnp.uint32 or not shape or shape[-1] not in _KINDS:
            raise TypeError(
                "key must be made by jax.random.key or jax.random.PRNGKey, got "
                f"{jnp.result_type(key)} {list(shape)}"
            )
        key = jax.random.wrap_key_data(jnp.asarray(key), impl=_KINDS[shape[-1]])
    if jax.random.key_impl(key) == _OWN_KIND:
        return key

    def convert(words: jax.Array) -> jax.Array:
        own = jax.random.wrap_key_data(words[:2], impl=_OWN_KIND)
        for word in words[2:]:
            own = jax.random.fold_in(own, word)
        return own

    words = jax.random.key_data(key)
    flat = jax.vmap(convert)(words.reshape(-1, words.shape[-1]))
    return flat.reshape(key.shape)


@jax.jit
def make_seeds(key: jax.Array, numbers: jax.Array) -> jax.Array:
    """The seeds of images: one key and their numbers, uint32 [N], to uint32 [N, 2]."""
    key = typed_keys(key)
    return seeds_of(jax.vmap(jax.random.fold_in, (None, 0))(key, numbers))


def seeds_of(keys: jax.Array) -> jax.Array:
    """Seeds from a key for each image, used for nothing else: [N] to uint32 [N, 2]."""
    return jax.vmap(lambda key: jax.random.bits(key, (2,)))(typed_keys(keys))


def bits(seeds: jax.Array, shape: tuple[int, ...], *, lane: int = 0) -> jax.Array:
    """uint32 [N, *shape], each image's from its own seed.

    Args:
        seeds: of ``make_seeds`` or ``seeds_of``.
        shape: of what one image needs, at most 2^28 numbers.
        lane: purposes of different lanes, up to 15, get different numbers.
    """
    place = jnp.arange(math.prod(shape), dtype=jnp.uint32) + jnp.uint32(lane * _LANE)
    first = _mix(place[None] * jnp.uint32(_GOLDEN) + seeds[:, :1])
    return _mix(first ^ seeds[:, 1:]).reshape(len(seeds), *shape)


def uniform(
    seeds: jax.Array, shape: tuple[int, ...], *, low: float = 0.0, lane: int = 0
) -> jax.Array:
    """float32 [N, *shape] in [low, 1)."""
    share = (bits(seeds, shape, lane=lane) >> 8).astype(jnp.float32) * 2.0**-24
    return low + (1.0 - low) * share if low else share


def normal(seeds: jax.Array, shape: tuple[int, ...], *, lane: int = 0) -> jax.Array:
    """float32 [N, *shape] of the standard normal distribution."""
    # The middles of 2^23 intervals of (-1, 1): neither end, so no infinity.
    whole = (bits(seeds, shape, lane=lane) >> 9).astype(jnp.int32) - 2**22
    middle = (2 * whole + 1).astype(jnp.float32) * 2.0**-23
    return math.sqrt(2.0) * jax.lax.erf_inv(middle)
