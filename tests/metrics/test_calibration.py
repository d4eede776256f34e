"""Calibration errors against plain loops, and at the edges of the bins."""

import numpy as np
import pytest

from apr_jax.metrics import calibration


def predictions(rng, n=730):
    confidence = rng.uniform(0.1, 1.0, n)
    return confidence, rng.uniform(size=n) < confidence**1.5


def loop_ece(confidence, correct, bins):
    total = 0.0
    for b in range(bins):
        low, high = b / bins, (b + 1) / bins
        inside = [
            i
            for i, c in enumerate(confidence)
            if low < c <= high or (b == 0 and c == 0.0)
        ]
        if inside:
            gap = np.mean(correct[inside]) - np.mean(confidence[inside])
            total += len(inside) / len(confidence) * abs(gap)
    return total


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_ece_matches_a_loop(rng, bins):
    confidence, correct = predictions(rng)
    expected = loop_ece(confidence, correct, bins)
    assert calibration.ece(confidence, correct, bins=bins) == pytest.approx(expected)


@pytest.mark.parametrize("bin_size", [1, 7, 100, 730, 5000])
def test_rms_matches_a_loop(rng, bin_size):
    confidence, correct = predictions(rng)
    order = sorted(range(len(confidence)), key=lambda i: confidence[i])
    total = 0.0
    for start in range(0, len(order), bin_size):
        part = order[start : start + bin_size]
        gap = np.mean(correct[part]) - np.mean(confidence[part])
        total += len(part) / len(order) * gap**2
    ours = calibration.rms_calibration_error(confidence, correct, bin_size=bin_size)
    assert ours == pytest.approx(np.sqrt(total))


@pytest.mark.parametrize("bins", [1, 2, 15])
def test_confidence_of_exactly_zero_and_one(bins):
    sure = np.ones(250)
    assert calibration.ece(sure, np.ones(250, bool), bins=bins) == 0.0
    assert calibration.ece(sure, np.zeros(250, bool), bins=bins) == 1.0
    assert calibration.ece(0 * sure, np.zeros(250, bool), bins=bins) == 0.0
    assert calibration.ece(0 * sure, np.ones(250, bool), bins=bins) == 1.0
    assert calibration.rms_calibration_error(sure, np.zeros(250, bool)) == 1.0
    assert calibration.rms_calibration_error(0 * sure, np.zeros(250, bool)) == 0.0
    diagram = calibration.reliability([0.0, 1.0], [False, True], bins=bins)
    assert diagram.count.sum() == 2
    assert diagram.count[0] == (2 if bins == 1 else 1)
    assert diagram.count[-1] == (2 if bins == 1 else 1)


def test_bins_are_closed_above():
    diagram = calibration.reliability([0.5, 0.25, 0.75], [True, False, True], bins=4)
    assert diagram.count.tolist() == [1, 1, 1, 0]


def test_reliability_adds_up_to_ece(rng):
    confidence, correct = predictions(rng)
    diagram = calibration.reliability(confidence, correct, bins=15)
    filled = diagram.count > 0
    assert diagram.count.sum() == 730
    assert np.isnan(diagram.accuracy[~filled]).all()
    gap = np.abs(diagram.accuracy - diagram.confidence)[filled]
    total = np.sum(diagram.count[filled] / 730 * gap)
    assert total == pytest.approx(calibration.ece(confidence, correct))
    assert diagram.edges[[0, -1]].tolist() == [0, 1]
    inside = diagram.confidence[filled]
    assert np.all(inside > diagram.edges[:-1][filled])
    assert np.all(inside <= diagram.edges[1:][filled])


def test_order_of_equal_confidences_does_not_matter(rng):
    """Saturated networks: half are exactly 1, sorted by correctness or not."""
    confidence = np.where(np.arange(500) < 250, 1.0, 0.7)
    correct = rng.uniform(size=500) < 0.8
    shuffled = rng.permutation(500)
    by_correct = np.argsort(correct)
    values = [
        calibration.rms_calibration_error(confidence[i], correct[i])
        for i in (np.arange(500), shuffled, by_correct)
    ]
    assert values == pytest.approx([values[0]] * 3, abs=1e-12)


def published(confidence, correct, size):
    """The loop of the authors' code, bin by bin, as its text says."""
    order = sorted(range(len(confidence)), key=lambda i: confidence[i])
    bins = [order[i * size : (i + 1) * size] for i in range(len(order) // size)]
    total = 0.0
    for part in bins[:-1]:  # the last one, and what is left, never comes
        gap = np.mean(confidence[part]) - np.mean(correct[part])
        total += len(part) / len(order) * gap**2
    return np.sqrt(total)


@pytest.mark.parametrize("bin_size", [1, 7, 100, 365, 400, 730])
def test_rms_as_the_authors_count(rng, bin_size):
    confidence, correct = predictions(rng)
    ours = calibration.rms_calibration_error(
        confidence, correct, bin_size=bin_size, convention="authors"
    )
    wanted = published(confidence, correct, bin_size)
    assert ours == pytest.approx(wanted, abs=1e-12)
    if bin_size > 365:
        assert ours == 0.0  # one bin, which is dropped
    exact = calibration.rms_calibration_error(confidence, correct, bin_size=bin_size)
    assert exact > ours


def test_conventions_that_cannot_be():
    given = [0.5, 0.5], [True, False]
    with pytest.raises(ValueError, match="unknown convention 'paper'; choose from exa"):
        calibration.rms_calibration_error(*given, convention="paper")
    with pytest.raises(ValueError, match="bin_size is 100 and N is 2"):
        calibration.rms_calibration_error(*given, convention="authors")


def test_bad_input_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"lie in \[0, 1\], but span \[0.5, 1.5\]"):
        calibration.ece([0.5, 1.5], [True, False])
    with pytest.raises(ValueError, match="lie in"):
        calibration.reliability([0.5, np.nan], [True, False])
    with pytest.raises(ValueError, match=r"correct must be booleans \[2\]"):
        calibration.rms_calibration_error([0.5, 0.5], [True])
    with pytest.raises(ValueError, match="N > 0"):
        calibration.ece([], [])
    with pytest.raises(ValueError, match="bins is 0; it must be a whole number, 1"):
        calibration.ece([0.5], [True], bins=0)
    with pytest.raises(ValueError, match="bin_size is 0; it must be a whole"):
        calibration.rms_calibration_error([0.5], [True], bin_size=0)
