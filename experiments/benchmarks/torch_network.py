"""A wide residual network in PyTorch, with the names of the usual code."""

import collections
import re
from typing import Any

import numpy as np


def build(model: str) -> Any:
    """A network of torch.nn, ``wrn_D_K``, whose weights ``from_torch`` reads."""
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


def load(network: Any, variables: Any) -> None:
    """Gives a network of ``build`` the weights of the same one in Flax."""
    import jax
    import torch

    state = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        _, *modules, variable = (part.key for part in path)
        names = [re.sub(r"_(\d+)$", r".\1", module) for module in modules]
        array = np.asarray(leaf).transpose(_AXES[np.ndim(leaf)])
        state[".".join([*names, _LEAVES[variable]])] = torch.tensor(array)
    found = network.load_state_dict(state, strict=False)
    counters = [k for k in found.missing_keys if k.endswith("num_batches_tracked")]
    assert found.missing_keys == counters
    assert not found.unexpected_keys
