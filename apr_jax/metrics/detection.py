"""Detection of the unknown: how well a score separates in- from out-of-distribution.

Host-side NumPy in float64 like ``apr_jax.metrics``, which exports these functions too.
Every result is a fraction in [0, 1].
"""

import numpy as np
import numpy.typing as npt

from apr_jax.gates import answers, knobs
from apr_jax.metrics.calibration import CONVENTIONS, FloatArray, IntArray
from apr_jax.metrics.intervals import Z95

OPENOOD = "openood"


def ood_detection(
    id_scores: npt.ArrayLike,
    ood_scores: npt.ArrayLike,
    *,
    convention: str = "exact",
) -> dict[str, float]:
    """The separation of ID from OOD by scores (higher = more in-distribution).

    Examples of equal score pass a threshold together, and a tie counts half in the
    AUROC. Areas under precision-recall curves are average precisions: the trapezoid
    rule is too kind where many scores are equal, as saturated softmaxes are.

    ``convention="authors"`` computes as the code released with the APR paper does:
    tied examples pass one by one, in-distribution ones last, so that ties count
    against the detector; ``tnr_at_tpr95`` is taken where TPR is nearest to 95 %
    from either side; the precision-recall areas are trapezoids that start at
    precision 0.

    ``convention="openood"`` computes as OpenOOD v1.5 does, by scikit-learn's curves:
    the precision-recall areas are trapezoids that start at precision 1, and
    ``fpr95_ood_positive`` is read off the ROC curve without those of its points that
    lie evenly on a line, which matters where scores are tied.

    Args:
        id_scores: [N] scores of in-distribution examples; infinities are fine.
        ood_scores: [M] scores of the others.
        convention: "exact", "authors" or "openood".

    Returns:
        Fractions in [0, 1]:

        - auroc: area under the ROC curve, the same whichever side is positive.
        - aupr_in, aupr_out: area under precision-recall with ID, OOD as positive.
        - fpr95_id_positive: share of OOD accepted where at least 95 % of ID is (APR,
          ODIN); ``tnr_at_tpr95`` is one minus it.
        - fpr95_ood_positive: share of ID rejected where at least 95 % of OOD is
          (OpenOOD).
        - detection_accuracy: largest mean of TPR and TNR over all thresholds.

    Raises:
        ValueError: for NaN scores, an empty side or an unknown convention.
    """
    exact = _is_exact(convention)
    start = None if convention == "exact" else float(exact)
    inside, outside = (
        answers.scores(id_scores, "id_scores"),
        answers.scores(ood_scores, "ood_scores"),
    )
    n, m = len(inside), len(outside)
    tp, fp = _acceptance_curve(inside, outside, exact)
    tpr, fpr = tp / n, fp / m

    # 20 * 95 % = 19: whole numbers keep 95 % of n exact.
    at_least_95 = int(np.argmax(20 * tp >= 19 * n))
    reach_in = at_least_95 if exact else _nearest_to_95(tpr)
    reach_out = int(np.flatnonzero(20 * (m - fp) >= 19 * m)[-1])
    rejected = 1 - tpr[reach_out]
    if convention == "openood":
        rejected = _fpr95_of_corners(m - fp[::-1], n - tp[::-1])
    return {
        "auroc": float(np.trapezoid(tpr, fpr)),
        "aupr_in": _precision_recall_area(tp, fp, start),
        "aupr_out": _precision_recall_area(m - fp[::-1], n - tp[::-1], start),
        "fpr95_id_positive": float(fpr[reach_in]),
        "fpr95_ood_positive": float(rejected),
        "tnr_at_tpr95": float(1 - fpr[reach_in]),
        "detection_accuracy": float(np.max(tpr + 1 - fpr) / 2),
    }


