"""SupCLR and CSI: the loss, the views, both stages, and CSI's score."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from apr_jax import augment, models, ood, parallel
from apr_jax import config as config_lib
from apr_jax import network as network_lib
from apr_jax.errors import ConfigError
from apr_jax.evaluate import classifier, ood_scores
from apr_jax.evaluate import ood as evaluate_ood
from apr_jax.evaluate.context import Context
from apr_jax.models import grad_cam, projected
from apr_jax.models.projected import HEADS
from apr_jax.pixels import to_pixels
from apr_jax.train import contrastive, loop, losses, views
from apr_jax.train import plan as plan_lib
from tests import toy

pytestmark = pytest.mark.usefixtures("_tiny_model")


def with_stage(monkeypatch, function):
    """SupCLR and CSI with another stage than SimCLR's augmentations."""
    stage = augment.Stage(function)
    for name in ("supclr", "csi"):
        method = dataclasses.replace(augment.AUGMENTS[name], after=(stage,))
        monkeypatch.setitem(augment.AUGMENTS, name, method)


def unchanged(keys, images):
    return to_pixels(images)


@pytest.fixture
def _plain(monkeypatch):
    """Without SimCLR's augmentations, which take long to compile."""
    with_stage(monkeypatch, unchanged)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("toy")
    toy.write_arrays(path)
    return path


def by_hand(projections, labels, temperature):
    """Equation 2 of Khosla et al., sum by sum."""
    z = projections.astype(np.float64)
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    terms = []
    for i in range(len(z)):
        others = [a for a in range(len(z)) if a != i]
        below = sum(np.exp(z[i] @ z[a] / temperature) for a in others)
        same = [p for p in others if labels[p] == labels[i]]
        each = [-np.log(np.exp(z[i] @ z[p] / temperature) / below) for p in same]
        terms.append(np.mean(each) if each else 0.0)
    return np.mean(terms)


@pytest.mark.parametrize(("count", "temperature"), [(2, 0.5), (9, 0.07), (16, 0.5)])
def test_the_loss_is_equation_2(rng, count, temperature):
    projections = rng.normal(size=(count, 5)).astype(np.float32)
    labels = rng.integers(0, 3, count)
    labels[0] = 7  # alone with its label
    run = partial(losses.supervised_contrastive, temperature=temperature)
    got = jax.jit(run)(projections, labels)
    want = by_hand(projections, labels, temperature)
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-7)


def test_the_loss_has_a_gradient_where_a_projection_vanishes(rng):
    projections = np.float32(rng.normal(size=(4, 3)))
    projections[1] = 0
    run = partial(losses.supervised_contrastive, temperature=0.1)
    slopes = jax.jit(jax.grad(run))(projections, np.array([0, 0, 1, 1]))
    assert np.isfinite(slopes).all()


