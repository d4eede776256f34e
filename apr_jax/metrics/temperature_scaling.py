"""Temperature scaling: logits divided by one number, and what calibration is then."""

import numpy as np
import numpy.typing as npt

from apr_jax.errors import ArgumentError
from apr_jax.metrics import classification
from apr_jax.metrics.calibration import FloatArray
from apr_jax.metrics.intervals import Z95, Measured

# Temperatures lie in [1 / _MOST, _MOST]: of answers that are all right, or no better
# than chance, the likelihood would want none or infinity.
_MOST = 100.0
# Newton's steps, then halvings of the bracket.
_STEPS, _HALVINGS, _NEAR = 20, 60, 1e-10
# So near to an end of the range is at it.
_EDGE = 1e-6


def temperature(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """The T for which softmax(logits / T) makes the labels likeliest.

    Guo et al., "On Calibration of Modern Neural Networks", 2017, section 4.2. The
    likelihood is concave in 1 / T, so the one maximum is found; in [0.01, 100].

    Args:
        logits: [N, C], finite.
        labels: [N] integers in [0, C).

    Raises:
        ArgumentError: other shapes, labels out of range, or logits that aren't finite.
    """
    return 1 / _sharpness(*classification.finite(logits, labels))


def scaled(
    logits: npt.ArrayLike, labels: npt.ArrayLike, *, seed: int = 0
) -> dict[str, Measured]:
    """Likelihood and calibration after temperature scaling, with 95 % intervals.

    The temperature is fitted to one half of the examples, drawn by the seed, and the
    rest is measured. What isn't finite is left out first.

    Args:
        logits: [N, C].
        labels: [N] integers in [0, C).
        seed: of the halves, and of the bootstrap.

    Returns:
        "temperature", whose ``n`` is the size of the half that it was fitted to, and
        "nll_scaled", "ece_scaled", "rms_calibration_error_scaled" and "brier_scaled" of
        the other half; empty of fewer than two examples. A temperature at an end of
        its range, of a half that is all right or no better than chance, is none that
        was fitted: it has no interval, and nothing is measured with it.
    """
    scores = np.asarray(logits)
    known = np.isfinite(scores).all(axis=-1)
    if known.sum() < 2:
        return {}
    scores, classes = classification.finite(scores[known], np.asarray(labels)[known])
    order = np.random.default_rng(seed).permutation(len(classes))
    fit, rest = np.array_split(order, [len(order) // 2])
    sharpness = _sharpness(scores[fit], classes[fit])
    if not 1 + _EDGE < sharpness * _MOST < _MOST**2 * (1 - _EDGE):
        return {"temperature": Measured(1 / sharpness, None, None, "1", len(fit))}
    slope, bend = _slopes(scores[fit], classes[fit], sharpness)
    # Of the logarithm: what a half of other examples would give.
    room = np.sqrt(np.mean(slope**2) / len(fit)) / np.maximum(bend.mean(), 1e-12)
    spread = min(Z95 * room / sharpness, 2 * np.log(_MOST))
    low, high = (
        float(np.clip(np.exp(sign * spread) / sharpness, 1 / _MOST, _MOST))
        for sign in (-1, 1)
    )
    found = classification.summary(sharpness * scores[rest], classes[rest], seed=seed)
    measured = {"temperature": Measured(1 / sharpness, low, high, "1", len(fit))}
    for name in ("nll", "ece", "rms_calibration_error", "brier"):
        if name in found:
            measured[f"{name}_scaled"] = found[name]
    return measured


def _sharpness(scores: FloatArray, classes: npt.NDArray[np.int64]) -> float:
    """1 / T, by Newton's steps within a bracket."""
    if not len(classes):
        raise ArgumentError("there are no examples to fit a temperature to")
    low, high = 1 / _MOST, _MOST
    at = 1.0
    for turn in range(_STEPS + _HALVINGS):
        slope, bend = (part.mean() for part in _slopes(scores, classes, at))
        low, high = (low, at) if slope > 0 else (at, high)
        step = at - slope / bend if bend > 0 else low
        # Halved by ratios, as the bracket spans many.
        inside = turn < _STEPS and low < step < high
        new = float(step) if inside else float(np.sqrt(low * high))
        if abs(new - at) <= _NEAR * at:
            break
        at = new
    return at


def _slopes(
    scores: FloatArray, classes: npt.NDArray[np.int64], sharpness: float
) -> tuple[FloatArray, FloatArray]:
    """First and second derivative of each example's NLL in 1 / T. [N] each."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    p = np.exp(sharpness * shifted)
    p /= p.sum(axis=1, keepdims=True)
    mean = (p * shifted).sum(axis=1)
    own = shifted[np.arange(len(classes)), classes]
    return mean - own, (p * shifted**2).sum(axis=1) - mean**2
