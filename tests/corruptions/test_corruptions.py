"""The corruptions, against the reference's outputs and an oracle without JAX."""

import functools
import importlib.util
import io
import itertools
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from apr_jax import fast_random, metrics, target
from apr_jax.corruptions import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    PUBLISHED,
    corrupt,
    digital,
    frost_files,
    noise,
    published,
    resample,
    weather,
)
from apr_jax.corruptions import blur as blur_lib
from apr_jax.corruptions import spatter as spatter_lib
from apr_jax.corruptions.constants import TABLE, named, strength

ALL = (*CORRUPTIONS, *EXTRA_CORRUPTIONS)
FIXED = (
    "defocus_blur",
    "zoom_blur",
    "contrast",
    "brightness",
    "jpeg_compression",
    "pixelate",
    "gaussian_blur",
    "saturate",
)
RANDOM = tuple(name for name in ALL if name not in FIXED)


@pytest.fixture(scope="module")
def golden(shared):
    with np.load(shared / "golden" / "corruptions.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def photographs():
    """Three made-up photographs: the real ones aren't everywhere."""
    rng = np.random.default_rng(3)
    shapes = [(200, 300, 3), (315, 560, 3), (260, 210, 3)]
    return [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]


@pytest.fixture(scope="module")
def pictures():
    """Smooth images with edges, uint8 [6, 32, 32, 3]."""
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 256, (6, 8, 8, 3))
    return np.kron(coarse, np.ones((1, 4, 4, 1))).astype(np.uint8)


# --- The reference -------------------------------------------------------------------


@pytest.mark.parametrize("name", FIXED)
def test_what_draws_nothing_is_the_reference(golden, key, name):
    for severity in range(1, 6):
        wanted = golden[f"{name}_{severity}"].astype(int)
        got = np.asarray(corrupt(key, golden["images"], name, severity)).astype(int)
        close = np.abs(got - wanted) <= 1
        assert close.mean() >= 0.99, f"severity {severity}: {close.mean():.4f}"


