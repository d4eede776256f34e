"""Amplitudes of noise and waves (own phase) against NumPy from the same draws."""

import importlib

import jax
import numpy as np
import pytest

from apr_jax import augment, spectral
from apr_jax.augment import afa, fact_fda

# Functions of the package hide these modules of their names.
noise_lib = importlib.import_module("apr_jax.augment.apr_noise")
COUNT = 6

apr_noise = jax.jit(augment.apr_noise, static_argnames=("prob", "steepest"))
apr_waves = jax.jit(augment.apr_waves, static_argnames="prob")
apr_pair = jax.jit(augment.apr_pair, static_argnames=("prob", "per", "noise"))
coloured = jax.jit(augment.coloured_noise, static_argnums=1, static_argnames="steepest")
draw = jax.jit(noise_lib.draw_colours, static_argnums=1, static_argnames="steepest")
add_waves = jax.jit(augment.fourier_basis_noise, static_argnames="clip")


@pytest.fixture
def pixels(rng):
    return rng.random((COUNT, 7, 10, 3), np.float32)


def by_hand(drawn, height, width):
    """Coloured noise of its draws, frequency by frequency."""
    exponent, grey, white = (np.asarray(each, np.float64) for each in drawn)
    share = grey[:, None, None, None]
    mixed = np.sqrt(1 - share) * white[..., :-1] + np.sqrt(share) * white[..., -1:]
    rows, columns = np.fft.fftfreq(height), np.fft.fftfreq(width)
    found = np.empty_like(mixed)
    for i in range(len(mixed)):
        factor = np.zeros((height, width))
        for row in range(height):
            for column in range(width):
                frequency = np.hypot(rows[row], columns[column])
                if frequency:
                    factor[row, column] = frequency ** -exponent[i]
        factor /= np.sqrt((factor**2).mean())
        spectrum = np.fft.fft2(mixed[i], axes=(0, 1)) * factor[..., None]
        found[i] = np.fft.ifft2(spectrum, axes=(0, 1)).real
    return found


def recombined(donors, images):
    size = np.abs(np.fft.fftn(donors, axes=(1, 2, 3)))
    angle = np.angle(np.fft.fftn(images.astype(np.float64), axes=(1, 2, 3)))
    return np.fft.ifftn(size * np.exp(1j * angle), axes=(1, 2, 3)).real


def test_own_phase_and_the_amplitude_of_coloured_noise(key, pixels):
    _, height, width, _ = pixels.shape
    noise_key, coin_key = jax.random.split(key)
    noise = by_hand(draw(noise_key, pixels.shape, steepest=1.5), height, width)
    np.testing.assert_allclose(
        coloured(noise_key, pixels.shape, steepest=1.5), noise, atol=1e-5
    )
    mean = pixels.mean((1, 2), keepdims=True, dtype=np.float64)
    spread = pixels.std((1, 2), keepdims=True, dtype=np.float64)
    want = recombined(mean + spread * noise, pixels)
    got = np.asarray(apr_noise(key, pixels, prob=0.5, steepest=1.5))
    coins = np.asarray(jax.random.bernoulli(coin_key, 0.5, (COUNT,)))
    assert 0 < coins.sum() < COUNT
    np.testing.assert_allclose(got[coins], want[coins], atol=1e-4)
    np.testing.assert_array_equal(got[~coins], pixels[~coins])


def test_noise_has_every_colour(key):
    count = 400
    drawn = jax.device_get(draw(key, (count, 16, 16, 3), steepest=2.0))
    for share in (drawn.exponent / 2, drawn.grey):
        assert 0 <= share.min() < 0.02
        assert 0.98 < share.max() < 1
        assert abs(share.mean() - 0.5) < 0.05
    noise = np.asarray(coloured(key, (count, 16, 16, 3), steepest=2.0), np.float64)
    np.testing.assert_allclose(noise.mean((1, 2)), 0, atol=1e-5)
    assert abs((noise**2).mean() - 1) < 0.05
    # Steep noise lies in the lowest frequencies, white noise evenly.
    power = np.abs(np.fft.fft2(noise, axes=(1, 2))) ** 2
    low = power[:, :2, :2].sum((1, 2, 3)) / power.sum((1, 2, 3))
    steep, white = drawn.exponent > 1.8, drawn.exponent < 0.2
    assert low[steep].mean() > 10 * low[white].mean()
    # Channels are as alike as their share in common says.
    alike = np.array([np.corrcoef(each.reshape(-1, 3).T)[0, 1] for each in noise])
    assert np.corrcoef(alike, drawn.grey)[0, 1] > 0.8


