"""Checks of a network from elsewhere on a few images, before it is measured."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax.errors import ArgumentError, UserError, words
from apr_jax.gates import answers

# (variables, images) -> (logits, features, weight of the last linear layer); the last
# two are None where they aren't known.
Ask = Callable[[Any, Any], tuple[Any, Any, Any]]

_PROBES = 4
# So far, of the spread of all logits, may rounding move one of them.
_ROUNDING = 1e-3
_LONGEST = 240  # characters of somebody else's message


class Found(NamedTuple):
    """The facts that the checks find.

    Attributes:
        head: weight [F, K] and bias [K] that turn features into logits, or None.
        no_gradient: the reason why there is no gradient; empty where there is one.
    """

    head: tuple[np.ndarray, np.ndarray] | None
    no_gradient: str


def probes(size: int) -> np.ndarray:
    """A few coloured patterns, uint8 [N, ``size``, ``size``, 3], always the same."""
    rng = np.random.Generator(np.random.Philox(_PROBES))
    coarse = rng.integers(0, 256, (_PROBES, 8, 8, 3), np.uint8)
    each = -(-size // 8)
    return coarse.repeat(each, 1).repeat(each, 2)[:, :size, :size]


def called(name: str, call: Callable[[], Any], shape: tuple[int, ...]) -> Any:
    """What a call with images of a shape gives; its failure in one line.

    Raises:
        ArgumentError: it fails.
    """
    try:
        return call()
    except UserError:
        raise
    except Exception as error:
        raise ArgumentError(
            f"{name} can't be called with images float32 {list(shape)}: "
            f"{type(error).__name__}: {_line(error)}"
        ) from error


def examine(
    name: str,
    ask: Ask,
    variables: Any,
    size: int,
    classes: int,
    *,
    outputs: str = "logits",
) -> Found:
    """Checks a network on a few images; see ``Classifier.from_function``.

    Args:
        name: of the network, for messages.
        ask: the network, of images uint8 or in [0, 1].
        variables: its weights.
        size: of the images.
        classes: how many it is said to tell apart.
        outputs: what it is said to give, which ``ask`` made logits of.

    Raises:
        ArgumentError: something is wrong; the message says what it may be due to.
    """
    images = probes(size)
    logits_of = f"the logits of {name!r}"
    run = jax.jit(ask)
    copies = np.stack([images[0]] * _PROBES)
    for some in (images, images[:-1]):  # of any number of images
        shape = functools.partial(jax.eval_shape, ask, variables, some)
        shapes = called(repr(name), shape, some.shape)
        if isinstance(shapes[0], tuple | list | dict):
            raise ArgumentError(
                f"{name!r} gives {len(shapes[0])} arrays; give logits, or (logits, "
                "features)"
            )
        check_shape(shapes[0], len(some), classes, logits_of)
        if shapes[1] is not None:
            answers.features(
                np.empty(shapes[1].shape, shapes[1].dtype),
                name=f"the features of {name!r}",
                count=len(some),
            )
    first, second, equal = (
        called(repr(name), functools.partial(run, variables, some), some.shape)
        for some in (images, images, copies)
    )
    logits = np.asarray(first[0], np.float64)
    if bad := answers.not_finite(logits):
        raise ArgumentError(
            f"{bad} of {logits.size} of {logits_of} are not finite, for patterns in "
            "[0, 1]"
        )
    _check_steady(name, logits, np.asarray(second[0]), np.asarray(equal[0]))
    if (logits >= 0).all() and np.allclose(logits.sum(1), 1, atol=1e-3):
        raise ArgumentError(
            f"{name!r} gives probabilities: its outputs are at least 0 and sum to 1. "
            "Give the logits, what the softmax is of, or open it by "
            "apr_jax.Classifier.from_function(f, …, outputs='probabilities')"
        )
    if outputs == "probabilities" and not np.allclose(
        sums := np.exp(logits).sum(1), 1, atol=1e-3
    ):
        raise ArgumentError(
            f"outputs is 'probabilities', but those of {name!r} sum to "
            f"{sums.min():.3g} to {sums.max():.3g}: does it give logits?"
        )
    return Found(_head(logits, *first[1:]), _no_gradient(ask, variables, images))


def check_shape(found: Any, count: int, classes: int, logits_of: str) -> None:
    """Raises ArgumentError unless an array, or its shape, is that of logits."""
    shape = tuple(found.shape)
    if len(shape) == 2 and shape[0] == count and shape[1] != classes > 1:
        raise ArgumentError(
            f"{logits_of} are for {shape[1]} classes, not {classes}: say classes="
            f"{shape[1]}, or name as many"
        )
    blank = np.empty(shape, found.dtype)
    answers.logits(blank, name=logits_of, count=count, classes=classes)


def _check_steady(
    name: str, logits: np.ndarray, again: np.ndarray, copies: np.ndarray
) -> None:
    """Raises ArgumentError unless an image has one answer, whatever is beside it."""
    allowed = _ROUNDING * float(np.std(logits)) + 1e-6
    if (by := np.abs(logits - again).max()) > allowed:
        raise ArgumentError(
            f"{name!r} answers the same images differently the second time, by up to "
            f"{by:.3g}: is it in training mode, with dropout on?"
        )
    if (by := np.abs(copies - copies[:1]).max()) > allowed:
        raise ArgumentError(
            f"{name!r} answers copies of one image differently, by up to {by:.3g}: is "
            "it in training mode, with dropout on?"
        )
    if (by := np.abs(copies[0] - logits[0]).max()) > allowed:
        raise ArgumentError(
            f"{name!r} answers an image differently beside other images, by up to "
            f"{by:.3g}: is it in training mode, with BatchNorm of each batch?"
        )


def _head(
    logits: np.ndarray, features: Any, weight: Any
) -> tuple[np.ndarray, np.ndarray] | None:
    """The last linear layer, if it is one: what is left is the same for all images."""
    if features is None or weight is None:
        return None
    known, matrix = np.asarray(features, np.float64), np.asarray(weight, np.float64)
    if known.shape[1:] != matrix.shape[:1] or matrix.shape[1:] != logits.shape[1:]:
        return None
    left = logits - known @ matrix
    if np.abs(left - left.mean(0)).max() > 1e-2 * (float(np.std(logits)) or 1.0):
        return None
    return matrix.astype(np.float32), left.mean(0).astype(np.float32)


def _no_gradient(ask: Ask, variables: Any, images: np.ndarray) -> str:
    total = lambda pixels: jnp.sum(ask(variables, pixels)[0].astype(jnp.float32))
    pixels = jax.ShapeDtypeStruct(images.shape, np.float32)
    try:
        jax.eval_shape(jax.grad(total), pixels)
    except Exception as error:
        return _line(error)
    return ""


def _line(error: Exception) -> str:
    """What an error says, in one line that isn't long."""
    text = " ".join(words(error).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
