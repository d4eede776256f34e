"""TrivialAugment against Pillow, from the same draws, and against what it promises."""

import importlib

import jax
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from apr_jax import augment
from apr_jax.augment import packed
from apr_jax.augment.ops import OP_SETS, OPS, apply_ops
from tests import oracle

# The function of the package hides this module of its name.
trivial = importlib.import_module("apr_jax.augment.trivialaugment")

COUNT = 96
trivialaugment = jax.jit(trivial.trivialaugment, static_argnames=("ops", "chunk"))
draw_operations = jax.jit(
    trivial.draw_operations, static_argnums=1, static_argnames="ops"
)
ENHANCERS = {
    "color": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "brightness": ImageEnhance.Brightness,
    "sharpness": ImageEnhance.Sharpness,
}


def by_pillow(image, name, step, sign):
    """One operation at a strength from 0 to 30, in the units of the paper's table."""
    picture, share = Image.fromarray(image), step / 30
    bilinear = Image.Resampling.BILINEAR
    shear, pixels = sign * 0.99 * share, sign * int(32 * step / 30)
    matrices = {
        "shear_x": (1, shear, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, shear, 1, 0),
        "translate_x": (1, 0, pixels, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, pixels),
    }
    match name:
        case "autocontrast":
            changed = ImageOps.autocontrast(picture)
        case "equalize":
            changed = ImageOps.equalize(picture)
        case "posterize":
            changed = ImageOps.posterize(picture, 8 - round(step / 5))
        case "solarize":
            changed = ImageOps.solarize(picture, 255 - 8.5 * step)
        case "rotate":
            changed = picture.rotate(sign * int(4.5 * step), resample=bilinear)
        case _ if name in matrices:
            affine = Image.Transform.AFFINE
            changed = picture.transform(
                picture.size, affine, matrices[name], resample=bilinear
            )
        case _:
            changed = ENHANCERS[name](picture).enhance(1 + sign * 0.99 * share)
    return np.asarray(changed)


@pytest.fixture(scope="module")
def photos():
    return oracle.photo_crops((39, 46), COUNT)


@pytest.mark.parametrize("chunk", ["all", pytest.param(5, marks=pytest.mark.slow)])
def test_each_image_is_pillows(key, photos, chunk):
    got = np.asarray(trivialaugment(key, photos, chunk=chunk))
    assert got.dtype == np.uint8
    drawn = jax.device_get(draw_operations(key, COUNT, ops="all"))
    seen = set()
    for image, ours, op, step, negate in zip(photos, got, *drawn, strict=True):
        if op == len(OPS):
            np.testing.assert_array_equal(ours, image)
            continue
        wanted = by_pillow(image, OPS[op], int(step), -1 if negate else 1)
        away = np.abs(ours.astype(int) - wanted)
        # A level may be rounded otherwise; a warp may see the edge otherwise.
        assert np.mean(away <= 1) > 0.98, (OPS[op], step, negate)
        seen.add(OPS[op])
    assert len(seen) > 10


ENDS = [
    ("posterize", 0, False),
    ("posterize", 3, False),
    ("posterize", 30, True),
    ("solarize", 0, False),
    ("solarize", 13, False),
    ("solarize", 30, True),
    ("brightness", 30, False),
    ("brightness", 30, True),
    ("contrast", 7, True),
    ("translate_x", 30, False),
    ("translate_x", 29, True),
    ("translate_y", 15, True),
    ("rotate", 30, True),
    ("shear_x", 30, False),
]
RAMP = np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (40, 1, 3))


@pytest.fixture(scope="module")
def at_the_ends():
    """Each operation on a grey ramp, by way of the table of strengths."""
    names, steps, negate = map(np.array, zip(*ENDS, strict=True))
    op = np.array([OPS.index(name) for name in names])
    level = trivial._augmix_levels(OPS, 40, 256)[negate.astype(int), op, steps]
    run = jax.jit(lambda *given: apply_ops(*given, names=OPS, channels=3))
    words = packed.pack(np.stack([RAMP] * len(ENDS)))
    return packed.unpack(run(words, op, np.float32(level), negate), 3)


@pytest.mark.parametrize("place", range(len(ENDS)), ids=lambda i: f"{ENDS[i]}")
def test_the_ends_of_the_ranges(at_the_ends, place):
    name, step, negate = ENDS[place]
    wanted = by_pillow(RAMP, name, step, -1 if negate else 1)
    got = np.asarray(at_the_ends)[place].astype(int)
    assert np.mean(np.abs(got - wanted) <= 1) > 0.99


def test_operations_and_strengths_are_uniform(key):
    number = 6000
    op, step, negate = jax.device_get(draw_operations(key, number, ops="all"))
    # Thirteen operations, and none.
    np.testing.assert_allclose(
        np.bincount(op) / number, np.full(14, 1 / 14), atol=0.015
    )
    np.testing.assert_allclose(
        np.bincount(step) / number, np.full(31, 1 / 31), atol=0.01
    )
    assert abs(negate.mean() - 0.5) < 0.03
    # None of the three says anything of another.
    assert np.abs(np.corrcoef([op, step, negate])[np.triu_indices(3, 1)]).max() < 0.05
    base = jax.device_get(draw_operations(key, number, ops="base"))[0]
    assert set(np.unique(base)) == set(range(len(OP_SETS["base"]) + 1))


def test_an_image_alone_is_augmented_the_same(key, photos):
    """By its own key, whatever is beside it, and as pixels."""
    whole = np.asarray(trivialaugment(key, photos, chunk="all"))
    keys = augment.keys.per_image_keys(key, COUNT)
    few = np.array([7, 2, 9])
    pixels = trivialaugment(keys[few], np.float32(photos[few]) / 255)
    np.testing.assert_allclose(pixels, whole[few] / 255, atol=1e-6)
    grey = jax.eval_shape(trivialaugment, key, photos[..., :1])
    assert grey.shape == (COUNT, 39, 46, 1)


def test_wrong_arguments_are_named(key):
    images = np.zeros((2, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match=r"'some'.*base.*all"):
        trivial.trivialaugment(key, images, ops="some")
    with pytest.raises(ValueError, match="one per image"):
        trivial.trivialaugment(jax.random.split(key, 3), images)
