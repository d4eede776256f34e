"""Selective answers: the risk that is left where the least sure are not answered."""

import numpy as np
import numpy.typing as npt

from apr_jax.gates import answers, knobs
from apr_jax.metrics.calibration import FloatArray
from apr_jax.metrics.intervals import Measured, centred_quantiles

# Replicates are drawn in blocks of about this many examples, to bound the memory.
_BLOCK = 2_000_000


def aurc(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> float:
    """Area under the risk-coverage curve, in [0, 1]: lower is better.

    The mean over k = 1 to N of the error among the k examples of highest confidence
    (Geifman, Uziel and El-Yaniv, "Bias-Reduced Uncertainty Estimation for Deep Neural
    Classifiers", 2019). Examples of equal confidence count as their average, so that
    their order cannot matter.

    Args:
        confidence: [N]; any score will do, the higher the surer.
        correct: [N] booleans.

    Raises:
        ArgumentError: NaN, other values, shapes that differ, or no examples.
    """
    wrong = _by_falling_confidence(confidence, correct)
    return float(np.mean(np.cumsum(wrong) / np.arange(1, len(wrong) + 1)))


def measured_aurc(
    confidence: npt.ArrayLike,
    correct: npt.ArrayLike,
    *,
    seed: int = 0,
    replicates: int = 1000,
) -> Measured:
    """``aurc`` with a 95 % interval, bootstrapped over examples.

    Args:
        confidence, correct: as ``aurc``'s.
        seed, replicates: of the bootstrap.
    """
    knobs.whole("replicates", replicates)
    wrong = _by_falling_confidence(confidence, correct)
    n, rng, samples = len(wrong), np.random.default_rng(seed), []
    block = max(1, _BLOCK // n)
    for start in range(0, replicates, block):
        rows = min(block, replicates - start)
        # Positions in order are a replicate in order.
        draw = np.sort(rng.integers(0, n, size=(rows, n), dtype=np.int32), axis=1)
        risk = np.cumsum(wrong[draw], axis=1) / np.arange(1, n + 1)
        samples.append(risk.mean(axis=1))
    value = float(np.mean(np.cumsum(wrong) / np.arange(1, n + 1)))
    low, high = centred_quantiles(np.concatenate(samples), value, 1.0)
    return Measured(value, low, high, "fraction", n)


def _by_falling_confidence(
    confidence: npt.ArrayLike, correct: npt.ArrayLike
) -> FloatArray:
    """How wrong each example is, the surest first, equals averaged. [N] in [0, 1]."""
    sure = answers.scores(confidence, "confidence")
    wrong = ~answers.truths(correct, name="correct", count=len(sure))
    _, tie = np.unique(-sure, return_inverse=True)
    mean = np.bincount(tie, weights=wrong) / np.bincount(tie)
    return mean[np.sort(tie)]
