"""The bundled set: what it holds, and that its shortcut is where it should be."""

import dataclasses

import numpy as np
import pytest

from apr_jax import data
from apr_jax.data import bundled
from apr_jax.errors import DataError
from tests.data.test_data import settings


@pytest.fixture(scope="module")
def bundled_sets():
    recipe = dataclasses.replace(bundled.RECIPE, train=600, test=400)
    return {s: bundled.compose(s, recipe) for s in bundled.SPLITS}


def test_bundled_set_is_balanced_colour_and_reproducible(bundled_sets):
    recipe = dataclasses.replace(bundled.RECIPE, train=600, test=400)
    for name, size in (("train", 600), ("test", 400), ("test_shifted", 400)):
        split = bundled_sets[name]
        assert split.images.shape == (size, 32, 32, 3)
        assert split.images.dtype == np.uint8
        assert np.bincount(split.labels).tolist() == [size // 10] * 10
        spread = split.images.max(-1).astype(int) - split.images.min(-1)
        assert (spread.mean((1, 2)) > 4).mean() > 0.8
    again = bundled.compose("test", recipe)
    np.testing.assert_array_equal(again.images, bundled_sets["test"].images)


def test_bundled_splits_share_no_digit_and_no_pixel():
    from sklearn.datasets import load_digits

    sides = [np.concatenate(bundled._digits(t, bundled.RECIPE)) for t in (True, False)]
    assert len(sides[0]) + len(sides[1]) == len(load_digits().target)
    whole = sorted(load_digits().images.reshape(-1, 64).tolist())
    parts = np.concatenate(sides).reshape(-1, 64) * 16
    assert sorted(parts.tolist()) == whole
    taken = {True: set(), False: set()}
    for train in (True, False):
        for corners in bundled._corners(train):
            assert len(corners) >= 2
            for photo, top, left in corners:
                assert top + 40 <= 427
                assert left + 40 <= 640
                taken[train] |= {
                    (photo, y, x)
                    for y in range(top, top + 40)
                    for x in range(left, left + 40)
                }
    assert not taken[True] & taken[False]


def ring_amplitudes(pixels):
    """The logarithm of the amplitude spectrum, averaged over 16 rings."""
    spectrum = np.abs(np.fft.fft2(pixels.astype(float).mean(-1)))
    frequency = np.fft.fftfreq(32) * 32
    ring = np.hypot(frequency[:, None], frequency).round()
    logs = np.log1p(spectrum)
    return np.stack([logs[:, ring == r].mean(1) for r in range(16)], axis=1)


def test_bundled_shortcut_is_in_the_amplitude(bundled_sets):
    """Amplitudes alone tell the class in the test split, and mislead when shifted."""
    features = {k: ring_amplitudes(s.images) for k, s in bundled_sets.items()}
    mean, spread = features["train"].mean(0), features["train"].std(0)
    known = (features["train"] - mean) / spread
    accuracy = {}
    for split in ("test", "test_shifted"):
        asked = (features[split] - mean) / spread
        distance = ((asked[:, None] - known) ** 2).sum(-1)
        nearest = bundled_sets["train"].labels[np.argsort(distance)[:, :7]]
        votes = np.stack([(nearest == c).sum(1) for c in range(10)], axis=1)
        accuracy[split] = (votes.argmax(1) == bundled_sets[split].labels).mean()
    assert accuracy["test"] > 0.6
    assert accuracy["test_shifted"] < 0.2


def test_bundled_backgrounds_go_with_the_class(bundled_sets):
    wanted = {"train": bundled.RECIPE.shortcut, "test": bundled.RECIPE.shortcut}
    for split in bundled.SPLITS:
        labels, kinds = bundled._kinds(split, bundled.RECIPE)
        share = (labels == kinds).mean()
        assert share == pytest.approx(wanted.get(split, 0), abs=0.02)
        assert np.bincount(kinds, minlength=10).min() > 150
    test, shifted = bundled_sets["test"], bundled_sets["test_shifted"]
    np.testing.assert_array_equal(test.labels, shifted.labels)


def test_bundled_set_loads_and_names_its_limits(tmp_path, monkeypatch):
    small = dataclasses.replace(bundled.RECIPE, train=100, test=50)
    monkeypatch.setattr(bundled, "RECIPE", small)
    where = settings(tmp_path, source="bundled", name="bundled", image_size=32)
    where = dataclasses.replace(where, shifted_splits=("test_shifted",))
    found = data.load(where)
    assert sorted(found.splits) == ["test", "test_shifted", "train"]
    assert len(found.class_names) == 10
    with pytest.raises(DataError, match=r"image_size is 28.*32 pixels"):
        data.load(dataclasses.replace(where, image_size=28))
    with pytest.raises(DataError, match=r"'exam'.*train, test, test_shifted"):
        data.load(where, splits=("exam",))
