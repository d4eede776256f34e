"""The corruptions of CIFAR-10-C, ImageNet-C and C-bar, batched and on the device.

Fifteen corruptions make the benchmark, four more are held out (Hendrycks & Dietterich,
"Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR
2019). Ten others, unlike these, are C-bar: one ten for CIFAR-10, one for ImageNet
(Mintun et al., "On Interaction Between Augmentations and Corruptions in Natural
Corruption Robustness", NeurIPS 2021). Each has five severities. What an image becomes
depends on the key, the name, the severity and the image's index alone, never on the
images beside it.
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
from apr_jax.config import (
    C_BAR,
    C_BAR_CIFAR,
    C_BAR_IMAGENET,
    CORRUPTION_SETS,
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
)
from apr_jax.corruptions import (
    blur,
    covers,
    device_jpeg,
    digital,
    frost_files,
    noise,
    patterns,
    spatter,
    warps,
    weather,
)
from apr_jax.corruptions.constants import (
    PUBLISHED,
    SEVERITIES,
    Arrays,
    Shape,
    Values,
    check,
    named,
    published,
    scaled,
)
from apr_jax.gates import images as gates
from apr_jax.gates import knobs
from apr_jax.target import target_platform

__all__ = [
    "CORRUPTIONS",
    "C_BAR",
    "C_BAR_CIFAR",
    "C_BAR_IMAGENET",
    "EXTRA_CORRUPTIONS",
    "JPEG",
    "PUBLISHED",
    "SEVERITIES",
    "STORED",
    "check",
    "corrupt",
    "default_chunk",
    "names_of",
    "published",
    "published_form",
]

MINIMUM_SIZE = 8
# What becomes of results; see ``corrupt``.
STORED = ("array", "jpeg")
# Who compresses: Pillow on the host, or a program of the device.
JPEG = ("pillow", "device")
# Of the published files, which are JPEG from this size on.
_QUALITY, _LEAST_JPEG = 85, 64
# Pixels worked on at a time. On a CPU they should stay in its caches.
_CPU_PIXELS, _ACCELERATOR_PIXELS = 2**18, 2**22
# What is less is filled up.
_LEAST_ROWS = 16

Frost = str | os.PathLike[str] | Sequence[npt.NDArray[np.uint8]] | None


class _Corruption(NamedTuple):
    # (name, shape, severity) -> arrays that have the same shapes for all severities,
    # so that one program serves them all.
    values: Callable[[str, Shape, int], Arrays]
    # (seeds [N, 2], images uint8 [N, H, W, 3], values) -> uint8 [N, H, W, 3]
    apply: Callable[[jax.Array, jax.Array, Values], jax.Array]


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
    # On the device, that is.
    "jpeg_compression": _Corruption(device_jpeg.values, device_jpeg.compress),
    "speckle_noise": _Corruption(named("scale"), noise.speckle_noise),
    "gaussian_blur": _Corruption(blur.gaussian_matrix, blur.gaussian_blur),
    "spatter": _Corruption(spatter.spatter_values, spatter.spatter),
    "saturate": _Corruption(named("factor", "shift"), digital.saturate),
    "blue_noise_sample": _Corruption(scaled(level=0.3), patterns.blue_noise_sample),
    "brownish_noise": _Corruption(scaled(intensity=6.4), patterns.brownish_noise),
    "checkerboard_cutout": _Corruption(scaled(share=0.1), covers.checkerboard_cutout),
    "inverse_sparkles": _Corruption(scaled(power=0.13), covers.inverse_sparkles),
    "pinch_and_twirl": _Corruption(scaled(level=1), warps.pinch_and_twirl),
    "ripple": _Corruption(scaled(height=0.0025), warps.ripple),
    "circular_motion_blur": _Corruption(
        warps.circular_values, warps.circular_motion_blur
    ),
    "lines": _Corruption(covers.line_values, covers.lines),
    "sparkles": _Corruption(scaled(radius=0.01), covers.sparkles),
    "transverse_chromatic_abberation": _Corruption(
        warps.chromatic_values, warps.chromatic
    ),
    "plasma_noise": _Corruption(scaled(intensity=6.4), patterns.plasma),
    "cocentric_sine_waves": _Corruption(scaled(intensity=12.8), patterns.sine_waves),
    "single_frequency_greyscale": _Corruption(
        scaled(intensity=19.6), patterns.single_frequency
    ),
    "caustic_refraction": _Corruption(
        warps.refraction_values, warps.caustic_refraction
    ),
    "perlin_noise": _Corruption(scaled(share=0.05), patterns.perlin),
}
# The order numbers the draws.
_ORDER = (*CORRUPTIONS, *EXTRA_CORRUPTIONS, *C_BAR)


def corrupt(
    key: jax.Array,
    images: npt.ArrayLike,
    name: str,
    severity: int,
    *,
    indices: npt.ArrayLike | None = None,
    frost: Frost = None,
    chunk: int | None = None,
    stored_as: str = "array",
    jpeg: str = "pillow",
) -> jax.Array:
    """Corrupts images. uint8 [N, H, W, 3] -> uint8 [N, H, W, 3].

    Strengths are those of the published set of that size (``PUBLISHED``, the shorter
    side counts), in between interpolated; ``published`` says which. Levels are
    truncated, as the benchmark's are. May be called under ``jit``, with ``name`` and
    ``severity`` fixed.

    Args:
        key: of the whole set, of any kind; an image's draw also depends on its index,
            the name and the severity.
        images: RGB; or grey, of one channel, which becomes RGB; or a single image, [H,
            W, 3], [H, W, 1] or [H, W], which gives [H, W, 3].
        name: one of ``CORRUPTIONS``, ``EXTRA_CORRUPTIONS`` or ``C_BAR``.
        severity: 1 to 5.
        indices: int [N], the images' numbers in the set; 0, 1 ... without it. With
            them a set can be corrupted in parts. Of a single image a number.
        frost: for "frost", photographs (uint8 [H, W, 3] each), or the folder that has
            them; None takes those of the installed package ``imagecorruptions``.
        chunk: images worked on at a time; None chooses.
        stored_as: one of ``STORED``; "jpeg" puts each result through a JPEG file of
            quality 85, as the published sets of 64 pixels and more are stored.
        jpeg: one of ``JPEG``, for "jpeg_compression" and ``stored_as``: "pillow" calls
            the host, and can't be exported; "device" computes what libjpeg does.

    Raises:
        TypeError: no key.
        ValueError: an unknown name or severity, images of another shape or type, or a
            number out of range.
        FileNotFoundError: there are no photographs of frost.
    """
    check(name, severity)
    if stored_as not in STORED:
        raise ValueError(f"stored_as is {stored_as!r}; choose from {STORED}")
    if jpeg not in JPEG:
        raise ValueError(f"jpeg is {jpeg!r}; choose from {JPEG}")
    batch, single = _as_batch(images)
    count, height, width, _ = batch.shape
    numbers = np.arange(count) if indices is None else indices
    if single and np.shape(numbers) == ():
        numbers = np.asarray(numbers)[None]
    if np.shape(numbers) != (count,):
        raise ValueError(f"indices must be [{count}], not {list(np.shape(numbers))}")
    area = height * width
    chunk = _chunk(area) if chunk is None else knobs.whole("chunk", chunk)
    if count == 0:
        return jnp.zeros(batch.shape, jnp.uint8)

    there, stored = jpeg == "device", stored_as == "jpeg"

    def run(**given: Any) -> jax.Array:
        if name == "jpeg_compression" and not there:
            quality = digital.jpeg_quality((height, width), severity)
            found = _through_jpeg(given["images"], quality)
        else:
            with gates.without_x64():
                found = _corrupted(
                    **given,
                    name=name,
                    severity=severity,
                    frost=frost,
                    stored=stored and there,
                )
        return _through_jpeg(found, _QUALITY) if stored and not there else found

    given = {
        "key": fast_random.typed_keys(key),
        "images": batch,
        "numbers": numbers,
        "chunk": chunk,
    }
    if isinstance(batch, jax.Array):
        found = gates.on_its_mesh(run, given, batch)
    else:
        found = run(**given)
    return found[0] if single else found


def names_of(sets: Sequence[str], shape: Shape) -> tuple[str, ...]:
    """The corruptions of sets: "c" (the fifteen), "extra" (the four) or "c_bar" (ten).

    C-bar's are those of CIFAR-10-C-bar up to 64 pixels (the shorter side counts), of
    ImageNet-C-bar above.

    Raises:
        ArgumentError: an unknown set.
    """
    bar = C_BAR_CIFAR if min(shape) <= _LEAST_JPEG else C_BAR_IMAGENET
    each = (CORRUPTIONS, EXTRA_CORRUPTIONS, bar)
    known = dict(zip(CORRUPTION_SETS, each, strict=True))
    chosen = [knobs.one_of("set", name, known) for name in sets]
    return tuple(name for one in chosen for name in known[one])


def published_form(shape: Shape) -> str:
    """The one of ``STORED`` that published sets of that size have."""
    return "jpeg" if min(shape) >= _LEAST_JPEG else "array"


def default_chunk(size: int) -> int:
    """The number of images of ``size`` pixels that ``corrupt`` works on at a time."""
    return _chunk(size**2)


def _chunk(area: int) -> int:
    on_cpu = target_platform() == "cpu"
    pixels = _CPU_PIXELS if on_cpu else _ACCELERATOR_PIXELS
    return 1 << max(pixels // area, 1).bit_length() - 1  # a power of two


def _as_batch(images: Any) -> tuple[Any, bool]:
    """The images as uint8 [N, H, W, 3], and whether there was a single one alone."""
    shape, kind = np.shape(images), getattr(images, "dtype", None)
    if kind != np.uint8:
        raise ValueError(
            f"images must be uint8, not {kind}: of pixels in [0, 1] give (255 * images)"
            ".round().astype(uint8)"
        )
    single = len(shape) < 4
    whole = (*shape, 1) if len(shape) == 2 else shape
    whole = (1, *whole) if single else whole
    if len(whole) != 4 or whole[3] not in (1, 3):
        raise ValueError(
            "images must be [N, H, W, C] with C of 1 or 3, or one [H, W, C] or [H, W], "
            f"not {list(shape)}"
        )
    if min(whole[1:3]) < MINIMUM_SIZE:
        raise ValueError(
            f"images must have {MINIMUM_SIZE} pixels or more, not {min(whole[1:3])}"
        )
    batch = images if whole == shape else images.reshape(whole)
    if whole[3] == 1:
        xp = np if isinstance(batch, np.ndarray) else jnp
        batch = xp.concatenate([batch] * 3, axis=-1)
    return batch, single


def _corrupted(
    key: jax.Array,
    images: Any,
    numbers: Any,
    chunk: int,
    *,
    name: str,
    severity: int,
    frost: Frost,
    stored: bool,
) -> jax.Array:
    """``corrupt`` of images that are checked; ``stored``: as JPEG, by the device."""
    count, *shape = images.shape[:3]
    size = (shape[0], shape[1])
    values = {k: jnp.asarray(v) for k, v in _values(name, size, severity).items()}
    if name == "frost":
        values |= {k: jnp.asarray(v) for k, v in _sheets(frost, size).items()}
    stream = jax.random.fold_in(key, _ORDER.index(name) * 8 + severity)
    part = functools.partial(_part, name, stream, images, numbers, stored=stored)
    parts = [
        part(start, min(chunk, count - start), values)
        for start in range(0, count, chunk)
    ]
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def _part(
    name: str,
    stream: jax.Array,
    images: Any,
    numbers: Any,
    start: int,
    count: int,
    values: Values,
    *,
    stored: bool,
) -> jax.Array:
    """Corrupts ``count`` images from ``start`` on."""
    # Few sizes, so few programs.
    least = min(_LEAST_ROWS, _chunk(images.shape[1] * images.shape[2]))
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
    if stored:
        table = {k: jnp.asarray(v) for k, v in device_jpeg.tables(_QUALITY).items()}
        result = _program("jpeg_compression")(seeds, result, table)
    return result[:count] if rows != count else result


@functools.cache
def _program(name: str) -> Callable[..., jax.Array]:
    return jax.jit(_CORRUPTIONS[name].apply)


@functools.lru_cache(maxsize=len(_ORDER) * len(SEVERITIES))
def _values(name: str, shape: Shape, severity: int) -> Arrays:
    return _CORRUPTIONS[name].values(name, shape, severity)


def _sheets(frost: Frost, shape: Shape) -> Arrays:
    if frost is None or isinstance(frost, str | os.PathLike):
        return _sheets_of(os.fspath(frost) if frost else "", shape)
    return weather.frost_sheets(list(frost), shape)


@functools.lru_cache(maxsize=4)
def _sheets_of(folder: str, shape: Shape) -> Arrays:
    return weather.frost_sheets(frost_files.load(folder), shape)


def _through_jpeg(images: Any, quality: int) -> jax.Array:
    compress = functools.partial(digital.jpeg, quality=quality)
    if isinstance(images, jax.core.Tracer):
        like = jax.ShapeDtypeStruct(images.shape, jnp.uint8)
        there = lambda x: compress(np.asarray(x))
        return jax.pure_callback(there, like, images, vmap_method="sequential")
    return jnp.asarray(compress(np.asarray(images)))