def test_devices_compare_with_each_other(rng):
    weight = np.float32(rng.normal(size=(6, 4)))
    inputs = np.float32(rng.normal(size=(10, 6)))
    labels = rng.integers(0, 3, 10)

    def loss(weight, inputs, labels, axis_name):
        return losses.supervised_contrastive(
            inputs @ weight, labels, temperature=0.2, axis_name=axis_name
        )

    def both(weight, inputs, labels):
        found = jax.value_and_grad(loss)(weight, inputs, labels, parallel.AXIS)
        return jax.lax.pmean(found, parallel.AXIS)

    layout = parallel.make_layout(2)
    mapped = parallel.map_devices(both, layout)
    got = mapped(
        parallel.replicate(weight, layout),
        *parallel.split_batch((inputs, labels), layout),
    )
    alone = jax.jit(jax.value_and_grad(partial(loss, axis_name=None)))
    want = alone(weight, inputs, labels)
    for found, expected in zip(got, want, strict=True):
        for part in found:
            np.testing.assert_allclose(part, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(want[1]).max() > 0.01


def test_linear_layers_learn_class_and_turn(rng, tmp_path):
    logits = rng.normal(size=(4 * 3, 5 * 2)).astype(np.float32)
    labels = np.array([0, 1, 1])
    got = jax.jit(partial(losses.linear_loss, shifts=4))(logits, labels)
    log_p = special.log_softmax(logits[:3, :2], axis=1)
    want = -np.mean(log_p[np.arange(3), labels])
    joint = special.log_softmax(logits[:, 2:].astype(np.float64), axis=1)
    pairs = [joint[3 * t + i, 2 * t + labels[i]] for t in range(4) for i in range(3)]
    np.testing.assert_allclose(got, want - np.mean(pairs), rtol=1e-5)
    shown = network_lib.shift_logits(logits, 4)
    np.testing.assert_array_equal(shown[:, 3], logits[:, 8:])
    settings = toy.config(tmp_path, augment__method="csi").augment
    np.testing.assert_array_equal(
        network_lib.class_logits(logits, settings), logits[:, :2]
    )


@pytest.mark.usefixtures("_plain")
def test_views_are_turned_before_their_colours_change(folder, key, rng):
    config = toy.config(folder, augment__method="csi", augment__crop_pad=3)
    images = rng.integers(0, 256, (6, 8, 8, 3), np.uint8)
    labels = np.arange(6) % 4
    see = lambda *batch: views.make_views(key, key, *batch, config)
    seen = jax.jit(see)(images, labels, np.arange(6))
    pixels = np.asarray(seen.pixels).reshape(2, 4, 6, 8, 8, 3)
    np.testing.assert_array_equal(seen.labels, np.tile(labels, (8, 1)))
    original = np.float32(images) / 255
    mirrored = []
    for view in pixels:
        for turn in range(4):
            want = np.rot90(view[0], turn, axes=(1, 2))
            np.testing.assert_array_equal(view[turn], want)
        # Mirrored, but not cropped.
        flips = [
            np.allclose(a, b, atol=1e-6) for a, b in zip(view[0], original, strict=True)
        ]
        for a, b, same in zip(view[0], original, flips, strict=True):
            np.testing.assert_allclose(a, b if same else b[:, ::-1], atol=1e-6)
        mirrored.append(flips)
    assert mirrored[0] != mirrored[1]


def test_every_view_and_turn_has_draws_of_its_own(folder, key, rng, monkeypatch):
    with_stage(monkeypatch, jax.vmap(lambda k, x: to_pixels(x) + jax.random.uniform(k)))
    config = toy.config(folder, augment__method="csi", augment__flip=False)
    images = rng.integers(0, 256, (6, 8, 8, 3), np.uint8)
    labels = np.arange(6)
    see = jax.jit(lambda *batch: views.make_views(key, key, *batch, config).pixels)
    whole = np.asarray(see(images, labels, labels)).reshape(8, 6, 8, 8, 3)
    turned = [np.rot90(np.float32(images) / 255, k % 4, axes=(1, 2)) for k in range(8)]
    added = (whole - np.stack(turned))[:, :, 0, 0, 0]
    assert len(np.unique(added.round(4))) == 48
    # They are those of the place in the batch.
    at = np.roll(labels, 2)
    again = np.reshape(see(images[at], at, at), whole.shape)
    np.testing.assert_array_equal(again, whole[:, at])


def csi_config(folder, **changes):
    common = {
        "augment__method": "csi",
        "optim__epochs": 4.0,
        "optim__learning_rate": 0.05,
        "contrast__linear_share": 0.4,
    }
    return toy.config(folder, **(common | changes))


@pytest.fixture(scope="module")
def stopped(folder, tmp_path_factory):
    """The states where the first stage ends and at the end, and the run's folder."""
    root = tmp_path_factory.mktemp("csi")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "tiny", toy.TinyNet)
        with_stage(patch, unchanged)
        config = csi_config(folder)
        plan = plan_lib.plan(config, root)
        start = contrastive.linear_start(config, plan.total_steps)
        assert (plan.total_steps, start) == (24, 14)
        halfway = loop.train(plan, until=start, quiet=True).state
        assert loop.train(plan, until=start + 3, quiet=True).step == start + 3
        return halfway, loop.train(plan, quiet=True).state, root


def test_only_the_linear_layer_learns_in_the_second_stage(stopped):
    halfway, end, _ = stopped
    for name, value in halfway.params.items():
        same = jax.tree.leaves(jax.tree.map(np.array_equal, value, end.params[name]))
        assert all(same) == (name != HEADS), name
    jax.tree.map(np.testing.assert_array_equal, halfway.batch_stats, end.batch_stats)


@pytest.mark.usefixtures("_plain")
def test_stops_change_nothing(folder, tmp_path, stopped):
    whole = loop.train(plan_lib.plan(csi_config(folder), tmp_path / "one"), quiet=True)
    jax.tree.map(np.testing.assert_array_equal, whole.state, stopped[1])


