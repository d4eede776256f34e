"""Metrics against scikit-learn, SciPy and plain loops."""

import functools
import re

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics

from apr_jax import metrics
from apr_jax.metrics import intervals


def classifier(rng, n=400, classes=10, margin=2.0):
    labels = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), labels] += margin
    return logits, labels


# --- Classification ------------------------------------------------------------------


def test_accuracy_and_top_k_match_scikit_learn(rng):
    logits, labels = classifier(rng)
    assert metrics.accuracy(logits, labels) == pytest.approx(
        sklearn.metrics.accuracy_score(labels, logits.argmax(1)), abs=1e-12
    )
    for k in (1, 3, 5):
        expected = sklearn.metrics.top_k_accuracy_score(
            labels, logits, k=k, labels=np.arange(10)
        )
        assert metrics.top_k(logits, labels, k=k) == pytest.approx(expected, abs=1e-12)
    assert metrics.top_k(logits, labels, k=10) == 1.0


def test_equal_logits_go_to_the_lower_class():
    logits = np.zeros((4, 4))
    assert metrics.accuracy(logits, [0, 1, 2, 3]) == 0.25
    assert metrics.top_k(logits, [0, 1, 2, 3], k=2) == 0.5


def test_nll_and_brier_match_scikit_learn(rng):
    logits, labels = classifier(rng)
    p = scipy.special.softmax(logits, axis=1)
    expected = sklearn.metrics.log_loss(labels, p, labels=np.arange(10))
    assert metrics.nll(logits, labels) == pytest.approx(expected, rel=1e-12)
    one_hot = np.eye(10)[labels]
    expected = np.mean([np.sum((p[i] - one_hot[i]) ** 2) for i in range(len(p))])
    assert metrics.brier(p, labels) == pytest.approx(expected, rel=1e-12)


def test_nll_of_huge_logits_is_finite_and_exact():
    logits = np.array([[1e4, 0.0], [0.0, 1e4]])
    assert metrics.nll(logits, [1, 1]) == pytest.approx(5e3)


def test_brier_of_certain_predictions():
    certain = np.eye(3)
    assert metrics.brier(certain, [0, 1, 2]) == 0.0
    assert metrics.brier(certain, [1, 2, 0]) == 2.0
    with pytest.raises(ValueError, match="must lie in"):
        metrics.brier(2 * certain, [0, 1, 2])


def test_jax_arrays_in_bfloat16_are_welcome(rng):
    logits, labels = classifier(rng, n=50)
    low = jnp.asarray(logits, jnp.bfloat16)
    expected = np.mean(np.asarray(low, np.float32).argmax(1) == labels)
    assert metrics.accuracy(low, jnp.asarray(labels)) == pytest.approx(expected)


def test_bad_input_says_what_is_wrong(rng):
    logits, labels = classifier(rng, n=20)
    broken = logits.copy()
    broken[7, 3], broken[9, 0], broken[12, 1] = np.nan, np.inf, -np.inf
    with pytest.raises(
        ValueError, match=r"3 of 200 logits are not finite.*nan at example 7, class 3"
    ):
        metrics.nll(broken, labels)
    with pytest.raises(
        ValueError, match=r"1 labels are outside \[0, 10\).*10 at ex.* 4"
    ):
        metrics.accuracy(logits, np.where(np.arange(20) == 4, 10, labels))
    with pytest.raises(ValueError, match="must be integers"):
        metrics.nll(logits, labels.astype(float))
    with pytest.raises(ValueError, match=r"labels must be integers \[20\].*\[19\]"):
        metrics.nll(logits, labels[:-1])
    with pytest.raises(ValueError, match="no examples"):
        metrics.summary(logits, labels, np.zeros(20, bool))
    with pytest.raises(
        ValueError, match="k is 11; it must be a whole number from 1 to 10"
    ):
        metrics.top_k(logits, labels, k=11)


