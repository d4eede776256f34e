"""Calls of compiled programs back into Python."""

from collections.abc import Iterator
from typing import Any

import jax
from jax.extend import core

_NAMES = ("pure_callback", "io_callback", "debug_callback")


def of_program(program: core.ClosedJaxpr) -> list[str]:
    """Returns the names of a program's calls into Python, each once, sorted."""
    return sorted(set(_operations(program.jaxpr)) & {*_NAMES})


def _operations(jaxpr: Any) -> Iterator[str]:
    """The operations of a program, those inside of others, too."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inside in jax.tree.leaves(
            list(equation.params.values()), is_leaf=_is_program
        ):
            if _is_program(inside):
                yield from _operations(getattr(inside, "jaxpr", inside))


def _is_program(value: Any) -> bool:
    return isinstance(value, core.Jaxpr | core.ClosedJaxpr)
