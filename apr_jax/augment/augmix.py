"""AugMix: chains of operations mixed with the image, and its consistency loss.

Hendrycks et al., "AugMix: A Simple Data Processing Method to Improve Robustness and
Uncertainty", ICLR 2020, section 3 and algorithm 1.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from apr_jax.augment import ops as ops_lib
from apr_jax.augment.apr_single import LOWEST_LEVEL, chunk_size, to_levels
from apr_jax.augment.keys import per_image_keys
from apr_jax.augment.packed import pack, unpack
from apr_jax.errors import ArgumentError
from apr_jax.gates.images import images_gate


class Chains(NamedTuple):
    """The draws of `augmix` for N images, W chains each, of up to D operations.

    Attributes:
        weight: float32 [N, W], of the chains, summing to 1.
        blend: float32 [N], the chains' share; the rest is the image's own.
        depth: int32 [N, W], operations in each chain, 1 to D.
        op: int32 [N, W, D], places in the set of operations.
        level: float32 [N, W, D], in [0.1, severity].
        negate: bool [N, W, D], the direction.
    """

    weight: jax.Array
    blend: jax.Array
    depth: jax.Array
    op: jax.Array
    level: jax.Array
    negate: jax.Array


@images_gate("either", rounds=True)
def augmix(
    key: jax.Array,
    images: jax.Array,
    *,
    width: int = 3,
    depth: int = 3,
    severity: float = 3.0,
    alpha: float = 1.0,
    ops: str = "base",
    chunk: int | str = "auto",
) -> jax.Array:
    """(1 - m) x + m sum_i w_i chain_i(x), for each image by itself.

    w is drawn from Dirichlet(alpha, ..., alpha), m from Beta(alpha, alpha); each chain
    has 1 to `depth` operations at a level from U(0.1, severity). Crop and flip come
    before it.

    Args:
        key: one key, or one per image [N].
        images: [N, H, W, C], C of 1 or 3: uint8, or floating point in [0, 1], which is
            rounded to 256 grey levels first.
        width: number of chains.
        depth: most operations of a chain.
        severity, ops, chunk: as `apr_single`'s `level`, `ops` and `chunk`.
        alpha: of both distributions, positive.

    Returns:
        [N, H, W, C] in [0, 1]; float32 for uint8 images, else of their type.

    Raises:
        ValueError: an unknown name, another shape, a wrong number of keys, or a number
            out of range.
    """
    names = ops_lib.op_set(ops)
    levels = to_levels(images)
    count, height, breadth, channels = levels.shape
    drawn = draw_chains(
        key, count, width=width, depth=depth, severity=severity, alpha=alpha, ops=ops
    )
    active = jnp.arange(depth)[None, None] < drawn.depth[..., None]
    op = jnp.where(active, drawn.op, len(names))
    steps = [array.reshape(-1, depth).T for array in (op, drawn.level, drawn.negate)]
    words = ops_lib.apply_in_turn(
        jnp.repeat(pack(levels), width, axis=0),
        steps,
        names=names,
        channels=channels,
        chunk=chunk_size(chunk, height, breadth),
    )
    chains = unpack(words, channels).reshape(count, width, height, breadth, channels)
    mixed = mix_chains(levels, chains, drawn.weight, drawn.blend)
    dtype = jnp.float32 if images.dtype == jnp.uint8 else images.dtype
    return (mixed / 255).astype(dtype)


def draw_chains(
    key: jax.Array,
    count: int,
    *,
    width: int,
    depth: int,
    severity: float,
    alpha: float,
    ops: str,
) -> Chains:
    """The draws of `augmix`, with its arguments."""
    shape = (width, depth)
    number = len(ops_lib.op_set(ops))

    def draw(key: jax.Array) -> Chains:
        mix_key, depth_key, op_key, level_key, sign_key = jax.random.split(key, 5)
        weight, blend = draw_mixture(mix_key, width=width, alpha=alpha)
        return Chains(
            weight,
            blend,
            jax.random.randint(depth_key, (width,), 1, depth + 1),
            jax.random.randint(op_key, shape, 0, number),
            jax.random.uniform(level_key, shape, minval=LOWEST_LEVEL, maxval=severity),
            jax.random.bernoulli(sign_key, shape=shape),
        )

    return jax.vmap(draw)(per_image_keys(key, count))


def draw_mixture(
    key: jax.Array, *, width: int, alpha: float
) -> tuple[jax.Array, jax.Array]:
    """Shares [width] from Dirichlet(alpha, ...), and one from Beta(alpha, alpha)."""
    # Both are quotients of Gamma variables; one call draws them all.
    logs = jax.random.loggamma(key, alpha, (width + 2,))
    return jax.nn.softmax(logs[:width]), jax.nn.sigmoid(logs[width] - logs[width + 1])


def mix_chains(
    images: jax.Array, chains: jax.Array, weight: jax.Array, blend: jax.Array
) -> jax.Array:
    """(1 - m) x + m sum_i w_i chain_i(x) in the images' own units, float32.

    Args:
        images: [N, H, W, C].
        chains: [N, W, H, W, C], what W chains make of them.
        weight: w, [N, W].
        blend: m, [N].
    """
    share = (blend[:, None] * weight)[..., None, None, None]
    mixed = (1 - blend)[:, None, None, None] * images.astype(jnp.float32)
    for chain in range(chains.shape[1]):
        mixed += share[:, chain] * chains[:, chain].astype(jnp.float32)
    return mixed


def jensen_shannon(*views: jax.Array) -> jax.Array:
    """The consistency loss of V predictions, a mean over images (section 3).

    The Jensen-Shannon divergence: the mean of the V Kullback-Leibler divergences from
    their mean distribution, in nats, between 0 and log V. AugMix adds 12 times that of
    three, of the clean image and two more, to the cross-entropy of the clean images.

    Args:
        *views: logits [N, K] of each view of the images.

    Raises:
        ArgumentError: there is one view, or none.
    """
    if len(views) < 2:
        raise ArgumentError(f"views are {len(views)}; a divergence is of two or more")
    logits = jnp.stack(views)
    # A class whose logit is -inf has probability zero, as with a very low one, whose
    # terms are numbers; without any other there is no distribution.
    lowest = jnp.finfo(logits.dtype).min / 4
    left_out = (logits == -jnp.inf) & (logits.max(-1, keepdims=True) > -jnp.inf)
    logs = jax.nn.log_softmax(jnp.where(left_out, lowest, logits), axis=-1)
    mean = jax.nn.logsumexp(logs, axis=0, keepdims=True) - math.log(len(views))
    return jnp.mean(jnp.sum(jnp.exp(logs) * (logs - mean), axis=-1))
