"""APR-P without another image: own phase, an amplitude that shows nobody's label.

Of coloured noise, or the image's own with random plane waves in it. A fractal surface
(plasma, as fog is drawn) has no amplitude of its own: it is coloured noise, too.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax import fast_random
from apr_jax.augment.afa import fourier_basis_noise
from apr_jax.augment.apr_pair import apr_pair
from apr_jax.augment.keys import per_image_keys, split_keys
from apr_jax.gates import knobs
from apr_jax.gates.images import images_gate
from apr_jax.spectral import filter_bands


class Colours(NamedTuple):
    """The draws of `coloured_noise`, for each image.

    Attributes:
        exponent: float32 [N], amplitudes fall by 1 / f^exponent.
        grey: float32 [N] in [0, 1), the share of the variance that channels have in
            common.
        white: float32 [N, H, W, C + 1], standard normal; the last one is in common.
    """

    exponent: jax.Array
    grey: jax.Array
    white: jax.Array


@images_gate("pixels")
def apr_noise(
    key: jax.Array,
    images: jax.Array,
    *,
    prob: float | jax.Array = 0.6,
    steepest: float = 1.5,
    axes: Sequence[int] = (-3, -2, -1),
    clip: bool = False,
    backend: str = "auto",
) -> jax.Array:
    """Images with their own phase and, by a coin for each, coloured noise's amplitude.

    The noise has the mean and the standard deviation of each channel of the image, so
    that brightness and contrast stay; what changes is how the variance is spread over
    frequencies and channels. No published method.

    Args:
        key: one key, or one per image [N].
        images: floating point [N, H, W, C] in [0, 1].
        prob: probability of mixing.
        steepest: as `coloured_noise`'s.
        axes, clip, backend: as `apr_pair`'s.

    Returns:
        [N, H, W, C] of the same type; bit for bit `images` where the coin says no.

    Raises:
        TypeError: pixels are not floating point.
        ValueError: an unknown name, another shape, or `steepest` below nought.
    """
    noise = coloured_noise(_donors_key(key), images.shape, steepest=steepest)
    pixels = images.astype(jnp.float32)
    mean, spread = (f(pixels, axis=(1, 2), keepdims=True) for f in (jnp.mean, jnp.std))
    donors = mean + spread * noise
    how = {"prob": prob, "axes": axes, "clip": clip, "backend": backend}
    return _paired(key, images, donors, **how)


@images_gate("pixels")
def apr_waves(
    key: jax.Array,
    images: jax.Array,
    *,
    prob: float | jax.Array = 0.6,
    mean_strength: float | jax.Array = 5.0,
    waves: int = 1,
    axes: Sequence[int] = (-3, -2, -1),
    clip: bool = False,
    backend: str = "auto",
) -> jax.Array:
    """Images with their own phase and, by a coin for each, waves in the amplitude.

    The amplitude is that of the image plus `fourier_basis_noise`, so a wave's strength
    is there and its place is not. No published method.

    Args:
        key: one key, or one per image [N].
        images: floating point [N, H, W, C] in [0, 1].
        prob: probability of mixing.
        mean_strength, waves: as `fourier_basis_noise`'s.
        axes, clip, backend: as `apr_pair`'s.

    Returns:
        [N, H, W, C] of the same type; bit for bit `images` where the coin says no.

    Raises:
        TypeError, ValueError: as `apr_pair` and `fourier_basis_noise`.
    """
    wave_key = _donors_key(key)
    donors = fourier_basis_noise(
        wave_key, images, mean_strength=mean_strength, waves=waves, clip=False
    )
    how = {"prob": prob, "axes": axes, "clip": clip, "backend": backend}
    return _paired(key, images, donors, **how)


def _donors_key(key: jax.Array) -> jax.Array:
    """The part of a key that `apr_pair` leaves alone where donors are given."""
    return split_keys(key, 2)[0]


def _paired(
    key: jax.Array, images: jax.Array, donors: jax.Array, **how: Any
) -> jax.Array:
    """`apr_pair` with a donor of each image's own and a coin for each."""
    own = jnp.arange(len(images))
    return apr_pair(key, images, per="image", donors=donors, donor_index=own, **how)


def coloured_noise(
    key: jax.Array, shape: tuple[int, ...], *, steepest: float = 1.5
) -> jax.Array:
    """Noise whose amplitude falls by a power of the frequency: float32 [N, H, W, C].

    Each image draws an exponent from [0, `steepest`]: 0 is white noise, 1 falls as
    photographs do; and the share of its variance that channels have in common. The
    mean is 0 and the variance 1 but for chance.

    Args:
        key: one key, or one per image [N].
        shape: [N, H, W, C].
        steepest: the largest exponent, not negative.

    Raises:
        ValueError: no such exponent.
    """
    knobs.real("steepest", steepest, low=0)
    _, height, width, _ = shape
    drawn = draw_colours(key, shape, steepest=steepest)
    grey = drawn.grey[:, None, None, None]
    mixed = jnp.sqrt(1 - grey) * drawn.white[..., :-1]
    mixed += jnp.sqrt(grey) * drawn.white[..., -1:]
    logs = jnp.asarray(_log_frequency(height, width), jnp.float32)
    factor = jnp.exp(-drawn.exponent[:, None, None] * logs[None])
    factor = factor.at[:, height // 2, width // 2].set(0)
    power = jnp.mean(factor**2, axis=(1, 2), keepdims=True)
    factor *= jax.lax.rsqrt(jnp.maximum(power, 1e-12))
    return jax.vmap(filter_bands)(mixed, factor)


def draw_colours(key: jax.Array, shape: tuple[int, ...], *, steepest: float) -> Colours:
    """The draws of `coloured_noise`."""
    count, height, width, channels = shape
    seeds = fast_random.seeds_of(per_image_keys(key, count))
    exponent, grey = fast_random.uniform(seeds, (2,)).T
    white = fast_random.normal(seeds, (height, width, channels + 1), lane=1)
    return Colours(steepest * exponent, grey, white)


def _log_frequency(height: int, width: int) -> np.ndarray:
    """Logarithms of the frequencies in cycles per pixel, shifted: float64 [H, W].

    That of the zero frequency, which has none, is 0.
    """
    rows, columns = (np.fft.fftshift(np.fft.fftfreq(side)) for side in (height, width))
    frequency = np.hypot(rows[:, None], columns[None, :])
    frequency[height // 2, width // 2] = 1
    return np.log(frequency)
