"""Every spectral function on values from 1e-30 to 1e30."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import spectral

SCALES = (1e-30, 1e-13, 1e17, 1e30)
MASK = np.ones((9, 12), bool)
MASK[3:6, 4:9] = False
ORDER = jnp.array([1, 0])
BY_CHANNEL = lambda x: [x[..., c] for c in range(3)]
run_profile = jax.jit(spectral.azimuthal_profile, static_argnames=("log", "normalise"))
PROFILE = functools.partial(spectral.azimuthal_profile, log=False, normalise=False)
# What becomes of a factor: its power in the result, and a call of the function.
CALLS = {
    "amplitude": (1, spectral.amplitude),
    "phase": (0, spectral.phase),
    "split_bands": (1, lambda x: spectral.split_bands(x, 2.0)),
    "filter_bands": (1, lambda x: spectral.filter_bands(x, MASK)),
    "azimuthal_profile": (1, PROFILE),
    "recombine": (1, lambda x: spectral.recombine(x, x[::-1] + x)),
    "recombine_within": (1, lambda x: spectral.recombine_within(x, ORDER)),
    "recombine_channels": (
        1,
        lambda x: spectral.recombine_channels(BY_CHANNEL(x), BY_CHANNEL(x[::-1])),
    ),
    # Amplitudes are all kept, so no constant one takes part.
    "keep_bands": (
        1,
        lambda x: spectral.keep_bands(
            x, amplitude="full", phase="low", edges=(2.0, 4.0)
        ),
    ),
    "stretch": (0, spectral.stretch),
    "template_sums": (1, lambda x: spectral.template_sums(x, 1, 2)),
    "template_phase": (0, lambda x: spectral.template_phase(x, 1, 2)),
}


def of_images():
    arguments = {"images", "amplitude_from"}
    return [
        name
        for name in spectral.__all__
        if inspect.isfunction(getattr(spectral, name))
        and arguments & set(inspect.signature(getattr(spectral, name)).parameters)
    ]


def check_scales(power, function):
    images = np.random.default_rng(2).random((2, 9, 12, 3), np.float32) + 0.1
    run = jax.jit(function)
    usual = jax.tree.leaves(run(images))
    for scale in SCALES:
        found = jax.tree.leaves(run(images * np.float32(scale)))
        for got, wanted in zip(found, usual, strict=True):
            wanted = np.asarray(wanted, np.float64)
            got = np.asarray(got, np.float64) / np.float64(np.float32(scale)) ** power
            if power == 0:  # angles, up to whole turns
                turns = np.round((got - wanted) / (2 * np.pi)) * 2 * np.pi
                got = got - turns * (np.abs(wanted).max() > 2)
            most = np.abs(wanted).max()
            np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * most)


@pytest.mark.parametrize("name", of_images())
def test_a_factor_is_a_factor(name):
    check_scales(*CALLS[name])


def test_an_absolute_threshold_fails():
    def with_threshold(images):
        spectrum = jnp.fft.fft2(images, axes=(-3, -2))
        return jnp.where(jnp.abs(spectrum) < 1e-12, 0, jnp.abs(spectrum))

    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check_scales(1, with_threshold)


@pytest.mark.parametrize("scale", SCALES)
def test_scaled_recombination_is_the_formula(rng, scale):
    a, b = rng.random((2, 7, 10, 3), np.float32)
    run = jax.jit(spectral.recombine)
    for left, right in ((a * np.float32(scale), b), (a, b * np.float32(scale))):
        spectra = [np.fft.fftn(x.astype(np.float64)) for x in (left, right)]
        mixed = np.abs(spectra[0]) * np.exp(1j * np.angle(spectra[1]))
        wanted = np.fft.ifftn(mixed).real
        most = np.abs(wanted).max()
        np.testing.assert_allclose(run(left, right), wanted, rtol=0, atol=1e-5 * most)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("log", "normalise"), [(True, True), (True, False)])
def test_scaled_profile_is_the_formula(rng, scale, log, normalise):
    images = rng.random((9, 12, 1), np.float32) * np.float32(scale)
    values = np.abs(np.fft.fft2(images[..., 0].astype(np.float64)))
    ring = np.hypot(np.arange(9)[:, None] - 4, np.arange(12)[None] - 5.5).astype(int)
    values = np.fft.fftshift(20 * np.log1p(values))
    wanted = np.array([values[ring == k].mean() for k in range(1, ring.max())])
    if normalise:
        wanted = (wanted - wanted.min()) / np.ptp(wanted)
    got = run_profile(images, log=log, normalise=normalise)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
