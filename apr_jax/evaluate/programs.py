"""Programs that classifiers of one network share, whatever their weights."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax

from apr_jax import network
from apr_jax.gates import answers

_KEPT = 64  # programs of each kind

P = ParamSpec("P")
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a classifier answers, its logits checked.

    Attributes:
        predict: as ``Classifier.predict``.
        classes: K.
        name: in messages; empty for our own networks, so that those of one kind are
            equal whatever their names.
    """

    predict: Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]
    classes: int
    name: str = ""

    def __call__(self, variables: Any, images: jax.Array) -> Any:
        """Logits [B, K] and features [B, F].

        Raises:
            ArgumentError: the logits aren't one number for each image and class.
        """
        logits, features = self.predict(variables, images)
        answers.logits(
            logits,
            name=f"the logits of {self.name!r}" if self.name else "the logits",
            count=len(images),
            classes=self.classes,
        )
        return logits, features


def ask(predict: Callable[..., Any], classes: int, name: str) -> Asked:
    """What a classifier of this name answers."""
    return Asked(predict, classes, "" if _lasts(predict) else name)


def once(make: Callable[P, T]) -> Callable[P, T]:
    """Makes a program once for equal arguments, the last 64 of them.

    A function that isn't one of our networks may hold weights, which nothing here
    should keep: what asks one is made anew, as is what has no hash.
    """
    kept = functools.lru_cache(_KEPT)(make)

    @functools.wraps(make)
    def made(*arguments: P.args, **named: P.kwargs) -> T:
        if all(map(_lasts, (*arguments, *named.values()))):
            return kept(*arguments, **named)  # type: ignore[arg-type]
        return make(*arguments, **named)

    return made


def _lasts(argument: Any) -> bool:
    if isinstance(argument, Asked):
        argument = argument.predict
    if callable(argument) and not isinstance(argument, network.Predict):
        return False
    try:
        hash(argument)
    except TypeError:
        return False
    return True