def test_own_phase_and_waves_in_the_amplitude(key, pixels):
    wave_key, _ = jax.random.split(key)
    donors = add_waves(wave_key, pixels, mean_strength=3.0, clip=False)
    want = recombined(np.asarray(donors, np.float64), pixels)
    got = apr_waves(key, pixels, prob=1.0, mean_strength=3.0)
    np.testing.assert_allclose(got, want, atol=1e-4)
    assert np.abs(want - pixels).max() > 0.1
    drawn = afa.draw_waves(
        wave_key, pixels.shape, mean_strength=3.0, least_strength=0.0, waves=1
    )
    assert len(np.unique(drawn.strength)) == COUNT * 3


def test_donors_are_noised_before_their_amplitude_is_taken(key, pixels):
    order = np.roll(np.arange(COUNT), 1)
    flat = np.full_like(pixels, 0.5)
    plain = apr_pair(key, pixels, prob=1.0, donors=flat, donor_index=order)
    noised = np.asarray(
        apr_pair(key, pixels, prob=1.0, noise=0.2, donors=flat, donor_index=order)
    )
    np.testing.assert_allclose(plain, 0.5, atol=1e-5)  # nothing but the mean
    # By Parseval what is there beside the mean has the strength of the noise.
    strength = noised.std((1, 2, 3))
    assert strength.max() < 0.25
    assert len(np.unique(strength.round(3))) == COUNT
    phase = lambda images: np.angle(np.fft.fftn(images, axes=(1, 2, 3)))
    turned = np.angle(np.exp(1j * (phase(noised) - phase(pixels))))
    apart = turned.reshape(COUNT, -1)[:, 1:]
    assert np.median(np.abs(apart)) < 1e-3
    # Images of the batch itself, noised or not, by the same coins.
    both = [
        np.asarray(apr_pair(key, pixels, prob=0.5, per="image", noise=noise))
        for noise in (0.0, 0.2)
    ]
    coins = np.asarray(augment.pair_coin(key, COUNT, prob=0.5, per="image"))
    for images in both:
        np.testing.assert_array_equal(images[~coins], pixels[~coins])
    assert (both[0][coins] != both[1][coins]).any((1, 2, 3)).all()


def test_every_image_follows_its_own_key(key, pixels):
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, np.arange(COUNT))
    for function in (apr_noise, apr_waves):
        whole = np.asarray(function(keys, pixels, prob=0.5))
        turned = np.asarray(function(keys[::-1], pixels[::-1], prob=0.5))
        np.testing.assert_allclose(whole, turned[::-1], atol=1e-6)


def test_shares_of_amplitudes_are_beta(key):
    shares = fact_fda.draw_shares(key, 4000, strength=0.8, alpha=0.4, per="image")
    # Mean and variance of Beta(a, a) are 1/2 and 1 / (8 a + 4).
    assert abs(np.mean(shares) / 0.8 - 0.5) < 0.02
    assert abs(np.var(shares) / 0.64 - 1 / 7.2) < 0.01


def test_filters_weigh_frequencies(rng, pixels):
    _, height, width, _ = pixels.shape
    half = rng.random((height, width))
    # The same for a frequency and its negative.
    even = half + np.roll(half[::-1, ::-1], (1, 1), (0, 1))
    want = np.fft.fft2(pixels.astype(np.float64), axes=(1, 2)) * even[..., None]
    got = spectral.filter_bands(pixels, np.fft.fftshift(even).astype(np.float32))
    np.testing.assert_allclose(
        got, np.fft.ifft2(want, axes=(1, 2)).real, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize(
    ("function", "knobs", "word"),
    [
        (augment.apr_noise, {"steepest": -1.0}, "steepest"),
        (augment.apr_noise, {"steepest": float("nan")}, "steepest"),
        (augment.apr_waves, {"waves": 0}, "waves"),
        (augment.apr_pair, {"noise": -0.1}, "noise"),
        (augment.amplitude_mix, {"alpha": 0.0}, "alpha"),
        (augment.amplitude_mix, {"alpha": float("nan")}, "alpha"),
        (augment.mixup, {"alpha": float("nan")}, "alpha"),
        (augment.cutmix, {"alpha": float("inf")}, "alpha"),
        (augment.augmix, {"alpha": float("nan")}, "alpha"),
    ],
)
def test_what_does_nothing_is_refused(key, pixels, function, knobs, word):
    with pytest.raises(ValueError, match=word):
        function(key, pixels, **knobs)
