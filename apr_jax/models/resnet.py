"""Residual networks (He et al. 2016): ResNet-18 for small images, ResNet-50.

ResNet-18 has the 3x3 stem without pooling that is customary for CIFAR. ResNet-50 has
the ImageNet stem and carries its strides in the 3x3 convolutions ("v1.5"). With
``blur`` its feature maps are low-pass filtered before they are made smaller
(MaxBlurPool; Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019).
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from apr_jax.models import layers


class _Block(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3 and 1x1 with four times the channels."""

    features: int
    stride: int
    bottleneck: bool
    shortcut: str
    kernel_init: nn.initializers.Initializer
    dtype: Any
    sync_axis: str | None
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
            x = layers.conv(
                features,
                kernel,
                stride=stride,
                init=self.kernel_init,
                dtype=self.dtype,
                name=names[0],
            )(x)
            return layers.BatchNorm(
                dtype=self.dtype, axis_name=self.sync_axis, name=names[1]
            )(x, train=train)

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


def _stages(
    x: jax.Array, sizes: tuple[int, ...], *, train: bool, **block: Any
) -> jax.Array:
    """Stages of 64, 128, 256 and 512 features; all but the first halve the size."""
    for stage, size in enumerate(sizes):
        for i in range(size):
            stride = 2 if stage > 0 and i == 0 else 1
            name = f"layer{stage + 1}_{i}"
            x = _Block(64 * 2**stage, stride, name=name, **block)(x, train=train)
    return x


class ResNet18(nn.Module):
    """ResNet-18 with the CIFAR stem. All kernels start as PyTorch's default."""

    num_classes: int
    dtype: Any = jnp.float32
    sync_axis: str | None = None
    minimum_size: ClassVar[int] = 8

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool, capture: bool = False
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        layers.check_images(images, self.minimum_size, "resnet18")
        init = layers.torch_default
        x = images.astype(self.dtype)
        x = layers.conv(64, init=init, dtype=self.dtype, name="conv1")(x)
        norm = layers.BatchNorm(dtype=self.dtype, axis_name=self.sync_axis, name="bn1")
        x = _stages(
            nn.relu(norm(x, train=train)),
            (2, 2, 2, 2),
            train=train,
            bottleneck=False,
            shortcut="shortcut",
            kernel_init=init,
            dtype=self.dtype,
            sync_axis=self.sync_axis,
        )
        return layers.classify(
            x,
            num_classes=self.num_classes,
            capture=capture,
            name="linear",
            zero_bias=False,
        )


class ResNet50(nn.Module):
    """ResNet-50 with the ImageNet stem and torchvision's layout.

    He-normal (fan out) kernels; linear layer as PyTorch's default. With ``blur`` the
    largest value of each 2x2 window is taken at every place, and blurred before every
    second is kept; so are the maps before every other stride but the stem's.
    """

    num_classes: int
    dtype: Any = jnp.float32
    sync_axis: str | None = None
    blur: bool = False
    minimum_size: ClassVar[int] = 32

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool, capture: bool = False
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        layers.check_images(images, self.minimum_size, "resnet50")
        x = images.astype(self.dtype)
        x = layers.conv(64, 7, stride=2, dtype=self.dtype, name="conv1")(x)
        norm = layers.BatchNorm(dtype=self.dtype, axis_name=self.sync_axis, name="bn1")
        x = nn.relu(norm(x, train=train))
        if self.blur:
            x = layers.blur_pool(nn.max_pool(x, (2, 2), (1, 1), "VALID"))
        else:
            x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        x = _stages(
            x,
            (3, 4, 6, 3),
            train=train,
            bottleneck=True,
            shortcut="downsample",
            kernel_init=layers.he_fan_out,
            dtype=self.dtype,
            sync_axis=self.sync_axis,
            blur=self.blur,
        )
        return layers.classify(
            x,
            num_classes=self.num_classes,
            capture=capture,
            name="fc",
            zero_bias=False,
        )
