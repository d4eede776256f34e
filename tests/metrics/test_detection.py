"""Detection metrics against scikit-learn, pairwise loops and reference outputs."""

import numpy as np
import pytest
import sklearn.metrics

from apr_jax import metrics


def scores(rng, ties):
    inside, outside = rng.normal(1.0, 1.0, 230), rng.normal(0.0, 1.3, 170)
    return (np.round(inside), np.round(outside)) if ties else (inside, outside)


@pytest.mark.parametrize("ties", [False, True])
def test_areas_match_scikit_learn(rng, ties):
    inside, outside = scores(rng, ties)
    ours = metrics.ood_detection(inside, outside)
    target = np.append(np.ones(230), np.zeros(170))
    both = np.append(inside, outside)
    assert ours["auroc"] == pytest.approx(sklearn.metrics.roc_auc_score(target, both))
    assert ours["aupr_in"] == pytest.approx(
        sklearn.metrics.average_precision_score(target, both)
    )
    assert ours["aupr_out"] == pytest.approx(
        sklearn.metrics.average_precision_score(1 - target, -both)
    )


@pytest.mark.parametrize("ties", [False, True])
def test_thresholds_match_a_loop(rng, ties):
    inside, outside = scores(rng, ties)
    ours = metrics.ood_detection(inside, outside)
    thresholds = np.append(np.unique(np.append(inside, outside)), np.inf)
    id_positive, ood_positive, best = [], [], 0.0
    for t in thresholds:
        tpr, fpr = np.mean(inside >= t), np.mean(outside >= t)
        if tpr >= 0.95:
            id_positive.append(fpr)
        if 1 - fpr >= 0.95:
            ood_positive.append(1 - tpr)
        best = max(best, (tpr + 1 - fpr) / 2)
    assert ours["fpr95_id_positive"] == pytest.approx(min(id_positive))
    assert ours["tnr_at_tpr95"] == pytest.approx(1 - min(id_positive))
    assert ours["fpr95_ood_positive"] == pytest.approx(min(ood_positive))
    assert ours["detection_accuracy"] == pytest.approx(best)


def test_exactly_95_percent_reaches_tpr_95():
    """19 of 20 is 95 %, which floating point must not miss."""
    inside = np.append(np.ones(19), 0.0)
    ours = metrics.ood_detection(inside, np.zeros(20))
    assert ours["fpr95_id_positive"] == 0.0
    flipped = metrics.ood_detection(np.ones(20), np.append(np.zeros(19), 1.0))
    assert flipped["fpr95_ood_positive"] == 0.0


def test_extremes():
    apart = metrics.ood_detection([2.0, np.inf], [-np.inf, 1.0])
    assert apart.pop("fpr95_id_positive") == apart.pop("fpr95_ood_positive") == 0.0
    assert set(apart.values()) == {1.0}
    equal = metrics.ood_detection(np.zeros(30), np.zeros(10))
    assert equal["auroc"] == equal["detection_accuracy"] == 0.5
    assert (equal["aupr_in"], equal["aupr_out"]) == (0.75, 0.25)
    assert equal["fpr95_id_positive"] == equal["fpr95_ood_positive"] == 1.0


def test_swapping_the_sides_swaps_the_names(rng):
    inside, outside = scores(rng, ties=True)
    ours = metrics.ood_detection(inside, outside)
    swapped = metrics.ood_detection(-outside, -inside)
    assert swapped["auroc"] == pytest.approx(ours["auroc"])
    assert swapped["aupr_in"] == pytest.approx(ours["aupr_out"])
    assert swapped["fpr95_id_positive"] == pytest.approx(ours["fpr95_ood_positive"])


