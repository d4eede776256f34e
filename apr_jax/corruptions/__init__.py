"""The corruptions of CIFAR-10-C and ImageNet-C, batched and on the device.

Fifteen corruptions make the benchmark, four more are held out (Hendrycks & Dietterich,
"Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR
2019), each in five severities. What an image becomes depends on the key, the name, the
severity and the image's index alone, never on the images beside it.
"""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from apr_jax import fast_random
from apr_jax.corruptions import blur, digital, frost_files, noise, spatter, weather
from apr_jax.corruptions.constants import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    SEVERITIES,
    Arrays,
    Values,
    check,
    named,
)
from apr_jax.gates import knobs

__all__ = [
    "CORRUPTIONS",
    "EXTRA_CORRUPTIONS",
    "SEVERITIES",
    "check",
    "corrupt",
    "default_chunk",
]

MINIMUM_SIZE = 8
# Pixels worked on at a time. On a CPU they should stay in its caches.
_CPU_PIXELS, _ACCELERATOR_PIXELS = 2**18, 2**22
# What is less is filled up.
_LEAST_ROWS = 16

Frost = str | os.PathLike[str] | Sequence[npt.NDArray[np.uint8]] | None


class _Corruption(NamedTuple):
    # (name, size, severity) -> arrays that have the same shapes for all severities,
    # so that one program serves them all.
    values: Callable[[str, int, int], Arrays]
    # (seeds [N, 2], images uint8 [N, S, S, 3], values) -> uint8 [N, S, S, 3]
    apply: Callable[[jax.Array, jax.Array, Values], jax.Array]


# All but JPEG, which isn't computed on the device.
_CORRUPTIONS: dict[str, _Corruption] = {
    "gaussian_noise": _Corruption(named("scale"), noise.gaussian_noise),
    "shot_noise": _Corruption(noise.shot_table, noise.shot_noise),
    "impulse_noise": _Corruption(named("scale"), noise.impulse_noise),
    "defocus_blur": _Corruption(blur.disk, blur.defocus_blur),
    "glass_blur": _Corruption(blur.glass_values, blur.glass_blur),
    "motion_blur": _Corruption(blur.motion_kernel, blur.motion_blur),
    "zoom_blur": _Corruption(blur.zoom_matrices, blur.zoom_blur),
    "snow": _Corruption(weather.snow_values, weather.snow),
    "frost": _Corruption(named("image", "photograph"), weather.frost),
    "fog": _Corruption(named("bright", "decay"), weather.fog),
    "brightness": _Corruption(named("scale"), digital.brightness),
    "contrast": _Corruption(named("scale"), digital.contrast),
    "elastic_transform": _Corruption(digital.elastic_values, digital.elastic_transform),
    "pixelate": _Corruption(digital.pixelate_matrix, digital.pixelate),
    "speckle_noise": _Corruption(named("scale"), noise.speckle_noise),
    "gaussian_blur": _Corruption(blur.gaussian_matrix, blur.gaussian_blur),
    "spatter": _Corruption(spatter.spatter_values, spatter.spatter),
    "saturate": _Corruption(named("factor", "shift"), digital.saturate),
}
_ORDER = (*CORRUPTIONS, *EXTRA_CORRUPTIONS)