@pytest.mark.slow
@pytest.mark.usefixtures("_plain")
def test_calls_of_several_steps_end_with_the_stage(folder, tmp_path, stopped):
    config = csi_config(folder, train__steps_per_call=5)
    several = loop.train(plan_lib.plan(config, tmp_path), quiet=True)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=5e-3, atol=5e-4),
        several.state.params,
        stopped[1].params,
    )


@pytest.mark.slow
@pytest.mark.usefixtures("_plain")
def test_two_devices_train_as_one(folder, tmp_path, stopped):
    config = csi_config(folder, train__devices=2)
    both = loop.train(plan_lib.plan(config, tmp_path), until=16, quiet=True)
    start = loop.train(plan_lib.plan(csi_config(folder), tmp_path / "one"), until=16)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=5e-3, atol=5e-4),
        both.state.params,
        start.state.params,
    )


def read_test(folder):
    with np.load(folder / "test.npz") as test:
        return test["images"], test["labels"]


def test_the_network_is_one_as_any_other(folder, stopped):
    network = classifier.from_run(stopped[2])
    images, labels = read_test(folder)
    outputs = jax.jit(network.predict)(network.variables, images)
    logits, features = map(np.asarray, outputs)
    assert logits.shape == (50, 4)
    assert toy.has_learnt(logits.argmax(1) == labels)
    collected = ood_scores.Collected(logits, features, labels, odin=labels, csi=labels)
    settings = network.config.augment
    weight, bias = ood_scores.last_layer(network.variables, collected, settings)
    np.testing.assert_allclose(features @ weight + bias, logits, atol=1e-4)


