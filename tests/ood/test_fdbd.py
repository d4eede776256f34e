"""fDBD against its formula in NumPy, against geometry, and against pytorch-ood."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import ood

CLASSES, FEATURES = 5, 9


@pytest.fixture
def sample(rng):
    """Features and logits of training and test images under one linear layer."""
    weight = rng.normal(size=(FEATURES, CLASSES))
    bias = rng.normal(size=CLASSES)
    train, test = rng.random((200, FEATURES)), 2 * rng.random((40, FEATURES))
    labels = rng.integers(0, CLASSES, 200)
    fitted = ood.fit(train, train @ weight + bias, labels, weight=weight, bias=bias)
    return train, test, weight, bias, fitted


def score(test, weight, bias, fitted, **knobs):
    run = jax.jit(functools.partial(ood.SCORES["fdbd"], **knobs))
    return np.asarray(run(jnp.asarray(test @ weight + bias), jnp.asarray(test), fitted))


def test_formula(sample):
    train, test, weight, bias, fitted = sample
    wanted = []
    for z in test:
        logits = z @ weight + bias
        c = int(np.argmax(logits))
        distances = [
            abs((weight[:, c] - weight[:, k]) @ z + bias[c] - bias[k])
            / np.sqrt(((weight[:, c] - weight[:, k]) ** 2).sum())
            for k in range(CLASSES)
            if k != c
        ]
        wanted.append(np.mean(distances) / np.linalg.norm(z - train.mean(0)))
    np.testing.assert_allclose(score(test, weight, bias, fitted), wanted, rtol=1e-4)
    # The other form that OpenOOD tries: over the feature's length.
    lengths = [np.linalg.norm(z - train.mean(0)) / np.linalg.norm(z) for z in test]
    got = score(test, weight, bias, fitted, over="norm")
    np.testing.assert_allclose(got, np.multiply(wanted, lengths), rtol=1e-4)
    with pytest.raises(ValueError, match="unknown over 'mean'"):
        score(test, weight, bias, fitted, over="mean")


def test_two_classes_that_meet_at_a_known_place():
    """Logits x and -x of a feature (x, y): the boundary is where x is zero."""
    weight, bias = np.array([[1.0, -1.0], [0.0, 0.0]]), np.zeros(2)
    train = np.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    fitted = ood.fit(train, train @ weight, [0, 1, 0, 1], weight=weight, bias=bias)
    test = np.array([[3.0, 4.0], [-3.0, 0.0], [0.0, 2.0]])
    got = score(test, weight, bias, fitted)
    np.testing.assert_allclose(got, [3 / 5, 1, 0], atol=1e-6)


def test_equal_weights_and_the_mean_itself_stay_finite(sample):
    train, _, weight, bias, _ = sample
    weight[:, 1] = weight[:, 0]
    labels = np.arange(200) % CLASSES
    fitted = ood.fit(train, train @ weight + bias, labels, weight=weight, bias=bias)
    test = np.stack([np.asarray(fitted.all_mean), train[0]])
    assert np.isfinite(score(test, weight, bias, fitted)).all()


def test_what_was_not_fitted_is_said(sample):
    train, test, weight, bias, _ = sample
    fitted = ood.fit(train, train @ weight + bias, np.arange(200) % CLASSES)
    with pytest.raises(ValueError, match="'fdbd' needs weight of training"):
        score(test, weight, bias, fitted)


@pytest.mark.parity
def test_values_of_pytorch_ood(sample, detector):
    import torch

    train, test, weight, bias, fitted = sample
    head = torch.nn.Linear(FEATURES, CLASSES)
    with torch.no_grad():
        head.weight.copy_(torch.tensor(weight.T))
        head.bias.copy_(torch.tensor(bias))
    theirs = detector.fDBD(torch.nn.Identity(), head)
    theirs.fit_features(torch.tensor(train), None)
    wanted = -theirs.predict_features(torch.tensor(test)).numpy()
    np.testing.assert_allclose(score(test, weight, bias, fitted), wanted, rtol=1e-3)
