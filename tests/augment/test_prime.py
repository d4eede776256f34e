"""PRIME's primitives and their mixture against SciPy and NumPy."""

import importlib

import jax
import numpy as np
import pytest
import scipy.ndimage

from apr_jax import augment, target
from apr_jax.augment import prime_primitives

# Functions of the package hide these modules of their names.
prime_lib = importlib.import_module("apr_jax.augment.prime")

KNOBS = {"deform_cut": 20, "colour_cut": 12, "colour_scale": 0.1}
draw_field = jax.jit(
    prime_primitives.draw_field, static_argnums=(1, 2), static_argnames="cut"
)
draw_curve = jax.jit(
    prime_primitives.draw_curve, static_argnums=1, static_argnames=("cut", "band")
)
draw_filter = jax.jit(prime_primitives.draw_filter, static_argnums=1)
prime = jax.jit(
    augment.prime,
    static_argnames=("width", "depth", "chunk", "colour_band", *KNOBS),
)
draw_chains = jax.jit(
    prime_lib.draw_chains, static_argnums=1, static_argnames=("width", "depth")
)


@pytest.fixture
def image(rng):
    return rng.random((7, 10, 3), np.float32)


def deform(image, field):
    """SciPy's linear interpolation at places clipped to the image."""
    height, width, _ = image.shape
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    at = [
        np.clip(rows - field[0], 0, height - 1),
        np.clip(columns - field[1], 0, width - 1),
    ]
    planes = np.moveaxis(np.asarray(image, np.float64), -1, 0)
    return np.stack(
        [scipy.ndimage.map_coordinates(p, at, order=1) for p in planes], axis=-1
    )


def recolour(image, start, coefficients):
    c = np.asarray(image, np.float64)
    total = c.copy()
    for j, b in enumerate(np.asarray(coefficients, np.float64)):
        total += b * np.sin(np.pi * (int(start) + j) * c)
    return np.clip(total, 0, 1)


def convolve(image, kernel):
    planes = np.moveaxis(np.asarray(image, np.float64), -1, 0)
    kernel = np.asarray(kernel, np.float64)
    done = [scipy.ndimage.correlate(p, kernel, mode="constant") for p in planes]
    return np.clip(np.stack(done, axis=-1), 0, 1)


def test_deformation_is_scipys(key, image):
    field = 20 * np.asarray(draw_field(key, *image.shape[:2], cut=20))
    assert np.abs(field).max() > 1
    got = jax.jit(prime_primitives.deform)(image, field)
    np.testing.assert_allclose(got, deform(image, field), atol=1e-5)
    with target.for_platform("tpu"):  # looks up no single words; runs here, too
        lowered = jax.jit(prime_primitives.deform).lower(image, field)
    assert "stablehlo.gather" not in lowered.as_text()
    np.testing.assert_allclose(lowered.compile()(image, field), got, atol=1e-6)
    still = jax.jit(prime_primitives.deform)(image, np.zeros_like(field))
    np.testing.assert_array_equal(still, image)


@pytest.mark.parametrize(("size", "chosen"), [((8, 8), 3), ((7, 10), 25)])
def test_modes_on_the_grid_have_the_covariance_of_all_modes(size, chosen):
    """Also with many more modes than pixels, which coincide with lower ones."""
    variances = jax.jit(lambda n: prime_primitives.mode_variances(n, *size, cut=30))
    got = np.asarray(variances(chosen))

    def waves(side, number):
        grid = np.arange(side) / (side - 1)
        return np.sin(np.pi * np.outer(grid, np.arange(1, number + 1)))

    def covariance(variances):
        rows, columns = (
            waves(side, number)
            for side, number in zip(size, variances.shape, strict=True)
        )
        return np.einsum(
            "ij,yi,xj,ti,sj->yxts", variances, rows, columns, rows, columns
        )

    i, j = np.meshgrid(np.arange(1, 31), np.arange(1, 31), indexing="ij")
    r = np.hypot(i, j)
    want = covariance((r < chosen + 0.5) / r**2)
    np.testing.assert_allclose(covariance(got), want, atol=1e-4)


