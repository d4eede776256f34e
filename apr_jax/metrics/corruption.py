"""Errors under corruption: their mean, and in relation to AlexNet's."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from apr_jax.errors import ArgumentError
from apr_jax.gates import answers, knobs

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
# Top-1 error of AlexNet on the undisturbed validation set (torchvision's weights).
ALEXNET_CLEAN_ERROR = 0.43478


def relative_mean_corruption_error(
    errors: Mapping[str, float | Sequence[float]],
    clean_error: float,
    *,
    baseline: Mapping[str, float] = ALEXNET_ERROR,
    baseline_clean: float = ALEXNET_CLEAN_ERROR,
) -> float:
    """Mean over corruptions of what is lost to them, in relation to AlexNet.

    The mean of (E_c - E_clean) / (E^AlexNet_c - E^AlexNet_clean), E_c averaged over the
    severities (Hendrycks & Dietterich, ICLR 2019, section 4.2).

    Args:
        errors: corruption -> error in [0, 1], one per severity or their mean; all
            fifteen of ``ALEXNET_ERROR``.
        clean_error: on the undisturbed images, in [0, 1].
        baseline, baseline_clean: the same of the reference network.

    Returns:
        A fraction; negative for a network that corruptions help.

    Raises:
        ArgumentError: as ``metrics.mean_corruption_error``; a ``clean_error`` or a
            ``baseline_clean`` outside [0, 1]; or a baseline that loses nothing.
    """
    means = _means(errors)
    _check_baseline(baseline)
    knobs.real("baseline_clean", baseline_clean, low=0, high=1)
    for name, value in baseline.items():
        if value == baseline_clean:
            raise ArgumentError(
                f"baseline of {name!r} is {value:g}, as baseline_clean: nothing is lost"
            )
    clean_error = float(answers.in_unit_range(np.asarray(clean_error), "clean_error"))
    lost = [
        (means[name] - clean_error) / (baseline[name] - baseline_clean)
        for name in baseline
    ]
    return float(np.mean(lost))


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
        ArgumentError: for missing or unknown corruptions (the held-out ones included,
            which are no part of the mCE), an error outside [0, 1], or one of the
            baseline outside (0, 1].
    """
    means = _means(errors)
    if baseline is None:
        return float(np.mean(list(means.values())))
    _check_baseline(baseline)
    return float(np.mean([means[name] / baseline[name] for name in ALEXNET_ERROR]))


def _check_baseline(baseline: Mapping[str, float]) -> None:
    _check_names("baseline", baseline)
    for name, value in baseline.items():
        knobs.real(f"baseline of {name!r}", value, above=0, high=1)


def _check_names(what: str, given: Mapping[str, Any]) -> None:
    missing = [name for name in ALEXNET_ERROR if name not in given]
    unknown = [name for name in given if name not in ALEXNET_ERROR]
    if missing or unknown:
        raise ArgumentError(
            f"the mCE is over {', '.join(ALEXNET_ERROR)}; of {what} "
            f"missing: {', '.join(missing) or 'none'}; "
            f"not part of it: {', '.join(unknown) or 'none'}"
        )


def _means(errors: Mapping[str, float | Sequence[float]]) -> dict[str, float]:
    """Corruption -> mean error over its severities."""
    _check_names("errors", errors)
    means = {}
    for name in ALEXNET_ERROR:
        what = f"errors of {name!r}"
        levels = np.asarray(answers.numbers(errors[name], what)).astype(np.float64)
        if levels.size == 0:
            raise ArgumentError(f"{what} are none")
        means[name] = float(answers.in_unit_range(levels, what).mean())
    return means
