"""The gate of every attack: settings by their names, images, labels and logits.

An attack that does nothing breaks nothing, and everything looks robust; so settings
under which nothing is done are refused.
"""

import functools
from collections.abc import Callable, Collection
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax import fast_random
from apr_jax.attacks import losses, norms
from apr_jax.errors import ArgumentError
from apr_jax.gates import answers, knobs

P = ParamSpec("P")
T = TypeVar("T")

_share = functools.partial(knobs.real, low=0, high=1)
_positive = functools.partial(knobs.real, above=0)


def _optional_size(name: str, value: Any) -> float | None:
    return None if value is None else _positive(name, value)


# Of each setting by its name, in whichever attack.
RULES: dict[str, Callable[[str, Any], Any]] = {
    "steps": knobs.whole,
    "queries": knobs.whole,
    "restarts": knobs.whole,
    "targets": knobs.whole,
    "eot": knobs.whole,
    "chunk": knobs.whole,
    "step_size": _optional_size,
    "rho": _share,
    "alpha_max": _share,
    "beta": _share,
    "eta": _positive,
    "p_init": functools.partial(knobs.real, above=0, high=1),
    "random_start": knobs.truth,
    "targeted": knobs.truth,
    "nearest": knobs.truth,
    "shrink": knobs.truth,
    "rescale": knobs.truth,
}
# These are checked by ``prepare``, or by what they are used for.
_FREE = (
    *("key", "logits_fn", "surrogate_fn", "images", "labels", "version", "attack"),
    *("eps", "norm", "loss"),
)


def gated(
    attack: str,
    *,
    choices: Collection[str] = norms.NORMS,
    targeted: bool = False,
    endless: bool = False,
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Returns a decorator that checks the settings of an attack.

    Args:
        attack: its name, for messages.
        choices: the norms that it is for.
        targeted: whether it has targets, for a loss that needs them.
        endless: whether the radius may be infinite.
    """

    def related(given: dict[str, Any]) -> None:
        norm = given["norm"]
        note = "" if norm not in norms.NORMS else f" for {attack}"
        knobs.one_of("norm", norm, choices, note=note)
        if "eps" in given:
            given["eps"] = knobs.radius(given["eps"], norm, endless=endless)
        if "loss" in given:
            check_loss(given["loss"], attack=attack, targeted=targeted)
        if "key" in given:
            given["key"] = fast_random.typed_keys(given["key"])
        if given.get("shrink") and norm != "l1":
            raise ArgumentError(f"shrink is for the l1 norm, not {norm!r}")

    return knobs.gated(RULES, free=_FREE, relations=related)


def check_loss(name: Any, *, attack: str, targeted: bool) -> None:
    """Raises ArgumentError for a loss that isn't there, or needs targets.

    Without a target the targeted loss would lead nowhere: the class that it is to
    bring up would be the label, or any other.
    """
    choices = [n for n in losses.LOSSES if targeted or n not in losses.TARGETED]
    note = ""
    if name in losses.TARGETED:
        note = f" for {attack}, which has no targets"
    knobs.one_of("loss", name, choices, note=note)


def images_and_labels(
    images: jax.Array | np.ndarray, labels: jax.Array | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns images as float32 in [0, 1] and labels as int32, on the host, checked.

    Raises:
        TypeError: pixels are not floating point.
        ArgumentError: images or labels of another shape or range, or no images.
    """
    clean = np.asarray(answers.array(images, "images"))
    if not jnp.issubdtype(clean.dtype, jnp.floating):
        raise TypeError(
            f"images must be floating point in [0, 1], got {clean.dtype}: for uint8 "
            "pass images.astype(np.float32) / 255"
        )
    if clean.ndim != 4 or not clean.size:
        raise ArgumentError(
            "images must be [N, H, W, C] and labels [N] with N above 0, got "
            f"{clean.shape} and {np.shape(labels)}"
        )
    found = answers.labels(labels, count=len(clean))
    clean = clean.astype(np.float32)
    # Of float32: what rounding put outside of the box is put back.
    inside = answers.in_unit_range(clean, "images")
    return inside.astype(np.float32), np.asarray(found).astype(np.int32)
