"""All-convolutional network, in the form that the AugMix experiments use.

Springenberg et al. 2015, "Striving for simplicity"; with BatchNorm, GELU in its
sigmoid form, max-pooling and dropout (Hendrycks et al. 2020).
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax

from apr_jax.models import layers

# (PyTorch index, channels, kernel, padding, pool and drop afterwards)
_LAYERS = (
    (0, 96, 3, 1, False),
    (3, 96, 3, 1, False),
    (6, 96, 3, 1, True),
    (11, 192, 3, 1, False),
    (14, 192, 3, 1, False),
    (17, 192, 3, 1, True),
    (22, 192, 3, 0, False),
    (25, 192, 1, 1, False),
    (28, 192, 1, 1, False),
)


class AllConv(layers.Network):
    """Nine convolutions, two 2x2 max-pools with dropout .5, global mean, linear.

    He-normal (fan out) kernels, zero biases. Training draws from the `dropout` key.
    """

    called: ClassVar[str] = "allconv"
    minimum_size: ClassVar[int] = 12
    linear: ClassVar[Mapping[str, Any]] = {"name": "classifier"}
    # Row and column i of the last maps see the part of the image where i - 1 would be.
    map_offset: ClassVar[int] = 1

    @nn.nowrap
    def maps(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The maps of the last convolution, less the last two rows and columns."""
        end = 0
        for index, channels, kernel, padding, pool in _LAYERS:
            name = f"features_{index}"
            x = self.convolve(name, x, channels, kernel, padding=padding, bias=True)
            x = self.batch_norm(f"features_{index + 1}", x, train)
            x = layers.sigmoid_gelu(x)
            if pool:
                x = layers.max_pool_2x2(x)
                x = nn.Dropout(0.5)(x, deterministic=not train)
            if pool or index == _LAYERS[-1][0]:
                end += 1
                x = layers.StageEnd(end)(x)
        # The two padded 1x1 layers give (size/4 + 2) pixels a side; the original's
        # 8x8 window at 32 px leaves the last two rows and columns out.
        return x[:, :-2, :-2]
