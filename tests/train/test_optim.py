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


def test_cyclic_between_other_ends(optim):
    optim = dataclasses.replace(
        optim,
        schedule="cyclic",
        learning_rate=1.5,
        epochs=10.0,
        peak=0.23,
        start=0.2,
        end=0.07,
    )
    rate = optim_lib.schedule(optim, 10.0)
    steps = np.arange(101)
    rising = steps / 23
    falling = (steps - 23) / 77
    want = 1.5 * np.where(
        steps < 23, 0.2 * (1 - rising) + rising, 1 - falling + 0.07 * falling
    )
    np.testing.assert_allclose([float(rate(s)) for s in steps], want, rtol=1e-5)


def test_constant(optim):
    rate = optim_lib.schedule(dataclasses.replace(optim, schedule="constant"), 10.0)
    assert float(rate(1000)) == pytest.approx(0.1)


def test_unknown_schedule(optim):
    with pytest.raises(
        ValueError, match=r"optim.schedule is 'x'; choose from constant"
    ):
        optim_lib.schedule(dataclasses.replace(optim, schedule="x"), 1.0)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_pytorchs(optim, rng, nesterov, torch):
    optim = dataclasses.replace(optim, nesterov=nesterov, weight_decay=0.05)
    start = rng.normal(size=(5, 3)).astype(np.float32)
    gradients = rng.normal(size=(6, 5, 3)).astype(np.float32)

    weight = torch.nn.Parameter(torch.tensor(start))
    theirs = torch.optim.SGD(
        [weight], lr=0.1, momentum=0.9, nesterov=nesterov, weight_decay=0.05
    )
    ours = optim_lib.make_optimizer(optim, lambda step: 0.1)
    params = jnp.asarray(start)
    state = ours.init(params)
    update = jax.jit(ours.update)
    for gradient in gradients:
        weight.grad = torch.tensor(gradient)
        theirs.step()
        updates, state = update(jnp.asarray(gradient), state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params, weight.detach().numpy(), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("per", ["rate", "step"])
def test_biases_of_batch_norm_have_a_rate_of_their_own(optim, rng, per):
    """As two groups of PyTorch's and two of Optax's, told apart by hand."""
    optim = dataclasses.replace(
        optim,
        learning_rate=0.5,
        weight_decay=0.02,
        momentum=0.85,
        decay_per=per,
        norm_bias_rate=64.0,
    )
    rate = lambda step: 0.5 / (1 + step)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
    shapes = {
        "conv": {"kernel": (3, 2), "bias": (2,)},
        "norm": {"scale": (2,), "bias": (2,)},
        "second": {"norm": {"bias": (3,)}},
        "fixed": {"bias": (4,)},
    }
    is_shape = lambda x: isinstance(x, tuple)
    new = lambda: jax.tree.map(lambda s: draw(*s), shapes, is_leaf=is_shape)
    params, gradients = new(), [new() for _ in range(5)]
    stats = {"norm": {"mean": draw(2)}, "second": {"norm": {"var": draw(3)}}}
    biases = {("norm", "bias"), ("second", "norm", "bias")}
    faster = jax.tree_util.tree_map_with_path(
        lambda path, _: tuple(p.key for p in path) in biases, params
    )

    def group(highest, schedule):
        decay = 0.02 / highest if per == "step" else 0.02
        return optax.chain(
            optax.add_decayed_weights(decay), optax.sgd(schedule, 0.85, nesterov=True)
        )

    groups = {False: group(0.5, rate), True: group(32.0, lambda s: 64 * rate(s))}
    theirs = optax.multi_transform(groups, faster)
    ours = optim_lib.make_optimizer(optim, rate)
    results = []
    for optimizer, more in ((theirs, {}), (ours, {"batch_stats": stats})):
        value = jax.tree.map(jnp.asarray, params)
        state = optimizer.init(value)
        for gradient in gradients:
            updates, state = optimizer.update(gradient, state, value, **more)
            value = optax.apply_updates(value, updates)
        results.append(value)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), *results
    )


