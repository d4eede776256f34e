"""Functions in users' files of Python: ``FILE.py:FUNCTION``."""

import functools
import importlib.util
import pathlib
import sys
from collections.abc import Callable
from typing import Any

from apr_jax.errors import ConfigError
from apr_jax.gates import places

FUNCTION = "create"


def named(spec: str) -> bool:
    """Whether a name is that of a file of Python, with or without a function."""
    return spec.endswith(".py") or ".py:" in spec


def find(spec: str, field: str, others: str = "") -> tuple[pathlib.Path, str]:
    """The file that a text names, which is there, and the function in it.

    Args:
        spec, field: as ``load``'s.
        others: what else could be written, for the message.

    Raises:
        ConfigError: there is no such file.
    """
    file, colon, name = spec.partition(".py:")
    path = places.local(file + ".py" if colon else spec, field)
    if path.suffix != ".py":
        raise ConfigError(
            f"{field} is {spec!r}; write FILE.py or FILE.py:{FUNCTION}{others}"
        )
    if not path.is_file():
        raise ConfigError(f"{field} is {spec!r}, and {path} isn't there")
    return path, name or FUNCTION


def load(spec: str, field: str, others: str = "") -> tuple[str, Callable[..., Any]]:
    """Returns a name for a function in a file, and the function.

    Args:
        spec: "FILE.py", whose function is ``create``, or "FILE.py:FUNCTION". Modules
            beside the file can be imported by it.
        field: what names it, for messages.
        others: as ``find``'s.

    Raises:
        ConfigError: there is no such file, or no such function in it, or it can't be
            imported.
    """
    path, name = find(spec, field, others)
    module = _module(path.resolve(), path.stat().st_mtime_ns)
    function = getattr(module, name, None)
    if not callable(function):
        own = [key for key, value in vars(module).items() if callable(value)]
        there = ", ".join(key for key in own if not key.startswith("_")) or "nothing"
        raise ConfigError(f"{path} has no function {name!r}; it has {there}")
    return path.stem if name == FUNCTION else f"{path.stem}_{name}", function


@functools.cache
def _module(path: pathlib.Path, changed: int) -> Any:
    """The module of a file; once for all who ask, until the file changes."""
    del changed
    described = importlib.util.spec_from_file_location(path.stem, path)
    assert described is not None
    assert described.loader is not None
    module = importlib.util.module_from_spec(described)
    sys.modules.setdefault(path.stem, module)
    sys.path.insert(0, str(path.parent))
    try:
        described.loader.exec_module(module)
    except (ImportError, SyntaxError) as error:
        sys.modules.pop(path.stem, None)
        raise ConfigError(f"{path} can't be imported: {error}") from error
    finally:
        sys.path.remove(str(path.parent))
    return module
