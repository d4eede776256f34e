"""Densely connected networks (Huang et al. 2017) with growth rate 12."""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from apr_jax.models import layers


class _Layer(nn.Module):
    """BatchNorm, ReLU and convolution, whose output joins the input's channels."""

    growth: int
    bottleneck: bool
    dtype: Any
    sync_axis: str | None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        def norm(name: str, x: jax.Array) -> jax.Array:
            layer = layers.BatchNorm(
                dtype=self.dtype, axis_name=self.sync_axis, name=name
            )
            return nn.relu(layer(x, train=train))

        y = norm("bn1", x)
        name = "conv1"
        if self.bottleneck:
            y = layers.conv(4 * self.growth, 1, dtype=self.dtype, name="conv1")(y)
            y = norm("bn2", y)
            name = "conv2"
        y = layers.conv(self.growth, dtype=self.dtype, name=name)(y)
        return jnp.concatenate([x, y], -1)


class _Transition(nn.Module):
    features: int
    dtype: Any
    sync_axis: str | None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        norm = layers.BatchNorm(dtype=self.dtype, axis_name=self.sync_axis, name="bn1")
        x = nn.relu(norm(x, train=train))
        x = layers.conv(self.features, 1, dtype=self.dtype, name="conv1")(x)
        return layers.avg_pool_2x2(x)


class DenseNet(nn.Module):
    """DenseNet of three blocks; with `bottleneck` the BC form (halving transitions).

    He-normal (fan out) kernels; linear layer as PyTorch's default with zero bias.
    """

    num_classes: int
    depth: int
    bottleneck: bool
    growth: int = 12
    dtype: Any = jnp.float32
    sync_axis: str | None = None
    minimum_size: ClassVar[int] = 4

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool, capture: bool = False
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        layers.check_images(images, self.minimum_size, "densenet")
        per_block = (self.depth - 4) // (6 if self.bottleneck else 3)
        x = images.astype(self.dtype)
        x = layers.conv(2 * self.growth, dtype=self.dtype, name="conv1")(x)
        for block in range(3):
            for i in range(per_block):
                x = _Layer(
                    self.growth,
                    self.bottleneck,
                    self.dtype,
                    self.sync_axis,
                    name=f"dense{block + 1}_{i}",
                )(x, train=train)
            if block < 2:
                x = _Transition(
                    x.shape[-1] // (2 if self.bottleneck else 1),
                    self.dtype,
                    self.sync_axis,
                    name=f"trans{block + 1}",
                )(x, train=train)
        norm = layers.BatchNorm(dtype=self.dtype, axis_name=self.sync_axis, name="bn1")
        return layers.classify(
            nn.relu(norm(x, train=train)),
            num_classes=self.num_classes,
            capture=capture,
            name="fc",
        )
