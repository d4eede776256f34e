"""Networks in PyTorch: wide residual ones, with the usual code's names, and another."""

import collections
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def build(model: str) -> Any:
    """A network of torch.nn: ``wrn_D_K``, whose weights ``from_torch`` reads, or
    ``airbench94``, without its whitening's values.
    """
    return _airbench94() if model == "airbench94" else _wide_resnet(model)


def _airbench94() -> Any:
    from torch import nn

    def normed(features: int) -> list[Any]:
        norm = nn.BatchNorm2d(features, eps=1e-12, momentum=0.4)
        norm.weight.requires_grad_(False)
        return [norm, nn.GELU()]

    first = nn.Conv2d(3, 24, 2)
    first.weight.requires_grad_(False)
    layers, inputs = [first, nn.GELU()], 24
    for outputs in (64, 256, 256):
        conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        layers += [conv, nn.MaxPool2d(2), *normed(outputs)]
        conv = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        layers += [conv, *normed(outputs)]
        inputs = outputs
    head = nn.Linear(inputs, 10, bias=False)
    return nn.Sequential(*layers, nn.MaxPool2d(3), nn.Flatten(), head)


def _wide_resnet(model: str) -> Any:
    from torch import nn

    _, depth, width = model.split("_")

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.bn1 = nn.BatchNorm2d(inputs)
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.conv_shortcut = None
            if inputs != outputs:
                self.conv_shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

        def forward(self, x: Any) -> Any:
            y = self.bn1(x).relu()
            shortcut = x if self.conv_shortcut is None else self.conv_shortcut(y)
            return shortcut + self.conv2(self.bn2(self.conv1(y)).relu())

    named = lambda **layers: nn.Sequential(collections.OrderedDict(layers))
    stages, inputs = {}, 16
    for stage in range(3):
        blocks = []
        for block in range((int(depth) - 4) // 6):
            outputs = 16 * int(width) * 2**stage
            blocks.append(Block(inputs, outputs, 2 if stage and not block else 1))
            inputs = outputs
        stages[f"block{stage + 1}"] = named(layer=nn.Sequential(*blocks))
    return named(
        conv1=nn.Conv2d(3, 16, 3, 1, 1, bias=False),
        **stages,
        bn1=nn.BatchNorm2d(inputs),
        relu=nn.ReLU(),
        pool=nn.AdaptiveAvgPool2d(1),
        flat=nn.Flatten(),
        fc=nn.Linear(inputs, 10),
    )


_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_LEAVES |= {"mean": "running_mean", "var": "running_var"}
_AXES = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}


def state_of(variables: Any) -> dict[str, np.ndarray]:
    """The weights of a network in Flax for the same one of ``build``."""
    import jax

    state = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        _, *modules, variable = (part.key for part in path)
        names = [re.sub(r"_(\d+)$", r".\1", module) for module in modules]
        array = np.asarray(leaf).transpose(_AXES[np.ndim(leaf)])
        state[".".join([*names, _LEAVES[variable]])] = array
    return state


def normalised(
    model: str,
    state: Mapping[str, np.ndarray],
    mean: Sequence[float],
    std: Sequence[float],
) -> Any:
    """A network of ``build`` with weights, for evaluation, of pixels in [0, 1].

    Args:
        model: its name.
        state: name -> array of each of its weights; counters may be left out.
        mean, std: of the channels, which it normalises by.
    """
    import torch
    from torch import nn

    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = build(model)
            for name, values in (("mean", mean), ("std", std)):
                self.register_buffer(name, torch.tensor(values)[:, None, None])

        def forward(self, pixels: Any) -> Any:
            return self.network((pixels - self.mean) / self.std)

    made = Normalised().eval().requires_grad_(False)
    tensors = {name: torch.tensor(array) for name, array in state.items()}
    found = made.network.load_state_dict(tensors, strict=False)
    assert all(key.endswith("num_batches_tracked") for key in found.missing_keys)
    assert not found.unexpected_keys
    return made


def placed(network: Any, cores: int) -> tuple[Any, str]:
    """A network on the accelerator, or on some cores, and the device's name."""
    import torch

    torch.set_num_threads(cores)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return network.to(device, memory_format=torch.channels_last), device
