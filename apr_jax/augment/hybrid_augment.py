"""HybridAugment and HybridAugment++: low frequencies of one image, high of another.

Yucel, Cinbis & Duygulu, "HybridAugment++: Unified Frequency Spectra Perturbations for
Model Robustness", ICCV 2023. The label is that of the low frequencies.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from apr_jax.augment.apr_pair import Partners, apr_pair, by_chance, choose_partners
from apr_jax.augment.apr_single import apr_single, round_levels, to_levels, two_versions
from apr_jax.augment.keys import per_image_keys, split_keys
from apr_jax.gates.images import images_gate
from apr_jax.spectral import split_bands

LOW = ("gaussian", "radial")


@images_gate("pixels", values="finite", rank=None)
def low_part(
    images: jax.Array,
    *,
    low: str = "gaussian",
    kernel: int = 3,
    sigma: float = 0.5,
    radius: float = 12.0,
) -> jax.Array:
    """The low frequencies of each image: floating point [..., H, W, C] -> same.

    Args:
        images: of any range; the result's mean is theirs (up to the border for a blur).
        low: "gaussian" blurs, as the paper does; "radial" keeps the frequencies within
            `radius`, as `spectral.split_bands` does.
        kernel: side of the blur in pixels, odd, with the border mirrored about its
            outermost pixels; 3 in the paper's CIFAR runs.
        sigma: of the blur in pixels, positive; 0.5 there.
        radius: of the mask.

    Raises:
        TypeError: pixels are not floating point.
        ValueError: an unknown name, or a kernel that is even or too large.
    """
    if low not in LOW:
        raise ValueError(f"unknown low {low!r}, choose from {LOW}")
    if low == "radial":
        return split_bands(images, radius)[0]
    reach = kernel // 2
    if kernel % 2 == 0 or reach >= min(images.shape[-3:-1]) or sigma <= 0:
        raise ValueError(
            "the blur needs an odd kernel, no larger than the image, and a positive "
            f"sigma, got {kernel} and {sigma} for {images.shape}"
        )
    offsets = jnp.arange(-reach, reach + 1, dtype=jnp.float32)
    taps = jax.nn.softmax(-0.5 * (offsets / sigma) ** 2).astype(images.dtype)
    # The barriers keep the steps apart: fused, a CPU pads and sums the first axis anew
    # for each tap of the second.
    apart = jax.lax.optimization_barrier
    for axis in (images.ndim - 3, images.ndim - 2):
        sides = [(0, 0)] * images.ndim
        sides[axis] = (reach, reach)
        padded = apart(jnp.pad(images, sides, mode="reflect"))
        count = images.shape[axis]
        images = apart(
            sum(
                taps[i] * jax.lax.slice_in_dim(padded, i, i + count, axis=axis)
                for i in range(kernel)
            )
        )
    return images


@images_gate("pixels")
def hybrid_augment(
    key: jax.Array,
    images: jax.Array,
    *,
    prob: float | jax.Array = 0.6,
    per: str = "batch",
    low: str = "gaussian",
    kernel: int = 3,
    sigma: float = 0.5,
    radius: float = 12.0,
    clip: bool = False,
    donors: jax.Array | None = None,
    donor_index: jax.Array | None = None,
) -> jax.Array:
    """HybridAugment-P: own low frequencies and a shuffled donor's high ones.

    Args:
        key, prob, per, clip, donors, donor_index: as `apr_pair`'s.
        images: floating point [N, H, W, C] in [0, 1].
        low, kernel, sigma, radius: as `low_part`'s.

    Returns:
        [N, H, W, C] of the same type; bit for bit `images` where the coin says no.

    Raises:
        TypeError, ValueError: as `apr_pair` and `low_part`.
    """
    low_pass = functools.partial(
        low_part, low=low, kernel=kernel, sigma=sigma, radius=radius
    )
    partner_key, coin_key = split_keys(key, 2)
    partners = choose_partners(partner_key, images, donors, donor_index)

    def mix(images: jax.Array) -> jax.Array:
        own, high = _bands(images, partners, low_pass)
        mixed = own + high
        return jnp.clip(mixed, 0, 1) if clip else mixed

    return by_chance(coin_key, images, mix, prob=prob, per=per)


@images_gate("pixels")
def hybrid_augment_pp(
    key: jax.Array,
    images: jax.Array,
    *,
    prob: float | jax.Array = 0.6,
    pair_prob: float | jax.Array = 0.6,
    per: str = "batch",
    low: str = "gaussian",
    kernel: int = 3,
    sigma: float = 0.5,
    radius: float = 12.0,
    axes: Sequence[int] = (-3, -2, -1),
    clip: bool = False,
    donors: jax.Array | None = None,
    donor_index: jax.Array | None = None,
    amplitude_index: jax.Array | None = None,
    backend: str = "auto",
) -> jax.Array:
    """HybridAugment++-P: as `hybrid_augment`, with APR-P inside the low part.

    The low part keeps its phase and by chance, a coin of its own, takes the amplitude
    of another image's low part; the high part comes from a third image.

    Args:
        key: as `apr_pair`'s.
        images: floating point [N, H, W, C] in [0, 1].
        prob: probability of any change.
        pair_prob: probability of APR-P inside it.
        amplitude_index: int [N], whose low part gives the amplitude, as `donor_index`
            says whose high part is taken.
        per, clip, donors, donor_index, axes, backend: as `apr_pair`'s.
        low, kernel, sigma, radius: as `low_part`'s.

    Returns, raises: as `hybrid_augment`.
    """
    low_pass = functools.partial(
        low_part, low=low, kernel=kernel, sigma=sigma, radius=radius
    )
    partner_key, coin_key, pair_key = split_keys(key, 3)
    partners = choose_partners(partner_key, images, donors, donor_index)

    def mix(images: jax.Array) -> jax.Array:
        own, high = _bands(images, partners, low_pass)
        mixed = high + apr_pair(
            pair_key,
            own,
            prob=pair_prob,
            per=per,
            axes=axes,
            donors=None if partners.within else low_pass(partners.pool),
            donor_index=amplitude_index,
            backend=backend,
        )
        return jnp.clip(mixed, 0, 1) if clip else mixed

    return by_chance(coin_key, images, mix, prob=prob, per=per)


@images_gate("either", rounds=True)
def hybrid_augment_single(
    key: jax.Array,
    images: jax.Array,
    *,
    prob: float | jax.Array = 0.5,
    plus: bool = False,
    level: float | jax.Array = 3.0,
    ops: str = "base",
    low: str = "gaussian",
    kernel: int = 3,
    sigma: float = 0.5,
    radius: float = 12.0,
    chunk: int | str = "auto",
) -> jax.Array:
    """HybridAugment-S, or HybridAugment++-S: bands of two versions of the same image.

    As in APR-S one operation is always applied, and with probability `prob` a second
    one on top; then a fair coin picks which of the two gives the low frequencies, the
    other the high ones. With `plus` the low part, as 8-bit levels, goes through APR-S.
    Departures from the released code: the result is clipped and rounded, where a cast
    truncates and wraps there, and the last coin is fair whatever `prob` is (they are
    the same in the paper).

    Args:
        key: one key, or one per image [N].
        images, level, ops, chunk: as `apr_single`'s.
        prob: probability of the second operation and the mixing.
        plus: HybridAugment++ instead of HybridAugment.
        low, kernel, sigma, radius: as `low_part`'s.

    Returns:
        [N, H, W, C] of the same type.

    Raises:
        TypeError, ValueError: as `apr_single` and `low_part`.
    """
    low_pass = functools.partial(
        low_part, low=low, kernel=kernel, sigma=sigma, radius=radius
    )
    versions = two_versions(
        key, to_levels(images), prob=prob, level=level, ops=ops, chunk=chunk
    )
    rest = versions.second.astype(jnp.float32)
    high = rest - low_pass(rest)
    own = low_pass(versions.first.astype(jnp.float32))
    if plus:
        inner = apr_single(
            inner_keys(key, len(images)),
            round_levels(own),
            prob=0.5,
            level=level,
            ops=ops,
            chunk=chunk,
        )
        own = inner.astype(jnp.float32)
    return versions.or_once(round_levels(own + high), images.dtype)


def inner_keys(key: jax.Array, count: int) -> jax.Array:
    """The keys of APR-S inside HybridAugment++-S, one per image [N]."""
    keys = per_image_keys(key, count)
    return jax.vmap(jax.random.fold_in, (0, None))(keys, 1)


def _bands(
    images: jax.Array, partners: Partners, low_pass: Callable[[jax.Array], jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Each image's own low part, and its partner's high part."""
    own = low_pass(images)
    if partners.within:
        return own, jnp.take(images - own, partners.order, axis=0)
    return own, partners.images - low_pass(partners.images)
