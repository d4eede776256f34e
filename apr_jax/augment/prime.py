"""PRIME: chains of random deformations, colour curves and filters, mixed as in AugMix.

Modas et al., "PRIME: A Few Primitives Can Boost Robustness to Common Corruptions", ECCV
2022; the primitives are in `prime_primitives.py`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from apr_jax.augment import prime_primitives
from apr_jax.augment.apr_single import chunk_size
from apr_jax.augment.augmix import draw_mixture, mix_chains
from apr_jax.augment.keys import per_image_keys
from apr_jax.augment.packed import update_rows
from apr_jax.gates.images import images_gate

PRIMITIVES = ("deform", "recolour", "filter")


class Chains(NamedTuple):
    """The draws of `prime` for N images, W chains each, of up to D primitives.

    Attributes:
        weight: float32 [N, W], of the chains, summing to 1.
        blend: float32 [N], the chains' share; the rest is the image's own.
        depth: int32 [N, W], primitives in each chain, 1 to D.
        kind: int32 [N, W, D], places in `PRIMITIVES`.
        keys: typed keys [N, W, D], of each primitive's own draws.
    """

    weight: jax.Array
    blend: jax.Array
    depth: jax.Array
    kind: jax.Array
    keys: jax.Array


@images_gate("pixels")
def prime(
    key: jax.Array,
    images: jax.Array,
    *,
    width: int = 3,
    depth: int = 3,
    deform_cut: int = 100,
    colour_cut: int = 100,
    colour_scale: float = 0.01,
    colour_band: int | None = None,
    filter_size: int = 3,
    filter_sigma: float = 4.0,
    chunk: int | str = "auto",
) -> jax.Array:
    """(1 - m) x + m sum_i w_i chain_i(x), for each image by itself.

    w is uniform on the simplex and m on [0, 1]; each chain has 1 to `depth` primitives,
    each of them a deformation, a colour curve or a filter with equal probability.
    Defaults are the released ones for CIFAR; for ImageNet `deform_cut` and `colour_cut`
    are 500, `colour_scale` 0.05 and `colour_band` 20.

    Departures from the released code: every image has its own deformation, strengths
    and cut-offs, where all of a batch share them there; filters vary around a centred
    identity, where a rounding moves it by a pixel there.

    Args:
        key: one key, or one per image [N].
        images: floating point [N, H, W, C] in [0, 1].
        width: number of chains.
        depth: most primitives of a chain.
        deform_cut: as `primitives.draw_field`'s `cut`.
        colour_cut, colour_scale, colour_band: as `primitives.draw_curve`'s.
        filter_size, filter_sigma: as `primitives.draw_filter`'s.
        chunk: as `apr_single`'s.

    Returns:
        [N, H, W, C] in [0, 1], of the same type.

    Raises:
        TypeError: pixels are not floating point.
        ValueError: another shape, a wrong number of keys, or a number out of range.
    """
    count, height, breadth, channels = images.shape
    drawn = draw_chains(key, count, width=width, depth=depth)

    # How each of `PRIMITIVES` is drawn for an image, and applied to it.
    pairs: list[tuple[Callable[..., Any], Callable[..., jax.Array]]] = [
        (
            lambda k: prime_primitives.draw_field(k, height, breadth, cut=deform_cut),
            prime_primitives.deform,
        ),
        (
            lambda k: prime_primitives.draw_curve(
                k, channels, cut=colour_cut, scale=colour_scale, band=colour_band
            ),
            prime_primitives.recolour,
        ),
        (
            lambda k: prime_primitives.draw_filter(k, filter_size, sigma=filter_sigma),
            prime_primitives.convolve,
        ),
    ]
    functions = [
        lambda rows, keys, draw=draw, apply=apply: jax.vmap(apply)(
            rows, jax.vmap(draw)(keys)
        )
        for draw, apply in pairs
    ]
    at_once = chunk_size(chunk, height, breadth)

    def advance(
        rows: jax.Array, step: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, None]:
        kind, keys = step
        return update_rows(kind, functions, rows, keys, chunk=at_once), None

    # Past a chain's end the image stays as it is.
    active = jnp.arange(depth)[None, None] < drawn.depth[..., None]
    kind = jnp.where(active, drawn.kind, len(PRIMITIVES)).reshape(-1, depth)
    pixels = images.astype(jnp.float32)
    rows, _ = jax.lax.scan(
        advance,
        jnp.repeat(pixels, width, axis=0),
        (kind.T, drawn.keys.reshape(-1, depth).T),
    )
    chains = rows.reshape(count, width, height, breadth, channels)
    mixed = mix_chains(pixels, chains, drawn.weight, drawn.blend)
    return mixed.astype(images.dtype)


def draw_chains(key: jax.Array, count: int, *, width: int, depth: int) -> Chains:
    """The draws of `prime`, with its arguments."""

    def draw(key: jax.Array) -> Chains:
        mix_key, depth_key, kind_key, own_key = jax.random.split(key, 4)
        weight, blend = draw_mixture(mix_key, width=width, alpha=1.0)
        return Chains(
            weight,
            blend,
            jax.random.randint(depth_key, (width,), 1, depth + 1),
            jax.random.randint(kind_key, (width, depth), 0, len(PRIMITIVES)),
            jax.random.split(own_key, (width, depth)),
        )

    return jax.vmap(draw)(per_image_keys(key, count))
