"""Frequencies as an evaluation: heatmap, bands, phase or amplitude, the page."""

import argparse
import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import config as config_lib
from apr_jax import data, models, parallel
from apr_jax import network as network_lib
from apr_jax.errors import ConfigError, DataError
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate import fourier, fourier_probe, fourier_programs
from apr_jax.evaluate.context import Context
from apr_jax.evaluate.measurement import Measurement
from apr_jax.report.run_view import RunView
from apr_jax.report.sections import fourier as section
from apr_jax.runs import records as records_lib
from tests import toy


@pytest.fixture(scope="module")
def images(folder):
    with np.load(folder / "test.npz") as stored:
        return data.ArraySplit(stored["images"], stored["labels"].astype(np.int32))


def by_shade(images):
    """Logits that are right about most of the toy's images: the nearest shade."""
    shade = images.mean((1, 2, 3))
    levels = (40 + 45 * jnp.arange(4)) / 255
    return -jnp.abs(shade[:, None] - levels[None])


def by_checks(images):
    """Logits of how much of the finest checkerboard is in an image."""
    signs = (-1.0) ** (jnp.arange(8)[:, None] + jnp.arange(8)[None])
    strength = jnp.abs((images * signs[None, :, :, None]).mean((1, 2))).mean(-1)
    others = jnp.zeros((len(images), 3))
    return jnp.concatenate([strength[:, None] - 0.1, others], axis=1)


@pytest.fixture(scope="module")
def network(folder):
    config = toy.config(folder)
    return classifier_lib.from_function(by_shade, config, "abcd", name="shade")


def probe(network, images, devices=1, **more):
    layout = parallel.make_layout(devices)
    return fourier_probe.Probe(network, Context(layout, quiet=True, **more), images)


def run(network, devices=1, done=(), **settings):
    layout = parallel.make_layout(devices)
    wanted = {"extent": 3, "norm": 0.5, "radii": (2.0, 4.0), **settings}
    settings = config_lib.Fourier(**wanted)
    context = Context(layout, done=done, quiet=True)
    return list(fourier.measure(network, settings, context))


def numpy_answers(pixels):
    return np.asarray(jax.jit(by_shade)(jnp.asarray(pixels, jnp.float32))).argmax(1)


