"""The second BatchNorm: what it normalises, what it shares, what is measured."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from apr_jax import models
from apr_jax.errors import ConfigError
from apr_jax.evaluate import classifier
from apr_jax.train import auxiliary_norm, loop, plan
from apr_jax.train.state import init_state
from tests import toy


def perturbed(tree):
    leaves, structure = jax.tree.flatten(tree)
    rng = np.random.default_rng(len(leaves))
    moved = [np.float32(x + 0.1 * rng.uniform(size=x.shape)) for x in leaves]
    return jax.tree.unflatten(structure, moved)


@pytest.mark.parametrize("name", ["wrn_10_1", "resnet18"])
def test_the_second_set_is_that_of_batch_norm(name, key):
    model = models.build(name, num_classes=3)
    variables = jax.eval_shape(
        lambda: model.init(key, jnp.zeros((1, 32, 32, 3)), train=False)
    )
    like = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), variables)
    params, stats = auxiliary_norm.add(like["params"], like["batch_stats"])
    second = params[auxiliary_norm.KEY]
    norms = sum(x.size for x in jax.tree.leaves(stats[auxiliary_norm.KEY]))
    assert sum(x.size for x in jax.tree.leaves(second)) == norms
    names = {str(path[-1]) for path, _ in jax.tree.leaves_with_path(second)}
    assert names == {"['scale']", "['bias']"}
    assert auxiliary_norm.without(params) == like["params"]


def test_each_part_is_normalised_by_its_own(key):
    model = toy.TinyNet(num_classes=4)
    images = np.random.default_rng(0).random((6, 8, 8, 3), np.float32)
    variables = jax.jit(lambda: model.init(key, images, train=False))()
    params, stats = auxiliary_norm.add(variables["params"], variables["batch_stats"])
    params, stats = perturbed(params), perturbed(stats)
    forward = auxiliary_norm.make_forward(model, auxiliary=True, views=3)
    logits, new = jax.jit(forward)(params, stats, images, key)
    params, stats = jax.tree.map(np.asarray, (params, stats))
    kernel = params["Conv_0"]["kernel"].astype(np.float64)

    def by_hand(pixels, norm, running):
        padded = np.pad(
            np.asarray(pixels, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0))
        )
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
        maps = np.einsum("nhwcij,ijco->nhwo", windows, kernel)
        mean, var = maps.mean((0, 1, 2)), maps.var((0, 1, 2))
        y = (maps - mean) / np.sqrt(var + 1e-5) * norm["scale"] + norm["bias"]
        dense = params["Dense_0"]
        got = np.maximum(y, 0).mean((1, 2)) @ dense["kernel"] + dense["bias"]
        return got, 0.9 * np.asarray(running["mean"]) + 0.1 * mean

    parts = (
        (images[:4], params["BatchNorm_0"], stats["BatchNorm_0"]),
        (
            images[4:],
            params[auxiliary_norm.KEY]["BatchNorm_0"],
            stats[auxiliary_norm.KEY]["BatchNorm_0"],
        ),
    )
    want = [by_hand(*part) for part in parts]
    np.testing.assert_allclose(
        logits, np.concatenate([w[0] for w in want]), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(new["BatchNorm_0"]["mean"], want[0][1], rtol=1e-4)
    np.testing.assert_allclose(
        new[auxiliary_norm.KEY]["BatchNorm_0"]["mean"], want[1][1], rtol=1e-4
    )


@pytest.mark.usefixtures("_tiny_model")
def test_both_sets_learn_and_the_first_is_the_network(tmp_path):
    toy.write_arrays(tmp_path)
    settings = toy.config(tmp_path, augment__method="afa", optim__epochs=2.0)
    run = tmp_path / "run"
    trained = loop.train(plan.plan(settings, run), quiet=True)
    first = trained.state.params["BatchNorm_0"]["scale"]
    second = trained.state.params[auxiliary_norm.KEY]["BatchNorm_0"]["scale"]
    assert np.abs(first - 1).max() > 1e-3
    assert np.abs(second - 1).max() > 1e-3
    assert np.abs(first - second).max() > 1e-5
    network = classifier.from_run(run)
    assert auxiliary_norm.KEY not in network.variables["params"]
    np.testing.assert_array_equal(
        network.variables["params"]["BatchNorm_0"]["scale"], first
    )


def test_without_a_second_set_nothing_is_added(tmp_path):
    settings = toy.config(tmp_path)
    model = toy.TinyNet(num_classes=4)
    state = jax.eval_shape(
        lambda key: init_state(key, model, optax.sgd(0.1), (8, 8, 3)),
        jax.random.key(settings.seed),
    )
    assert set(state.params) == {"Conv_0", "BatchNorm_0", "Dense_0"}


def test_a_network_without_batch_norm_is_refused(tmp_path):
    toy.write_arrays(tmp_path)
    settings = toy.config(
        tmp_path, augment__method="afa", model__name="wrn_10_1", model__norm="none"
    )
    with pytest.raises(ConfigError, match=r"augment\.method: 'afa' needs a sec"):
        plan.plan(settings, tmp_path / "run")
