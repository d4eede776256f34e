"""A function's arithmetic alone, in the operations that converters to ONNX know.

``jax2onnx`` replaces functions of Flax while it traces, and knows operations of
``jax.lax`` one by one. What it is given here has been traced before: calls are opened,
so that no function is left to replace, and windows over images are turned into windows
over three axes, of which ``onnxruntime`` takes no more. It is traced for an
accelerator, whose programs are the plain ones: a CPU's grouped convolutions are
products of many axes, which ``onnxruntime`` refuses.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core

from apr_jax.target import for_platform

# Calls whose inside takes their place; of a function with its own gradient, too.
_CALLS = (
    *("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat2"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"),
)
_INSIDES = ("jaxpr", "call_jaxpr", "fun_jaxpr")
_WINDOWS = ("reduce_window_max", "reduce_window_min", "reduce_window_sum")
_AXES = 3  # of a window


def rewritten(function: Callable[..., Any], shape: Any) -> Callable[..., Any]:
    """The same function of one array, as operations of ``jax.lax``.

    Args:
        function: of an array to an array.
        shape: of the array, a ``jax.ShapeDtypeStruct``; its dimensions may be symbolic.
    """
    with for_platform("gpu"):  # else there are choices by platform in it
        # A function of its own, as a trace of the same one may be kept for this host.
        closed = jax.make_jaxpr(lambda array: function(array))(shape)
    return lambda array: _evaluated(closed.jaxpr, closed.consts, [array])[0]


def _evaluated(jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any]) -> Any:
    known: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    known.update(zip(jaxpr.invars, arguments, strict=True))

    def read(place: Any) -> Any:
        return place.val if isinstance(place, core.Literal) else known[place]

    for equation in jaxpr.eqns:
        given = [read(place) for place in equation.invars]
        results = _results(equation, given)
        known.update(zip(equation.outvars, results, strict=True))
    return [read(place) for place in jaxpr.outvars]


def _results(equation: Any, given: Sequence[Any]) -> Sequence[Any]:
    primitive, params = equation.primitive, equation.params
    if primitive.name in _CALLS:
        for name in _INSIDES:
            if (inside := params.get(name)) is not None:
                own = getattr(inside, "jaxpr", inside)
                return _evaluated(own, getattr(inside, "consts", ()), given)
    if primitive.name in _WINDOWS and given[0].ndim > _AXES:
        return [_pooled(primitive, params, given[0])]
    found = primitive.bind(*given, **primitive.get_bind_params(params))
    results: Sequence[Any] = found if primitive.multiple_results else [found]
    return results


def _pooled(primitive: Any, params: dict[str, Any], maps: Any) -> Any:
    """A window over all axes as one over three: those it doesn't extend over are one.

    Args:
        primitive: a window's reduction.
        params: its own.
        maps: [B, H, W, C], or of any axes.
    """
    plain = [
        axis
        for axis, (size, stride, pads) in enumerate(
            zip(
                params["window_dimensions"],
                params["window_strides"],
                params["padding"],
                strict=True,
            )
        )
        if (size, stride, tuple(pads)) == (1, 1, (0, 0))
    ]
    moved = [axis for axis in range(maps.ndim) if axis not in plain]
    if len(moved) + 1 > _AXES:
        return primitive.bind(maps, **params)
    order = [*plain, *moved]
    turned = maps.transpose(order)
    kept = turned.shape[: len(plain)]
    joined = turned.reshape(math.prod(kept), *turned.shape[len(plain) :])
    own = {
        name: (value[0], *(params[name][axis] for axis in moved))
        for name, value in (
            ("window_dimensions", (1,)),
            ("window_strides", (1,)),
            ("padding", ((0, 0),)),
            ("base_dilation", (1,)),
            ("window_dilation", (1,)),
        )
    }
    found = primitive.bind(joined, **{**params, **own})
    apart = found.reshape(*kept, *found.shape[1:])
    back = [order.index(axis) for axis in range(maps.ndim)]
    return apart.transpose(back)