# --- Waves ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "extent"), [(8, 8), (8, 5), (7, 7), (32, 31), (32, 32)]
)
def test_waves_cover_the_map_once(size, extent):
    places, number = fourier_probe.unique_waves(size, size, extent)
    # Waves that are their own negatives.
    fixed = 4 if extent % 2 == 0 else 1
    assert len(places) == (extent**2 + fixed) // 2
    assert sorted(np.unique(number)) == list(range(len(places)))
    for i in range(extent):
        for j in range(extent):
            wanted = (i - extent // 2) % size, (j - extent // 2) % size
            negative = tuple(-k % size for k in wanted)
            assert tuple(places[number[i, j]]) in (wanted, negative)


def test_heatmap_against_numpy(network, images):
    ours = probe(network, images).heatmap(0.5, 3)
    pixels = images.images / 255.0
    key = jax.random.fold_in(jax.random.key(0), fourier_programs._SIGN_STREAM)
    for (row, column), place in (((0, 0), (1, 1)), ((0, 1), (1, 2)), ((7, 1), (0, 2))):
        angle = 2 * np.pi * (row * np.arange(8)[:, None] + column * np.arange(8)) / 8
        wave = np.cos(angle) / np.linalg.norm(np.cos(angle))
        of_wave = jax.random.fold_in(key, row * 8 + column)
        draw = lambda n, of_wave=of_wave: jax.random.rademacher(
            jax.random.fold_in(of_wave, n), (3,), float
        )
        signs = np.asarray(jax.vmap(draw)(jnp.arange(len(pixels))))
        noise = 0.5 * signs[:, None, None, :] * wave[None, :, :, None]
        answers = numpy_answers(np.clip(pixels + noise, 0, 1))
        assert ours[place] == np.sum(answers != images.labels)
    np.testing.assert_array_equal(ours, ours[::-1, ::-1])


def test_heatmap_shows_the_frequency_that_is_looked_at(network, images):
    looks = classifier_lib.from_function(by_checks, network.config, "abcd", name="c")
    labels = np.asarray(by_checks(jnp.asarray(images.images / 255.0)).argmax(1))
    assert labels.max() > 0
    own = data.ArraySplit(images.images, labels.astype(np.int32))
    wrong = probe(looks, own).heatmap(2.0, 8)
    # Row and column -4 are the finest waves; no other changes their amount, but for
    # what clipping spills.
    assert wrong[0, 0] > 40
    assert wrong[4, 4] < 10


@pytest.mark.parametrize(
    ("devices", "batch"), [(2, 16), pytest.param(8, 64, marks=pytest.mark.slow)]
)
def test_devices_and_batches_do_not_matter(network, images, devices, batch):
    settings = dataclasses.replace(network.config.eval, batch_size=batch)
    config = dataclasses.replace(network.config, eval=settings)
    other = dataclasses.replace(network, config=config)
    here, there = probe(network, images), probe(other, images, devices)
    np.testing.assert_array_equal(here.heatmap(0.5, 3), there.heatmap(0.5, 3))
    assert here.bands([2.0]) == there.bands([2.0])
    for a, b in zip(
        here.phase_or_amplitude((-3, -2, -1)),
        there.phase_or_amplitude((-3, -2, -1)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_the_loop_of_accelerators_counts_the_same(network, images, monkeypatch):
    """They loop over waves inside the program; here it runs on a CPU."""
    here = probe(network, images)
    places, number = fourier_probe.unique_waves(8, 8, 5)
    wanted = here.waves(0.5)(places)
    np.testing.assert_array_equal(wanted[number], here.heatmap(0.5, 5))
    monkeypatch.setattr(parallel.Layout, "accelerated", True)
    monkeypatch.setattr(fourier_probe, "_PER_CALL", 4)
    np.testing.assert_array_equal(here.waves(0.5)(places), wanted)
    np.testing.assert_array_equal(here.heatmap(0.5, 5), wanted[number])


def test_the_heatmap_is_compiled_once(network, images, monkeypatch):
    traced = []

    def counting(variables, pixels):
        traced.append(pixels.shape)
        return network.predict(variables, pixels)

    probe(dataclasses.replace(network, predict=counting), images).heatmap(0.5, 5)
    assert len(traced) == 1


def test_a_heatmap_goes_on(network, images, tmp_path, monkeypatch):
    whole = probe(network, images).heatmap(0.5, 5)
    monkeypatch.setattr(fourier_probe, "_PER_SAVE", 2)
    first = probe(network, images, scratch=tmp_path)
    called = []
    add = first._sum

    def failing(*args):
        called.append(1)
        if len(called) > 20:
            raise KeyboardInterrupt
        return add(*args)

    monkeypatch.setattr(first, "_sum", failing)
    with pytest.raises(KeyboardInterrupt):
        first.heatmap(0.5, 5)
    second = probe(network, images, scratch=tmp_path)
    calls = []
    again = second._sum
    monkeypatch.setattr(second, "_sum", lambda *a: calls.append(1) or again(*a))
    np.testing.assert_array_equal(second.heatmap(0.5, 5), whole)
    # 13 waves in 4 batches each; 5 were whole and 4 of them saved.
    assert len(calls) == 4 * (13 - 4)
    (state,) = (tmp_path / "fourier").glob("*.npy")
    state.write_bytes(b"damaged")
    np.testing.assert_array_equal(
        probe(network, images, scratch=tmp_path).heatmap(0.5, 5), whole
    )


# --- Bands, phase and amplitude ------------------------------------------------------


def test_bands_against_numpy(network, images):
    pixels = images.images / 255.0
    rows = np.arange(8) - 4
    distance = np.hypot(rows[:, None], rows[None])
    for radius, counts in zip(
        (1.5, 3.0, 99.0), probe(network, images).bands([1.5, 3.0, 99.0]), strict=True
    ):
        keep = np.fft.ifftshift(distance < radius)[None, :, :, None]
        low = np.fft.ifft2(np.fft.fft2(pixels, axes=(1, 2)) * keep, axes=(1, 2)).real
        wanted = [
            np.sum(numpy_answers(x) != images.labels) for x in (low, pixels - low)
        ]
        assert list(counts) == wanted


def test_shade_follows_the_amplitude(network, images):
    """The mean grey level is the amplitude of the zero frequency."""
    follows, both, *_ = probe(network, images).phase_or_amplitude((-3, -2))
    assert np.mean(follows == 1) > 0.8
    assert 0 < both.sum() <= 50
    donors = fourier_probe.draw_donors(images.labels, 0)
    assert np.all(images.labels[donors] != images.labels)
    pixels = images.images / 255.0
    spectra = np.fft.fft2(pixels, axes=(1, 2))
    mixed = np.abs(spectra[donors]) * np.exp(1j * np.angle(spectra))
    answers = numpy_answers(np.fft.ifft2(mixed, axes=(1, 2)).real)
    wanted = np.select(
        [answers == images.labels, answers == images.labels[donors]], [0, 1], 2
    )
    assert np.mean(follows == wanted) > 0.97  # float32 near a border between shades


def test_one_class_has_no_pairs():
    with pytest.raises(DataError, match="all 3 images have the label 2"):
        fourier_probe.draw_donors(np.full(3, 2), 0)


# --- Records -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def records(network):
    return run(network)


def test_records(records, images, network):
    found = {r.metric: r for r in records}
    assert len(found) == len(records)
    assert set(found) == {
        *(f"{part}.clean_error" for part in fourier.PARTS),
        "heatmap_error",
        *(f"{band}_pass_error.r{r}" for band in ("low", "high") for r in (2, 4)),
        *(
            f"follows_{name}{suffix}"
            for name in fourier_probe.FOLLOWS
            for suffix in ("", ".recognised")
        ),
    }
    heatmap = np.array(found["heatmap_error"].extra["heatmap"])
    assert heatmap.shape == (3, 3)
    assert found["heatmap_error"].value == pytest.approx(heatmap.mean(), abs=1e-4)
    parts = [found[f"follows_{name}"].value for name in fourier_probe.FOLLOWS]
    assert sum(parts) == pytest.approx(1)
    wrong = np.sum(numpy_answers(images.images / 255.0) != images.labels)
    for part in fourier.PARTS:
        assert found[f"{part}.clean_error"].value == pytest.approx(wrong / 50)
    for record in records:
        assert record.metric == "heatmap_error" or record.low <= record.value
        assert record.n == (
            found["follows_phase.recognised"].n if "recognised" in record.metric else 50
        )


def test_pairs_are_counted_among_all_and_among_the_recognised(network):
    """Of four pairs follow two the phase, one of them where both are recognised."""
    follows, recognised = np.array([0, 0, 1, 2]), np.array([1, 0, 1, 0], bool)
    pairs = fourier_probe.Pairs(follows, recognised, *np.zeros((3, 4), int))
    given = argparse.Namespace(phase_or_amplitude=lambda axes: pairs)
    plan = {"axes": (-3, -2)}
    job = Measurement(fourier.JOB, network, Context(parallel.make_layout(1)), plan)
    numbers, _ = fourier._phase(given, job)
    shares = {name: (found.value, found.n) for name, found in numbers.items()}
    assert shares == {
        "follows_phase": (0.5, 4),
        "follows_amplitude": (0.25, 4),
        "follows_neither": (0.25, 4),
        "follows_phase.recognised": (0.5, 2),
        "follows_amplitude.recognised": (0.5, 2),
        "follows_neither.recognised": (0.0, 2),
    }


def test_what_is_done_is_not_done_again(network, records):
    assert run(network, done=records) == []
    heatmap = [r for r in records if r.extra["settings"]["part"] == "heatmap"]
    parts = {r.extra["settings"]["part"] for r in run(network, done=heatmap)}
    assert parts == {"bands", "phase"}
    again = run(network, done=records, norm=0.6)
    assert {r.extra["settings"]["part"] for r in again} == {"heatmap"}
    # A part that was cut off is measured again, whole.
    cut = [r for r in records if not r.extra.get("last")]
    assert len(run(network, done=cut)) == len(records)


def test_a_part_of_the_images(network):
    (clean, error) = run(network, parts=("heatmap",), examples=20)
    assert (clean.n, error.n) == (20, 20)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"parts": ("maps",)},
            "parts has 'maps'; choose from 'heatmap', 'bands', 'phase'",
        ),
        ({"parts": ()}, "parts is empty"),
        ({"examples": -2}, "examples is -2"),
        ({"norm": -1.0}, "norm is -1.0; it must be at least 0"),
        ({"extent": 4}, "extent is 4; for images of 8 pixels it must be odd and up to"),
        ({"extent": 9}, "extent is 9"),
        ({"radii": (0.0,)}, "radii has 0.0; it must be above 0"),
    ],
)
def test_bad_settings_are_refused(network, change, message):
    with pytest.raises(ConfigError, match=message):
        run(network, **change)


