"""All that a run carries from one step to the next."""

from typing import Any

import flax
import flax.linen as nn
import jax
import jax.flatten_util
import jax.numpy as jnp
import optax

from apr_jax import augment
from apr_jax import config as config_lib
from apr_jax.network import Variables
from apr_jax.train import auxiliary_norm, optim


@flax.struct.dataclass
class TrainState:
    """All that a run carries from one step to the next."""

    step: jax.Array  # int32, steps done
    params: Any
    batch_stats: Any
    opt_state: Any

    @property
    def variables(self) -> Variables:
        """The network for ``model.apply``, without a second BatchNorm."""
        return {
            "params": auxiliary_norm.without(self.params),
            "batch_stats": auxiliary_norm.without(self.batch_stats),
        }


def init_state(
    key: jax.Array,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    *,
    second_norm: bool = False,
) -> TrainState:
    """Returns the state before the first step; ``image_shape`` is (H, W, C).

    With ``second_norm`` there is a second set of BatchNorm layers, as the method of a
    configuration may ask for.
    """

    def init(key: jax.Array) -> TrainState:
        variables = model.init(key, jnp.zeros((1, *image_shape)), train=False)
        params, batch_stats = variables["params"], variables.get("batch_stats", {})
        if second_norm:
            params, batch_stats = auxiliary_norm.add(params, batch_stats)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=batch_stats,
            opt_state=optimizer.init(params),
        )

    return jax.jit(init)(key)


def state_of(config: config_lib.Config, model: nn.Module) -> TrainState:
    """Returns the state that a run of ``config`` and its ``model`` begins with."""
    size = config.data.image_size
    rate = optax.constant_schedule(0.0)  # any: the state only counts its steps
    return init_state(
        jax.random.key(config.seed),
        model,
        optim.sgd(config.optim, rate),
        (size, size, len(config.data.mean)),
        second_norm=augment.get_method(config.augment.method).auxiliary,
    )
