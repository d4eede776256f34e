"""An average of the weights and of BatchNorm's statistics, which is what is measured.

An exponential moving average follows the network that learns. With "lookahead" that
network also goes back to the average after each of its updates, and learns on from
there; its momentum stays. Either covers all that is learnt, a second set of BatchNorm
layers included, and lies in the state beside it, in float32. What is measured, watched,
held out and kept as the network is the average; only the training loss and an adversary
know the network that learns.

Sources: Zhang et al., "Lookahead Optimizer", NeurIPS 2019; the decay that grows with
the cube of the share of the run that is done, and the statistics averaged with the
weights, are those of Jordan, arXiv:2404.00498.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from apr_jax import config as config_lib
from apr_jax.train import contrastive
from apr_jax.train.state import TrainState

Update = Callable[[TrainState], TrainState]


def make_update(config: config_lib.Config, total_steps: int) -> Update | None:
    """Returns a function of the state after a step; None where there is no average.

    At every ``average_every``-th step the average a becomes d a + (1 - d) x. Here x is
    the network that learns, and d ``average_decay`` for each step since, times the
    share of the run that is done to the power ``average_power``. A contrastive method's
    network becomes its average at the end of the first stage, so that the linear layer
    learns from the features that are measured; these then stay.

    Args:
        config: its ``optim`` part is used, and its method.
        total_steps: steps of the run.
    """
    optim = config.optim
    if optim.average == "none":
        return None
    first_stage = contrastive.linear_start(config, total_steps)

    def update(state: TrainState) -> TrainState:
        learning = {"params": state.params, "batch_stats": state.batch_stats}
        share = state.step / total_steps
        decay = optim.average_decay**optim.average_every * share**optim.average_power
        due = state.step % optim.average_every == 0
        average = jax.tree.map(
            # In this form equal values stay equal to the bit.
            lambda a, x: jnp.where(due, a + (1 - decay) * (x - a), a),
            state.average,
            learning,
        )
        goes_there = due if optim.average == "lookahead" else False
        if first_stage < total_steps:
            goes_there |= state.step == first_stage
        learning = jax.tree.map(
            lambda a, x: jnp.where(goes_there, a, x), average, learning
        )
        return state.replace(**learning, average=average)

    return update
