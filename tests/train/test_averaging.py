"""Averaged weights, fixed collections and turns of mirror images, in whole runs."""

import dataclasses
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import augment, models, parallel
from apr_jax import config as config_lib
from apr_jax.evaluate import classifier
from apr_jax.models.layers import BatchNorm
from apr_jax.runs import checkpoint
from apr_jax.train import auxiliary_norm, averaging, contrastive, dispatch, hooks, loop
from apr_jax.train import plan as plan_lib
from apr_jax.train import step as step_lib
from apr_jax.train.state import TrainState
from tests import toy

# All that the recipe of configs/cifar10_fast.py adds.
RECIPE = {
    "augment__crop_edge": "reflect",
    "augment__flip_by": "epoch",
    "augment__label_smoothing": 0.1,
    "optim__decay_per": "step",
    "optim__norm_bias_rate": 4.0,
    "optim__schedule": "cyclic",
    "optim__start": 0.2,
    "optim__end": 0.1,
    "optim__average": "lookahead",
    "optim__average_decay": 0.95,
    "optim__average_every": 5,
    "optim__average_power": 3.0,
}


@flax.struct.dataclass
class Older:
    """A state without the fields that not every run has."""

    step: Any
    params: Any
    batch_stats: Any
    opt_state: Any


class Fixed(nn.Module):
    """The tiny network after a layer that is computed of the training's images."""

    num_classes: int
    dtype: jnp.dtype = jnp.float32
    sync_axis: str | None = None
    minimum_size: int = 4

    @nn.compact
    def __call__(self, x, *, train, capture=False):
        centre = self.variable("constants", "centre", jnp.zeros, (1, 1, 1, 3))
        x = nn.Conv(8, (3, 3), use_bias=False, dtype=self.dtype)(x - centre.value)
        norm = BatchNorm(axis_name=self.sync_axis, dtype=self.dtype, use_scale=False)
        features = nn.relu(norm(x, train=train)).mean((1, 2))
        logits = nn.Dense(self.num_classes, dtype=self.dtype)(features)
        return (logits, features) if capture else logits

    @nn.nowrap
    def constants_of(self, images):
        return {"centre": images.mean((0, 1, 2), keepdims=True)}


@pytest.fixture(autouse=True)
def _tiny_models(monkeypatch):
    monkeypatch.setitem(models.MODELS, "tiny", toy.TinyNet)
    monkeypatch.setitem(models.MODELS, "fixed", Fixed)
    # SimCLR's augmentations are much to compile.
    plain = dataclasses.replace(augment.AUGMENTS["supclr"], after=())
    monkeypatch.setitem(augment.AUGMENTS, "supclr", plain)


def configured(folder, **changes):
    return toy.config(folder, **(RECIPE | {"model__name": "fixed"} | changes))


def run(folder, workdir, *, until=None, **changes):
    plan = plan_lib.plan(configured(folder, **changes), workdir)
    return loop.train(plan, until=until, quiet=True).state


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def close(one, other, rtol=2e-3, atol=2e-4):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), one, other
    )


@pytest.mark.parametrize("kind", ["ema", "lookahead"])
@pytest.mark.parametrize("power", [0.0, 3.0])
def test_average_by_hand(folder, rng, kind, power):
    config = toy.config(
        folder,
        optim__average=kind,
        optim__average_decay=0.8,
        optim__average_every=3,
        optim__average_power=power,
    )
    total = 10
    update = jax.jit(averaging.make_update(config, total))
    start = {"params": {"w": np.ones(4)}, "batch_stats": {"m": np.zeros(2)}}
    start = jax.tree.map(np.float32, start)
    moves = jax.tree.map(
        lambda v: rng.normal(size=(total, *v.shape)).astype(np.float32), start
    )
    state = TrainState(np.int32(0), **start, opt_state=(), average=start)
    learning = average = start
    for step in range(1, total + 1):
        move = jax.tree.map(lambda m, step=step: m[step - 1], moves)
        add = lambda one, other: jax.tree.map(np.add, one, other)
        live = {"params": state.params, "batch_stats": state.batch_stats}
        state = update(state.replace(step=np.int32(step), **add(live, move)))
        learning = add(learning, move)
        if step % 3 == 0:
            decay = 0.8**3 * (step / total) ** power
            average = jax.tree.map(
                lambda a, x, d=decay: d * a + (1 - d) * x, average, learning
            )
            learning = average if kind == "lookahead" else learning
        close(state.average, average, rtol=1e-4, atol=1e-5)
        close(state.params, learning["params"], rtol=1e-4, atol=1e-5)
        close(state.variables, average, rtol=1e-4, atol=1e-5)
    # Nine steps of ten are in it.
    assert np.abs(state.average["params"]["w"] - state.params["w"]).max() > 0.1