def read_cifar(shared, count):
    path = shared / "data" / "read.py"
    spec = importlib.util.spec_from_file_location("shared_read", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.read_tiles(shared / "data" / "cifar10" / "test.npz", count)[0]


@pytest.fixture(scope="module")
def clean(shared, golden):
    first, last = golden["stat_images"]
    return read_cifar(shared, int(last))[first:]


def statistics(clean, corrupted):
    """The five of the golden file, as its description says."""
    c, y = clean.astype(np.float64), np.asarray(corrupted).astype(np.float64)
    d = y - c
    side = np.fft.fftfreq(c.shape[1])
    high = np.hypot(side[:, None], side[None]) > 0.25

    def power(images):
        spectrum = np.fft.fft2(images.mean(-1))
        return np.mean(np.abs(spectrum[:, high]) ** 2)

    return np.array(
        [
            np.abs(d).mean(),
            np.sqrt((d**2).mean()),
            d.mean(),
            power(y) / power(c),
            y.std((1, 2, 3)).mean(),
        ]
    )


@pytest.mark.parametrize("name", ALL)
def test_statistics_are_the_reference_s(golden, shared, clean, name):
    frost = shared / "data" / "frost"
    for severity in range(1, 6):
        wanted = golden[f"stat_{name}_{severity}"]
        got = corrupt(jax.random.key(11), clean, name, severity, frost=frost, chunk=16)
        got = statistics(clean, got)
        allowed = 0.1 * np.abs(wanted)
        # The mean of the differences is near 0 for most; by how far it may be off
        # depends on how large they are.
        allowed[2] = 0.1 * wanted[0]
        off = np.abs(got - wanted) / allowed
        assert off.max() <= 1, f"severity {severity}: {got} is not {wanted}"


# --- An oracle of one image at a time ------------------------------------------------


def test_motion_blur_is_imagemagick_s(pictures):
    oracle = pytest.importorskip("tests.oracle_corruptions")
    radius, sigma = 9, 2.5
    taps = resample.motion_taps(radius, sigma, 19)
    for degrees in (-45.0, -31.4, 0.0, 12.5, 44.0):
        down, right = resample.motion_offsets(jnp.array([degrees]), 19)
        moved = np.zeros((32, 32, 3))
        for tap in range(19):
            index = resample.shifted_index(down[:, tap], right[:, tap], (32, 32))
            moved += taps[tap] * pictures[0].reshape(-1, 3)[np.asarray(index[0])]
        wanted = oracle._moved(pictures[0].astype(np.float64), radius, sigma, degrees)
        np.testing.assert_allclose(moved, wanted, atol=1e-3)


def test_lights_on_water_are_opencv_s(rng):
    oracle = pytest.importorskip("tests.oracle_corruptions")
    layers = []
    for severity in (1, 2, 3):
        mean, deviation, sigma, threshold, *_ = strength("spatter", (32, 32), severity)
        liquid = rng.normal(mean, deviation, (10, 32, 32))
        liquid = np.stack([oracle._smooth(x, sigma) for x in liquid])
        layers.append(np.where(liquid < threshold, 0, liquid))
    liquid = np.concatenate(layers)
    whole = np.floor(255 * liquid).astype(np.float32).transpose(1, 2, 0)
    lights = whole * np.asarray(jax.jit(spatter_lib._relief)(whole))
    lights /= np.maximum(lights.max((0, 1)), 1e-9)
    wanted = np.stack([oracle.lights(x) for x in liquid], axis=-1)
    assert np.mean(np.abs(lights - wanted) < 0.02) > 0.995


@pytest.mark.parametrize("way", ["index", "shifts"])
def test_glass_takes_what_the_loop_takes(key, way):
    """Pixels may come from pixels that have been replaced already."""
    size = 64
    farthest = max(
        round(strength("glass_blur", (size, size), s)[1]) for s in range(1, 6)
    )
    assert farthest > 1
    words = np.arange(size**2, dtype=np.uint32).reshape(1, size, size)
    moved = {"index": blur_lib._by_index, "shifts": blur_lib._by_shifts}[way]

    @jax.jit
    def run(key):
        seeds = fast_random.make_seeds(key, jnp.arange(1, dtype=jnp.uint32))
        steps = blur_lib._steps(seeds, (size, size), jnp.int32(farthest), 1)
        draw = fast_random.uniform(seeds, (2, size, size), lane=1)
        return moved(jnp.asarray(words), *steps), draw[0]

    source, draw = map(np.asarray, run(key))
    step = np.floor(draw * (2 * farthest)).astype(int) - farthest
    wanted = np.arange(size**2).reshape(size, size)
    for y in range(size - farthest, farthest, -1):
        for x in range(size - farthest, farthest, -1):
            wanted[y, x] = wanted[y + step[0, y, x], x + step[1, y, x]]
    np.testing.assert_array_equal(source[0], wanted)


@pytest.mark.parametrize(
    ("name", "within"),
    [
        *(("glass_blur", 0), ("shot_noise", 0), ("elastic_transform", 1)),
        pytest.param("ripple", 1, marks=pytest.mark.slow),  # looks up as elastic does
    ],
)
def test_a_tpu_looks_up_no_single_words(key, pictures, name, within):
    """As it computes them; it is the same arithmetic here."""
    with target.for_platform("tpu"):
        lowered = jax.jit(lambda x: corrupt(key, x, name, 5)).lower(pictures)
    assert not re.search(r"stablehlo\.(gather|scatter)", lowered.as_text())
    got = np.asarray(lowered.compile()(pictures)).astype(int)
    assert np.abs(got - corrupt(key, pictures, name, 5)).max() <= within


@pytest.mark.parametrize("photons", [500, 3])
def test_shot_noise_is_poisson_s(key, photons):
    severity = 1 if photons == 500 else 5
    size = 32 if photons == 500 else 224
    table = noise.shot_table("shot_noise", (size, size), severity)["below"]
    levels = np.repeat(np.array([0, 40, 128, 250], np.uint8), 3 * 4096)
    levels = levels.reshape(4, 64, 64, 3)
    seeds = fast_random.make_seeds(key, jnp.arange(4, dtype=jnp.uint32))
    got = np.asarray(jax.jit(noise.shot_noise)(seeds, levels, {"below": table}))
    drawn = np.random.default_rng(0).poisson(levels / 255 * photons)
    wanted = np.minimum(255 * drawn / photons, 255).astype(np.uint8)
    for a, b in zip(got, wanted, strict=True):
        assert abs(a.mean() - b.mean()) < 0.6 + 2 * b.std() / 100
        np.testing.assert_allclose(a.std(), b.std(), rtol=0.05)
    assert not got[0].any()


def test_frost_photographs_are_shrunk_as_opencv_does(photographs):
    cv2 = pytest.importorskip("cv2")
    for photograph in photographs:
        wanted = cv2.resize(photograph, (0, 0), fx=0.2, fy=0.2)
        np.testing.assert_array_equal(weather._resized(photograph, 0.2), wanted)


# --- Keys, indices, chunks -----------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_an_image_depends_on_key_and_index_alone(key, pictures, photographs, name):
    whole = np.asarray(corrupt(key, pictures, name, 3, frost=photographs))
    assert whole.dtype == np.uint8
    assert whole.shape == pictures.shape
    again = corrupt(key, pictures, name, 3, frost=photographs, chunk=4)
    np.testing.assert_array_equal(again, whole)
    part = corrupt(
        key, pictures[3:5], name, 3, indices=np.array([3, 4]), frost=photographs
    )
    np.testing.assert_array_equal(part, whole[3:5])
    if name in RANDOM:
        other = corrupt(jax.random.key(1), pictures, name, 3, frost=photographs)
        assert (np.asarray(other) != whole).any()
        same = np.repeat(pictures[:1], 2, axis=0)
        first, second = corrupt(key, same, name, 3, frost=photographs)
        assert (np.asarray(first) != np.asarray(second)).any()


def test_severities_and_corruptions_draw_apart(key):
    grey = np.full((1, 32, 32, 3), 128, np.uint8)
    first = np.asarray(corrupt(key, grey, "gaussian_noise", 1)).astype(int) - 128
    second = np.asarray(corrupt(key, grey, "gaussian_noise", 2)).astype(int) - 128
    third = np.asarray(corrupt(key, grey, "speckle_noise", 1)).astype(int) - 128
    for other in (second, third):
        assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.1


@pytest.mark.parametrize("name", ["gaussian_noise", "jpeg_compression"])
def test_under_jit(key, pictures, name):
    traced = jax.jit(lambda key, images: corrupt(key, images, name, 2))
    np.testing.assert_array_equal(
        traced(key, pictures), corrupt(key, pictures, name, 2)
    )


# --- Sizes ---------------------------------------------------------------------------


# What isn't computed in the same way for all sizes; the rest takes long to compile.
_BY_SIZE = ("glass_blur", "zoom_blur", "frost", "fog", "elastic_transform")


@pytest.mark.parametrize(
    ("name", "size"),
    [(name, 40) for name in _BY_SIZE]
    + [
        pytest.param(n, s, marks=pytest.mark.slow)
        for n in ALL
        for s in (8, 33, 64, 299)
    ],
)
def test_other_sizes(key, photographs, name, size):
    ramp = np.linspace(0, 255, size).astype(np.uint8)
    image = np.stack([np.tile(ramp, (size, 1)), np.tile(ramp[:, None], size)], -1)
    image = np.concatenate([image, image[..., :1]], -1)[None]
    for severity in (1, 5):
        got = np.asarray(corrupt(key, image, name, severity, frost=photographs))
        assert got.shape == image.shape
        gap = np.abs(got.astype(float) - image).mean()
        # Gentle in the first severity, and something happens in the others.
        assert gap < 110
        assert gap > 0.05 or severity == 1


def test_strengths_in_between():
    for name, place in itertools.product(TABLE, range(5)):
        at = functools.partial(strength, name, severity=place + 1)
        rows = {side: np.array(rows[place]) for side, rows in TABLE[name].items()}
        for side in PUBLISHED:
            assert at((side, side)) == tuple(rows[side])
        assert at((144, 144)) == pytest.approx(tuple((rows[64] + rows[224]) / 2))
        near = pytest.approx(tuple(0.75 * rows[32] + 0.25 * rows[64]))
        assert at((40, 50)) == at((50, 40)) == near
        assert at((8, 8)) == at((32, 32))
        assert at((500, 400)) == at((299, 299))
    sets = [published((s, 2 * s)) for s in (8, 32, 40, 64, 223, 224, 299, 400)]
    known = ["CIFAR-10-C", "Tiny ImageNet-C", "ImageNet-C", "ImageNet-C, Inception"]
    cifar, tiny, large, inception = known
    between = "interpolated"
    assert sets[:5] == [cifar, cifar, between, tiny, between]
    assert sets[5:] == [large, inception, inception]


@pytest.mark.parametrize("upright", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("name", ALL)
def test_images_that_are_not_square(name, upright, photographs):
    """Against one image at a time, on as many as its draws need."""
    oracle = pytest.importorskip("tests.oracle_corruptions")
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 256, (24, 8, 11, 3))
    images = np.kron(coarse, np.ones((1, 4, 4, 1))).astype(np.uint8)
    images = np.ascontiguousarray(images.swapaxes(1, 2)) if upright else images
    five = (*photographs, *photographs[:2])
    wanted = np.stack([oracle.corrupt(rng, x, name, 3, five) for x in images])
    got = np.asarray(corrupt(jax.random.key(3), images, name, 3, frost=five))
    assert got.shape == images.shape
    if name in FIXED:
        assert np.mean(np.abs(got.astype(int) - wanted) <= 1) > 0.99
        return
    gaps = [np.abs(x.astype(float) - images) for x in (got, wanted)]
    for reduce in (np.mean, lambda gap: np.sqrt((gap**2).mean())):
        assert reduce(gaps[0]) == pytest.approx(reduce(gaps[1]), rel=0.1)


@pytest.mark.parametrize("name", ALL)
def test_grey_single_and_no_images(key, pictures, photographs, name):
    run = lambda images, **more: np.asarray(
        corrupt(key, images, name, 2, frost=photographs, **more)
    )
    grey = pictures[:2, ..., :1]
    whole = run(np.repeat(grey, 3, axis=-1))
    np.testing.assert_array_equal(run(grey), whole)
    for single in (grey[1], grey[1, ..., 0], np.repeat(grey[1], 3, axis=-1)):
        np.testing.assert_array_equal(run(single, indices=1), whole[1])
    np.testing.assert_array_equal(run(jnp.asarray(grey)), whole)
    assert run(pictures[:0]).shape == (0, 32, 32, 3)
    assert run(jnp.asarray(pictures[:0, ..., :1])).shape == (0, 32, 32, 3)


@pytest.mark.parametrize("name", ALL)
def test_keys_of_every_kind_draw_for_each_image(key, pictures, photographs, name):
    same = np.repeat(pictures[:1], 2, axis=0)
    found = []
    for impl in ("rbg", "unsafe_rbg"):
        own = jax.random.key(3, impl=impl)
        run = lambda key: np.asarray(corrupt(key, same, name, 3, frost=photographs))
        found.append(run(own))
        np.testing.assert_array_equal(run(jax.random.key_data(own)), found[-1])
        assert (found[-1][0] != found[-1][1]).any() == (name in RANDOM)
    np.testing.assert_array_equal(*found)


def test_stored_as_jpeg(key, pictures):
    """As the files of the published sets: the same pixels as out of such a file."""
    plain = np.asarray(corrupt(key, pictures, "contrast", 2))
    stored = np.asarray(corrupt(key, pictures, "contrast", 2, stored_as="jpeg"))
    for image, wanted in zip(plain, stored, strict=True):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=85, optimize=True)
        np.testing.assert_array_equal(np.asarray(Image.open(file)), wanted)
    traced = jax.jit(lambda x: corrupt(key, x, "contrast", 2, stored_as="jpeg"))
    np.testing.assert_array_equal(traced(pictures), stored)


