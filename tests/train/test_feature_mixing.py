"""Features blended inside the network: as a pass by hand, the loss, devices, resume."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from apr_jax import augment, models, parallel
from apr_jax.errors import ConfigError
from apr_jax.runs import checkpoint
from apr_jax.train import auxiliary_norm, feature_mixing, loop, losses, views
from apr_jax.train import plan as plan_lib
from apr_jax.train.image_pairs import Share
from tests import toy

COUNT, VIEWS = 4, 3


@pytest.fixture
def _no_augmix(monkeypatch):
    """NoisyMix of images that are not augmented, for tests of the rest."""
    plain = dataclasses.replace(augment.AUGMENTS["noisymix"], after=())
    monkeypatch.setitem(augment.AUGMENTS, "noisymix", plain)


@pytest.fixture
def _quick_draws(monkeypatch):
    """Gamma's and Beta's, which take seconds to compile, from one uniform number each.

    For tests of who draws with which key; what is drawn is tested in ``augment``.
    """

    def draw(key, alpha, shape=(), dtype=jnp.float32):
        return jnp.log(jax.random.uniform(key, shape, dtype, 0.1, 1.0) * alpha)

    beta = lambda key, a, b, shape, dtype: jax.random.uniform(key, shape, dtype)
    monkeypatch.setattr(jax.random, "loggamma", draw)
    monkeypatch.setattr(jax.random, "beta", beta)


def configured(folder, **changes):
    usual = {"augment__method": "noisymix", "augment__pair_donors": "device"}
    return toy.config(folder, **(usual | changes))


# --- A pass forward in NumPy ---------------------------------------------------------


def convolved(x, kernel, stride=1):
    side = kernel.shape[0]
    edge = side // 2
    padded = np.pad(x, [(0, 0), (edge, edge), (edge, edge), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), (1, 2))
    return np.einsum("nijcab,abcd->nijd", windows[:, ::stride, ::stride], kernel)


def normed(x, layer):
    centred = x - x.mean((0, 1, 2))
    scaled = centred / np.sqrt(x.var((0, 1, 2)) + 1e-5)
    return np.maximum(scaled * layer["scale"] + layer["bias"], 0)


def wide_resnet(params, x, between):
    """WRN-10-1 in training; ``between`` changes what leaves stage i, and the images."""
    x = convolved(between(0, x), params["conv1"]["kernel"])
    for number, stride in ((1, 1), (2, 2), (3, 2)):
        block = params[f"block{number}"]["layer_0"]
        first = normed(x, block["bn1"])
        y = convolved(first, block["conv1"]["kernel"], stride)
        y = convolved(normed(y, block["bn2"]), block["conv2"]["kernel"])
        if "conv_shortcut" in block:
            x = convolved(first, block["conv_shortcut"]["kernel"], stride)
        x = between(number, x + y)
    features = normed(x, params["bn1"]).mean((1, 2))
    return features @ params["fc"]["kernel"] + params["fc"]["bias"]


def tiny_network(params, x, between):
    """``toy.TinyNet`` in training, likewise."""
    x = convolved(between(0, x), params["Conv_0"]["kernel"])
    features = between(1, normed(x, params["BatchNorm_0"])).mean((1, 2))
    return features @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]


@pytest.mark.usefixtures("_tiny_model", "_quick_draws")
@pytest.mark.parametrize(
    ("name", "by_hand", "ends"),
    [
        ("tiny", tiny_network, 1),
        pytest.param("wrn_10_1", wide_resnet, 3, marks=pytest.mark.slow),
    ],
)
def test_a_pass_forward_is_that_by_hand(folder, key, rng, name, by_hand, ends):
    config = configured(folder, augment__noise_sparse=0.3, augment__mix_depth=ends)
    model = models.build(name, num_classes=4)
    inputs = rng.normal(size=(VIEWS * COUNT, 8, 8, 3)).astype(np.float32)
    variables = jax.jit(functools.partial(model.init, train=False))(key, inputs)
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"])
    forward = auxiliary_norm.make_forward(model, auxiliary=False, views=VIEWS)
    positions = np.arange(COUNT) + 7

    @jax.jit
    def run(depth):
        mixing = feature_mixing.Mixing(key, depth, positions)
        through = feature_mixing.through(forward, mixing, VIEWS, config)
        return through(variables["params"], variables["batch_stats"], inputs, key)[0]

    partner, weight = jax.jit(augment.draw_blend, static_argnums=1)(key, COUNT)
    noise = jax.jit(
        lambda x: augment.noisy_mixup(
            key, x, views=VIEWS, sparse=0.3, positions=positions
        )
    )

    def blended(x):
        parts = x.reshape(VIEWS, COUNT, *x.shape[1:])
        mixed = float(weight) * parts
        mixed += (1 - float(weight)) * parts[:, np.asarray(partner)]
        # The noise of these numbers: of zeros what is added, of ones the factor too.
        full = [np.full(x.shape, v, np.float32) for v in (0, 1)]
        added, both = (np.asarray(noise(x)) for x in full)
        return (both - added) * mixed.reshape(x.shape) + added

    plain = by_hand(params, np.float64(inputs), lambda _, x: x)
    for depth in range(ends + 1):
        change = lambda number, x, depth=depth: blended(x) if number == depth else x
        want = by_hand(params, np.float64(inputs), change)
        np.testing.assert_allclose(run(depth), want, atol=2e-4)
        assert np.abs(want - plain).max() > 0.02


def test_networks_mark_the_ends_of_their_stages(folder):
    config = configured(folder, data__image_size=32)
    for name, count in {"airbench94": 3, "allconv": 3, "preact_resnet18": 4}.items():
        found = feature_mixing.ends(models.build(name, num_classes=2), config)
        assert found == set(range(1, count + 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", models.MODELS)
def test_noisymix_suits_every_built_in_network(folder, name):
    config = configured(folder, data__image_size=32)
    assert {1, 2, 3} <= feature_mixing.ends(models.build(name, num_classes=2), config)


# --- Draws and loss ------------------------------------------------------------------


def test_depths_and_weights_are_drawn_each_step(folder):
    config = configured(folder)
    labels = jnp.arange(COUNT)
    share = Share(labels, labels, config, None)
    draw = jax.jit(jax.vmap(lambda key: feature_mixing.draw(key, share)))
    mixing, _, weight = draw(jax.random.split(jax.random.key(1), 400))
    counts = np.bincount(np.asarray(mixing.depth), minlength=4)
    assert len(counts) == 4
    assert counts.min() > 70
    assert abs(np.corrcoef(mixing.depth, weight)[0, 1]) < 0.15
    assert np.std(weight) > 0.25  # uniform, for alpha 1


@pytest.mark.usefixtures("_no_augmix", "_quick_draws")
def test_devices_share_the_depth_alone(folder, key, rng):
    config = configured(folder, augment__crop_pad=0, augment__flip=False)
    images = rng.integers(0, 256, (2, COUNT, 8, 8, 3), np.uint8)
    labels = np.arange(2 * COUNT).reshape(2, COUNT)
    see = lambda *part: views.make_views(
        *jax.random.split(key), *part, config, axis_name="d"
    )
    seen = jax.jit(jax.vmap(see, axis_name="d"))(images, labels, labels)
    assert seen.mixing.depth[0] == seen.mixing.depth[1]
    assert seen.weight[0, 0, 0] != seen.weight[1, 0, 0]
    draw = jax.jit(augment.draw_blend, static_argnums=1)
    keys = seen.mixing.key
    seen = jax.tree.map(np.asarray, seen._replace(mixing=None))
    for device in range(2):
        partner, weight = map(np.asarray, draw(keys[device], COUNT))
        for view in range(VIEWS):
            np.testing.assert_array_equal(seen.labels[device, view], labels[device])
            np.testing.assert_array_equal(
                seen.others[device, view], labels[device][partner]
            )
            np.testing.assert_array_equal(seen.weight[device, view], weight)


def test_the_loss_is_its_formula(folder, rng):
    logits = rng.normal(size=(VIEWS * 5, 4)).astype(np.float32)
    y, partner, weight = rng.integers(0, 4, 5), rng.permutation(5), 0.3
    repeat = lambda row: np.broadcast_to(row, (VIEWS, 5))
    seen = views.Views(np.zeros(()), *map(repeat, (y, y[partner], np.float32(weight))))
    settings = dataclasses.replace(configured(folder).augment, jsd_weight=12.0)
    run = lambda logits, seen: losses.training_loss(logits, seen, settings)
    got = jax.jit(run)(logits, seen)
    logs = special.log_softmax(np.float64(logits), axis=-1).reshape(VIEWS, 5, 4)
    clean = -logs[0][np.arange(5), y].mean()
    other = -logs[0][np.arange(5), y[partner]].mean()
    middle = np.exp(logs).mean(0)
    divergence = special.rel_entr(np.exp(logs), middle).sum(-1).mean()
    want = weight * clean + (1 - weight) * other + 12 * divergence
    np.testing.assert_allclose(got, want, rtol=1e-5)


# --- Runs ----------------------------------------------------------------------------


@pytest.mark.usefixtures("_tiny_model", "_no_augmix")
@pytest.mark.slow
def test_a_run_on_two_devices_goes_on_with_the_same_bits(folder, tmp_path):
    config = configured(
        folder, optim__epochs=1.0, train__devices=2, augment__mix_depth=1
    )
    states = {}
    for name, stops in {"whole": (None,), "parts": (2, None)}.items():
        for until in stops:
            plan = plan_lib.plan(config, tmp_path / name)
            done = loop.train(plan, until=until, quiet=True)
        assert done.step == 6
        states[name] = checkpoint.digest(done.state)
    assert states["whole"] == states["parts"]


@pytest.mark.usefixtures("_tiny_model")
def test_what_is_refused_before_it_starts(folder, tmp_path):
    with pytest.raises(
        ConfigError, match=r"mix_depth is 3, but model.name 'tiny' mark"
    ):
        plan_lib.plan(configured(folder), tmp_path)
    shared = configured(
        folder,
        augment__pair_donors="global",
        augment__mix_depth=1,
        train__devices=2,
    )
    with pytest.raises(ConfigError, match="pair_donors is 'global', but 'noisymix'"):
        plan_lib.plan(shared, tmp_path)
    layout = parallel.make_layout(1)
    feature_mixing.check(
        toy.TinyNet(4), configured(folder, augment__mix_depth=0), layout.count
    )
