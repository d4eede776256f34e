"""AugMix and AutoAugment against Pillow and NumPy from the same draws."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial

from apr_jax import augment
from apr_jax.augment import ops
from apr_jax.augment.ops import POLICY_OPS
from tests import oracle

# Functions of the package hide these modules of their names.
chains_module = importlib.import_module("apr_jax.augment.augmix")
autoaugment_lib = importlib.import_module("apr_jax.augment.autoaugment")

COUNT = 24
augmix = jax.jit(
    augment.augmix,
    static_argnames=("width", "depth", "severity", "alpha", "ops", "chunk"),
)
autoaugment = jax.jit(augment.autoaugment, static_argnames=("policy", "ops", "chunk"))
random_autoaugment = jax.jit(
    augment.random_autoaugment, static_argnames=("ops", "chunk")
)
draw_chains = jax.jit(
    chains_module.draw_chains,
    static_argnums=1,
    static_argnames=("width", "depth", "severity", "alpha", "ops"),
)
draw_policy = jax.jit(
    autoaugment_lib.draw_policy, static_argnums=1, static_argnames=("policy", "ops")
)
draw_random = jax.jit(
    autoaugment_lib.draw_random, static_argnums=1, static_argnames="ops"
)
jensen_shannon = jax.jit(augment.jensen_shannon)
DEFAULTS = {"width": 3, "depth": 3, "severity": 3.0, "alpha": 1.0, "ops": "base"}


@pytest.fixture(scope="module")
def photos():
    return oracle.photo_crops((15, 18), COUNT)


def augmix_by_hand(image, chains, i, names):
    """AugMix with Pillow: the weights and operations are given."""
    weight, blend = np.asarray(chains.weight[i]), float(chains.blend[i])
    mix = np.zeros(image.shape)
    for chain, share in enumerate(weight):
        view = image
        for step in range(int(chains.depth[i, chain])):
            at = (i, chain, step)
            name = names[int(chains.op[at])]
            turn = bool(chains.negate[at])
            view = oracle.pillow_op(view, name, float(chains.level[at]), turn)
        mix += float(share) * view / 255
    return (1 - blend) * image / 255 + blend * mix


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        pytest.param(
            {"width": 2, "severity": 8.0, "alpha": 0.5, "ops": "all"},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_augmix_is_pillow_and_the_formula(key, photos, knobs):
    got = np.asarray(augmix(key, photos, **knobs))
    assert got.dtype == np.float32
    settings = {**DEFAULTS, **knobs}
    chains = jax.device_get(draw_chains(key, COUNT, **settings))
    names = ops.OP_SETS[settings["ops"]]
    away = [
        np.abs(got[i] - augmix_by_hand(image, chains, i, names))
        for i, image in enumerate(photos)
    ]
    # A level that Pillow rounds otherwise moves on through the chain.
    assert np.mean(away) < 0.2 / 255
    assert np.mean(np.array(away) < 1.01 / 255) > 0.99
    assert np.mean(np.abs(got - photos / 255)) > 4 / 255


@pytest.mark.slow
def test_augmix_draws_what_the_paper_says(key):
    chains = draw_chains(key, 600, **DEFAULTS)
    np.testing.assert_allclose(chains.weight.sum(1), 1, atol=1e-5)
    # Dirichlet(1, 1, 1): mean 1/3, variance 1/18. Beta(1, 1) is uniform.
    assert abs(float(chains.weight.var()) - 1 / 18) < 0.01
    assert abs(float(chains.blend.var()) - 1 / 12) < 0.01
    counts = np.bincount(np.asarray(chains.depth).ravel(), minlength=4)
    np.testing.assert_allclose(counts[1:] / 1800, 1 / 3, atol=0.05)
    assert counts[0] == 0
    assert chains.level.min() >= 0.1
    assert chains.level.max() <= 3
    assert set(np.unique(chains.op)) == set(range(9))


@pytest.mark.slow
def test_an_image_alone_is_augmented_the_same(key, photos):
    keys = augment.keys.per_image_keys(key, COUNT)
    pixels = photos[3:5].astype(np.float32) / 255
    alone = augmix(keys[3:5], pixels)
    np.testing.assert_allclose(alone, augmix(key, photos)[3:5], atol=1e-6)


def test_jensen_shannon_is_scipys(rng):
    logits = rng.normal(0, 3, (3, 5, 7)).astype(np.float32)
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(-1, keepdims=True)
    mean = p.mean(0)
    kl = (p * np.log(p / mean)).sum(-1).mean()
    got = jensen_shannon(*logits)
    np.testing.assert_allclose(got, kl, rtol=1e-5)
    # Two of the three equal: SciPy's two-sided distance has another mixture, so bound.
    two = scipy.spatial.distance.jensenshannon(p[0, 0], p[1, 0]) ** 2
    some = jensen_shannon(logits[0, :1], logits[1, :1], logits[0, :1])
    assert 0 < float(some) <= two + 1e-6


def test_jensen_shannon_at_its_ends(rng):
    logits = jnp.asarray(rng.normal(0, 5, (4, 6)), jnp.float32)
    assert abs(float(jensen_shannon(logits, logits, logits))) < 1e-6
    apart = [jnp.eye(3)[i : i + 1] * 200 for i in range(3)]
    loss, slopes = jax.jit(jax.value_and_grad(augment.jensen_shannon, (0, 1, 2)))(
        *apart
    )
    np.testing.assert_allclose(loss, np.log(3), rtol=1e-5)
    assert np.isfinite(slopes).all()


def test_jensen_shannon_without_a_class(rng):
    """Logits of -inf: as without the class, with finite gradients; NaN stays NaN."""
    logits = rng.normal(0, 3, (3, 5, 7)).astype(np.float32)
    fewer = np.insert(logits, 3, -np.inf, axis=2)
    loss, slopes = jax.jit(jax.value_and_grad(augment.jensen_shannon, (0, 1, 2)))(
        *fewer
    )
    np.testing.assert_allclose(loss, jensen_shannon(*logits), rtol=1e-6)
    assert np.isfinite(slopes).all()
    # Left out by one of the three alone: as a logit that is very low.
    one, low = logits.copy(), logits.copy()
    one[0, :, 2], low[0, :, 2] = -np.inf, -200
    np.testing.assert_allclose(jensen_shannon(*one), jensen_shannon(*low), rtol=1e-6)
    one[1, 0, 0] = np.nan
    assert np.isnan(jensen_shannon(*one))
    logits[1, 2] = -np.inf
    assert np.isnan(jensen_shannon(*logits))


def by_policy(image, pairs, i):
    for op, level, negate in zip(*pairs, strict=True):
        if op[i] < len(POLICY_OPS):
            name = POLICY_OPS[int(op[i])]
            image = oracle.pillow_op(image, name, float(level[i]), bool(negate[i]))
    return image


@pytest.mark.parametrize(
    "policy", ["imagenet", pytest.param("random", marks=pytest.mark.slow)]
)
def test_policies_are_pillows(key, photos, policy):
    if policy == "random":
        got = random_autoaugment(key, photos, ops="all")
        pairs = draw_random(key, COUNT, ops="all")
    else:
        got = autoaugment(key, photos, policy=policy)
        pairs = draw_policy(key, COUNT, policy=policy, ops="all")
    assert got.dtype == np.uint8
    pairs, got = jax.device_get((pairs, got))
    away = np.array(
        [
            np.abs(got[i].astype(int) - by_policy(image, pairs, i))
            for i, image in enumerate(photos)
        ]
    )
    assert np.mean(away <= 1) > 0.985
    assert np.median(away.max((1, 2, 3))) <= 1
    assert (got != photos).any((1, 2, 3)).mean() > 0.6


@pytest.mark.slow
def test_random_policies_cover_the_search_space(key):
    pairs = jax.device_get(draw_random(key, 3000, ops="base"))
    # Half of the operations on average, as probabilities are uniform from 0 to 1.
    assert abs((pairs.op < len(POLICY_OPS)).mean() - 0.5) < 0.02
    assert set(np.unique(pairs.op)) == {*range(9), len(POLICY_OPS)}
    assert set(np.unique(pairs.level)) == set(range(10))


def test_wrong_arguments_are_named(key, photos):
    with pytest.raises(ValueError, match=r"'svhn'.*cifar10.*imagenet"):
        augment.autoaugment(key, photos, policy="svhn")
    with pytest.raises(ValueError, match=r"'some'.*base.*all"):
        augment.random_autoaugment(key, photos, ops="some")
    with pytest.raises(ValueError, match="width is 0"):
        augment.augmix(key, photos, width=0)
