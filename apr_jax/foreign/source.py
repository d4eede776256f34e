"""Networks that a file of Python makes: ``FILE.py:create``."""

import importlib.util
import sys
from typing import Any

from apr_jax.errors import ConfigError
from apr_jax.gates import places

FUNCTION = "create"


def load(spec: str) -> tuple[str, Any]:
    """What a function of a file returns, and a name for it.

    Args:
        spec: "FILE.py", whose function is ``create``, or "FILE.py:FUNCTION". Modules
            beside the file can be imported by it.

    Raises:
        ConfigError: there is no such file, or no such function in it.
    """
    file, colon, name = spec.partition(".py:")
    path = places.local(file + ".py" if colon else spec, "--model")
    name = name or FUNCTION
    if path.suffix != ".py":
        raise ConfigError(f"model is {spec!r}; write FILE.py or FILE.py:{FUNCTION}")
    if not path.is_file():
        raise ConfigError(f"model is {spec!r}, and {path} isn't there")
    described = importlib.util.spec_from_file_location(path.stem, path)
    assert described is not None
    assert described.loader is not None
    module = importlib.util.module_from_spec(described)
    sys.modules.setdefault(path.stem, module)
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        described.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    create = getattr(module, name, None)
    if not callable(create):
        own = [key for key, value in vars(module).items() if callable(value)]
        there = ", ".join(key for key in own if not key.startswith("_")) or "nothing"
        raise ConfigError(f"{path} has no function {name!r}; it has {there}")
    made = create()
    if not callable(made) and not hasattr(made, "predict"):
        raise ConfigError(
            f"{name} of {path} returns a {type(made).__name__}; it must return a "
            "function from images to logits, or an apr_jax.Classifier"
        )
    return path.stem if name == FUNCTION else f"{path.stem}_{name}", made
