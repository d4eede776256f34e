"""A run reduced to its weights, as the zoo keeps it: one file and a checksum.

The weights are float16, in half the bytes of a checkpoint without its optimiser.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from apr_jax.errors import ConfigError, DataError
from apr_jax.models import state_dicts
from apr_jax.runs import files
from apr_jax.runs.workdir import RunDir


def write(run: RunDir, step: int, variables: Mapping[str, Any]) -> None:
    """Writes the weights of a network.

    Args:
        run: the directory, whose ``weights`` and ``checksum`` are written.
        step: training steps behind them.
        variables: collections of arrays, float32.

    Raises:
        ConfigError: a number is too large for float16, or not finite.
    """
    flat = traverse_util.flatten_dict(dict(variables), sep="/")
    halves = {}
    for name, array in flat.items():
        with np.errstate(over="ignore"):
            halves[name] = np.asarray(array, np.float32).astype(np.float16)
        if not np.isfinite(halves[name]).all():
            largest = np.abs(np.asarray(array)).max()
            raise ConfigError(f"{name} goes up to {largest}, which is no float16")
    contents = state_dicts.write_safe(halves)
    files.write_bytes(run.weights, contents)
    about = {"step": step, "sha256": hashlib.sha256(contents).hexdigest()}
    files.write_text(run.checksum, json.dumps(about) + "\n")


def read(run: RunDir) -> tuple[int, dict[str, Any]]:
    """Reads what ``write`` wrote: (step, variables), the variables float32.

    Raises:
        DataError: a file can't be read, or the weights haven't their checksum.
    """
    with files.reading(run.checksum):
        about = files.read_json(run.checksum)
        step, wanted = int(about["step"]), str(about["sha256"])
    with files.reading(run.weights):
        contents = run.weights.read_bytes()
    found = hashlib.sha256(contents).hexdigest()
    if found != wanted:
        raise DataError(
            f"can't read {run.weights}: its SHA-256 is {found[:12]}…, not "
            f"{wanted[:12]}…; it was cut off or changed. Install the package anew"
        )
    arrays = state_dicts.read_safe(contents)
    wide = {name: array.astype(np.float32) for name, array in arrays.items()}
    return step, traverse_util.unflatten_dict(wide, sep="/")
