"""Strengths of all corruptions, sizes and severities, and what programs make of them.

``strengths.json`` has the figures of the benchmark's generators (Hendrycks & Dietterich
2019) in their order and units; of the zoom blur, where its range of factors ends and
its step.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import corruptions, fast_random
from apr_jax.corruptions import blur, constants, digital, noise, resample, weather
from apr_jax.metrics import corruption as scores

ndimage = pytest.importorskip("scipy.ndimage")
stats = pytest.importorskip("scipy.stats")

PUBLISHED = json.loads(pathlib.Path(__file__).with_name("strengths.json").read_text())
SIZES = ("32", "64", "224", "299")
SEVERITIES = (1, 2, 3, 4, 5)
# Sizes whose arrays are made in a moment.
SMALL = (32, 64)
# In the order of the benchmark's tables, by which columns and means go.
ORDER = [
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
]
HELD_OUT = ["speckle_noise", "gaussian_blur", "spatter", "saturate"]


def figures(name, size, severity):
    found = PUBLISHED[name][str(size)][severity - 1]
    return found if isinstance(found, list) else [found]


def test_the_names_are_the_benchmark_s():
    assert list(corruptions.CORRUPTIONS) == ORDER
    assert list(corruptions.EXTRA_CORRUPTIONS) == HELD_OUT
    assert set(PUBLISHED) == {*ORDER, *HELD_OUT} == set(constants.TABLE)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("size", SIZES)
def test_strengths_are_the_generators(name, size):
    for severity in SEVERITIES:
        side = int(size)
        ours = constants.strength(name, (side, side), severity)
        wanted = figures(name, side, severity)
        if name == "zoom_blur":
            stop, step = wanted
            made = blur._factors(name, (side, side), severity)
            np.testing.assert_allclose(made, np.arange(1, stop, step), rtol=1e-12)
            assert ours[1] == step
        else:
            assert ours == pytest.approx(tuple(wanted), rel=1e-9), severity


def gaussian(size, sigma, **more):
    """SciPy's blur of each unit vector, as a matrix."""
    if not sigma:
        return np.eye(size)
    return ndimage.gaussian_filter1d(np.eye(size), sigma, axis=0, **more)


def taps(radius, sigma, count):
    """One side of a Gaussian as wide as ImageMagick's kernel, then nothing."""
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    return np.pad(weights / weights.sum(), (0, count - len(weights)))


def longest(name, size, place):
    return 2 * max(figures(name, size, s)[place] for s in SEVERITIES) + 1


def zoomed(size, factor):
    """SciPy's zoom of the centre of each unit vector, as a matrix."""
    part = int(np.ceil(size / factor))
    first = (size - part) // 2
    rows = np.eye(size)[first : first + part]
    large = ndimage.zoom(rows, (factor, 1), order=1)
    trim = (len(large) - size) // 2
    return large[trim : trim + size]


def shot(photons):
    """Chances of a level or a lower one, count by count."""
    counts = np.arange(int(4 * photons) + 40)
    levels = np.minimum(255 * counts / photons + 1e-9, 255).astype(int)
    chance = stats.poisson.pmf(counts[None], np.arange(256)[:, None] / 255 * photons)
    return np.cumsum(np.stack([np.bincount(levels, c, 256) for c in chance]), axis=1)


def wanted_of(name, size, severity):
    """The arrays that a corruption's program is given, from libraries and figures."""
    values = figures(name, size, severity)
    smooth = lambda sigma, **more: gaussian(size, sigma, mode="nearest", **more)
    both = lambda kind, matrix: {f"{kind}_down": matrix, f"{kind}_along": matrix}
    if name == "shot_noise":
        return {"below": shot(values[0])}
    if name in ("gaussian_noise", "impulse_noise", "speckle_noise"):
        return {"scale": values[0]}
    if name in ("brightness", "contrast"):
        return {"scale": values[0]}
    if name == "gaussian_blur":
        return both("blur", smooth(values[0]))
    if name == "glass_blur":
        sigma, farthest, rounds = values
        return both("blur", smooth(sigma)) | {"farthest": farthest, "rounds": rounds}
    if name == "motion_blur":
        return {"taps": taps(*values, longest(name, size, 0))}
    if name == "snow":
        mean, deviation, factor, threshold, radius, sigma, keep = values
        parts = {"mean": mean, "deviation": deviation, "threshold": threshold}
        parts |= {"taps": taps(radius, sigma, longest(name, size, 4)), "keep": keep}
        return parts | both("zoom", zoomed(size, factor))
    if name == "frost":
        return {"image": values[0], "photograph": values[1]}
    if name == "fog":
        return {"bright": values[0], "decay": values[1]}
    if name == "elastic_transform":
        farthest, sigma, shift = values
        matrix = gaussian(size, sigma, mode="reflect", truncate=3)
        return both("smooth", matrix) | {"farthest": farthest, "shift": shift}
    if name == "spatter":
        mean, deviation, sigma, threshold, last, mud = values
        parts = {"mean": mean, "deviation": deviation, "threshold": threshold}
        parts |= {"strength": last, "mud": mud} | both("smooth", smooth(sigma))
        return parts | both("blur", smooth(last) if mud else np.eye(size))
    assert name == "saturate", "what its program is given has to be said here"
    return {"factor": values[0], "shift": values[1]}


