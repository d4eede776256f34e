"""The difference of two classifiers on the same images."""

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from apr_jax import metrics


def answers(rng, *, conditions, images, gap, shared=0.6):
    """Two classifiers that mostly err on the same images, the second more often."""
    hard = rng.normal(0, 1, images)
    draw = lambda shift: (
        np.sqrt(shared) * hard
        + np.sqrt(1 - shared) * rng.normal(0, 1, (conditions, images))
        < shift
    )
    return draw(0.8), draw(0.8 - gap)


@pytest.mark.parametrize("won", [0, 1, 4, 60, 4000])
@pytest.mark.parametrize("lost", [0, 1, 9, 75])
def test_mcnemar_is_the_binomial_test(won, lost):
    wanted = 1.0
    if won + lost:
        wanted = scipy.stats.binomtest(won, won + lost, 0.5).pvalue
    assert metrics.mcnemar(won, lost) == pytest.approx(wanted, rel=1e-6, abs=1e-300)


def test_what_is_counted():
    first = np.array([1, 1, 0, 1, 0, 1], bool)
    second = np.array([0, 1, 0, 0, 1, 0], bool)
    found = metrics.paired_difference(first, second)
    assert (found.won, found.lost, found.n) == (3, 1, 6)
    assert found.difference == pytest.approx(2 / 6 - 4 / 6)
    assert found.p == pytest.approx(0.625)  # 2 (1 + 4) / 16
    assert not found.differs
    turned = metrics.paired_difference(second, first)
    assert turned.difference == -found.difference
    assert turned.p == found.p


def test_the_interval_is_that_of_a_plain_bootstrap(rng):
    first, second = answers(rng, conditions=6, images=500, gap=0.2)
    gain = (second.astype(int) - first.astype(int)).mean(0)
    draws = [rng.choice(gain, 500).mean() for _ in range(4000)]
    plain = np.quantile(draws, [0.025, 0.975])
    found = metrics.paired_difference(first, second)
    np.testing.assert_allclose([found.low, found.high], plain, atol=0.1 * np.ptp(plain))
    assert found.difference == pytest.approx(np.mean(gain))


def test_an_image_is_drawn_with_all_its_conditions(rng):
    first, second = (
        right[0] for right in answers(rng, conditions=1, images=900, gap=0.2)
    )
    once = metrics.paired_difference(first, second)
    often = metrics.paired_difference(np.tile(first, (9, 1)), np.tile(second, (9, 1)))
    assert often.difference == pytest.approx(once.difference)
    assert often.high - often.low == pytest.approx(once.high - once.low, rel=0.1)
    assert (often.won, often.n) == (9 * once.won, 900)


@pytest.mark.parametrize(("images", "gap"), [(40, 0.0), (40, 0.5), (400, 0.2)])
def test_intervals_cover(images, gap):
    """Of 300 samples about 285 have the true difference in their interval."""
    rng = np.random.default_rng(5)
    first = scipy.stats.norm.cdf(0.8)
    truth = scipy.stats.norm.cdf(0.8 - gap) - first
    hits = 0
    for _ in range(300):
        pair = answers(rng, conditions=1, images=images, gap=gap)
        found = metrics.paired_difference(*pair, replicates=400)
        hits += found.low <= truth <= found.high
    assert 275 <= hits <= 298


def test_the_test_exchanges_the_answers_to_an_image(rng):
    first, second = answers(rng, conditions=4, images=300, gap=0.05)
    gain = second.astype(int).sum(0) - first.sum(0)
    signs = rng.choice([-1, 1], (20_000, 300))
    wanted = np.mean(np.abs(signs @ gain) >= abs(gain.sum()))
    found = metrics.paired_difference(first, second)
    assert found.p == pytest.approx(wanted, abs=0.02)


def test_equals_differ_as_often_as_they_may():
    rng = np.random.default_rng(6)
    several = np.mean(
        [
            metrics.paired_difference(
                *answers(rng, conditions=5, images=200, gap=0.0), replicates=200
            ).differs
            for _ in range(300)
        ]
    )
    assert 0.005 <= several <= 0.08


def test_nothing_that_differs_is_no_difference_but_may_be_a_small_one():
    right = np.ones((3, 50), bool)
    found = metrics.paired_difference(right, right)
    assert (found.difference, found.p, found.differs) == (0.0, 1.0, False)
    assert found.low < 0 < found.high


