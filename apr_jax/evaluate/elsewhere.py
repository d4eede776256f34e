"""A network from elsewhere, before there are images for it: what ``--model`` names."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from absl import flags

from apr_jax import console, settings
from apr_jax.data import classes as classes_lib
from apr_jax.errors import ConfigError
from apr_jax.evaluate.classifier import Classifier
from apr_jax.foreign import named, source
from apr_jax.gates import places

Classes = int | Sequence[str] | None
FLAGS = ("model", "classes", "weights", "trust_remote_code")


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
        if classes is None or isinstance(classes, int):
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
    if weights is not None or trust_remote_code:
        flag = "weights" if weights is not None else "trust_remote_code"
        raise ConfigError(f"{flag} is for timm:NAME, torchvision:NAME or hf:REPO")
    if isinstance(model, str):
        return Opened(*source.load(model))
    return Opened(getattr(model, "__name__", type(model).__name__), model)


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


# --- Flags ---------------------------------------------------------------------------


def define_flags() -> Callable[[], dict[str, Any]]:
    """Flags for a network from elsewhere.

    Returns:
        A function that gives what was said: arguments of ``bring.bring``, ``model``
        None where there is none.
    """
    model = flags.DEFINE_string(
        "model",
        None,
        "FILE.py[:create], which returns a function or an apr_jax.Classifier; "
        "timm:NAME, torchvision:NAME or hf:REPO.",
    )
    classes = flags.DEFINE_string(
        "classes", None, "How many classes, or a file of names, one a line."
    )
    weights = flags.DEFINE_string(
        "weights", None, "For --model LIBRARY:NAME: a file; its library's if unset."
    )
    trusted = flags.DEFINE_bool(
        "trust_remote_code", False, "For --model hf:REPO: its own code may be run."
    )
    settings.list_in_help(*FLAGS)

    def given() -> dict[str, Any]:
        if model.value is None:
            for flag in (weights, trusted):
                if flag.value:
                    raise ConfigError(f"--{flag.name} is for --model")
        found = {"model": model.value, "classes": read_classes(classes.value)}
        if weights.value:
            found["weights"] = weights.value
        if trusted.value:
            found["trust_remote_code"] = True
        return found

    return given


def read_classes(text: str | None) -> int | tuple[str, ...] | None:
    """What ``--classes`` says: how many there are, or the names in a file."""
    if text is None or text.isdecimal():
        return None if text is None else int(text)
    return classes_lib.read_text(places.local(text, "--classes"))
