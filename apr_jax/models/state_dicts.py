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
        content = read_safe(path.read_bytes()) if safe else _pickled(path)
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


def write_safe(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays by name as the contents of a file of safetensors."""
    names = {np.dtype(kind): name for name, kind in _SAFE_TYPES.items()}
    header: dict[str, Any] = {}
    parts, end = [], 0
    for name, array in arrays.items():
        parts.append(np.ascontiguousarray(array).tobytes())
        start, end = end, end + len(parts[-1])
        header[name] = {
            "dtype": names[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text + b"".join(parts)


def read_safe(contents: bytes) -> dict[str, np.ndarray]:
    """The arrays in the contents of a file of safetensors, by name."""
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


def plain(content: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The tensors of a network as arrays by their own names, if nothing wraps them.

    Those of a wrapped one are as ``flat`` has them.
    """
    if all(isinstance(k, str) and _is_tensor(v) for k, v in content.items()):
        return {k: array(v) for k, v in content.items() if not counts(k)}
    return flat(content)


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
        if counts(key):
            continue
        name = short(key)
        if name in found:
            raise ValueError(f"two tensors are called {name!r}, one of them {key!r}")
        found[name] = array(value)
    return found


def short(key: str) -> str:
    """A tensor's name without what wrappers of modules put before it."""
    prefixes = _PREFIXES.match(key)
    return key[prefixes.end() :] if prefixes else key


def counts(key: str) -> bool:
    """Whether a name is that of a counter of batches or networks."""
    return key.endswith(_COUNTERS)


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


def split_normalisation(
    tensors: Mapping[str, Any],
) -> tuple[dict[str, Any], tuple[float, ...] | None, tuple[float, ...] | None]:
    """The other tensors; mean and standard deviation, None where there are none.

    Raises:
        ValueError: there are several, or they aren't of pixels in [0, 1].
    """
    last = {key: key.rpartition(".")[2] for key in tensors}
    means = [key for key in tensors if last[key] in MEANS]
    stds = [key for key in tensors if last[key] in STDS]
    rest = {k: v for k, v in tensors.items() if k not in (*means, *stds)}
    if not means and not stds:
        return rest, None, None
    if len(means) != 1 or len(stds) != 1:
        raise ValueError(
            "a normalisation has one mean and one standard deviation; the file has "
            f"{some([*means, *stds])}"
        )
    # As they were written, before they became float32.
    mean, std = (
        tuple(float(f"{x:.7g}") for x in np.ravel(tensors[key]))
        for key in (means[0], stds[0])
    )
    if len(mean) != len(std) or not mean:
        raise ValueError(f"{means[0]} has {len(mean)} values, {stds[0]} {len(std)}")
    if not all(0 <= m <= 1 for m in mean) or not all(0 < s < np.inf for s in std):
        raise ValueError(
            f"{means[0]} is {mean} and {stds[0]} is {std}; they must be of pixels in "
            "[0, 1], and standard deviations above 0"
        )
    return rest, mean, std


def without_common(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors by names without what all of them begin with, such as ``net.``."""
    while len({key.partition(".")[0] for key in tensors}) == 1 and all(
        "." in key for key in tensors
    ):
        tensors = {key.partition(".")[2]: value for key, value in tensors.items()}
    return dict(tensors)


def some(names: list[str], limit: int = 10) -> str:
    """The first of some names, and how many there are beside."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
