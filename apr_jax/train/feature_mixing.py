"""Features of a batch blended inside the network, at a depth that each step draws.

The depths are the normalised images (0) and the ends of the network's stages, marked by
``apr_jax.models.StageEnd``. All built-in networks mark at least three. A network of a
user's has those that its file marks, in the same way.

A batch's images are blended with those on the same device; all devices have the same
depth, and each has a weight and an order of its own. Noise follows the image's place in
the global batch.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from apr_jax import augment
from apr_jax import config as config_lib
from apr_jax.errors import ConfigError
from apr_jax.models import StageEnd
from apr_jax.train.auxiliary_norm import Forward, Tree
from apr_jax.train.image_pairs import Share, apart
from apr_jax.train.single_image import knobs_of


class Mixing(NamedTuple):
    """The draws of a step for its features.

    Attributes:
        key: of the method's stage on this device.
        depth: int32 [], where: 0 for the images, i for the end of stage i.
        positions: int32 [B], places in the global batch.
    """

    key: jax.Array
    depth: jax.Array
    positions: jax.Array


def draw(key: jax.Array, share: Share) -> tuple[Mixing, jax.Array, jax.Array]:
    """Where and how features are blended.

    Args:
        key: the step's, for what happens between images.
        share: the device's.

    Returns:
        The draws; the labels int [B] of what is blended in; the weight float32 [] of
        the images' own.
    """
    labels, positions, config, axis_name = share
    # 0 to 4 are those of `image_pairs`.
    depth_key, mix_key = (jax.random.fold_in(key, i) for i in (5, 6))
    depth = jax.random.randint(depth_key, (), 0, config.augment.mix_depth + 1)
    mix_key = apart(mix_key, axis_name)
    partner, weight = augment.draw_blend(
        mix_key, len(labels), alpha=config.augment.mix_alpha
    )
    return Mixing(mix_key, depth, positions), labels[partner], weight


def through(
    forward: Forward, mixing: Mixing, views: int, config: config_lib.Config
) -> Forward:
    """Returns a pass forward whose features are blended on the way.

    Args:
        forward: of ``auxiliary_norm.make_forward``, with one pass.
        mixing: of ``draw``.
        views: how many the images are.
        config: its ``augment`` part is used.
    """
    stage = augment.get_method(config.augment.method).features
    assert stage is not None
    blend = functools.partial(
        stage.function, mixing.key, views=views, **knobs_of(stage, config)
    )

    def passed(depth: int, features: jax.Array) -> jax.Array:
        if depth > config.augment.mix_depth:
            return features
        mixed = lambda x, positions: blend(x, positions=positions)
        plain = lambda x, positions: x
        return jax.lax.cond(
            mixing.depth == depth, mixed, plain, features, mixing.positions
        )

    def run(
        params: Tree, batch_stats: Tree, inputs: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Tree]:
        with _at_ends(passed):
            return forward(params, batch_stats, passed(0, inputs), key)

    return run


def check(model: nn.Module, config: config_lib.Config, devices: int) -> None:
    """Raises ConfigError where features can't be blended as a configuration says.

    Args:
        model: the network.
        config: that of the run.
        devices: their number.
    """
    if augment.get_method(config.augment.method).features is None:
        return
    if devices > 1 and config.augment.pair_donors == "global":
        raise ConfigError(
            f"augment.pair_donors is 'global', but {config.augment.method!r} blends "
            "features, which stay on their device; choose 'device'"
        )
    wanted, found = config.augment.mix_depth, ends(model, config)
    missing = sorted(set(range(1, wanted + 1)) - found)
    if missing:
        there = f"marks the ends {sorted(found)}" if found else "marks no end"
        raise ConfigError(
            f"augment.mix_depth is {wanted}, but model.name {config.model.name!r} "
            f"{there} of a stage, where features could be blended: lower the depth "
            "(0: pixels alone), or put apr_jax.models.StageEnd(1), (2), ... into the "
            "network's file"
        )


def ends(model: nn.Module, config: config_lib.Config) -> set[int]:
    """The ends of stages that a network passes, found by tracing it."""
    seen: set[int] = set()

    def note(number: int, features: jax.Array) -> jax.Array:
        seen.add(number)
        return features

    size = config.data.image_size
    image = jnp.zeros((1, size, size, len(config.data.mean)))
    with _at_ends(note):
        jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))
    return seen


def _at_ends(change: Callable[[int, jax.Array], jax.Array]) -> Any:
    """A context in which what passes an end of a stage is changed."""

    def intercept(function: Any, args: Any, kwargs: Any, context: Any) -> Any:
        found = function(*args, **kwargs)
        if isinstance(context.module, StageEnd):
            return change(context.module.number, found)
        return found

    return nn.intercept_methods(intercept)
