"""SimCLR's augmentations against Pillow and colorsys from the same draws."""

import colorsys
import importlib
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from apr_jax import augment

# Functions of the package hide these modules of their names.
simclr_lib = importlib.import_module("apr_jax.augment.simclr")

SHAPES = [(12, 12), (9, 14), (7, 5)]
resized_crop = jax.jit(simclr_lib.resized_crop)
apply_jitter = jax.jit(simclr_lib.apply_jitter)
turn_hue = jax.jit(simclr_lib.turn_hue)
simclr = jax.jit(augment.simclr)
color_jitter = jax.jit(augment.color_jitter)
random_grey = jax.jit(augment.random_grey)
draw_jitter = jax.jit(simclr_lib.draw_jitter)
draw_boxes = jax.jit(simclr_lib.draw_boxes, static_argnames=("height", "width", "area"))


def pixels(rng, count, height, width, channels=3):
    return rng.random((count, height, width, channels)).astype(np.float32)


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_crops_are_pillows(rng, height, width):
    images = pixels(rng, 6, height, width)
    boxes = [(0, 0, height, width), (2, 1, 3, 2), (height - 1, width - 1, 1, 1)]
    boxes += [(1, 0, height - 1, width - 2), (0, 2, 4, 3), (3, 1, 2, width - 1)]
    got = resized_crop(jnp.asarray(images), jnp.array(boxes))
    for image, (top, left, h, w), found in zip(images, boxes, got, strict=True):
        for c in range(3):
            part = Image.fromarray(image[top : top + h, left : left + w, c])
            want = part.resize((width, height), Image.Resampling.BILINEAR)
            np.testing.assert_allclose(found[..., c], np.asarray(want), atol=2e-6)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 31)])
def test_boxes_are_of_every_allowed_size(key, height, width):
    keys = jax.random.split(key, 4000)
    boxes = np.asarray(draw_boxes(keys, height=height, width=width, area=0.2))
    top, left, h, w = boxes.T
    assert (np.minimum(top, left) >= 0).all()
    assert (top + h <= height).all()
    assert (left + w <= width).all()
    share = h * w / (height * width)
    # Sides are rounded, by half a pixel at most.
    slack = 0.5 * (h + w) / (height * width)
    assert (share >= 0.2 - slack).all()
    assert share.min() < 0.25
    assert share.max() > 0.85
    ratio = (w - 0.5) / (h + 0.5), (w + 0.5) / (h - 0.5)
    assert (ratio[0] <= 4 / 3).all()
    assert (ratio[1] >= 3 / 4).all()
    # Small crops are anywhere, and the draw is log-uniform: as many wide as high.
    small = h <= height // 2
    assert {0, height - h[small].min()} <= set(top[small])
    if height == width:
        assert abs(np.mean(w > h) - np.mean(w < h)) < 0.05


def test_no_crop_fits_a_narrow_image(key):
    keys = jax.random.split(key, 5)
    boxes = draw_boxes(keys, height=4, width=40, area=1.0)
    # The middle at 4 : 3, rounded.
    np.testing.assert_array_equal(boxes, [[0, 17, 4, 5]] * 5)


def by_hand(image, jitter, i):
    """The four shifts of one image, from their definitions."""
    factors = [float(part[i]) for part in jitter[:3]]
    for op in np.asarray(jitter.order[i]):
        grey = image @ [0.299, 0.587, 0.114]
        if op == 3:
            turned = np.empty_like(image)
            for at in np.ndindex(image.shape[:2]):
                h, s, v = colorsys.rgb_to_hsv(*image[at])
                turned[at] = colorsys.hsv_to_rgb((h + float(jitter.hue[i])) % 1, s, v)
            image = turned
            continue
        base = [0.0, grey.mean(), grey[..., None]][op]
        image = np.clip(base + factors[op] * (image - base), 0, 1)
    return image


def test_jitter_in_every_order(rng):
    orders = np.array(list(itertools.permutations(range(4))), np.int32)
    count = len(orders)
    images = pixels(rng, count, 5, 6)
    images[:, 0] = images[:, 0, :, :1]  # without colour
    images[:, 1, 0], images[:, 1, 1] = 0, 1
    draws = rng.uniform(0.6, 1.4, (3, count)), rng.uniform(-0.1, 0.1, count)
    jitter = simclr_lib.Jitter(*np.float32(draws[0]), np.float32(draws[1]), orders)
    got = apply_jitter(jnp.asarray(images), jax.tree.map(jnp.asarray, jitter))
    for i, image in enumerate(images.astype(np.float64)):
        np.testing.assert_allclose(got[i], by_hand(image, jitter, i), atol=2e-5)


