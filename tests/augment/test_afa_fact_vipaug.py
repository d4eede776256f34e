"""Spectral rivals (FACT, FDA, AFA, VIPAug) against NumPy from the same draws."""

import importlib

import jax
import numpy as np
import pytest

from apr_jax import augment, spectral
from apr_jax.augment import afa, fact_fda, ops, vipaug
from tests import oracle

# Functions of the package hide these modules of their names.
single_lib = importlib.import_module("apr_jax.augment.apr_single")

COUNT = 6
amplitude_mix = jax.jit(augment.amplitude_mix, static_argnames=("per", "axes", "clip"))
low_swap = jax.jit(
    augment.low_amplitude_swap, static_argnames=("beta", "axes", "clip", "backend")
)
noise = jax.jit(augment.fourier_basis_noise, static_argnames=("waves", "clip"))
vary = jax.jit(augment.vital_phase, static_argnames="kernel")
vital_single = jax.jit(
    augment.vital_phase_single, static_argnames=("ops", "kernel", "chunk")
)


draw_shares = jax.jit(
    fact_fda.draw_shares, static_argnums=1, static_argnames=("strength", "per")
)
draw_waves = jax.jit(
    afa.draw_waves,
    static_argnums=1,
    static_argnames=("waves", "mean_strength", "least_strength"),
)
draw_phase_noise = jax.jit(vipaug.draw_phase_noise, static_argnums=1)
vital_mask = jax.jit(vipaug.vital_mask, static_argnames="kernel")
filter_bands = jax.jit(spectral.filter_bands)


@pytest.fixture
def pixels(rng):
    return rng.random((COUNT, 7, 10, 3), np.float32)


def polar(images, axes):
    spectrum = np.fft.fftn(np.asarray(images, np.float64), axes=axes)
    return np.abs(spectrum), np.exp(1j * np.angle(spectrum))


@pytest.mark.parametrize("per", ["batch", "image"])
def test_amplitude_mix_is_the_formula(key, rng, pixels, per):
    order = rng.permutation(COUNT)
    got = amplitude_mix(key, pixels, strength=0.8, per=per, donor_index=order)
    shares = draw_shares(jax.random.split(key)[1], COUNT, strength=0.8, per=per)
    shares = np.asarray(shares)
    size, phase = polar(pixels, (1, 2))
    w = np.asarray(shares, np.float64)[:, None, None, None]
    want = np.fft.ifftn(((1 - w) * size + w * size[order]) * phase, axes=(1, 2)).real
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert 0 <= shares.min() <= shares.max() <= 0.8
    assert (len(np.unique(shares)) == 1) == (per == "batch")


