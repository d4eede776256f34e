"""Accuracy, likelihood and the summary of a classifier's answers."""

import math

import numpy as np
import numpy.typing as npt

from apr_jax.errors import ArgumentError
from apr_jax.gates import answers, knobs
from apr_jax.metrics.calibration import (
    FloatArray,
    IntArray,
    Reliability,
    ece,
    reliability,
    rms_calibration_error,
)
from apr_jax.metrics.intervals import Measured, bootstrap, centred_quantiles, wilson

# The largest that each can be; a log-loss has no end.
_MOST = {"ece": 1.0, "rms_calibration_error": 1.0, "brier": 2.0}

# --- Classification ------------------------------------------------------------------


def accuracy(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Share of examples whose largest logit is the label's, in [0, 1].

    Among equal logits the first class counts as the largest, as in ``argmax``. An
    example without an answer (a NaN among its logits, or none below infinity) is wrong.

    Args:
        logits: [N, C].
        labels: [N] integers in [0, C).
    """
    return top_k(logits, labels, k=1)


def top_k(logits: npt.ArrayLike, labels: npt.ArrayLike, *, k: int = 5) -> float:
    """Share of examples whose label is among the k largest logits, in [0, 1].

    Ties go to the lower class index, so ``k=1`` is ``accuracy``.

    Args:
        logits: [N, C].
        labels: [N] integers in [0, C).
        k: in [1, C].

    Raises:
        ArgumentError: if k is out of range or the inputs are not as above.
    """
    scores, classes = _logits_and_labels(logits, labels)
    return float(np.mean(_in_top_k(scores, classes, k)))


def nll(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Mean negative log-likelihood of the labels under softmax(logits), in nats.

    Args:
        logits: [N, C], finite.
        labels: [N] integers in [0, C).
    """
    scores, classes = _logits_and_labels(logits, labels)
    log_p = _log_softmax(_finite(scores))
    return float(-np.mean(log_p[np.arange(len(classes)), classes]))


def brier(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Multi-class Brier score, mean over examples of sum_c (p_c - [c = label])^2.

    In [0, 2]; Brier, "Verification of forecasts expressed in terms of probability",
    1950.

    Args:
        probabilities: [N, C], in [0, 1].
        labels: [N] integers in [0, C).
    """
    p, classes = _logits_and_labels(probabilities, labels, what="probabilities")
    p = answers.in_unit_range(_finite(p, "probabilities"), "probabilities")
    return float(np.mean(_squared_error(p, classes)))


def confusion(logits: npt.ArrayLike, labels: npt.ArrayLike) -> IntArray:
    """[C, C] number of examples, label by prediction.

    Examples without an answer (NaN among their logits) are in none of the cells.

    Args:
        logits: [N, C].
        labels: [N] integers in [0, C).
    """
    scores, classes = _logits_and_labels(logits, labels)
    count = scores.shape[1]
    said = answers.answer(scores)
    pair = (classes * count + said)[said >= 0]
    return np.bincount(pair, minlength=count**2).reshape(count, count)


def reliability_of(
    logits: npt.ArrayLike, labels: npt.ArrayLike, *, bins: int = 15
) -> Reliability:
    """The reliability diagram of maximum softmax probabilities.

    Examples without an answer (NaN among their logits) are left out.

    Args:
        logits: [N, C].
        labels: [N] integers in [0, C).
        bins: as in ``reliability``.
    """
    scores, classes = _answered(*_logits_and_labels(logits, labels))
    confidence = np.exp(_log_softmax(scores).max(axis=1))
    return reliability(confidence, _in_top_k(scores, classes, 1), bins=bins)


# --- All of them, with intervals -----------------------------------------------------


def summary(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    mask: npt.ArrayLike | None = None,
    *,
    seed: int = 0,
    replicates: int = 1000,
    bins: int = 15,
    bin_size: int = 100,
) -> dict[str, Measured]:
    """Every metric of a classifier on one split, with 95 % intervals.

    Proportions have Wilson's interval. The others have a bootstrap interval:
    examples are drawn with replacement, and the 2.5 % and 97.5 % quantiles of the
    replicates are taken after shifting these so that their mean is the measured
    value. The shift matters for the calibration errors: resampling adds noise to
    every bin, which pushes replicates above the value they replicate. Their
    intervals say how far a measurement on other examples would scatter; that both
    errors come out too large while bins hold few examples stays in the value.

    Examples without an answer (a NaN among their logits) are wrong, and left out of
    all but the proportions; ``n`` says how many there are. The NLL is left out where
    it is infinite.

    Args:
        logits: [N, C].
        labels: [N] integers in [0, C).
        mask: [N] booleans, false for padding; None takes every example.
        seed: of the bootstrap.
        replicates: of the bootstrap.
        bins: number of equal-width bins of "ece".
        bin_size: examples per equal-mass bin of "rms_calibration_error".

    Returns:
        "accuracy", "error", "top5" (with more than 5 classes), "nll", "ece",
        "rms_calibration_error" and "brier"; the last four where there are answers.

    Raises:
        ArgumentError: for labels out of range, shapes that do not fit, or no examples.
    """
    scores, classes = _logits_and_labels(logits, labels, mask)
    n = len(classes)
    right = _in_top_k(scores, classes, 1)
    result = {
        "accuracy": wilson(int(right.sum()), n),
        "error": wilson(n - int(right.sum()), n),
    }
    if scores.shape[1] > 5:
        result["top5"] = wilson(int(_in_top_k(scores, classes, 5).sum()), n)

    scores, classes = _answered(scores, classes)
    n = len(classes)
    if not n:
        return result
    right = _in_top_k(scores, classes, 1)
    log_p = _log_softmax(scores)
    conf = np.exp(log_p.max(axis=1))
    per_example = {
        "nll": -log_p[np.arange(n), classes],
        "brier": _squared_error(np.exp(log_p), classes),
    }
    if not np.isfinite(per_example["nll"]).all():
        del per_example["nll"]
    values = {name: float(np.mean(x)) for name, x in per_example.items()}
    values["ece"] = ece(conf, right, bins=bins)
    values["rms_calibration_error"] = rms_calibration_error(
        conf, right, bin_size=bin_size
    )
    samples = bootstrap(per_example, conf, right, bins, bin_size, replicates, seed)
    for name in ("nll", "ece", "rms_calibration_error", "brier"):
        if name not in values:
            continue
        most = _MOST.get(name, math.inf)
        low, high = centred_quantiles(samples[name], values[name], most)
        unit = "nats" if name == "nll" else "1" if name == "brier" else "fraction"
        result[name] = Measured(values[name], low, high, unit, n)
    return result


# --- Inner workings ------------------------------------------------------------------


def finite(logits: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[FloatArray, IntArray]:
    """Logits and labels, checked, as float64 and int64.

    Raises:
        ArgumentError: other shapes, labels out of range, or logits that aren't finite.
    """
    scores, classes = _logits_and_labels(logits, labels)
    return _finite(scores), classes


def _answered(scores: FloatArray, classes: IntArray) -> tuple[FloatArray, IntArray]:
    """Those examples that have an answer."""
    known = answers.answer(scores) >= 0
    return scores[known], classes[known]


def _logits_and_labels(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    mask: npt.ArrayLike | None = None,
    *,
    what: str = "logits",
) -> tuple[FloatArray, IntArray]:
    """Checks, drops what the mask excludes, and casts to float64 and int64."""
    scores = np.asarray(answers.logits(logits, name=what))
    classes = np.asarray(answers.array(labels, "labels"))
    place = np.arange(len(scores))
    if mask is not None:
        place = np.flatnonzero(answers.truths(mask, name="mask", count=len(scores)))
    if classes.shape == scores.shape[:1]:  # padding may have any label
        scores, classes = scores[place], classes[place]
    if not len(scores):
        raise ArgumentError("there are no examples to measure")
    answers.labels(classes, count=len(scores), classes=scores.shape[1], places=place)
    return scores.astype(np.float64), classes.astype(np.int64)


def _finite(scores: FloatArray, what: str = "logits") -> FloatArray:
    """Raises ArgumentError, with their number and the first, for NaN and infinities."""
    bad = ~np.isfinite(scores)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ArgumentError(
            f"{int(bad.sum())} of {bad.size} {what} are not finite, the first one "
            f"{scores[row, column]} at example {row}, class {column}"
        )
    return scores


def _in_top_k(scores: FloatArray, classes: IntArray, k: int) -> npt.NDArray[np.bool_]:
    knobs.whole("k", k, high=scores.shape[1])
    own = np.take_along_axis(scores, classes[:, None], axis=1)
    ahead = scores > own
    ahead |= (scores == own) & (np.arange(scores.shape[1])[None] < classes[:, None])
    return (ahead.sum(axis=1) < k) & (answers.answer(scores) >= 0)


def _log_softmax(scores: FloatArray) -> FloatArray:
    shifted = scores - scores.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _squared_error(p: FloatArray, classes: IntArray) -> FloatArray:
    own = p[np.arange(len(classes)), classes]
    return np.sum(p**2, axis=1) - own**2 + (1 - own) ** 2