# Those that draw nothing are compared with whole images of the reference instead.
GIVEN = [
    name
    for name in PUBLISHED
    if name not in ("defocus_blur", "zoom_blur", "pixelate", "jpeg_compression")
]


@pytest.mark.parametrize("name", GIVEN)
def test_programs_are_given_the_strengths(name):
    for size in SMALL:
        for severity in SEVERITIES:
            given = corruptions._values(name, (size, size), severity)
            wanted = wanted_of(name, size, severity)
            assert given.keys() == wanted.keys()
            for part, value in wanted.items():
                # Of taps the least ones say where the kernel ends.
                near = {"rtol": 1e-4, "atol": 1e-30 if part == "taps" else 2e-6}
                what = f"{part}, {size} pixels, severity {severity}"
                np.testing.assert_allclose(given[part], value, **near, err_msg=what)


def test_sizes_and_jpeg_of_the_rest():
    for size in map(int, SIZES):
        for severity in SEVERITIES:
            (quality,) = figures("jpeg_compression", size, severity)
            assert digital.jpeg_quality((size, size), severity) == quality
            (share,) = figures("pixelate", size, severity)
            given = digital.pixelate_matrix("pixelate", (size, size), severity)
            rank = np.linalg.matrix_rank(given["coarse_down"])
            assert rank == int(size * share)


def test_photographs_of_frost_are_as_large_as_the_generators():
    """They shrink them to 0.2 for CIFAR, to 0.3 for Tiny ImageNet, else not at all."""
    for size, share in ((32, 0.2), (64, 0.3), (224, 1.0), (299, 1.0)):
        sheet = weather.frost_sheets([np.zeros((400, 500, 3), np.uint8)], (size, size))
        wanted = [round(400 * share), round(500 * share)]
        np.testing.assert_array_equal(sheet["sizes"], [wanted])


def test_levels_are_cut_and_colours_mixed_as_the_generators_do():
    levels = np.array([-3.0, 0.4, 0.999, 1.0, 254.99, 255.0, 300.0], np.float32)
    np.testing.assert_array_equal(
        jax.jit(resample.to_uint8)(levels), [0, 0, 1, 1, 254, 255, 255]
    )
    # Snow that keeps nothing of the image and has no flakes: 1.5 grey + 0.5, or paler.
    pixel = np.array([200, 10, 20], np.uint8)
    values = {
        **{name: np.eye(8, dtype=np.float32) for name in ("zoom_down", "zoom_along")},
        "taps": np.array([1.0], np.float32),
        "mean": np.float32(0),
        "deviation": np.float32(0),
        "threshold": np.float32(0.5),
        "keep": np.float32(0.25),
    }
    seeds = fast_random.make_seeds(jax.random.key(0), jnp.arange(1, dtype=jnp.uint32))
    images = np.broadcast_to(pixel, (1, 8, 8, 3))
    grey = 0.299 * 200 + 0.587 * 10 + 0.114 * 20
    wanted = 0.25 * pixel + 0.75 * np.maximum(pixel, 1.5 * grey + 127.5)
    got = np.asarray(jax.jit(weather.snow)(seeds, images, values))[0, 3, 3]
    np.testing.assert_array_equal(got, np.minimum(wanted, 255).astype(int))
    # Impulses: salt and pepper, either as often.
    grey = np.full((1, 200, 200, 3), 100, np.uint8)
    hit = jax.jit(noise.impulse_noise)(seeds, grey, {"scale": np.float32(0.4)})
    hit = np.asarray(hit)
    shares = [float((hit == level).mean()) for level in (0, 100, 255)]
    np.testing.assert_allclose(shares, [0.2, 0.6, 0.2], atol=0.01)


def test_snow_falls_once_more_upside_down():
    black = np.zeros((3, 32, 32, 3), np.uint8)
    key = jax.random.key(0)
    snow = np.asarray(corruptions.corrupt(key, black, "snow", 2)).astype(int)
    np.testing.assert_array_equal(snow, snow[:, ::-1, ::-1])
    assert (snow != snow[:, ::-1]).mean() > 0.1


def test_errors_of_alexnet_are_the_published_ones():
    """Of Hendrycks & Dietterich's code, in the order of the benchmark."""
    published = """.886428 .894468 .922640 .819880 .826268 .785948 .798360 .866816
    .826572 .819324 .564592 .853204 .646056 .717840 .606500"""
    wanted = dict(zip(ORDER, map(float, published.split()), strict=True))
    assert wanted == scores.ALEXNET_ERROR


def test_finer_parts_of_fog_fade_as_its_decay_says():
    seeds = fast_random.make_seeds(jax.random.key(0), jnp.arange(40, dtype=jnp.uint32))
    plasma = jax.jit(weather._plasma, static_argnums=1)
    rough = []
    for decay in (3.0, 1.5):
        cloud = np.asarray(plasma(seeds, 32, np.float32(decay)))
        rough.append(np.abs(np.diff(cloud, axis=1)).mean())
    assert rough[0] < 0.6 * rough[1]
