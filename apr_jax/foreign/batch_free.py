"""Functions of any number of images, whose code would know the number beforehand.

A file has no number of images in it if the function can be traced with a symbol for it.
Other people's code often reads it as a Python integer. What it computes of one image is
traced with one, and mapped over them: as every image is answered alone, that is the
same.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core

from apr_jax.errors import ArgumentError
from apr_jax.gates import callbacks


def of_any_number(function: Callable[[Any], Any], shape: Any) -> Callable[[Any], Any]:
    """The same function, that can be traced for images of a shape.

    Args:
        function: images [B, H, W, 3] -> logits [B, K], no image's depending on others.
        shape: of the images, a ``jax.ShapeDtypeStruct``; its first dimension may be
            symbolic.

    Raises:
        ArgumentError: it isn't JAX code.
    """
    rows = shape.shape[0]
    fixed = isinstance(rows, int)
    known = jax.ShapeDtypeStruct((rows if fixed else 1, *shape.shape[1:]), shape.dtype)
    closed = jax.make_jaxpr(lambda images: function(images))(known)
    if calls := callbacks.of_program(closed):
        raise ArgumentError(
            "this network isn't JAX code alone, which is all that a file can have: it "
            f"calls back into Python ({', '.join(calls)})"
        )
    if fixed:
        return function
    try:
        jax.eval_shape(lambda images: function(images), shape)
    except Exception:  # of other people's code
        return jax.vmap(lambda image: core.jaxpr_as_fun(closed)(image[None])[0][0])
    return function
