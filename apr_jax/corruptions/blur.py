"""Blurs: defocus, glass, motion, zoom and Gaussian."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from apr_jax import fast_random
from apr_jax.augment.packed import look_up, pack, unpack
from apr_jax.corruptions import resample
from apr_jax.corruptions.constants import (
    CIFAR_SIZE,
    SEVERITIES,
    Arrays,
    Shape,
    Values,
    strength,
)
from apr_jax.corruptions.resample import from_planes, settle, to_planes, to_uint8
from apr_jax.target import by_platform

# Kernels with a radius above this are applied in the frequency domain.
_SMALL_RADIUS = 3
# Up to this size the zoom blur is one matrix product for all factors together.
_ONE_MATRIX = 32


# --- Gaussian ------------------------------------------------------------------------


def gaussian_matrix(name: str, shape: Shape, severity: int) -> Arrays:
    """The blur along each axis."""
    sigma = strength(name, shape, severity)[0]
    return resample.of_both("blur", shape, lambda size: resample.gaussian(size, sigma))


def gaussian_blur(seeds: jax.Array, images: jax.Array, values: Values) -> jax.Array:
    """Blurs; the edge is repeated."""
    blurred = _blurred(to_planes(images), values)
    return to_uint8(from_planes(blurred, images.shape[-1]))


def _blurred(planes: jax.Array, values: Values) -> jax.Array:
    return resample.both(values["blur_down"], values["blur_along"], planes)


# --- Defocus -------------------------------------------------------------------------


def disk(name: str, shape: Shape, severity: int) -> Arrays:
    """A disk with a softened edge, as large for every severity: [2R + 1, 2R + 1]."""
    kernels = [_disk(*strength(name, shape, s)) for s in SEVERITIES]
    extents = []
    for kernel in kernels:
        middle = len(kernel) // 2
        extents.append(int(np.abs(np.argwhere(kernel > 1e-9) - middle).max()))
    radius = min(max(extents), *(side - 1 for side in shape))
    chosen = kernels[severity - 1]
    result = np.zeros((2 * radius + 1, 2 * radius + 1), np.float32)
    keep = min(radius, len(chosen) // 2)
    inner, outer = (
        slice(half - keep, half + keep + 1) for half in (len(chosen) // 2, radius)
    )
    result[outer, outer] = chosen[inner, inner]
    return {"disk": result}


def _disk(radius: float, soft: float) -> npt.NDArray[np.float64]:
    half = 8 if radius <= 8 else math.ceil(radius)
    reach = 1 if radius <= 8 else 2  # of the softening
    at = np.arange(-half, half + 1)
    flat = (at[:, None] ** 2 + at[None] ** 2 <= radius**2).astype(np.float64)
    flat /= flat.sum()
    steps = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (steps / soft) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        width = [(reach, reach) if a == axis else (0, 0) for a in (0, 1)]
        padded = np.pad(flat, width, mode="reflect")
        flat = sum(
            weight * np.take(padded, np.arange(len(at)) + i, axis=axis)
            for i, weight in enumerate(kernel)
        )
    return flat


def defocus_blur(seeds: jax.Array, images: jax.Array, values: Values) -> jax.Array:
    """Spreads every point over a disk; the image is mirrored at its edge."""
    kernel = values["disk"]
    radius, (_, height, width, _) = len(kernel) // 2, images.shape
    sides = ((radius, radius), (radius, radius), (0, 0))
    padded = settle(jnp.pad(to_planes(images), sides, mode="reflect"))
    if radius > _SMALL_RADIUS:
        # The kernel is symmetric, so correlation and convolution are the same.
        whole = (height + 2 * radius, width + 2 * radius)
        spectrum = jnp.fft.rfft2(padded, axes=(0, 1))
        response = jnp.fft.rfft2(kernel, s=whole)[..., None]
        blurred = jnp.fft.irfft2(spectrum * response, s=whole, axes=(0, 1))
        blurred = blurred[2 * radius :, 2 * radius :]
    else:
        blurred = jnp.zeros((height, width, padded.shape[-1]))
        for i, j in np.ndindex(*kernel.shape):
            blurred += kernel[i, j] * padded[i : i + height, j : j + width]
    return to_uint8(from_planes(blurred, images.shape[-1]))


# --- Motion --------------------------------------------------------------------------


def motion_kernel(name: str, shape: Shape, severity: int) -> Arrays:
    """Weights of the taps, equally many for every severity."""
    radii = [round(strength(name, shape, s)[0]) for s in SEVERITIES]
    _, sigma = strength(name, shape, severity)
    count = 2 * max(radii) + 1
    return {"taps": resample.motion_taps(radii[severity - 1], sigma, count)}


def motion_blur(seeds: jax.Array, images: jax.Array, values: Values) -> jax.Array:
    """Blurs in one direction, within 45 degrees of the horizontal; as ImageMagick."""
    taps, (_, height, width, channels) = values["taps"], images.shape
    degrees = 45.0 * fast_random.uniform(seeds, (), low=-1.0)
    words = settle(pack(images).reshape(-1))
    levels_at = lambda index: resample.channels_at(words, index, channels)
    levels = resample.along_motion(levels_at, taps, degrees, (height, width), channels)
    return to_uint8(jnp.stack(levels, axis=-1))


# --- Zoom ----------------------------------------------------------------------------


def _factors(name: str, shape: Shape, severity: int) -> npt.NDArray[np.float64]:
    last, step = strength(name, shape, severity)
    count = round((last - 1) / step) + 1
    # As NumPy steps through a range, rounding included: the last of the strongest
    # zoom is a hair above 1.25, and enlarges 26 pixels to 33, not 32.
    return 1.0 + ((1 + step) - 1) * np.arange(float(count))


def zoom_matrices(name: str, shape: Shape, severity: int) -> Arrays:
    """The mean over all factors as one matrix, or matrices and a weight for each."""
    factors = _factors(name, shape, severity)
    down, along = (
        np.stack([resample.zoom(size, f) for f in factors]) for size in shape
    )
    share = 1.0 / (len(factors) + 1)
    if max(shape) <= _ONE_MATRIX:
        pixels = shape[0] * shape[1]
        whole = np.einsum("zij,zkl->ikjl", down, along)
        whole = whole.reshape(pixels, pixels) + np.eye(pixels)
        return {"whole": (share * whole).astype(np.float32)}
    count = max(len(_factors(name, shape, s)) for s in SEVERITIES)
    spare = ((0, count - len(factors)), (0, 0), (0, 0))
    each = {"each_down": np.pad(down, spare), "each_along": np.pad(along, spare)}
    each = {name: matrices.astype(np.float32) for name, matrices in each.items()}
    return {**each, "share": np.float32(share)}


def zoom_blur(seeds: jax.Array, images: jax.Array, values: Values) -> jax.Array:
    """The mean of the image and of its centre at several enlargements."""
    planes, channels = to_planes(images), images.shape[-1]
    if "whole" in values:
        shape = planes.shape
        flat = planes.reshape(shape[0] * shape[1], -1)
        mean = jnp.matmul(values["whole"], flat, precision="highest").reshape(shape)
    else:
        total = planes
        pairs = zip(values["each_down"], values["each_along"], strict=True)
        for down, along in pairs:
            total += resample.both(down, along, planes)
        mean = values["share"] * total
    return to_uint8(from_planes(mean, channels))


# --- Glass ---------------------------------------------------------------------------


def glass_values(name: str, shape: Shape, severity: int) -> Arrays:
    """Blur along each axis, farthest displacement and number of rounds."""
    sigma, farthest, rounds = strength(name, shape, severity)
    return {
        **resample.of_both("blur", shape, lambda s: resample.gaussian(s, sigma)),
        "farthest": np.int32(round(farthest)),
        "rounds": np.int32(round(rounds)),
    }


def glass_blur(seeds: jax.Array, images: jax.Array, values: Values) -> jax.Array:
    """Blurs, replaces each pixel by one nearby, blurs.

    The benchmark's generator goes through the pixels from the last to the first and
    means to swap two; as both are views of one array, it copies. A pixel therefore
    takes what its source holds at that moment: a source that is later in the image
    has been replaced already. Following the sources up to one that hasn't gives the
    same result for all pixels at once.
    """
    _, *shape, channels = images.shape
    blurred = _blurred(to_planes(images), values)
    words = settle(pack(settle(to_uint8(from_planes(blurred, channels)))))
    for turn in range(_most_rounds(shape)):
        farthest = jnp.where(turn < values["rounds"], values["farthest"], 0)
        steps = _steps(seeds, shape, farthest, turn)
        words = settle(by_platform(words, *steps, tpu=_by_shifts, default=_by_index))
    blurred = _blurred(to_planes(unpack(words, channels)), values)
    return to_uint8(from_planes(blurred, channels))


def _most_rounds(shape: Sequence[int]) -> int:
    """Rounds at the severity that has most, of 32, of 224 or of 299 pixels."""
    return 2 if min(shape) <= CIFAR_SIZE else 3 if min(shape) <= 224 else 4


def _steps(
    seeds: jax.Array, shape: Sequence[int], farthest: jax.Array, turn: int
) -> tuple[jax.Array, jax.Array]:
    """How far down and along each pixel's source is, int32 [N, H, W] each."""
    height, width = shape
    draw = fast_random.uniform(seeds, (2, height, width), lane=turn)
    reach = (2 * farthest).astype(jnp.float32)
    step = jnp.floor(draw * reach).astype(jnp.int32) - farthest
    inside = [
        (jnp.arange(side) > farthest) & (jnp.arange(side) <= side - farthest)
        for side in shape
    ]
    both = (inside[0][:, None] & inside[1][None, :])[None]
    return jnp.where(both, step[:, 0], 0), jnp.where(both, step[:, 1], 0)


