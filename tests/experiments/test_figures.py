"""Figures, numbers and cells of the experiments, on functions in place of networks."""

import types

import numpy as np
import pytest

from apr_jax import data, metrics
from apr_jax.runs.records import Record
from experiments import drawing, measures
from experiments.hfc import bands
from experiments.paper import figure2_swap
from experiments.tables import cells


def record(job, split, metric, value, **extra):
    return Record(
        job=job, data="d", split=split, metric=metric, value=value, unit="fraction",
        n=40, step=0, config_hash="c", code_version="v", seed=0, device="cpu",
        time="2026-01-01T00:00:00+00:00", extra=extra,
    )  # fmt: skip


def swapped(amplitude_from, phase_from):
    """The definition, image by image, in float64."""
    a, p = (np.fft.fftn(x, axes=(0, 1, 2)) for x in (amplitude_from, phase_from))
    return np.fft.ifftn(np.abs(a) * np.exp(1j * np.angle(p))).real


# --- Figure 2 ------------------------------------------------------------------------


def test_the_four_images_of_a_pair_are_what_their_titles_say(rng):
    images = rng.integers(0, 256, (3, 6, 7, 3), np.uint8)
    donors = np.array([2, 0, 1])
    a, b, phase_a, phase_b = figure2_swap._recombined(images, donors)
    pixels = images / 255
    np.testing.assert_allclose(a, pixels, atol=1e-6)
    np.testing.assert_allclose(b, pixels[donors], atol=1e-6)
    for i, donor in enumerate(donors):
        np.testing.assert_allclose(
            phase_a[i], swapped(pixels[donor], pixels[i]), atol=1e-4
        )
        np.testing.assert_allclose(
            phase_b[i], swapped(pixels[i], pixels[donor]), atol=1e-4
        )


def test_the_most_confident_swapped_pairs_of_other_answers_are_shown():
    found = {
        "counts": np.array([True, True, True, True, False, True]),
        "outcome": np.array([0, 0, 1, 0, 0, 0]),
        "sure": np.array([[0.5, 0.9, 1, 0.8, 1, 0.7]] * 3 + [[0.6, 0.95, 1, 1, 1, 1]]),
        # The second and fourth pair have the same two answers.
        "said": np.array([[0, 1, 0, 2, 0, 3], [1, 2, 1, 1, 1, 1]] * 2),
    }
    assert figure2_swap._choose(found) == [1, 5]


def test_pairs_are_drawn_in_colours_of_what_was_said(rng):
    images = [rng.integers(0, 256, (4, 4, 3), np.uint8) for _ in range(4)]
    said = {
        "standard": [["cat", 0.9], ["dog", 0.8], ["dog", 0.7], ["cat", 0.6]],
        "apr_sp": [["cat", 0.9], ["dog", 0.8], ["cat", 0.7], ["owl", 0.6]],
    }
    story = {"images": [drawing.pack(image) for image in images], "said": said}
    figure = figure2_swap._examples([("known", story)])
    axes = figure.axes
    titles = [axis.get_title() for axis in axes]
    wanted = ["a", "b", "phase a,\namplitude b", "phase b,\namplitude a"]
    assert titles == wanted
    for axis, image in zip(axes, images, strict=True):
        np.testing.assert_array_equal(axis.images[0].get_array(), image)
    texts = [[t.get_text() for t in axis.texts] for axis in axes]
    assert texts[2] == ["standard: dog 70 %", "APR-SP: cat 70 %"]
    colours = [[t.get_color() for t in axis.texts] for axis in axes]
    assert colours == [
        ["black"] * 2,
        ["black"] * 2,
        ["red", "green"],  # dog gave the amplitude, cat the phase
        ["red", "grey"],  # cat gave the amplitude
    ]


def test_bars_are_as_long_as_the_shares_they_are_labelled_with():
    shares = {"swapped": 0.2, "kept": 0.5, "other": 0.3}
    records = [
        record("x", split, metric, value if split == "a" else 1 - value)
        for split in ("a", "b")
        for metric, value in shares.items()
    ]
    axis = figure2_swap._bars(records).axes[0]
    labels = [
        "both go with the amplitude",
        "both stay with the phase",
        "something else",
    ]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == labels
    widths = {
        (bar.get_facecolor()[:3], round(bar.get_y() + bar.get_height() / 2)): (
            bar.get_width()
        )
        for bar in axis.patches
    }
    own = [
        next(
            h
            for h, text in zip(*axis.get_legend_handles_labels(), strict=True)
            if text == label
        )
        for label in labels
    ]
    for handle, (name, share) in zip(own, shares.items(), strict=True):
        colour = handle.patches[0].get_facecolor()[:3]
        assert widths[colour, 0] == pytest.approx(100 * share), name
        assert widths[colour, 1] == pytest.approx(100 * (1 - share)), name


# --- Low and high parts --------------------------------------------------------------


