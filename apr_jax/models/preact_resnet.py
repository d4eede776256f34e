"""Pre-activation ResNet-18 (He et al. 2016, "Identity mappings") for small images."""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from apr_jax.models import layers


class _Block(nn.Module):
    features: int
    stride: int
    dtype: Any
    sync_axis: str | None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        def norm(name: str, x: jax.Array) -> jax.Array:
            layer = layers.BatchNorm(
                dtype=self.dtype, axis_name=self.sync_axis, name=name
            )
            return nn.relu(layer(x, train=train))

        def conv(name: str, x: jax.Array, kernel: int, stride: int) -> jax.Array:
            return layers.conv(
                self.features,
                kernel,
                stride=stride,
                init=layers.torch_default,
                dtype=self.dtype,
                name=name,
            )(x)

        y = conv("conv1", norm("bn1", x), 3, self.stride)
        # As in the code of "Fast is better than free" (Wong et al. 2020), which the
        # adversarial recipe follows, the shortcut takes the block's raw input.
        if x.shape[-1] != self.features or self.stride != 1:
            x = conv("shortcut_0", x, 1, self.stride)
        return x + conv("conv2", norm("bn2", y), 3, 1)


class PreActResNet18(nn.Module):
    """Pre-activation ResNet-18 with a 3x3 stem and a BatchNorm before pooling.

    All kernels start as PyTorch's default.
    """

    num_classes: int
    dtype: Any = jnp.float32
    sync_axis: str | None = None
    minimum_size: ClassVar[int] = 8

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool, capture: bool = False
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        layers.check_images(images, self.minimum_size, "preact_resnet18")
        init = layers.torch_default
        x = images.astype(self.dtype)
        x = layers.conv(64, init=init, dtype=self.dtype, name="conv1")(x)
        for stage in range(4):
            for i in range(2):
                stride = 2 if stage > 0 and i == 0 else 1
                x = _Block(
                    64 * 2**stage,
                    stride,
                    self.dtype,
                    self.sync_axis,
                    name=f"layer{stage + 1}_{i}",
                )(x, train=train)
        norm = layers.BatchNorm(dtype=self.dtype, axis_name=self.sync_axis, name="bn")
        return layers.classify(
            nn.relu(norm(x, train=train)),
            num_classes=self.num_classes,
            capture=capture,
            name="linear",
            zero_bias=False,
        )
