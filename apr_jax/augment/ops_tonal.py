"""Operations on grey levels: stretched, looked up or drawn from another version."""

import jax
import jax.numpy as jnp

from apr_jax.augment.packed import channel, join, look_up
from apr_jax.target import by_platform

POINT = ("posterize", "solarize", "contrast", "brightness", "invert")
BLEND = ("color", "sharpness")


def enhance_factor(level: jax.Array) -> jax.Array:
    """AugMix's color, contrast, brightness and sharpness; 1 changes nothing."""
    return level * 1.8 / 10 + 0.1


def autocontrast(words: jax.Array, *, channels: int) -> jax.Array:
    """Pillow's `ImageOps.autocontrast`: each channel stretched to [0, 255].

    Packed words [N, H, W] -> same.
    """

    def stretched(own: jax.Array) -> jax.Array:
        low = jnp.min(own, axis=(1, 2), keepdims=True)
        span = jnp.max(own, axis=(1, 2), keepdims=True) - low
        # Pillow rounds a float64 product and sum before it truncates, and so is one
        # lower at some of the levels where this quotient is whole.
        new = _quotient((own - low) * 255, jnp.maximum(span, 1))
        return jnp.where(span > 0, new, own)

    return join([stretched(channel(words, c)) for c in range(channels)])


def equalize_tables(words: jax.Array, *, channels: int) -> jax.Array:
    """The tables of Pillow's `ImageOps.equalize`: packed words -> int32 [N, C, 256]."""
    levels = jnp.stack([channel(words, c) for c in range(channels)], axis=1)
    counts = by_platform(levels, tpu=_counts_by_products, default=_counts)
    # Pixels of the highest level that occurs don't count.
    highest = jnp.max(levels, axis=(2, 3))[..., None]
    others = jnp.where(jnp.arange(256)[None, None, :] == highest, 0, counts)
    step = jax.lax.div(jnp.sum(others, axis=-1, keepdims=True), 255)
    below = jnp.cumsum(counts, axis=-1) - counts
    spread = _quotient(jax.lax.div(step, 2) + below, jnp.maximum(step, 1))
    identity = jnp.broadcast_to(jnp.arange(256)[None, None, :], below.shape)
    return jnp.where(step > 0, jnp.minimum(spread, 255), identity)


def apply_tables(words: jax.Array, tables: jax.Array) -> jax.Array:
    """Every level replaced by its entry: words [N, H, W], int [N, C, 256] -> words."""
    return by_platform(words, tables, tpu=_apply_by_products, default=_apply)


# A TPU takes single words one by one, so there a level of 256 is looked up and counted
# by its two halves of 16: which of them it is are ones among zeros, whose products are
# exact in bfloat16, as levels are.