def test_accuracies_are_of_the_parts_that_they_are_recorded_for(rng, monkeypatch):
    images = rng.integers(0, 256, (4, 8, 8, 3), np.uint8)
    test = data.ArraySplit(images, np.arange(4))
    made = []

    class Part(types.SimpleNamespace):
        done = ()

        def records(self, found, network=None, **extra):
            made.append((self.split, self.settings, found))
            return []

    lab = types.SimpleNamespace(
        options=types.SimpleNamespace(run=[]),
        part=lambda split, **asked: Part(split=split, settings=asked),
    )
    epochs = Part(done=[1])
    part = lab.part
    lab.part = lambda split, **asked: (
        epochs if split == "epochs" else part(split, **asked)
    )
    monkeypatch.setattr(bands.networks_lib, "images", lambda lab: (None, test, None))
    monkeypatch.setattr(bands.networks_lib, "given", lambda *_: "network")
    monkeypatch.setattr(bands.networks_lib, "radii", lambda size: (2.0, 3.0))
    monkeypatch.setattr(
        bands.measures, "accuracy", lambda network, pixels, labels: np.asarray(pixels)
    )
    list(bands.compute(lab))
    rows, columns = np.ogrid[-4:4, -4:4]
    for split, asked, found in made[:-1]:
        spectrum = np.fft.fftshift(np.fft.fft2(images / 255, axes=(1, 2)), axes=(1, 2))
        inside = np.hypot(rows, columns) < asked["radius"]
        kept = inside if asked["band"] == "low" else ~inside
        spectrum = np.fft.ifftshift(spectrum * kept[None, :, :, None], axes=(1, 2))
        wanted = np.fft.ifft2(spectrum, axes=(1, 2)).real
        np.testing.assert_allclose(found["accuracy"], wanted, atol=1e-4, err_msg=split)
    assert [asked["band"] for _, asked, _ in made[:-1]] == ["low", "high"] * 2
    np.testing.assert_array_equal(made[-1][2]["accuracy"], images)


@pytest.mark.parametrize("seed", [0, 1])
def test_balanced_examples_are_as_many_of_each_class_and_drawn(seed):
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    split = data.ArraySplit(np.arange(100)[:, None], labels)
    chosen = measures.balanced(split, 24, seed=seed)
    assert np.bincount(chosen.labels).tolist() == [8, 8, 8]
    places = chosen.images[:, 0]
    assert (np.diff(places) > 0).all()
    assert (places[:8] != np.arange(8)).any()  # not simply the first of each
    other = measures.balanced(split, 24, seed=2)
    assert (other.images != chosen.images).any()
    assert np.bincount(measures.balanced(split, 45, seed=seed).labels)[2] == 10


# --- Cells of tables -----------------------------------------------------------------


def test_cells_of_the_first_table():
    found = cells.corruption_cells(
        [
            record("evaluate.clean", "test", "error", 0.07),
            record("evaluate.clean", "test", "accuracy", 0.93),
            record("evaluate.corruption", "mean", "error", 0.31),
            record("evaluate.corruption", "mean", "ece", 0.11),
        ]
    )
    assert found == {"": 0.31, "clean error": 0.07}


def test_cells_of_the_second_and_third_table():
    out = [
        record("evaluate.clean", "test", "accuracy", 0.93),
        record("evaluate.ood", "svhn_cropped", "msp.auroc", 0.91),
        record("evaluate.ood", "svhn_cropped", "msp.aupr_in", 0.5),
        record("evaluate.ood", "cifar100", "msp.auroc", 0.81),
        record("evaluate.ood", "cifar100", "energy.auroc", 0.6),
        record("evaluate.ood", "near", "msp.auroc", 0.83),
        record("evaluate.ood", "all", "msp.auroc", 0.86),
    ]
    wanted = {"accuracy": 0.93, "svhn": 0.91, "cifar100": 0.81, "mean": 0.86}
    assert cells.out_cells(out) == wanted
    robust = record("evaluate.adversarial", "linf/0.0314", "robust_accuracy", 0.41)
    after = record("evaluate.adversarial", "linf/0.0314", "after_apgd-ce", 0.45)
    found = cells.robust_cells([out[0], robust, after])
    assert found == {"accuracy": 0.93, "robust": 0.41}


def test_cells_of_the_fourth_table():
    made = [
        record("evaluate.corruption", f"fog/{s}", "error", s / 10) for s in range(1, 6)
    ]
    made += [
        record("evaluate.corruption", f"snow/{s}", "error", 0.5) for s in range(1, 5)
    ]
    made.append(record("evaluate.corruption", "mean", "mce", 0.77))
    made.append(record("evaluate.clean", "test", "error", 0.24))
    found = cells.imagenet_cells(made)
    assert found.keys() == {"error", "mce", "fog"}  # a severity of snow is missing
    assert (found["error"], found["mce"]) == (0.24, 0.77)
    assert found["fog"] == pytest.approx(0.3 / 0.819324)


def test_shares_and_intervals_are_of_what_hit():
    found = measures.share(np.array([True, False, False, True, True]))
    assert (found.value, found.n) == (0.6, 5)
    assert found == metrics.wilson(3, 5)
