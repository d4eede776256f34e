"""Two-dimensional DFTs of real and complex planes [..., H, W], three ways.

A spectrum is a pair of real arrays, real and imaginary part: TPUs multiply real
matrices, and element-wise work on it fuses. Its layout is the backend's own; all three
agree that frequencies are the last two axes and that `inverse_*` undoes `forward_*`.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

Pair = tuple[jax.Array, jax.Array]


@dataclasses.dataclass(frozen=True)
class Transforms:
    """One way to compute DFTs.

    Attributes:
        forward_real: real plane -> spectrum, at least half of it.
        inverse_real: spectrum and width -> real plane.
        forward_complex: real and imaginary plane -> spectrum.
        inverse_complex: spectrum -> real and imaginary plane.
    """

    forward_real: Callable[[jax.Array], Pair]
    inverse_real: Callable[[Pair, int], jax.Array]
    forward_complex: Callable[[Pair], Pair]
    inverse_complex: Callable[[Pair], Pair]


def _split(spectrum: jax.Array) -> Pair:
    return jnp.real(spectrum), jnp.imag(spectrum)


def _rfft(plane: jax.Array) -> Pair:
    return _split(jnp.fft.rfft2(plane))


def _irfft(spectrum: Pair, width: int) -> jax.Array:
    height = spectrum[0].shape[-2]
    return jnp.fft.irfft2(jax.lax.complex(*spectrum), (height, width))


def _fft(planes: Pair) -> Pair:
    return _split(jnp.fft.fft2(jax.lax.complex(*planes)))


def _ifft(spectrum: Pair) -> Pair:
    return _split(jnp.fft.ifft2(jax.lax.complex(*spectrum)))


def _full_forward(plane: jax.Array) -> Pair:
    return _split(jnp.fft.fft2(plane))


def _full_inverse(spectrum: Pair, width: int) -> jax.Array:
    return _ifft(spectrum)[0]


def _matmul_real(plane: jax.Array) -> Pair:
    height, width = plane.shape[-2:]
    return _columns(_dot(plane, _half(width)), height)


def _matmul_inverse_real(spectrum: Pair, width: int) -> jax.Array:
    return _dot(_rows(spectrum), _half_inverse(width))


def _matmul_complex(planes: Pair) -> Pair:
    height, width = planes[0].shape[-2:]
    return _columns(_dot(jnp.concatenate(planes, -1), _full(width, -1)), height)


def _matmul_inverse_complex(spectrum: Pair) -> Pair:
    width = spectrum[0].shape[-2]
    planes = _dot(_rows(spectrum), _full(width, 1) / width)
    return planes[..., :width], planes[..., width:]


def _columns(rows: jax.Array, height: int) -> Pair:
    """DFT over height of [..., H, 2 K], parts side by side: two of [..., K, H]."""
    count = rows.shape[-1] // 2
    parts = jnp.swapaxes(rows.reshape(*rows.shape[:-1], 2, count), -1, -3)
    spectrum = _dot(parts.reshape(*parts.shape[:-2], 2 * height), _full(height, -1))
    return spectrum[..., :height], spectrum[..., height:]


def _rows(spectrum: Pair) -> jax.Array:
    """The inverse of `_columns`."""
    count, height = spectrum[0].shape[-2:]
    columns = _dot(jnp.concatenate(spectrum, -1), _full(height, 1) / height)
    parts = columns.reshape(*columns.shape[:-1], 2, height)
    return jnp.swapaxes(parts, -1, -3).reshape(*parts.shape[:-3], height, 2 * count)


def _dot(values: jax.Array, matrix: np.ndarray) -> jax.Array:
    # HIGHEST: a TPU otherwise multiplies in bfloat16, an Ampere GPU in tf32. HIGH, half
    # of a TPU's passes, misses pixels of real images by up to 2e-4 at 224 pixels where
    # this misses them by 4e-6 (`experiments.checks.dft_precision`).
    return jnp.dot(
        values, matrix.astype(values.dtype), precision=jax.lax.Precision.HIGHEST
    )


# Right factors, with the real and the imaginary part side by side, so that one real
# product does what a complex one would.


def _full(count: int, sign: int) -> np.ndarray:
    """[2 N, 2 N]: complex DFT, exp(sign 2 pi i j k / N), unscaled."""
    cos, sin = waves(count)
    return np.block([[cos, sign * sin], [-sign * sin, cos]])


def _half(count: int) -> np.ndarray:
    """[N, 2 (N // 2 + 1)]: DFT of a real line, the half that the rest mirrors."""
    cos, sin = (wave[:, : count // 2 + 1] for wave in waves(count))
    return np.concatenate([cos, -sin], axis=1)


def _half_inverse(count: int) -> np.ndarray:
    """[2 (N // 2 + 1), N]: the inverse of `_half`."""
    cos, sin = (wave[: count // 2 + 1] for wave in waves(count))
    # All but the zero and the Nyquist frequency stand for their mirror image too.
    index = np.arange(count // 2 + 1)[:, None]
    weight = np.where((index == 0) | (2 * index == count), 1.0, 2.0) / count
    return np.concatenate([weight * cos, -weight * sin], axis=0)


def waves(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of 2 pi j k / N, [N, N] each."""
    turns = np.outer(np.arange(count), np.arange(count)) % count / count
    return np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)


BACKENDS = {
    "rfft": Transforms(_rfft, _irfft, _fft, _ifft),
    "fft": Transforms(_full_forward, _full_inverse, _fft, _ifft),
    "matmul": Transforms(
        _matmul_real, _matmul_inverse_real, _matmul_complex, _matmul_inverse_complex
    ),
}
