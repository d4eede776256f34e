"""PyTorch weights as Flax variables: the authors' networks and torchvision's ResNets.

The Flax modules carry the PyTorch names; a numbered part joins the one before it by
"_", so `layer1.0.conv1.weight` is `params/layer1_0/conv1/kernel`.
"""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax.models import build, minimum_size, variable_shapes

_WRAPPERS = ("state_dict", "model_state_dict", "net", "model")
_HEADS = ("fc.bias", "linear.bias", "classifier.bias")
_LEAVES = {
    "weight": (("params", "kernel"), ("params", "scale")),
    "bias": (("params", "bias"),),
    "running_mean": (("batch_stats", "mean"),),
    "running_var": (("batch_stats", "var"),),
}


def from_torch(name: str, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """`{"params", "batch_stats"}` of the network `name`, float32, from PyTorch arrays.

    `state_dict` maps PyTorch names to arrays in PyTorch layout. A wrapper such as
    `{"state_dict": ...}` or `{"net": ...}` is opened, the `module.` of DataParallel
    taken off and batch counters ignored; the number of classes is read from the last
    layer. Raises ValueError naming all tensors that are missing, unexpected or of
    another shape than the network's.
    """
    tensors = _flat(state_dict)
    head = next((h for h in _HEADS if h in tensors), None)
    if head is None:
        raise ValueError(
            f"not the weights of {name}: no tensor called {' or '.join(_HEADS)} among "
            f"{_some(sorted(tensors))}"
        )
    wanted = _template(name, num_classes=len(np.asarray(tensors[head])))
    found: dict[tuple[str, ...], np.ndarray] = {}
    unexpected, misshapen = [], []
    for key, tensor in tensors.items():
        path = _path(key, wanted)
        if path is None:
            unexpected.append(key)
            continue
        array = _layout(np.asarray(tensor), path[-1])
        if array.shape != wanted[path]:
            want = _torch_shape(wanted[path], path[-1])
            misshapen.append(f"{key} {list(np.shape(tensor))} instead of {want}")
        found[path] = array.astype(np.float32)
    missing = [_torch_name(path) for path in wanted if path not in found]
    problems = [
        f"{what}: {_some(names)}"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("wrong shape", misshapen),
        )
        if names
    ]
    if problems:
        raise ValueError(f"not the weights of {name}; " + "; ".join(problems))
    return _nested(found)


def load_torch_file(name: str, path: str | pathlib.Path) -> dict[str, Any]:
    """`from_torch` on a `.pth` file, which is read without running code from it.

    Raises ImportError, saying how to install it, where PyTorch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"reading {path} needs PyTorch: pip install torch (the CPU build will do)"
        ) from error
    content = torch.load(path, map_location="cpu", weights_only=True)
    arrays = {
        key: value.detach().float().numpy()
        for key, value in _flat(content).items()
        if isinstance(value, torch.Tensor)
    }
    return from_torch(name, arrays)


def _flat(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    for wrapper in _WRAPPERS:
        if isinstance(state_dict.get(wrapper), Mapping):
            return _flat(state_dict[wrapper])
    return {
        key.removeprefix("module."): value
        for key, value in state_dict.items()
        if not key.endswith("num_batches_tracked")
    }


def _template(name: str, *, num_classes: int) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Shape of every variable of the network by its path, in the network's order."""
    model = build(name, num_classes=num_classes)
    shapes = variable_shapes(model, minimum_size(name))
    leaves = jax.tree_util.tree_leaves_with_path(shapes)
    return {tuple(str(p.key) for p in path): leaf.shape for path, leaf in leaves}


def _path(key: str, wanted: Mapping[tuple[str, ...], Any]) -> tuple[str, ...] | None:
    *modules, leaf = key.split(".")
    names: list[str] = []
    for part in modules:
        if part.isdigit() and names:
            names[-1] += f"_{part}"
        else:
            names.append(part)
    for collection, variable in _LEAVES.get(leaf, ()):
        path = (collection, *names, variable)
        if path in wanted:
            return path
    return None


def _torch_name(path: tuple[str, ...]) -> str:
    leaf = next(leaf for leaf, names in _LEAVES.items() if (path[0], path[-1]) in names)
    # "bn_1" is the one PyTorch name here that itself ends in a number.
    modules = [
        part if part == "bn_1" else re.sub(r"_(\d+)$", r".\1", part)
        for part in path[1:-1]
    ]
    return ".".join([*modules, leaf])


def _layout(array: np.ndarray, variable: str) -> np.ndarray:
    """PyTorch's [out, in, h, w] or [out, in] as Flax's [h, w, in, out] or [in, out]."""
    if variable != "kernel":
        return array
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def _torch_shape(shape: tuple[int, ...], variable: str) -> list[int]:
    if variable != "kernel":
        return list(shape)
    return [shape[i] for i in ((3, 2, 0, 1) if len(shape) == 4 else (1, 0))]


def _some(names: list[str], limit: int = 10) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _nested(flat: Mapping[tuple[str, ...], np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for path, array in flat.items():
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = jnp.asarray(array)
    return tree
