"""Amplitude, phase and what is made of them, against NumPy and reference outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import recombine, spectral, target
from apr_jax.spectral import recombination
from tests import oracle

BACKENDS = ("rfft", "fft", "matmul")
SHAPES = ((2, 8, 12, 3), (9, 7, 3), (7, 6, 4))

# One compilation per shape; called as it is, JAX compiles every operation by itself.
run = jax.jit(recombine, static_argnames=("axes", "backend"))
run_amplitude = jax.jit(spectral.amplitude, static_argnames="axes")
run_phase = jax.jit(spectral.phase, static_argnames="axes")
run_profile = jax.jit(
    spectral.azimuthal_profile, static_argnames=("channels", "log", "normalise")
)
run_bands = jax.jit(spectral.split_bands)


@pytest.fixture(scope="module")
def golden(shared):
    return np.load(shared / "golden" / "reference.npz")


def pair(rng, shape):
    return rng.random(shape, np.float32), rng.random(shape, np.float32)


FORMS = [(b, s) for b in BACKENDS for s in SHAPES]
FORMS += [("auto", (2, 6, 5, 1)), ("auto", (5, 8, 5))]


# By default each backend on all shapes, and on even and odd ones along all axes.
@pytest.mark.parametrize(
    ("backend", "shape", "axes"),
    [
        pytest.param(*form, axes, marks=[pytest.mark.slow] if (i + j) % 2 else [])
        for i, form in enumerate(FORMS)
        for j, axes in enumerate(spectral.AXES)
    ],
)
def test_recombine_is_the_formula(rng, backend, shape, axes):
    a, p = pair(rng, shape)
    got = run(a, p, axes=axes, backend=backend)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, oracle.recombine(a, p, axes=axes), atol=1e-5)


@pytest.mark.parametrize("backend", spectral.BACKENDS)
@pytest.mark.parametrize("name", ["apr_pair_even", "apr_pair_odd"])
def test_recombine_matches_the_reference(golden, name, backend):
    images = golden[f"{name}_images"]
    donors = images[golden[f"{name}_donor_index"]]
    got = run(donors, images, backend=backend)
    np.testing.assert_allclose(got, golden[f"{name}_out"], atol=1e-5)


def test_backends_agree_on_photographs():
    images = oracle.photo_crops((33, 48), 4) / np.float32(255)
    results = [run(images[::-1], images, backend=b) for b in BACKENDS]
    for other in results[1:]:
        np.testing.assert_allclose(results[0], other, atol=1e-5)


@pytest.mark.parametrize("axes", spectral.AXES)
def test_swap_with_itself_is_the_image(rng, axes):
    image = rng.random(SHAPES[0], np.float32)
    np.testing.assert_allclose(run(image, image, axes=axes), image, atol=1e-6)


@pytest.mark.parametrize("axes", spectral.AXES)
def test_amplitude_and_phase_come_from_their_images(rng, axes):
    a, p = pair(rng, SHAPES[1])
    mixed = run(a, p, axes=axes)
    kept = run_amplitude(mixed, axes=axes)
    np.testing.assert_allclose(kept, run_amplitude(a, axes=axes), atol=1e-4)
    # An angle is only as good as its magnitude is large.
    turn = run_phase(mixed, axes=axes) - run_phase(p, axes=axes)
    weight = np.asarray(kept)
    np.testing.assert_allclose(np.sin(turn) * weight, 0, atol=1e-4)
    assert (np.cos(turn)[weight > 0.1] > 0.99).all()


def test_amplitude_and_phase_are_numpys(rng):
    image = rng.random((5, 6, 3), np.float32)
    spectrum = np.fft.fftn(image, axes=(-3, -2, -1))
    np.testing.assert_allclose(run_amplitude(image), np.abs(spectrum), atol=1e-4)
    unit = np.exp(1j * np.asarray(run_phase(image)))
    np.testing.assert_allclose(unit * np.abs(spectrum), spectrum, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_zero_magnitudes_give_finite_values_and_gradients(rng, backend):
    zeros = np.zeros((4, 5, 3), np.float32)
    image = rng.random((4, 5, 3), np.float32)

    @jax.jit
    def value_and_gradients(a, p):
        def loss(a, p):
            out = recombine(a, p, backend=backend)
            return jnp.sum(out * jnp.arange(60.0).reshape(4, 5, 3)), out

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(a, p)

    for a, p in (
        (zeros, zeros),
        (image, zeros),
        (zeros, image),
        (zeros + 1, zeros + 1),
    ):
        gradients, out = value_and_gradients(a, p)
        assert np.isfinite(out).all()
        assert all(np.isfinite(g).all() for g in gradients)
    # Phase 0 everywhere: the mass of the amplitude gathers in the corner.
    _, out = value_and_gradients(image, zeros)
    np.testing.assert_allclose(out, oracle.recombine(image, zeros), atol=1e-5)


def test_amplitude_and_phase_have_finite_gradients_at_zero():
    zeros = jnp.zeros((4, 4, 3))
    for function in (run_amplitude, run_phase):
        assert not np.asarray(function(zeros)).any()
        gradient = jax.jit(jax.grad(lambda x, f=function: jnp.sum(f(x))))(zeros)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_is_the_formulas(rng, backend):
    a, p, da, dp, weight = rng.random((5, 4, 5, 3))
    loss = jax.jit(lambda a, p: jnp.sum(recombine(a, p, backend=backend) * weight))
    _, slope = jax.jvp(
        loss,
        (a.astype(np.float32), p.astype(np.float32)),
        (da.astype(np.float32), dp.astype(np.float32)),
    )

    def line(t):
        return np.sum(oracle.recombine(a + t * da, p + t * dp) * weight)

    np.testing.assert_allclose(slope, (line(1e-6) - line(-1e-6)) / 2e-6, rtol=1e-3)


def test_recombine_under_the_transformations(rng):
    a, p = pair(rng, (3, 6, 7, 3))
    want = oracle.recombine(a, p)
    one_by_one = jax.jit(jax.vmap(recombine))(a, p)
    np.testing.assert_allclose(one_by_one, want, atol=1e-5)
    _, scanned = jax.lax.scan(lambda c, x: (c, recombine(*x)), 0, (a, p))
    np.testing.assert_allclose(scanned, want, atol=1e-5)
    mapped = jax.pmap(recombine)(a[None], p[None])
    np.testing.assert_allclose(mapped[0], want, atol=1e-5)
    gradient = jax.jit(jax.grad(lambda a: jnp.sum(recombine(a, p) ** 2)))(a)
    # The power of the result is that of the amplitude's image, its gradient too.
    np.testing.assert_allclose(gradient, 2 * a, atol=1e-4)


@pytest.mark.parametrize("axes", spectral.AXES)
def test_recombine_within_a_batch(rng, axes):
    images = rng.random((4, 6, 7, 3), np.float32)
    index = np.array([2, 2, 0, 3])
    within = jax.jit(spectral.recombine_within, static_argnames=("axes", "backend"))
    for backend in BACKENDS:
        got = within(images, index, axes=axes, backend=backend)
        want = oracle.recombine(images[index], images, axes=axes)
        np.testing.assert_allclose(got, want, atol=1e-5)
    half = jnp.asarray(images, jnp.bfloat16)
    assert within(half, index).dtype == jnp.bfloat16
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(within(x, index) ** 2)))(images)
    # Every image gives its power as often as it is a donor.
    times = np.array([1, 0, 2, 1]).reshape(4, 1, 1, 1)
    np.testing.assert_allclose(gradient, 2 * times * images, atol=1e-4)
    with pytest.raises(TypeError, match="uint8"):
        spectral.recombine_within(np.zeros((4, 6, 7, 3), np.uint8), index)


def test_large_batches_go_through_in_chunks(rng, monkeypatch):
    monkeypatch.setattr(recombination, "_CPU_CHUNK", 4 * 6 * 8)
    a, p = pair(rng, (5, 6, 8, 3))
    jaxpr = str(jax.make_jaxpr(recombine)(a, p))
    assert "scan" in jaxpr or "while" in jaxpr
    got = jax.jit(lambda a, p: recombine(a, p))(a, p)
    np.testing.assert_allclose(got, oracle.recombine(a, p), atol=1e-5)
    with target.for_platform("cpu"):  # alone: to trace the others takes long
        gradient = jax.jit(jax.grad(lambda a: jnp.sum(recombine(a, p) ** 2)))(a)
    np.testing.assert_allclose(gradient, 2 * a, atol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_computed_in_float32(rng, dtype):
    a, p = (x.astype(dtype) for x in pair(rng, (2, 6, 5, 3)))
    got = run(a, p)
    assert got.dtype == dtype
    exact = np.asarray(run(a.astype(np.float32), p.astype(np.float32)))
    np.testing.assert_array_equal(got, exact.astype(dtype))


def test_recombine_says_what_it_cannot_take(rng):
    image = rng.random((4, 4, 3), np.float32)
    grey = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(TypeError, match=r"amplitude_from.*uint8.*/ 255"):
        recombine(grey, image)
    with pytest.raises(TypeError, match=r"phase_from.*uint8"):
        recombine(image, grey)
    with pytest.raises(ValueError, match=r"'dct'.*auto.*rfft.*fft.*matmul"):
        recombine(image, image, backend="dct")
    with pytest.raises(ValueError, match=r"\(0, 1\).*\(-3, -2, -1\).*\(-3, -2\)"):
        recombine(image, image, axes=(0, 1))
    with pytest.raises(ValueError, match=r"same shape.*\(4, 4, 3\).*\(3, 4, 3\)"):
        recombine(image, image[:3])
    with pytest.raises(ValueError, match=r"H, W, C.*\(4, 4\)"):
        recombine(image[..., 0], image[..., 0])


def test_auto_knows_the_platforms():
    assert spectral.choose_backend("cpu", 32, 32) == "rfft"
    assert spectral.choose_backend("gpu", 224, 224) == "rfft"
    assert spectral.choose_backend("tpu", 32, 32) == "matmul"


@pytest.mark.parametrize("radius", [4, 8, 12, 16])
def test_bands_match_the_reference(golden, radius):
    images = golden["hfc_images"]
    mask = spectral.radial_mask(32, 32, radius)
    np.testing.assert_array_equal(mask, golden[f"hfc_mask_{radius}"])
    low, high = run_bands(images, radius)
    np.testing.assert_allclose(low, golden[f"hfc_low_{radius}"], atol=1e-5)
    np.testing.assert_allclose(low + high, images, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 9, 12, 3), (8, 7, 1)])
def test_bands_of_odd_sizes(rng, shape):
    images = rng.random(shape, np.float32)
    low, high = run_bands(images, 2.5)
    np.testing.assert_allclose(low, oracle.low_pass(images, 2.5), atol=1e-5)
    np.testing.assert_allclose(low + high, images, atol=1e-6)
    with pytest.raises(TypeError, match="uint8"):
        spectral.split_bands(images.astype(np.uint8), 2.5)


def test_fourier_basis_matches_the_reference(golden):
    basis = jax.jit(lambda i, j: spectral.fourier_basis(32, 32, i, j))
    for (i, j), want in zip(
        golden["fourier_spectrum_index_hw"], golden["fourier_basis"], strict=True
    ):
        got = basis(i, j)
        np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(5, 8), (6, 7)])
def test_fourier_basis_is_one_frequency(height, width):
    half = width // 2 + 1
    mirrored = np.array([[-1, -2], [1, 2]])
    flat = np.concatenate([np.argwhere(np.ones((height, half))), mirrored])
    basis = jax.jit(
        jax.vmap(lambda ij: spectral.fourier_basis(height, width, ij[0], ij[1]))
    )(flat)
    basis = np.asarray(basis)
    for (i, j), got in zip(flat[:-2], basis[:-2], strict=True):
        spectrum = np.zeros((height, half))
        spectrum[i, j] = 1
        want = np.fft.irfft2(spectrum, (height, width))
        np.testing.assert_allclose(got, want / np.linalg.norm(want), atol=1e-6)
    np.testing.assert_allclose(basis[-2], basis[-1], atol=1e-6)


def test_azimuthal_profile_matches_the_reference(golden):
    got = run_profile(golden["hfc_images"])
    np.testing.assert_allclose(got, golden["cdes_density"], atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 9, 12, 3), (10, 11, 2)])
def test_azimuthal_profile_averages_rings(rng, shape):
    images = rng.standard_normal(shape).astype(np.float32)
    got = run_profile(images, channels="sum", log=False, normalise=False)
    height, width = shape[-3:-1]
    spectrum = np.abs(np.fft.fftshift(np.fft.fft2(images.sum(-1)), axes=(-2, -1)))
    y, x = np.indices((height, width))
    ring = np.floor(np.hypot(y - (height - 1) / 2, x - (width - 1) / 2))
    want = [spectrum[..., ring == k].mean(-1) for k in range(1, int(ring.max()))]
    np.testing.assert_allclose(got, np.stack(want, -1), rtol=1e-4)
    scaled = run_profile(images, channels="sum", log=False)
    np.testing.assert_allclose(np.min(scaled, -1), 0, atol=1e-6)
    np.testing.assert_allclose(np.max(scaled, -1), 1, atol=1e-6)


def test_azimuthal_profile_can_be_learnt_through(rng):
    images = rng.random((9, 9, 3), np.float32)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(spectral.azimuthal_profile(x)[2:])))
    for image in (images, np.ones_like(images)):
        assert np.isfinite(gradient(image)).all()
    with pytest.raises(ValueError, match=r"'lab'.*luma.*sum"):
        run_profile(images, channels="lab")
    with pytest.raises(ValueError, match=r"1 or 3 channels, got 2"):
        run_profile(images[..., :2])
    with pytest.raises(ValueError, match=r"2 x 2 pixels are too few"):
        run_profile(images[:2, :2])


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 12)])
def test_four_templates_give_the_phase(rng, height, width):
    images = rng.random((2, height, width, 3), np.float32)
    expected = np.fft.fft2(images, axes=(1, 2))
    sums = jax.jit(jax.vmap(spectral.template_sums, (None, 0, 0)))
    phases = jax.jit(jax.vmap(spectral.template_phase, (None, 0, 0)))
    rows, columns = (x.ravel() for x in np.indices((height, width)))
    places = expected[:, rows, columns].transpose(1, 0, 2)
    plus, minus, up, down = sums(images, rows, columns)
    np.testing.assert_allclose(plus - minus, places.real, atol=2e-4)
    np.testing.assert_allclose(up - down, places.imag, atol=2e-4)
    # Turns of the phase may be whole ones.
    angle = np.asarray(phases(images, rows, columns))
    turned = np.exp(1j * (angle - np.angle(places)))
    clear = np.abs(places) > 0.1
    assert clear.mean() > 0.9
    np.testing.assert_allclose(turned[clear], 1, atol=5e-3)
    # The quotient alone, as the paper writes it, is half a turn off for many.
    quotient = np.arctan((up - down) / (plus - minus))
    off = np.abs(np.exp(1j * (quotient - np.angle(places))) - 1)[clear]
    assert 0.3 < np.mean(off > 1.9) < 0.7


def test_templates_are_the_rectified_wave():
    height, width, u, v = 9, 6, -2, 4
    templates = jax.jit(spectral.contrast_templates, static_argnums=(0, 1))(
        height, width, u, v
    )
    n, m = np.indices((height, width))
    wave = np.exp(-2j * np.pi * (u * n / height + v * m / width))
    assert all(float(t.min()) >= 0 for t in templates)
    np.testing.assert_allclose(
        templates.real_plus - templates.real_minus, wave.real, atol=1e-5
    )
    np.testing.assert_allclose(
        templates.imaginary_plus - templates.imaginary_minus, wave.imag, atol=1e-5
    )
    assert not np.any(np.asarray(templates.real_plus * templates.real_minus))


def test_templates_refuse_grey_levels(rng):
    with pytest.raises(TypeError, match="floating point"):
        spectral.template_phase(rng.integers(0, 255, (4, 4, 3), np.uint8), 1, 1)
