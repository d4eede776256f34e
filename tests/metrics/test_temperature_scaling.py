"""Temperature scaling against SciPy's minimum, and selective risk against a loop."""

import numpy as np
import pytest
import scipy.optimize
import scipy.special
from sklearn.metrics import log_loss

from apr_jax import metrics
from apr_jax.errors import ArgumentError
from apr_jax.metrics import selective, temperature_scaling


def answers(n=600, classes=7, *, sharpness=3.0):
    """Logits that are ``sharpness`` times too sure of their labels."""
    rng = np.random.default_rng(4)
    true = rng.normal(0, 1.5, (n, classes))
    labels = [rng.choice(classes, p=p) for p in scipy.special.softmax(true, axis=1)]
    return sharpness * true, np.array(labels)


def test_temperature_is_scipy_s_minimum():
    logits, labels = answers()
    nll = lambda t: log_loss(labels, scipy.special.softmax(logits / t, axis=1))
    wanted = scipy.optimize.minimize_scalar(nll, bounds=(0.1, 20), method="bounded")
    found = metrics.temperature(logits, labels)
    assert found == pytest.approx(wanted.x, rel=1e-4)
    assert nll(found) <= wanted.fun + 1e-12
    # A shift or another scale changes nothing of what comes out.
    assert metrics.temperature(0.2 * logits - 5, labels) == pytest.approx(0.2 * found)


def test_temperature_stays_in_its_bounds():
    logits = np.eye(3) * 4
    assert metrics.temperature(logits, [0, 1, 2]) == pytest.approx(0.01, rel=1e-6)
    assert metrics.temperature(logits, [1, 2, 0]) == pytest.approx(100, rel=1e-6)
    with pytest.raises(ArgumentError, match="1 of 9 logits are not finite"):
        metrics.temperature(np.where(np.eye(3) * [1, 0, 0], np.inf, 1), [0, 1, 2])


@pytest.mark.parametrize(("shift", "bound"), [(0, 0.01), (1, 100.0)])
def test_a_temperature_at_its_bound_is_none_that_was_fitted(shift, bound):
    labels = np.arange(40) % 4
    found = temperature_scaling.scaled(np.eye(4)[(labels + shift) % 4], labels)
    assert found.keys() == {"temperature"}
    assert found["temperature"].value == pytest.approx(bound, rel=1e-6)
    assert found["temperature"].low is found["temperature"].high is None


def test_the_interval_stays_in_the_bounds(rng):
    labels = rng.integers(0, 4, 60)
    logits = np.eye(4)[labels] * 0.02 + rng.normal(0, 0.1, (60, 4))
    found = temperature_scaling.scaled(logits, labels)["temperature"]
    assert 0.01 <= found.low <= found.value <= found.high <= 100


def test_scaled_numbers_are_those_of_the_other_half():
    logits, labels = answers()
    found = temperature_scaling.scaled(logits, labels, seed=5)
    order = np.random.default_rng(5).permutation(600)
    fit, rest = order[:300], order[300:]
    t = metrics.temperature(logits[fit], labels[fit])
    assert found["temperature"].value == pytest.approx(t)
    assert (found["temperature"].n, found["ece_scaled"].n) == (300, 300)
    p = scipy.special.softmax(logits[rest] / t, axis=1)
    right = p.argmax(1) == labels[rest]
    for name, wanted in (
        ("nll", log_loss(labels[rest], p)),
        ("ece", metrics.ece(p.max(1), right)),
        ("rms_calibration_error", metrics.rms_calibration_error(p.max(1), right)),
        ("brier", np.mean(((p - np.eye(7)[labels[rest]]) ** 2).sum(1))),
    ):
        number = found[f"{name}_scaled"]
        assert number.value == pytest.approx(wanted), name
        assert number.low <= number.value <= number.high
    assert found["ece_scaled"].value < metrics.summary(logits, labels)["ece"].value
    # The interval of the temperature is as wide as draws of other halves.
    whole = [answers(1200)[0], answers(1200)[1]]
    rng, drawn = np.random.default_rng(0), []
    for _ in range(60):
        part = rng.choice(1200, 300, replace=False)
        drawn.append(np.log(metrics.temperature(whole[0][part], whole[1][part])))
    half = np.log(found["temperature"].high / found["temperature"].low) / 2
    assert half == pytest.approx(1.96 * np.std(drawn), rel=0.5)


def test_what_is_not_finite_is_left_out():
    logits, labels = answers(40)
    bad = np.concatenate([logits, np.full((3, 7), np.nan)])
    found = temperature_scaling.scaled(bad, [*labels, 0, 1, 2], seed=1)
    assert found == temperature_scaling.scaled(logits, labels, seed=1)
    assert temperature_scaling.scaled(bad[-4:], [0, 0, 1, 2]) == {}


def loop_aurc(confidence, correct):
    """Over orders of equal examples, as many as there are."""
    rng, values = np.random.default_rng(0), []
    for _ in range(400):
        order = np.lexsort((rng.random(len(correct)), -confidence))
        wrong = [not correct[i] for i in order]
        values.append(np.mean([sum(wrong[:k]) / k for k in range(1, len(wrong) + 1)]))
    return np.mean(values)


@pytest.mark.parametrize("levels", [0, 5])
def test_aurc_matches_a_loop(rng, levels):
    confidence = rng.random(60)
    confidence = np.round(confidence * levels) / levels if levels else confidence
    correct = rng.random(60) < confidence
    near = {"abs": 0.01} if levels else {"rel": 1e-12}
    found = metrics.aurc(confidence, correct)
    assert found == pytest.approx(loop_aurc(confidence, correct), **near)
    shuffled = rng.permutation(60)
    assert metrics.aurc(confidence[shuffled], correct[shuffled]) == pytest.approx(found)
    measured = selective.measured_aurc(confidence, correct)
    assert measured.value == found
    assert measured.low < found < measured.high


def test_aurc_at_its_ends():
    assert metrics.aurc([0.3, 0.1], [True, True]) == 0
    assert metrics.aurc([0.3, 0.1], [False, False]) == 1
    # One error of four, known to be the least sure one: 1/4 at the end.
    assert metrics.aurc([4, 3, 2, 1], [1, 1, 1, 0]) == pytest.approx(1 / 16)
    for bad, message in (([np.nan, 1], "1 of 2 confidence are NaN"), ([], "N > 0")):
        with pytest.raises(ArgumentError, match=message):
            metrics.aurc(bad, [True] * len(bad))
