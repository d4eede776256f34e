"""Amplitude and phase in bands, against NumPy."""

import functools
import itertools

import jax
import numpy as np
import pytest

from apr_jax import spectral


def by_hand(image, amplitude, phase, edges):
    height, width, channels = image.shape
    rows = np.fft.fftfreq(height)[:, None] * height
    columns = np.fft.fftfreq(width)[None] * width
    distance = np.hypot(rows, columns)
    inside = {
        "full": distance >= 0,
        "low": distance < edges[0],
        "intermediate": (distance >= edges[0]) & (distance < edges[1]),
        "high": distance >= edges[1],
    }
    out = np.empty(image.shape)
    for c in range(channels):
        f = np.fft.fft2(image[..., c].astype(np.float64))
        length = np.where(inside[amplitude], np.abs(f), 1)
        angle = np.where(inside[phase], np.angle(f), 0)
        out[..., c] = np.fft.ifft2(length * np.exp(1j * angle)).real
    return out


@pytest.mark.parametrize("size", [pytest.param((8, 8), marks=pytest.mark.slow), (9, 6)])
def test_every_pair_of_bands(rng, size):
    images = rng.random((2, *size, 3)).astype(np.float32)
    for amplitude, phase in itertools.product(spectral.BANDS, repeat=2):
        keep = functools.partial(
            spectral.keep_bands, amplitude=amplitude, phase=phase, edges=(2, 3.5)
        )
        want = [by_hand(image, amplitude, phase, (2, 3.5)) for image in images]
        got = jax.jit(keep)(images)
        np.testing.assert_allclose(got, want, atol=2e-5)
        if amplitude == phase == "full":
            np.testing.assert_allclose(got, images, atol=1e-6)


def test_bands_part_the_spectrum():
    masks = [spectral.band_mask(9, 8, band, (2, 4)) for band in spectral.BANDS[1:]]
    np.testing.assert_array_equal(np.sum(masks, axis=0), 1)
    assert masks[0][4, 4]
    with pytest.raises(ValueError, match=r"unknown band 'mid'.*intermediate"):
        spectral.band_mask(8, 8, "mid", (2, 4))
    with pytest.raises(ValueError, match=r"edges must increase.*\(4, 2\)"):
        spectral.band_mask(8, 8, "low", (4, 2))


def test_black_images_have_no_nan():
    black = np.zeros((1, 8, 8, 3), np.float32)
    keep = functools.partial(
        spectral.keep_bands, amplitude="low", phase="high", edges=(2, 4)
    )
    assert np.isfinite(jax.jit(keep)(black)).all()
    np.testing.assert_array_equal(jax.jit(spectral.stretch)(black), black)


def test_stretch_keeps_the_colours_apart(rng):
    images = rng.normal(size=(3, 5, 6, 3)).astype(np.float32)
    got = np.asarray(jax.jit(spectral.stretch)(images))
    for image, out in zip(images, got, strict=True):
        want = (image - image.min()) / (image.max() - image.min())
        np.testing.assert_allclose(out, want, atol=1e-6)
