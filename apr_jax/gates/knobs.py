"""Numbers and names that say how something is computed, checked by their names.

A setting under which nothing is done (no steps, a radius that isn't a number) must
raise: nothing that was done breaks nothing, which looks like robustness.
"""

import functools
import inspect
import math
import numbers
from collections.abc import Callable, Collection, Mapping
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np

from apr_jax.errors import ArgumentError

P = ParamSpec("P")
T = TypeVar("T")

# Half of the distance of two numbers of float32 below 1.
SMALLEST = 2.0**-25


def whole(name: str, value: Any, *, low: int = 1, high: int | None = None) -> int:
    """Returns a whole number as an ``int``; 4.0 and True aren't whole numbers here.

    Raises:
        ArgumentError: another type, or out of range.
    """
    bounds = f"a whole number, {low} or more"
    if high is not None:
        bounds = f"a whole number from {low} to {high}"
    _known(name, value, bounds)
    plain = _plain(value)
    if (
        isinstance(plain, bool)
        or not isinstance(plain, int)
        or plain < low
        or (high is not None and plain > high)
    ):
        raise ArgumentError(f"{name} is {value!r}; it must be {bounds}")
    return plain


def real(
    name: str,
    value: Any,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    below: float | None = None,
    endless: bool = False,
) -> float:
    """Returns a number as a ``float``; one that is only traced, as it is.

    Args:
        name, value: of the argument.
        low, high: the range, ends included.
        above, below: the range, ends not included.
        endless: whether infinity will do.

    Raises:
        ArgumentError: no number, NaN, infinite, or out of range.
    """
    parts = [
        f"{word} {end:g}"
        for word, end in (
            ("at least", low),
            ("above", above),
            ("at most", high),
            ("below", below),
        )
        if end is not None
    ]
    bounds = " and ".join(["a finite number" if not endless else "a number", *parts])
    if isinstance(value, jax.core.Tracer):
        return value  # type: ignore[return-value]
    plain = _plain(value)
    if isinstance(plain, bool) or not isinstance(plain, numbers.Real):
        raise ArgumentError(f"{name} is {value!r}; it must be {bounds}")
    number = float(plain)
    if (
        math.isnan(number)
        or (math.isinf(number) and not endless)
        or (low is not None and number < low)
        or (above is not None and number <= above)
        or (high is not None and number > high)
        or (below is not None and number >= below)
    ):
        raise ArgumentError(f"{name} is {value!r}; it must be {bounds}")
    return number


def one_of(name: str, value: Any, choices: Collection[str], *, note: str = "") -> str:
    """Returns a name that is one of some.

    Raises:
        ArgumentError: it isn't; the message lists the choices, behind ``note``.
    """
    if not isinstance(value, str) or value not in choices:
        raise ArgumentError(
            f"unknown {name} {value!r}{note}; choose from {', '.join(choices)}"
        )
    return value


def truth(name: str, value: Any) -> bool:
    """Returns a truth value; 0, 1 and texts are none.

    Raises:
        ArgumentError: another type.
    """
    _known(name, value, "True or False")
    plain = _plain(value)
    if not isinstance(plain, bool):
        raise ArgumentError(f"{name} is {value!r}; it must be True or False")
    return plain


def radius(value: Any, norm: str, *, name: str = "eps", endless: bool = False) -> float:
    """Returns the radius of a ball around pixels in [0, 1].

    Raises:
        ArgumentError: not above 0, so small that pixels of float32 don't change, or
            above 1 for "linf", where all pixels are within 1 of each other: a number
            that was meant to be divided by 255.
    """
    number = real(name, value, above=0, endless=endless)
    if number < SMALLEST:
        raise ArgumentError(
            f"{name} is {value!r}; below {SMALLEST:g} pixels of float32 stay the same"
        )
    if norm == "linf" and 1 < number < math.inf:
        raise ArgumentError(
            f"{name} is {value!r}, but pixels lie in [0, 1]; did you mean "
            f"{number:g}/255?"
        )
    return number


def _known(name: str, value: Any, bounds: str) -> None:
    """Raises ArgumentError for a traced value on which shapes depend."""
    if isinstance(value, jax.core.Tracer):
        raise ArgumentError(
            f"{name} is {bounds} that must be known while the program is traced; under "
            "jax.jit say static_argnames"
        )


def _plain(value: Any) -> Any:
    """A Python number of a number of NumPy's or JAX's; all else as it is."""
    if isinstance(value, np.generic) or (
        hasattr(value, "dtype") and hasattr(value, "item") and np.ndim(value) == 0
    ):
        return value.item()
    return value


# --- Whole signatures ----------------------------------------------------------------


def gated(
    rules: Mapping[str, Callable[[str, Any], Any]],
    *,
    free: Collection[str] = (),
    relations: Callable[[dict[str, Any]], Any] | None = None,
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Returns a decorator that checks a function's arguments by their names.

    Args:
        rules: name -> check, called with name and value; returns what goes on.
        free: names that have no rule; they are checked elsewhere, or can't be wrong.
        relations: a check of all arguments together, by name; it may replace some.

    Raises:
        TypeError: where the function is defined: an argument has no rule and isn't
            ``free``. So none can be forgotten.
    """

    def wrap(function: Callable[P, T]) -> Callable[P, T]:
        signature = inspect.signature(function)
        missing = set(signature.parameters) - set(rules) - set(free)
        if missing:
            raise TypeError(f"{function.__name__}: no rule for {sorted(missing)}")
        checked = tuple(name for name in signature.parameters if name not in free)

        @functools.wraps(function)
        def inner(*args: P.args, **kwargs: P.kwargs) -> T:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            # As the rules return them: Python's numbers, of NumPy's and JAX's.
            for name in checked:
                bound.arguments[name] = rules[name](name, bound.arguments[name])
            if relations is not None:
                relations(bound.arguments)
            return function(*bound.args, **bound.kwargs)

        return inner

    return wrap