def test_zoom_blur_of_large_images_is_the_same_blur(key, pictures, monkeypatch):
    """The product of all factors at once, and one factor after the other."""
    whole = blur_lib.zoom_matrices("zoom_blur", (32, 32), 5)
    monkeypatch.setattr(blur_lib, "_ONE_MATRIX", 0)
    each = blur_lib.zoom_matrices("zoom_blur", (32, 32), 5)
    assert (set(whole), set(each)) == ({"whole"}, {"each_down", "each_along", "share"})
    results = [
        np.asarray(jax.jit(blur_lib.zoom_blur)(None, pictures, values)).astype(int)
        for values in (whole, each)
    ]
    assert np.abs(results[0] - results[1]).max() <= 1


def test_defocus_of_large_images_is_the_same_blur(key, pictures, monkeypatch):
    """In the frequency domain and tap by tap."""
    values = blur_lib.disk("defocus_blur", (32, 32), 5)
    blur = lambda *given: blur_lib.defocus_blur(*given)
    taps = np.asarray(jax.jit(blur)(None, pictures, values))
    monkeypatch.setattr(blur_lib, "_SMALL_RADIUS", 0)
    blur = lambda *given: blur_lib.defocus_blur(*given)  # to be traced anew
    fourier = np.asarray(jax.jit(blur)(None, pictures, values))
    assert np.abs(taps.astype(int) - fourier).max() <= 1


