"""ResNeXt-29 for small images (Xie et al. 2017): bottlenecks with grouped 3x3."""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax

from apr_jax.models import layers


class _Block(layers.Part):
    features: int
    stride: int
    cardinality: int
    base_width: int

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        inner = self.features * self.base_width // 64 * self.cardinality
        out = 4 * self.features
        y = self.convolve("conv_reduce", x, inner, 1)
        y = nn.relu(self.batch_norm("bn_reduce", y, train))
        y = self.convolve(
            "conv_conv", y, inner, stride=self.stride, groups=self.cardinality
        )
        y = nn.relu(self.batch_norm("bn", y, train))
        y = self.batch_norm("bn_expand", self.convolve("conv_expand", y, out, 1), train)
        if x.shape[-1] != out or self.stride != 1:
            x = self.convolve("downsample_0", x, out, 1, stride=self.stride)
            x = self.batch_norm("downsample_1", x, train)
        return nn.relu(x + y)


class ResNeXt29(layers.Network):
    """Three stages of three blocks; `cardinality` groups of `base_width` channels.

    He-normal (fan out) kernels; linear layer He-normal (fan in) with zero bias.
    """

    cardinality: int
    base_width: int
    called: ClassVar[str] = "resnext29"
    minimum_size: ClassVar[int] = 4
    linear: ClassVar[Mapping[str, Any]] = {
        "name": "classifier",
        "init": nn.initializers.he_normal(),
    }

    @nn.nowrap
    def maps(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The maps of the last block."""
        x = self.convolve("conv_1_3x3", x, 64)
        x = nn.relu(self.batch_norm("bn_1", x, train))
        block = self.part(
            _Block, cardinality=self.cardinality, base_width=self.base_width
        )
        return layers.run_stages(x, block, (3, 3, 3), train=train, prefix="stage_")
