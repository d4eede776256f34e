"""CDES: golden outputs, NumPy and SciPy, both forms of the convolutions, training."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from apr_jax import cdes

SMALL = cdes.Recipe(filters=4, kernel_size=3, epochs=3, batch_size=8)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).uniform(size=(5, 9, 12, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def kernels():
    run = partial(cdes.init_kernels, filters=4, size=3)
    return jax.jit(run, static_argnums=1)(jax.random.key(0), 3)


@pytest.fixture
def golden(shared):
    with np.load(shared / "golden" / "reference.npz") as stored:
        yield stored


def test_target_masks_and_new_images_match_the_reference(golden):
    np.testing.assert_allclose(cdes.double_peak(20), golden["cdes_target"], atol=1e-12)
    for low, high in ((0, 10), (11, 32)):
        mask = cdes.ring_mask(32, 32, low, high)
        np.testing.assert_array_equal(mask, golden[f"cdes_mask_{low}_{high}"])
    images = jnp.asarray(golden["hfc_images"])
    made = jax.jit(cdes.restructure)(images, images[::-1])
    np.testing.assert_allclose(made, golden["cdes_restructured"], atol=2e-6)
    density = jax.jit(cdes.density)(images)
    np.testing.assert_allclose(density, golden["cdes_density"], atol=1e-4)


@pytest.mark.parametrize("shape", [(9, 12), (11, 7), (8, 8)])
def test_restructuring_against_numpy(rng, shape):
    one, other = rng.uniform(size=(2, 3, *shape, 3))
    rows = np.arange(shape[0])[:, None] - (shape[0] - 1) / 2
    columns = np.arange(shape[1])[None] - (shape[1] - 1) / 2
    ring = np.floor(np.hypot(rows, columns) + 0.5)
    joined = 0
    for image, mask in ((one, ring < 2), (other, ring >= 3)):
        spectrum = np.fft.fftshift(np.fft.fft2(image, axes=(1, 2)), axes=(1, 2))
        joined = joined + spectrum * mask[None, :, :, None]
    expected = np.fft.ifft2(np.fft.ifftshift(joined, axes=(1, 2)), axes=(1, 2)).real
    expected -= expected.min((1, 2), keepdims=True)
    expected /= expected.max((1, 2), keepdims=True)
    join = jax.jit(partial(cdes.restructure, low=2, high=3))
    made = join(np.float32(one), np.float32(other))
    np.testing.assert_allclose(made, expected, atol=1e-5)


def test_a_constant_image_stays_finite():
    flat = np.full((1, 32, 32, 3), 0.5, np.float32)
    assert np.isfinite(jax.jit(cdes.restructure)(flat, flat)).all()


@pytest.mark.parametrize("shape", [(9, 12), (16, 16), (7, 13)])
@pytest.mark.parametrize("size", [3, 7])
def test_convolutions_against_scipy(rng, shape, size):
    image = rng.uniform(size=(*shape, 3))
    first = rng.normal(size=(size, size, 3, 4))
    second = rng.normal(size=(size, size, 4, 3))
    # Correlations that keep everything, then the middle of the image's size.
    between = [
        sum(signal.correlate2d(image[..., i], first[..., i, f]) for i in range(3))
        for f in range(4)
    ]
    whole = np.stack(
        [
            sum(signal.correlate2d(between[f], second[..., f, o]) for f in range(4))
            for o in range(3)
        ],
        axis=-1,
    )
    at = size - 1
    expected = whole[at : at + shape[0], at : at + shape[1]]
    kernels = {"first": np.float32(first), "second": np.float32(second)}
    for form in cdes.FORMS:
        run = jax.jit(partial(cdes.convolve, form=form))
        made = run(kernels, np.float32(image)[None])[0]
        np.testing.assert_allclose(made, expected, atol=1e-4 * np.abs(expected).max())


def test_both_forms_have_the_same_gradients(key, images, kernels):
    target = cdes.double_peak(jax.eval_shape(cdes.density, images).shape[-1])
    found = [
        jax.jit(cdes.make_gradient(target, SMALL, form=form))(kernels, images, key)
        for form in cdes.FORMS
    ]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(a).max()),
        *found,
    )


def test_losses_against_numpy(images, kernels):
    made = np.asarray(jax.jit(cdes.convolve)(kernels, images), np.float64)
    grey = made @ np.array([0.2989, 0.5870, 0.1140])
    size = 20 * np.log1p(np.abs(np.fft.fftshift(np.fft.fft2(grey), axes=(1, 2))))
    ring = np.hypot(
        np.arange(9)[:, None] - 4, np.arange(12)[None] - 5.5
    ).astype(int)  # fmt: skip
    profile = np.stack([size[:, ring == k].mean(1) for k in range(1, ring.max())], 1)
    profile -= profile.min(1, keepdims=True)
    profile /= profile.max(1, keepdims=True)
    target = cdes.double_peak(profile.shape[1])
    expected = [np.mean((profile - target) ** 2), np.mean((made - images) ** 2)]
    found = jax.jit(cdes.losses)(kernels, images, np.float32(target))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_noise_is_uniform_up_to_a_share_of_the_mean(key):
    images = np.stack([np.full((40, 40, 3), x, np.float32) for x in (0.2, 0.8)])
    noise = np.asarray(jax.jit(cdes.add_noise)(key, images, 0.1)) - images
    for added, mean in zip(noise, (0.2, 0.8), strict=True):
        assert added.min() >= -1e-7
        assert added.max() <= 0.1 * mean + 1e-7
        assert added.mean() == pytest.approx(0.05 * mean, rel=0.03)


def test_the_optimiser_is_pytorch_s(rng):
    recipe = cdes.Recipe(step_epochs=1)
    chain = cdes.optimiser(recipe, steps_per_epoch=2)
    value = np.float32(rng.normal(size=4))
    expected, buffer = np.float64(value), 0.0
    state, update = chain.init(value), jax.jit(chain.update)
    for step in range(5):
        gradient = rng.normal(size=4)
        updates, state = update(np.float32(gradient), state, value)
        value = value + np.asarray(updates)
        buffer = 0.9 * buffer + gradient + 1e-4 * expected
        expected = expected - 0.01 * 0.1 ** (step // 2) * buffer
    np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "way",
    [pytest.param(w, marks=[pytest.mark.slow] * (w == "vmap")) for w in cdes.WAYS],
)
def test_sets_trained_together_are_trained_alone(key, rng, way):
    sets = rng.integers(0, 256, (2, 19, 8, 9, 3), np.uint8)
    seen = []
    kernels, history = cdes.train(
        key,
        sets,
        recipe=SMALL,
        way=way,
        follow=lambda epoch, losses: seen.append((epoch, losses)),
    )
    assert history.shape == (3, 2, 2)
    assert [epoch for epoch, _ in seen] == [1, 2, 3]
    np.testing.assert_array_equal(seen[1][1], history[1])
    assert kernels["first"].shape == (2, 3, 3, 3, 4)
    # Another second set leaves the first set's kernels alone.
    other, _ = cdes.train(
        key, np.stack([sets[0], 255 - sets[1]]), recipe=SMALL, way="vmap"
    )
    np.testing.assert_allclose(other["first"][0], kernels["first"][0], atol=1e-5)
    assert np.abs(other["first"][1] - kernels["first"][1]).max() > 1e-4


def test_training_comes_closer_to_the_target(key, rng):
    sets = rng.integers(0, 256, (1, 16, 16, 16, 3), np.uint8)
    recipe = dataclasses.replace(
        SMALL, epochs=12, step_epochs=9, learning_rate=0.1, noise=0.0
    )
    kernels, history = cdes.train(key, sets, recipe=recipe)
    total = history.sum(-1)[:, 0]
    assert total[-1] < 0.5 * total[0]
    # The history is of the kernels: measured again, they are as good.
    bands = jax.eval_shape(cdes.density, np.zeros((16, 16, 3))).size
    target = np.float32(cdes.double_peak(bands))
    own = jax.tree.map(lambda leaf: np.asarray(leaf)[0], kernels)
    again = np.sum(jax.jit(cdes.losses)(own, np.float32(sets[0]) / 255, target))
    assert float(again) == pytest.approx(total[-1], rel=0.1)


def test_remade_images_keep_the_low_frequencies(key, rng):
    images = rng.integers(0, 256, (2, 32, 32, 3), np.uint8)
    kernels = jax.jit(cdes.init_kernels, static_argnums=1)(key, 3)
    made = np.asarray(jax.jit(cdes.remake)(kernels, images))
    assert (made.min(), made.max()) == (0, 1)
    spectra = [np.fft.fft2(x, axes=(1, 2)) for x in (np.float32(images), made)]
    # Up to the scale of each channel, and but for the mean, which scaling moves.
    ratio = spectra[1][:, 1:6, 1:6] / spectra[0][:, 1:6, 1:6]
    mean = np.broadcast_to(ratio.mean((1, 2), keepdims=True), ratio.shape)
    np.testing.assert_allclose(ratio, mean, rtol=1e-3)


def test_hars_joins_two_images(rng):
    own, other = np.float32(rng.uniform(0.4, 0.6, (2, 1, 16, 16, 3)))
    made = jax.jit(partial(cdes.foreign_low, radius=4.0))(own, other)
    rows, columns = np.indices((16, 16)) - 8
    keep = np.fft.ifftshift(np.hypot(rows, columns) < 4)[None, :, :, None]
    spectrum = np.where(
        keep, np.fft.fft2(other, axes=(1, 2)), np.fft.fft2(own, axes=(1, 2))
    )
    expected = np.fft.ifft2(spectrum, axes=(1, 2)).real
    np.testing.assert_allclose(made, np.clip(expected, 0, 1), atol=1e-5)


def test_unknown_names_list_the_choices(key, images, kernels):
    with pytest.raises(ValueError, match=r"unknown form 'im2col'.*fft.*conv"):
        cdes.convolve(kernels, images, form="im2col")
    with pytest.raises(ValueError, match=r"unknown way 'pmap'.*vmap.*map"):
        cdes.train(key, images[None], recipe=SMALL, way="pmap")