@pytest.mark.parametrize(("size", "small"), [(32, 20), (32, 30), (33, 7), (224, 56)])
def test_coarse_is_pillow_s_box(rng, size, small):
    image = rng.integers(0, 256, (size, size), dtype=np.uint8)
    box = Image.Resampling.BOX
    wanted = (
        Image.fromarray(image).resize((small, small), box).resize((size, size), box)
    )
    matrix = resample.coarse(size, small)
    across = np.floor(image @ matrix.T + 0.5)
    got = np.floor(matrix @ across + 0.5)
    np.testing.assert_array_equal(got, np.asarray(wanted))


@pytest.mark.parametrize(
    ("sigma", "truncate", "border"), [(0.7, 4, "nearest"), (6.4, 3, "reflect")]
)
def test_gaussian_is_scipy_s(rng, sigma, truncate, border):
    ndimage = pytest.importorskip("scipy.ndimage")
    image = rng.random((17, 17))
    matrix = resample.gaussian(17, sigma, truncate=truncate, border=border)
    wanted = ndimage.gaussian_filter(image, sigma, mode=border, truncate=truncate)
    np.testing.assert_allclose(matrix @ image @ matrix.T, wanted, atol=1e-12)


# --- What is refused -----------------------------------------------------------------


def test_unknown_names_are_refused(key, pictures):
    with pytest.raises(ValueError, match=r"unknown corruption 'rain'.*gaussian_noise"):
        corrupt(key, pictures, "rain", 1)
    with pytest.raises(ValueError, match="severity is 6"):
        corrupt(key, pictures, "fog", 6)
    with pytest.raises(ValueError, match="must be uint8, not float32"):
        corrupt(key, pictures.astype(np.float32), "fog", 1)
    with pytest.raises(ValueError, match=r"C of 1 or 3.*not \[6, 32, 32, 2\]"):
        corrupt(key, pictures[..., :2], "fog", 1)
    with pytest.raises(ValueError, match=r"8 pixels or more, not 7"):
        corrupt(key, pictures[:, :, :7], "fog", 1)
    with pytest.raises(ValueError, match="stored_as is 'png'; choose from"):
        corrupt(key, pictures, "fog", 1, stored_as="png")
    for chunk in (0, -1):
        with pytest.raises(ValueError, match=f"chunk.*{chunk}"):
            corrupt(key, pictures, "fog", 1, chunk=chunk)
    with pytest.raises(ValueError, match=r"indices must be \[6\], not \[2\]"):
        corrupt(key, pictures, "fog", 1, indices=np.arange(2))