def test_csis_score_is_that_of_the_mean_over_turns(folder, stopped):
    network = classifier.from_run(stopped[2])
    images, _ = read_test(folder)
    kernel, bias = (
        np.asarray(network.variables["params"][HEADS][k], np.float64)
        for k in ("kernel", "bias")
    )
    assert kernel.shape == (8, 20)
    predict = jax.jit(network.predict)
    mean = np.zeros((50, 4))
    for turn in range(4):
        turned = np.rot90(images, turn, axes=(1, 2))
        features = np.asarray(predict(network.variables, turned)[1], np.float64)
        own = slice(4 + 4 * turn, 8 + 4 * turn)
        mean += (features @ kernel[:, own] + bias[own]) / 4
    want = special.log_softmax(mean, axis=1).max(1)
    turned = network_lib.make_shift_logits(
        network_lib.make_model(network.config, num_classes=4), network.config
    )
    score = jax.jit(
        lambda images: ood.csi(lambda x: turned(network.variables, x), images)
    )
    got = score(images)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)
    # The evaluation has it beside all others.
    np.savez(folder / "dark.npz", images=np.asarray(images) // 4)
    found = {}
    for names in ((), ("csi", "msp")):
        for record in evaluate_ood.measure(
            network,
            config_lib.Ood(out=(f"dark=arrays:{folder / 'dark.npz'}",), scores=names),
            Context(parallel.make_layout(1), quiet=True),
        ):
            found[record.metric, names] = record.value
    assert found["csi.auroc", ()] == found["csi.auroc", ("csi", "msp")]
    outside = score(images // 4)
    auroc = np.mean(want[:, None] > np.asarray(outside)[None])
    assert found["csi.auroc", ()] == pytest.approx(auroc, abs=1e-3)


@pytest.mark.slow
@pytest.mark.usefixtures("_plain")
def test_supclr_trains_and_has_no_score_of_its_own(folder, tmp_path):
    changes = {"augment__method": "supclr", "contrast__linear_rate": 0.5}
    config = csi_config(folder, **changes)
    trained = loop.train(plan_lib.plan(config, tmp_path), quiet=True)
    network = classifier.make(config, trained.state.variables, "abcd")
    assert not ood_scores.has_turns(network)
    images, labels = read_test(folder)
    logits = jax.jit(network.predict)(network.variables, images)[0]
    assert toy.has_learnt(np.argmax(logits, 1) == labels)
    with pytest.raises(ConfigError, match="trained by it"):
        list(
            evaluate_ood.measure(
                network,
                config_lib.Ood(
                    out=(f"test=arrays:{folder / 'test.npz'}",), scores=("csi",)
                ),
                Context(parallel.make_layout(1), quiet=True),
            )
        )
    with pytest.raises(ValueError, match="'supclr' has no turns"):
        network_lib.make_shift_logits(None, config)


def test_the_rate_goes_its_course_in_each_stage(folder):
    config = csi_config(
        folder,
        optim__epochs=10.0,
        optim__milestones=(5.0,),
        optim__learning_rate=0.2,
        optim__gamma=0.5,
        contrast__linear_share=0.2,
        contrast__linear_rate=3.0,
    )
    rate = contrastive.schedule(config, 10.0, 100)
    got = jax.jit(jax.vmap(rate))(np.arange(100))
    want = [0.2] * 40 + [0.1] * 40 + [3.0] * 12 + [0.3] * 3 + [0.03] * 3 + [0.003] * 2
    np.testing.assert_allclose(got, want, rtol=1e-5)
    plain = toy.config(folder, optim__milestones=(5.0,))
    assert contrastive.linear_start(plain, 100) == 100
    assert float(contrastive.schedule(plain, 10.0, 100)(60)) == pytest.approx(0.02)


def test_heatmaps_are_those_of_the_network_inside(key, tmp_path):
    config = toy.config(tmp_path, augment__method="csi", model__name="wrn_10_1")
    model = network_lib.make_model(config, num_classes=3)
    images = np.zeros((2, 8, 8, 3), np.float32)
    shapes = jax.eval_shape(lambda k: model.init(k, images, train=False), key)
    variables = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes)
    names = set(variables["params"])
    assert {HEADS, "projection_0", "projection_1", "conv1", "fc"} <= names
    assert variables["params"][HEADS]["kernel"].shape == (64, 15)
    found = jax.eval_shape(
        lambda: grad_cam.grad_cam(model, variables, images, np.array([0, 2]))
    )
    assert found.heatmap.shape == (2, 2, 2)


def test_only_projections_teach_the_features(key, rng):
    model = projected.Projected(toy.TinyNet(num_classes=1), 3, 5)
    images = rng.random((4, 8, 8, 3), np.float32)
    variables = jax.jit(partial(model.init, train=False))(key, images)

    def slopes(part, **how):
        def total(variables, images):
            found = model.apply(variables, images, train=False, **how)
            return jnp.sum((found if part is None else found[part]) ** 2)

        slope = jax.jit(jax.grad(total, argnums=(0, 1)))
        params, pixels = slope(variables, images)
        kernel = params["params"]["Conv_0"]["kernel"]
        heads = params["params"][HEADS]["kernel"]
        return [bool(np.any(np.asarray(x))) for x in (kernel, heads, pixels)]

    assert slopes(0, project=True) == [False, True, False]
    assert slopes(1, project=True) == [True, False, True]
    # As a classifier, to be attacked and looked into, it is one piece.
    assert slopes(None) == [True, True, True]
    run = jax.jit(partial(model.apply, train=False, capture=True))
    logits, features = map(np.asarray, run(variables, images))
    kernel, bias = (
        np.asarray(variables["params"][HEADS][k]) for k in ("kernel", "bias")
    )
    np.testing.assert_allclose(logits, features @ kernel + bias, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("_plain")
def test_seeds_train_together(folder, tmp_path, stopped):
    configs = [csi_config(folder, seed=seed) for seed in (0, 1)]
    plans = [plan_lib.plan(c, tmp_path / str(c.seed)) for c in configs]
    both = loop.train_together(plans, quiet=True)
    assert [one.step for one in both] == [24, 24]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=5e-3, atol=5e-4),
        both[0].state.params,
        stopped[1].params,
    )
    kernels = [one.state.params["Conv_0"]["kernel"] for one in both]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.01


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augment__method": "supclr+mixup"}, "leaves no place for blended labels"),
        ({"augment__method": "csi+apr_p"}, "or for a second view"),
        ({"adversary__attack": "fgsm"}, "'csi' has no place for adversary.attack"),
        ({"contrast__temperature": 0.0}, r"contrast.temperature is 0.0; .* at least"),
        ({"contrast__linear_share": 1.0}, r"contrast.linear_share is 1.0; .* 0 to 0.9"),
    ],
)
def test_what_does_not_go_together(folder, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        plan_lib.plan(csi_config(folder, **changes), tmp_path)


def test_older_runs_keep_their_hash(folder):
    fields = config_lib.identity(toy.config(folder))
    assert not [k for k in fields if k.startswith("contrast.")]
    assert [k for k in config_lib.identity(csi_config(folder)) if "contrast." in k]
    both = dataclasses.replace(augment.AUGMENTS["supclr"], single=augment.APR_S)
    assert augment.get_method("apr_s+supclr") == both
