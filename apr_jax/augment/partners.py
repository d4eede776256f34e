"""Which image of a batch, or of another pool, is mixed with which."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

PER = ("batch", "image")


class Partners(NamedTuple):
    """Each image's partner: the pool [M, H, W, C] and int [N], the places in it."""

    pool: jax.Array
    order: jax.Array

    @property
    def images(self) -> jax.Array:
        """The partners themselves, [N, H, W, C]."""
        return jnp.take(self.pool, self.order, axis=0)


def check_pixels(images: jax.Array) -> None:
    """TypeError where pixels are not floating point, ValueError for another shape."""
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(
            f"images must be floating point in [0, 1], got {images.dtype}: for uint8 "
            "pass images.astype(jnp.float32) / 255"
        )
    if images.ndim != 4:
        raise ValueError(f"images must be [N, H, W, C], got shape {images.shape}")


def check_per(per: str) -> None:
    """ValueError where it is none of `PER`."""
    if per not in PER:
        raise ValueError(f"unknown per {per!r}, choose from {PER}")


def choose_partners(
    key: jax.Array,
    images: jax.Array,
    donors: jax.Array | None = None,
    donor_index: jax.Array | None = None,
) -> Partners:
    """A partner for every image of a batch.

    Args:
        key: one key.
        images: floating point [N, H, W, C].
        donors: [M, H, W, C], M >= N, another pool than the batch itself.
        donor_index: int [N], places in the pool, instead of a random permutation.

    Raises:
        TypeError, ValueError: as `check_pixels`, and for shapes that don't fit.
    """
    check_pixels(images)
    pool = images if donors is None else donors.astype(images.dtype)
    count = images.shape[0]
    if pool.shape[1:] != images.shape[1:]:
        raise ValueError(
            f"donors must be [M, {', '.join(map(str, images.shape[1:]))}], "
            f"got {pool.shape}"
        )
    if donor_index is None:
        if pool.shape[0] < count:
            raise ValueError(f"{count} images need as many donors, got {pool.shape[0]}")
        donor_index = jax.random.permutation(key, pool.shape[0])[:count]
    elif donor_index.shape != (count,):
        raise ValueError(
            f"donor_index must be [{count}], got shape {donor_index.shape}"
        )
    return Partners(pool, donor_index)
