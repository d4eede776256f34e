"""A second set of BatchNorm layers, for views that the first should know nothing of.

All other parameters are shared. The second set starts as a copy of the first and is
used in training only: what is measured and kept as the network is the first.

Source: Xie et al., "Adversarial Examples Improve Image Recognition", CVPR 2020, section
4, whose auxiliary BatchNorm AFA (Vaish et al., CVPR 2024) takes for its waves.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

# Beside the network's own entries, in the parameters and in the running statistics.
KEY = "auxiliary"

Tree = Mapping[str, Any]
_NOTHING: Tree = {}
# (parameters, running statistics, normalised images [N, H, W, C], key of dropout) ->
# (logits [N, K], new running statistics)
Forward = Callable[[Tree, Tree, jax.Array, jax.Array], tuple[jax.Array, Tree]]


def add(params: Tree, batch_stats: Tree) -> tuple[Tree, Tree]:
    """Returns parameters and running statistics with a second set of BatchNorm."""
    return (
        {**params, KEY: jax.tree.map(jnp.copy, _of_norms(params, batch_stats))},
        {**batch_stats, KEY: jax.tree.map(jnp.copy, dict(batch_stats))},
    )


def without(tree: Tree) -> Tree:
    """Returns parameters or statistics of the network alone; others unchanged."""
    return {name: value for name, value in tree.items() if name != KEY}


def second(params: Tree, batch_stats: Tree) -> tuple[Tree, Tree]:
    """Returns the network with the second set of BatchNorm in the first one's place."""
    flat = traverse_util.flatten_dict(dict(without(params)))
    flat.update(traverse_util.flatten_dict(dict(params[KEY])))
    return traverse_util.unflatten_dict(flat), batch_stats[KEY]


def make_forward(
    model: nn.Module, *, auxiliary: bool, views: int, fixed: Tree = _NOTHING
) -> Forward:
    """Returns the pass forward of training.

    Args:
        model: the network.
        auxiliary: the last of the views goes through the second set, in a pass of its
            own. Otherwise all of them are one batch.
        views: how many lie behind each other in the images, of equally many each.
        fixed: further collections, which both passes share.
    """

    def once(
        params: Tree, batch_stats: Tree, inputs: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Tree]:
        logits, updates = model.apply(
            {"params": params, "batch_stats": batch_stats, **fixed},
            inputs,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        return logits, updates.get("batch_stats", {})

    def twice(
        params: Tree, batch_stats: Tree, inputs: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Tree]:
        cut = len(inputs) // views * (views - 1)
        logits, stats = once(without(params), without(batch_stats), inputs[:cut], key)
        others, other_stats = once(
            *second(params, batch_stats), inputs[cut:], jax.random.fold_in(key, 1)
        )
        return jnp.concatenate([logits, others]), {**stats, KEY: other_stats}

    return twice if auxiliary else once


def _of_norms(params: Tree, batch_stats: Tree) -> Tree:
    """The parameters of those layers that have running statistics."""
    layers = {path[:-1] for path in traverse_util.flatten_dict(dict(batch_stats))}
    flat = traverse_util.flatten_dict(dict(params))
    return traverse_util.unflatten_dict(
        {path: value for path, value in flat.items() if path[:-1] in layers}
    )
