"""Configurations by their name: ``--config quickstart:apr_sp`` beside files.

As a file of a configuration this module is the door to all of ``presets.PRESETS``.
"""

import pathlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ml_collections

_NAME = re.compile(r"(\w+)(:.*)?")


def get_config(choice: str) -> "ml_collections.ConfigDict":
    """The configuration that a name, and a choice after a colon, stand for."""
    from apr_jax import presets

    return presets.get(choice)


def with_files(arguments: Sequence[str]) -> list[str]:
    """A command line whose ``--config`` names a file where it was a name."""
    found = list(arguments)
    for place, argument in enumerate(found):
        if argument in ("--config", "-config") and place + 1 < len(found):
            found[place + 1] = _file(found[place + 1])
        elif argument.startswith(("--config=", "-config=")):
            flag, _, value = argument.partition("=")
            found[place] = f"{flag}={_file(value)}"
    return found


def listed() -> str:
    """The configurations that there are, in words."""
    from apr_jax import presets

    return f"there are {', '.join(presets.PRESETS)}, or give a file"


def _file(value: str) -> str:
    """The file of a configuration; what can't be a name stays as it is."""
    name = _NAME.fullmatch(value)
    if name is None or pathlib.Path(name[1]).exists():
        return value
    return f"{__file__}:{value}"
