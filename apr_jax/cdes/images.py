"""Densities, ring masks, and images joined of the frequencies of two."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from apr_jax import spectral
from apr_jax.spectral.analysis import centre_distance
from apr_jax.spectral.inputs import min_max


def double_peak(
    bands: int, *, peaks: tuple[float, float] = (0.0, 0.8), sigma: float = 0.16
) -> np.ndarray:
    """The density to reach: two normal densities of equal weight, scaled to [0, 1].

    With the defaults the published one: peaks at bands 0 and 16 of 20, sigma 3.2.

    Args:
        bands: of the density, as in ``spectral.azimuthal_profile``.
        peaks: where they are, as shares of ``bands``.
        sigma: their width, as a share of ``bands``.

    Returns:
        float64 [bands].
    """
    places = np.arange(bands)
    density = sum(stats.norm.pdf(places, p * bands, sigma * bands) for p in peaks)
    return (density - density.min()) / (density.max() - density.min())


def ring_mask(height: int, width: int, low: int, high: int) -> np.ndarray:
    """True where the distance to the spectrum's middle, rounded, is in [low, high).

    bool [H, W], shifted spectrum. The middle is ((H - 1) / 2, (W - 1) / 2), as of the
    density: beside the zero frequency where a side is even.
    """
    ring = np.floor(centre_distance(height, width) + 0.5)
    return (ring >= low) & (ring < high)


def restructure(
    low_from: jax.Array, high_from: jax.Array, *, low: int = 10, high: int = 11
) -> jax.Array:
    """Joins the low frequencies of one image with the high ones of another.

    Args:
        low_from: floating point [..., H, W, C]; gives the rings below ``low``.
        high_from: as ``low_from``; gives the rings from ``high`` on. What lies between
            is dropped, as in the reference.
        low: see ``ring_mask``.
        high: see ``ring_mask``.

    Returns:
        float32 [..., H, W, C], each image and channel scaled to [0, 1].
    """
    height, width = low_from.shape[-3:-1]
    masks = (ring_mask(height, width, *ring) for ring in ((0, low), (high, 10**6)))
    parts = []
    for image, mask in zip((low_from, high_from), masks, strict=True):
        keep = np.fft.ifftshift(mask).astype(np.float32)
        # A mask beside the zero frequency is not symmetric. The real part of what it
        # leaves is what the mean of the mask and its mirror image leaves.
        mirrored = np.roll(keep[::-1, ::-1], (1, 1), (0, 1))
        half = jnp.asarray((keep + mirrored) / 2)[:, : width // 2 + 1]
        planes = jnp.moveaxis(image.astype(jnp.float32), -1, -3)
        spectrum = jnp.fft.rfft2(planes)
        parts.append(spectrum * jnp.broadcast_to(half, spectrum.shape))
    joined = jnp.fft.irfft2(parts[0] + parts[1], (height, width))
    return min_max(jnp.moveaxis(joined, -3, -1), (-3, -2))


def foreign_low(
    images: jax.Array, donors: jax.Array, radius: float = 12.0
) -> jax.Array:
    """HARS images: the low part of another image with one's own high part.

    Args:
        images: pixels [B, H, W, C], which give the high part and the label.
        donors: images that give the low part, as ``images``.
        radius: that parts the two, see ``spectral.radial_mask``.

    Returns:
        Pixels [B, H, W, C], clipped to [0, 1].
    """
    low, _ = spectral.split_bands(donors, radius)
    _, high = spectral.split_bands(images, radius)
    return jnp.clip(low + high, 0.0, 1.0)


def density(images: jax.Array) -> jax.Array:
    """Azimuthal density of each image, scaled to [0, 1]: float32 [..., bands]."""
    return spectral.azimuthal_profile(images)
