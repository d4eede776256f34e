"""C-bar, against images and statistics that its published code made.

The code is ``imagenet_c_bar/corrupt.py`` of facebookresearch/augmentation-corruption at
commit ba4d5a5 (Mintun et al., NeurIPS 2021), run under Python 3.11 with NumPy's old
names for ``int`` and ``uint`` put back.

- ``c_bar.npz``: a "picture" of 32 pixels; for each corruption at its fifth severity,
  "NAME/5" is what ``transform`` made of it, and "NAME/5/PARAMETER" what
  ``sample_parameters`` drew. What the code draws from a seed within ``transform`` is
  there as it was drawn: "half" (phases), "lengths" (of rays), "cells", "draw" (of
  lines), "order" and "gradients" (of Perlin's noise). "levels" and "levels_224" are the
  severities of its CSV files, those of the other size where a set lacks a corruption.
- ``c_bar_224.npz``: the same for ImageNet-C-bar's ten and a picture of 224 pixels, of
  which every eighth row and column is there, from the fourth on. "seed" stands for
  phases: it makes them again.
- ``c_bar.json``: name -> severity -> over many calls on the small picture, the mean
  over images of the mean change in grey levels and of its root mean square, the
  standard deviations of both, and the number of images.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import corruptions
from apr_jax.corruptions import constants, covers, patterns, warps
from apr_jax.data import corrupted
from apr_jax.errors import ArgumentError

HERE = pathlib.Path(__file__).parent
STATISTICS = json.loads((HERE / "c_bar.json").read_text())
SEVERITY = 5
SHAPE = (32, 32)


@pytest.fixture(scope="module")
def golden():
    with np.load(HERE / "c_bar.npz") as stored:
        return dict(stored)


def picture(size):
    """Waves, bars on a ramp, and a disk; uint8 [S, S, 3]."""
    y, x = np.mgrid[:size, :size] / size * 32
    disk = (x - 16) ** 2 + (y - 14) ** 2 < 90
    levels = [
        128 + 100 * np.sin(x / 5) * np.cos(y / 7),
        8 * np.floor(x / 8) * 8 + y * 2,
        255 * disk * 0.8 + 20,
    ]
    return np.stack(levels, -1).clip(0, 255).astype(np.uint8)


def one(value, dtype=np.float32):
    """A parameter of a single image, with the axis of images."""
    return np.asarray(value, dtype)[None]


def sparks(p, centers, rays):
    at = np.reshape(p[centers], (-1, 2))
    return {
        "y": one(at[:, 0]),
        "x": one(at[:, 1]),
        "rays": one(np.reshape(p[rays], -1), np.int32),
        "lengths": one(p["lengths"]),
    }


def floats(**names):
    """A function that takes parameters by the published names."""
    return lambda p: {ours: one(p[theirs]) for ours, theirs in names.items()}


def coloured(p):
    half = p["half"]
    middle = np.zeros((1, len(half), half.shape[1] // 2), np.float32)
    return {"half": one(half), "middle": middle}


def of_lines(p):
    y, x, turned = p["draw"].T
    angle = p["angle"] + 2 * np.pi * p["angle_variation"] * (turned - 0.5)
    return {"y": one(32 * y), "x": one(32 * x), "angle": one(angle)}


# Name -> what makes the image, and its parameters from the published ones.
MADE = {
    "blue_noise_sample": (patterns.keep_blue, coloured),
    "brownish_noise": (patterns.add_brownish, coloured),
    "checkerboard_cutout": (
        covers.cut_cells,
        lambda p: {
            "angle": one(p["angle"]),
            "side": one(p["scales"][0]),
            "cells": one(p["cells"]),
        },
    ),
    "inverse_sparkles": (covers.spare_hole, lambda p: sparks(p, "center", "rays")),
    "sparkles": (covers.sparkle, lambda p: sparks(p, "centers", "nrays")),
    "pinch_and_twirl": (
        warps.turn_cells,
        lambda p: {"way": one(np.sign(p["angles"]))},
    ),
    "ripple": (warps.bend_axes, floats(wavelength="wavelengths", phase="phases")),
    "circular_motion_blur": (lambda i, _, v: warps.circular_motion_blur(_, i, v), dict),
    "lines": (covers.cover_lines, of_lines),
    "transverse_chromatic_abberation": (
        warps.enlarge_channels,
        lambda p: {"order": one(p["scales"].argsort().argsort(), np.int32)},
    ),
    "caustic_refraction": (warps.refract, floats(time="time", size="size")),
    "perlin_noise": (
        patterns.add_perlin,
        lambda p: {
            "order": one(p["order"], np.int32),
            "gradients": one(p["gradients"]),
        },
    ),
    "plasma_noise": (
        patterns.add_plasma,
        lambda p: {
            **floats(time="time", sharpness="sharpness", scale="scale")(p),
            "rounds": one(p["iterations"], np.int32),
        },
    ),
    "cocentric_sine_waves": (
        patterns.add_rings,
        lambda p: {
            "x": one(p["offset"][0]),
            "y": one(p["offset"][1]),
            **floats(lobes="freq", height="amplitude", width="ring_width")(p),
        },
    ),
    "single_frequency_greyscale": (
        patterns.add_wave,
        lambda p: {
            "along": one(p["freq"][0]),
            "down": one(p["freq"][1]),
            "phase": one(p["phase"]),
        },
    ),
}


def given(golden, name):
    """What the published code drew for a corruption."""
    start = f"{name}/{SEVERITY}/"
    return {k.removeprefix(start): v for k, v in golden.items() if k.startswith(start)}


def values_of(name, shape):
    values = corruptions._values(name, shape, SEVERITY)
    return {k: jnp.asarray(v) for k, v in values.items()}


def test_names_and_levels_are_the_published_ones(golden):
    assert set(MADE) == set(corruptions.C_BAR) == set(golden["names"])
    for size in (32, 224):
        levels = golden["levels" if size == 32 else "levels_224"]
        for name, five in zip(golden["names"], levels, strict=True):
            got = [constants.strength(name, (size, size), s)[0] for s in range(1, 6)]
            assert got == pytest.approx(list(five)), (name, size)
    names = corruptions.names_of(("c_bar",), (32, 32))
    assert set(names) == set(golden["names"][:10])
    assert len(set(names) & set(corruptions.names_of(("c_bar",), (224, 224)))) == 5
    with pytest.raises(ArgumentError, match="unknown set 'd'; choose from c, extra"):
        corruptions.names_of(("d",), (32, 32))


@pytest.mark.parametrize("name", MADE)
def test_images_are_those_of_the_published_code(golden, name):
    """With its parameters; a level truncates to another one now and then."""
    assert (picture(32) == golden["picture"]).all()
    make, take = MADE[name]
    image = golden["picture"][None]
    own, values = given(golden, name), values_of(name, SHAPE)
    made = np.asarray(jax.jit(make)(image, take(own), values))[0]
    gap = np.abs(made.astype(int) - golden[f"{name}/{SEVERITY}"])
    assert gap.max() <= 1
    assert (gap > 0).mean() < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("name", corruptions.C_BAR_IMAGENET)
def test_large_images_are_those_of_the_published_code(name):
    with np.load(HERE / "c_bar_224.npz") as stored:
        golden = dict(stored)
    make, take = MADE[name]
    own = given(golden, name)
    if "seed" in own:
        fields = 3 if name == "brownish_noise" else 1
        random = np.random.RandomState(own["seed"])
        draw = [random.uniform(0, 2 * np.pi, (224, 112)) for _ in range(fields)]
        own["half"] = np.stack(draw)
    image = jnp.asarray(picture(224))[None]
    made = jax.jit(make)(image, take(own), values_of(name, (224, 224)))[0, 3::8, 3::8]
    gap = np.abs(np.asarray(made).astype(int) - golden[f"{name}/{SEVERITY}"])
    assert (gap > 1).mean() < 0.01
    assert (gap > 0).mean() < 0.05


@pytest.mark.parametrize("name", MADE)
def test_draws_have_the_statistics_of_the_published_code(name):
    count, found = 64, {}
    images = np.stack([picture(32)] * count)
    for severity in (1, 3, 5):
        key = jax.random.key(severity)
        found[severity] = np.asarray(corruptions.corrupt(key, images, name, severity))
        gap = found[severity].astype(np.float64) - images
        ours = np.stack([gap.mean((1, 2, 3)), np.sqrt((gap**2).mean((1, 2, 3)))])
        *theirs, n = STATISTICS[name][str(severity)]
        spread = np.maximum(theirs[2:], ours.std(axis=1))
        # Of both samples; a level's rounding where nothing is drawn.
        near = 4 * np.sqrt(spread**2 / n + spread**2 / count) + 0.1
        assert (np.abs(ours.mean(1) - theirs[:2]) < near).all(), severity
    places = np.arange(count) + 7  # of as many images, so by the same program
    again = np.asarray(corruptions.corrupt(key, images, name, 5, indices=places))
    np.testing.assert_array_equal(again[:-7], found[5][7:])
    drawn = name != "circular_motion_blur"
    assert (found[5][0] != found[5][1]).any() == drawn


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(33, 33), (24, 40), (40, 25), (8, 8), (64, 64)])
@pytest.mark.parametrize("name", MADE)
def test_other_shapes(name, shape):
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 256, (1, *shape, 1)), np.ones((1, 1, 1, 3)))
    for severity in (1, 5):
        got = corruptions.corrupt(
            jax.random.key(0), image.astype(np.uint8), name, severity
        )
        assert got.shape == image.shape
        gap = np.abs(np.asarray(got) - image).mean()
        assert gap < 128
        # Of 8 pixels the cells of pinch and twirl are too small to be turned.
        assert gap > 0.05 or severity == 1 or min(shape) == 8


@pytest.mark.parametrize(
    "ends", [(-11, 8, 52, 8), (3, 50, 3, -9), (0, 0, 31, 31), (40, -3, -20, 9)]
)
def test_lines_are_those_of_a_walk(ends):
    """Level, upright, diagonal and flat ones, against a walk along the line."""
    share = jax.jit(covers.line_share, static_argnums=4)
    got = share(*(np.array([end]) for end in ends), SHAPE)
    wanted = np.zeros(SHAPE)
    for row, column, share in walk_line(*ends):
        if 0 <= row < 32 and 0 <= column < 32:
            wanted[row, column] = share
    np.testing.assert_allclose(np.asarray(got)[0], wanted, atol=1e-6)


def walk_line(y, x, to_y, to_x):
    """Bresenham's walk with smooth edges: (row, column, share) pixel by pixel."""
    wide, tall = abs(to_x - x), abs(to_y - y)
    way_x, way_y = (1 if x < to_x else -1), (1 if y < to_y else -1)
    error, length = wide - tall, np.hypot(wide, tall)
    while True:
        yield y, x, 1 - abs(error - wide + tall) / length
        now, here = error, x
        if 2 * now >= -wide:
            if x == to_x:
                return
            if now + tall < length:
                yield y + way_y, x, 1 - abs(now + tall) / length
            error, x = error - tall, x + way_x
        if 2 * now <= tall:
            if y == to_y:
                return
            if wide - now < length:
                yield y, here + way_x, 1 - abs(wide - now) / length
            error, y = error + wide, y + way_y


