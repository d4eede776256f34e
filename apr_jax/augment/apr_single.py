"""APR-S: an image recombined with an augmented version of itself (paper, section 4)."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from apr_jax import spectral
from apr_jax.augment import ops as ops_lib
from apr_jax.augment.keys import per_image_keys
from apr_jax.augment.packed import Chunk, channel, join, pack, unpack, update_rows
from apr_jax.errors import ArgumentError
from apr_jax.gates import knobs
from apr_jax.gates.images import images_gate

OVERFLOWS = ("clip", "wrap")

# AugMix draws a level from U(0.1, level).
LOWEST_LEVEL = 0.1


@images_gate("either", rounds=True)
def apr_single(
    key: jax.Array,
    images: jax.Array,
    *,
    prob: float | jax.Array = 0.5,
    level: float | jax.Array = 3.0,
    ops: str = "base",
    axes: Sequence[int] = (-3, -2, -1),
    overflow: str = "clip",
    chunk: int | str = "auto",
    backend: str = "auto",
) -> jax.Array:
    """Amplitude and phase from two augmented versions of the same image.

    As the authors' code has it: one operation is always applied; with probability
    `prob` a second one is applied to that result, and a fair coin picks which of the
    two gives the amplitude, the other the phase. The label is the image's own.

    Args:
        key: one key, or one per image [N]: then image i depends on key i and itself
            alone, however the images are batched or sharded.
        images: [N, H, W, C], C of 1 or 3, any size: uint8, or floating point in [0, 1],
            which is rounded to 256 grey levels first.
        prob: probability of the second operation and the recombination.
        level: highest strength of an operation, drawn from U(0.1, level) each time.
        ops: "base" (nine operations) or "all" (thirteen), see `ops`.
        axes: of the DFT, as `spectral.recombine`'s.
        overflow: "clip" rounds and clips to [0, 255]; "wrap" truncates and takes the
            result modulo 256 as the authors' cast does.
        chunk: how many images are computed together of those that need the same thing;
            "all": all at once, needed or not; "auto": small chunks on a CPU, "all"
            elsewhere. It changes the speed, and which pixels a Fourier transform's
            rounding moves by a grey level.
        backend: as `spectral.recombine`'s.

    Returns:
        [N, H, W, C] of the same type.

    Raises:
        TypeError: pixels neither uint8 nor floating point.
        ValueError: an unknown name, another shape, or a wrong number of keys.
    """
    names = ops_lib.op_set(ops)
    _check_overflow(overflow)
    words = pack(to_levels(images))
    count, height, width, channels = images.shape
    at_once = chunk_size(chunk, height, width)

    once, other, twice, swap = augment_twice(
        words,
        draw_single(key, count),
        prob=prob,
        level=level,
        names=names,
        channels=channels,
        chunk=at_once,
    )

    def mix(words: jax.Array, other: jax.Array, swap: jax.Array) -> jax.Array:
        swap = swap[:, None, None]
        return _recombine_words(
            jnp.where(swap, other, words),
            jnp.where(swap, words, other),
            channels=channels,
            axes=axes,
            overflow=overflow,
            backend=backend,
        )

    kind = jnp.where(twice, 0, 1)
    mixed = update_rows(kind, [mix], once, other, swap, chunk=at_once)
    return from_levels(unpack(mixed, channels), images.dtype)


def draw_single(key: jax.Array, count: int) -> jax.Array:
    """The draws of `apr_single`: uniform in [0, 1), [8, N].

    Operation, level and sign twice, then the coins for a second operation and for which
    of the two gives the amplitude.
    """
    # One draw per image: a generator call costs more than its output.
    return jax.vmap(lambda k: jax.random.uniform(k, (8,)), out_axes=1)(
        per_image_keys(key, count)
    )


def augment_twice(
    words: jax.Array,
    uniform: jax.Array,
    *,
    prob: float | jax.Array,
    level: float | jax.Array,
    names: tuple[str, ...],
    channels: int,
    chunk: Chunk,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Every image after one operation, and by chance after another one on top.

    Args:
        words: packed uint32 [N, H, W].
        uniform: of `draw_single`.
        prob, level: as `apr_single`'s.
        names, channels, chunk: as `ops.apply_ops`'s.

    Returns:
        The words after one operation and after both, and bool [N] twice: where there
        is a second one, and where the two change parts.
    """
    twice, swap = uniform[6] < prob, uniform[7] < 0.5

    def augment(words: jax.Array, draw: jax.Array, need: jax.Array) -> jax.Array:
        op = jnp.floor(draw[0] * len(names)).astype(jnp.int32)
        op = jnp.where(need, jnp.minimum(op, len(names) - 1), len(names))
        return ops_lib.apply_ops(
            words,
            op,
            LOWEST_LEVEL + draw[1] * (level - LOWEST_LEVEL),
            draw[2] < 0.5,
            names=names,
            channels=channels,
            chunk=chunk,
        )

    once = augment(words, uniform[0:3], jnp.ones_like(twice))
    return once, augment(once, uniform[3:6], twice), twice, swap


