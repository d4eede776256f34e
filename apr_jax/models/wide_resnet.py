"""Wide residual networks (Zagoruyko and Komodakis 2016), pre-activation blocks."""

from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax

from apr_jax.models import layers


class _Block(layers.Part):
    features: int
    stride: int
    dropout: float
    norm: str

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        def norm(name: str, x: jax.Array) -> jax.Array:
            return nn.relu(
                x if self.norm == "none" else self.batch_norm(name, x, train)
            )

        y = norm("bn1", x)
        # Where the width changes the shortcut leaves after the activation.
        if x.shape[-1] != self.features:
            x = self.convolve("conv_shortcut", y, self.features, 1, stride=self.stride)
        y = self.convolve("conv1", y, self.features, stride=self.stride)
        y = norm("bn2", y)
        if self.dropout:
            y = nn.Dropout(self.dropout, deterministic=not train)(y)
        return x + self.convolve("conv2", y, self.features)


class _Group(nn.Module):
    block: Callable[..., Any]
    stride: int
    blocks: int

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for i in range(self.blocks):
            stride = self.stride if i == 0 else 1
            x = self.block(stride=stride, name=f"layer_{i}")(x, train=train)
        return x


class WideResNet(layers.Network):
    """WRN-depth-width; depth = 6n + 4.

    He-normal (fan out) kernels; linear layer as PyTorch's default with zero bias.
    ``dropout`` is between the two convolutions of a block (section 2.4 of the paper);
    ``norm`` "none" leaves BatchNorm out.
    """

    depth: int
    width: int
    dropout: float = 0.0
    norm: str = "batch"
    called: ClassVar[str] = "wrn"
    minimum_size: ClassVar[int] = 4

    @nn.nowrap
    def maps(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The maps of the last group, normalised unless ``norm`` is "none"."""
        x = self.convolve("conv1", x, 16)
        for i, stride in enumerate((1, 2, 2)):
            block = self.part(
                _Block,
                features=16 * self.width * 2**i,
                dropout=self.dropout,
                norm=self.norm,
            )
            group = _Group(block, stride, (self.depth - 4) // 6, name=f"block{i + 1}")
            x = layers.StageEnd(i + 1)(group(x, train=train))
        return nn.relu(x if self.norm == "none" else self.batch_norm("bn1", x, train))
