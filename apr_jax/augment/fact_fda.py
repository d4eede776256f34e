"""Amplitudes of two images mixed, phases kept: amplitude mixup and low-band swap.

With the phase fixed an image is linear in its amplitude, so both are made of the image
and of its recombination with the partner.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from apr_jax.augment.apr_pair import choose_partners
from apr_jax.augment.keys import draw_per, split_keys
from apr_jax.augment.mixup_cutmix import draw_weights
from apr_jax.gates import numbers
from apr_jax.gates.images import images_gate
from apr_jax.spectral import filter_bands, square_mask


@images_gate("pixels", rules={"strength": numbers.between(0, 1)})
def amplitude_mix(
    key: jax.Array,
    images: jax.Array,
    *,
    strength: float | jax.Array = 1.0,
    alpha: float = 1.0,
    per: str = "image",
    axes: Sequence[int] = (-3, -2),
    clip: bool = False,
    donors: jax.Array | None = None,
    donor_index: jax.Array | None = None,
    backend: str = "auto",
) -> jax.Array:
    """Amplitude (1 - w) A(x) + w A(x') and the phase of x, w random in [0, strength].

    Xu et al., "A Fourier-based Framework for Domain Generalization" (FACT), CVPR 2021.
    The label is the image's own. FACT trains on the mixed images beside the
    originals, and on both directions of every pair; its teacher, a moving average of
    the network that answers should be like, belongs to the training and is left out.

    Args:
        key: one key; or one per image [N] with `per` "image" and a `donor_index`.
        images: floating point [N, H, W, C] in [0, 1].
        strength: largest share of the partner's amplitude, FACT's eta (1 or 0.2).
        alpha: positive; w is `strength` times a number from Beta(alpha, alpha), which
            is uniform for 1, FACT's.
        per: "image" draws a weight for each image as FACT does, "batch" one for all.
        axes: of the DFT, as `recombine`'s; FACT transforms each channel by itself.
        clip: clip to [0, 1], as FACT does.
        donors, donor_index, backend: as `apr_pair`'s.

    Returns:
        [N, H, W, C] of the same type.

    Raises:
        TypeError, ValueError: as `apr_pair`, and for an alpha that isn't positive.
    """
    partner_key, weight_key = split_keys(key, 2)
    partners = choose_partners(partner_key, images, donors, donor_index)
    weight = draw_shares(
        weight_key, len(images), strength=strength, alpha=alpha, per=per
    )
    weight = weight.astype(images.dtype)[:, None, None, None]
    other = partners.recombine(images, axes, backend)
    mixed = (1 - weight) * images + weight * other
    return jnp.clip(mixed, 0, 1) if clip else mixed


@images_gate("pixels", rules={"beta": numbers.between(0, 0.5)})
def low_amplitude_swap(
    key: jax.Array,
    images: jax.Array,
    *,
    beta: float = 0.09,
    axes: Sequence[int] = (-3, -2),
    clip: bool = False,
    donors: jax.Array | None = None,
    donor_index: jax.Array | None = None,
    backend: str = "auto",
) -> jax.Array:
    """The partner's amplitude in a square of low frequencies, the own one elsewhere.

    Yang & Soatto, "FDA: Fourier Domain Adaptation for Semantic Segmentation", CVPR
    2020. The square reaches floor(beta min(H, W)) frequencies from
    zero in each direction. The phase and the label are the image's own.

    Args:
        key: one key.
        images: floating point [N, H, W, C] in [0, 1].
        beta: half the square's side over the image's shorter one, in [0, 0.5]; the
            paper takes 0.01, 0.05 and 0.09 for large pictures. At 32 pixels less than
            1/32 swaps the mean alone.
        axes: as `amplitude_mix`'s; over three axes the square covers every frequency
            of the channel axis.
        clip, donors, donor_index, backend: as `apr_pair`'s.

    Returns:
        [N, H, W, C] of the same type.

    Raises:
        TypeError, ValueError: as `apr_pair`, and for beta out of range.
    """
    partners = choose_partners(key, images, donors, donor_index)
    height, width = images.shape[1:3]
    mask = square_mask(height, width, int(beta * min(height, width)))
    other = partners.recombine(images, axes, backend)
    mixed = images + filter_bands(other - images, mask)
    return jnp.clip(mixed, 0, 1) if clip else mixed


def draw_shares(
    key: jax.Array,
    count: int,
    *,
    strength: float | jax.Array,
    alpha: float = 1.0,
    per: str,
) -> jax.Array:
    """Up to ``strength``, by Beta(alpha, alpha): float32 [N], one for all a "batch"."""
    if isinstance(alpha, int | float) and alpha == 1:
        return strength * draw_per(jax.random.uniform, key, count, per)
    return strength * draw_weights(key, count, alpha=alpha, per=per)
