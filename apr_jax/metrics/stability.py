"""Stability over a sequence of slowly perturbed frames: flips, and top-5 distance.

Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions
and perturbations", ICLR 2019, section 4.3. Frames of noise are compared with the first
one, as noise doesn't grow along its sequence; all others with the frame before.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from apr_jax.errors import ArgumentError
from apr_jax.gates import answers, knobs
from apr_jax.metrics.intervals import Measured

_TOP = 5
# Of two rankings without a common top class; what a frame without answer counts as.
_FARTHEST = _TOP * (_TOP + 1) // 2
_REPLICATES = 1000
_BLOCK = 2_000_000


def flips(logits: npt.ArrayLike, *, noise: bool) -> float:
    """The share of a sequence's comparisons in which the answer differs.

    Its mean over sequences is the flip probability of a perturbation. A frame without
    an answer (a logit isn't finite) differs from every other.

    Args:
        logits: [F, K] of F frames.
        noise: whether frames are compared with the first one, not the one before.

    Raises:
        ArgumentError: fewer than two frames.
    """
    knobs.truth("noise", noise)
    found = _frames(logits)
    said = answers.answer(found)
    first, second = _compared(len(found), noise)
    differs = (said[first] != said[second]) | (said[first] < 0)
    return float(differs.mean())


def top5_distance(logits: npt.ArrayLike, *, noise: bool) -> float:
    """The mean over a sequence's comparisons of how far the top five classes moved.

    With sigma(i) the rank that the class of rank i has in the other frame, it is the
    sum over i = 1 to 5 of how many j from min(i, sigma(i)) + 1 to max(i, sigma(i)) have
    1 <= j - 1 <= 5: 0 where the five stay in order, 15 where none is among them any
    more, or where a frame has no answer. Of equal logits the first ranks higher.

    Args:
        logits: [F, K] of F frames.
        noise: whether frames are compared with the first one, not the one before.

    Raises:
        ArgumentError: fewer than two frames.
    """
    knobs.truth("noise", noise)
    found = _frames(logits)
    known = answers.answer(found) >= 0
    order = np.argsort(-np.where(known[:, None], found, 0), axis=1, kind="stable")
    ranks = np.argsort(order, axis=1, kind="stable")  # class -> rank, from 0
    first, second = _compared(len(found), noise)
    top = order[first][:, :_TOP]
    moved = np.take_along_axis(ranks[second], top, axis=1)
    here = np.arange(top.shape[1])
    distance = np.abs(np.minimum(moved, _TOP) - here).sum(axis=1)
    both = known[first] & known[second]
    return float(np.where(both, distance, _FARTHEST).mean())


def over_sequences(
    values: Sequence[float] | npt.NDArray[np.float64], unit: str, *, seed: int = 0
) -> Measured:
    """The mean over sequences, its interval bootstrapped over them.

    Args:
        values: [N], one of each sequence.
        unit: as ``Measured``.
        seed: of the bootstrap.
    """
    each = np.asarray(values, np.float64)
    count, rng = len(each), np.random.default_rng(seed)
    rows = max(1, _BLOCK // count)
    means = [
        each[rng.integers(0, count, (min(rows, _REPLICATES - start), count))].mean(1)
        for start in range(0, _REPLICATES, rows)
    ]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    mean = float(each.mean())
    return Measured(mean, min(float(low), mean), max(float(high), mean), unit, count)


def mean_flip_rate(
    flip_probabilities: Mapping[str, float], *, baseline: Mapping[str, float]
) -> float:
    """ImageNet-P's mFR: mean over perturbations of the ratio to a reference network's.

    Args:
        flip_probabilities: perturbation -> flip probability, in [0, 1].
        baseline: the same of the reference network, AlexNet in the paper; of the same
            perturbations.

    Returns:
        A fraction; 1 for the reference network itself.

    Raises:
        ArgumentError: other perturbations, or a number out of its range.
    """
    given = flip_probabilities
    if set(given) != set(baseline) or not baseline:
        raise ArgumentError(
            f"flip_probabilities are of {', '.join(given) or 'nothing'}, the "
            f"baseline of {', '.join(baseline) or 'nothing'}; they must be the same"
        )
    for name, value in baseline.items():
        knobs.real(f"baseline of {name!r}", value, above=0, high=1)
        knobs.real(f"flip_probabilities of {name!r}", given[name], low=0, high=1)
    return float(np.mean([given[n] / baseline[n] for n in baseline]))


def _frames(logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
    found = np.asarray(answers.logits(logits)).astype(np.float64)
    if len(found) < 2:
        raise ArgumentError(
            f"logits are {list(found.shape)}; they must be [F, K] of two frames or more"
        )
    return found


def _compared(
    frames: int, noise: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The frames that are compared, and with which."""
    later = np.arange(1, frames)
    return (np.zeros_like(later) if noise else later - 1), later