def oscr(
    id_scores: npt.ArrayLike,
    correct: npt.ArrayLike,
    ood_scores: npt.ArrayLike,
    *,
    convention: str = "exact",
) -> float:
    """Open-set classification rate, the area under CCR over FPR, in [0, 1].

    CCR is the share of ID examples that are accepted and correctly classified, FPR
    the share of OOD examples accepted (Dhamija et al., "Reducing Network
    Agnostophobia", 2018). The area is the chance that an ID example is correct and
    scores above an OOD example, ties counting half.

    ``convention="authors"`` computes as the code released with the APR paper does: an
    example at the threshold counts for FPR but not for CCR, which costs a little.

    Args:
        id_scores: [N] scores of in-distribution examples, higher = more so.
        correct: [N] booleans, whether each is classified correctly.
        ood_scores: [M] scores of the others.
        convention: "exact" or "authors"; "openood" has none of its own.

    Raises:
        ValueError: for NaN scores, an empty side, shapes that differ or an unknown
            convention.
    """
    exact = _is_exact(convention)
    inside, outside = (
        answers.scores(id_scores, "id_scores"),
        answers.scores(ood_scores, "ood_scores"),
    )
    right = answers.truths(correct, name="correct", count=len(inside))
    if exact:
        wins = np.sum(_twice_below(inside[right], outside)) / 2
        return float(wins / (len(inside) * len(outside)))

    order = np.argsort(np.concatenate([inside, outside]), kind="stable")
    hit = np.concatenate([right, np.zeros(len(outside), bool)])[order]
    false = np.concatenate([np.zeros(len(inside), bool), np.ones(len(outside), bool)])
    from_k = lambda x: np.cumsum(x[::-1])[::-1]
    # The threshold sits at example k: FPR counts from k, CCR from k + 1.
    ccr = np.append(from_k(hit)[1:-1], 0) / len(inside)
    fpr = np.append(from_k(false[order])[:-2], 0) / len(outside)
    ccr, fpr = np.append(ccr[::-1], 1.0), np.append(fpr[::-1], 1.0)
    return float(np.trapezoid(ccr, fpr))


def ood_intervals(
    id_scores: npt.ArrayLike,
    ood_scores: npt.ArrayLike,
    *,
    seed: int = 0,
    replicates: int = 2000,
) -> dict[str, tuple[float, float]]:
    """95 % intervals of some of what ``ood_detection`` measures (exactly).

    The AUROC has DeLong's variance (DeLong et al. 1988), taken on the scale of its
    logit. The rates at 95 % are bootstrapped over both sides, threshold included: the
    threshold of a resample is the score of a rank that follows a Beta distribution,
    and the rate beyond it one drawn from its Beta posterior, so that no sorting is
    needed and a rate of 0 has an interval too.

    Args:
        id_scores, ood_scores: as for ``ood_detection``.
        seed, replicates: of the bootstrap.

    Returns:
        (low, high) of "auroc", "fpr95_id_positive", "fpr95_ood_positive" and
        "tnr_at_tpr95"; each holds the measured value.

    Raises:
        ValueError: for NaN scores or an empty side.
    """
    inside, outside = (
        answers.scores(id_scores, "id_scores"),
        answers.scores(ood_scores, "ood_scores"),
    )
    knobs.whole("replicates", replicates)
    rng = np.random.default_rng(seed)
    by_id = _fpr95_interval(inside, outside, rng, replicates)
    return {
        "auroc": _delong(inside, outside),
        "fpr95_id_positive": by_id,
        "fpr95_ood_positive": _fpr95_interval(-outside, -inside, rng, replicates),
        "tnr_at_tpr95": (1 - by_id[1], 1 - by_id[0]),
    }


def roc_curve(
    id_scores: npt.ArrayLike, ood_scores: npt.ArrayLike, *, points: int = 60
) -> tuple[FloatArray, FloatArray]:
    """FPR and TPR (ID positive) as the threshold falls, from (0, 0) to (1, 1).

    At most ``points`` of them, evenly spaced along the curve; equal scores pass
    together.

    Raises:
        ValueError: for NaN scores, an empty side or fewer than 2 points.
    """
    knobs.whole("points", points, low=2)
    inside, outside = (
        answers.scores(id_scores, "id_scores"),
        answers.scores(ood_scores, "ood_scores"),
    )
    tp, fp = _acceptance_curve(inside, outside, True)
    tpr, fpr = tp / len(inside), fp / len(outside)
    wanted = np.linspace(0, 2, points)
    kept = np.unique(np.searchsorted(tpr + fpr, wanted - 1e-12))
    return fpr[kept], tpr[kept]


