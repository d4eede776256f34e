"""Fourier amplitude and phase of images, and what is built from them.

Images are [..., H, W, C] throughout. Integer pixels are refused: a transform of grey
levels has no integer result, so the caller decides on the range first.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax import dft

AXES = ((-3, -2, -1), (-3, -2))
BACKENDS = ("auto", *dft.BACKENDS)
CHANNELS = ("luma", "sum")

# ITU-R BT.601 weights, to the four digits that the reference code uses.
LUMA = (0.2989, 0.5870, 0.1140)

# Squared magnitudes below this count as zero. Rounding alone leaves more than that in
# any spectrum of pixels, and the derivative of 1/|F| overflows float32 further down.
TINY = 1e-24

# More pixels than this a CPU transforms in chunks of half as many: the work on them
# stays in its caches, which makes large images up to twice as fast.
_CPU_CHUNK = 262_144


def recombine(
    amplitude_from: jax.Array,
    phase_from: jax.Array,
    *,
    axes: Sequence[int] = (-3, -2, -1),
    backend: str = "auto",
) -> jax.Array:
    """The image with the amplitude of one image and the phase of another.

    Real part of the inverse DFT of |F(amplitude_from)| exp(i angle F(phase_from))
    (Amplitude-Phase Recombination, section 4). Where F(phase_from) is zero the phase is
    0; values and gradients stay finite.

    Args:
      amplitude_from: floating point [..., H, W, C] of any range; the result has the
        same up to ringing, nothing is clipped.
      phase_from: same shape.
      axes: (-3, -2, -1) transforms over height, width and channel as the authors' code
        does; (-3, -2) each channel by itself as the paper writes it.
      backend: "rfft" half-spectrum FFT; "fft" full complex FFT; "matmul" DFT by real
        matrix products; "auto" picks by platform and size, see `choose_backend`.

    Returns:
      [..., H, W, C]. bfloat16 and float16 are computed in float32 and cast back.

    Raises:
      TypeError: pixels are not floating point.
      ValueError: shapes differ, or unknown axes or backend.
    """
    amplitude_from, phase_from = jnp.asarray(amplitude_from), jnp.asarray(phase_from)
    if amplitude_from.shape != phase_from.shape:
        raise ValueError(
            "amplitude_from and phase_from must have the same shape, got "
            f"{amplitude_from.shape} and {phase_from.shape}"
        )
    dtype = jnp.promote_types(
        _float_dtype(amplitude_from, "amplitude_from"),
        _float_dtype(phase_from, "phase_from"),
    )
    shape = _image_shape(phase_from)

    def one_chunk(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        amplitude_from, phase_from = (
            image.astype(jnp.promote_types(dtype, jnp.float32)) for image in pair
        )
        mixed = recombine_channels(
            [amplitude_from[..., c] for c in range(shape[-1])],
            [phase_from[..., c] for c in range(shape[-1])],
            axes=axes,
            backend=backend,
        )
        return jnp.stack(mixed, axis=-1).astype(dtype)

    count = math.prod(phase_from.shape[:-3])
    pixels = shape[0] * shape[1]
    if jax.default_backend() != "cpu" or count * pixels <= _CPU_CHUNK:
        return one_chunk((amplitude_from, phase_from))
    at_once = min(count, max(1, _CPU_CHUNK // (2 * pixels)))
    flat = tuple(image.reshape(-1, *shape) for image in (amplitude_from, phase_from))
    return jax.lax.map(one_chunk, flat, batch_size=at_once).reshape(phase_from.shape)


def recombine_channels(
    amplitude_from: Sequence[jax.Array],
    phase_from: Sequence[jax.Array],
    *,
    axes: Sequence[int] = (-3, -2, -1),
    backend: str = "auto",
) -> list[jax.Array]:
    """`recombine` of images given channel by channel, each float32 [..., H, W].

    Knobs and errors as `recombine`'s; `axes` still are those of [..., H, W, C].
    """
    axes = _check_axes(axes)
    height, width = phase_from[0].shape[-2:]
    if backend == "auto":
        backend = choose_backend(jax.default_backend(), height, width)
    if backend not in dft.BACKENDS:
        raise ValueError(f"unknown backend {backend!r}, choose from {BACKENDS}")
    transforms = dft.BACKENDS[backend]
    count = len(phase_from)
    over_channels = len(axes) == 3
    planes = [
        _channel_dft(image) if over_channels else (list(image), [])
        for image in (amplitude_from, phase_from)
    ]
    real = [
        transforms.inverse_real(
            _with_phase(transforms.forward_real(a), transforms.forward_real(p)), width
        )
        for a, p in zip(planes[0][0], planes[1][0], strict=True)
    ]
    pairs = [
        transforms.inverse_complex(
            _with_phase(transforms.forward_complex(a), transforms.forward_complex(p))
        )
        for a, p in zip(planes[0][1], planes[1][1], strict=True)
    ]
    return _inverse_channel_dft(real, pairs, count) if over_channels else real


def choose_backend(platform: str, height: int, width: int) -> str:
    """The backend that "auto" stands for on a platform ("cpu", "gpu", "tpu", ...).

    TPUs lower FFTs to something slow and have matrix units; FFT libraries win elsewhere
    (`experiments/bench_augment.py` prints the comparison).
    """
    del height, width
    return "matmul" if platform == "tpu" else "rfft"


def amplitude(images: jax.Array, *, axes: Sequence[int] = (-3, -2, -1)) -> jax.Array:
    """|F|, the full unshifted spectrum: [..., H, W, C] float -> same, non-negative.

    The gradient at a zero is 0. Raises as `recombine` does.
    """
    return _magnitude(_spectrum(images, axes)).astype(images.dtype)


def phase(images: jax.Array, *, axes: Sequence[int] = (-3, -2, -1)) -> jax.Array:
    """Angle of F in [-pi, pi], full unshifted spectrum; 0 where F is zero.

    [..., H, W, C] float -> same. The gradient at a zero is 0. Raises as `recombine`.
    """
    re, im = _spectrum(images, axes)
    zero = re * re + im * im < TINY
    angle = jnp.arctan2(jnp.where(zero, 0.0, im), jnp.where(zero, 1.0, re))
    return angle.astype(images.dtype)


def radial_mask(height: int, width: int, radius: float) -> jax.Array:
    """True within `radius` of the zero frequency: bool [H, W], shifted spectrum.

    The zero frequency sits at (H // 2, W // 2), where fftshift puts it; the distance is
    strictly smaller than `radius` (HFC, CVPR 2020).
    """
    rows = jnp.arange(height)[:, None] - height // 2
    columns = jnp.arange(width)[None, :] - width // 2
    return jnp.hypot(rows * 1.0, columns * 1.0) < radius


def split_bands(images: jax.Array, radius: float) -> tuple[jax.Array, jax.Array]:
    """Low and high part of each channel: float [..., H, W, C] -> two of the same.

    The low part keeps the frequencies of `radial_mask`, the high part is the rest:
    low + high = images. Neither is clipped. Raises as `recombine` does.
    """
    images = jnp.asarray(images)
    dtype = _float_dtype(images, "images")
    height, width, _ = _image_shape(images)
    mask = jnp.fft.ifftshift(radial_mask(height, width, radius))[:, : width // 2 + 1]
    pixels = images.astype(jnp.promote_types(dtype, jnp.float32))
    spectrum = jnp.fft.rfft2(jnp.moveaxis(pixels, -1, -3))
    kept = jnp.where(jnp.broadcast_to(mask, spectrum.shape), spectrum, 0)
    low = jnp.moveaxis(jnp.fft.irfft2(kept, (height, width)), -3, -1)
    return low.astype(dtype), (pixels - low).astype(dtype)


def fourier_basis(
    height: int, width: int, i: int | jax.Array, j: int | jax.Array
) -> jax.Array:
    """The unit-L2 image whose only frequencies are (i, j) and (-i, -j): float32 [H, W].

    Row `i` and column `j` of the unshifted spectrum, any integers (taken modulo H and
    W), traced ones too. The same image as the normalised inverse real DFT of a one
    there (Yin et al. 2019).
    """
    # Reduced as integers first: float32 angles of large products would be inexact.
    rows = jnp.arange(height) * (jnp.asarray(i) % height) % height
    columns = jnp.arange(width) * (jnp.asarray(j) % width) % width
    turns = rows[:, None] / height + columns[None, :] / width
    wave = jnp.cos(2 * jnp.pi * turns)
    return (wave / jnp.sqrt(jnp.sum(wave * wave))).astype(jnp.float32)


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
      the centre ((H - 1) / 2, (W - 1) / 2) of the shifted spectrum. The innermost disk
      and the outermost ring are left out, as in the reference: 20 for 32 x 32.

    Raises:
      TypeError: pixels are not floating point.
      ValueError: unknown `channels`, or "luma" of neither 1 nor 3 channels, or an image
        too small for a ring.
    """
    images = jnp.asarray(images)
    _float_dtype(images, "images")
    if channels not in CHANNELS:
        raise ValueError(f"unknown channels {channels!r}, choose from {CHANNELS}")
    height, width, count = _image_shape(images)
    if channels == "luma" and count not in (1, 3):
        raise ValueError(f'channels="luma" needs 1 or 3 channels, got {count}')
    weights = LUMA if channels == "luma" and count == 3 else (1.0,) * count
    grey = _weighted(
        [images[..., c].astype(jnp.float32) for c in range(count)], weights
    )
    values = _magnitude(dft.BACKENDS["fft"].forward_real(grey))
    if log:
        values = 20 * jnp.log1p(values)
    ring, sizes = _rings(height, width)
    flat = jnp.moveaxis(values.reshape(*values.shape[:-2], -1), -1, 0)
    sums = jax.ops.segment_sum(flat, jnp.asarray(ring), num_segments=len(sizes) + 2)
    profile = jnp.moveaxis(sums[1:-1], 0, -1)
    sizes_like = jnp.broadcast_to(jnp.asarray(sizes, jnp.float32), profile.shape)
    profile = profile / sizes_like
    return _min_max(profile) if normalise else profile


def _min_max(values: jax.Array) -> jax.Array:
    low = jnp.min(values, axis=-1, keepdims=True)
    span = jnp.max(values, axis=-1, keepdims=True) - low
    return (values - low) / jnp.where(span == 0, 1.0, span)


def _rings(height: int, width: int) -> tuple[np.ndarray, list[int]]:
    """Ring number of each unshifted frequency, and the sizes of the rings in use."""
    rows = np.arange(height)[:, None] - (height - 1) / 2
    columns = np.arange(width)[None, :] - (width - 1) / 2
    ring = np.hypot(rows, columns).astype(np.int32)
    sizes = np.bincount(ring.ravel())
    if len(sizes) < 3 or not sizes[1:-1].all():
        raise ValueError(f"{height} x {width} pixels are too few for spectral rings")
    return np.fft.ifftshift(ring).ravel(), sizes[1:-1].tolist()


def _magnitude(spectrum: dft.Pair) -> jax.Array:
    re, im = spectrum
    square = re * re + im * im
    zero = square < TINY
    # The inner where keeps sqrt's infinite derivative at 0 out of the gradient.
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, square)))


