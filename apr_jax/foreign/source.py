"""Networks that a file of Python makes: ``FILE.py:create``."""

import inspect
from typing import Any

from apr_jax.errors import ConfigError
from apr_jax.foreign import named
from apr_jax.gates import code_files


def load(spec: str) -> tuple[str, Any]:
    """What a function of a file returns, and a name for it.

    Args:
        spec: as ``code_files.load`` takes it.

    Raises:
        ConfigError: there is no such function, or it returns no network.
    """
    name, create = code_files.load(spec, "model", named.others(spec))
    try:
        inspect.signature(create).bind()
    except TypeError as error:
        raise ConfigError(
            f"{spec} is called without arguments, and {error}: it must make a trained "
            "network by itself. A network to be trained is --config.model.name"
        ) from None
    except ValueError:
        pass  # of some builtins nothing is known
    made = create()
    if not callable(made) and not hasattr(made, "predict"):
        raise ConfigError(
            f"{spec} returns a {type(made).__name__}; it must return a function from "
            "images to logits, or an apr_jax.Classifier"
        )
    return name, made