def _by_index(words: jax.Array, down: jax.Array, along: jax.Array) -> jax.Array:
    """What each pixel ends up with, of packed words [N, H, W]: looked up."""
    count, height, width = words.shape
    row, column = jnp.arange(height)[None, :, None], jnp.arange(width)[None, None, :]
    index = ((row + down) * width + column + along).reshape(count, height * width)
    own = jnp.arange(height * width)[None]
    ended = index <= own

    def follow(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        index, ended = state
        further = jnp.take_along_axis(index, index, axis=1)
        there = jnp.take_along_axis(ended, index, axis=1)
        return jnp.where(ended, index, further), ended | there

    if min(height, width) > CIFAR_SIZE:
        # Each turn doubles the number of steps made. Displacements of one pixel only
        # go up and left: nothing to follow.
        index, _ = jax.lax.while_loop(
            lambda state: ~jnp.all(state[1]), follow, (index, ended)
        )
    first = (jnp.arange(count) * (height * width))[:, None]
    return look_up(words.reshape(-1), first + index).reshape(words.shape)


# Of a packed word, which has 24 bits of levels: what it holds is final.
_FINAL = np.uint32(1 << 31)


def _by_shifts(words: jax.Array, down: jax.Array, along: jax.Array) -> jax.Array:
    """`_by_index` by comparing steps, as a TPU looks single words up one by one."""
    _, height, width = words.shape
    most = max(
        round(strength("glass_blur", (height, width), severity)[1])
        for severity in SEVERITIES
    )
    side = 2 * most  # steps from -most to most - 1
    way = (down + most) * side + along + most

    def at_source(words: jax.Array) -> jax.Array:
        padded = jnp.pad(words, ((0, 0), (most, most), (most, most)))

        def take(step: jax.Array, found: jax.Array) -> jax.Array:
            zero = jnp.zeros((), step.dtype)
            place = (zero, step // side, step % side)
            moved = jax.lax.dynamic_slice(padded, place, words.shape)
            return jnp.where(way == step, moved, found)

        return jax.lax.fori_loop(0, side * side, take, words)

    backward = (down < 0) | ((down == 0) & (along <= 0))
    words = jnp.where(backward, at_source(words) | _FINAL, words)
    if min(height, width) > CIFAR_SIZE:
        final = lambda words: words >= _FINAL

        def follow(words: jax.Array) -> jax.Array:
            there = at_source(words)
            return jnp.where(~final(words) & final(there), there, words)

        words = jax.lax.while_loop(lambda words: ~jnp.all(final(words)), follow, words)
    return words & ~_FINAL