def test_frost_without_photographs(key, pictures, monkeypatch, tmp_path):
    monkeypatch.setattr(frost_files, "_of_package", lambda: None)
    with pytest.raises(FileNotFoundError, match=r"frost_dir.*package imagecorruptions"):
        corrupt(key, pictures, "frost", 1)
    with pytest.raises(FileNotFoundError, match=r"lacks frost1.png"):
        corrupt(key, pictures, "frost", 1, frost=tmp_path)


def test_frost_of_the_package_without_importing_it(shared, monkeypatch, tmp_path):
    package = tmp_path / "imagecorruptions"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "frost").symlink_to(shared / "data" / "frost")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    frost_files._read.cache_clear()
    try:
        photographs = frost_files.load()
    finally:
        frost_files._read.cache_clear()
    assert [p.shape for p in photographs][:2] == [(600, 900, 3), (315, 560, 3)]
    assert len(photographs) == 5


# --- Scores --------------------------------------------------------------------------


def test_relative_mce():
    from apr_jax.metrics import ALEXNET_ERROR

    relative = metrics.relative_mean_corruption_error
    clean = metrics.ALEXNET_CLEAN_ERROR
    assert relative(ALEXNET_ERROR, clean) == pytest.approx(1)
    halved = {c: 0.2 + (e - clean) / 2 for c, e in ALEXNET_ERROR.items()}
    assert relative(halved, 0.2) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="clean_error"):
        relative(ALEXNET_ERROR, 43.5)
    with pytest.raises(ValueError, match="missing: fog"):
        relative({c: 0.5 for c in ALEXNET_ERROR if c != "fog"}, clean)


def test_saturation_of_grey_turns_red():
    grey = np.full((1, 8, 8, 3), 100, np.uint8)
    values = named("factor", "shift")("saturate", (32, 32), 5)
    red = np.asarray(jax.jit(digital.saturate)(None, grey, values))[0, 0, 0]
    np.testing.assert_array_equal(red, [100, 80, 80])
