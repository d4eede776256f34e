"""What ImageNet-C adds to the mean error: errors in relation to AlexNet's."""

from collections.abc import Mapping, Sequence

import numpy as np

from apr_jax.metrics import ALEXNET_ERROR, mean_corruption_error

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
        ValueError: as ``metrics.mean_corruption_error``; or a ``clean_error`` outside
            [0, 1].
    """
    mean_corruption_error(errors, baseline=baseline)  # for its checks
    if not 0 <= clean_error <= 1:
        raise ValueError(f"clean_error must be in [0, 1], not {clean_error}")
    return float(
        np.mean(
            [
                (float(np.mean(errors[name])) - clean_error)
                / (baseline[name] - baseline_clean)
                for name in baseline
            ]
        )
    )
