"""Wide residual networks (Zagoruyko and Komodakis 2016), pre-activation blocks."""

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
    dropout: float
    norm: str

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        def norm(name: str, x: jax.Array) -> jax.Array:
            if self.norm == "none":
                return nn.relu(x)
            layer = layers.BatchNorm(
                dtype=self.dtype, axis_name=self.sync_axis, name=name
            )
            return nn.relu(layer(x, train=train))

        def conv(
            name: str, x: jax.Array, kernel: int = 3, stride: int = 1
        ) -> jax.Array:
            return layers.conv(
                self.features, kernel, stride=stride, dtype=self.dtype, name=name
            )(x)

        y = norm("bn1", x)
        # Where the width changes the shortcut leaves after the activation.
        if x.shape[-1] != self.features:
            x = conv("conv_shortcut", y, 1, self.stride)
        y = norm("bn2", conv("conv1", y, stride=self.stride))
        if self.dropout:
            y = nn.Dropout(self.dropout, deterministic=not train)(y)
        return x + conv("conv2", y)


class _Group(nn.Module):
    features: int
    stride: int
    blocks: int
    dtype: Any
    sync_axis: str | None
    dropout: float
    norm: str

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for i in range(self.blocks):
            x = _Block(
                self.features,
                self.stride if i == 0 else 1,
                self.dtype,
                self.sync_axis,
                self.dropout,
                self.norm,
                name=f"layer_{i}",
            )(x, train=train)
        return x


class WideResNet(nn.Module):
    """WRN-depth-width; depth = 6n + 4.

    He-normal (fan out) kernels; linear layer as PyTorch's default with zero bias.
    ``dropout`` is between the two convolutions of a block (section 2.4 of the paper);
    ``norm`` "none" leaves BatchNorm out.
    """

    num_classes: int
    depth: int
    width: int
    dtype: Any = jnp.float32
    sync_axis: str | None = None
    dropout: float = 0.0
    norm: str = "batch"
    minimum_size: ClassVar[int] = 4

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool, capture: bool = False
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        layers.check_images(images, self.minimum_size, "wrn")
        x = images.astype(self.dtype)
        x = layers.conv(16, dtype=self.dtype, name="conv1")(x)
        for i, stride in enumerate((1, 2, 2)):
            x = _Group(
                16 * self.width * 2**i,
                stride,
                (self.depth - 4) // 6,
                self.dtype,
                self.sync_axis,
                self.dropout,
                self.norm,
                name=f"block{i + 1}",
            )(x, train=train)
        if self.norm == "batch":
            x = layers.BatchNorm(
                dtype=self.dtype, axis_name=self.sync_axis, name="bn1"
            )(x, train=train)
        x = nn.relu(x)
        return layers.classify(
            x, num_classes=self.num_classes, capture=capture, name="fc"
        )
