"""What is drawn, what is averaged and when it is saved, without training.

Every stage of a method, every view, every step and every example draws from a key of
its own: keys are recorded where they are used.
"""

import contextlib
import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from apr_jax import augment, data
from apr_jax.data import samples
from apr_jax.models.layers import BatchNorm
from apr_jax.train import adversarial, image_pairs, loop, losses, views
from apr_jax.train import single_image as single_lib
from apr_jax.train import step as step_lib
from apr_jax.train.state import TrainState
from tests import toy

COUNT = 4


class Recorder:
    """Functions that leave images as they are, and note the keys they are given."""

    def __init__(self):
        self.keys = {}

    def note(self, name, keys):
        for i, row in enumerate(np.atleast_2d(jax.random.key_data(keys))):
            place = (name, i)
            while place in self.keys:
                place = (*place, "again")
            self.keys[place] = row.tobytes()

    def stage(self, name, **about):
        def run(keys, images, **_):
            self.note(name, keys)
            return images

        return augment.Stage(run, **about)

    def all_differ(self):
        twice = {}
        for place, key in self.keys.items():
            twice.setdefault(key, []).append(place)
        shared = [places for places in twice.values() if len(places) > 1]
        assert not shared, shared


@pytest.fixture
def recorder(monkeypatch):
    found = Recorder()
    for name in ("random_crop", "random_flip"):

        def run(keys, images, name=name, **_):
            found.note(name, keys)
            return images

        monkeypatch.setattr(augment, name, run)
    choose = image_pairs.choose_donors

    def donors(key, images, share):
        found.note("donors", key)
        return choose(key, images, share)

    monkeypatch.setattr(image_pairs, "choose_donors", donors)
    return found


@pytest.fixture
def batch(rng):
    images = jnp.asarray(rng.integers(0, 256, (COUNT, 8, 8, 3)), jnp.uint8)
    return images, jnp.arange(COUNT), jnp.arange(COUNT)


def both_keys(seed=0):
    return jax.random.split(jax.random.key(seed))


def test_every_stage_and_view_draws_for_itself(tmp_path, batch, recorder, monkeypatch):
    pair = recorder.stage("pair", per="image", takes=())
    method = augment.Method(
        single=recorder.stage("single"),
        after=tuple(recorder.stage(f"after {i}") for i in range(3)),
        pair=pair,
        loss=augment.AUGMENTS["augmix"].loss,
    )
    monkeypatch.setitem(augment.AUGMENTS, "recorded", method)
    config = toy.config(tmp_path, augment__method="recorded")
    views.make_views(*both_keys(), *batch, config)
    names = {place[0] for place in recorder.keys}
    stages = {"single", "after 0", "after 1", "after 2", "pair"}
    assert names == stages | {"random_crop", "random_flip", "donors"}
    # single, crop, flip and pair once; three stages of two views.
    assert len(recorder.keys) == COUNT * (4 + 3 * 2) + 1
    recorder.all_differ()


def test_blending_and_the_second_view_draw_for_themselves(
    tmp_path, batch, recorder, monkeypatch
):
    def mix(key, images, **_):
        recorder.note("mix", key)
        ones = jnp.ones(len(images))
        return augment.Mixed(images, jnp.arange(len(images)), ones)

    method = augment.Method(
        mix=augment.Stage(mix, takes=()),
        pair=recorder.stage("pair", per="image", takes=()),
    )
    monkeypatch.setitem(augment.AUGMENTS, "recorded", method)
    coins = []
    bernoulli = jax.random.bernoulli

    def coin(key, *given, **more):
        coins.append(key)
        recorder.note("coin", key)
        return bernoulli(key, *given, **more)

    monkeypatch.setattr(jax.random, "bernoulli", coin)
    config = toy.config(tmp_path, augment__method="recorded", augment__mix_prob=0.5)
    views.make_views(*both_keys(), *batch, config)
    assert len(coins) == 1
    assert sum(place[0] == "donors" for place in recorder.keys) == 2
    recorder.all_differ()


