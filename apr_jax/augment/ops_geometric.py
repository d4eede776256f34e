"""Rotation, shear and translation as one affine warp, to Pillow's conventions."""

import jax
import jax.numpy as jnp

from apr_jax.augment.packed import channel, join, pixels_at

GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


def affine_matrices(
    names: tuple[str, ...],
    op: jax.Array,
    level: jax.Array,
    negate: jax.Array,
    *,
    height: int,
    width: int,
) -> jax.Array:
    """Six numbers per image that map output to input pixel centres.

    x_in = m0 x + m1 y + m2 and y_in = m3 x + m4 y + m5, all counted from the image's
    centre. Strengths as in AugMix: int(3 level) degrees, 0.03 level shear (about the
    top left corner), int(level size / 30) pixels; the sign is `negate`'s.

    Args:
        names: what the numbers in `op` stand for.
        op, level, negate: int, float and bool [N].

    Returns:
        float32 [N, 6]; the identity where `op` is none of `GEOMETRIC`.
    """
    sign = jnp.where(negate, -1.0, 1.0)

    def chosen(name: str, value: jax.Array) -> jax.Array:
        here = op == names.index(name) if name in names else jnp.zeros_like(negate)
        return jnp.where(here, sign * value, 0.0)

    angle = -jnp.deg2rad(chosen("rotate", jnp.floor(level * 30 / 10)))
    shear_x = chosen("shear_x", level * 0.3 / 10)
    shear_y = chosen("shear_y", level * 0.3 / 10)
    move_x = chosen("translate_x", jnp.floor(level * (width / 3) / 10))
    move_y = chosen("translate_y", jnp.floor(level * (height / 3) / 10))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack(
        [
            cos,
            sin + shear_x,
            move_x + shear_x * (height / 2),
            shear_y - sin,
            cos,
            move_y + shear_y * (width / 2),
        ],
        axis=1,
    )


def warp(words: jax.Array, matrices: jax.Array, *, channels: int) -> jax.Array:
    """Each image at the pixels its matrix points to: bilinear, black outside.

    As Pillow's `Image.transform(AFFINE, BILINEAR)`: a pixel whose centre comes from
    outside is black, the last half pixel inside repeats the edge, and levels are
    truncated. Pillow computes in float64, so a level may differ by one.

    Args:
        words: packed uint32 [N, H, W].
        matrices: of `affine_matrices`, [N, 6].
    """
    _, height, width = words.shape
    x, y = (jnp.arange(s, dtype=jnp.float32) + 0.5 - s / 2 for s in (width, height))
    x, y = x[None, None, :], y[None, :, None]
    m = [matrices[:, i, None, None] for i in range(6)]
    x_in = m[0] * x + m[1] * y + m[2] + width / 2
    y_in = m[3] * x + m[4] * y + m[5] + height / 2
    inside = (x_in >= 0) & (x_in < width) & (y_in >= 0) & (y_in < height)
    left, top = jnp.floor(x_in - 0.5), jnp.floor(y_in - 0.5)
    right_weight, lower_weight = x_in - 0.5 - left, y_in - 0.5 - top
    columns = [jnp.clip(left + d, 0, width - 1).astype(jnp.int32) for d in (0, 1)]
    rows = [jnp.clip(top + d, 0, height - 1).astype(jnp.int32) for d in (0, 1)]
    near = [word for (word,) in pixels_at([words], rows, columns)]
    levels = []
    for index in range(channels):
        a, b, c, d = (channel(word, index).astype(jnp.float32) for word in near)
        upper = a + (b - a) * right_weight
        lower = c + (d - c) * right_weight
        levels.append((upper + (lower - upper) * lower_weight).astype(jnp.int32))
    return jnp.where(inside, join(levels), jnp.uint32(0))