def test_decay_by_the_step_is_no_multiple_of_the_rate(optim):
    shrunk = []
    for highest in (0.1, 3.0):
        settings = dataclasses.replace(
            optim,
            learning_rate=highest,
            weight_decay=0.25,
            momentum=0.0,
            nesterov=False,
            decay_per="step",
        )
        ours = optim_lib.make_optimizer(
            settings, lambda step, top=highest: top / (1 + step)
        )
        weight = jnp.ones(2)
        state = ours.init(weight)
        for _ in range(2):
            updates, state = ours.update(jnp.zeros(2), state, weight)
            weight = optax.apply_updates(weight, updates)
        shrunk.append(weight)
    np.testing.assert_allclose(shrunk, 0.75 * 0.875, rtol=1e-6)


def test_decay_by_the_step_is_of_the_highest_rate_not_of_the_first(optim):
    settings = dataclasses.replace(
        optim,
        learning_rate=0.2,
        weight_decay=0.25,
        momentum=0.0,
        nesterov=False,
        decay_per="step",
    )
    ours = optim_lib.make_optimizer(settings, lambda step: 0.05 * (1 + step))
    weight = jnp.ones(2)
    updates, _ = ours.update(jnp.zeros(2), ours.init(weight), weight)
    np.testing.assert_allclose(weight + updates, 1 - 0.25 * 0.05 / 0.2, rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_clipping_and_decay_of_weights_are_pytorchs(optim, rng, torch, name):
    """Two groups of PyTorch's, and gradients of several steps averaged by hand."""
    optim = dataclasses.replace(
        optim,
        name=name,
        clip=1.5,
        accumulate=2,
        decay_on="weights",
        weight_decay=0.3,
        momentum=0.8,
        beta2=0.9,
        nesterov=False,
    )
    rate = lambda step: 0.02 * (1 + step)
    draw = lambda: {
        "kernel": rng.normal(size=(4, 3)).astype(np.float32),
        "bias": rng.normal(size=3).astype(np.float32),
    }
    params, gradients = draw(), [draw() for _ in range(8)]
    theirs = {k: torch.nn.Parameter(torch.tensor(v)) for k, v in params.items()}
    groups = [
        {"params": [theirs["kernel"]], "weight_decay": 0.3},
        {"params": [theirs["bias"]], "weight_decay": 0.0},
    ]
    if name == "sgd":
        rule = torch.optim.SGD(groups, lr=0.02, momentum=0.8)
    else:
        rule = torch.optim.AdamW(groups, lr=0.02, betas=(0.8, 0.9))
    made = optim_lib.make_optimizer(optim, rate)
    state, update = made.init(params), jax.jit(made.update)
    for step, gradient in enumerate(gradients):
        before = params
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        if step % 2 == 0:
            np.testing.assert_array_equal(params["kernel"], before["kernel"])
            continue
        for group in rule.param_groups:
            group["lr"] = rate(step - 1)
        for key, weight in theirs.items():
            weight.grad = torch.tensor((gradients[step - 1][key] + gradient[key]) / 2)
        norm = torch.nn.utils.clip_grad_norm_(list(theirs.values()), 1.5)
        assert step != 1 or norm > 1.5  # there is something to clip
        rule.step()
        for key, weight in theirs.items():
            np.testing.assert_allclose(
                params[key], weight.detach().numpy(), rtol=1e-4, atol=1e-6
            )


def test_weights_alone_may_decay_beside_faster_biases(optim):
    optim = dataclasses.replace(
        optim, decay_on="weights", norm_bias_rate=8.0, weight_decay=0.5, momentum=0.0
    )
    params = {
        "conv": {"kernel": jnp.ones((2, 2))},
        "norm": {"scale": jnp.ones(2), "bias": jnp.ones(2)},
    }
    stats = {"norm": {"mean": jnp.zeros(2)}}
    made = optim_lib.make_optimizer(optim, lambda step: 0.1)
    gradient = jax.tree.map(jnp.ones_like, params)
    updates, _ = made.update(gradient, made.init(params), params, batch_stats=stats)
    got = {k: float(v.ravel()[0]) for k, v in updates["norm"].items()}
    assert got == pytest.approx({"scale": -0.1, "bias": -0.8})
    assert float(updates["conv"]["kernel"][0, 0]) == pytest.approx(-0.15)
