"""Pre-activation ResNet-18 (He et al. 2016, "Identity mappings") for small images."""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax

from apr_jax.models import layers


class _Block(layers.Part):
    features: int
    stride: int
    activated: bool

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        def conv(name: str, x: jax.Array, kernel: int, stride: int) -> jax.Array:
            return self.convolve(
                name,
                x,
                self.features,
                kernel,
                stride=stride,
                init=layers.torch_default,
            )

        first = nn.relu(self.batch_norm("bn1", x, train))
        y = conv("conv1", first, 3, self.stride)
        if x.shape[-1] != self.features or self.stride != 1:
            shorter = first if self.activated else x
            x = conv("shortcut_0", shorter, 1, self.stride)
        y = nn.relu(self.batch_norm("bn2", y, train))
        return x + conv("conv2", y, 3, 1)


class PreActResNet18(layers.Network):
    """Pre-activation ResNet-18 with a 3x3 stem.

    All kernels start as PyTorch's default. What a block's shortcut takes can't be told
    by the names or shapes of its weights.

    Attributes:
        activated: whether a shortcut that has a convolution takes the block's input
            after BatchNorm and ReLU, as in He et al. and in most code; the raw input,
            as in the code of "Fast is better than free" (Wong et al. 2020), which the
            adversarial recipe follows.
        last_norm: whether there is a BatchNorm, and a ReLU, before pooling.
    """

    activated: bool = False
    last_norm: bool = True
    called: ClassVar[str] = "preact_resnet18"
    minimum_size: ClassVar[int] = 8
    linear: ClassVar[Mapping[str, Any]] = {"name": "linear", "zero_bias": False}

    @nn.nowrap
    def maps(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The maps of the last block, normalised if ``last_norm``."""
        x = self.convolve("conv1", x, 64, init=layers.torch_default)
        kind = self.part(_Block, activated=self.activated)
        for block in layers.stages(kind, (2, 2, 2, 2)):
            x = block(x, train=train)
        if not self.last_norm:
            return x
        return nn.relu(self.batch_norm("bn", x, train))
