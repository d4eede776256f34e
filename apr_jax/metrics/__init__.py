"""The numbers of a classifier: accuracy, calibration, corruption, detection, pairs.

Every function takes arrays (NumPy, JAX or nested sequences), computes in NumPy
float64 on the host and returns plain Python numbers: these are the last few lines
of an evaluation, where exact sums matter more than speed and nothing is traced.

Rates are fractions in [0, 1]; tables and pages turn them into percent. Intervals
cover 95 %: Wilson's score interval for proportions, the bootstrap over examples for
everything else, and for the difference of two classifiers on the same examples.
"""

from apr_jax.metrics.calibration import (
    Reliability,
    ece,
    reliability,
    rms_calibration_error,
)
from apr_jax.metrics.classification import (
    accuracy,
    brier,
    confusion,
    nll,
    reliability_of,
    summary,
    top_k,
)
from apr_jax.metrics.corruption import (
    ALEXNET_CLEAN_ERROR,
    ALEXNET_ERROR,
    mean_corruption_error,
    relative_mean_corruption_error,
)
from apr_jax.metrics.detection import ood_detection, oscr
from apr_jax.metrics.intervals import Measured, wilson
from apr_jax.metrics.paired import Paired, mcnemar, paired_detection, paired_difference
from apr_jax.metrics.selective import aurc
from apr_jax.metrics.stability import flips, mean_flip_rate, top5_distance
from apr_jax.metrics.temperature_scaling import temperature

__all__ = [
    "ALEXNET_CLEAN_ERROR",
    "ALEXNET_ERROR",
    "Measured",
    "Paired",
    "Reliability",
    "accuracy",
    "aurc",
    "brier",
    "confusion",
    "ece",
    "flips",
    "mcnemar",
    "mean_corruption_error",
    "mean_flip_rate",
    "nll",
    "ood_detection",
    "oscr",
    "paired_detection",
    "paired_difference",
    "relative_mean_corruption_error",
    "reliability",
    "reliability_of",
    "rms_calibration_error",
    "summary",
    "temperature",
    "top5_distance",
    "top_k",
    "wilson",
]