def test_contrastive_views_draw_for_themselves(tmp_path, batch, recorder, monkeypatch):
    method = augment.Method(
        single=recorder.stage("single"),
        after=(recorder.stage("after"),),
        loss=augment.AUGMENTS["csi"].loss,
        shifts=4,
    )
    monkeypatch.setitem(augment.AUGMENTS, "recorded", method)
    config = toy.config(tmp_path, augment__method="recorded")
    found = views.make_views(*both_keys(), *batch, config)
    assert len(found.labels) == 8
    after = [place for place in recorder.keys if place[0] == "after"]
    assert len(after) == 8 * COUNT
    assert "random_crop" not in {place[0] for place in recorder.keys}
    recorder.all_differ()


def test_joined_methods_have_the_stages_of_all_in_their_order():
    parts = ("cutout", "patch_gaussian", "trivialaugment", "apr_sp")
    joined = augment.get_method("+".join(parts))
    stages = [s for part in parts for s in augment.AUGMENTS[part].after]
    assert list(joined.after) == stages
    assert joined.pair is augment.AUGMENTS["apr_sp"].pair
    assert joined.single is augment.AUGMENTS["apr_sp"].single


def test_every_step_draws_for_itself(tmp_path, batch, recorder, monkeypatch):
    """The step's keys: of images, of the batch, of dropout, and of the adversary."""

    def objective(params, state, seen, pixels, key):
        recorder.note("dropout", key)
        logits = jnp.zeros((len(pixels), 4)) * params["w"].sum()
        return params["w"].sum() * pixels.mean(), (logits, {})

    def make_views(image_key, batch_key, images, labels, positions, *_, **__):
        recorder.note("image", image_key)
        recorder.note("batch", batch_key)
        ones = jnp.ones((1, len(labels)))
        return views.Views(images / 255, labels[None], labels[None], ones)

    def perturb(keys, loss, pixels, *_, **__):
        recorder.note("adversary", keys)
        loss(pixels)
        return pixels

    monkeypatch.setattr(step_lib, "_make_objective", lambda *_, **__: objective)
    monkeypatch.setattr(step_lib.views, "make_views", make_views)
    monkeypatch.setattr(step_lib.adversarial, "perturb", perturb)
    config = toy.config(tmp_path, augment__method="standard", adversary__attack="pgd")
    sgd = optax.sgd(0.1)
    params = {"w": jnp.ones(2)}
    run = step_lib.make_train_step(None, sgd, config)
    for number in (0, 1, 7):
        state = TrainState(jnp.int32(number), params, {}, sgd.init(params))
        recorder.keys = {
            place: key for place, key in recorder.keys.items() if "again" not in place
        } | {(number, *place): key for place, key in recorder.keys.items()}
        run(state, *batch, jax.random.key(0))
    # The dropout of the attack is that of the step: the same network.
    unique = {}
    for place, key in recorder.keys.items():
        kind = next(part for part in place if isinstance(part, str))
        unique.setdefault(key, set()).add(kind)
    assert all(len(kinds) == 1 for kinds in unique.values()), "a key has two uses"
    count = lambda kind: sum(kinds == {kind} for kinds in unique.values())
    assert [count(k) for k in ("image", "batch", "dropout")] == [3, 3, 3]
    assert count("adversary") == 3 * COUNT


