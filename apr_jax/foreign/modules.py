"""Networks of Flax Linen, Flax NNX, Equinox and Keras as functions of arrays."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen
import jax
import numpy as np
from flax import nnx

from apr_jax.errors import ArgumentError
from apr_jax.foreign.network import Network
from apr_jax.models.own import told


def linen(
    module: flax.linen.Module,
    variables: Mapping[str, Any],
    arguments: Mapping[str, Any] | None = None,
) -> Network:
    """A module of Flax Linen.

    Args:
        module: called with images and ``arguments``.
        variables: as ``module.apply`` takes them, or the parameters alone.
        arguments: by name; those that say that it is not to learn (``train=False``,
            ``deterministic=True`` and so on) are given wherever its call has them.
    """
    if not isinstance(module, flax.linen.Module):
        raise ArgumentError(f"module is a {_kind(module)}, no module of Flax Linen")
    given = _arguments(type(module).__call__, arguments)
    whole = variables if "params" in variables else {"params": variables}
    return Network(lambda v, images: module.apply(v, images, **given), whole)


def of_nnx(module: nnx.Module, arguments: Mapping[str, Any] | None = None) -> Network:
    """A module of Flax NNX, as it is in evaluation; it stays as it is.

    Args:
        module: called with images and ``arguments``.
        arguments: as those of ``linen``.
    """
    if not isinstance(module, nnx.Module):
        raise ArgumentError(f"module is a {_kind(module)}, no module of Flax NNX")
    given = _arguments(type(module).__call__, arguments)
    own = nnx.clone(module)
    own.eval()
    parts: Any = nnx.split(own, nnx.RngState, ...)
    graph, keys, state = parts

    def apply(variables: Any, images: jax.Array) -> Any:
        return nnx.merge(graph, keys, variables)(images, **given)

    return Network(apply, state)


def equinox(
    module: Any,
    state: Any = None,
    arguments: Mapping[str, Any] | None = None,
    *,
    layout: str = "NCHW",
) -> Network:
    """A module of Equinox, of a single image as they are, mapped over the batch.

    Args:
        module: called with one image, the state if there is one, and ``arguments``; of
            ``equinox.nn.inference_mode``.
        state: of its BatchNorm layers, as ``equinox.nn.make_with_state`` gives it.
        arguments: by name; a key is None unless it is given.
        layout: "NCHW", as Equinox has images, or "NHWC".
    """
    import equinox as eqx

    if not isinstance(module, eqx.Module):
        raise ArgumentError(f"module is a {_kind(module)}, no module of Equinox")
    parameters = inspect.signature(type(module).__call__).parameters
    given = {"key": None} if "key" in parameters else {}
    given.update(_arguments(type(module).__call__, arguments))
    whole = (eqx.nn.inference_mode(module), state)
    variables, rest = eqx.partition(whole, eqx.is_array)

    def apply(variables: Any, images: jax.Array) -> Any:
        own, kept = eqx.combine(variables, rest)
        if kept is None:
            one: Callable[..., Any] = lambda image: own(image, **given)
        else:
            one = lambda image: own(image, kept, **given)[0]
        return jax.vmap(one, axis_name="batch")(images)

    return Network(apply, variables, layout)


def of_keras(model: Any) -> Network:
    """A model of Keras 3 whose backend is JAX."""
    import keras

    if not isinstance(model, keras.Model):
        raise ArgumentError(f"model is a {_kind(model)}, no model of Keras")
    if (backend := keras.backend.backend()) != "jax":
        raise ArgumentError(
            f"Keras computes by {backend}; set KERAS_BACKEND=jax before it is imported"
        )
    if not model.built:
        raise ArgumentError("model isn't built: call it with images once")
    trained = [variable.value for variable in model.trainable_variables]
    others = [variable.value for variable in model.non_trainable_variables]

    def apply(variables: Any, images: jax.Array) -> Any:
        found, _ = model.stateless_call(*variables, images, training=False)
        return found

    first = keras.config.image_data_format() == "channels_first"
    return Network(apply, (trained, others), "NCHW" if first else "NHWC")


def on_host(function: Callable[[np.ndarray], Any], classes: int) -> Network:
    """A function of NumPy arrays that JAX can't look into.

    It is called from compiled programs, one call a batch, and has no gradient.
    """

    def ask(images: np.ndarray) -> np.ndarray:
        return np.asarray(function(np.asarray(images)), np.float32)

    def apply(_: Any, images: jax.Array) -> jax.Array:
        shape = jax.ShapeDtypeStruct((len(images), classes), np.float32)
        return jax.pure_callback(ask, shape, images, vmap_method="sequential")

    return Network(apply, {})


def _arguments(
    call: Callable[..., Any], arguments: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The arguments of a network that answers, and those that are given."""
    return {**told(call, learns=False), **(arguments or {})}


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
