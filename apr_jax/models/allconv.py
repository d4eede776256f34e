"""All-convolutional network, in the form that the AugMix experiments use.

Springenberg et al. 2015, "Striving for simplicity"; with BatchNorm, GELU in its
sigmoid form, max-pooling and dropout (Hendrycks et al. 2020).
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

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


class AllConv(nn.Module):
    """Nine convolutions, two 2x2 max-pools with dropout .5, global mean, linear.

    He-normal (fan out) kernels, zero biases. Training draws from the `dropout` key.
    """

    num_classes: int
    dtype: Any = jnp.float32
    sync_axis: str | None = None
    minimum_size: ClassVar[int] = 12
    # Row and column i of the last maps see the part of the image where i - 1 would be.
    map_offset: ClassVar[int] = 1

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool, capture: bool = False
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        layers.check_images(images, self.minimum_size, "allconv")
        x = images.astype(self.dtype)
        for index, channels, kernel, padding, pool in _LAYERS:
            x = layers.conv(
                channels,
                kernel,
                padding=padding,
                bias=True,
                dtype=self.dtype,
                name=f"features_{index}",
            )(x)
            x = layers.BatchNorm(
                dtype=self.dtype,
                axis_name=self.sync_axis,
                name=f"features_{index + 1}",
            )(x, train=train)
            x = x * nn.sigmoid(1.702 * x)
            if pool:
                x = layers.max_pool_2x2(x)
                x = nn.Dropout(0.5)(x, deterministic=not train)
        # The two padded 1x1 layers give (size/4 + 2) pixels a side; the original's
        # 8x8 window at 32 px leaves the last two rows and columns out.
        return layers.classify(
            x[:, :-2, :-2],
            num_classes=self.num_classes,
            capture=capture,
            name="classifier",
        )