def _with_phase(amplitude_from: dft.Pair, phase_from: dft.Pair) -> dft.Pair:
    """|A| P / |P| needs no angle and no exponential; where P is zero it is |A|."""
    magnitude = _magnitude(amplitude_from)
    re, im = phase_from
    square = re * re + im * im
    zero = square < TINY
    scale = magnitude * jax.lax.rsqrt(jnp.where(zero, 1.0, square))
    return jnp.where(zero, magnitude, re * scale), jnp.where(zero, 0.0, im * scale)


def _channel_dft(
    channels: Sequence[jax.Array],
) -> tuple[list[jax.Array], list[dft.Pair]]:
    """DFT over the channels of real pixels: what is real, and what has a mirror image.

    Taken before the transform over pixels it is real arithmetic, and of the planes that
    are each other's conjugate one will do: three channels become a real plane and a
    complex one.
    """
    count = len(channels)
    cos, sin = _channel_waves(count)
    real = [_weighted(channels, cos[0])]
    if count % 2 == 0:
        real.append(_weighted(channels, cos[count // 2]))
    pairs = [
        (_weighted(channels, cos[k]), _weighted(channels, -sin[k]))
        for k in range(1, (count + 1) // 2)
    ]
    return real, pairs


def _inverse_channel_dft(
    real: list[jax.Array], pairs: list[dft.Pair], count: int
) -> list[jax.Array]:
    cos, sin = _channel_waves(count)
    planes = real + [part for pair in pairs for part in pair]
    waves = [cos[0]] + ([cos[count // 2]] if count % 2 == 0 else [])
    for k in range(1, (count + 1) // 2):
        waves += [2 * cos[k], -2 * sin[k]]
    return [
        _weighted(planes, [wave[c] / count for wave in waves]) for c in range(count)
    ]


def _channel_waves(count: int) -> tuple[np.ndarray, np.ndarray]:
    turns = np.outer(np.arange(count), np.arange(count)) % count / count
    return np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)


def _weighted(planes: Sequence[jax.Array], weights: Sequence[float]) -> jax.Array:
    total = planes[0] * float(weights[0])
    for plane, weight in zip(planes[1:], weights[1:], strict=True):
        total = total + plane * float(weight)
    return total


def _spectrum(images: jax.Array, axes: Sequence[int]) -> dft.Pair:
    images = jnp.asarray(images)
    dtype = _float_dtype(images, "images")
    _image_shape(images)
    pixels = images.astype(jnp.promote_types(dtype, jnp.float32))
    spectrum = jnp.fft.fftn(pixels, axes=_check_axes(axes))
    return jnp.real(spectrum), jnp.imag(spectrum)


def _check_axes(axes: Sequence[int]) -> tuple[int, ...]:
    axes = tuple(axes)
    if axes not in AXES:
        raise ValueError(f"unknown axes {axes}, choose from {AXES}")
    return axes


def _float_dtype(images: jax.Array, name: str) -> Any:
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(
            f"{name} must be floating point, got {images.dtype}: convert first, for "
            "uint8 grey levels images.astype(jnp.float32) / 255"
        )
    return images.dtype


def _image_shape(images: jax.Array) -> tuple[int, int, int]:
    if images.ndim < 3:
        raise ValueError(f"images must be [..., H, W, C], got shape {images.shape}")
    height, width, channels = images.shape[-3:]
    return height, width, channels
