"""What arguments of image functions may be beside the images and keys, by their names.

A number that is traced passes: nothing is known of it. Names, axes, indices and flags
are checked where they are used.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax.gates import knobs

Rule = Callable[[str, Any], Any]


def each_real(name: str, value: Any, **bounds: Any) -> None:
    """Checks a number, or each number of an array or a sequence, by `knobs.real`.

    Raises:
        ArgumentError: no number, NaN, infinite, or out of range.
    """
    leaves = jax.tree.leaves(value)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return
    if np.ndim(value) == 0:
        knobs.real(name, value, **bounds)
        return
    if isinstance(value, jax.Array) and not value.is_fully_addressable:
        return
    numbers = np.asarray(value)
    if not (jnp.issubdtype(numbers.dtype, jnp.number) and numbers.size):
        knobs.real(name, value, **bounds)  # says what is wrong
    numbers = numbers.astype(np.float64)
    for end in (numbers.min(), numbers.max()):  # NaN, if one is
        knobs.real(name, float(end), **bounds)


def between(low: float, high: float) -> Rule:
    """The rule of numbers in a range, its ends included."""
    return functools.partial(each_real, low=low, high=high)


positive: Rule = functools.partial(each_real, above=0)
_not_negative: Rule = functools.partial(each_real, low=0)

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(
        (
            "prob",
            "single_prob",
            "pair_prob",
            "jitter_prob",
            "grey_prob",
            "fractal_prob",
            "vary_prob",
        ),
        between(0, 1),
    ),
    # AugMix's scale: the strength of an operation is drawn from 0.1 up to it.
    **dict.fromkeys(("level", "severity"), between(0.1, 10)),
    **dict.fromkeys(("alpha", "noise_power", "blur_power", "std"), positive),
    **dict.fromkeys(
        (
            "mean_strength",
            "least_strength",
            "strength",
            "steepest",
            "noise",
            "sigma",
            "radius",
            "colour_scale",
            "filter_sigma",
            "vital",
            "nonvital",
        ),
        _not_negative,
    ),
    "area": functools.partial(each_real, above=0, high=1),
    **dict.fromkeys(("fill", "mean"), each_real),
    **dict.fromkeys(
        (
            "waves",
            "width",
            "depth",
            "size",
            "kernel",
            "filter_size",
            "deform_cut",
            "colour_cut",
        ),
        knobs.whole,
    ),
    "pad": functools.partial(knobs.whole, low=0),
    "colour_band": lambda name, band: band is None or knobs.whole(name, band),
    "turns": functools.partial(knobs.whole, low=-(2**31)),
    **dict.fromkeys(
        ("clip", "random_size", "plus", "log", "normalise"),
        knobs.truth,
    ),
}
# What is no number, and bins of the DFT, which may be many.
FREE = {
    "amplitude",
    "amplitude_index",
    "axes",
    "backend",
    "channels",
    "chunk",
    "donor_index",
    "edge",
    "edges",
    "low",
    "mask",
    "name",
    "negate",
    "ops",
    "overflow",
    "per",
    "phase",
    "policy",
    "u",
    "v",
}


def rules_of(
    signature: inspect.Signature, own: Mapping[str, Rule], others: set[str]
) -> dict[str, Rule]:
    """The rules of a function's arguments.

    Args:
        signature: of the function.
        own: name -> rule that this function has in place of the usual one.
        others: names that are checked as something else: images and keys.

    Raises:
        TypeError: an argument has no rule and isn't `FREE`, so none can be forgotten.
    """
    rules = {**RULES, **own}
    missing = set(signature.parameters) - set(rules) - FREE - others
    if missing:
        raise TypeError(f"no rule for the arguments {sorted(missing)}")
    return {name: rules[name] for name in signature.parameters if name in rules}
