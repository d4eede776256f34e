"""The amplitude of one image with the phase of another."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from apr_jax.gates import numbers
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
    weighted_sum,
)
from apr_jax.target import by_platform

BACKENDS = ("auto", *dft.BACKENDS)

_Result = TypeVar("_Result")

# More pixels than this a CPU transforms in chunks of half as many: the work on them
# stays in its caches, which makes large images up to twice as fast.
_CPU_CHUNK = 262_144


@images_gate("pixels", values="any", rank=None, single=False)
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
        axes: (-3, -2, -1) transforms over height, width and channel as the authors'
            code does; (-3, -2) each channel by itself as the paper writes it.
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
        float_dtype(amplitude_from, "amplitude_from"),
        float_dtype(phase_from, "phase_from"),
    )
    shape = image_shape(phase_from)

    compute = jnp.promote_types(dtype, jnp.float32)

    def at_once(*pair: jax.Array) -> jax.Array:
        amplitude_from, phase_from = (channels_of(x.astype(compute)) for x in pair)
        mixed = recombine_channels(
            amplitude_from, phase_from, axes=axes, backend=backend
        )
        return _stacked(mixed).astype(dtype)

    count, pixels = math.prod(phase_from.shape[:-3]), shape[0] * shape[1]
    if count * pixels <= _CPU_CHUNK:
        return at_once(amplitude_from, phase_from)

    def in_chunks(*pair: jax.Array) -> jax.Array:
        flat = tuple(image.reshape(-1, *shape) for image in pair)
        size = min(count, max(1, _CPU_CHUNK // (2 * pixels)))
        mixed = jax.lax.map(lambda pair: at_once(*pair), flat, batch_size=size)
        return mixed.reshape(phase_from.shape)

    return by_platform(amplitude_from, phase_from, cpu=in_chunks, default=at_once)


@images_gate("pixels", values="any", rank=None, single=False)
def recombine_within(
    images: jax.Array,
    donor_index: jax.Array,
    *,
    axes: Sequence[int] = (-3, -2, -1),
    backend: str = "auto",
) -> jax.Array:
    """`recombine(images[donor_index], images)`, every image transformed only once.

    Args:
        images: floating point [N, H, W, C].
        donor_index: int [N], which of them gives image i its amplitude.
        axes, backend: and what is raised, as `recombine`'s.

    Returns:
        [N, H, W, C] of the same type.
    """
    pixels, dtype = as_real(images)
    donor_index = numbers.indices("donor_index", donor_index, len(images), len(images))

    def mixed(backend: str, pixels: jax.Array, donor_index: jax.Array) -> jax.Array:
        channels = channels_of(pixels)
        spectra = _forward(channels, axes, backend)
        magnitudes = [jnp.take(magnitude(s), donor_index, axis=0) for s in spectra]
        return _stacked(_inverse(magnitudes, spectra, channels, axes, backend))

    size = images.shape[-3:-1]
    return _by_backend(backend, size, mixed, pixels, donor_index).astype(dtype)


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

    def mixed(
        backend: str, amplitude_from: list[jax.Array], phase_from: list[jax.Array]
    ) -> list[jax.Array]:
        magnitudes = [magnitude(s) for s in _forward(amplitude_from, axes, backend)]
        spectra = _forward(phase_from, axes, backend)
        return _inverse(magnitudes, spectra, phase_from, axes, backend)

    size = phase_from[0].shape[-2:]
    return _by_backend(backend, size, mixed, list(amplitude_from), list(phase_from))


def choose_backend(platform: str, height: int, width: int) -> str:
    """The backend that "auto" stands for on a platform ("cpu", "gpu", "tpu", ...).

    On a CPU "rfft" was the fastest from 28 to 224 pixels, and as fast as "matmul" at 16
    (`experiments.benchmarks.augment` measures it), so the size decides nothing so far.
    GPUs have an FFT library too. TPUs lower FFTs to something slow and have matrix
    units.
    """
    return "matmul" if platform == "tpu" else "rfft"


def _with_phase(magnitude: jax.Array, phase_from: dft.Pair) -> dft.Pair:
    """|A| P / |P| needs no angle and no exponential; where P is zero it is |A|."""
    (re, im), square, _ = at_unit_scale(phase_from)
    scale = magnitude * jax.lax.rsqrt(square)
    return re * scale, im * scale


def _forward(
    channels: Sequence[jax.Array], axes: Sequence[int], backend: str
) -> list[dft.Pair]:
    """Spectra of channels, each [..., H, W]: those of real planes come first."""
    transforms = dft.BACKENDS[backend]
    over_channels = len(check_axes(axes)) == 3
    real, pairs = _channel_dft(channels) if over_channels else (list(channels), [])
    spectra = [transforms.forward_real(plane) for plane in real]
    return spectra + [transforms.forward_complex(pair) for pair in pairs]


def _inverse(
    magnitudes: list[jax.Array],
    spectra: list[dft.Pair],
    like: Sequence[jax.Array],
    axes: Sequence[int],
    backend: str,
) -> list[jax.Array]:
    """The channels that have these magnitudes and the phases of these spectra."""
    transforms = dft.BACKENDS[backend]
    mixed = [_with_phase(m, s) for m, s in zip(magnitudes, spectra, strict=True)]
    count, width = len(like), like[0].shape[-1]
    over_channels = len(check_axes(axes)) == 3
    first_pair = 2 - count % 2 if over_channels else count
    real = [transforms.inverse_real(s, width) for s in mixed[:first_pair]]
    pairs = [transforms.inverse_complex(s) for s in mixed[first_pair:]]
    return _inverse_channel_dft(real, pairs, count) if over_channels else real


def _by_backend(
    backend: str, size: Sequence[int], function: Callable[..., _Result], *args: Any
) -> _Result:
    """`function(name, *args)` with the backend's name; for "auto" each platform's."""
    if backend not in BACKENDS:
        raise ValueError(f"unknown backend {backend!r}, choose from {BACKENDS}")
    if backend != "auto":
        return function(backend, *args)

    def of(platform: str) -> Callable[..., _Result]:
        return functools.partial(function, choose_backend(platform, *size))

    return by_platform(*args, tpu=of("tpu"), default=of("gpu"))


def _stacked(channels: list[jax.Array]) -> jax.Array:
    # Stacked last at once they would be interleaved element by element: four times
    # slower on a CPU than whole planes that are then transposed.
    return jnp.moveaxis(jnp.stack(channels, axis=-3), -3, -1)


def _channel_dft(
    channels: Sequence[jax.Array],
) -> tuple[list[jax.Array], list[dft.Pair]]:
    """DFT over the channels of real pixels: what is real, and what has a mirror image.

    Taken before the transform over pixels it is real arithmetic, and of the planes that
    are each other's conjugate one will do: three channels become a real plane and a
    complex one.
    """
    count = len(channels)
    cos, sin = dft.waves(count)
    real = [weighted_sum(channels, cos[0])]
    if count % 2 == 0:
        real.append(weighted_sum(channels, cos[count // 2]))
    pairs = [
        (weighted_sum(channels, cos[k]), weighted_sum(channels, -sin[k]))
        for k in range(1, (count + 1) // 2)
    ]
    return real, pairs


def _inverse_channel_dft(
    real: list[jax.Array], pairs: list[dft.Pair], count: int
) -> list[jax.Array]:
    cos, sin = dft.waves(count)
    planes = real + [part for pair in pairs for part in pair]
    waves = [cos[0]] + ([cos[count // 2]] if count % 2 == 0 else [])
    for k in range(1, (count + 1) // 2):
        waves += [2 * cos[k], -2 * sin[k]]
    return [
        weighted_sum(planes, [wave[c] / count for wave in waves]) for c in range(count)
    ]