def test_without_an_average_the_state_is_as_before(folder, tmp_path):
    plan = plan_lib.plan(toy.config(folder), tmp_path / "run")
    assert averaging.make_update(plan.config, 10) is None
    state = plan_lib.initial_state(plan)
    leaves = jax.tree_util.tree_leaves_with_path(state)
    fields = {path[0].name for path, _ in leaves}
    assert fields == {"step", "params", "batch_stats", "opt_state"}
    assert set(state.variables) == {"params", "batch_stats"}
    # It goes on from the files of states that knew of no such fields.
    older = Older(state.step, state.params, state.batch_stats, state.opt_state)
    saved = checkpoint.Checkpoints(tmp_path / "old", keep=1, owner="toy")
    saved.save(0, older)
    _, found = saved.restore(state)
    saved.close()
    assert isinstance(found, TrainState)
    same(found, state)


SUPCLR = {"augment__method": "supclr", "contrast__linear_share": 0.4}
METHODS = [
    {"augment__method": "standard", "train__devices": 2},
    SUPCLR,
    {"augment__method": "afa", "optim__average": "ema"},
    {"augment__method": "apr_p", "adversary__attack": "fgsm"},
    {"augment__method": "standard", "model__dtype": "bfloat16"},
]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(m, marks=[pytest.mark.slow] * (i > 0))
        for i, m in enumerate(METHODS)
    ],
    ids=lambda c: "-".join(map(str, c.values())),
)
def test_stops_change_no_bit_and_the_average_is_the_network(folder, tmp_path, changes):
    whole = run(folder, tmp_path / "whole", **changes)
    for until in (4, 13, 16, None):
        state = run(folder, tmp_path / "parts", until=until, **changes)
    assert checkpoint.digest(state) == checkpoint.digest(whole)
    network = classifier.from_run(tmp_path / "parts")
    assert set(network.variables) == {"params", "batch_stats", "constants"}
    average = {k: auxiliary_norm.without(v) for k, v in state.average.items()}
    same({k: network.variables[k] for k in average}, average)
    learning = auxiliary_norm.without(state.params)
    assert toy.farthest(average["params"], learning) > 1e-6
    # The layer before: of the training images, and as it was.
    with np.load(folder / "train.npz") as train:
        pixels = train["images"] / 255
    config = config_lib.default().data
    centre = (pixels.mean((0, 1, 2)) - config.mean) / config.std
    found = network.variables["constants"]["centre"].reshape(-1)
    np.testing.assert_allclose(found, centre, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_second_norm_is_averaged_too(folder, tmp_path):
    state = run(folder, tmp_path / "run", augment__method="afa", optim__average="ema")
    for tree in state.average.values():
        assert auxiliary_norm.KEY in tree
    stats = state.average["batch_stats"]
    first, second = (
        tree["BatchNorm_0"]["mean"] for tree in (stats, stats[auxiliary_norm.KEY])
    )
    assert np.abs(first - second).max() > 1e-4
    assert auxiliary_norm.KEY not in state.variables["params"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ema", "lookahead"])
def test_the_linear_stage_learns_from_the_averaged_features(folder, tmp_path, kind):
    changes = SUPCLR | {"optim__average": kind}
    config = configured(folder, **changes)
    start = contrastive.linear_start(config, 24)
    assert start == 14
    halfway = run(folder, tmp_path, until=start, **changes)
    same(
        halfway.average, {"params": halfway.params, "batch_stats": halfway.batch_stats}
    )
    end = run(folder, tmp_path, **changes)
    for name, value in halfway.average["params"].items():
        if name != "heads":
            same(value, end.average["params"][name])
            same(value, end.params[name])
    same(halfway.average["batch_stats"], end.average["batch_stats"])


@pytest.mark.slow
def test_devices_and_calls_of_several_steps(folder, tmp_path):
    changes = {"augment__method": "standard", "optim__learning_rate": 0.02}
    alone = run(folder, tmp_path / "one", **changes)
    for name, more in (
        ("devices", {"train__devices": 4}),
        ("scanned", {"train__steps_per_call": 7}),
    ):
        other = run(folder, tmp_path / name, **changes, **more)
        close(other.average, alone.average, rtol=5e-3, atol=5e-4)
        same(other.constants, alone.constants)


@pytest.mark.slow
def test_seeds_together_are_the_runs_alone(folder, tmp_path):
    changes = {"augment__method": "standard", "optim__epochs": 2.0}

    def plans(root):
        return [
            plan_lib.plan(
                configured(folder, seed=seed, name=f"toy{seed}", **changes),
                tmp_path / root / str(seed),
            )
            for seed in (0, 3)
        ]

    lanes = loop.train_together(plans("together"), quiet=True)
    for plan, lane in zip(plans("alone"), lanes, strict=True):
        alone = loop.train(plan, quiet=True).state
        close(lane.state.average, alone.average)
        same(lane.state.constants, alone.constants)
    averages = [lane.state.average["params"] for lane in lanes]
    assert toy.farthest(*averages) > 0.01


@pytest.mark.slow
def test_watches_and_held_out_images_see_the_average(folder, tmp_path, monkeypatch):
    steps = []
    inner = hooks.EpochHook._each

    def spy(self, gather, state, *knobs):
        average = parallel.first_copy(state.average["params"])

        def checked(variables, batch):
            same(parallel.first_copy(variables["params"]), average)
            return gather(variables, batch)

        steps.append((type(self).__name__, int(parallel.first_copy(state.step))))
        return inner(self, checked, state, *knobs)

    monkeypatch.setattr(hooks.EpochHook, "_each", spy)
    run(
        folder,
        tmp_path,
        optim__epochs=2.0,
        train__watch=("input_spectrum",),
        train__watch_examples=16,
        adversary__attack="fgsm",
        adversary__held_out=16,
        augment__method="standard",
    )
    watched = [("Watcher", step) for step in (0, 5, 10)]
    assert set(steps) == {*watched, ("Guard", 5), ("Guard", 10)}


def test_held_out_images_are_not_in_the_constants(folder, tmp_path):
    config = configured(folder, adversary__attack="fgsm", adversary__held_out=16)
    plan = plan_lib.plan(config, tmp_path)
    images = plan.resident.splits["train"].images
    np.testing.assert_array_equal(plan_lib.sample(plan), images[plan.rows])


@pytest.mark.parametrize("count", [1, 3])
def test_signed_indices_are_mirror_images(folder, tmp_path, count):
    plan = plan_lib.plan(configured(folder), tmp_path)
    images, labels = dispatch.training_images(plan)
    indices = dispatch.indices_of(plan, 4, count)
    turned = dispatch.mirrored_of(plan, 4, count)
    assert 0 < turned.mean() < 1
    spy = lambda state, images, labels, *_: (state, (images, labels))
    shape = images.shape[1:]
    take = step_lib.make_resident_steps(spy, count, shape=shape, signed=True)
    signed = np.where(turned, ~indices, indices)
    rows = jnp.asarray(step_lib.flat_images(images))
    _, got = take(0, rows, jnp.asarray(labels), signed, 0, 0)
    want = images[indices]
    want[turned] = want[turned][:, :, ::-1]
    same(got, (want, labels[indices]))


def test_a_run_mirrors_by_turns(folder, tmp_path, monkeypatch):
    """The images of an epoch are those of the one before, mirrored."""
    seen = []
    inner = step_lib.views.make_views

    def spy(image_key, batch_key, images, *rest, **more):
        jax.debug.callback(lambda found: seen.append(np.asarray(found)), images)
        return inner(image_key, batch_key, images, *rest, **more)

    monkeypatch.setattr(step_lib.views, "make_views", spy)
    plain = {"augment__method": "standard", "augment__crop_pad": 0}
    run(folder, tmp_path, optim__epochs=3.0, **plain)
    jax.effects_barrier()
    with np.load(folder / "train.npz") as train:
        original = train["images"]
    known = {image.tobytes(): i for i, image in enumerate(original)}
    known |= {image[:, ::-1].tobytes(): ~i for i, image in enumerate(original)}
    signed = [known[image.tobytes()] for image in np.concatenate(seen)]
    epochs = [set(signed[start : start + 96]) for start in (0, 96, 192)]
    assert [len(epoch) for epoch in epochs] == [96] * 3
    assert epochs[0] == epochs[2] == {~i for i in epochs[1]}
    assert 20 < sum(i < 0 for i in epochs[0]) < 76
