"""Accuracy, calibration and corruption metrics of a classifier, with intervals.

Every function takes arrays (NumPy, JAX or nested sequences), computes in NumPy
float64 on the host and returns plain Python numbers: these are the last few lines
of an evaluation, where exact sums matter more than speed and nothing is traced.

Rates are fractions in [0, 1]; tables and pages turn them into percent. Intervals
cover 95 %: Wilson's score interval for proportions, the bootstrap over examples for
everything else.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from apr_jax.calibration import (
    Reliability,
    ece,
    equal_width_bin,
    reliability,
    rms_calibration_error,
    rms_over_bins,
)
from apr_jax.detection import ood_detection, oscr

__all__ = [
    "ALEXNET_ERROR",
    "Measured",
    "Reliability",
    "accuracy",
    "brier",
    "confusion",
    "ece",
    "mean_corruption_error",
    "nll",
    "ood_detection",
    "oscr",
    "reliability",
    "reliability_of",
    "rms_calibration_error",
    "summary",
    "top_k",
    "wilson",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# The 97.5 % quantile of the standard normal distribution.
_Z95 = 1.959963984540054
# Replicates are drawn in blocks of about this many examples, to bound the memory.
_BLOCK = 2_000_000

# Mean top-1 error of AlexNet over the five severities (Hendrycks & Dietterich,
# "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
# ICLR 2019): the yardstick of the ImageNet-C mCE.
ALEXNET_ERROR: dict[str, float] = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}


@dataclasses.dataclass(frozen=True)
class Measured:
    """A number with its 95 % interval.

    Attributes:
        value: what was measured.
        low, high: ends of the 95 % interval; None where there is none.
        unit: "fraction" (in [0, 1], shown as percent), "nats" or "1" (a pure number).
        n: number of examples behind it.
    """

    value: float
    low: float | None
    high: float | None
    unit: str
    n: int


# --- Classification ------------------------------------------------------------------


def accuracy(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Share of examples whose largest logit is the label's, in [0, 1].

    Among equal logits the first class counts as the largest, as in ``argmax``.

    Args:
        logits: [N, C], finite.
        labels: [N] integers in [0, C).
    """
    return top_k(logits, labels, k=1)


