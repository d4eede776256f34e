"""Amplitude-phase recombination in JAX: the functions that other code imports.

Everything else of the package (networks, training, evaluation) is imported by its own
module path. These few are imported when they are first asked for, so that a command
answers before JAX is there.
"""

import importlib
from typing import TYPE_CHECKING, Any

import apr_jax.process  # Ctrl-C ends a program without a traceback
import apr_jax.tuning  # noqa: F401  programs keep the memory that they free

if TYPE_CHECKING:
    from apr_jax.augment import apr
    from apr_jax.augment.apr_pair import apr_pair
    from apr_jax.augment.apr_single import apr_single
    from apr_jax.evaluate.card import robustness_card
    from apr_jax.evaluate.classifier import Classifier
    from apr_jax.spectral import recombine

__version__ = "0.1.0"
__all__ = [
    "Classifier",
    "__version__",
    "apr",
    "apr_pair",
    "apr_single",
    "recombine",
    "robustness_card",
]

_PLACES = {
    "Classifier": "apr_jax.evaluate.classifier",
    "apr": "apr_jax.augment",
    "apr_pair": "apr_jax.augment",
    "apr_single": "apr_jax.augment",
    "recombine": "apr_jax.spectral",
    "robustness_card": "apr_jax.evaluate.card",
}


def __getattr__(name: str) -> Any:
    if name in ("augment", "spectral"):
        return importlib.import_module(f"apr_jax.{name}")
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
