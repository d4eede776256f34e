"""What reading checkpoints takes beside Orbax: folders that change, files, quiet."""

import contextlib
import logging
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

_Found = TypeVar("_Found")

_LOOKS = 20  # at a folder that another process changes


def beside_a_writer(look: Callable[[], _Found]) -> _Found:
    """Looks at a folder anew where a writer removed something during the look."""
    for _ in range(_LOOKS - 1):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return look()
    return look()


def read_through(folder: pathlib.Path) -> None:
    """Raises the OSError that keeps a file in a folder from being read, if any does."""

    def fail(error: OSError) -> None:
        raise error

    for place, _, names in os.walk(folder, onerror=fail):
        for name in names:
            path = os.path.join(place, name)
            try:
                with open(path, "rb") as file:
                    while file.read(2**24):
                        pass
            except OSError as error:
                error.filename = path
                raise


def pass_over_late_callbacks() -> None:
    """Prints no tracebacks of reads that end after another one of theirs has failed.

    TensorStore's threads then report to an event loop that Orbax has closed, or to
    nobody. What they say no longer matters: the failure itself is an error of its own.
    """
    logging.getLogger("asyncio").addFilter(_is_heard)  # once, however often
    before = sys.unraisablehook
    if getattr(before, "passes_over", False):
        return

    def hook(found: Any) -> None:
        if str(found.exc_value) != "Event loop is closed":
            before(found)

    hook.passes_over = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook


def _is_heard(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    return not ("exception was never retrieved" in text and "OCDBT database" in text)


def shapes(tree: Any) -> dict[str, str]:
    """Shape and type of each leaf by its name, whatever holds the leaves."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        parts = (
            getattr(key, "name", getattr(key, "key", getattr(key, "idx", key)))
            for key in path
        )
        name = "/".join(map(str, parts))
        found[name] = f"{np.dtype(leaf.dtype).name} {list(np.shape(leaf))}"
    return found
