"""VIPAug: phases vary a little where the amplitude is large, more elsewhere.

Lee, Lee & Myung, "Domain Generalization with Vital Phase Augmentation", AAAI 2024.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from apr_jax import fast_random, spectral
from apr_jax.augment.apr_single import (
    recombine_levels,
    round_levels,
    to_levels,
    two_versions,
)
from apr_jax.augment.keys import per_image_keys
from apr_jax.gates.images import images_gate
from apr_jax.spectral.inputs import AXES, at_unit_scale


class Coins(NamedTuple):
    """The draws of `vital_phase_single` besides `draw_single`'s: [N] each.

    Attributes:
        fractal: bool, whether phases come from a fractal first.
        which: int32, from which one.
        vary: bool, whether the recombination varies the phases.
    """

    fractal: jax.Array
    which: jax.Array
    vary: jax.Array


@images_gate("pixels", values="finite", rank=None)
def vital_mask(images: jax.Array, *, kernel: int = 2) -> jax.Array:
    """The places of vital phases: the largest amplitude of each block of frequencies.

    Args:
        images: floating point [..., H, W, C]; the DFT is over all three axes.
        kernel: side of a block in frequencies, counted from the unshifted zero one.
            What is left over at the far border holds no vital phase.

    Returns:
        bool [..., H, W, C]; the first one where amplitudes are equal.
    """
    height, width, channels = images.shape[-3:]
    rows, columns = height // kernel, width // kernel
    amplitude = spectral.amplitude(images)
    inner = amplitude[..., : rows * kernel, : columns * kernel, :]
    blocks = inner.reshape(*images.shape[:-3], rows, kernel, columns, kernel, channels)
    blocks = jnp.moveaxis(blocks, -3, -4).reshape(
        *images.shape[:-3], rows, columns, kernel * kernel, channels
    )
    first = jnp.argmax(blocks, axis=-2)
    chosen = jax.nn.one_hot(first, kernel * kernel, axis=-2, dtype=bool)
    chosen = chosen.reshape(*images.shape[:-3], rows, columns, kernel, kernel, channels)
    chosen = jnp.moveaxis(chosen, -3, -4).reshape(inner.shape)
    sides = [(0, 0)] * (images.ndim - 3)
    sides += [(0, height - rows * kernel), (0, width - columns * kernel), (0, 0)]
    return jnp.pad(chosen, sides)


@images_gate("pixels", values="finite")
def vital_phase(
    key: jax.Array,
    images: jax.Array,
    *,
    amplitude_from: jax.Array | None = None,
    phase_from: jax.Array | None = None,
    kernel: int = 2,
    vital: float | jax.Array = 0.001,
    nonvital: float | jax.Array = 0.014,
) -> jax.Array:
    """Images whose phases vary: weakly at vital frequencies, strongly at the others.

    VIPAug-G adds Gaussian noise to the phases; VIPAug-F (with `phase_from`) keeps the
    vital phases and takes the others from a fractal. The result is the real part of the
    inverse DFT over all three axes, as the phases no longer belong to a real image.

    Args:
        key: one key, or one per image [N]; VIPAug-F draws nothing.
        images: floating point [N, H, W, C], of any range.
        amplitude_from: [N, H, W, C], whose amplitudes to take; None for the own ones.
        phase_from: [N, H, W, C], whose phases the others than vital ones become.
        kernel: as `vital_mask`'s.
        vital, nonvital: variances of the phase noise in square radians; the authors
            take 0.001 with 0.014 (CIFAR-10), 0.005 with 0.012 (CIFAR-100), 0.001 with
            0.005 (ImageNet).

    Returns:
        [N, H, W, C] of the same type, not clipped.

    Raises:
        TypeError: pixels are not floating point.
        ValueError: shapes differ, or a wrong number of keys.
    """
    count = images.shape[0]
    for other in (amplitude_from, phase_from):
        if other is not None and other.shape != images.shape:
            raise ValueError(
                f"images of one shape are needed, got {other.shape} and {images.shape}"
            )
    mask = vital_mask(images, kernel=kernel)
    phasor = _phasor(images)
    if phase_from is None:
        noise = draw_phase_noise(key, (count, *images.shape[1:]))
        turn = noise * jnp.sqrt(jnp.where(mask, vital, nonvital))
        phasor *= jax.lax.complex(jnp.cos(turn), jnp.sin(turn))
    else:
        phasor = jnp.where(mask, phasor, _phasor(phase_from))
    source = images if amplitude_from is None else amplitude_from
    spectrum = spectral.amplitude(source).astype(jnp.complex64) * phasor
    return jnp.real(jnp.fft.ifftn(spectrum, axes=AXES[0])).astype(images.dtype)


def draw_phase_noise(key: jax.Array, shape: Sequence[int]) -> jax.Array:
    """The unit Gaussian noise of `vital_phase`: float32 [N, H, W, C]."""
    count, *pixels = shape
    return fast_random.normal(
        fast_random.seeds_of(per_image_keys(key, count)), tuple(pixels)
    )


@images_gate("either", rounds=True)
def vital_phase_single(
    key: jax.Array,
    images: jax.Array,
    *,
    fractals: jax.Array | None = None,
    prob: float | jax.Array = 0.5,
    fractal_prob: float | jax.Array = 0.15,
    vary_prob: float | jax.Array = 0.5,
    level: float | jax.Array = 3.0,
    ops: str = "base",
    kernel: int = 2,
    vital: float | jax.Array = 0.001,
    nonvital: float | jax.Array = 0.014,
    chunk: int | str = "auto",
) -> jax.Array:
    """VIPAug in the place of APR-S: `apr_single` with phases that vary.

    An image first takes, by chance, its non-vital phases from a fractal (VIPAug-F);
    then come APR-S's operations, and where APR-S recombines the two versions, the
    phases of one vary (VIPAug-G), by chance too. VIPAug adds APR-P afterwards.

    Departures: levels are clipped and rounded, where the authors' cast truncates and
    wraps; in all data sets one frequency of a block is vital, where they take two in
    the lowest blocks of CIFAR-10 and ImageNet; without fractals, other images of the
    batch stand in for them, which needs one key for the batch.

    Args:
        key: one key, or one per image [N] if there are fractals.
        images, level, ops, chunk: as `apr_single`'s.
        fractals: [M, H, W, C] of the images' type and range.
        prob: probability of the second operation and the recombination.
        fractal_prob: probability of VIPAug-F.
        vary_prob: probability that phases vary in a recombination.
        kernel, vital, nonvital: as `vital_phase`'s.

    Returns:
        [N, H, W, C] of the same type.
    """
    levels = to_levels(images)
    pool = levels if fractals is None else to_levels(fractals)
    noise_keys, coins = draw_coins(
        key, len(images), len(pool), fractal_prob=fractal_prob, vary_prob=vary_prob
    )
    own = levels.astype(jnp.float32)
    borrowed = jnp.take(pool, coins.which, axis=0).astype(jnp.float32)
    borrowed = vital_phase(noise_keys, own, phase_from=borrowed, kernel=kernel)
    fractal = coins.fractal[:, None, None, None]
    levels = jnp.where(fractal, round_levels(borrowed), levels)
    versions = two_versions(key, levels, prob=prob, level=level, ops=ops, chunk=chunk)
    varied = vital_phase(
        noise_keys,
        versions.second.astype(jnp.float32),
        amplitude_from=versions.first.astype(jnp.float32),
        kernel=kernel,
        vital=vital,
        nonvital=nonvital,
    )
    mixed = jnp.where(
        coins.vary[:, None, None, None],
        round_levels(varied),
        recombine_levels(versions.first, versions.second),
    )
    return versions.or_once(mixed, images.dtype)


def draw_coins(
    key: jax.Array,
    count: int,
    fractals: int,
    *,
    fractal_prob: float | jax.Array,
    vary_prob: float | jax.Array,
) -> tuple[jax.Array, Coins]:
    """The keys of `vital_phase`'s noise [N], and the other draws."""
    keys = per_image_keys(key, count)
    noise_keys, coin_keys = (
        jax.vmap(jax.random.fold_in, (0, None))(keys, number) for number in (1, 2)
    )
    uniform = jax.vmap(lambda k: jax.random.uniform(k, (3,)), out_axes=1)(coin_keys)
    which = jnp.minimum((uniform[2] * fractals).astype(jnp.int32), fractals - 1)
    return noise_keys, Coins(uniform[0] < fractal_prob, which, uniform[1] < vary_prob)


def _phasor(images: jax.Array) -> jax.Array:
    """exp(i angle F), 1 where F is zero; no angle is needed for it."""
    spectrum = jnp.fft.fftn(images.astype(jnp.float32), axes=AXES[0])
    (re, im), square, _ = at_unit_scale((jnp.real(spectrum), jnp.imag(spectrum)))
    return jax.lax.complex(re, im) * jax.lax.rsqrt(square).astype(jnp.complex64)
