"""A network from elsewhere: a function of arrays, and the inputs that it wants."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax.errors import ArgumentError
from apr_jax.gates import knobs

LAYOUTS = ("NHWC", "NCHW")
OUTPUTS = ("logits", "probabilities")


class Network(NamedTuple):
    """A function of arrays.

    Attributes:
        apply: (variables, inputs float32 [B, H, W, C], or [B, C, H, W]) -> logits
            [B, K], or (logits, penultimate features [B, F]).
        variables: its weights, any tree of arrays; empty where ``apply`` has them.
        layout: of the inputs, one of ``LAYOUTS``.
    """

    apply: Callable[[Any, Any], Any]
    variables: Any
    layout: str = "NHWC"

    def laid_out(self, outputs: str) -> Callable[[Any, jax.Array], Any]:
        """``apply`` of inputs [B, H, W, C], whose first output is logits.

        Args:
            outputs: of ``OUTPUTS``; the logits of probabilities are their logarithms.
        """
        knobs.one_of("layout", self.layout, LAYOUTS)
        knobs.one_of("outputs", outputs, OUTPUTS)

        def apply(variables: Any, inputs: jax.Array) -> Any:
            if self.layout == "NCHW":
                inputs = jnp.transpose(inputs, (0, 3, 1, 2))
            # Strict as the caller may be, other people's code needn't be.
            with jax.numpy_rank_promotion("allow"):
                found = self.apply(variables, inputs)
            if outputs == "logits":
                return found
            first, *rest = found if isinstance(found, tuple) else (found,)
            logs = jnp.log(jnp.maximum(first, jnp.finfo(jnp.float32).tiny))
            return (logs, *rest) if rest else logs

        return apply


def normalisation(
    limits: Sequence[float], mean: Sequence[float], std: Sequence[float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and standard deviation by which pixels in [0, 1] become inputs.

    Args:
        limits: what black and white are before ``mean`` is taken away: (0, 1),
            (0, 255), (-1, 1).
        mean, std: one for each of three channels, or one for all.

    Raises:
        ArgumentError: other numbers of them, no range, or a deviation that isn't above
            0.
    """
    for name, given in (("range", limits), ("mean", mean), ("std", std)):
        if np.ndim(given) != 1:
            raise ArgumentError(f"{name} is {given!r}; give a number for each, in ()")
    if len(limits) != 2 or not limits[0] < limits[1]:
        raise ArgumentError(
            f"range is {tuple(limits)}; give what black and white are, as (0, 255)"
        )
    low, span = float(limits[0]), float(limits[1]) - float(limits[0])
    both = []
    for name, values in (("mean", mean), ("std", std)):
        numbers = [float(value) for value in values]
        if len(numbers) not in (1, 3):
            raise ArgumentError(
                f"{name} has {len(numbers)} values; give one for each of the 3 channels"
            )
        both.append(numbers * (3 // len(numbers)))
    if min(both[1]) <= 0:
        raise ArgumentError(f"std is {tuple(std)}; it must be above 0")
    return (
        tuple((m - low) / span for m in both[0]),
        tuple(s / span for s in both[1]),
    )
