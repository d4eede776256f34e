"""Amplitude, phase, frequency bands, basis images and radial profiles."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax.gates.images import images_gate
from apr_jax.spectral import dft
from apr_jax.spectral.inputs import (
    as_real,
    at_unit_scale,
    channels_of,
    check_axes,
    float_dtype,
    image_shape,
    magnitude,
    min_max,
    wave_turns,
    weighted_sum,
)

CHANNELS = ("luma", "sum")

# More than any amplitude of pixels or grey levels.
_LARGEST_AMPLITUDE = 1e9

# ITU-R BT.601 weights, to the four digits that the reference code uses.
LUMA = (0.2989, 0.5870, 0.1140)


@images_gate("pixels", values="any", rank=None, single=False)
def amplitude(images: jax.Array, *, axes: Sequence[int] = (-3, -2, -1)) -> jax.Array:
    """|F|, the full unshifted spectrum: [..., H, W, C] float -> same, non-negative.

    The gradient at a zero is 0. Raises as `recombine` does.
    """
    return magnitude(_spectrum(images, axes)).astype(images.dtype)


@images_gate("pixels", values="any", rank=None, single=False)
def phase(images: jax.Array, *, axes: Sequence[int] = (-3, -2, -1)) -> jax.Array:
    """Angle of F in [-pi, pi], full unshifted spectrum; 0 where F is zero.

    [..., H, W, C] float -> same. The gradient at a zero is 0. Raises as `recombine`.
    """
    (re, im), _, _ = at_unit_scale(_spectrum(images, axes))
    return jnp.arctan2(im, re).astype(images.dtype)


def radial_mask(height: int, width: int, radius: float | jax.Array) -> jax.Array:
    """True within `radius` of the zero frequency: bool [H, W], shifted spectrum.

    The zero frequency sits at (H // 2, W // 2), where fftshift puts it; the distance is
    strictly smaller than `radius` (HFC, CVPR 2020).
    """
    rows = jnp.arange(height)[:, None] - height // 2
    columns = jnp.arange(width)[None, :] - width // 2
    return jnp.hypot(*(x.astype(jnp.float32) for x in (rows, columns))) < radius


def square_mask(height: int, width: int, reach: int) -> jax.Array:
    """True up to `reach` rows and columns from the zero frequency: bool [H, W].

    The spectrum is shifted as `radial_mask`'s, the border included (FDA, CVPR 2020).
    """
    rows = jnp.abs(jnp.arange(height) - height // 2)[:, None] <= reach
    return rows & (jnp.abs(jnp.arange(width) - width // 2)[None, :] <= reach)


@images_gate("pixels", values="any", rank=None, single=False)
def split_bands(
    images: jax.Array, radius: float | jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Low and high part of each channel: float [..., H, W, C] -> two of the same.

    The low part keeps the frequencies of `radial_mask`, the high part is the rest:
    low + high = images. Neither is clipped. Raises as `recombine` does.
    """
    pixels, dtype = as_real(images)
    height, width = pixels.shape[-3:-1]
    low = filter_bands(pixels, radial_mask(height, width, radius))
    return low.astype(dtype), (pixels - low).astype(dtype)


@images_gate("pixels", values="any", rank=None, single=False)
def filter_bands(images: jax.Array, mask: jax.Array) -> jax.Array:
    """The frequencies of each channel that a mask keeps: [..., H, W, C] -> same.

    Args:
        images: floating point, of any range; nothing is clipped.
        mask: [H, W], of the shifted spectrum, the same for a frequency and its
            negative, so that the result is real: bool, or the factor of each frequency.

    Raises:
        TypeError, ValueError: as `recombine`, and for a mask of another shape.
    """
    pixels, dtype = as_real(images)
    height, width = pixels.shape[-3:-1]
    if mask.shape != (height, width):
        raise ValueError(f"mask must be [{height}, {width}], got shape {mask.shape}")
    half = jnp.fft.ifftshift(mask)[:, : width // 2 + 1]

    def filtered(plane: jax.Array) -> jax.Array:
        spectrum = jnp.fft.rfft2(plane)
        factors = jnp.broadcast_to(half, spectrum.shape)
        if half.dtype == bool:
            kept = jnp.where(factors, spectrum, 0)
        else:
            kept = spectrum * factors.astype(spectrum.dtype)
        return jnp.fft.irfft2(kept, (height, width))

    # Plane by plane: behind a transposition XLA's FFT on a CPU may get a layout that
    # it refuses, on a mesh with JAX 0.10.
    planes = [filtered(plane) for plane in channels_of(pixels)]
    return jnp.stack(planes, axis=-1).astype(dtype)


def fourier_basis(
    height: int, width: int, i: int | jax.Array, j: int | jax.Array
) -> jax.Array:
    """The unit-L2 image whose only frequencies are (i, j) and (-i, -j): float32 [H, W].

    Row `i` and column `j` of the unshifted spectrum, any integers (taken modulo H and
    W), traced ones too. The same image as the normalised inverse real DFT of a one
    there (Yin et al. 2019).
    """
    wave = jnp.cos(2 * jnp.pi * wave_turns(height, width, i, j))
    return (wave / jnp.sqrt(jnp.sum(wave * wave))).astype(jnp.float32)


@images_gate("pixels", values="any", rank=None, single=False)
def azimuthal_profile(
    images: jax.Array,
    *,
    channels: str = "luma",
    log: bool = True,
    normalise: bool = True,
) -> jax.Array:
    """Mean spectral amplitude over rings of unit width, from low to high frequency.

    With the defaults the azimuthal density of CDES (IJCAI 2022): luma, 20 log(1 + |F|),
    ring means, scaled to [0, 1] per image. Differentiable.

    Args:
        images: floating point [..., H, W, C].
        channels: "luma" weighs R, G, B by `LUMA` (one channel is taken as it is); "sum"
            adds the channels, for input gradients.
        log: 20 log(1 + |F|) instead of |F|.
        normalise: scale each profile to [0, 1]; a constant one becomes 0.

    Returns:
        float32 [..., K], ring k holding the frequencies at distance [k + 1, k + 2) from
        the centre ((H - 1) / 2, (W - 1) / 2) of the shifted spectrum. The innermost
        disk and the outermost ring are left out, as in the reference: 20 for 32 x 32.

    Raises:
        TypeError: pixels are not floating point.
        ValueError: unknown `channels`, or "luma" of neither 1 nor 3 channels, or an
            image too small for a ring.
    """
    images = jnp.asarray(images)
    float_dtype(images, "images")
    if channels not in CHANNELS:
        raise ValueError(f"unknown channels {channels!r}, choose from {CHANNELS}")
    height, width, count = image_shape(images)
    if channels == "luma" and count not in (1, 3):
        raise ValueError(f'channels="luma" needs 1 or 3 channels, got {count}')
    weights = LUMA if channels == "luma" and count == 3 else (1.0,) * count
    grey = weighted_sum(channels_of(images.astype(jnp.float32)), weights)
    values = magnitude(dft.BACKENDS["fft"].forward_real(grey))
    level: float | jax.Array = 0.0
    if log:
        values, level = _decibels(values)
    ring, sizes = _rings(height, width)
    flat = jnp.moveaxis(values.reshape(*values.shape[:-2], -1), -1, 0)
    sums = jax.ops.segment_sum(flat, jnp.asarray(ring), num_segments=len(sizes) + 2)
    profile = jnp.moveaxis(sums[1:-1], 0, -1)
    sizes_like = jnp.broadcast_to(jnp.asarray(sizes, jnp.float32), profile.shape)
    profile = profile / sizes_like
    return min_max(profile, -1) if normalise else profile + level


def _decibels(values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """20 log(1 + v) of [..., H, W] less a level [..., 1], and that level.

    The level is 0 but for values so large that float32 would not tell their logarithms
    apart finely enough.
    """
    largest = jnp.max(values, axis=(-2, -1), keepdims=True)
    base = jax.lax.stop_gradient(jnp.where(largest > _LARGEST_AMPLITUDE, largest, 1.0))
    huge = jnp.log(1 / base + values / base)
    less = 20 * jnp.where(base > 1, huge, jnp.log1p(values))
    return less, 20 * jnp.log(base[..., 0])


def centre_distance(height: int, width: int) -> np.ndarray:
    """Distance from the middle, ((H - 1) / 2, (W - 1) / 2): float64 [H, W]."""
    rows = np.arange(height)[:, None] - (height - 1) / 2
    columns = np.arange(width)[None, :] - (width - 1) / 2
    return np.hypot(rows, columns)


def _rings(height: int, width: int) -> tuple[np.ndarray, list[int]]:
    """Ring number of each unshifted frequency, and the sizes of the rings in use."""
    ring = centre_distance(height, width).astype(np.int32)
    sizes = np.bincount(ring.ravel())
    if len(sizes) < 3 or not sizes[1:-1].all():
        raise ValueError(f"{height} x {width} pixels are too few for spectral rings")
    return np.fft.ifftshift(ring).ravel(), sizes[1:-1].tolist()


def _spectrum(images: jax.Array, axes: Sequence[int]) -> dft.Pair:
    pixels, _ = as_real(images)
    spectrum = jnp.fft.fftn(pixels, axes=check_axes(axes))
    return jnp.real(spectrum), jnp.imag(spectrum)