def top_k(logits: npt.ArrayLike, labels: npt.ArrayLike, *, k: int = 5) -> float:
    """Share of examples whose label is among the k largest logits, in [0, 1].

    Ties go to the lower class index, so ``k=1`` is ``accuracy``.

    Args:
        logits: [N, C], finite.
        labels: [N] integers in [0, C).
        k: in [1, C].

    Raises:
        ValueError: if k is out of range or the inputs are not as above.
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
    log_p = _log_softmax(scores)
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
    if p.min() < 0 or p.max() > 1:
        raise ValueError(
            f"probabilities must lie in [0, 1], but span [{p.min()}, {p.max()}]"
        )
    return float(np.mean(_squared_error(p, classes)))


def confusion(logits: npt.ArrayLike, labels: npt.ArrayLike) -> IntArray:
    """[C, C] number of examples, label by prediction.

    Args:
        logits: [N, C], finite.
        labels: [N] integers in [0, C).
    """
    scores, classes = _logits_and_labels(logits, labels)
    count = scores.shape[1]
    pair = classes * count + scores.argmax(axis=1)
    return np.bincount(pair, minlength=count**2).reshape(count, count)


def reliability_of(
    logits: npt.ArrayLike, labels: npt.ArrayLike, *, bins: int = 15
) -> Reliability:
    """The reliability diagram of maximum softmax probabilities.

    Args:
        logits: [N, C], finite.
        labels: [N] integers in [0, C).
        bins: as in ``reliability``.
    """
    scores, classes = _logits_and_labels(logits, labels)
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

    Args:
        logits: [N, C], finite where the mask is true.
        labels: [N] integers in [0, C).
        mask: [N] booleans, false for padding; None takes every example.
        seed: of the bootstrap.
        replicates: of the bootstrap.
        bins: number of equal-width bins of "ece".
        bin_size: examples per equal-mass bin of "rms_calibration_error".

    Returns:
        "accuracy", "error", "top5" (with more than 5 classes), "nll", "ece",
        "rms_calibration_error" and "brier".

    Raises:
        ValueError: for logits that are not finite (with their number and the first
            place), labels out of range, shapes that do not fit, or no examples at all.
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

    log_p = _log_softmax(scores)
    conf = np.exp(log_p.max(axis=1))
    per_example = {
        "nll": -log_p[np.arange(n), classes],
        "brier": _squared_error(np.exp(log_p), classes),
    }
    values = {name: float(np.mean(x)) for name, x in per_example.items()}
    values["ece"] = ece(conf, right, bins=bins)
    values["rms_calibration_error"] = rms_calibration_error(
        conf, right, bin_size=bin_size
    )
    samples = _bootstrap(per_example, conf, right, bins, bin_size, replicates, seed)
    for name in ("nll", "ece", "rms_calibration_error", "brier"):
        low, high = _centred_quantiles(samples[name], values[name])
        unit = "nats" if name == "nll" else "1" if name == "brier" else "fraction"
        result[name] = Measured(values[name], low, high, unit, n)
    return result


def wilson(successes: int, n: int) -> Measured:
    """A proportion with Wilson's 95 % score interval (Wilson 1927).

    Raises:
        ValueError: unless 0 <= successes <= n and n > 0.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes out of {n} is not a proportion")
    p = successes / n
    spread = _Z95**2 / n
    centre = (p + spread / 2) / (1 + spread)
    half = _Z95 * np.sqrt(p * (1 - p) / n + spread / (4 * n)) / (1 + spread)
    # Rounding must not push the ends off 0 and 1, where they belong exactly.
    low = 0.0 if successes == 0 else float(centre - half)
    high = 1.0 if successes == n else float(centre + half)
    return Measured(p, low, high, "fraction", n)


# --- Corruptions ---------------------------------------------------------------------


def mean_corruption_error(
    errors: Mapping[str, float | Sequence[float]],
    *,
    baseline: Mapping[str, float] | None = ALEXNET_ERROR,
) -> float:
    """Mean corruption error over the fifteen corruptions.

    With a baseline, ImageNet-C's mCE: the mean over corruptions c of
    CE_c = sum_s E_{s,c} / sum_s E^baseline_{s,c}, 1 for AlexNet itself. With
    ``baseline=None``, CIFAR-C's: the plain mean error over corruptions and severities.

    Args:
        errors: corruption name -> error, a fraction in [0, 1]: either one per severity
            or their mean. All of ``ALEXNET_ERROR``'s names.
        baseline: corruption name -> mean error of the reference network, or None.

    Returns:
        A fraction; above 1 for a network worse than the baseline.

    Raises:
        ValueError: for missing or unknown corruptions (the held-out ones included,
            which are no part of the mCE) or an error outside [0, 1].
    """
    missing = [name for name in ALEXNET_ERROR if name not in errors]
    unknown = [name for name in errors if name not in ALEXNET_ERROR]
    if missing or unknown:
        raise ValueError(
            f"the mCE is over {', '.join(ALEXNET_ERROR)}; "
            f"missing: {', '.join(missing) or 'none'}; "
            f"not part of it: {', '.join(unknown) or 'none'}"
        )
    ratios = []
    for name in ALEXNET_ERROR:
        levels = np.asarray(errors[name], np.float64)
        if levels.size == 0 or not np.all((levels >= 0) & (levels <= 1)):
            raise ValueError(
                f"errors of {name!r} must be fractions in [0, 1], not {levels.tolist()}"
            )
        ratios.append(float(levels.mean()) / (baseline[name] if baseline else 1.0))
    return float(np.mean(ratios))


# --- Inner workings ------------------------------------------------------------------


