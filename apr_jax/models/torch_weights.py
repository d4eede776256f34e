"""PyTorch weights as Flax variables: the authors' networks and torchvision's ResNets.

The Flax modules carry the PyTorch names; a numbered part joins the one before it by
"_", so `layer1.0.conv1.weight` is `params/layer1_0/conv1/kernel`.
"""

import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax.models import build, minimum_size, state_dicts, variable_shapes
from apr_jax.models.wide_resnet import WideResNet

_HEADS = ("fc.weight", "linear.weight", "classifier.weight")
# What files say of their network, as PyTorch's and timm's scripts write it, where
# another network has tensors of the same names.
_ARCHITECTURES = {
    "resnet18_imagenet": "resnet18",
    "resnet34_imagenet": "resnet34",
    "resnet50": "resnet50",
    "resnet50_blur": "resnet50",
}
# Where MaxBlurPool's own code keeps the kernels of its blurs, and what they are here.
_BLURS = (
    "maxpool.1.filt",
    *(
        f"layer{stage}.0.{part}.0.filt"
        for stage in (2, 3, 4)
        for part in ("conv3", "downsample")
    ),
)
_BINOMIAL = np.outer([1, 2, 1], [1, 2, 1]) / 16
# Parts that networks' code calls differently.
_SYNONYMS = (
    ("conv_shortcut", "convShortcut"),
    ("shortcut", "downsample"),
    ("fc", "linear", "classifier"),
)
_LEAVES = {
    "weight": (("params", "kernel"), ("params", "scale"), ("constants", "kernel")),
    "bias": (("params", "bias"),),
    "running_mean": (("batch_stats", "mean"),),
    "running_var": (("batch_stats", "var"),),
}


class Loaded(NamedTuple):
    """A network's weights, and the normalisation that came with them.

    Attributes:
        variables: of `from_torch`.
        mean, std: of each channel of pixels in [0, 1], one number or as many as
            channels; None where the weights came without.
        outputs: of the last layer.
        class_names: as the file says them; () where it doesn't.
    """

    variables: dict[str, Any]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    outputs: int
    class_names: tuple[str, ...]


def from_torch(name: str, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Variables of the network `name`, float32, from PyTorch arrays.

    `state_dict` maps PyTorch names to arrays in PyTorch layout, or to tensors and
    parameters. Parts may be called as in torchvision and timm (`downsample`, `fc`), in
    most code for CIFAR (`shortcut`, `linear`) or in that of TRADES, which RobustBench
    has (`convShortcut`, and a `sub_block1` that nothing passes). A wrapper such as
    `{"state_dict": ...}` or `{"net": ...}` is opened, `module.`, `_orig_mod.`, `model.`
    and `1.` before names taken off and batch counters ignored; the number of classes is
    read from the last layer. Raises ValueError naming
    all tensors that are missing, unexpected, of another shape than the network's, or
    not finite; what differs, where the file is of another network
    whose tensors have the same names; or a normalisation, which `load` takes along.
    """
    return _without_normalisation(load(name, state_dict))


def load_torch_file(name: str, path: str | pathlib.Path) -> dict[str, Any]:
    """`from_torch` on a file of `torch.save`, or `.safetensors`.

    No code from it is run. Raises ImportError, saying how to install it, where PyTorch
    is needed and not installed, and DataError, a ValueError, for a file that can't be
    read.
    """
    return _without_normalisation(load_file(name, path))


def load_file(name: str, path: str | pathlib.Path) -> Loaded:
    """`load` on a file, as `load_torch_file`."""
    return load(name, state_dicts.read(path))


def load(name: str, state_dict: Mapping[str, Any]) -> Loaded:
    """`from_torch`, and the normalisation that is among the tensors, if there is one.

    It is a mean and a standard deviation whose names end in "mean" or "mu" and in "std"
    or "sigma", such as `normalize.mean`, of pixels in [0, 1], among the tensors or
    beside their wrapper. What the other tensors' names all begin with, such as the
    `model.` behind it, is taken off.

    Tensors of the same names and shapes may still be another network's: timm's
    `resnetblur50` keeps nothing of its blurs, and passes for ResNet-50 unless the file
    says what it is (`arch`), which is checked.
    """
    _check_architecture(name, state_dict.get("arch"))
    flat = state_dicts.flat(state_dict)
    tensors, mean, std = state_dicts.split_normalisation(flat)
    tensors = _without_unused(name, state_dicts.without_common(tensors))
    variables, outputs = _variables(name, _without_blurs(name, tensors))
    names = state_dicts.class_names(state_dict)
    return Loaded(variables, mean, std, outputs, names)


def _variables(
    name: str, tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], int]:
    """The network's variables of tensors by their plain names, and its outputs."""
    head = next((h for h in _HEADS if h in tensors), None)
    if head is None:
        raise ValueError(
            f"not the weights of {name}: no tensor called {' or '.join(_HEADS)} among "
            f"{state_dicts.some(sorted(tensors))}"
        )
    if not tensors[head].ndim or not len(tensors[head]):
        shape = list(tensors[head].shape)
        raise ValueError(f"not the weights of {name}: {head} is {shape}")
    outputs = len(tensors[head])
    wanted = _template(name, num_classes=outputs)
    found: dict[tuple[str, ...], np.ndarray] = {}
    unexpected, misshapen, not_finite = [], [], []
    for key, tensor in tensors.items():
        path = _path(key, wanted)
        if path is None:
            unexpected.append(key)
            continue
        if tensor.dtype.kind in "OUSMmc":
            raise ValueError(f"{key} is {tensor.dtype}, no real numbers")
        if path in found:
            raise ValueError(f"two tensors are {_torch_name(path)}, one of them {key}")
        array = _layout(tensor, path[-1])
        if array.shape != wanted[path]:
            want = _torch_shape(wanted[path], path[-1])
            misshapen.append(f"{key} {list(np.shape(tensor))} instead of {want}")
        found[path] = array.astype(np.float32)
        if bad := int(np.sum(~np.isfinite(found[path]))):
            not_finite.append(f"{key} ({bad:,} of {array.size:,})")
    if isinstance(build(name, num_classes=1), WideResNet):
        found |= _without_bias(found, wanted)
    missing = [_torch_name(path) for path in wanted if path not in found]
    problems = [
        f"{what}: {state_dicts.some(names)}"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("wrong shape", misshapen),
            ("NaN or infinite", not_finite),
        )
        if names
    ]
    if problems:
        preact = re.match(r"preact_resnet\d+", name)
        if all(key.startswith("bn.") for key in missing) and preact:
            problems.append(f"without a last BatchNorm it is {preact[0]}_bare")
        raise ValueError(f"not the weights of {name}; " + "; ".join(problems))
    return _nested(found), outputs


