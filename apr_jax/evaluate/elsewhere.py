"""A network from elsewhere, before there are images for it: what ``--model`` names."""

import dataclasses
import re
from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple

from apr_jax import console
from apr_jax.errors import ConfigError
from apr_jax.evaluate import classifier
from apr_jax.evaluate.classifier import Classifier
from apr_jax.foreign import named, source
from apr_jax.gates import places

Classes = int | Sequence[str] | None


class Opened(NamedTuple):
    """A network, and what is known of it.

    Attributes:
        name: for records and pages.
        network: a ``Classifier``, or a function of images, of which more must be said.
        known: all lists of names that its classes have, in the order of its logits.
    """

    name: str
    network: Any
    known: tuple[tuple[str, ...], ...] = ()

    @property
    def complete(self) -> bool:
        """Whether it is a ``Classifier`` already."""
        return isinstance(self.network, Classifier)

    def as_classifier(self, classes: Classes, image_size: int) -> "Opened":
        """The same as a ``Classifier``.

        Args:
            classes: of a function, how many or their names; of a ``Classifier`` its
                names instead of what is known, None or a number leave them.
            image_size: of a function.

        Raises:
            ConfigError: it tells another number of classes apart.
            ArgumentError: the function doesn't pass the checks.
        """
        if not self.complete:
            if classes is None:
                raise ConfigError(f"{self.name} is a function: say its classes")
            made = Classifier.from_function(
                self.network,
                classes=classes,
                image_size=image_size,
                name=re.sub(r"\W+", "", self.name) or "model",
            )
            return Opened(self.name, made)
        if classes is None or isinstance(classes, int | Integral):
            return self
        return Opened(self.name, _renamed(self.network, classes))


def opened(
    model: Any, *, weights: str | None = None, trust_remote_code: bool = False
) -> Opened:
    """Opens a network; the arguments are ``bring.bring``'s.

    Raises:
        UserError: there is no such network, or its weights can't be read.
    """
    if isinstance(model, str) and named.is_named(model):
        return _by_name(model, weights, trust_remote_code)
    if weights is not None:
        raise ConfigError("weights is for timm:NAME, torchvision:NAME or hf:REPO")
    if trust_remote_code:
        raise ConfigError("trust_remote_code is for hf:REPO")
    if isinstance(model, str) and model.startswith(places.ZOO):
        found = classifier.from_run(places.zoo(model, "model"))
        return Opened(found.name, found)
    if isinstance(model, str):
        return Opened(*source.load(model))
    if door := _door(model):
        raise ConfigError(
            f"model is a {type(model).__name__}: open it by apr_jax.Classifier.{door}, "
            "whose arguments say its classes and images"
        )
    return Opened(getattr(model, "__name__", type(model).__name__), model)


# Base class, by its module and name -> the door of what is one.
_DOORS = {
    "torch.nn.modules.module.Module": "from_torch(module, …)",
    "flax.linen.module.Module": "from_linen(module, variables, …)",
    "flax.nnx.module.Module": "from_nnx(module, …)",
    "equinox._module._module.Module": "from_equinox(module, …)",
    "keras.src.models.model.Model": "from_keras(model, …)",
}


def _door(model: Any) -> str:
    """The way in of a module of another library; "" of anything else."""
    for kind in type(model).__mro__:
        if door := _DOORS.get(f"{kind.__module__}.{kind.__qualname__}"):
            return door
    return ""


def _by_name(spec: str, weights: str | None, trust_remote_code: bool) -> Opened:
    """A network of a library, and all names that are known of its classes."""
    path = places.local(weights, "weights") if weights else None
    given = named.load(spec, path, trust_remote_code=trust_remote_code)
    console.say(f"{spec}: {given.said()}")
    stem = f"_{path.stem}" if path else ""
    classifier = Classifier.from_torch(
        given.module,
        classes=given.outputs(),
        image_size=given.image_size,
        resize=given.resize,
        mean=given.mean,
        std=given.std,
        name=re.sub(r"[^\w.-]+", "_", given.name + stem),
    )
    count = len(classifier.class_names)
    known = tuple(names for names in given.classes if len(names) == count)
    return Opened(classifier.name, classifier, known)


def _renamed(classifier: Classifier, names: Sequence[str]) -> Classifier:
    """The same classifier, its classes by other names."""
    if len(names) != len(classifier.class_names):
        raise ConfigError(
            f"classes names {len(names)}; {classifier.name} tells "
            f"{len(classifier.class_names)} apart"
        )
    return dataclasses.replace(classifier, class_names=tuple(names))
