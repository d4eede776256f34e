"""Densely connected networks (Huang et al. 2017) with growth rate 12."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from apr_jax.models import layers


class _Layer(layers.Part):
    """BatchNorm, ReLU and convolution, whose output joins the input's channels."""

    growth: int
    bottleneck: bool

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = nn.relu(self.batch_norm("bn1", x, train))
        name = "conv1"
        if self.bottleneck:
            y = self.convolve("conv1", y, 4 * self.growth, 1)
            y = nn.relu(self.batch_norm("bn2", y, train))
            name = "conv2"
        return jnp.concatenate([x, self.convolve(name, y, self.growth)], -1)


class _Transition(layers.Part):
    features: int

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = nn.relu(self.batch_norm("bn1", x, train))
        return layers.avg_pool_2x2(self.convolve("conv1", x, self.features, 1))


class DenseNet(layers.Network):
    """DenseNet of three blocks; with `bottleneck` the BC form (halving transitions).

    He-normal (fan out) kernels; linear layer as PyTorch's default with zero bias.
    """

    depth: int
    bottleneck: bool
    growth: int = 12
    called: ClassVar[str] = "densenet"
    minimum_size: ClassVar[int] = 4

    @nn.nowrap
    def maps(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The maps of the last block, normalised."""
        per_block = (self.depth - 4) // (6 if self.bottleneck else 3)
        layer = self.part(_Layer, growth=self.growth, bottleneck=self.bottleneck)
        x = self.convolve("conv1", x, 2 * self.growth)
        for block in range(3):
            for i in range(per_block):
                x = layer(name=f"dense{block + 1}_{i}")(x, train=train)
            if block < 2:
                features = x.shape[-1] // (2 if self.bottleneck else 1)
                transition = self.part(_Transition, features=features)
                x = transition(name=f"trans{block + 1}")(x, train=train)
            x = layers.StageEnd(block + 1)(x)
        return nn.relu(self.batch_norm("bn1", x, train))
