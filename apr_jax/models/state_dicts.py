"""State dictionaries of PyTorch, as files and programs wrap them: arrays by name."""

import json
import os
import pathlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from apr_jax.errors import DataError, words

# What scripts of training put a network's tensors into. Of several in one file the
# first is taken: the weights themselves before an average of them.
WRAPPERS = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network"),
    *("params", "state_dict_ema", "model_ema", "ema"),
)
# What wrappers of modules put before a name: DataParallel, torch.compile, Lightning, a
# Sequential whose first part is a normalisation.
_PREFIXES = re.compile(r"(?:(?:module|_orig_mod|model|1)\.)+")
# The ends of names of what counts batches or networks.
_COUNTERS = ("num_batches_tracked", "n_averaged")
# The last part of the name of a normalisation's tensors, as in "normalize.mean".
MEANS, STDS = ("mean", "mu", "new_mean"), ("std", "sigma", "new_std")
_SAFE_TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def read(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """What is in a file of ``torch.save``, or of safetensors if its name says so.

    No code from the file is run. Safetensors need no PyTorch.

    Raises:
        ImportError: PyTorch isn't installed; the message says how to install it.
        DataError: the file can't be read, is damaged, or holds no dictionary.
    """
    path = pathlib.Path(path)
    try:
        safe = path.suffix == ".safetensors"
        content = _safe(path) if safe else _pickled(path)
    except ImportError:
        raise
    except OSError as error:
        raise DataError(f"can't read {words(error)}") from error
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        why = (
            f"it holds {found[1]}, which is no tensor and could run code; save the "
            "network's state_dict() alone"
            if found
            else "it was not written by torch.save, or is damaged"
        )
        raise DataError(f"can't read {path}: {why}") from error
    except Exception as error:  # of zip files, pickles, tensors: torch has no own kind
        why = (str(error).splitlines() or [""])[0].strip() or type(error).__name__
        raise DataError(
            f"can't read {path}: it is cut off, damaged, or no file of weights ({why})"
        ) from error
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise DataError(f"can't read {path}: it holds a {kind}, no dictionary")
    return content


def _pickled(path: pathlib.Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"reading {path} needs PyTorch: pip install torch (the CPU build will do)"
        ) from error
    content: Any = torch.load(path, map_location="cpu", weights_only=True)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:  # whose checksums PyTorch leaves alone
            if damaged := archive.testzip():
                raise ValueError(f"{damaged} hasn't its checksum")
    return content


def _safe(path: pathlib.Path) -> dict[str, np.ndarray]:
    contents = path.read_bytes()
    start = 8 + int.from_bytes(contents[:8], "little")
    header = json.loads(contents[8:start].decode())
    found = {}
    for name, about in header.items():
        if name != "__metadata__":
            first, end = about["data_offsets"]
            part = contents[start + first : start + end]
            if about["dtype"] not in _SAFE_TYPES:
                raise ValueError(f"{name} is of type {about['dtype']}")
            numbers = np.frombuffer(part, _SAFE_TYPES[about["dtype"]])
            found[name] = numbers.reshape(about["shape"])
    return found


def flat(content: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The tensors of a network as arrays, by names without wrappers and prefixes.

    A wrapper is opened, one of ``WRAPPERS`` or the one mapping that holds tensors, and
    what counts batches left out. A normalisation that stands beside it stays.

    Raises:
        ValueError: there are no tensors, or two have one name.
    """
    beside = {k: v for k, v in content.items() if of_normalisation(k)}
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), Mapping):
            return _arrays(beside) | flat(content[wrapper])
    tensors = {k: v for k, v in content.items() if isinstance(k, str) and _is_tensor(v)}
    if not tensors.keys() - beside.keys():
        holding = [v for v in content.values() if _holds_tensors(v)]
        if len(holding) != 1:
            listed = ", ".join(map(str, content)) or "nothing"
            raise ValueError(f"no tensors by name; there is {listed[:200]}")
        return _arrays(beside) | flat(holding[0])
    return _arrays(tensors | beside)


def _arrays(tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for key, value in tensors.items():
        if key.endswith(_COUNTERS):
            continue
        prefixes = _PREFIXES.match(key)
        short = key[prefixes.end() :] if prefixes else key
        if short in found:
            raise ValueError(f"two tensors are called {short!r}, one of them {key!r}")
        found[short] = array(value)
    return found


def array(value: Any) -> np.ndarray:
    """An array, or a tensor or parameter of PyTorch, on any device and of any type."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.to_dense() if value.is_sparse else value
        value = (value if value.is_complex() else value.float()).numpy()
    return np.asarray(value)


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and any(map(_is_tensor, value.values()))


def of_normalisation(key: Any) -> bool:
    """Whether a name is that of a normalisation's tensor."""
    return isinstance(key, str) and key.rpartition(".")[2] in (*MEANS, *STDS)


def class_names(content: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the classes that a file says, in their order; () where it doesn't.

    They are lists called ``classes`` or ``class_names``, or torchvision's
    ``class_to_idx``.
    """
    for name in ("class_names", "classes"):
        found = content.get(name)
        if isinstance(found, list | tuple) and found:
            return tuple(map(str, found))
    index = content.get("class_to_idx")
    if isinstance(index, Mapping) and all(isinstance(i, int) for i in index.values()):
        return tuple(sorted(map(str, index), key=lambda name: index[name]))
    return ()
