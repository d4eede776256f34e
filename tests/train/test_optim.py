"""Schedules against closed forms, SGD against PyTorch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from apr_jax import config as config_lib
from apr_jax.train import optim as optim_lib


@pytest.fixture
def optim():
    return config_lib.default().optim


def test_multistep(optim):
    rate = optim_lib.schedule(optim, 390.625)
    steps = [0, 23437, 23438, 46874, 46875, 62499, 62500, 74219, 78124]
    got = [float(rate(s)) for s in steps]
    want = [0.1, 0.1, 0.02, 0.02, 0.004, 0.004, 0.0008, 0.00016, 0.00016]
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_cosine_with_warmup(optim):
    optim = dataclasses.replace(
        optim, schedule="cosine", epochs=12.0, warmup_epochs=2.0
    )
    rate = optim_lib.schedule(optim, 10.0)
    steps = np.arange(121)
    want = np.where(
        steps < 20,
        0.1 * steps / 20,
        0.05 * (1 + np.cos(np.pi * (steps - 20) / 100)),
    )
    np.testing.assert_allclose([float(rate(s)) for s in steps], want, atol=1e-7)


def test_multistep_milestones_count_from_the_start(optim):
    optim = dataclasses.replace(optim, warmup_epochs=2.0, milestones=(3.0,), epochs=4.0)
    rate = optim_lib.schedule(optim, 10.0)
    got = [float(rate(s)) for s in (0, 10, 20, 29, 30)]
    np.testing.assert_allclose(got, [0.0, 0.05, 0.1, 0.1, 0.02], rtol=1e-6)


def test_cyclic(optim):
    optim = dataclasses.replace(optim, schedule="cyclic", epochs=4.0, peak=0.25)
    rate = optim_lib.schedule(optim, 10.0)
    got = [float(rate(s)) for s in (0, 5, 10, 25, 40)]
    np.testing.assert_allclose(got, [0.0, 0.05, 0.1, 0.05, 0.0], atol=1e-7)


def test_constant(optim):
    rate = optim_lib.schedule(dataclasses.replace(optim, schedule="constant"), 10.0)
    assert float(rate(1000)) == pytest.approx(0.1)


def test_unknown_schedule(optim):
    with pytest.raises(
        ValueError, match=r"optim.schedule is 'x'; choose from constant"
    ):
        optim_lib.schedule(dataclasses.replace(optim, schedule="x"), 1.0)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_pytorchs(optim, rng, nesterov):
    torch = pytest.importorskip("torch")
    optim = dataclasses.replace(optim, nesterov=nesterov, weight_decay=0.05)
    start = rng.normal(size=(5, 3)).astype(np.float32)
    gradients = rng.normal(size=(6, 5, 3)).astype(np.float32)

    weight = torch.nn.Parameter(torch.tensor(start))
    theirs = torch.optim.SGD(
        [weight], lr=0.1, momentum=0.9, nesterov=nesterov, weight_decay=0.05
    )
    ours = optim_lib.sgd(optim, lambda step: 0.1)
    params = jnp.asarray(start)
    state = ours.init(params)
    update = jax.jit(ours.update)
    for gradient in gradients:
        weight.grad = torch.tensor(gradient)
        theirs.step()
        updates, state = update(jnp.asarray(gradient), state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params, weight.detach().numpy(), rtol=2e-5, atol=1e-6)
