"""Intervals of 95 %: Wilson's score for proportions, the bootstrap for the rest."""

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from apr_jax.gates import knobs
from apr_jax.metrics.calibration import FloatArray, equal_width_bin, rms_over_bins

# The 97.5 % quantile of the standard normal distribution.
Z95 = 1.959963984540054
# Replicates are drawn in blocks of about this many examples, to bound the memory.
_BLOCK = 2_000_000


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


def wilson(successes: int, n: int) -> Measured:
    """A proportion with Wilson's 95 % score interval (Wilson 1927).

    Raises:
        ArgumentError: unless 0 <= successes <= n and n > 0.
    """
    knobs.whole("n", n)
    knobs.whole("successes", successes, low=0, high=n)
    p = successes / n
    spread = Z95**2 / n
    centre = (p + spread / 2) / (1 + spread)
    half = Z95 * np.sqrt(p * (1 - p) / n + spread / (4 * n)) / (1 + spread)
    # Rounding must not push the ends off 0 and 1, where they belong exactly.
    low = 0.0 if successes == 0 else float(centre - half)
    high = 1.0 if successes == n else float(centre + half)
    return Measured(p, low, high, "fraction", n)


def bootstrap(
    per_example: dict[str, FloatArray],
    conf: FloatArray,
    right: npt.NDArray[np.bool_],
    bins: int,
    bin_size: int,
    replicates: int,
    seed: int,
) -> dict[str, FloatArray]:
    """[replicates] values of each metric on resampled examples."""
    knobs.whole("replicates", replicates)
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


def centred_quantiles(
    samples: FloatArray, value: float, most: float = math.inf
) -> tuple[float, float]:
    """The ends of 95 % of the samples, shifted so that their mean is ``value``.

    They lie between 0 and ``most``, as all that is measured so.
    """
    low, high = np.quantile(samples - samples.mean() + value, [0.025, 0.975])
    return max(0.0, float(low)), min(most, float(high))