def test_a_whole_turn_of_the_hue_changes_nothing(rng):
    images = jnp.asarray(pixels(rng, 3, 4, 4))
    turned = turn_hue(images, jnp.array([0.0, 1.0, -2.0]))
    np.testing.assert_allclose(turned, images, atol=3e-6)
    red = jnp.broadcast_to(jnp.array([1.0, 0.0, 0.0]), (2, 1, 1, 3))
    third = turn_hue(red, jnp.array([1 / 3, -1 / 3]))
    np.testing.assert_allclose(third[:, 0, 0], [[0, 1, 0], [0, 0, 1]], atol=1e-6)


def test_jitter_is_drawn_around_one(key):
    keys = jax.random.split(key, 2000)
    jitter = jax.device_get(draw_jitter(keys, strength=0.5))
    for part in jitter[:3]:
        assert 0.6 <= part.min() < 0.62
        assert 1.38 < part.max() <= 1.4
    assert -0.1 <= jitter.hue.min() < -0.095
    assert len(np.unique(jitter.order, axis=0)) == 24
    strong = draw_jitter(keys, strength=2.0)
    assert np.min(strong.contrast) >= 0


@pytest.mark.parametrize("channels", [1, 3])
def test_shares_of_grey_and_of_jitter(key, rng, channels):
    images = pixels(rng, 400, 3, 4, channels)
    grey = random_grey(key, images, prob=0.25)
    grey = np.asarray(grey)
    same = np.all(grey == images, axis=(1, 2, 3))
    if channels == 3:
        assert abs(np.mean(~same) - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 400)
        np.testing.assert_allclose(np.ptp(grey[~same], axis=-1), 0, atol=1e-6)
    else:
        assert same.all()
    shifted = color_jitter(key, images, prob=0.8)
    same = np.all(np.asarray(shifted) == images, axis=(1, 2, 3))
    assert abs(np.mean(~same) - 0.8) < 4 * math.sqrt(0.8 * 0.2 / 400)


def test_an_image_depends_on_its_own_key_alone(key, rng):
    images = pixels(rng, 6, 8, 8)
    keys = jax.random.split(key, 6)
    chances = {"jitter_prob": 0.8, "grey_prob": 0.2}
    whole = np.asarray(simclr(keys, images, **chances))
    order = np.array([4, 0, 5, 1, 3, 2])
    other = simclr(keys[order], images[order], **chances)
    np.testing.assert_allclose(other, whole[order])
    assert whole.min() >= 0
    assert whole.max() <= 1
    assert np.all(np.abs(whole - images).max((1, 2, 3)) > 0.01)
    # Without chances for colours what is left is the crop.
    cropped = simclr(keys, images, jitter_prob=0.0, grey_prob=0.0)
    first = jax.vmap(lambda k: jax.random.split(k, 3)[0])(keys)
    boxes = draw_boxes(first, height=8, width=8, area=0.08)
    np.testing.assert_allclose(cropped, resized_crop(images, boxes), atol=1e-6)


def test_turns_are_against_the_clock(rng):
    images = pixels(rng, 2, 5, 5)
    for turns in range(5):
        got = augment.quarter_turns(jnp.asarray(images), turns)
        for image, found in zip(images, got, strict=True):
            grey = np.uint8(image * 255)
            want = Image.fromarray(grey).rotate(90 * turns)
            np.testing.assert_array_equal(np.uint8(found * 255), np.asarray(want))
    with pytest.raises(ValueError, match="square"):
        augment.quarter_turns(jnp.zeros((1, 4, 5, 3)), 1)


def test_bad_arguments_are_named(key):
    images = jnp.zeros((2, 4, 4, 3))
    with pytest.raises(ValueError, match="area is 0; it must be"):
        augment.simclr(key, images, area=0)
    with pytest.raises(TypeError, match="uint8"):
        augment.color_jitter(key, jnp.zeros((2, 4, 4, 3), jnp.uint8))
    with pytest.raises(ValueError, match="C of 1 or 3"):
        augment.random_grey(key, images[..., :2])
    with pytest.raises(ValueError, match="one per image"):
        augment.random_resized_crop(jax.random.split(key, 3), images)
