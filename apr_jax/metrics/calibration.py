"""Calibration: how far confidences are from the share that is correct.

Host-side NumPy in float64 like ``apr_jax.metrics``, which exports these functions too.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from apr_jax.errors import ArgumentError
from apr_jax.gates import answers, knobs

# How the code of a paper counts, where that differs from what the paper says.
CONVENTIONS = ("exact", "authors")

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Reliability:
    """The numbers of a reliability diagram, per equal-width bin of confidence.

    Attributes:
        edges: [bins + 1] ends of the bins, from 0 to 1.
        confidence: [bins] mean confidence, NaN in an empty bin.
        accuracy: [bins] share that is correct, NaN in an empty bin.
        count: [bins] number of examples.
    """

    edges: FloatArray
    confidence: FloatArray
    accuracy: FloatArray
    count: IntArray

    def to_json(self) -> dict[str, list[float | None]]:
        """Lists for a JSON file, None in an empty bin."""
        lists = {
            f.name: getattr(self, f.name).tolist() for f in dataclasses.fields(self)
        }
        return {k: [None if x != x else x for x in v] for k, v in lists.items()}

    @classmethod
    def from_json(cls, lists: Mapping[str, Sequence[float | None]]) -> "Reliability":
        """The diagram that ``to_json`` wrote."""
        arrays: Any = {name: np.array(x, np.float64) for name, x in lists.items()}
        return cls(**(arrays | {"count": np.array(lists["count"], np.int64)}))


def reliability(
    confidence: npt.ArrayLike, correct: npt.ArrayLike, *, bins: int = 15
) -> Reliability:
    """Mean confidence, accuracy and count in equal-width bins of confidence.

    Bin b holds confidences in (b / bins, (b + 1) / bins]; exactly 0 goes to the
    first (Guo et al., "On Calibration of Modern Neural Networks", 2017, section 2).

    Args:
        confidence: [N] in [0, 1].
        correct: [N] booleans.
        bins: at least 1.

    Raises:
        ArgumentError: a confidence lies outside [0, 1], ``correct`` holds anything
            but true and false, the shapes differ, or there are no examples.
    """
    conf, right = _confidence(confidence, correct)
    index = equal_width_bin(conf, bins)
    count = np.bincount(index, minlength=bins)
    total = np.where(count > 0, count, np.nan)
    return Reliability(
        edges=np.linspace(0.0, 1.0, bins + 1),
        confidence=np.bincount(index, weights=conf, minlength=bins) / total,
        accuracy=np.bincount(index, weights=right, minlength=bins) / total,
        count=count,
    )


def ece(confidence: npt.ArrayLike, correct: npt.ArrayLike, *, bins: int = 15) -> float:
    """Expected calibration error over equal-width bins, in [0, 1].

    sum_b n_b / N |accuracy_b - confidence_b| (Guo et al. 2017, equation 3); bins as
    in ``reliability``.

    Args:
        confidence: [N] in [0, 1].
        correct: [N] booleans.
        bins: at least 1.
    """
    conf, right = _confidence(confidence, correct)
    gap = np.bincount(equal_width_bin(conf, bins), weights=conf - right, minlength=bins)
    return float(np.sum(np.abs(gap)) / len(conf))


def rms_calibration_error(
    confidence: npt.ArrayLike,
    correct: npt.ArrayLike,
    *,
    bin_size: int = 100,
    convention: str = "exact",
) -> float:
    """Root mean square calibration error over equal-mass bins, in [0, 1].

    sqrt(sum_b n_b / N (accuracy_b - confidence_b)^2) over bins of ``bin_size`` examples
    in the order of confidence, the last one with what is left (Hendrycks et al.,
    "Deep Anomaly Detection with Outlier Exposure", 2019, appendix). Where examples
    of equal confidence straddle an edge, each counts as their average, so that the
    order of the examples cannot matter.

    ``convention="authors"`` computes as the code released with that paper does: the
    last bin takes what is left and is then dropped, but its examples count in N;
    examples of equal confidence stay in their order.

    Args:
        confidence: [N] in [0, 1].
        correct: [N] booleans.
        bin_size: at least 1; for "authors" at most N.
        convention: "exact" or "authors".

    Raises:
        ArgumentError: as ``reliability``'s, or an unknown convention.
    """
    knobs.whole("bin_size", bin_size)
    exact = knobs.one_of("convention", convention, CONVENTIONS) == "exact"
    conf, right = _confidence(confidence, correct)
    if exact:
        gap = _sorted_gap(conf, right)
        return float(rms_over_bins(gap[None], bin_size)[0])
    whole = len(conf) // bin_size
    if not whole:
        raise ArgumentError(
            f"bin_size is {bin_size} and N is {len(conf)}; the authors' code fills "
            "one bin at least"
        )
    order = np.argsort(conf, kind="stable")[: (whole - 1) * bin_size]
    gap = (conf - right)[order].reshape(-1, bin_size).mean(axis=1)
    return float(np.sqrt(np.sum(gap**2) * bin_size / len(conf)))


def _confidence(
    confidence: npt.ArrayLike, correct: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    conf = answers.shares(confidence, name="confidence")
    right = answers.truths(correct, name="correct", count=len(conf))
    return conf, right.astype(np.float64)


def equal_width_bin(conf: FloatArray, bins: int) -> IntArray:
    """The bin of ``reliability`` that each confidence falls in. [N] -> [N]."""
    knobs.whole("bins", bins)
    inner_edges = np.linspace(0.0, 1.0, bins + 1)[1:-1]
    return np.searchsorted(inner_edges, conf, side="left")


def _sorted_gap(conf: FloatArray, right: FloatArray) -> FloatArray:
    """Confidence minus correctness by rising confidence, ties averaged. [N]."""
    order = np.argsort(conf)
    _, tie = np.unique(conf, return_inverse=True)
    gap = np.bincount(tie, weights=conf - right) / np.bincount(tie)
    return gap[tie[order]]


def rms_over_bins(gap: FloatArray, bin_size: int) -> FloatArray:
    """Root mean square of the mean gap in bins of ``bin_size`` neighbours.

    Args:
        gap: [R, N] confidence minus correctness, each row by rising confidence.
        bin_size: at least 1.

    Returns:
        [R], one for each row.
    """
    starts = np.arange(0, gap.shape[1], bin_size)
    sizes = np.diff(np.append(starts, gap.shape[1]))
    mean = np.add.reduceat(gap, starts, axis=1) / sizes[None]
    return np.sqrt(mean**2 @ (sizes / gap.shape[1]))
