"""All that a run carries from one step to the next."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.flatten_util
import jax.numpy as jnp
import optax

from apr_jax import augment
from apr_jax import config as config_lib
from apr_jax.network import Variables
from apr_jax.train import auxiliary_norm, optim


@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that a run carries from one step to the next.

    As a pytree it has no node for what is ``()``, so that runs without it save the same
    files as ever.

    Attributes:
        step: int32, steps done.
        params: the weights.
        batch_stats: BatchNorm's running statistics.
        opt_state: the optimiser's.
        constants: variables that no step changes, of networks that have some.
        average: of "params" and "batch_stats", where one is kept; see ``averaging``.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    constants: Any = ()
    average: Any = ()

    def replace(self, **changes: Any) -> "TrainState":
        """Returns the state with other values of some fields."""
        return dataclasses.replace(self, **changes)

    @property
    def fixed(self) -> Variables:
        """The collections for ``model.apply`` that no step changes."""
        return {} if self.constants == () else {"constants": self.constants}

    @property
    def variables(self) -> Variables:
        """The network for ``model.apply``: the average if there is one.

        Without a second BatchNorm.
        """
        learnt = {"params": self.params, "batch_stats": self.batch_stats}
        kept = learnt if self.average == () else self.average
        return {
            **{name: auxiliary_norm.without(tree) for name, tree in kept.items()},
            **self.fixed,
        }


def _flatten(state: TrainState) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
    values = {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}
    for name in ("constants", "average"):
        if values[name] == ():
            del values[name]
    keys = jax.tree_util.GetAttrKey
    return [(keys(name), value) for name, value in values.items()], tuple(values)


jax.tree_util.register_pytree_with_keys(
    TrainState,
    _flatten,
    lambda names, values: TrainState(**dict(zip(names, values, strict=True))),
)


def init_state(
    key: jax.Array,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    *,
    second_norm: bool = False,
    average: bool = False,
) -> TrainState:
    """Returns the state before the first step; ``image_shape`` is (H, W, C).

    With ``second_norm`` there is a second set of BatchNorm layers, as the method of a
    configuration may ask for; with ``average`` a copy to average in.
    """

    def init(key: jax.Array) -> TrainState:
        variables = model.init(key, jnp.zeros((1, *image_shape)), train=False)
        params, batch_stats = variables["params"], variables.get("batch_stats", {})
        if second_norm:
            params, batch_stats = auxiliary_norm.add(params, batch_stats)
        learnt = {"params": params, "batch_stats": batch_stats}
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=batch_stats,
            opt_state=optimizer.init(params),
            constants=variables.get("constants", ()),
            average=jax.tree.map(jnp.copy, learnt) if average else (),
        )

    return jax.jit(init)(key)


def state_of(config: config_lib.Config, model: nn.Module) -> TrainState:
    """Returns the state that a run of ``config`` and its ``model`` begins with."""
    size = config.data.image_size
    rate = optax.constant_schedule(0.0)  # any: the state only counts its steps
    return init_state(
        jax.random.key(config.seed),
        model,
        optim.make_optimizer(config.optim, rate),
        (size, size, len(config.data.mean)),
        second_norm=augment.get_method(config.augment.method).auxiliary,
        average=config.optim.average != "none",
    )