@pytest.mark.parity
@pytest.mark.parametrize("name", ["cont", "ties"])
def test_authors_convention_matches_reference(shared, name):
    reference = np.load(shared / "golden" / "reference.npz")
    expected = dict(str(row).split("=") for row in reference[f"ood_{name}_result"])
    inside, outside = reference[f"ood_{name}_id"], reference[f"ood_{name}_ood"]
    ours = metrics.ood_detection(inside, outside, convention="authors")
    for theirs, key in {
        "TNR": "tnr_at_tpr95",
        "AUROC": "auroc",
        "DTACC": "detection_accuracy",
        "AUIN": "aupr_in",
        "AUOUT": "aupr_out",
    }.items():
        assert 100 * ours[key] == pytest.approx(float(expected[theirs]), abs=1e-7), key
    if name == "cont":
        exact = metrics.ood_detection(inside, outside)
        for key in ("tnr_at_tpr95", "auroc", "detection_accuracy"):
            assert exact[key] == pytest.approx(ours[key], abs=1e-12)


def openood(inside, outside):
    """FPR95, AUROC, AUPR-in and -out, as OpenOOD v1.5 asks scikit-learn for them."""
    both = np.concatenate([inside, outside])
    unknown = np.repeat([0, 1], [len(inside), len(outside)])
    fpr, tpr, _ = sklearn.metrics.roc_curve(unknown, -both)
    areas = []
    for target, score in ((1 - unknown, both), (unknown, -both)):
        precision, recall, _ = sklearn.metrics.precision_recall_curve(target, score)
        areas.append(sklearn.metrics.auc(recall, precision))
    return fpr[np.argmax(tpr >= 0.95)], sklearn.metrics.auc(fpr, tpr), *areas


@pytest.mark.parametrize("levels", [0, 3, 12])
def test_openoods_convention_is_scikit_learns(rng, levels):
    differs = 0
    for _ in range(40):
        inside, outside = rng.normal(1, 1, 40), rng.normal(0, 1, rng.integers(1, 80))
        if levels:
            inside, outside = (np.round(levels * x / 4) for x in (inside, outside))
        ours = metrics.ood_detection(inside, outside, convention="openood")
        names = ("fpr95_ood_positive", "auroc", "aupr_in", "aupr_out")
        want = openood(inside, outside)
        np.testing.assert_allclose([ours[n] for n in names], want, atol=1e-12)
        exact = metrics.ood_detection(inside, outside)
        assert exact["auroc"] == ours["auroc"]
        differs += exact["aupr_in"] != ours["aupr_in"]
    assert differs > 30


@pytest.mark.parametrize("ties", [False, True])
def test_oscr_matches_pairs(rng, ties):
    inside, outside = scores(rng, ties)
    correct = rng.uniform(size=230) < 0.8
    total = 0.0
    for s, right in zip(inside, correct, strict=True):
        for t in outside:
            total += right * (1.0 if s > t else 0.5 if s == t else 0.0)
    ours = metrics.oscr(inside, correct, outside)
    assert ours == pytest.approx(total / (230 * 170))


def test_oscr_of_a_perfect_classifier_is_the_auroc(rng):
    inside, outside = scores(rng, ties=True)
    assert metrics.oscr(inside, np.ones(230, bool), outside) == pytest.approx(
        metrics.ood_detection(inside, outside)["auroc"]
    )


@pytest.mark.parity
def test_oscr_matches_reference(shared):
    reference = np.load(shared / "golden" / "reference.npz")
    logits = reference["oscr_logits_id"]
    arguments = (
        logits.max(1),
        logits.argmax(1) == reference["oscr_labels"],
        reference["oscr_logits_ood"].max(1),
    )
    theirs = float(reference["oscr"])
    ours = metrics.oscr(*arguments, convention="authors")
    assert ours == pytest.approx(theirs, abs=1e-12)
    # Off by at most one example of either side.
    assert metrics.oscr(*arguments) == pytest.approx(theirs, abs=1 / 400 + 1 / 600)


def test_bad_input_says_what_is_wrong():
    with pytest.raises(ValueError, match="1 of 2 ood_scores are NaN, the first at 1"):
        metrics.ood_detection([1.0], [0.0, np.nan])
    with pytest.raises(ValueError, match=r"id_scores must be \[N\] with N > 0"):
        metrics.ood_detection([], [0.0])
    with pytest.raises(ValueError, match="choose from exact, authors, openood"):
        metrics.ood_detection([1.0], [0.0], convention="approximate")
    with pytest.raises(ValueError, match=r"correct must be booleans \[2\]"):
        metrics.oscr([1.0, 2.0], [True], [0.0])
