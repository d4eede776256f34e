"""The doors of ``Classifier``: networks of any library, checked when they come in."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Required, Self, TypedDict, Unpack, cast

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax import config as config_lib
from apr_jax import console
from apr_jax.errors import ArgumentError
from apr_jax.foreign import checks, heads
from apr_jax.foreign import network as network_lib
from apr_jax.foreign.network import Network
from apr_jax.gates import knobs
from apr_jax.pixels import normalise, to_pixels


class About(TypedDict, total=False):
    """All that is said of a network from elsewhere.

    Attributes:
        classes: their names in the order of the logits, or how many there are.
        image_size: pixels, square.
        resize: pixels of the shorter side of larger images, whose centre is then cut
            out; 256 for 224 if unset.
        name: for records and pages.
        range: what black and white are to it: (0, 1) if unset, (0, 255), (-1, 1).
        mean, std: of each channel, taken away and divided by after that; none if unset.
        outputs: "logits", or "probabilities", whose logarithms are taken.
    """

    classes: Required[int | Sequence[str]]
    image_size: Required[int]
    resize: int
    name: str
    range: tuple[float, float]
    mean: Sequence[float]
    std: Sequence[float]
    outputs: str


class Doors:
    """Classifiers of networks from elsewhere.

    Each is checked on a few patterns before it is used: the shape of its logits, that
    they are finite, the same the second time, and the same whatever images are beside.
    Its last linear layer is found by its arithmetic, for the scores that need it. A
    network without gradients is measured by all that needs none.

    Raises:
        ArgumentError: it doesn't pass; the message says what that may be due to.
    """

    @classmethod
    def from_function(
        cls,
        function: Callable[..., Any],
        variables: Any = None,
        *,
        layout: str = "NHWC",
        **about: Unpack[About],
    ) -> Self:
        """A classifier of a function from images to logits.

        Args:
            function: images float32 [B, H, W, C], pixels in [0, 1] unless ``about``
                says otherwise -> logits [B, K], or (logits, penultimate features [B,
                F]). Where it isn't JAX code it is called with NumPy arrays, has no
                gradient, and that is said.
            variables: its first argument, if it takes weights: any tree of arrays.
            layout: "NCHW" where it takes images [B, C, H, W].
            about: see ``About``.
        """
        apply = function
        if variables is None:
            apply = lambda _, images: function(images)
        network = Network(apply, {} if variables is None else variables, layout)
        return cls._made(network, about, "function", plain=variables is None)

    @classmethod
    def from_linen(
        cls,
        module: Any,
        variables: Mapping[str, Any],
        arguments: Mapping[str, Any] | None = None,
        **about: Unpack[About],
    ) -> Self:
        """A classifier of a Flax Linen module; see ``foreign.modules.linen``."""
        from apr_jax.foreign import modules

        network = modules.linen(module, variables, arguments)
        return cls._made(network, about, type(module).__name__)

    @classmethod
    def from_nnx(
        cls,
        module: Any,
        arguments: Mapping[str, Any] | None = None,
        **about: Unpack[About],
    ) -> Self:
        """A classifier of a Flax NNX module; see ``foreign.modules.of_nnx``."""
        from apr_jax.foreign import modules

        network = modules.of_nnx(module, arguments)
        return cls._made(network, about, type(module).__name__)

    @classmethod
    def from_equinox(
        cls,
        module: Any,
        state: Any = None,
        arguments: Mapping[str, Any] | None = None,
        *,
        layout: str = "NCHW",
        **about: Unpack[About],
    ) -> Self:
        """A classifier of an Equinox module; see ``foreign.modules.equinox``."""
        from apr_jax.foreign import modules

        network = modules.equinox(module, state, arguments, layout=layout)
        return cls._made(network, about, type(module).__name__)

    @classmethod
    def from_keras(cls, model: Any, **about: Unpack[About]) -> Self:
        """A classifier of a Keras 3 model; see ``foreign.modules.of_keras``."""
        from apr_jax.foreign import modules

        return cls._made(modules.of_keras(model), about, model.name)

    @classmethod
    def from_torch(
        cls,
        module: Any,
        *,
        on_host: bool = False,
        layout: str = "NCHW",
        **about: Unpack[About],
    ) -> Self:
        """A classifier of a PyTorch module; see ``foreign.pytorch.of_torch``."""
        from apr_jax.foreign import pytorch

        network = pytorch.of_torch(module, on_host=on_host, layout=layout)
        return cls._made(network, about, type(module).__name__, plain=on_host)

    @classmethod
    def from_onnx(
        cls,
        model: Any,
        *,
        on_host: bool = False,
        layout: str = "NCHW",
        **about: Unpack[About],
    ) -> Self:
        """A classifier of a network in ONNX; see ``foreign.pytorch.of_onnx``."""
        from apr_jax.foreign import pytorch

        network = pytorch.of_onnx(model, on_host=on_host, layout=layout)
        return cls._made(network, about, "onnx", plain=on_host)

    @classmethod
    def _made(
        cls, network: Network, about: About, name: str, *, plain: bool = False
    ) -> Self:
        """The classifier of a network, checked; a ``plain`` function may be NumPy's."""
        name = about.get("name") or name
        for word in ("classes", "image_size"):
            if word not in about:
                raise ArgumentError(f"{word} is missing; give it by its name")
        names = _class_names(about["classes"])
        config = _config(name, about)
        ask = _asked(network, about, config.data)
        size, why = config.data.image_size, ""
        if plain and (why := _foreign(ask, size)):
            network = _on_host(network, name, size, len(names), config.data, why)
            ask = _asked(network, about, config.data)
        found = checks.examine(
            name,
            ask,
            network.variables,
            size,
            len(names),
            outputs=about.get("outputs", "logits"),
        )
        if found.no_gradient:
            console.say(
                f"{name} has no gradient, so what needs one is left out of its "
                f"measurements: {why or found.no_gradient}"
            )

        def predict(variables: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
            logits, features, _ = ask(variables, images)
            logits = logits.astype(jnp.float32)
            if features is None:
                return logits, logits
            return logits, features.astype(jnp.float32)

        return cast(Any, cls)(
            name=name,
            predict=predict,
            variables=network.variables,
            config=config,
            class_names=names,
            step=0,
            differentiable=not found.no_gradient,
            head=found.head,
        )


def _class_names(classes: int | Sequence[str]) -> tuple[str, ...]:
    if isinstance(classes, int | np.integer):
        count = knobs.whole("classes", classes, low=1)
        return tuple(map(str, range(count)))
    names = tuple(map(str, classes))
    if isinstance(classes, str) or len(set(names)) < len(names):
        raise ArgumentError(
            f"classes is {classes!r}; give how many, or the name of each, once"
        )
    return names


def _config(name: str, about: About) -> config_lib.Config:
    """A configuration that says what is known of the network, and no data yet."""
    mean, std = network_lib.normalisation(
        about.get("range", (0, 1)), about.get("mean", (0,)), about.get("std", (1,))
    )
    usual = config_lib.default()
    return dataclasses.replace(
        usual,
        name=name,
        data=dataclasses.replace(
            usual.data,
            name="",
            image_size=knobs.whole("image_size", about["image_size"], low=1),
            eval_resize=_resize(about),
            mean=mean,
            std=std,
        ),
        augment=dataclasses.replace(usual.augment, method="standard"),
        model=dataclasses.replace(usual.model, name=name),
    )


def _resize(about: About) -> int:
    resize = knobs.whole("resize", about.get("resize", 0), low=0)
    if 0 < resize < about["image_size"]:
        raise ArgumentError(
            f"resize is {resize}; it must be at least image_size, {about['image_size']}"
        )
    return resize


def _asked(network: Network, about: About, data: config_lib.Data) -> checks.Ask:
    """(variables, images uint8 or in [0, 1]) -> logits, features and weight."""
    asked = heads.with_head(network.laid_out(about.get("outputs", "logits")))
    return lambda variables, images: asked(
        variables, normalise(to_pixels(images), data)
    )


def _foreign(ask: checks.Ask, size: int) -> str:
    """The reason why JAX can't look into a function; empty where it can."""
    try:
        jax.eval_shape(ask, {}, checks.probes(size))
    except Exception as error:
        return f"it isn't JAX code ({type(error).__name__})"
    return ""


def _on_host(
    network: Network,
    name: str,
    size: int,
    classes: int,
    data: config_lib.Data,
    why: str,
) -> Network:
    """The network of a function that takes NumPy arrays, called once to see that."""
    from apr_jax.foreign import modules

    pixels = jnp.asarray(checks.probes(size))
    inputs = np.array(normalise(to_pixels(pixels), data))
    if network.layout == "NCHW":
        inputs = np.ascontiguousarray(inputs.transpose(0, 3, 1, 2))
    call = lambda: np.asarray(network.apply({}, inputs))
    found = checks.called(repr(name), call, inputs.shape)
    checks.check_shape(found, len(inputs), classes, f"the logits of {name!r}")
    function = lambda images: network.apply({}, images)
    return modules.on_host(function, classes)._replace(layout=network.layout)
