"""The costs of a network: parameters and multiply-adds, without running it."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from apr_jax.models import build, variable_shapes
from apr_jax.target import for_platform


def parameters(name: str, *, num_classes: int, size: int) -> int:
    """Returns how many numbers the network learns; BatchNorm's statistics aren't."""
    variables = variable_shapes(build(name, num_classes=num_classes), size)
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def multiply_adds(name: str, *, num_classes: int, size: int) -> int:
    """Returns the multiply-adds of convolutions and matrix products for one image.

    Two floating-point operations each; what BatchNorm, activations and pooling add
    is left out, as is usual. Padding counts as if it were image.

    Args:
        name: of the network.
        num_classes: outputs of its classifier.
        size: pixels of the square, three-channel image.
    """
    model = build(name, num_classes=num_classes)
    variables = variable_shapes(model, size)
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    traced = jax.make_jaxpr(lambda v, x: model.apply(v, x, train=False))
    # A CPU's grouped convolutions also multiply the zeros between their groups.
    with for_platform("gpu"):
        return _count(traced(variables, image).jaxpr)


def _count(jaxpr: Any) -> int:
    """Adds up a traced program and the programs inside it."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            numbers = equation.params["dimension_numbers"]
            outputs = kernel[numbers.rhs_spec[0]]
            each = math.prod(kernel) // outputs
            total += math.prod(equation.outvars[0].aval.shape) * each
        elif equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            each = math.prod(shape[axis] for axis in contracted)
            total += math.prod(equation.outvars[0].aval.shape) * each
        else:
            for value in equation.params.values():
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    total += _count(inner)
    return total