def test_other_images_are_refused():
    with pytest.raises(ValueError, match="same images, in the same order"):
        metrics.paired_difference(np.ones(4), np.ones(5))
    with pytest.raises(ValueError, match="of one image or more"):
        metrics.paired_difference([], [])


def detectors(rng, *, inside, sets, gap):
    """Two detectors' scores of the same images, with ties; the second is worse."""
    made = []
    for count, shift in ((inside, 1.0), *((m, 0.0) for m in sets)):
        easy = rng.normal(0, 1, count)
        each = [easy + rng.normal(0, 0.7, count) + shift * s for s in (1.0, 1.0 - gap)]
        made.append([np.round(scores, 1) for scores in each])
    (first, second), *outside = made
    return first, [o[0] for o in outside], second, [o[1] for o in outside]


def auroc(inside, outside):
    truth = np.r_[np.ones(len(inside)), np.zeros(len(outside))]
    return sklearn.metrics.roc_auc_score(truth, np.r_[inside, outside])


def test_detection_is_delong_s_of_a_pair(rng):
    """Each image's part of the difference, pair by pair."""
    first, (theirs,), second, (others,) = detectors(rng, inside=40, sets=[25], gap=0.4)
    found = metrics.paired_detection(first, [theirs], second, [others])
    assert found.difference == pytest.approx(
        auroc(second, others) - auroc(first, theirs)
    )
    above = lambda a, b: (a[:, None] > b) + 0.5 * (a[:, None] == b)
    table = above(second, others) - above(first, theirs)
    by_inside, by_outside = table.mean(1), table.mean(0)
    variance = np.cov(by_inside) / 40 + np.cov(by_outside) / 25
    half = scipy.stats.norm.ppf(0.975) * np.sqrt(variance)
    assert found.high - found.difference == pytest.approx(half, rel=1e-4)
    assert found.difference - found.low == pytest.approx(half, rel=1e-4)
    z = abs(found.difference) / np.sqrt(variance)
    assert found.p == pytest.approx(2 * scipy.stats.norm.sf(z))
    assert (found.n, found.won, found.lost) == (65, None, None)


def test_detection_over_sets_is_what_other_images_would_give():
    """The interval of a mean over sets that share the images inside, by repetition."""
    rng = np.random.default_rng(2)
    sizes = {"inside": 150, "sets": [60, 200], "gap": 0.3}
    found = [metrics.paired_detection(*detectors(rng, **sizes)) for _ in range(400)]
    differences = np.array([one.difference for one in found])
    truth = differences.mean()
    assert 0.92 <= np.mean([one.low <= truth <= one.high for one in found]) <= 0.98
    one, outside, other, theirs = detectors(rng, **sizes)
    mean = np.mean([auroc(one, o) for o in outside])
    mean -= np.mean([auroc(other, o) for o in theirs])
    joint = metrics.paired_detection(one, outside, other, theirs)
    assert joint.difference == pytest.approx(-mean)


def test_the_same_detector_does_not_differ(rng):
    one, outside, _, _ = detectors(rng, inside=20, sets=[30], gap=0.0)
    found = metrics.paired_detection(one, outside, one, outside)
    assert (found.difference, found.p, found.differs) == (0.0, 1.0, False)


def test_few_images_that_all_say_the_same_say_little():
    """Their variance is 0, which says too much."""
    for count, differs in ((2, False), (40, True)):
        one, other = np.arange(count) + 1.0, -1.0 - np.arange(count)
        found = metrics.paired_detection(one, [-one], other, [-other])
        assert found.difference == found.low == -1
        assert found.p == pytest.approx(min(1.0, 2 * 0.5**count))
        wilson = metrics.wilson(count, count)
        assert found.high == pytest.approx(-wilson.low)
        assert found.differs is differs


def test_scores_of_other_images_are_refused():
    one, two = np.arange(3.0), np.arange(2.0)
    for wrong in ((one, [one], one, []), (one, [one], two, [one]), (one, [], one, [])):
        with pytest.raises(ValueError, match="same"):
            metrics.paired_detection(*wrong)
    with pytest.raises(ValueError, match="two images"):
        metrics.paired_detection(one, [one[:1]], one, [one[:1]])