@pytest.mark.parametrize("fuse", [True, False])
def test_gradients_and_statistics_are_averaged_over_devices(
    tmp_path, rng, monkeypatch, fuse
):
    """In one collective as on a CPU, and in one for each array as on accelerators."""

    def objective(params, state, seen, pixels, key):
        loss = (params["w"] * pixels.mean()).sum() + (params["b"] ** 2 * 3).sum()
        logits = jnp.stack([pixels.mean((1, 2, 3)), jnp.full(len(pixels), 0.5)], 1)
        return loss, (logits, {"mean": pixels.mean((0, 1, 2))})

    def make_views(image_key, batch_key, images, labels, *_, **__):
        ones = jnp.ones((1, len(labels)))
        return views.Views(images / 255, labels[None], labels[None], ones)

    monkeypatch.setattr(step_lib, "_make_objective", lambda *_, **__: objective)
    monkeypatch.setattr(step_lib.views, "make_views", make_views)
    config = toy.config(tmp_path, augment__method="standard")
    images = rng.integers(0, 256, (2, COUNT, 8, 8, 3), np.uint8)
    labels = rng.integers(0, 2, (2, COUNT))
    sgd = optax.sgd(0.5)
    params = {"w": np.float32([1.0, -2.0]), "b": np.float32([0.5])}
    stats = {"mean": np.zeros(3, np.float32)}
    state = TrainState(np.int32(0), params, stats, sgd.init(params))
    run = step_lib.make_train_step(None, sgd, config, axis_name="d", fuse=fuse)
    positions = np.arange(2 * COUNT).reshape(2, COUNT)
    mapped = jax.vmap(run, in_axes=(None, 0, 0, 0, None), axis_name="d")
    after, metrics = jax.tree.map(
        np.asarray,
        jax.jit(mapped)(state, images, labels, positions, jax.random.key(0)),
    )
    pixels = np.float64(images) / 255
    slope = pixels.mean((1, 2, 3, 4)).mean()
    wrong = (pixels.mean((2, 3, 4)) > 0.5).astype(int) == np.asarray(labels)
    for device in range(2):
        np.testing.assert_allclose(
            after.params["w"][device], params["w"] - 0.5 * slope, rtol=1e-5
        )
        np.testing.assert_allclose(after.params["b"][device], 0.5 - 0.5 * 3, rtol=1e-5)
        np.testing.assert_allclose(
            after.batch_stats["mean"][device], pixels.mean((0, 1, 2, 3)), rtol=1e-5
        )
        loss = (np.array([1.0, -2.0]) * slope).sum() + 0.75
        assert float(metrics["loss"][device]) == pytest.approx(loss, rel=1e-5)
        share = 1 - wrong.mean()
        assert float(metrics["accuracy"][device]) == pytest.approx(share, abs=1e-6)
    assert after.step.tolist() == [1, 1]


@pytest.mark.parametrize("weight", [0.0, 3.0, 12.0])
def test_the_divergence_has_the_weight_of_its_setting(tmp_path, rng, weight):
    logits = np.float32(rng.normal(size=(3 * 5, 4)))
    labels = rng.integers(0, 4, (3, 5))
    seen = views.Views(np.zeros(()), labels, labels, np.ones((3, 5), np.float32))
    settings = toy.config(tmp_path, augment__method="augmix").augment
    given = dataclasses.replace(settings, jsd_weight=weight)
    run = lambda logits, seen: losses.training_loss(logits, seen, given)
    found = jax.jit(run)(logits, seen)
    p = np.exp(np.float64(logits)).reshape(3, 5, 4)
    p /= p.sum(-1, keepdims=True)
    own = -np.log(p[0][np.arange(5), labels[0]]).mean()
    divergence = (p * np.log(p / p.mean(0))).sum(-1).mean()
    np.testing.assert_allclose(found, own + weight * divergence, rtol=1e-5)


@pytest.mark.parametrize(
    ("every", "a_call", "saved"),
    [
        (7, 5, [10, 15, 24]),
        (5, 5, [5, 10, 15, 20, 24]),
        (1, 10, [10, 20, 24]),
        (7, 1, [7, 14, 21, 24]),
        (100, 5, [24]),
    ],
)
def test_states_are_saved_where_calls_pass_the_steps(every, a_call, saved):
    held = []
    plan = types.SimpleNamespace(
        config=types.SimpleNamespace(
            checkpoint=types.SimpleNamespace(every_steps=every)
        ),
        layout=None,
        steps_per_call=a_call,
        stage_end=lambda done: 24,
    )

    class Lanes:
        plans, step, held = (plan,), 0, None

        def on_devices(self):
            return None

        def hold(self, step, state):
            held.append(step)
            self.held = step

        def save_held(self):
            self.held = None

    meter = types.SimpleNamespace(
        add=lambda *_: None,
        flush=lambda: None,
        check=lambda *_: None,
        paused=contextlib.nullcontext,
    )
    call = lambda state, step, count: (None, {})
    signal = types.SimpleNamespace(number=0)
    done, stopped_by = loop._steps(Lanes(), [], [meter], signal, call, 24)
    assert (done, stopped_by) == (24, None)
    assert held == saved


