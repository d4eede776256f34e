"""What arguments of image functions may be beside the images and keys, by their names.

A number that is traced passes: nothing is known of it. Names, axes and indices are
checked where they are used.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax.errors import ArgumentError
from apr_jax.gates import knobs

Rule = Callable[[str, Any], Any]


def each_real(name: str, value: Any, **bounds: Any) -> None:
    """Checks a number, or each number of an array or a sequence, by `knobs.real`.

    Raises:
        ArgumentError: no number, NaN, infinite, or out of range.
    """
    if _traced(value):
        return
    if np.ndim(value) == 0:
        knobs.real(name, value, **bounds)
        return
    if isinstance(value, jax.Array) and not value.is_fully_addressable:
        return
    numbers = np.asarray(value)
    kinds = (jnp.floating, jnp.integer)
    if not any(jnp.issubdtype(numbers.dtype, kind) for kind in kinds):
        knobs.real(name, value, **bounds)  # says what is wrong
    if numbers.size:
        numbers = numbers.astype(np.float64)
        for end in (numbers.min(), numbers.max()):  # NaN, if one is
            knobs.real(name, float(end), **bounds)


def _traced(value: Any) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))


def one_for_each(name: str, value: Any, **bounds: Any) -> None:
    """As `each_real`, of a number or of an array with one for each image.

    Raises:
        ArgumentError: a sequence that is no array, or as `each_real`.
    """
    if isinstance(value, list | tuple):
        knobs.real(name, value, **bounds)  # says that it is no number
    each_real(name, value, **bounds)


def grey_fill(fill: Any, dtype: Any) -> None:
    """Checks what blanked pixels become: of uint8 images a grey level.

    Raises:
        ArgumentError: of uint8 images no whole number from 0 to 255.
    """
    if dtype == jnp.uint8 and not _traced(fill):
        for level in np.ravel(fill):
            if not (0 <= level <= 255 and level == int(level)):
                raise ArgumentError(
                    f"fill is {fill!r}, and images are uint8; it must be a grey level, "
                    "a whole number from 0 to 255"
                )


def indices(name: str, index: Any, count: int, pool: int) -> jax.Array:
    """Places of images in a pool, as an array: int [count].

    Raises:
        ArgumentError: no whole numbers, another shape, or beyond the pool.
    """
    found = index if isinstance(index, jax.Array) else np.asarray(index)
    if not jnp.issubdtype(found.dtype, jnp.integer) or found.shape != (count,):
        raise ArgumentError(
            f"{name} must be whole numbers [{count}], got {found.dtype} "
            f"{list(found.shape)}"
        )
    if not _traced(found) and count and getattr(found, "is_fully_addressable", True):
        concrete = np.asarray(found)
        least, most = int(concrete.min()), int(concrete.max())
        if least < 0 or most >= pool:
            raise ArgumentError(
                f"{name} has {least} to {most}; it must be from 0 to {pool - 1}"
            )
    return jnp.asarray(found)


def between(low: float, high: float) -> Rule:
    """The rule of a number in a range, its ends included."""
    return functools.partial(knobs.real, low=low, high=high)


def each_between(low: float, high: float) -> Rule:
    """The rule of a number, or one for each image, in a range, its ends included."""
    return functools.partial(one_for_each, low=low, high=high)


positive: Rule = functools.partial(knobs.real, above=0)
_not_negative: Rule = functools.partial(knobs.real, low=0)

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
        each_between(0, 1),
    ),
    # AugMix's scale: the strength of an operation is drawn from 0.1 up to it.
    "level": each_between(0.1, 10),
    "severity": between(0.1, 10),
    **dict.fromkeys(("alpha", "noise_power", "blur_power"), positive),
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
    "area": functools.partial(knobs.real, above=0, high=1),
    "fill": knobs.real,
    # One for each channel.
    "mean": each_real,
    "std": functools.partial(each_real, above=0),
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
# What is no number, indices, and bins of the DFT, which may be many.
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
