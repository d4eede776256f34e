"""Mollification against SciPy's cosine transform, NumPy, and its distributions."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import fft, special, stats

from apr_jax import augment
from apr_jax.augment import mollification
from apr_jax.errors import ArgumentError
from apr_jax.train import losses, views
from tests import toy

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def spread(image, width):
    """An image [H, W, C] after heat has spread, by SciPy in float64."""
    rows, columns = (np.pi * np.arange(side) / side for side in image.shape[:2])
    kept = np.exp(-(rows[:, None] ** 2 + columns**2) * width**2 / 2)[..., None]
    return fft.idctn(kept * fft.dctn(np.float64(image), axes=(0, 1)), axes=(0, 1))


@pytest.mark.parametrize("shape", [(8, 8), (7, 12)])
def test_blur_is_scipys_cosine_transform(rng, shape):
    images = rng.random((4, *shape, 3)).astype(np.float32)
    widths = np.array([0.3, 1.0, 3.0, max(shape)], np.float32)
    got = jax.jit(mollification.dissipate)(images, widths)
    want = [spread(x, w) for x, w in zip(images, widths, strict=True)]
    np.testing.assert_allclose(got, want, atol=2e-6)
    assert np.ptp(want[3]) < 0.1 * np.ptp(images[3])


@pytest.fixture(scope="module")
def drawn():
    """Many small images: one half dark, one bright, mollified."""
    images = np.full((6000, 4, 4, 3), 0.2, np.float32)
    images[:, :, 2:] = 0.8
    run = jax.jit(lambda key: augment.mollify(key, images, mean=MEAN, std=STD))
    return images, *map(np.asarray, run(jax.random.key(3)))


def kinds(images, mixed, softness):
    """Which are as they were, noised, blurred (their rows stay alike)."""
    same = np.all(mixed == images, (1, 2, 3))
    rows = np.ptp(mixed, 1).max((1, 2)) < 1e-4
    assert (softness[same] == 0).all()
    assert (softness[~same] > 0).all()
    return same, ~same & ~rows, ~same & rows


def test_a_third_of_each_at_times_of_the_beta_distribution(drawn):
    parts = kinds(*drawn)
    assert sum(part.sum() for part in parts) == 6000
    assert stats.chisquare([part.sum() for part in parts]).pvalue > 1e-3
    softness = drawn[2].astype(np.float64)
    times = {1: 2 / np.pi * np.arcsin(np.sqrt(softness)), 2: softness}
    for kind, time in times.items():
        assert stats.kstest(time[parts[kind]], stats.beta(1, 2).cdf).pvalue > 1e-3


def test_blur_goes_with_the_label(drawn):
    images, mixed, softness = drawn
    chosen = np.flatnonzero(kinds(*drawn)[2])[:50]
    for place in chosen:
        time = softness[place]
        width = 0.3 ** (1 - time) * 4.0**time
        want = spread(images[place], width)
        np.testing.assert_allclose(mixed[place], want, atol=2e-5)


def test_noise_goes_with_the_label(drawn):
    images, mixed, softness = drawn
    chosen = kinds(*drawn)[1]
    share = softness[chosen].astype(np.float64)[:, None, None, None]
    normalised = (np.stack([images[chosen], mixed[chosen]]) - MEAN) / np.array(STD)
    noise = (normalised[1] - np.sqrt(1 - share) * normalised[0]) / np.sqrt(share)
    clear = noise[share.ravel() > 0.01].ravel()  # the others in float32 are coarse
    assert stats.kstest(clear[:5000], "norm").pvalue > 1e-3
    apart = np.corrcoef(clear.reshape(-1, 48).T)
    assert np.abs(apart - np.eye(48)).max() < 0.12


def test_keys_of_images_powers_and_types(key):
    images = jnp.full((5, 6, 6, 1), 0.3).at[:, 0].set(0.9)
    keys = jax.random.split(key, 5)
    both = {"noise_power": 2.0, "blur_power": 2.0}
    run = jax.jit(
        lambda keys, images: (
            augment.mollify(keys, images),
            augment.mollify(keys[2:], images[2:], **both),
        )
    )
    one, part = run(keys, images)
    np.testing.assert_allclose(part.images, one.images[2:], atol=1e-6)
    np.testing.assert_allclose(part.softness, one.softness[2:] ** 2, rtol=1e-5)
    half = jax.eval_shape(augment.mollify, keys, images.astype(jnp.bfloat16))
    assert half.images.dtype == jnp.bfloat16
    for name in ("beta", "noise_power", "blur_power"):
        with pytest.raises(ArgumentError, match=f"{name} is 0"):
            augment.mollify(key, images, **{name: 0.0})


# --- In training ---------------------------------------------------------------------


def configured(folder, method):
    return toy.config(
        folder, augment__method=method, augment__crop_pad=0, augment__flip=False
    )


def test_views_are_mollified_last(tmp_path, rng, monkeypatch):
    darker = lambda key, images: augment.Mixed(
        images / 2, jnp.arange(len(images))[::-1], jnp.full(len(images), 0.7)
    )
    stage = augment.Stage(
        lambda key, images, donors, donor_index: darker(key, images), pixels=True
    )
    monkeypatch.setitem(augment.AUGMENTS, "darker", augment.Method(mix=stage))
    images = jnp.asarray(rng.integers(0, 256, (64, 4, 4, 3)), jnp.uint8)
    labels = jnp.arange(64) % 4
    keys = jax.random.split(jax.random.key(0))
    seen = {}
    for name in ("mollify", "darker+mollify", "mollify+apr_p"):
        see = functools.partial(views.make_views, config=configured(tmp_path, name))
        seen[name] = jax.jit(see)(*keys, images, labels, jnp.arange(64))
    found = seen["darker+mollify"]
    assert found.softness.shape == (1, 64)
    clean = np.asarray(found.softness[0]) == 0
    assert 10 < clean.sum() < 35
    np.testing.assert_allclose(
        np.asarray(found.pixels)[clean], np.float32(images)[clean] / 510, atol=1e-6
    )
    assert np.allclose(found.weight, 0.7)
    both = seen["mollify+apr_p"].softness
    assert both.shape == (2, 64)
    assert np.abs(both[0] - both[1]).max() > 0.3  # draws of its own for each view
    np.testing.assert_array_equal(both[0], seen["mollify"].softness[0])


def test_softened_labels_in_the_loss(tmp_path, rng):
    logits = (3 * rng.normal(size=(6, 5))).astype(np.float32)
    y, other = rng.integers(0, 5, (2, 6))
    weight, softness = rng.random((2, 6)).astype(np.float32)
    settings = dataclasses.replace(
        configured(tmp_path, "mollify+mixup").augment, label_smoothing=0.2
    )
    seen = views.Views(
        jnp.zeros(()), y[None], other[None], weight[None], softness=softness[None]
    )
    got = losses.training_loss(jnp.asarray(logits), seen, settings)
    target = weight[:, None] * np.eye(5)[y] + (1 - weight[:, None]) * np.eye(5)[other]
    target = 0.8 * target + 0.2 / 5
    target = (1 - softness[:, None]) * target + softness[:, None] / 5
    want = -(target * special.log_softmax(np.float64(logits), axis=-1)).sum(1).mean()
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_what_it_joins():
    assert augment.get_method("mollify+apr_sp").last is not None
    assert augment.get_method("augmix_no_jsd+mollify").after
    for other in ("augmix", "noisymix", "supclr"):
        with pytest.raises(ValueError, match="softens labels by how an image"):
            augment.get_method(f"mollify+{other}")
