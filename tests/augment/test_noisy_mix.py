"""NoisyMix's blend and noise: by NumPy, and by the distributions they should have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from apr_jax import augment
from apr_jax.errors import ArgumentError

VIEWS, COUNT, SIDE = 3, 4, 20


@pytest.fixture(scope="module")
def drawn():
    """Additive noise and factors, [keys, V, N, numbers] each, of 200 keys.

    Of features that are all the same, blending changes nothing.
    """

    def of(key):
        shape = (VIEWS * COUNT, SIDE, SIDE, 1)
        mix = lambda level: augment.noisy_mixup(
            key, jnp.full(shape, level), views=VIEWS, add=0.6, multiply=0.4
        ).reshape(VIEWS, COUNT, -1)
        added = mix(0.0)
        return added, mix(1.0) - added

    keys = jax.random.split(jax.random.key(0), 200)
    return tuple(np.asarray(x, np.float64) for x in jax.jit(jax.vmap(of))(keys))


def test_without_noise_it_is_the_blend(key, rng):
    features = rng.normal(size=(VIEWS * COUNT, 5, 3, 2)).astype(np.float32)
    none = {"views": VIEWS, "alpha": 0.7, "add": 0.0, "multiply": 0.0}
    got = jax.jit(lambda x: augment.noisy_mixup(key, x, **none))(features)
    draw = jax.jit(lambda: augment.draw_blend(key, COUNT, alpha=0.7))
    partner, weight = draw()
    assert sorted(np.asarray(partner)) == list(range(COUNT))
    for view in range(VIEWS):
        rows = features[COUNT * view : COUNT * (view + 1)]
        want = weight * rows + (1 - weight) * rows[np.asarray(partner)]
        np.testing.assert_allclose(
            got[COUNT * view : COUNT * (view + 1)], want, atol=1e-6
        )


def test_the_blends_draws(key):
    keys = jax.random.split(key, 1000)
    partner, weight = jax.jit(jax.vmap(lambda k: augment.draw_blend(k, 5, alpha=0.5)))(
        keys
    )
    assert stats.kstest(weight, stats.beta(0.5, 0.5).cdf).pvalue > 1e-3
    counts = np.bincount(np.asarray(partner)[:, 0], minlength=5)
    assert stats.chisquare(counts).pvalue > 1e-3
    assert abs(np.corrcoef(weight, partner[:, 0])[0, 1]) < 0.1


def test_some_numbers_get_no_noise(drawn):
    for noise, none in zip(drawn, (0.0, 1.0), strict=True):
        share = np.mean(np.abs(noise - none) < 1e-6)
        assert abs(share - 0.65) < 0.003
    added, factor = (np.abs(x - n) > 1e-6 for x, n in zip(drawn, (0, 1), strict=True))
    assert abs(np.corrcoef(added[:9].ravel(), factor[:9].ravel())[0, 1]) < 0.02


def test_the_noise_has_its_distributions(drawn):
    added, factor = drawn
    of_factor = stats.beta(2, 5).cdf
    width = np.abs(factor - 1).max((2, 3)) / 0.4  # of each key and view
    assert all(stats.kstest(width[:, v], of_factor).pvalue > 1e-3 for v in range(VIEWS))
    size = np.sqrt(np.square(added).mean((2, 3)) / 0.35) / 0.6
    # As the released code has it, the views' additive noise is once, twice, ...
    for view in range(VIEWS):
        assert stats.kstest(size[:, view] / (view + 1), of_factor).pvalue > 1e-3
    apart = np.corrcoef(np.concatenate([width.T, size.T]))
    assert np.abs(apart - np.eye(2 * VIEWS)).max() < 0.25
    one = added[0, 0][np.abs(added[0, 0]) > 1e-6]
    assert stats.kstest(one / one.std(), "norm").pvalue > 1e-3
    one = factor[0, 0][np.abs(factor[0, 0] - 1) > 1e-6]
    flat = (one - one.min()) / np.ptp(one)
    assert stats.kstest(flat, "uniform").pvalue > 1e-3


def test_images_and_views_have_noise_of_their_own(drawn):
    rows = np.abs(drawn[0][0]) > 1e-6
    apart = np.corrcoef(rows.reshape(VIEWS * COUNT, -1))
    assert np.abs(apart - np.eye(VIEWS * COUNT)).max() < 0.2


def test_noise_follows_the_place_in_the_batch(key):
    same = jnp.ones((COUNT, 4, 4, 2))
    places = jnp.array([2, 0])
    whole, part = jax.jit(
        lambda: (
            augment.noisy_mixup(key, same),
            augment.noisy_mixup(key, same[:2], positions=places),
        )
    )()
    np.testing.assert_array_equal(part, np.asarray(whole)[[2, 0]])


def test_features_keep_their_type(key):
    features = jnp.ones((2, 4, 4, 1), jnp.bfloat16)
    found = jax.eval_shape(lambda: augment.noisy_mixup(key, features))
    assert found.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"add": -1.0}, "add is -1.0"),
        ({"multiply": float("nan")}, "multiply is nan"),
        ({"sparse": 1.5}, "sparse is 1.5"),
        ({"views": 0}, "views is 0"),
        ({"views": 2}, "features are 3, which is no 2 views"),
    ],
)
def test_what_is_refused(key, changes, message):
    with pytest.raises((ArgumentError, ValueError), match=message):
        augment.noisy_mixup(key, jnp.ones((3, 2, 2, 1)), **changes)


def test_grey_levels_are_refused(key):
    with pytest.raises(TypeError, match="features must be floating point"):
        augment.noisy_mixup(key, jnp.ones((3, 2, 2, 1), jnp.uint8))


def test_what_it_joins():
    assert augment.get_method("apr_s+noisymix").single is augment.APR_S
    assert augment.get_method("noisymix+apr_p").pair is augment.APR_P
    with pytest.raises(ValueError, match="blends features and labels at one depth"):
        augment.get_method("noisymix+afa")
    with pytest.raises(ValueError, match="but asks for like answers on one image"):
        augment.get_method("noisymix+mixup")
    with pytest.raises(ValueError, match="which exclude each other"):
        augment.get_method("noisymix+supclr")
