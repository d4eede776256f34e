"""Images whose amplitude and phase are each kept in one band of frequencies only."""

import jax
import jax.numpy as jnp

from apr_jax.gates.images import images_gate
from apr_jax.spectral.analysis import radial_mask
from apr_jax.spectral.inputs import as_real, min_max

BANDS = ("full", "low", "intermediate", "high")


def band_mask(
    height: int, width: int, band: str, edges: tuple[float, float]
) -> jax.Array:
    """True in a band of frequencies: bool [H, W], shifted spectrum.

    Args:
        height, width: of the image.
        band: one of ``BANDS``.
        edges: radii in cycles an image, increasing: "low" is nearer to the zero
            frequency than the first, "high" is at least as far as the second, see
            `radial_mask`, and "intermediate" lies between.

    Raises:
        ValueError: an unknown band, or edges that don't increase.
    """
    if band not in BANDS:
        raise ValueError(f"unknown band {band!r}, choose from {BANDS}")
    inner, outer = edges
    if not 0 <= inner <= outer:
        raise ValueError(f"edges must increase from 0 on, got {edges}")
    low = radial_mask(height, width, inner)
    below_high = radial_mask(height, width, outer)
    return {
        "full": jnp.ones((height, width), bool),
        "low": low,
        "intermediate": below_high & ~low,
        "high": ~below_high,
    }[band]


@images_gate("pixels", values="any", rank=None, single=False)
def keep_bands(
    images: jax.Array,
    *,
    amplitude: str,
    phase: str,
    edges: tuple[float, float],
) -> jax.Array:
    """Amplitude in one band, phase in another; elsewhere amplitude 1 and phase 0.

    Outside its band a filter leaves 0, for the amplitude as for the factor
    exp(i phase), and the transfer function of the paper makes 1 of it (Chen et al.,
    ICCV 2021, section 3.1; read as phase 0, since another constant angle would not be
    the phase of a real image). Amplitudes are those of the unscaled two-dimensional
    DFT of each channel.

    Args:
        images: floating point [..., H, W, C], in [0, 1].
        amplitude, phase: bands, see `band_mask`.
        edges: between the bands, see `band_mask`.

    Returns:
        The real part of the inverse DFT, same shape and type; not in [0, 1].

    Raises:
        TypeError: pixels are not floating point.
        ValueError: as `band_mask`, or fewer axes.
    """
    pixels, dtype = as_real(images)
    height, width = pixels.shape[-3:-1]
    masks = [
        jnp.fft.ifftshift(band_mask(height, width, band, edges))
        for band in (amplitude, phase)
    ]
    spectrum = jnp.fft.fft2(jnp.moveaxis(pixels, -1, -3))
    length = jnp.abs(spectrum)
    zero = length == 0
    divisor = jnp.where(zero, 1.0, length).astype(spectrum.dtype)
    unit = jnp.where(zero, 1.0, spectrum / divisor)
    spread = lambda mask: jnp.broadcast_to(mask, spectrum.shape)
    length = jnp.where(spread(masks[0]), length, 1.0)
    unit = jnp.where(spread(masks[1]), unit, 1.0)
    kept = jnp.real(jnp.fft.ifft2(length.astype(unit.dtype) * unit))
    return jnp.moveaxis(kept, -3, -1).astype(dtype)


@images_gate("pixels", values="any", rank=None, single=False)
def stretch(images: jax.Array) -> jax.Array:
    """Each image, all of its channels together, scaled to [0, 1].

    Floating point [..., H, W, C] -> same; a constant image becomes 0.
    """
    pixels, dtype = as_real(images)
    return min_max(pixels, (-3, -2, -1)).astype(dtype)
