"""Residual networks (He et al. 2016): ResNet-18 and -50 for small images, ResNet-50.

Those for small images have the 3x3 stem without pooling that is customary for CIFAR.
ResNet-50 has the ImageNet stem; both carry their strides in the 3x3 convolutions
("v1.5"). With ``blur`` its feature maps are low-pass filtered before they are made
smaller (MaxBlurPool; Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML
2019).
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax

from apr_jax.models import layers


class _Block(layers.Part):
    """Two 3x3 convolutions, or 1x1, 3x3 and 1x1 with four times the channels."""

    features: int
    stride: int
    bottleneck: bool
    shortcut: str
    kernel_init: nn.initializers.Initializer
    blur: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        def conv_norm(
            names: tuple[str, str],
            x: jax.Array,
            features: int,
            kernel: int,
            stride: int = 1,
        ) -> jax.Array:
            x = self.convolve(
                names[0], x, features, kernel, stride=stride, init=self.kernel_init
            )
            return self.batch_norm(names[1], x, train)

        width, blur = self.features, self.blur and self.stride == 2
        stride = 1 if blur else self.stride
        if self.bottleneck:
            out = 4 * width
            y = nn.relu(conv_norm(("conv1", "bn1"), x, width, 1))
            y = nn.relu(conv_norm(("conv2", "bn2"), y, width, 3, stride))
            y = layers.blur_pool(y) if blur else y
            y = conv_norm(("conv3", "bn3"), y, out, 1)
        else:
            out = width
            y = nn.relu(conv_norm(("conv1", "bn1"), x, width, 3, stride))
            y = layers.blur_pool(y) if blur else y
            y = conv_norm(("conv2", "bn2"), y, width, 3)
        if x.shape[-1] != out or self.stride != 1:
            names = (f"{self.shortcut}_0", f"{self.shortcut}_1")
            x = layers.blur_pool(x) if blur else x
            x = conv_norm(names, x, out, 1, stride)
        return nn.relu(x + y)


class ResNet18(layers.Network):
    """ResNet-18 with the CIFAR stem. All kernels start as PyTorch's default.

    Attributes:
        width: features of the first stage; with 128 it is that of Diffenderfer et al.,
            "A Winning Hand", NeurIPS 2021.
    """

    width: int = 64
    called: ClassVar[str] = "resnet18"
    sizes: ClassVar[tuple[int, ...]] = (2, 2, 2, 2)
    bottleneck: ClassVar[bool] = False
    minimum_size: ClassVar[int] = 8
    linear: ClassVar[Mapping[str, Any]] = {"name": "linear", "zero_bias": False}

    @nn.nowrap
    def maps(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The maps of the last block."""
        init = layers.torch_default
        x = self.convolve("conv1", x, self.width, init=init)
        x = nn.relu(self.batch_norm("bn1", x, train))
        block = self.part(
            _Block, bottleneck=self.bottleneck, shortcut="shortcut", kernel_init=init
        )
        return layers.run_stages(x, block, self.sizes, train=train, width=self.width)


class ResNet50CIFAR(ResNet18):
    """ResNet-50 with the CIFAR stem, of bottlenecks; all else as ``ResNet18``."""

    called: ClassVar[str] = "resnet50_cifar"
    sizes: ClassVar[tuple[int, ...]] = (3, 4, 6, 3)
    bottleneck: ClassVar[bool] = True


class ImageNetResNet(layers.Network):
    """A ResNet with the ImageNet stem and torchvision's layout.

    He-normal (fan out) kernels; linear layer as PyTorch's default. With ``blur`` the
    largest value of each 2x2 window is taken at every place, and blurred before every
    second is kept; so are the maps before every other stride but the stem's.

    Attributes:
        sizes: blocks of each stage.
        bottleneck: whether a block is 1x1, 3x3 and 1x1, or two 3x3 convolutions.
    """

    blur: bool = False
    sizes: ClassVar[tuple[int, ...]]
    bottleneck: ClassVar[bool]
    minimum_size: ClassVar[int] = 32
    made_for: ClassVar[tuple[int, int]] = (224, 1000)
    linear: ClassVar[Mapping[str, Any]] = {"name": "fc", "zero_bias": False}

    @nn.nowrap
    def maps(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The maps of the last block."""
        x = self.convolve("conv1", x, 64, 7, stride=2)
        x = nn.relu(self.batch_norm("bn1", x, train))
        if self.blur:
            x = layers.blur_pool(nn.max_pool(x, (2, 2), (1, 1), "VALID"))
        else:
            x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        block = self.part(
            _Block,
            bottleneck=self.bottleneck,
            shortcut="downsample",
            kernel_init=layers.he_fan_out,
            blur=self.blur,
        )
        return layers.run_stages(x, block, self.sizes, train=train)


class ResNet50(ImageNetResNet):
    """ResNet-50."""

    called: ClassVar[str] = "resnet50"
    sizes: ClassVar[tuple[int, ...]] = (3, 4, 6, 3)
    bottleneck: ClassVar[bool] = True