class Versions(NamedTuple):
    """Two augmented versions of each image, uint8 [N, H, W, C], in random parts.

    Attributes:
        once: each image after one operation.
        first, second: that and what another operation makes of it, either way round.
        twice: bool [N], where there is another operation.
    """

    once: jax.Array
    first: jax.Array
    second: jax.Array
    twice: jax.Array

    def or_once(self, mixed: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """`mixed` levels where there are two versions, of the type wanted."""
        chosen = jnp.where(self.twice[:, None, None, None], mixed, self.once)
        return from_levels(chosen, dtype)


def two_versions(
    key: jax.Array,
    levels: jax.Array,
    *,
    prob: float | jax.Array,
    level: float | jax.Array,
    ops: str,
    chunk: int | str,
) -> Versions:
    """Versions of uint8 images, drawn as `apr_single` does, with its arguments."""
    count, height, width, channels = levels.shape
    once, other, twice, swap = augment_twice(
        pack(levels),
        draw_single(key, count),
        prob=prob,
        level=level,
        names=ops_lib.op_set(ops),
        channels=channels,
        chunk=chunk_size(chunk, height, width),
    )
    swap = swap[:, None, None]
    first, second = (
        unpack(jnp.where(swap, *pair), channels)
        for pair in ((other, once), (once, other))
    )
    return Versions(unpack(once, channels), first, second, twice)


@images_gate("levels")
def recombine_levels(
    amplitude_from: jax.Array,
    phase_from: jax.Array,
    *,
    axes: Sequence[int] = (-3, -2, -1),
    overflow: str = "clip",
    backend: str = "auto",
) -> jax.Array:
    """`spectral.recombine` of uint8 [N, H, W, C] images, C of 1 or 3, cast to uint8.

    Knobs and errors as `apr_single`'s.
    """
    _check_overflow(overflow)
    channels = phase_from.shape[-1]
    words = _recombine_words(
        pack(amplitude_from),
        pack(phase_from),
        channels=channels,
        axes=axes,
        overflow=overflow,
        backend=backend,
    )
    return unpack(words, channels)


def _recombine_words(
    amplitude_from: jax.Array,
    phase_from: jax.Array,
    *,
    channels: int,
    axes: Sequence[int],
    overflow: str,
    backend: str,
) -> jax.Array:
    mixed = spectral.recombine_channels(
        [channel(amplitude_from, c).astype(jnp.float32) for c in range(channels)],
        [channel(phase_from, c).astype(jnp.float32) for c in range(channels)],
        axes=axes,
        backend=backend,
    )
    if overflow == "wrap":
        return join([level.astype(jnp.int32) & 255 for level in mixed])
    return join([jnp.clip(jnp.round(v), 0, 255).astype(jnp.int32) for v in mixed])


def _check_overflow(overflow: str) -> None:
    if overflow not in OVERFLOWS:
        raise ValueError(f"unknown overflow {overflow!r}, choose from {OVERFLOWS}")


def chunk_size(chunk: int | str, height: int, width: int) -> Chunk:
    """What `apr_single`'s `chunk` stands for; None computes all at once."""
    if chunk == "all":
        return None
    if chunk == "auto":
        return ops_lib.default_chunk(height, width)
    if isinstance(chunk, str):
        raise ArgumentError(
            f'chunk must be a number of images, "auto" or "all", got {chunk!r}'
        )
    return knobs.whole("chunk", chunk)


def to_levels(images: jax.Array) -> jax.Array:
    """Grey levels of uint8 images or of pixels in [0, 1]: uint8, same shape."""
    if images.dtype == jnp.uint8:
        return images
    return round_levels(images.astype(jnp.float32) * 255)


def round_levels(values: jax.Array) -> jax.Array:
    """Numbers rounded and clipped to grey levels: floating point -> uint8."""
    return jnp.clip(jnp.round(values), 0, 255).astype(jnp.uint8)


def from_levels(levels: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """uint8 grey levels as images of a type: uint8, or floating point in [0, 1]."""
    if dtype == jnp.uint8:
        return levels
    return (levels.astype(jnp.float32) / 255).astype(dtype)
