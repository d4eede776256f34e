"""How well a score separates in-distribution from out-of-distribution examples.

Host-side NumPy in float64 like ``apr_jax.metrics``, which exports these functions too.
Every result is a fraction in [0, 1].
"""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def ood_detection(
    id_scores: npt.ArrayLike,
    ood_scores: npt.ArrayLike,
    *,
    convention: str = "exact",
) -> dict[str, float]:
    """How well scores (higher = more in-distribution) separate ID from OOD.

    Examples of equal score pass a threshold together, and a tie counts half in the
    AUROC. Areas under precision-recall curves are average precisions: the trapezoid
    rule is too kind where many scores are equal, as saturated softmaxes are.

    ``convention="authors"`` computes as the code released with the APR paper does:
    tied examples pass one by one, in-distribution ones last, so that ties count
    against the detector; ``tnr_at_tpr95`` is taken where TPR is nearest to 95 %
    from either side; the precision-recall areas are trapezoids that start at
    precision 0.

    Args:
        id_scores: [N] scores of in-distribution examples; infinities are fine.
        ood_scores: [M] scores of the others.
        convention: "exact" or "authors".

    Returns:
        Fractions in [0, 1]:
            auroc: area under the ROC curve, the same whichever side is positive.
            aupr_in, aupr_out: area under precision-recall with ID, OOD as positive.
            fpr95_id_positive: share of OOD accepted where at least 95 % of ID is (APR,
                ODIN); ``tnr_at_tpr95`` is one minus it.
            fpr95_ood_positive: share of ID rejected where at least 95 % of OOD is
                (OpenOOD).
            detection_accuracy: largest mean of TPR and TNR over all thresholds.

    Raises:
        ValueError: for NaN scores, an empty side or an unknown convention.
    """
    exact = _is_exact(convention)
    inside, outside = _scores(id_scores, "id_scores"), _scores(ood_scores, "ood_scores")
    n, m = len(inside), len(outside)
    tp, fp = _acceptance_curve(inside, outside, exact)
    tpr, fpr = tp / n, fp / m

    # 20 * 95 % = 19: whole numbers keep 95 % of n exact.
    at_least_95 = int(np.argmax(20 * tp >= 19 * n))
    reach_in = at_least_95 if exact else _nearest_to_95(tpr)
    reach_out = int(np.flatnonzero(20 * (m - fp) >= 19 * m)[-1])
    return {
        "auroc": float(np.trapezoid(tpr, fpr)),
        "aupr_in": _precision_recall_area(tp, fp, exact),
        "aupr_out": _precision_recall_area(m - fp[::-1], n - tp[::-1], exact),
        "fpr95_id_positive": float(fpr[reach_in]),
        "fpr95_ood_positive": float(1 - tpr[reach_out]),
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
        convention: "exact" or "authors".

    Raises:
        ValueError: for NaN scores, an empty side, shapes that differ or an unknown
            convention.
    """
    exact = _is_exact(convention)
    inside, outside = _scores(id_scores, "id_scores"), _scores(ood_scores, "ood_scores")
    right = np.asarray(correct).astype(bool)
    if right.shape != inside.shape:
        raise ValueError(
            f"id_scores {inside.shape} and correct {right.shape} must be alike"
        )
    if exact:
        ordered = np.sort(outside)
        below = np.searchsorted(ordered, inside[right], side="left")
        up_to = np.searchsorted(ordered, inside[right], side="right")
        wins = np.sum(below + up_to) / 2
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


def _is_exact(convention: str) -> bool:
    if convention not in ("exact", "authors"):
        raise ValueError(
            f"unknown convention {convention!r}; choose 'exact' or 'authors'"
        )
    return convention == "exact"


def _scores(scores: npt.ArrayLike, what: str) -> FloatArray:
    array = np.asarray(scores).astype(np.float64)
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(f"{what} must be [N] with N > 0, not {array.shape}")
    if np.isnan(array).any():
        raise ValueError(
            f"{int(np.isnan(array).sum())} of {len(array)} {what} are NaN, "
            f"the first at {int(np.argmax(np.isnan(array)))}"
        )
    return array


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


def _precision_recall_area(tp: IntArray, fp: IntArray, average: bool) -> float:
    recall = tp / tp[-1]
    precision = tp / np.maximum(tp + fp, 1)
    if average:
        return float(np.sum(np.diff(recall) * precision[1:]))
    return float(np.trapezoid(precision, recall))