def test_the_section(records, tmp_path):
    records_lib.append(tmp_path / "results.jsonl", records)
    stored = records_lib.read(tmp_path / "results.jsonl")
    runs = [RunView(name=name, records=stored) for name in ("first", "<second>")]
    page = section.html(runs)
    for wanted in (
        "&lt;second&gt; less first",
        "Only high frequencies",
        "Phase or amplitude?",
        "var(--amplitude)",
    ):
        assert wanted in page
    assert "<second>" not in page
    assert section.table(runs).row_count == len(records) + 1  # and images
    assert section.html([RunView(name="none")]) == ""
    assert section.table([RunView(name="none")]) is None


def test_networks_in_bfloat16_are_probed_in_float32(folder, monkeypatch):
    monkeypatch.setitem(models.MODELS, "tiny", toy.TinyNet)
    key, seen, plain = jax.random.key(0), {}, {}
    pixels = np.random.default_rng(0).random((3, 8, 8, 3), np.float32)

    class Stop(Exception):
        pass

    def spy(classifier, *rest, **options):
        logits = jax.jit(classifier.predict)(classifier.variables, pixels)[0]
        seen[classifier.config.model.dtype] = np.asarray(logits)
        raise Stop

    monkeypatch.setattr(fourier_probe, "Probe", spy)
    for dtype in ("float32", "bfloat16"):
        config = toy.config(folder, model__dtype=dtype)
        model = network_lib.make_model(config, num_classes=4)
        variables = jax.jit(partial(model.init, train=False))(
            key, jnp.zeros((1, 8, 8, 3))
        )
        made = classifier_lib.make(config, variables, "abcd", name="same")
        plain[dtype] = np.asarray(jax.jit(made.predict)(made.variables, pixels)[0])
        with pytest.raises(Stop):
            run(made)
    assert np.abs(plain["float32"] - plain["bfloat16"]).max() > 1e-4
    np.testing.assert_allclose(seen["bfloat16"], seen["float32"], atol=1e-6)