def _halves(levels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Which half-levels [N, H, W] have: bool [N, 16, H W], the higher and the lower."""
    flat = levels.reshape(len(levels), 1, -1)
    each = jnp.arange(16)[None, :, None]
    return flat >> 4 == each, flat & 15 == each


def _counts(levels: jax.Array) -> jax.Array:
    """How often each level occurs: int32 [N, C, H, W] -> [N, C, 256]."""
    count, channels = levels.shape[:2]
    first = jnp.arange(count * channels).reshape(count, channels, 1, 1) * 256
    index = (first + levels).reshape(-1).astype(jnp.uint32)
    counts = jnp.zeros(count * channels * 256, jnp.int32)
    counts = counts.at[index].add(1, mode="promise_in_bounds")
    return counts.reshape(count, channels, 256)


def _counts_by_products(levels: jax.Array) -> jax.Array:
    """`_counts` without a scatter, exact up to 2^24 pixels."""
    count, channels = levels.shape[:2]
    high, low = (
        half.astype(jnp.bfloat16)
        for half in _halves(levels.reshape(-1, *levels.shape[2:]))
    )
    product = jnp.einsum("nhp,nlp->nhl", high, low, preferred_element_type=jnp.float32)
    return product.astype(jnp.int32).reshape(count, channels, 256)


def _apply_by_products(words: jax.Array, tables: jax.Array) -> jax.Array:
    """`_apply` without a gather."""
    levels = []
    for c in range(tables.shape[1]):
        high, low = _halves(channel(words, c))
        table = tables[:, c].reshape(-1, 16, 16).astype(jnp.bfloat16)
        rows = jnp.einsum(
            "nhl,nhp->nlp",
            table,
            high.astype(jnp.bfloat16),
            preferred_element_type=jnp.float32,
        )
        entry = jnp.sum(jnp.where(low, rows, 0.0), axis=1)
        levels.append(entry.astype(jnp.int32).reshape(words.shape))
    return join(levels)


def _apply(words: jax.Array, tables: jax.Array) -> jax.Array:
    """`apply_tables` by looking every entry up."""
    count, channels, _ = tables.shape
    flat = tables.reshape(-1)
    first = (jnp.arange(count) * (channels * 256))[:, None, None]
    return join(
        [
            look_up(flat, first + 256 * c + channel(words, c)).astype(jnp.int32)
            for c in range(channels)
        ]
    )


def point(
    names: tuple[str, ...],
    op: jax.Array,
    level: jax.Array,
    words: jax.Array,
    *,
    channels: int,
) -> jax.Array:
    """Posterize, solarize, contrast, brightness and invert, as Pillow computes them.

    Strengths as in AugMix: 4 - int(0.4 level) bits kept, levels from 256 - int(25.6
    level) inverted, `enhance_factor`.

    Args:
        names: what the numbers in `op` stand for.
        op, level: int and float [N].
        words: packed uint32 [N, H, W].
    """
    op, level = op[:, None, None], level[:, None, None]
    dropped = 4 + jnp.floor(level * 4 / 10).astype(jnp.int32)
    threshold = 256 - jnp.floor(level * 256 / 10).astype(jnp.int32)
    factor = enhance_factor(level)
    mean = None
    if "contrast" in names:
        contrast = op == names.index("contrast")
        mean = jnp.where(contrast, _mean_luma(words, channels), 0)
    levels = []
    for c in range(channels):
        own = channel(words, c)
        new = own >> dropped << dropped
        solar = jnp.where(own >= threshold, 255 - own, own)
        new = jnp.where(op == names.index("solarize"), solar, new)
        if mean is not None:
            # Brightness draws from black, contrast from the mean.
            enhanced = _blend(mean, own, factor)
            new = jnp.where(op >= names.index("contrast"), enhanced, new)
        if "invert" in names:
            new = jnp.where(op == names.index("invert"), 255 - own, new)
        levels.append(new)
    return join(levels)


def blend(
    names: tuple[str, ...],
    op: jax.Array,
    level: jax.Array,
    words: jax.Array,
    *,
    channels: int,
) -> jax.Array:
    """Pillow's `ImageEnhance.Color` and `Sharpness`; args as `point`.

    Each image is drawn away from its grey version or its smoothed one by
    `enhance_factor`.
    """
    color = (op == names.index("color"))[:, None, None]
    factor = enhance_factor(level)[:, None, None]
    luma = _luma(words, channels)
    base = lambda own: jnp.where(color, luma, _smooth(own))
    levels = [channel(words, c) for c in range(channels)]
    return join([_blend(base(own), own, factor) for own in levels])


def _quotient(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """Integer division, vectorised: exact for numerators from 0 to 2^20.

    The half keeps quotients away from whole numbers, where rounding would show.
    """
    numerator, denominator = (x.astype(jnp.float32) for x in (numerator, denominator))
    quotient = (numerator + 0.5) / denominator
    return quotient.astype(jnp.int32)


def _blend(base: jax.Array, own: jax.Array, factor: jax.Array) -> jax.Array:
    mixed = base.astype(jnp.float32) + factor * (own - base).astype(jnp.float32)
    return jnp.clip(mixed, 0, 255).astype(jnp.int32)


def _luma(words: jax.Array, channels: int) -> jax.Array:
    if channels == 1:
        return channel(words, 0)
    red, green, blue = (channel(words, c) for c in range(3))
    return (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16


def _mean_luma(words: jax.Array, channels: int) -> jax.Array:
    pixels = words.shape[1] * words.shape[2]
    total = jnp.sum(_luma(words, channels), axis=(1, 2), keepdims=True)
    return (total + pixels // 2) // pixels


def _smooth(levels: jax.Array) -> jax.Array:
    """Pillow's SMOOTH: (sum of the 3 x 3 + 4 centre) / 13, rounded; borders kept."""
    _, height, width = levels.shape
    if min(height, width) < 3:
        return levels
    rows = levels[:, :-2] + levels[:, 1:-1] + levels[:, 2:]
    block = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    inner = (2 * (block + 4 * levels[:, 1:-1, 1:-1]) + 13) // 26
    return levels.at[:, 1:-1, 1:-1].set(inner)