def _logits_and_labels(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    mask: npt.ArrayLike | None = None,
    *,
    what: str = "logits",
) -> tuple[FloatArray, IntArray]:
    """Checks, drops what the mask excludes, and casts to float64 and int64."""
    scores, classes = np.asarray(logits), np.asarray(labels)
    if scores.ndim != 2 or classes.shape != scores.shape[:1]:
        raise ValueError(
            f"{what} must be [N, C] and labels [N], not {scores.shape}, {classes.shape}"
        )
    if not np.issubdtype(classes.dtype, np.integer):
        raise ValueError(f"labels must be integers, not {classes.dtype}")
    place = np.arange(len(classes))
    if mask is not None:
        keep = np.asarray(mask).astype(bool)
        if keep.shape != classes.shape:
            raise ValueError(f"mask must be {classes.shape}, not {keep.shape}")
        scores, classes, place = scores[keep], classes[keep], place[keep]
    if len(classes) == 0:
        raise ValueError("there are no examples to measure")
    scores = scores.astype(np.float64)
    bad = ~np.isfinite(scores)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ValueError(
            f"{int(bad.sum())} of {bad.size} {what} are not finite, the first one "
            f"{scores[row, column]} at example {place[row]}, class {column}"
        )
    outside = (classes < 0) | (classes >= scores.shape[1])
    if outside.any():
        first = int(np.argmax(outside))
        raise ValueError(
            f"{int(outside.sum())} labels are outside [0, {scores.shape[1]}), the "
            f"first one {classes[first]} at example {place[first]}"
        )
    return scores, classes.astype(np.int64)


def _in_top_k(scores: FloatArray, classes: IntArray, k: int) -> npt.NDArray[np.bool_]:
    if not 1 <= k <= scores.shape[1]:
        raise ValueError(f"k must be in [1, {scores.shape[1]}], not {k}")
    own = np.take_along_axis(scores, classes[:, None], axis=1)
    ahead = scores > own
    ahead |= (scores == own) & (np.arange(scores.shape[1])[None] < classes[:, None])
    return ahead.sum(axis=1) < k


def _log_softmax(scores: FloatArray) -> FloatArray:
    shifted = scores - scores.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _squared_error(p: FloatArray, classes: IntArray) -> FloatArray:
    own = p[np.arange(len(classes)), classes]
    return np.sum(p**2, axis=1) - own**2 + (1 - own) ** 2


def _bootstrap(
    per_example: dict[str, FloatArray],
    conf: FloatArray,
    right: npt.NDArray[np.bool_],
    bins: int,
    bin_size: int,
    replicates: int,
    seed: int,
) -> dict[str, FloatArray]:
    """[replicates] values of each metric on resampled examples."""
    n = len(conf)
    rng = np.random.default_rng(seed)
    # Equal confidences in random order: one sorted by class would bias the bins.
    order = np.lexsort((rng.permutation(n), conf))
    gap = (conf - right)[order]
    # One column per bin: a replicate's sums over bins are then a matrix product.
    columns = np.zeros((n, bins + len(per_example)))
    columns[np.arange(n), equal_width_bin(conf[order], bins)] = gap
    for j, values in enumerate(per_example.values()):
        columns[:, bins + j] = values[order]
    sums, rms = [], []
    block = max(1, _BLOCK // n)
    for start in range(0, replicates, block):
        rows = min(block, replicates - start)
        draw = rng.integers(0, n, size=(rows, n), dtype=np.int32)
        flat = draw + n * np.arange(rows)[:, None]
        weight = np.bincount(flat.ravel(), minlength=rows * n).reshape(rows, n)
        sums.append(weight.astype(np.float64) @ columns)
        # Positions are by rising confidence, so sorting them sorts the replicate.
        rms.append(rms_over_bins(gap[np.sort(draw, axis=1)], bin_size))
    total = np.concatenate(sums) / n
    result = {name: total[:, bins + j] for j, name in enumerate(per_example)}
    result["ece"] = np.sum(np.abs(total[:, :bins]), axis=1)
    result["rms_calibration_error"] = np.concatenate(rms)
    return result


def _centred_quantiles(samples: FloatArray, value: float) -> tuple[float, float]:
    low, high = np.quantile(samples - samples.mean() + value, [0.025, 0.975])
    return max(0.0, float(low)), float(high)
