"""The facts that some scores take from the training set, computed in float64."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import numpy as np
import numpy.typing as npt
import scipy.special

from apr_jax.errors import ArgumentError
from apr_jax.gates import answers, knobs

Array = npt.NDArray[Any]


@flax.struct.dataclass
class Fitted:
    """The finds of `fit`, float32; None where it was not asked for. A pytree.

    Attributes:
        weight, bias: last layer, [F, K] and [K].
        react_limit: [] where activations are cut off.
        dice_weight: [F, K], the last layer's with the lesser contributions zero.
        class_means: [C, F] of the classes that occur.
        class_whiten: [F, F], turns the covariance within classes into the identity.
        all_mean, all_whiten: [F] and [F, F], the same of all classes together.
        bank: [M, F] training features of unit length.
        bank_energy: [M], log sum exp of their logits.
        patterns: [K, F], mean feature of each class's examples that are classified
            correctly; zeros where there are none.
        vim_origin: [F], where the logits of the last layer are all zero.
        vim_residual: [F, F - D], basis of what lies outside the principal subspace.
        vim_alpha: [], scale of the virtual logit.
    """

    weight: Any = None
    bias: Any = None
    react_limit: Any = None
    dice_weight: Any = None
    class_means: Any = None
    class_whiten: Any = None
    all_mean: Any = None
    all_whiten: Any = None
    bank: Any = None
    bank_energy: Any = None
    patterns: Any = None
    vim_origin: Any = None
    vim_residual: Any = None
    vim_alpha: Any = None


def fit(
    features: npt.ArrayLike,
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    react_quantile: float = 0.9,
    dice_sparsity: float = 0.9,
    vim_dims: int | None = None,
    ridge: float = 1e-6,
) -> Fitted:
    """Fits every score that needs training examples.

    Args:
        features: [M, F] of training images without augmentation.
        logits: [M, K] of the same images.
        labels: [M] integers; a class that does not occur has no mean.
        weight, bias: [F, K] and [K] of the last layer. Without them "react", "dice",
            "ash" and "vim" are not fitted.
        react_quantile: of all activations; those above are cut off.
        dice_sparsity: share of the last layer's weights that is set to zero.
        vim_dims: D of the principal subspace; None is 1000 of 2048 features or more,
            512 of 768 or more, and half of fewer, as the paper's.
        ridge: variance added in every direction, as a share of the mean variance: a
            feature that never varies in training must not decide all.

    Raises:
        ArgumentError: for shapes that do not fit, no examples, values that are not
            finite, or knobs out of range.
    """
    values, scores, classes = _checked(features, logits, labels)
    for name, share in (("react_quantile", react_quantile), ("ridge", ridge)):
        knobs.real(name, share, above=0, high=1)
    knobs.real("dice_sparsity", dice_sparsity, low=0, below=1)
    found = {**_gaussians(values, classes, ridge)}
    length = np.linalg.norm(values, axis=1, keepdims=True)
    found["bank"] = values / np.maximum(length, 1e-12)
    found["bank_energy"] = scipy.special.logsumexp(scores, axis=1)
    found["patterns"] = _patterns(values, scores, classes)
    if weight is not None and bias is not None:
        kernel, offset = np.asarray(weight, np.float64), np.asarray(bias, np.float64)
        expected = (values.shape[1], scores.shape[1])
        if kernel.shape != expected or offset.shape != expected[1:]:
            raise ArgumentError(
                f"weight and bias must be {list(expected)} and {list(expected[1:])}, "
                f"not {list(kernel.shape)} and {list(offset.shape)}"
            )
        contribution = values.mean(axis=0)[:, None] * kernel
        least = np.quantile(contribution, dice_sparsity)
        found |= {
            "weight": kernel,
            "bias": offset,
            "react_limit": np.quantile(values, react_quantile),
            "dice_weight": np.where(contribution > least, kernel, 0.0),
            **virtual_logit(values, scores, kernel, offset, vim_dims),
        }
    return Fitted(**{k: np.asarray(v, np.float32) for k, v in found.items()})


def _checked(
    features: npt.ArrayLike, logits: npt.ArrayLike, labels: npt.ArrayLike
) -> tuple[Array, Array, Array]:
    values = np.asarray(answers.features(features)).astype(np.float64)
    count = len(values)
    scores = np.asarray(answers.logits(logits, count=count)).astype(np.float64)
    classes = answers.labels(labels, count=count, classes=scores.shape[1])
    if not count:
        raise ArgumentError("there are no training examples to fit to")
    for what, array in (("features", values), ("logits", scores)):
        if bad := answers.not_finite(array):
            raise ArgumentError(f"{bad} of {array.size} training {what} are not finite")
    return values, scores, np.asarray(classes)


def _patterns(values: Array, scores: Array, classes: Array) -> Array:
    """Mean feature of each class's examples that are right. [K, F]"""
    right = answers.answer(scores) == classes
    sums = np.zeros((scores.shape[1], values.shape[1]))
    np.add.at(sums, classes[right], values[right])
    count = np.bincount(classes[right], minlength=len(sums))
    return sums / np.maximum(count, 1)[:, None]


def _gaussians(values: Array, classes: Array, ridge: float) -> Mapping[str, Array]:
    """Class means, overall mean, and what whitens around each."""
    present, place = np.unique(classes, return_inverse=True)
    means = np.stack([values[place == c].mean(axis=0) for c in range(len(present))])
    overall = values.mean(axis=0)
    return {
        "class_means": means,
        "class_whiten": _whiten(values - means[place], ridge),
        "all_mean": overall,
        "all_whiten": _whiten(values - overall, ridge),
    }


def _whiten(centred: Array, ridge: float) -> Array:
    """[F, F] matrix W with W W' = the inverse of the covariance, plus the ridge.

    A direction in which nothing varies, but for rounding, has no weight, as in the
    pseudo-inverse: of dead features, and of all beyond the number of examples.
    """
    covariance = centred.T @ centred / len(centred)
    variances, directions = np.linalg.eigh(covariance)
    # All of it zero: one example a class, or a dead layer. Any scale will do.
    if not (most := variances.max()) > 0:
        return directions
    weight = 1 / np.sqrt(np.maximum(variances, 0.0) + ridge * variances.mean())
    rounding = most * len(variances) * np.finfo(np.float64).eps
    return directions * np.where(variances > rounding, weight, 0.0)


def virtual_logit(
    values: Array, scores: Array, weight: Array, bias: Array, dims: int | None
) -> Mapping[str, Array]:
    """The origin, residual subspace and scale of ViM, by the names in `Fitted`.

    Args:
        values, scores: features [M, F] and logits [M, K] of training images.
        weight, bias, dims: as `fit`'s.
    """
    size = values.shape[1]
    if dims is None:
        dims = 1000 if size >= 2048 else 512 if size >= 768 else size // 2
    knobs.whole("vim_dims", dims, low=0, high=size - 1)
    origin = -np.linalg.pinv(weight.T) @ bias
    around = values - origin
    # Rising eigenvalues: the first F - D directions are outside the subspace.
    _, directions = np.linalg.eigh(around.T @ around / len(around))
    residual = directions[:, : size - dims]
    outside = np.linalg.norm(around @ residual, axis=1).mean()
    alpha = scores.max(axis=1).mean() / outside if outside > 0 else 0.0
    return {
        "vim_origin": origin,
        "vim_residual": residual,
        "vim_alpha": np.asarray(alpha),
    }
