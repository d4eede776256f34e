"""APR-P: the phase of an image with the amplitude of another one (paper, section 4)."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from apr_jax.augment.keys import image_coins, split_keys
from apr_jax.spectral import recombine, recombine_within

PER = ("batch", "image")


def apr_pair(
    key: jax.Array,
    images: jax.Array,
    *,
    prob: float | jax.Array = 0.6,
    per: str = "batch",
    axes: Sequence[int] = (-3, -2, -1),
    clip: bool = False,
    donors: jax.Array | None = None,
    donor_index: jax.Array | None = None,
    backend: str = "auto",
) -> jax.Array:
    """Images with their own phase and, by chance, the amplitude of a shuffled donor.

    The label stays that of the phase, the image's own. Donors are a random permutation
    of the batch; an image may meet itself and then stays as it is, up to rounding.

    Args:
        key: one key; or one per image [N], which then decide on the coins, for `per`
            "image" and a `donor_index`.
        images: floating point [N, H, W, C] in [0, 1].
        prob: probability of mixing; 0.6 on CIFAR, 0.5 on ImageNet, 0.16 in adversarial
            training.
        per: "batch" throws one coin for all, as the authors do; "image" one for each.
        axes: of the DFT, as `recombine`'s.
        clip: clip what was mixed to [0, 1]; the authors don't.
        donors: [M, H, W, C], M >= N, another pool to draw donors from, without
            replacement; for instance the batch of all devices.
        donor_index: int [N], which of the pool (or of the batch) is whose donor,
            instead of the random permutation.
        backend: as `recombine`'s.

    Returns:
        [N, H, W, C] of the same type; bit for bit `images` where the coin says no.

    Raises:
        TypeError: pixels are not floating point.
        ValueError: an unknown name or another shape.
    """
    if per not in PER:
        raise ValueError(f"unknown per {per!r}, choose from {PER}")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(
            f"images must be floating point in [0, 1], got {images.dtype}: for uint8 "
            "pass images.astype(jnp.float32) / 255"
        )
    if images.ndim != 4:
        raise ValueError(f"images must be [N, H, W, C], got shape {images.shape}")
    pool = images if donors is None else donors
    count = images.shape[0]
    if pool.shape[1:] != images.shape[1:]:
        raise ValueError(
            f"donors must be [M, {', '.join(map(str, images.shape[1:]))}], "
            f"got {pool.shape}"
        )
    donor_key = split_keys(key, 2)[0]
    if donor_index is None:
        if pool.shape[0] < count:
            raise ValueError(f"{count} images need as many donors, got {pool.shape[0]}")
        donor_index = jax.random.permutation(donor_key, pool.shape[0])[:count]
    elif donor_index.shape != (count,):
        raise ValueError(
            f"donor_index must be [{count}], got shape {donor_index.shape}"
        )

    def mix(images: jax.Array) -> jax.Array:
        knobs: dict[str, Any] = {"axes": axes, "backend": backend}
        if donors is None:
            mixed = recombine_within(images, donor_index, **knobs)
        else:
            chosen = jnp.take(donors, donor_index, axis=0).astype(images.dtype)
            mixed = recombine(chosen, images, **knobs)
        return jnp.clip(mixed, 0, 1) if clip else mixed

    if isinstance(prob, int | float) and prob >= 1:
        return mix(images)
    coin = pair_coin(key, count, prob=prob, per=per)
    if per == "batch":
        # Only one side is computed, so that a lost coin costs no transform.
        return jax.lax.cond(coin[0], mix, lambda images: images, images)
    return jnp.where(coin[:, None, None, None], mix(images), images)


def pair_coin(
    key: jax.Array, count: int, *, prob: float | jax.Array, per: str
) -> jax.Array:
    """Which of ``count`` images `apr_pair` mixes with the same key: bool [count]."""
    coin_key = split_keys(key, 2)[1]
    if per == "batch":
        return jnp.broadcast_to(jax.random.bernoulli(coin_key, prob), (count,))
    return image_coins(coin_key, count, prob)
