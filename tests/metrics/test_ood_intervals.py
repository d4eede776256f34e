"""Intervals and ROC curves of detection."""

import numpy as np
import pytest
import sklearn.metrics

from apr_jax.metrics import detection


def test_auroc_intervals_cover():
    """Of 300 samples about 285 have the true area in their interval."""
    rng = np.random.default_rng(3)
    # Normal scores one standard deviation apart: P(id > ood) = Phi(1 / sqrt 2).
    truth, hits = 0.7602499389065233, 0
    for _ in range(300):
        inside, outside = rng.normal(1, 1, 60), rng.normal(0, 1, 90)
        low, high = detection.ood_intervals(inside, outside, replicates=10)["auroc"]
        hits += low <= truth <= high
    assert 273 <= hits <= 295


def test_fpr_interval_is_that_of_a_plain_bootstrap():
    rng = np.random.default_rng(4)
    inside, outside = rng.normal(2, 1, 400), rng.normal(0, 1, 300)
    draws = [
        detection.ood_detection(rng.choice(inside, 400), rng.choice(outside, 300))
        for _ in range(600)
    ]
    ours = detection.ood_intervals(inside, outside)
    for name in ("fpr95_id_positive", "fpr95_ood_positive", "tnr_at_tpr95"):
        plain = np.quantile([d[name] for d in draws], [0.025, 0.975])
        np.testing.assert_allclose(ours[name], plain, atol=0.03)
        width = np.diff(ours[name]) / np.diff(plain)
        assert 0.85 < width < 1.2


@pytest.mark.parametrize("shift", [-50.0, 0.0, 50.0])
def test_intervals_hold_the_value_and_are_never_empty(rng, shift):
    inside, outside = rng.normal(shift, 1, 40), rng.normal(0, 1, 30)
    values = detection.ood_detection(inside, outside)
    for name, (low, high) in detection.ood_intervals(inside, outside).items():
        assert 0 <= low <= values[name] <= high <= 1
        assert high - low > 0.01


def test_one_example_says_nothing_about_the_auroc():
    assert detection.ood_intervals([1.0], [0.0, 2.0])["auroc"] == (0.0, 1.0)


@pytest.mark.parametrize("ties", [False, True])
def test_roc_curve(rng, ties):
    inside, outside = rng.normal(1, 1, 500), rng.normal(0, 1, 400)
    if ties:
        inside, outside = np.round(inside), np.round(outside)
    fpr, tpr = detection.roc_curve(inside, outside, points=50)
    assert len(fpr) == len(tpr) <= 50
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    target = np.append(np.ones(500), np.zeros(400))
    every = sklearn.metrics.roc_curve(
        target, np.append(inside, outside), drop_intermediate=False
    )
    on_curve = set(zip(every[0].round(9), every[1].round(9), strict=True))
    assert set(zip(fpr.round(9), tpr.round(9), strict=True)) <= on_curve
    area = detection.ood_detection(inside, outside)["auroc"]
    assert np.trapezoid(tpr, fpr) == pytest.approx(area, abs=0.01)


def test_a_curve_of_one_point_is_refused():
    with pytest.raises(ValueError, match="points is 1"):
        detection.roc_curve([1.0], [0.0], points=1)
