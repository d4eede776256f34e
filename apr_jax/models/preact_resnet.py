"""Pre-activation ResNet-18 (He et al. 2016, "Identity mappings") for small images."""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax

from apr_jax.models import layers


class _Block(layers.Part):
    features: int
    stride: int

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

        y = nn.relu(self.batch_norm("bn1", x, train))
        y = conv("conv1", y, 3, self.stride)
        # As in the code of "Fast is better than free" (Wong et al. 2020), which the
        # adversarial recipe follows, the shortcut takes the block's raw input.
        if x.shape[-1] != self.features or self.stride != 1:
            x = conv("shortcut_0", x, 1, self.stride)
        y = nn.relu(self.batch_norm("bn2", y, train))
        return x + conv("conv2", y, 3, 1)


class PreActResNet18(layers.Network):
    """Pre-activation ResNet-18 with a 3x3 stem and a BatchNorm before pooling.

    All kernels start as PyTorch's default.
    """

    called: ClassVar[str] = "preact_resnet18"
    minimum_size: ClassVar[int] = 8
    linear: ClassVar[Mapping[str, Any]] = {"name": "linear", "zero_bias": False}

    @nn.nowrap
    def maps(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The maps of the last block, normalised."""
        x = self.convolve("conv1", x, 64, init=layers.torch_default)
        for block in layers.stages(self.part(_Block), (2, 2, 2, 2)):
            x = block(x, train=train)
        return nn.relu(self.batch_norm("bn", x, train))
