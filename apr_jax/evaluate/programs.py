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
        kept: programs of ``once`` that are for this alone.
    """

    predict: Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]
    classes: int
    name: str = ""
    kept: dict[Any, Any] = dataclasses.field(
        default_factory=dict, compare=False, repr=False
    )

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
    return Asked(predict, classes, "" if _is_network(predict) else name)


def once(make: Callable[P, T]) -> Callable[P, T]:
    """Makes a program once for equal arguments, the last 64 of them.

    A function that isn't one of our networks may hold weights, which nothing here
    should keep: programs that ask one last as long as what is asked.
    """
    kept = functools.lru_cache(_KEPT)(make)

    @functools.wraps(make)
    def made(*arguments: P.args, **named: P.kwargs) -> T:
        first = arguments[0]
        if not isinstance(first, Asked) or _is_network(first.predict):
            return kept(*arguments, **named)  # type: ignore[arg-type]
        key = make, arguments[1:], *named.items()
        if key not in first.kept:
            first.kept[key] = make(*arguments, **named)
        found: T = first.kept[key]
        return found

    return made


def _is_network(predict: Callable[..., Any]) -> bool:
    """Whether it is one of our networks, and one that can be told from others."""
    try:
        hash(predict)
    except TypeError:
        return False
    return isinstance(predict, network.Predict)