def test_not_a_number_is_never_correct(rng):
    """Against scikit-learn, to which no answer is a class of its own."""
    logits, labels = classifier(rng, n=60)
    logits[3, 0], logits[4, 9], logits[5] = np.nan, np.inf, -np.inf
    logits[6, (labels[6] + 1) % 10] = -np.inf  # a class that is left out is an answer
    silent = np.isin(np.arange(60), (3, 4, 5))
    said = np.where(silent, 10, logits.argmax(1))
    wanted = sklearn.metrics.accuracy_score(labels, said)
    assert metrics.accuracy(logits, labels) == pytest.approx(wanted, abs=1e-12)
    counts = sklearn.metrics.confusion_matrix(labels, said, labels=np.arange(11))
    np.testing.assert_array_equal(metrics.confusion(logits, labels), counts[:10, :10])
    found = metrics.summary(logits, labels, replicates=50)
    rest = metrics.summary(logits[~silent], labels[~silent], replicates=50)
    assert found["accuracy"].value == pytest.approx(wanted, abs=1e-12)
    assert found["error"].n == 60
    assert {k: found[k] for k in ("nll", "ece", "brier")} == {
        k: rest[k] for k in ("nll", "ece", "brier")
    }
    assert rest["nll"].n == 57
    p = scipy.special.softmax(logits[~silent], axis=1)
    wanted = sklearn.metrics.log_loss(labels[~silent], p, labels=np.arange(10))
    assert found["nll"].value == pytest.approx(wanted)
    assert metrics.reliability_of(logits, labels).count.sum() == 57
    # Where it is the first class that a NaN's index would name.
    nothing = np.full((40, 5), np.nan)
    assert metrics.accuracy(nothing, np.zeros(40, int)) == 0.0
    assert metrics.top_k(nothing, np.zeros(40, int), k=5) == 0.0
    assert set(metrics.summary(nothing, np.zeros(40, int))) == {"accuracy", "error"}


def test_an_infinite_likelihood_is_left_out(rng):
    logits, labels = classifier(rng, n=40)
    logits[2, labels[2]] = -np.inf
    found = metrics.summary(logits, labels, replicates=50)
    assert "nll" not in found
    assert all(np.isfinite(m.value) and np.isfinite(m.low) for m in found.values())


def test_confusion_and_reliability_match_their_definitions(rng):
    logits, labels = classifier(rng)
    expected = sklearn.metrics.confusion_matrix(
        labels, logits.argmax(1), labels=np.arange(10)
    )
    np.testing.assert_array_equal(metrics.confusion(logits, labels), expected)
    confidence = scipy.special.softmax(logits, axis=1).max(1)
    ours = metrics.reliability_of(logits, labels, bins=7)
    theirs = metrics.reliability(confidence, logits.argmax(1) == labels, bins=7)
    np.testing.assert_allclose(ours.confidence, theirs.confidence)
    np.testing.assert_allclose(ours.accuracy, theirs.accuracy)


