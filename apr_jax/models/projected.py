"""A network for contrastive training: a projection beside its linear layer."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from apr_jax.models import layers

# The linear layer's name among the parameters.
HEADS = "heads"


class Projected(nn.Module):
    """A network's features, a linear layer of them, and in training a projection.

    The parameters lie beside the network's own, of which the linear layer (to be built
    with one output) is not used. The projection is an MLP with one hidden layer as
    wide as the features (Khosla et al., NeurIPS 2020, section 3.1).

    Attributes:
        network: of ``apr_jax.models``.
        num_outputs: of the linear layer.
        width: of the projection.
    """

    network: nn.Module
    num_outputs: int
    width: int = 128

    def setup(self) -> None:
        """Puts all parameters on one level."""
        nn.share_scope(self, self.network)

    @property
    def map_offset(self) -> int:
        """The network's; see ``apr_jax.models.grad_cam``."""
        return getattr(self.network, "map_offset", 0)

    @nn.nowrap
    def constants_of(self, images: np.ndarray) -> Mapping[str, Any]:
        """The network's; see ``layers.Network``."""
        return self.network.constants_of(images)

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        *,
        train: bool,
        capture: bool = False,
        project: bool = False,
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        """Logits ``[N, num_outputs]``, as every network's; with capture features too.

        With `project` logits and projections ``[N, width]``. Those logits teach the
        linear layer alone: no gradient passes from them to the features.
        """
        _, features = self.network(images, train=train, capture=True)
        dense = functools.partial(nn.Dense, kernel_init=layers.torch_default)
        heads = dense(self.num_outputs, name=HEADS)
        hidden = dense(features.shape[-1], name="projection_0")
        last = dense(self.width, name="projection_1")
        if project or self.is_initializing():
            projections = last(nn.relu(hidden(features)))
        if project:
            return heads(jax.lax.stop_gradient(features)), projections
        logits = heads(features)
        return (logits, features) if capture else logits