def test_keys_of_images_follow_their_place(key):
    keys = lambda at: jax.random.key_data(single_lib.image_keys(key, at))
    keys = jax.jit(keys)
    at = np.array([4, 1, 5, 0, 3, 2])
    whole = np.asarray(keys(np.arange(6)))
    np.testing.assert_array_equal(keys(at), whole[at])
    assert len({row.tobytes() for row in whole}) == 6


def test_views_of_joined_methods_are_averaged_if_those_of_one_are():
    assert augment.get_method("cutout+amplitude_mix").mean
    assert augment.get_method("cutout+afa").auxiliary
    assert not augment.get_method("cutout+apr_p").mean


def test_every_epoch_in_memory_has_an_order_of_its_own():
    first, second, third = data.global_indices(0, 0, 3, 40, 40)
    assert (np.sort(first) == np.sort(second)).all()
    assert (first != second).any()
    assert (second != third).any()
    assert (data.global_indices(1, 0, 1, 40, 40)[0] != first).any()


def test_strengths_are_those_of_the_authors_for_other_sets():
    vital = augment.AUGMENTS["vital_phase"].single.strengths
    assert vital == {
        "cifar100": {"vital": 0.005, "nonvital": 0.012},
        "imagenet": {"vital": 0.001, "nonvital": 0.005},
    }
    (augmix,) = augment.AUGMENTS["augmix"].after
    assert augmix.strengths == {"imagenet": {"severity": 1.0}}


def test_statistics_that_devices_share_are_those_of_the_whole_batch(rng):
    """The unbiased variance, too, is of as many values."""
    values = np.float32(rng.normal(2, 3, (2, 3, 2, 2, 4)))
    found = []
    for axis_name in (None, "d"):
        norm = BatchNorm(axis_name=axis_name)
        variables = jax.jit(
            lambda norm=norm: norm.init(jax.random.key(0), values[0], train=False)
        )()
        run = lambda x, norm=norm, variables=variables: norm.apply(
            variables, x, train=True, mutable=["batch_stats"]
        )[1]["batch_stats"]
        if axis_name is None:
            found.append(jax.jit(run)(values.reshape(6, 2, 2, 4)))
        else:
            both = jax.jit(jax.vmap(run, axis_name="d"))(values)
            both = jax.tree.map(np.asarray, both)
            found += [jax.tree.map(lambda x, i=i: x[i], both) for i in range(2)]
    flat = np.float64(values).reshape(-1, 4)
    for stats in found:
        np.testing.assert_allclose(stats["mean"], 0.1 * flat.mean(0), rtol=1e-4)
        wanted = 0.9 + 0.1 * flat.var(0, ddof=1)
        np.testing.assert_allclose(stats["var"], wanted, rtol=1e-4)


def test_examples_are_drawn_by_the_seed():
    first, again, other = (samples.subset(100, 10, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (np.diff(first) > 0).all()


@pytest.mark.parametrize(
    ("labels", "examples", "wanted"),
    [
        ([2, 0, 1, 1, 0, 2], 3, [0, 1, 2]),
        ([0, 0, 0, 1, 1, 1], 2, [0, 3]),  # in the order of the classes
        ([0, 0, 1, 1, 2, 2, 2], 3, [0, 2, 4]),
        ([1, 1, 1, 1], 2, [0, 1]),
        ([0, 1, 2], 0, [0, 1, 2]),
        ([0, 1, 2], 9, [0, 1, 2]),
    ],
)
def test_leading_examples_are_of_all_classes(labels, examples, wanted):
    split = data.ArraySplit(np.arange(len(labels)), np.array(labels))
    found = samples.leading(split, examples)
    assert found.images.tolist() == wanted
    assert found.labels.tolist() == [labels[place] for place in wanted]


def test_one_step_of_pgd_is_that_of_fgsm(tmp_path, rng):
    pixels = np.float32(rng.uniform(0, 1, (2, 4, 4, 3)))
    found = []
    for attack in ("fgsm", "pgd"):
        given = toy.config(tmp_path, adversary__attack=attack, adversary__steps=1)
        keys = jax.random.split(jax.random.key(0), 2)
        run = lambda keys, pixels, given=given: adversarial.perturb(
            keys, lambda x: jnp.sum(x), pixels, given.adversary, unroll=True
        )
        found.append(np.asarray(jax.jit(run)(keys, pixels)))
    np.testing.assert_array_equal(*found)
