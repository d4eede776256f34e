"""Pre-activation ResNets (He et al. 2016, "Identity mappings") for small images."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, cast

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


class _Bottleneck(layers.Part):
    """1x1, 3x3 and 1x1, with four times the channels; shortcuts are activated."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        width, out = self.features, 4 * self.features
        conv = functools.partial(self.convolve, init=layers.torch_default)
        first = nn.relu(self.batch_norm("bn1", x, train))
        if x.shape[-1] != out or self.stride != 1:
            x = conv("shortcut_0", first, out, 1, stride=self.stride)
        y = conv("conv1", first, width, 1)
        y = nn.relu(self.batch_norm("bn2", y, train))
        y = conv("conv2", y, width, 3, stride=self.stride)
        y = nn.relu(self.batch_norm("bn3", y, train))
        return x + conv("conv3", y, out, 1)


class _PreActResNet(layers.Network):
    """A 3x3 stem and blocks. All kernels start as PyTorch's default.

    Attributes:
        last_norm: whether there is a BatchNorm, and a ReLU, before pooling.
    """

    last_norm: bool = True
    minimum_size: ClassVar[int] = 8
    linear: ClassVar[Mapping[str, Any]] = {"name": "linear", "zero_bias": False}
    sizes: ClassVar[tuple[int, ...]]

    @nn.nowrap
    def block(self) -> Callable[..., nn.Module]:
        """What makes its blocks."""
        raise NotImplementedError

    @nn.nowrap
    def maps(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The maps of the last block, normalised if ``last_norm``."""
        x = self.convolve("conv1", x, 64, init=layers.torch_default)
        x = layers.run_stages(x, self.block(), self.sizes, train=train)
        if not self.last_norm:
            return x
        return nn.relu(self.batch_norm("bn", x, train))


class PreActResNet18(_PreActResNet):
    """Pre-activation ResNet-18.

    What a block's shortcut takes can't be told by the names or shapes of its weights.

    Attributes:
        activated: whether a shortcut that has a convolution takes the block's input
            after BatchNorm and ReLU, as in He et al. and in most code; the raw input,
            as in the code of "Fast is better than free" (Wong et al. 2020), which the
            adversarial recipe follows.
    """

    activated: bool = False
    called: ClassVar[str] = "preact_resnet18"
    sizes: ClassVar[tuple[int, ...]] = (2, 2, 2, 2)

    @nn.nowrap
    def block(self) -> Callable[..., nn.Module]:
        """What makes its blocks."""
        return cast(
            Callable[..., nn.Module], self.part(_Block, activated=self.activated)
        )


class PreActResNet50(_PreActResNet):
    """Pre-activation ResNet-50, of bottlenecks; most code has no last BatchNorm."""

    called: ClassVar[str] = "preact_resnet50"
    sizes: ClassVar[tuple[int, ...]] = (3, 4, 6, 3)

    @nn.nowrap
    def block(self) -> Callable[..., nn.Module]:
        """What makes its blocks."""
        return cast(Callable[..., nn.Module], self.part(_Bottleneck))
