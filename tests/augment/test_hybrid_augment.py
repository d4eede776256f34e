"""HybridAugment and HybridAugment++ against SciPy and NumPy from the same draws."""

import importlib

import jax
import numpy as np
import pytest
import scipy.ndimage

from apr_jax import augment
from apr_jax.augment import ops
from tests import oracle

# Functions of the package hide these modules of their names.
hybrid_lib = importlib.import_module("apr_jax.augment.hybrid_augment")
single_lib = importlib.import_module("apr_jax.augment.apr_single")

COUNT = 10
BLUR = ("low", "kernel", "sigma", "radius")
pair = {
    False: jax.jit(augment.hybrid_augment, static_argnames=(*BLUR, "per", "clip")),
    True: jax.jit(augment.hybrid_augment_pp, static_argnames=(*BLUR, "per", "clip")),
}
alone = jax.jit(
    augment.hybrid_augment_single, static_argnames=(*BLUR, "plus", "ops", "chunk")
)


@pytest.fixture
def pixels(rng):
    return rng.random((COUNT, 7, 10, 3), np.float32)


def low_part(images, *, kernel=3, sigma=0.5):
    """SciPy's Gaussian with the border mirrored, cut at the kernel's reach."""
    taps = np.exp(-0.5 * (np.arange(-(kernel // 2), kernel // 2 + 1) / sigma) ** 2)
    for axis in (1, 2):
        images = scipy.ndimage.convolve1d(
            np.asarray(images, np.float64), taps / taps.sum(), axis=axis, mode="mirror"
        )
    return images


blur = jax.jit(
    hybrid_lib.low_part, static_argnames=("low", "kernel", "sigma", "radius")
)


@pytest.mark.parametrize(("kernel", "sigma"), [(3, 0.5), (7, 2.0)])
def test_blur_is_scipys(pixels, kernel, sigma):
    got = blur(pixels, kernel=kernel, sigma=sigma)
    want = low_part(pixels, kernel=kernel, sigma=sigma)
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_radial_low_part_is_the_mask(pixels):
    got = blur(pixels, low="radial", radius=3)
    np.testing.assert_allclose(got, oracle.low_pass(pixels, 3), atol=1e-5)


@pytest.mark.parametrize(("plus", "low"), [(False, "radial"), (True, "gaussian")])
def test_pair_is_the_formula(key, rng, pixels, plus, low):
    high_from, amplitude_from = rng.permutation(COUNT), rng.permutation(COUNT)
    index = {"donor_index": high_from}
    if plus:
        index |= {"amplitude_index": amplitude_from, "pair_prob": 1.0}
    got = pair[plus](key, pixels, prob=1.0, low=low, radius=3, **index)
    own = low_part(pixels) if low == "gaussian" else oracle.low_pass(pixels, 3)
    want = (pixels - own)[high_from]
    if plus:
        own = np.stack(
            [oracle.recombine(own[a], own[i]) for i, a in enumerate(amplitude_from)]
        )
    np.testing.assert_allclose(got, own + want, atol=1e-5)


@pytest.mark.parametrize("plus", [False, True])
def test_pair_with_itself_and_without_luck_changes_nothing(key, pixels, plus):
    own = {"donor_index": np.arange(COUNT)}
    if plus:
        own |= {"amplitude_index": np.arange(COUNT)}
    same = pair[plus](key, pixels, prob=1.0, **own)
    np.testing.assert_allclose(same, pixels, atol=1e-5)
    never = pair[plus](key, pixels, prob=0.0, **own)
    np.testing.assert_array_equal(never, pixels)


@pytest.mark.slow
def test_coins_are_each_images_own(key, pixels):
    got = pair[True](key, pixels, prob=0.5, per="image", clip=True)
    changed = (np.asarray(got) != pixels).any((1, 2, 3))
    assert 0 < changed.sum() < COUNT
    assert 0 <= got.min() <= got.max() <= 1


def test_donors_may_come_from_another_pool(key, pixels):
    pool = np.stack([pixels[::-1], pixels]).reshape(-1, *pixels.shape[1:])
    index = COUNT + np.roll(np.arange(COUNT), 1)
    for plus in (False, True):
        kept = {"amplitude_index": index} if plus else {}
        within = {k: v - COUNT for k, v in kept.items()}
        got = pair[plus](key, pixels, prob=1.0, donors=pool, donor_index=index, **kept)
        want = pair[plus](key, pixels, prob=1.0, donor_index=index - COUNT, **within)
        np.testing.assert_allclose(got, want, atol=1e-5)


def levels(values):
    return np.clip(np.round(values), 0, 255)


@pytest.mark.parametrize("plus", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_single_is_pillow_and_the_formula(key, plus):
    photos = oracle.photo_crops((15, 18), 24)
    got = np.asarray(alone(key, photos, plus=plus), np.int64)
    draws = np.asarray(single_lib.draw_single(key, 24))
    inner_keys = hybrid_lib.inner_keys(key, 24)
    names = ops.OP_SETS["base"]
    mixed_any, away = 0, []
    for i, image in enumerate(photos):
        u = draws[:, i]

        def operation(image, name, strength, turn):
            name = names[int(name * len(names))]
            level = 0.1 + float(strength) * 2.9
            return oracle.pillow_op(image, name, level, bool(turn < 0.5))

        want = operation(image, *u[:3])
        if u[6] < 0.5:
            mixed_any += 1
            versions = (want, operation(want, *u[3:6]))
            low_from, high_from = versions[::-1] if u[7] < 0.5 else versions
            own = low_part(low_from[None])
            high = high_from - low_part(high_from[None])
            if plus:
                # APR-S itself has a test of its own.
                inner = inner_keys[i : i + 1]
                own = np.asarray(inner_single(inner, levels(own).astype(np.uint8)))
            want = levels(own + high)[0]
        away.append(np.abs(got[i] - want))
    assert 5 < mixed_any < 19
    assert np.mean(np.array(away) <= 1) > 0.98
    assert np.median(np.max(away, axis=(1, 2, 3))) <= 1


inner_single = jax.jit(augment.apr_single)


def test_wrong_arguments_are_named(key, pixels):
    with pytest.raises(ValueError, match=r"'haar'.*gaussian.*radial"):
        hybrid_lib.low_part(pixels, low="haar")
    with pytest.raises(ValueError, match="odd"):
        hybrid_lib.low_part(pixels, kernel=4)
    with pytest.raises(ValueError, match=r"'all'.*batch.*image"):
        augment.hybrid_augment(key, pixels, per="all")
    with pytest.raises(TypeError, match="uint8"):
        augment.hybrid_augment_pp(key, (pixels * 255).astype(np.uint8))