def _delong(inside: FloatArray, outside: FloatArray) -> tuple[float, float]:
    n, m = len(inside), len(outside)
    if min(n, m) < 2:
        return 0.0, 1.0
    wins = win_rates(inside, outside)
    value = float(wins.mean())
    fewer = min(n, m)
    if value in (0.0, 1.0):
        # No two are in the wrong order and the variance is 0, which says too much:
        # Wilson's bound for as many trials as the smaller side has.
        room = Z95**2 / (fewer + Z95**2)
        return (1 - room, 1.0) if value else (0.0, room)
    losses = win_rates(-outside, -inside)
    variance = np.var(wins, ddof=1) / n + np.var(losses, ddof=1) / m
    half = Z95 * np.sqrt(variance) / (value * (1 - value))
    middle = np.log(value / (1 - value))
    low, high = (1 / (1 + np.exp(-(middle + s * half))) for s in (-1, 1))
    return min(float(low), value), max(float(high), value)


def win_rates(inside: FloatArray, outside: FloatArray) -> FloatArray:
    """For each of ``inside`` the share of ``outside`` below it, equal ones half."""
    return _twice_below(inside, outside) / (2 * len(outside))


def _twice_below(inside: FloatArray, outside: FloatArray) -> IntArray:
    """For each of ``inside`` twice the number of ``outside`` below it, equal ones once.

    Whole numbers, so that sums are exact.
    """
    ordered = np.sort(outside)
    below = np.searchsorted(ordered, inside, side="left")
    return below + np.searchsorted(ordered, inside, side="right")


def _fpr95_interval(
    inside: FloatArray, outside: FloatArray, rng: np.random.Generator, replicates: int
) -> tuple[float, float]:
    n, m = len(inside), len(outside)
    rank = -(-19 * n // 20)  # so many of the highest ID scores are 95 % of them
    falling, rising = np.sort(inside)[::-1], np.sort(outside)
    accepted = lambda t: m - np.searchsorted(rising, t, side="left")
    value = float(accepted(falling[rank - 1]) / m)
    # Drawing n with replacement is drawing n uniform positions; the threshold is
    # where the rank-th of them in order falls.
    place = np.minimum(
        (n * rng.beta(rank, n - rank + 1, replicates)).astype(int), n - 1
    )
    count = accepted(falling[place])
    rates = rng.beta(count + 0.5, m - count + 0.5)
    low, high = np.quantile(rates, [0.025, 0.975])
    return min(float(low), value), max(float(high), value)


def _is_exact(convention: str) -> bool:
    return knobs.one_of("convention", convention, (*CONVENTIONS, OPENOOD)) != "authors"


def _acceptance_curve(
    inside: FloatArray, outside: FloatArray, together: bool
) -> tuple[IntArray, IntArray]:
    """Number of ID and OOD examples accepted as the threshold falls, from (0, 0)."""
    scores = np.concatenate([inside, outside])
    is_id = np.arange(len(scores)) < len(inside)
    # By falling score, OOD first among equals: what one-by-one passing wants.
    order = np.lexsort((is_id, -scores))
    tp = np.append(0, np.cumsum(is_id[order]))
    fp = np.append(0, np.cumsum(~is_id[order]))
    if together:
        ordered = scores[order]
        keep = np.append(np.append(True, ordered[1:] != ordered[:-1]), True)
        tp, fp = tp[keep], fp[keep]
    return tp, fp


def _nearest_to_95(rate: FloatArray) -> int:
    """Index of the rate nearest to 0.95 on a rising curve, the last among equals."""
    return len(rate) - 1 - int(np.argmin(np.abs(rate - 0.95)[::-1]))


def _precision_recall_area(tp: IntArray, fp: IntArray, start: float | None) -> float:
    """Average precision; or trapezoids that start at a precision."""
    recall = tp / tp[-1]
    precision = tp / np.maximum(tp + fp, 1)
    if start is None:
        return float(np.sum(np.diff(recall) * precision[1:]))
    precision[tp + fp == 0] = start
    return float(np.trapezoid(precision, recall))


def _fpr95_of_corners(tp: IntArray, fp: IntArray) -> float:
    """FPR where TPR is 95 % first, on a curve without points in even steps on a line.

    As scikit-learn's ``roc_curve`` leaves them out, before it adds (0, 0).
    """
    true, false = tp[1:], fp[1:]
    bends = (np.diff(true, 2) != 0) | (np.diff(false, 2) != 0)
    kept = np.concatenate([[True], bends, [True]])[-len(true) :]
    rates = np.append(0.0, true[kept] / true[-1])
    reach = int(np.flatnonzero(rates >= 0.95)[0])
    return float(np.append(0, false[kept])[reach] / false[-1])