@pytest.mark.slow
def test_fields_have_the_scale_they_should(key):
    """T = 1 gives a variance that the covariance of the modes predicts."""
    size, chosen = 9, 4
    keys = jax.random.split(key, 300)
    fields = np.asarray(
        jax.jit(jax.vmap(lambda k: prime_primitives.draw_field(k, size, size, cut=5)))(
            keys
        )
    )
    np.testing.assert_allclose(fields[:, :, 0], 0, atol=1e-5)
    np.testing.assert_allclose(fields[:, :, :, -1], 0, atol=1e-5)
    # Half a pixel is typical at the lowest T, in the middle; more at a higher one.
    middle = np.sqrt((fields[:, :, size // 2, size // 2] ** 2).mean())
    assert 0.3 < middle < 1.5
    low = prime_primitives.deformation_scale(chosen, 0.0, size=size)
    high = prime_primitives.deformation_scale(chosen, 1.0, size=size)
    np.testing.assert_allclose(low, 1 / (np.pi * size**2 * np.log(chosen)), rtol=1e-5)
    np.testing.assert_allclose(
        high, 4 / (np.pi**3 * chosen**2 * np.log(chosen)), rtol=1e-5
    )
    assert prime_primitives.deformation_scale(50.0, 1.0, size=size) > 0


@pytest.mark.parametrize("band", [None, 4])
def test_colour_curve_is_the_formula(key, image, band):
    curve = draw_curve(key, 3, cut=40, scale=0.05, band=band)
    got = jax.jit(prime_primitives.recolour)(image, curve)
    np.testing.assert_allclose(got, recolour(image, *curve), atol=1e-5)
    assert curve.coefficients.shape == (band or 40, 3)
    ends = np.zeros_like(image)
    ends[0] = 1
    kept = jax.jit(prime_primitives.recolour)(ends, curve)
    np.testing.assert_allclose(kept, ends, atol=1e-3)


def test_filter_is_scipys(key, image):
    kernel = draw_filter(key, 3, sigma=0.3)
    got = jax.jit(prime_primitives.convolve)(image, kernel)
    np.testing.assert_allclose(got, convolve(image, kernel), atol=1e-5)
    none = draw_filter(key, 3, sigma=0.0)
    still = jax.jit(prime_primitives.convolve)(image, none)
    np.testing.assert_allclose(still, image, atol=1e-6)


def test_prime_is_the_mixture_of_its_primitives(key, rng):
    images = rng.random((4, 7, 10, 3), np.float32)
    got = np.asarray(prime(key, images, **KNOBS))
    chains = draw_chains(key, 4, width=3, depth=3)
    keys = np.asarray(jax.random.key_data(chains.keys))
    chains = jax.device_get(chains._replace(keys=()))
    used = set()
    for n, image in enumerate(images):
        mix = np.zeros(image.shape)
        for w in range(3):
            view = image
            for d in range(int(chains.depth[n, w])):
                own = jax.random.wrap_key_data(keys[n, w, d])
                kind = int(chains.kind[n, w, d])
                used.add(kind)
                if kind == 0:
                    view = deform(view, np.asarray(draw_field(own, 7, 10, cut=20)))
                elif kind == 1:
                    curve = draw_curve(own, 3, cut=12, scale=0.1)
                    view = recolour(view, *curve)
                else:
                    view = convolve(view, draw_filter(own, 3, sigma=4.0))
            mix += float(chains.weight[n, w]) * view
        m = float(chains.blend[n])
        # A steep filter after a curve multiplies what rounding there was.
        np.testing.assert_allclose(got[n], (1 - m) * image + m * mix, atol=2e-3)
    assert used == {0, 1, 2}
    assert got.min() >= 0
    assert got.max() <= 1
    assert np.abs(got - images).mean() > 0.02


@pytest.mark.slow
def test_an_image_alone_and_other_chunks_give_the_same(key, rng):
    images = rng.random((6, 7, 10, 3), np.float32)
    together = prime(key, images, **KNOBS)
    keys = augment.keys.per_image_keys(key, 6)
    alone = prime(keys[4:5], images[4:5], chunk="all", **KNOBS)
    np.testing.assert_allclose(alone, together[4:5], atol=1e-4)


def test_wrong_arguments_are_named(key, rng):
    images = rng.random((2, 8, 8, 3), np.float32)
    with pytest.raises(TypeError, match="uint8"):
        augment.prime(key, (images * 255).astype(np.uint8))
    with pytest.raises(ValueError, match="width"):
        augment.prime(key, images, width=0)
    with pytest.raises(ValueError, match="cut"):
        prime_primitives.draw_field(key, 8, 8, cut=2)
    with pytest.raises(ValueError, match="odd"):
        prime_primitives.draw_filter(key, 4, sigma=1.0)
    with pytest.raises(ValueError, match="band"):
        prime_primitives.draw_curve(key, 3, cut=9, scale=0.1, band=0)
