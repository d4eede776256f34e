"""The answers of networks: logits, labels and features, and which answer is right.

Arrays are NumPy's, JAX's, or nested sequences. Of an array that is only traced, shape
and type are checked. An example has an answer where its softmax exists: its logits have
no NaN, and the largest is finite. An example without an answer is never correct.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from apr_jax.errors import ArgumentError

Array: TypeAlias = Any  # NumPy's or JAX's

# So much beyond a range may a number be that was rounded in float32.
ROUNDING = 1e-6
NO_ANSWER = -1


def labels(
    values: Any,
    *,
    name: str = "labels",
    count: int | None = None,
    classes: int | None = None,
    places: np.ndarray | None = None,
) -> Array:
    """Returns labels [N] as they are, checked.

    Args:
        values: [N] integers in [0, ``classes``).
        name: of the argument.
        count: N, where it is known.
        classes: their number, where it is known.
        places: int [N], the examples' numbers in messages; 0, 1 ... without it.

    Raises:
        ArgumentError: another shape or type, or a label out of range.
    """
    found = array(values, name)
    shape = "[N]" if count is None else f"[{count}]"
    if np.ndim(found) != 1 or count not in (None, len(found)):
        raise ArgumentError(
            f"{name} must be integers {shape}, not of the shape {list(np.shape(found))}"
        )
    if not jnp.issubdtype(found.dtype, jnp.integer):
        raise ArgumentError(f"{name} must be integers {shape}, not {found.dtype}")
    if not isinstance(found, jax.core.Tracer) and len(found):
        _check_range(np.asarray(found), name, classes, places)
    return found


def _check_range(
    found: np.ndarray, name: str, classes: int | None, places: np.ndarray | None
) -> None:
    """Raises ArgumentError for labels that are no class, or no int32."""
    end = 2**31 if classes is None else classes
    outside = (found < 0) | (found >= end)
    if not outside.any():
        return
    first = int(np.argmax(outside))
    place = first if places is None else places[first]
    bounds = "[0, 2**31)" if classes is None else f"[0, {classes})"
    hint = ""
    if found.min() == 1 and found.max() == classes:
        hint = "; they seem to count from 1: subtract 1"
    raise ArgumentError(
        f"{int(outside.sum())} {name} are outside {bounds}, the first one "
        f"{found[first]} at example {place}{hint}"
    )


def logits(
    values: Any,
    *,
    name: str = "logits",
    count: int | None = None,
    classes: int | None = None,
) -> Array:
    """Returns logits [N, K] as they are, checked; they needn't be finite.

    Args:
        values: numbers [N, K], K of 2 or more.
        name: of the argument, or whose answer it is.
        count: N, where it is known.
        classes: K, where it is known.

    Raises:
        ArgumentError: another type or shape.
    """
    found = numbers(values, name)
    shape = tuple(np.shape(found))
    wanted = (
        f"[{'N' if count is None else count}, {'K' if classes is None else classes}]"
    )
    if len(shape) != 2 or count not in (None, shape[0]):
        raise ArgumentError(f"{name} must be {wanted}, not {list(shape)}")
    if shape[1] < 2:
        raise ArgumentError(
            f"{name} are {list(shape)}, but must have 2 classes or more; of one number "
            "z for two classes (a sigmoid) make the logits [0, z]"
        )
    if classes not in (None, shape[1]):
        raise ArgumentError(f"{name} must be {wanted}, not {list(shape)}")
    return found


def features(
    values: Any,
    *,
    name: str = "features",
    count: int | None = None,
    size: int | None = None,
) -> Array:
    """Returns features [N, F] as they are, checked; they needn't be finite.

    Args:
        values: numbers [N, F], F of 1 or more.
        name: of the argument.
        count: N, where it is known.
        size: F, where it is known.

    Raises:
        ArgumentError: another type or shape.
    """
    found = numbers(values, name)
    shape = tuple(np.shape(found))
    wanted = f"[{'N' if count is None else count}, {'F' if size is None else size}]"
    fits = len(shape) == 2 and count in (None, shape[0]) and size in (None, shape[1])
    if not fits or shape[1] == 0:
        raise ArgumentError(f"{name} must be {wanted}, not {list(shape)}")
    return found


def shares(values: Any, *, name: str, count: int | None = None) -> np.ndarray:
    """Returns float64 [N] in [0, 1]; what rounding put outside is put back.

    Raises:
        ArgumentError: another type or shape, no examples, or out of range.
    """
    found = np.asarray(numbers(values, name)).astype(np.float64)
    if found.ndim != 1 or not len(found) or count not in (None, len(found)):
        wanted = "[N] with N > 0" if count is None else f"[{count}]"
        raise ArgumentError(f"{name} must be {wanted}, not {list(found.shape)}")
    return in_unit_range(found, name)


def in_unit_range(found: np.ndarray, name: str) -> np.ndarray:
    """Returns numbers in [0, 1]; what rounding put outside is put back.

    Raises:
        ArgumentError: some are outside, or NaN.
    """
    if found.size and not ((found >= -ROUNDING) & (found <= 1 + ROUNDING)).all():
        raise ArgumentError(
            f"{name} must lie in [0, 1], but span [{found.min()}, {found.max()}]"
        )
    return np.clip(found, 0.0, 1.0)


def scores(values: Any, name: str) -> np.ndarray:
    """Returns float64 [N] of any numbers but NaN.

    Raises:
        ArgumentError: another type or shape, no examples, or NaN.
    """
    found = np.asarray(numbers(values, name)).astype(np.float64)
    if found.ndim != 1 or len(found) == 0:
        raise ArgumentError(f"{name} must be [N] with N > 0, not {found.shape}")
    if np.isnan(found).any():
        raise ArgumentError(
            f"{int(np.isnan(found).sum())} of {len(found)} {name} are NaN, "
            f"the first at {int(np.argmax(np.isnan(found)))}"
        )
    return found


def truths(values: Any, *, name: str, count: int) -> npt.NDArray[np.bool_]:
    """Returns bool [N] of truth values, or of numbers that are all 0 or 1.

    Raises:
        ArgumentError: another shape, or other values.
    """
    found = np.asarray(array(values, name))
    if found.shape != (count,):
        raise ArgumentError(
            f"{name} must be booleans [{count}], not {found.dtype} {list(found.shape)}"
        )
    if found.dtype == bool:
        return found
    numeric = jnp.issubdtype(found.dtype, jnp.number)
    if not numeric or not np.isin(found, (0, 1)).all():
        raise ArgumentError(
            f"{name} must be booleans [{count}], or 0 and 1; some are neither"
        )
    return found.astype(bool)


def numbers(values: Any, name: str) -> Array:
    """Returns an array of integers or of floating point, checked for that.

    Raises:
        ArgumentError: no array, or of another type.
    """
    found = array(values, name)
    kind = found.dtype
    if not (jnp.issubdtype(kind, jnp.floating) or jnp.issubdtype(kind, jnp.integer)):
        raise ArgumentError(f"{name} must be real numbers, not {kind}")
    return found


def array(values: Any, name: str) -> Array:
    """Returns an array of what is one, or of nested sequences.

    Raises:
        ArgumentError: a mapping, a tuple of arrays (as of a network that has several
            outputs), rows of different lengths, or None.
    """
    if isinstance(values, jax.Array | np.ndarray):
        return values
    several = isinstance(values, tuple) and any(np.ndim(v) > 1 for v in values)
    if isinstance(values, Mapping) or several or values is None:
        kind = type(values).__name__
        more = f" of {len(values)}" if several else ""
        raise ArgumentError(
            f"{name} must be one array, not a {kind}{more}; of several outputs give "
            "the one that is meant"
        )
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ArgumentError(f"{name} must be one array: {error}") from error


# --- Right and wrong -----------------------------------------------------------------


def answer(found: Array) -> Array:
    """The class of the largest logit, the first among equals; -1 without an answer.

    Args:
        found: logits [..., K].

    Returns:
        Integers [...].
    """
    xp: Any = jnp if isinstance(found, jax.Array) else np
    # The largest of numbers with a NaN among them is NaN.
    exists = xp.isfinite(found.max(axis=-1))
    return xp.where(exists, found.argmax(axis=-1), NO_ANSWER)


def not_finite(found: Array) -> int:
    """The number of values that are NaN or infinite."""
    return int(np.sum(~np.isfinite(np.asarray(found))))


def not_finite_each(found: Array) -> Array:
    """How many of each example's logits [..., K] are NaN or infinite, int [...]."""
    xp: Any = jnp if isinstance(found, jax.Array) else np
    return xp.sum(~xp.isfinite(found), axis=-1)
