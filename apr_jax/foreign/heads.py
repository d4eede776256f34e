"""The last linear layer of any function, found by following its arithmetic.

A network's logits are features times a matrix, plus a constant. Whatever library the
network is of, its trace has that product: ``with_head`` evaluates the trace and notes,
of each intermediate result, whether it depends on the images, and whether it is such a
product of what does and what doesn't.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend import core

# Calls whose inside is looked at; others are evaluated whole.
_CALLS = ("jit", "pjit", "closed_call", "core_call")
# What leaves a product the same, up to its type or its place in memory.
_SAME = ("convert_element_type", "copy", "copy_p", "sharding_constraint", "name")


class _Product(NamedTuple):
    features: Any  # [B, F]
    weight: Any  # [F, K]
    flipped: bool  # whether it is [K, B]


class _Value(NamedTuple):
    array: Any
    moves: bool = False  # whether it depends on the images
    product: _Product | None = None


def with_head(apply: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The same function, with features and weights of its last linear layer.

    Args:
        apply: (variables, inputs) -> logits [B, K], or (logits, features).

    Returns:
        A function of the same arguments -> (logits [B, K], features [B, F], weight
        [F, K]); the last two are None where there is no such layer. Features that
        ``apply`` gives itself take the place of those found.
    """

    def ask(variables: Any, inputs: jax.Array) -> tuple[Any, Any, Any]:
        closed, shape = jax.make_jaxpr(apply, return_shape=True)(variables, inputs)
        fixed = [_Value(leaf) for leaf in jax.tree.leaves(variables)]
        moving = _Value(inputs, moves=True)
        try:
            found = _follow(closed, [*fixed, moving])
        except Exception:  # what JAX has inside may change: then there is no head
            found = []
        if not found:
            outputs, product = apply(variables, inputs), None
        else:
            arrays = [value.array for value in found]
            outputs = jax.tree.unflatten(jax.tree.structure(shape), arrays)
            product = found[0].product
        if product is not None and product.flipped:
            product = None
        logits, features = outputs, product and product.features
        if isinstance(outputs, tuple) and len(outputs) == 2:
            logits, features = outputs
        return logits, features, product and product.weight

    return ask


def _follow(trace: Any, arguments: Sequence[_Value]) -> list[_Value]:
    """Evaluates a trace, with what is known of each result."""
    jaxpr, consts = getattr(trace, "jaxpr", trace), getattr(trace, "consts", ())
    known: dict[Any, _Value] = dict(
        zip(jaxpr.constvars, map(_Value, consts), strict=True)
    )
    known.update(zip(jaxpr.invars, arguments, strict=True))

    def read(place: Any) -> _Value:
        return _Value(place.val) if isinstance(place, core.Literal) else known[place]

    for equation in jaxpr.eqns:
        given = [read(place) for place in equation.invars]
        if equation.primitive.name in _CALLS and "jaxpr" in equation.params:
            results = _follow(equation.params["jaxpr"], given)
        else:
            results = _evaluated(equation, given)
        known.update(zip(equation.outvars, results, strict=True))
    return [read(place) for place in jaxpr.outvars]


def _evaluated(equation: Any, given: Sequence[_Value]) -> list[_Value]:
    primitive = equation.primitive
    params = primitive.get_bind_params(equation.params)
    found = primitive.bind(*(value.array for value in given), **params)
    moves = any(value.moves for value in given)
    if primitive.multiple_results:
        return [_Value(array, moves) for array in found]
    return [_Value(found, moves, _product(primitive.name, params, given, found))]


def _product(
    name: str, params: Any, given: Sequence[_Value], found: Any
) -> _Product | None:
    """The product that a result is, None if it is none."""
    if name == "dot_general":
        return _multiplied(params["dimension_numbers"], *given)
    products = [value.product for value in given if value.product is not None]
    if len(products) != 1:
        return None
    (product,) = products
    if name == "transpose":
        turned = tuple(params["permutation"]) == (1, 0)
        return product._replace(flipped=product.flipped != turned)
    others = [value for value in given if value.product is None]
    if name == "mul" and len(others) == 1 and others[0].array.size == 1:
        # As ONNX's Gemm is written, whose factor is most often 1.
        by = others[0].array.reshape(())
        return None if others[0].moves else product._replace(weight=product.weight * by)
    if any(value.moves for value in others) or given[0].array.shape != found.shape:
        return None
    if name == "sub":
        return product if given[0].product is not None else None
    return product if name in (*_SAME, "add", "reshape") else None


def _multiplied(numbers: Any, left: _Value, right: _Value) -> _Product | None:
    """The product of features and a fixed matrix, either way round."""
    ((of_left, of_right), (batch, _)) = numbers
    plain = left.array.ndim == right.array.ndim == 2 and not batch
    if not plain or left.moves == right.moves or len(of_left) != 1:
        return None
    flipped = right.moves
    moving, fixed = (right, left) if flipped else (left, right)
    at_moving, at_fixed = (of_right, of_left) if flipped else (of_left, of_right)
    if at_moving[0] != 1:
        return None
    weight = fixed.array if at_fixed[0] == 0 else fixed.array.T
    return _Product(moving.array, weight, flipped)
