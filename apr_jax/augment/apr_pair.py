"""APR-P: the phase of an image with the amplitude of another one (paper, section 4)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from apr_jax import fast_random
from apr_jax.augment.keys import (
    check_per,
    image_coins,
    per_image_keys,
    split_keys,
)
from apr_jax.errors import ArgumentError
from apr_jax.gates import numbers
from apr_jax.gates.images import images_gate
from apr_jax.spectral import recombine, recombine_within

# Folded into keys that a permutation was drawn with, too: no place of an image.
_NOISE = 1 << 30


class Partners(NamedTuple):
    """Each image's partner.

    Attributes:
        pool: [M, H, W, C], the images to be partners.
        order: int [N], places in the pool.
        within: whether the pool is the batch itself.
    """

    pool: jax.Array
    order: jax.Array
    within: bool

    @property
    def images(self) -> jax.Array:
        """The partners themselves, [N, H, W, C]."""
        return jnp.take(self.pool, self.order, axis=0)

    def recombine(
        self, images: jax.Array, axes: Sequence[int], backend: str
    ) -> jax.Array:
        """Each image of the batch with its partner's amplitude."""
        if self.within:
            return recombine_within(images, self.order, axes=axes, backend=backend)
        return recombine(self.images, images, axes=axes, backend=backend)


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
        ValueError: shapes that don't fit.
    """
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
    else:
        donor_index = numbers.indices("donor_index", donor_index, count, len(pool))
    return Partners(pool, donor_index, donors is None)


@images_gate("pixels")
def apr_pair(
    key: jax.Array,
    images: jax.Array,
    *,
    prob: float | jax.Array = 0.6,
    per: str = "batch",
    axes: Sequence[int] = (-3, -2, -1),
    clip: bool = False,
    noise: float = 0.0,
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
        noise: of the donor before its amplitude is taken: normal, of a standard
            deviation that is uniform in [0, `noise`] for each image; the authors have
            none.
        donors: [M, H, W, C], M >= N, another pool to draw donors from, without
            replacement; for instance the batch of all devices.
        donor_index: int [N], which of the pool (or of the batch) is whose donor,
            instead of the random permutation.
        backend: as `recombine`'s.

    Returns:
        [N, H, W, C] of the same type; bit for bit `images` where the coin says no.

    Raises:
        TypeError: pixels are not floating point.
        ValueError: an unknown name, another shape, or noise below nought.
    """
    check_per(per)
    partner_key, coin_key = split_keys(key, 2)
    partners = choose_partners(partner_key, images, donors, donor_index)

    def mix(images: jax.Array) -> jax.Array:
        if not (isinstance(noise, int | float) and noise == 0):
            noised = _with_noise(partner_key, partners.images, noise)
            mixed = recombine(noised, images, axes=axes, backend=backend)
        else:
            mixed = partners.recombine(images, axes, backend)
        return jnp.clip(mixed, 0, 1) if clip else mixed

    return by_chance(coin_key, images, mix, prob=prob, per=per)


def _with_noise(key: jax.Array, images: jax.Array, most: float) -> jax.Array:
    """Images with normal noise, each of a strength of its own, at most ``most``."""
    keys = per_image_keys(key, len(images))
    seeds = fast_random.seeds_of(jax.vmap(jax.random.fold_in, (0, None))(keys, _NOISE))
    strength = most * fast_random.uniform(seeds, (1, 1, 1))
    noise = strength * fast_random.normal(seeds, images.shape[1:], lane=1)
    return (images + noise).astype(images.dtype)


def by_chance(
    key: jax.Array,
    images: jax.Array,
    mix: Callable[[jax.Array], jax.Array],
    *,
    prob: float | jax.Array,
    per: str,
) -> jax.Array:
    """`mix(images)` where a coin says so: one for all, or one for each image."""
    check_per(per)
    if isinstance(prob, int | float) and prob >= 1:
        return mix(images)
    if per == "batch":
        if jnp.ndim(prob):
            raise ArgumentError(
                f"prob has shape {jnp.shape(prob)}, one for each image, which is for "
                "per='image'"
            )
        # Only one side is computed, so that a lost coin costs no transform.
        coin = jax.random.bernoulli(key, prob)
        return jax.lax.cond(coin, mix, lambda images: images, images)
    coin = image_coins(key, len(images), prob)
    return jnp.where(coin[:, None, None, None], mix(images), images)


def pair_coin(
    key: jax.Array, count: int, *, prob: float | jax.Array, per: str
) -> jax.Array:
    """The ones of ``count`` images that `apr_pair` mixes with a key: bool [count]."""
    coin_key = split_keys(key, 2)[1]
    if per == "batch":
        return jnp.broadcast_to(jax.random.bernoulli(coin_key, prob), (count,))
    return image_coins(coin_key, count, prob)