def test_circular_blur_of_large_images_is_the_same_blur(monkeypatch):
    """One matrix product, and one rotation after the other."""
    images = jnp.asarray(picture(24))[None]
    results = []
    for most in (32, 0):
        monkeypatch.setattr(warps, "_ONE_MATRIX", most)
        values = warps.circular_values("circular_motion_blur", (24, 24), 5)
        values = {k: jnp.asarray(v) for k, v in values.items()}
        blurred = jax.jit(warps.circular_motion_blur)(None, images, values)
        results.append(np.asarray(blurred).astype(int))
    assert np.abs(results[0] - results[1]).max() <= 1


def test_folders_of_levels_are_severities(tmp_path):
    """As ImageNet-C-bar's, in the order of numbers."""
    for level in ("10.00", "2.35", "9.15", "4.90", "6.60"):
        (tmp_path / "caustic_refraction" / level).mkdir(parents=True)
    found = [corrupted.tree_set(tmp_path, "caustic_refraction", s) for s in range(1, 6)]
    assert [f.name for f in found] == ["2.35", "4.90", "6.60", "9.15", "10.00"]
    (tmp_path / "fog" / "3").mkdir(parents=True)
    assert corrupted.tree_set(tmp_path, "fog", 3).name == "3"
    assert corrupted.tree_set(tmp_path, "fog", 4).name == "4"
