"""Flips and top-5 distance, against the paper's formulas written out."""

import numpy as np
import pytest

from apr_jax import metrics
from apr_jax.errors import ArgumentError
from apr_jax.metrics import stability


def ranks(logits):
    """Class -> rank from 1, of equal logits the first ranks higher."""
    order = sorted(range(len(logits)), key=lambda k: (-logits[k], k))
    return {k: place + 1 for place, k in enumerate(order)}


def distance(x, other):
    """d(tau(x), tau(x')), section 4.3: a double sum with an indicator."""
    tau, tau_other = ranks(x), ranks(other)
    at = {rank: k for k, rank in tau.items()}
    total = 0
    for i in range(1, 6):
        if i in at:
            sigma = tau_other[at[i]]
            for j in range(min(i, sigma) + 1, max(i, sigma) + 1):
                total += 1 <= j - 1 <= 5
    return total


def by_formula(frames, noise):
    """Flip probability and mean distance of one sequence."""
    changed, moved = [], []
    for j in range(1, len(frames)):
        other = frames[0] if noise else frames[j - 1]
        changed.append(np.argmax(frames[j]) != np.argmax(other))
        moved.append(distance(other, frames[j]))
    return np.mean(changed), np.mean(moved)


@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize("classes", [3, 5, 6, 12])
def test_formulas(rng, noise, classes):
    for _ in range(20):
        frames = rng.normal(size=(7, classes)).cumsum(0).round(1)  # with ties
        wanted = by_formula(frames, noise)
        found = (
            metrics.flips(frames, noise=noise),
            metrics.top5_distance(frames, noise=noise),
        )
        np.testing.assert_allclose(found, wanted)


def test_what_is_compared_with_what():
    """An answer that changes once, and comes back at the end."""
    frames = np.eye(8)[[0, 1, 1, 1, 0]]
    assert metrics.flips(frames, noise=False) == 2 / 4
    assert metrics.flips(frames, noise=True) == 3 / 4
    # Class 1 goes from rank 2 to rank 1, class 0 the other way: two places in all.
    assert metrics.top5_distance(frames, noise=True) == 3 / 4 * 2
    far = np.stack([np.arange(12.0), -np.arange(12.0)])
    assert metrics.top5_distance(far, noise=True) == 15


def test_without_an_answer():
    frames = np.eye(8)[[0, 0, 0, 0]]
    assert metrics.flips(frames, noise=False) == 0
    frames[1, 3] = np.nan
    assert metrics.flips(frames, noise=False) == 2 / 3
    assert metrics.top5_distance(frames, noise=False) == 2 / 3 * 15
    frames[2, 3] = np.nan  # nor are two of them alike
    assert metrics.flips(frames, noise=False) == 1
    for one in (frames[:1], frames[0]):
        with pytest.raises(ArgumentError, match=r"two frames or more|must be \[N, K\]"):
            metrics.flips(one, noise=True)


def test_mean_flip_rate():
    of = {"tilt": 0.2, "scale": 0.1}
    baseline = {"tilt": 0.4, "scale": 0.1}
    assert metrics.mean_flip_rate(of, baseline=baseline) == pytest.approx(0.75)
    assert metrics.mean_flip_rate(baseline, baseline=baseline) == 1
    for other in ({"tilt": 0.4}, {}, {**baseline, "snow": 0.1}):
        with pytest.raises(ArgumentError, match="they must be the same"):
            metrics.mean_flip_rate(of, baseline=other)
    with pytest.raises(ArgumentError, match="baseline of 'tilt'"):
        metrics.mean_flip_rate(of, baseline={**baseline, "tilt": 0.0})


def test_intervals_are_those_of_a_mean(rng):
    values = rng.beta(1, 5, 400)
    found = stability.over_sequences(values, "fraction")
    spread = 1.96 * values.std() / np.sqrt(400)
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - spread, abs=0.15 * spread)
    assert found.high == pytest.approx(values.mean() + spread, abs=0.15 * spread)
    assert (found.unit, found.n) == ("fraction", 400)
