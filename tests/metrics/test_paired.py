"""The difference of two classifiers on the same images."""

import numpy as np
import pytest
import scipy.stats

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