def corrupt(
    key: jax.Array,
    images: npt.ArrayLike,
    name: str,
    severity: int,
    *,
    indices: npt.ArrayLike | None = None,
    frost: Frost = None,
    chunk: int | None = None,
) -> jax.Array:
    """Corrupts images. uint8 [N, S, S, 3] -> uint8 [N, S, S, 3].

    Strengths are those of CIFAR-10-C for 32 pixels and of ImageNet-C for 224, in
    between interpolated. Levels are truncated, as the benchmark's are. May be called
    under ``jit``, with ``name`` and ``severity`` fixed.

    Args:
        key: of the whole set; an image's draw also depends on its index, the name and
            the severity.
        images: RGB, square.
        name: one of ``CORRUPTIONS`` or ``EXTRA_CORRUPTIONS``.
        severity: 1 to 5.
        indices: int [N], the images' numbers in the set; 0, 1 ... without it. With
            them a set can be corrupted in parts.
        frost: for "frost", photographs (uint8 [H, W, 3] each), or the folder that has
            them; None takes those of the installed package ``imagecorruptions``.
        chunk: images worked on at a time; None chooses.

    Raises:
        ValueError: an unknown name or severity, images of another shape or type, or a
            chunk below 1.
        FileNotFoundError: there are no photographs of frost.
    """
    check(name, severity)
    shape, kind = np.shape(images), getattr(images, "dtype", None)
    if kind != np.uint8:
        raise ValueError(f"images must be uint8, not {kind}")
    if len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3:
        raise ValueError(f"images must be [N, S, S, 3], not {list(shape)}")
    count, size = shape[:2]
    if size < MINIMUM_SIZE:
        raise ValueError(f"images must have {MINIMUM_SIZE} pixels or more, not {size}")
    numbers = np.arange(count) if indices is None else indices
    if np.shape(numbers) != (count,):
        raise ValueError(f"indices must be [{count}], not {list(np.shape(numbers))}")
    chunk = default_chunk(size) if chunk is None else knobs.whole("chunk", chunk)
    if name == "jpeg_compression":
        return _jpeg(images, severity)
    values = {k: jnp.asarray(v) for k, v in _values(name, size, severity).items()}
    if name == "frost":
        values |= {k: jnp.asarray(v) for k, v in _sheets(frost, size).items()}
    stream = jax.random.fold_in(key, _ORDER.index(name) * 8 + severity)
    parts = [
        _part(name, stream, images, numbers, start, min(chunk, count - start), values)
        for start in range(0, count, chunk)
    ]
    if not parts:
        return jnp.zeros(shape, jnp.uint8)
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def default_chunk(size: int) -> int:
    """The number of images of ``size`` pixels that ``corrupt`` works on at a time."""
    on_cpu = jax.default_backend() == "cpu"
    pixels = _CPU_PIXELS if on_cpu else _ACCELERATOR_PIXELS
    return 1 << max(pixels // size**2, 1).bit_length() - 1  # a power of two


def _part(
    name: str,
    stream: jax.Array,
    images: Any,
    numbers: Any,
    start: int,
    count: int,
    values: Values,
) -> jax.Array:
    """Corrupts ``count`` images from ``start`` on."""
    # Few sizes, so few programs.
    least = min(_LEAST_ROWS, default_chunk(images.shape[1]))
    rows = max(1 << max(count - 1, 0).bit_length(), least)
    here = slice(start, start + count)
    part, number = images[here], numbers[here]
    if rows != count:
        # NumPy where it can be: the device would compile for each number of rows.
        xp = np if isinstance(part, np.ndarray) else jnp
        part = xp.concatenate([part, xp.repeat(part[:1], rows - count, axis=0)])
        number = jnp.concatenate(
            [jnp.asarray(number), jnp.zeros(rows - count, jnp.int32)]
        )
    seeds = fast_random.make_seeds(stream, jnp.asarray(number, jnp.uint32))
    result = _program(name)(seeds, part, values)
    return result[:count] if rows != count else result


@functools.cache
def _program(name: str) -> Callable[..., jax.Array]:
    return jax.jit(_CORRUPTIONS[name].apply)


@functools.lru_cache(maxsize=len(_ORDER) * len(SEVERITIES))
def _values(name: str, size: int, severity: int) -> Arrays:
    return _CORRUPTIONS[name].values(name, size, severity)


def _sheets(frost: Frost, size: int) -> Arrays:
    if frost is None or isinstance(frost, str | os.PathLike):
        return _sheets_of(os.fspath(frost) if frost else "", size)
    return weather.frost_sheets(list(frost), size)


@functools.lru_cache(maxsize=4)
def _sheets_of(folder: str, size: int) -> Arrays:
    return weather.frost_sheets(frost_files.load(folder), size)


def _jpeg(images: Any, severity: int) -> jax.Array:
    compress = functools.partial(digital.jpeg_compression, severity=severity)
    if isinstance(images, jax.core.Tracer):
        like = jax.ShapeDtypeStruct(images.shape, jnp.uint8)
        return jax.pure_callback(compress, like, images, vmap_method="sequential")
    return jnp.asarray(compress(images))
