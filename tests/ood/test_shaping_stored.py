"""SCALE, ASH's variants, SHE and NNGuide against their formulas in plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from apr_jax import ood
from apr_jax.errors import ArgumentError

CLASSES, FEATURES = 5, 20


@pytest.fixture
def sample(rng):
    """Features and logits of training and test images under one linear layer."""
    weight = rng.normal(size=(FEATURES, CLASSES))
    bias = rng.normal(size=CLASSES)
    train, test = rng.random((60, FEATURES)), 2 * rng.random((15, FEATURES))
    labels = rng.integers(0, CLASSES - 1, 60)  # the last class doesn't occur
    fitted = ood.fit(train, train @ weight + bias, labels, weight=weight, bias=bias)
    return train, test, weight, bias, labels, fitted


def score(name, sample, **knobs):
    _, test, weight, bias, _, fitted = sample
    run = jax.jit(lambda z, h, f: ood.SCORES[name](z, h, f, **knobs))
    return np.asarray(run(jnp.asarray(test @ weight + bias), jnp.asarray(test), fitted))


@pytest.mark.parametrize("prune", [0.0, 0.65, 0.9])
@pytest.mark.parametrize("name", ["ash", "ash_p", "ash_b", "scale"])
def test_shaped_energy(sample, name, prune):
    _, test, weight, bias, *_ = sample
    wanted = []
    for h in test:
        keep = FEATURES - round(FEATURES * prune)
        high = np.sort(h)[-keep:]
        grown = np.exp(h.sum() / high.sum())
        above = h >= high[0]
        shaped = {
            "ash": np.where(above, h * grown, 0),
            "ash_p": np.where(above, h, 0),
            "ash_b": np.where(above, h.sum() / keep, 0),
            "scale": h * grown,
        }[name]
        wanted.append(logsumexp(shaped @ weight + bias))
    np.testing.assert_allclose(score(name, sample, prune=prune), wanted, rtol=2e-5)


def test_she_is_the_likeness_to_what_was_right(sample):
    train, test, weight, bias, labels, _ = sample
    right = (train @ weight + bias).argmax(1) == labels
    wanted = []
    for h in test:
        said = int((h @ weight + bias).argmax())
        mine = train[right & (labels == said)]
        wanted.append(h @ mine.mean(0) if len(mine) else 0)
    np.testing.assert_allclose(score("she", sample), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("k", [1, 10, 100])
def test_nnguide(sample, k):
    train, test, weight, bias, *_ = sample
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    guide = unit(train) * logsumexp(train @ weight + bias, axis=1)[:, None]
    near = np.sort(unit(test) @ guide.T, axis=1)[:, -k:].mean(1)
    wanted = near * logsumexp(test @ weight + bias, axis=1)
    np.testing.assert_allclose(score("nnguide", sample, k=k), wanted, rtol=1e-4)


def test_what_is_refused(sample):
    for name in ("ash_p", "ash_b", "scale"):
        with pytest.raises(ArgumentError, match="prune is 1"):
            score(name, sample, prune=1.0)
    with pytest.raises(ArgumentError, match="k is 0"):
        score("nnguide", sample, k=0)
    for name, lacking in (("she", "patterns"), ("nnguide", "bank_energy")):
        with pytest.raises(ArgumentError, match=f"{name}' needs .*{lacking}"):
            ood.SCORES[name](np.ones((2, 5)), np.ones((2, 20)), ood.Fitted())
