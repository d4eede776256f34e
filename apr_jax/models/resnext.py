"""ResNeXt-29 for small images (Xie et al. 2017): bottlenecks with grouped 3x3."""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from apr_jax.models import layers


class _Block(nn.Module):
    features: int
    stride: int
    cardinality: int
    base_width: int
    dtype: Any
    sync_axis: str | None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        def conv(
            name: str, x: jax.Array, out: int, kernel: int, stride: int, groups: int
        ) -> jax.Array:
            return layers.conv(
                out, kernel, stride=stride, groups=groups, dtype=self.dtype, name=name
            )(x)

        def norm(name: str, x: jax.Array) -> jax.Array:
            return layers.BatchNorm(
                dtype=self.dtype, axis_name=self.sync_axis, name=name
            )(x, train=train)

        inner = self.features * self.base_width // 64 * self.cardinality
        out = 4 * self.features
        y = nn.relu(norm("bn_reduce", conv("conv_reduce", x, inner, 1, 1, 1)))
        y = conv("conv_conv", y, inner, 3, self.stride, self.cardinality)
        y = nn.relu(norm("bn", y))
        y = norm("bn_expand", conv("conv_expand", y, out, 1, 1, 1))
        if x.shape[-1] != out or self.stride != 1:
            x = conv("downsample_0", x, out, 1, self.stride, 1)
            x = norm("downsample_1", x)
        return nn.relu(x + y)


class ResNeXt29(nn.Module):
    """Three stages of three blocks; `cardinality` groups of `base_width` channels.

    He-normal (fan out) kernels; linear layer He-normal (fan in) with zero bias.
    """

    num_classes: int
    cardinality: int
    base_width: int
    dtype: Any = jnp.float32
    sync_axis: str | None = None
    minimum_size: ClassVar[int] = 4

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool, capture: bool = False
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        layers.check_images(images, self.minimum_size, "resnext29")
        x = images.astype(self.dtype)
        x = layers.conv(64, dtype=self.dtype, name="conv_1_3x3")(x)
        norm = layers.BatchNorm(dtype=self.dtype, axis_name=self.sync_axis, name="bn_1")
        x = nn.relu(norm(x, train=train))
        for stage in range(3):
            for i in range(3):
                x = _Block(
                    64 * 2**stage,
                    2 if stage > 0 and i == 0 else 1,
                    self.cardinality,
                    self.base_width,
                    self.dtype,
                    self.sync_axis,
                    name=f"stage_{stage + 1}_{i}",
                )(x, train=train)
        return layers.classify(
            x,
            num_classes=self.num_classes,
            capture=capture,
            name="classifier",
            init=nn.initializers.he_normal(),
        )