@pytest.mark.parametrize(
    "beta", [0.0, 0.3, *(pytest.param(b, marks=pytest.mark.slow) for b in (0.13, 0.5))]
)
def test_low_amplitude_swap_is_the_formula(key, rng, pixels, beta):
    order = rng.permutation(COUNT)
    got = low_swap(key, pixels, beta=beta, donor_index=order)
    size, phase = polar(pixels, (1, 2))
    height, width = pixels.shape[1:3]
    reach = int(np.floor(min(height, width) * beta))
    own = np.fft.fftshift(size, axes=(1, 2))
    swapped = own.copy()
    rows, columns = (
        slice(max(0, side // 2 - reach), side // 2 + reach + 1)
        for side in (height, width)
    )
    swapped[:, rows, columns] = own[order][:, rows, columns]
    swapped = np.fft.ifftshift(swapped, axes=(1, 2))
    want = np.fft.ifftn(swapped * phase, axes=(1, 2)).real
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_amplitudes_of_oneself_change_nothing(key, pixels):
    own = {"donors": pixels, "donor_index": np.arange(COUNT)}
    mixed = amplitude_mix(key, pixels, **own)
    np.testing.assert_allclose(mixed, pixels, atol=1e-5)
    swapped = low_swap(key, pixels, beta=0.3, clip=True, **own)
    np.testing.assert_allclose(swapped, pixels, atol=1e-5)


def test_masks_of_frequencies(pixels):
    mask = np.asarray(spectral.square_mask(9, 12, 2))
    assert mask.sum() == 25
    assert mask[4, 6]
    kept = filter_bands(pixels, np.ones(pixels.shape[1:3], bool))
    np.testing.assert_allclose(kept, pixels, atol=1e-6)
    with pytest.raises(ValueError, match="mask"):
        filter_bands(np.zeros((2, 9, 9, 1), np.float32), np.ones((9, 8), bool))


@pytest.mark.parametrize("number", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_waves_are_the_formula(key, pixels, number):
    strengths = {"mean_strength": 5.0, "least_strength": 0.5}
    got = noise(key, pixels, waves=number, clip=False, **strengths)
    drawn = jax.device_get(draw_waves(key, pixels.shape, waves=number, **strengths))
    _, height, width, channels = pixels.shape
    u = np.linspace(-height / 2, height / 2, height)[:, None]
    v = np.linspace(-width / 2, width / 2, width)[None, :]
    want = pixels.astype(np.float64)
    for i in range(COUNT):
        for c in range(channels):
            for k in range(number):
                f = float(drawn.frequency[i, c, k]) / max(height, width)
                w, s = float(drawn.direction[i, c, k]), float(drawn.strength[i, c, k])
                wave = np.sin(
                    2 * np.pi * f * (u * np.cos(w) + v * np.sin(w)) - np.pi / 4
                )
                wave /= np.linalg.norm(wave)
                want[i, ..., c] += s * np.sqrt(height * width) / 32 * wave / number
    np.testing.assert_allclose(got, want, atol=2e-4)


@pytest.mark.slow
def test_wave_strengths_are_exponential(key):
    drawn = afa.draw_waves(
        key, (500, 9, 12, 3), waves=1, mean_strength=5.0, least_strength=1.0
    )
    strength = np.asarray(drawn.strength) - 1
    assert strength.min() >= 0
    assert abs(strength.mean() - 5) < 0.5
    assert abs(strength.std() - 5) < 0.7
    assert set(np.unique(drawn.frequency)) == set(range(1, 13))
    assert drawn.direction.min() >= -np.pi - 1e-5
    assert drawn.direction.max() == 0


def test_no_strength_is_no_noise(key, pixels):
    np.testing.assert_allclose(noise(key, pixels, mean_strength=0.0), pixels, atol=1e-6)
    strong = np.asarray(noise(key, pixels, mean_strength=100.0))
    assert strong.min() == 0
    assert strong.max() == 1


def mask_by_hand(image, kernel):
    size = np.abs(np.fft.fftn(np.asarray(image, np.float64)))
    mask = np.zeros(image.shape, bool)
    for c in range(image.shape[2]):
        for i in range(image.shape[0] // kernel):
            for j in range(image.shape[1] // kernel):
                rows = slice(kernel * i, kernel * (i + 1))
                columns = slice(kernel * j, kernel * (j + 1))
                block = size[rows, columns, c]
                place = np.unravel_index(block.argmax(), block.shape)
                mask[rows, columns, c][place] = True
    return mask


@pytest.mark.parametrize("kernel", [2, 3])
def test_vital_phases_have_the_largest_amplitude_of_a_block(pixels, kernel):
    got = np.asarray(vital_mask(pixels, kernel=kernel))
    want = np.stack([mask_by_hand(image, kernel) for image in pixels])
    # A frequency and its negative have the same amplitude up to rounding; in one block
    # they are only where the block spans the middle.
    assert (got == want).mean() > 0.99
    np.testing.assert_array_equal(np.sum(got, (1, 2, 3)), want.sum((1, 2, 3)))


@pytest.mark.parametrize("variant", ["noise", "fractal"])
def test_vital_phase_is_the_formula(key, rng, pixels, variant):
    other = rng.random(pixels.shape, np.float32)
    knobs = {"phase_from": other} if variant == "fractal" else {}
    got = vary(
        key, pixels, amplitude_from=other[::-1], vital=0.1, nonvital=0.9, **knobs
    )
    mask = np.asarray(vital_mask(pixels))
    spectrum = np.fft.fftn(pixels.astype(np.float64), axes=(1, 2, 3))
    if variant == "noise":
        drawn = np.asarray(draw_phase_noise(key, pixels.shape), np.float64)
        angle = np.angle(spectrum) + drawn * np.sqrt(np.where(mask, 0.1, 0.9))
    else:
        fractal = np.angle(np.fft.fftn(other.astype(np.float64), axes=(1, 2, 3)))
        angle = np.where(mask, np.angle(spectrum), fractal)
    size = np.abs(np.fft.fftn(other[::-1].astype(np.float64), axes=(1, 2, 3)))
    want = np.fft.ifftn(size * np.exp(1j * angle), axes=(1, 2, 3)).real
    np.testing.assert_allclose(got, want, atol=2e-4)


def test_phases_that_do_not_vary_change_nothing(key, pixels):
    same = vary(key, pixels, vital=0.0, nonvital=0.0)
    np.testing.assert_allclose(same, pixels, atol=1e-5)


@pytest.mark.slow
def test_vital_single_is_pillow_and_the_formula(key):
    photos = oracle.photo_crops((15, 18), 24)
    fractals = oracle.photo_crops((15, 18), 5, seed=3)
    chances = {"fractal_prob": 0.3, "vary_prob": 0.6}
    got = np.asarray(vital_single(key, photos, fractals=fractals, **chances), np.int64)
    u = np.asarray(single_lib.draw_single(key, 24))
    keys, coins = vipaug.draw_coins(key, 24, 5, **chances)
    drawn = np.asarray(vipaug.draw_phase_noise(keys, photos.shape), np.float64)
    coins = jax.device_get(coins)
    names = ops.OP_SETS["base"]

    def operation(image, draw):
        name = names[int(draw[0] * len(names))]
        level = 0.1 + float(draw[1]) * 2.9
        return oracle.pillow_op(image, name, level, bool(draw[2] < 0.5))

    def invert(size, angle):
        levels = np.fft.ifftn(size * np.exp(1j * angle)).real
        return np.clip(np.round(levels), 0, 255).astype(np.uint8)

    away = []
    for i, image in enumerate(photos):
        if coins.fractal[i]:
            spectrum = np.fft.fftn(image.astype(np.float64))
            other = np.angle(np.fft.fftn(fractals[coins.which[i]].astype(np.float64)))
            angle = np.where(mask_by_hand(image, 2), np.angle(spectrum), other)
            image = invert(np.abs(spectrum), angle)
        want = operation(image, u[0:3, i])
        if u[6, i] < 0.5:
            pair = (want, operation(want, u[3:6, i]))
            size_from, angle_from = pair[::-1] if u[7, i] < 0.5 else pair
            angle = np.angle(np.fft.fftn(angle_from.astype(np.float64)))
            if coins.vary[i]:
                vital_here = mask_by_hand(angle_from, 2)
                angle += drawn[i] * np.sqrt(np.where(vital_here, 0.001, 0.014))
            want = invert(np.abs(np.fft.fftn(size_from.astype(np.float64))), angle)
        away.append(np.abs(got[i] - want).mean())
    assert np.median(away) < 0.1
    # A mask or a level that rounding decides otherwise shows in the whole image.
    assert np.mean(np.array(away) < 1.5) > 0.85
    assert 0 < coins.fractal.sum() < 24


def test_wrong_arguments_are_named(key, rng):
    pixels = rng.random((2, 8, 8, 3), np.float32)
    with pytest.raises(ValueError, match="beta"):
        augment.low_amplitude_swap(key, pixels, beta=0.6)
    with pytest.raises(ValueError, match=r"'all'.*batch.*image"):
        augment.amplitude_mix(key, pixels, per="all")
    with pytest.raises(ValueError, match="waves"):
        augment.fourier_basis_noise(key, pixels, waves=0)
    with pytest.raises(TypeError, match="uint8"):
        augment.fourier_basis_noise(key, (pixels * 255).astype(np.uint8))
    with pytest.raises(ValueError, match="one shape"):
        augment.vital_phase(key, pixels, phase_from=pixels[:1])
