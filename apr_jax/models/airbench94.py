"""The network of "94% on CIFAR-10 in 3.29 seconds" (Jordan, arXiv:2404.00498).

Patches of 2x2 pixels whitened by a fixed layer, then three blocks of two 3x3
convolutions. The whitening lies in the collection "constants": `init` draws it as any
kernel, and a training run computes it from its own images before the first step
(`Airbench94.constants_of`). Departures: its bias learns to the end, not for the first
three epochs, and GELU has its sigmoid form, which takes half of the time on a CPU.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from apr_jax.models import convolution, layers

# Added to the variances that the whitening divides by.
_EPSILON = 5e-4
# Images at a time whose patches are in memory.
_CHUNK = 500


def whitening(images: np.ndarray, *, epsilon: float = _EPSILON) -> np.ndarray:
    """Kernels whose answers to patches of 2x2 pixels are uncorrelated, of variance 1.

    The eigenvectors of the patches' second moments (not centred), each over the root of
    its eigenvalue plus `epsilon`, largest first, and then all of them with the other
    sign. An eigenvector's largest entry is positive.

    Args:
        images: normalised, float32 [N, H, W, C].
        epsilon: above 0, which keeps what hardly varies from growing.

    Returns:
        float32 [2, 2, C, 8 C].
    """
    channels = images.shape[-1]
    moments, count = np.zeros((4 * channels, 4 * channels)), 0
    for start in range(0, len(images), _CHUNK):
        x = np.asarray(images[start : start + _CHUNK], np.float64)
        corners = [x[:, i : i - 1 or None, j : j - 1 or None] for i, j in _CORNERS]
        patches = np.concatenate(corners, -1).reshape(-1, 4 * channels)
        moments += patches.T @ patches
        count += len(patches)
    values, vectors = np.linalg.eigh(moments / count)
    values, vectors = values[::-1], vectors[:, ::-1]
    largest = np.abs(vectors).argmax(0)
    vectors = vectors * np.sign(vectors[largest, np.arange(len(values))])
    kernel = vectors / np.sqrt(np.maximum(values, 0) + epsilon)
    both = np.concatenate([kernel, -kernel], 1)
    return both.reshape(2, 2, channels, -1).astype(np.float32)


# The places of a patch, row and column, in a kernel's order.
_CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))


def _identity_start(
    key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32
) -> jax.Array:
    """A kernel whose first outputs are its inputs, the further ones PyTorch's start."""
    same = np.arange(min(shape[2:]))
    kernel = layers.torch_default(key, shape, dtype)
    return kernel.at[..., : len(same)].set(0.0).at[1, 1, same, same].set(1.0)


class _Whitening(nn.Module):
    """Convolution with the fixed kernel, and a bias that learns."""

    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (2, 2, x.shape[-1], 8 * x.shape[-1])
        kernel = self.variable(
            "constants",
            "kernel",
            lambda: layers.torch_default(self.make_rng("params"), shape),
        )
        bias = self.param("bias", nn.initializers.zeros, shape[-1:], jnp.float32)
        numbers = ("NHWC", "HWIO", "NHWC")
        x = convolution.conv_general_dilated(
            x,
            kernel.value.astype(self.dtype),
            (1, 1),
            ((0, 0), (0, 0)),
            dimension_numbers=numbers,
        )
        return x + bias.astype(self.dtype).reshape(1, 1, 1, -1)


class _Block(layers.Part):
    features: int

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for i in ("1", "2"):
            x = self.convolve(f"conv{i}", x, self.features, init=_identity_start)
            if i == "1":
                x = layers.max_pool_2x2(x)
            x = self.batch_norm(
                f"norm{i}", x, train, momentum=0.6, epsilon=1e-12, use_scale=False
            )
            x = layers.sigmoid_gelu(x)
        return x


def _pool(maps: jax.Array) -> jax.Array:
    """Largest of 3x3 places, and the factor 1/9 of the logits."""
    return layers.max_pool_by_place(maps, 3) / 9


class Airbench94(layers.Network):
    """Whitening, blocks of 64, 256 and 256 maps, 3x3 max-pool, a layer without bias.

    BatchNorm without a scale, with a running mean that forgets 0.4 in a step; GELU.
    """

    called: ClassVar[str] = "airbench94"
    minimum_size: ClassVar[int] = 25
    linear: ClassVar[Mapping[str, Any]] = {
        "name": "fc",
        "use_bias": False,
        "pool": _pool,
    }

    @nn.nowrap
    def maps(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The maps of the last block, before the last pooling."""
        x = layers.sigmoid_gelu(_Whitening(self.dtype, name="whiten")(x))
        for i, features in enumerate((64, 256, 256), 1):
            x = self.part(_Block)(features=features, name=f"block{i}")(x, train=train)
            x = layers.StageEnd(i)(x)
        return x

    @nn.nowrap
    def constants_of(self, images: np.ndarray) -> Mapping[str, Any]:
        """The whitening of a training's images; see ``layers.Network``."""
        return {"whiten": {"kernel": whitening(images)}}
