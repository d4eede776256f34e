"""The difference of two classifiers on the same images: its interval, and a test.

    paired_difference(correct, other, *, seed=0, replicates=2000) -> Paired
    paired_detection(id_scores, ood_sets, other_id, other_sets) -> Paired
    mcnemar(won, lost) -> p

Two classifiers that saw the same images err on many of the same ones, so the interval
of their difference is far narrower than those of their errors. What varies is which
images were drawn: where an image was measured under several conditions (corruptions and
severities), it is drawn with all of its answers, and the conditions stay as they are.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.special

from apr_jax.errors import ArgumentError
from apr_jax.gates import answers, knobs
from apr_jax.metrics import detection
from apr_jax.metrics.intervals import Z95

# What is called a difference happens to equals at most so often.
_LEVEL = 0.05


@dataclasses.dataclass(frozen=True)
class Paired:
    """How much more, or less, often the first of two classifiers errs.

    Attributes:
        difference: error of the first less that of the second, in [-1, 1]; below 0 the
            first is better. Of detection, one less the AUROC is the error.
        low, high: ends of its 95 % interval.
        p: probability of a difference at least as large between equals.
        n: images.
        won: answers that the first alone has right; None of detection.
        lost: answers that the second alone has right; None of detection.
    """

    difference: float
    low: float
    high: float
    p: float
    n: int
    won: int | None = None
    lost: int | None = None

    @property
    def differs(self) -> bool:
        """Whether interval and test both exclude that there is no difference."""
        return not self.low <= 0 <= self.high and self.p < _LEVEL


def paired_difference(
    correct: npt.ArrayLike,
    other: npt.ArrayLike,
    *,
    seed: int = 0,
    replicates: int = 2000,
) -> Paired:
    """The difference of two classifiers' errors on the same images.

    The interval is bootstrapped over images. As in Agresti and Min ("Simple improved
    confidence intervals for comparing matched proportions", 2005) half an image is
    added that the first alone has right, half a one that the second has, and one that
    both have, so that it isn't empty where no answers differ.

    The test is McNemar's ("Note on the sampling error of the difference between
    correlated proportions or percentages", 1947), exact. Under several conditions it is
    what that test stands for, by its normal approximation: between equals, the two
    classifiers' answers to an image may be exchanged, under all conditions together.

    Args:
        correct: [N], or [K, N] under K conditions: whether the first has each right.
        other: the same of the second, in the same order.
        seed: of the bootstrap.
        replicates: of the bootstrap.

    Raises:
        ArgumentError: shapes that differ, other values, or no images.
    """
    knobs.whole("replicates", replicates)
    first = _table(correct, "correct")
    second = _table(other, "other")
    if first.shape != second.shape:
        raise ArgumentError(
            f"correct {list(first.shape)} and other {list(second.shape)} differ; they "
            "must be of the same images, in the same order"
        )
    conditions, n = first.shape
    gain = second.astype(np.int64).sum(0) - first.sum(0)  # [N], of conditions
    # Few values are possible, so a draw of images is one of their counts.
    values = np.arange(-conditions, conditions + 1)
    weight = np.bincount(gain + conditions, minlength=len(values)).astype(np.float64)
    weight[[0, conditions, -1]] += 0.5, 1.0, 0.5
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n, weight / weight.sum(), size=replicates) @ values
    low, high = np.quantile(drawn / (n * conditions), [0.025, 0.975])
    difference = float(gain.sum() / (n * conditions))
    won, lost = int((first & ~second).sum()), int((second & ~first).sum())
    p = mcnemar(won, lost) if conditions == 1 else _exchanged(gain)
    return Paired(
        difference,
        min(float(low), difference),
        max(float(high), difference),
        p,
        n,
        won,
        lost,
    )


def paired_detection(
    id_scores: npt.ArrayLike,
    ood_sets: Sequence[npt.ArrayLike],
    other_id: npt.ArrayLike,
    other_sets: Sequence[npt.ArrayLike],
) -> Paired:
    """The difference of two detectors' AUROC on the same images, in errors.

    After DeLong et al. ("Comparing the areas under two or more correlated receiver
    operating characteristic curves", 1988): an AUROC is the mean of what each image
    wins against the other side, and so is a difference of two; interval and test are
    the normal ones. Of several sets it is their mean, with the same images inside.

    Args:
        id_scores: [N] scores of in-distribution examples by the first detector.
        ood_sets: its scores of each set of others [M].
        other_id, other_sets: the same of the second, in the same order.

    Raises:
        ArgumentError: shapes that differ, NaN, no set, or less than two images in one.
    """
    inside = [answers.scores(id_scores, "id_scores")]
    inside += [answers.scores(other_id, "other_id")]
    if not len(ood_sets) or len(ood_sets) != len(other_sets):
        raise ArgumentError(
            f"ood_sets are {len(ood_sets)} and other_sets {len(other_sets)}; both must "
            "be of the same sets, one or more"
        )
    within, sets, beyond = [], [], 0.0
    for one, other in zip(ood_sets, other_sets, strict=True):
        outside = [answers.scores(one, "ood_sets")]
        outside += [answers.scores(other, "other_sets")]
        if len({len(x) for x in inside}) > 1 or len({len(x) for x in outside}) > 1:
            raise ArgumentError("both detectors must have scored the same images")
        if min(len(inside[0]), len(outside[0])) < 2:
            raise ArgumentError("two images of each side are needed, or more")
        first, second = (
            detection.win_rates(a, b) for a, b in zip(inside, outside, strict=True)
        )
        within.append(second - first)
        first, second = (
            detection.win_rates(-b, -a) for a, b in zip(inside, outside, strict=True)
        )
        sets.append(len(outside[0]))
        beyond += float(np.var(second - first, ddof=1)) / len(outside[0])
    mean = np.mean(within, axis=0)  # [N], over the sets
    difference = float(mean.mean())
    variance = float(np.var(mean, ddof=1)) / len(mean) + beyond / len(sets) ** 2
    deviation = math.sqrt(variance)
    half = Z95 * deviation
    if deviation:
        p = math.erfc(abs(difference) / (math.sqrt(2) * deviation))
    elif difference:
        # Each image says the same, and the variance is 0, which says too much: Wilson's
        # bound and the test of signs, of as many images as the smallest side has.
        fewer = min(len(mean), *sets)
        half, p = Z95**2 / (fewer + Z95**2), min(1.0, 2 * 0.5**fewer)
    else:
        p = 1.0
    low, high = (max(-1.0, min(1.0, difference + s * half)) for s in (-1, 1))
    return Paired(difference, low, high, p, len(mean) + sum(sets))


def mcnemar(won: int, lost: int) -> float:
    """The p of McNemar's test, two-sided and exact: of a fair coin's heads and tails.

    Args:
        won: images that the first of two classifiers alone has right.
        lost: images that the second alone has right.

    Raises:
        ArgumentError: a number below 0.
    """
    knobs.whole("won", won, low=0)
    knobs.whole("lost", lost, low=0)
    p = 2 * float(scipy.special.bdtr(min(won, lost), won + lost, 0.5))
    return min(1.0, p)


def _exchanged(gain: npt.NDArray[np.int64]) -> float:
    """The p of the sum of numbers [N] whose signs are those of fair coins."""
    squares = float(np.sum(gain**2))
    return math.erfc(abs(int(gain.sum())) / math.sqrt(2 * squares)) if squares else 1.0


def _table(values: Any, name: str) -> npt.NDArray[np.bool_]:
    """Truth values of answers as [K, N]."""
    found = np.asarray(answers.array(values, name))
    rows = found[None] if found.ndim == 1 else found
    if rows.ndim != 2 or not rows.size:
        raise ArgumentError(
            f"{name} must be booleans [N] or [K, N], of one image or more, not "
            f"{found.dtype} {list(found.shape)}"
        )
    return np.stack([answers.truths(row, name=name, count=len(row)) for row in rows])