def _without_normalisation(loaded: Loaded) -> dict[str, Any]:
    if loaded.mean is not None:
        raise ValueError(
            f"the weights bring a normalisation of their own, mean {loaded.mean} and "
            f"standard deviation {loaded.std}; torch_weights.load and load_file return "
            "it beside the variables"
        )
    return loaded.variables


def _check_architecture(name: str, said: Any) -> None:
    """Raises ValueError where a file says that it is another ResNet."""
    if not isinstance(said, str) or name not in _ARCHITECTURES:
        return
    plain = said.lower().partition(".")[0]
    if plain.startswith("resnet") and plain != _ARCHITECTURES[name]:
        raise ValueError(f"not the weights of {name}: the file says it is {said!r}")


def _without_blurs(name: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors of a network with MaxBlurPool as if it had none.

    Its kernels are fixed, but they alone tell such a file from one of ResNet-50, and
    from timm's `resnetblur50`, which pools and blurs elsewhere. A part of the network
    behind a blur has another number than without it.
    """
    blurs = getattr(build(name, num_classes=1), "blur", False)
    kernels = {k: np.asarray(v) for k, v in tensors.items() if k.endswith(".filt")}
    if not blurs and kernels:
        raise ValueError(
            f"not the weights of {name}: the file has the kernels of blurs, "
            f"{state_dicts.some(list(kernels))}, as MaxBlurPool's (resnet50_blur)"
        )
    if not blurs:
        return dict(tensors)
    if not kernels:
        raise ValueError(
            f"not the weights of {name}: no blur's kernel among them, such as "
            f"{_BLURS[0]}. They may be ResNet-50's, or timm's resnetblur50's, which "
            "takes the largest of 3x3 pixels rather than of 2x2 before the first blur, "
            "and doesn't blur its shortcuts"
        )
    missing = [key for key in _BLURS if key not in kernels]
    unexpected = [key for key in kernels if key not in _BLURS]
    if missing or unexpected:
        raise ValueError(
            f"not the weights of {name}; blurs missing: "
            f"{state_dicts.some(missing) or 'none'}; "
            f"unexpected: {state_dicts.some(unexpected) or 'none'}"
        )
    for key, kernel in kernels.items():
        size = kernel.shape[-2:]
        if size != _BINOMIAL.shape or not np.allclose(kernel, _BINOMIAL, atol=1e-6):
            raise ValueError(
                f"not the weights of {name}: {key} is a kernel of {list(size)}; here "
                "blurs are [1, 2, 1] / 4 both ways"
            )
    found = {}
    for key, tensor in tensors.items():
        if key in kernels:
            continue
        before, _, leaf = key.rpartition(".")
        part, _, number = before.rpartition(".")
        if f"{part}.0.filt" not in kernels:
            found[key] = tensor
        elif part.endswith("downsample"):
            found[f"{part}.{int(number) - 1}.{leaf}"] = tensor
        else:
            found[f"{part}.{leaf}"] = tensor
    return found


def _without_unused(name: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors without those of a part that no image passes.

    TRADES' code of wide ResNets may make a block that it doesn't use.
    """
    if not isinstance(build(name, num_classes=1), WideResNet):
        return dict(tensors)
    return {k: v for k, v in tensors.items() if not k.startswith("sub_block1.")}


def _without_bias(
    found: Mapping[tuple[str, ...], Any], wanted: Mapping[tuple[str, ...], Any]
) -> dict[tuple[str, ...], np.ndarray]:
    """Zeros for the bias of the last layer, which TRADES' code may leave out."""
    path = ("params", "fc", "bias")
    return {} if path in found else {path: np.zeros(wanted[path], np.float32)}


def _template(name: str, *, num_classes: int) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Shape of every variable of the network by its path, in the network's order."""
    model = build(name, num_classes=num_classes)
    shapes = variable_shapes(model, minimum_size(name))
    leaves = jax.tree_util.tree_leaves_with_path(shapes)
    return {tuple(str(p.key) for p in path): leaf.shape for path, leaf in leaves}


def _path(key: str, wanted: Mapping[tuple[str, ...], Any]) -> tuple[str, ...] | None:
    """The path of a tensor by its name, or by one that other code has for its part."""
    if (path := _exact(key, wanted)) is not None:
        return path
    parts = key.split(".")
    for i, part in enumerate(parts):
        for same in _SYNONYMS:
            for other in same if part in same else ():
                path = _exact(".".join([*parts[:i], other, *parts[i + 1 :]]), wanted)
                if path is not None:
                    return path
    return None


def _exact(key: str, wanted: Mapping[tuple[str, ...], Any]) -> tuple[str, ...] | None:
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


def _nested(flat: Mapping[tuple[str, ...], np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, array in flat.items():
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = jnp.asarray(array)
    return tree