# --- Intervals -----------------------------------------------------------------------


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (3, 7), (9603, 10000)])
def test_wilson_matches_scipy(k, n):
    ours = metrics.wilson(k, n)
    theirs = scipy.stats.binomtest(k, n).proportion_ci(method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert ours.value == k / n
    assert 0 <= ours.low <= ours.value <= ours.high <= 1


def test_summary_holds_the_single_metrics_and_ignores_padding(rng):
    logits, labels = classifier(rng)
    p = scipy.special.softmax(logits, axis=1)
    right = logits.argmax(1) == labels
    padded = np.concatenate([logits, np.full((30, 10), np.nan)])
    result = metrics.summary(
        padded, np.append(labels, np.full(30, -1)), np.arange(430) < 400
    )
    expected = {
        "accuracy": metrics.accuracy(logits, labels),
        "error": 1 - metrics.accuracy(logits, labels),
        "top5": metrics.top_k(logits, labels, k=5),
        "nll": metrics.nll(logits, labels),
        "ece": metrics.ece(p.max(1), right),
        "rms_calibration_error": metrics.rms_calibration_error(p.max(1), right),
        "brier": metrics.brier(p, labels),
    }
    assert {k: v.value for k, v in result.items()} == pytest.approx(expected, abs=1e-12)
    assert all(m.n == 400 and m.low < m.value < m.high for m in result.values())
    assert result["nll"].unit == "nats"


def test_summary_leaves_out_top5_where_it_says_nothing(rng):
    assert "top5" not in metrics.summary(*classifier(rng, classes=5), replicates=20)
    assert "top5" in metrics.summary(*classifier(rng, classes=6), replicates=20)


def test_bootstrap_is_seeded(rng):
    data = classifier(rng)
    first = metrics.summary(*data, seed=3)
    assert first == metrics.summary(*data, seed=3)
    assert first["ece"] != metrics.summary(*data, seed=4)["ece"]


def test_bootstrap_matches_a_plain_loop(rng):
    """Same statistic, other random numbers: the ends agree to a few percent."""
    logits, labels = classifier(rng, n=250)
    p = scipy.special.softmax(logits, axis=1)
    conf, right = p.max(1), logits.argmax(1) == labels
    loss = -np.log(p[np.arange(250), labels])
    squares = np.sum((p - np.eye(10)[labels]) ** 2, axis=1)
    rows = {"nll": [], "brier": [], "ece": [], "rms_calibration_error": []}
    for _ in range(1500):
        i = rng.integers(0, 250, 250)
        rows["nll"].append(loss[i].mean())
        rows["brier"].append(squares[i].mean())
        rows["ece"].append(metrics.ece(conf[i], right[i]))
        order = i[np.argsort(conf[i])]
        gap = (conf - right)[order]
        rows["rms_calibration_error"].append(
            np.sqrt(
                sum(b.size * b.mean() ** 2 for b in np.split(gap, [100, 200])) / 250
            )
        )
    ours = metrics.summary(logits, labels, replicates=4000)
    for name, values in rows.items():
        centred = np.array(values) - np.mean(values) + ours[name].value
        low, high = np.quantile(centred, [0.025, 0.975])
        tolerance = 0.15 * (high - low)
        assert ours[name].low == pytest.approx(max(low, 0), abs=tolerance), name
        assert ours[name].high == pytest.approx(high, abs=tolerance), name


def test_bootstrap_in_blocks_is_complete(rng, monkeypatch):
    """Many small blocks draw as many replicates, of the same distribution."""
    data = classifier(rng, n=300)
    whole = metrics.summary(*data)["nll"]
    monkeypatch.setattr(intervals, "_BLOCK", 700)
    blocks = metrics.summary(*data)["nll"]
    assert blocks == whole


# --- Corruptions ---------------------------------------------------------------------


def test_mce_is_one_for_alexnet_itself():
    assert metrics.mean_corruption_error(metrics.ALEXNET_ERROR) == pytest.approx(1.0)


def test_mce_matches_a_loop_over_severities(rng):
    errors = {name: rng.uniform(0.1, 0.9, 5) for name in metrics.ALEXNET_ERROR}
    total = 0.0
    for name, levels in errors.items():
        total += sum(levels) / (5 * metrics.ALEXNET_ERROR[name])
    assert metrics.mean_corruption_error(errors) == pytest.approx(total / 15)
    plain = np.mean([e for levels in errors.values() for e in levels])
    assert metrics.mean_corruption_error(errors, baseline=None) == pytest.approx(plain)


@pytest.mark.parity
def test_alexnet_constants_are_the_published_ones(shared):
    """Digit for digit and in the order of the corruptions, noise to digital."""
    text = (shared / "semantics.md").read_text()
    published = re.findall(r"(?<!\d)\.\d{6}\b", text)
    assert [float(x) for x in published] == list(metrics.ALEXNET_ERROR.values())


def test_mce_names_what_is_missing_or_foreign():
    errors = dict(metrics.ALEXNET_ERROR)
    del errors["fog"]
    errors["speckle_noise"] = 0.5
    with pytest.raises(ValueError, match="missing: fog; not part of it: speckle_noise"):
        metrics.mean_corruption_error(errors)
    with pytest.raises(ValueError, match=r"'snow' must lie in \[0, 1\], but.*50"):
        metrics.mean_corruption_error({**metrics.ALEXNET_ERROR, "snow": [50.0]})


ONES = dict.fromkeys(metrics.ALEXNET_ERROR, 1.0)


@pytest.mark.parametrize(
    ("baseline", "match"),
    [
        ({}, "of baseline missing: gaussian_noise"),
        ({"fog": 0.5}, "of baseline missing: gaussian_noise"),
        ({**ONES, "speckle_noise": 1.0}, "not part of it: speckle_noise"),
        ({**ONES, "fog": 0.0}, r"baseline of 'fog' is 0\.0; it must be"),
        ({**ONES, "fog": 100.0}, r"baseline of 'fog' is 100"),
    ],
)
def test_a_baseline_is_of_the_fifteen_and_above_nought(baseline, match):
    errors = metrics.ALEXNET_ERROR
    with pytest.raises(ValueError, match=match):
        metrics.mean_corruption_error(errors, baseline=baseline)
    with pytest.raises(ValueError, match=match):
        metrics.relative_mean_corruption_error(errors, 0.4, baseline=baseline)


def test_a_baseline_must_lose_something():
    errors = metrics.ALEXNET_ERROR
    relative = functools.partial(
        metrics.relative_mean_corruption_error, errors, 0.4, baseline=ONES
    )
    assert relative(baseline_clean=0.5) > 0
    with pytest.raises(ValueError, match="is 1, as baseline_clean: nothing is lost"):
        relative(baseline_clean=1.0)
    with pytest.raises(ValueError, match="baseline_clean is 43"):
        relative(baseline_clean=43.0)
