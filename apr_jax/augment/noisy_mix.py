"""NoisyMix: features of two images blended inside the network, and noise in them.

Erichson et al., "NoisyMix: Boosting Model Robustness to Common Corruptions", 2022
(arXiv:2202.01263), which joins noisy feature mixup (Lim et al., ICLR 2022) at a random
depth with AugMix and its consistency loss. Numbers are those of the released code.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from apr_jax import fast_random
from apr_jax.augment.keys import per_image_keys, split_keys
from apr_jax.gates import knobs
from apr_jax.gates.images import check_type

# The factors of the noise are drawn from this Beta distribution.
_FACTOR = (2.0, 5.0)
# The additive noise of the second and third view is so many times that of the first.
_STRONGER = 3


class Blend(NamedTuple):
    """Which features are blended, and how: the same for all views of the images.

    Attributes:
        partner: int32 [N], places in the batch.
        share: float32 [], of the image's own features and label.
    """

    partner: jax.Array
    share: jax.Array


def draw_blend(key: jax.Array, count: int, *, alpha: float = 1.0) -> Blend:
    """The draws of `noisy_mixup` with the same key that labels need, too.

    Args:
        key: one key.
        count: N images.
        alpha: positive; the weight is drawn from Beta(alpha, alpha).
    """
    knobs.real("alpha", alpha, above=0)
    partner_key, weight_key = jax.random.split(split_keys(key, 2)[0])
    first, second = jax.random.loggamma(weight_key, alpha, (2,), jnp.float32)
    partner = jax.random.permutation(partner_key, jnp.arange(count, dtype=jnp.int32))
    return Blend(partner, jax.nn.sigmoid(first - second))


def noisy_mixup(
    key: jax.Array,
    features: jax.Array,
    *,
    views: int = 1,
    alpha: float = 1.0,
    add: float = 0.5,
    multiply: float = 0.5,
    sparse: float = 0.65,
    positions: jax.Array | None = None,
) -> jax.Array:
    """m (w x + (1 - w) x') + a, of the features of a batch at some depth.

    x' are those of a random image of the batch, w is `draw_blend`'s. m is 1 +
    `multiply` f U(-1, 1) and a is i `add` f' N(0, 1), each drawn for every number and
    left out (1 and 0) for the share `sparse` of them; f and f' are drawn from Beta(2,
    5) for each view, and i counts the views, 1 to 3, as the released code has it. A
    fourth view starts again with 1.

    Args:
        key: one key.
        features: floating point [V * N, ...], view by view; or normalised images.
        views: V. All have the same partners and weight, and noise of their own.
        alpha: of `draw_blend`.
        add: strength of the additive noise, not negative.
        multiply: strength of the multiplicative noise, not negative.
        sparse: share of the numbers that get no noise, in [0, 1].
        positions: int32 [N], other numbers of the images than 0 to N - 1, by which
            their noise is drawn.

    Returns:
        As the features. The loss wants w CE(y) + (1 - w) CE(y[partner]).

    Raises:
        TypeError: features are not floating point.
        ValueError: a number out of range, or features that aren't `views` equal parts.
    """
    check_type(features, "pixels", "features")
    for name, level in (("add", add), ("multiply", multiply)):
        knobs.real(name, level, low=0)
    knobs.real("sparse", sparse, low=0, high=1)
    knobs.whole("views", views, low=1)
    if len(features) % views:
        raise ValueError(f"features are {len(features)}, which is no {views} views")
    count = len(features) // views
    blend = draw_blend(key, count, alpha=alpha)
    values = features.astype(jnp.float32).reshape(views, count, *features.shape[1:])
    mixed = blend.share * values
    mixed += (1 - blend.share) * jnp.take(values, blend.partner, axis=1)
    noise_key, factor_key = jax.random.split(split_keys(key, 2)[1])
    factors = jax.random.beta(factor_key, *_FACTOR, (2, views), jnp.float32)
    factors *= jnp.stack(
        [
            jnp.float32(add) * (1 + jnp.arange(views) % _STRONGER).astype(jnp.float32),
            jnp.full(views, multiply, jnp.float32),
        ]
    )
    if positions is None:
        keys = per_image_keys(noise_key, count)
    else:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(noise_key, positions)
    each = jax.vmap(_with_noise, (0, None, 0, 1, None))
    noisy = each(mixed, keys, jnp.arange(views), factors, sparse)
    return noisy.reshape(features.shape).astype(features.dtype)


def _with_noise(
    values: jax.Array,
    keys: jax.Array,
    view: jax.Array,
    factors: jax.Array,
    sparse: float,
) -> jax.Array:
    """The features [N, ...] of one view with noise; factors are additive's, other's."""
    own = jax.vmap(jax.random.fold_in, (0, None))(keys, view)
    seeds, shape = fast_random.seeds_of(own), values.shape[1:]
    drawn = lambda lane: fast_random.uniform(seeds, shape, lane=lane)
    added = factors[0] * fast_random.normal(seeds, shape, lane=0)
    factor = 1 + factors[1] * (2 * drawn(1) - 1)
    added = jnp.where(drawn(2) < sparse, jnp.float32(0), added)
    factor = jnp.where(drawn(3) < sparse, jnp.float32(1), factor)
    return factor * values + added
