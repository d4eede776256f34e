"""Catastrophic overfitting: what is held out, when a run ends, and with what."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import network as network_lib
from apr_jax.data import samples
from apr_jax.errors import ConfigError
from apr_jax.evaluate import classifier
from apr_jax.report import run_view
from apr_jax.runs import checkpoint, epochs
from apr_jax.runs import workdir as workdir_lib
from apr_jax.train import dispatch, hooks, loop, overfitting
from apr_jax.train import plan as plan_lib
from tests import toy
from tests.train.test_loop import PLAIN

HELD = 16
EPOCH = (96 - HELD) // 16


pytestmark = pytest.mark.usefixtures("_tiny_model")


def settings(folder, **changes):
    return toy.config(
        folder,
        **{
            **PLAIN,
            "adversary__attack": "fgsm",
            "adversary__held_out": HELD,
            "adversary__stop_drop": 0.2,
            "optim__epochs": 5.0,
            "checkpoint__every_steps": 2,
            **changes,
        },
    )


def run(folder, workdir, *, until=None, **changes):
    plan = plan_lib.plan(settings(folder, **changes), workdir)
    return loop.train(plan, until=until, quiet=True)


def fall_at(monkeypatch, *values):
    """Each measurement gives the next value, whatever the network."""
    left = list(values)
    monkeypatch.setattr(hooks.Guard, "_accuracy", lambda *_: (left.pop(0), 0))


def test_held_out_images_are_a_part_of_their_own():
    kept, held = samples.hold_out(50, 20)
    assert sorted([*kept, *held]) == list(range(50))
    assert len(held) == 20
    assert (np.diff(held) > 1).any()  # not a run of one class
    np.testing.assert_array_equal(held, samples.hold_out(50, 20)[1])
    with pytest.raises(ConfigError, match=r"held_out is 50; .* only 50 tr"):
        samples.hold_out(50, 50)


def test_training_draws_none_of_them(folder, tmp_path, monkeypatch):
    drawn = []
    split = dispatch.parallel.split_batch

    def spy(tree, layout, axis=0):
        if axis == 1:
            drawn.extend(np.asarray(tree).ravel())
        return split(tree, layout, axis)

    monkeypatch.setattr(dispatch.parallel, "split_batch", spy)
    run(folder, tmp_path, until=2 * EPOCH)
    kept, _ = samples.hold_out(96, HELD)
    *seen, last = np.split(np.array(drawn), [2 * len(kept)])
    assert sorted(seen[0]) == sorted([*kept, *kept])
    assert set(last) <= set(kept)  # of a step to see whether the state is good


def test_a_fall_ends_the_run_with_the_network_before(folder, tmp_path, monkeypatch):
    whole = run(folder, tmp_path / "whole", until=3 * EPOCH)
    fall_at(monkeypatch, 0.2, 0.5, 0.4, 0.15)
    found = run(folder, tmp_path / "run")
    assert (found.step, found.collapsed_at) == (3 * EPOCH, 4 * EPOCH)
    assert checkpoint.digest(found.state) == checkpoint.digest(whole.state)
    network = classifier.from_run(tmp_path / "run")
    np.testing.assert_array_equal(
        network.variables["params"]["Dense_0"]["kernel"],
        whole.state.params["Dense_0"]["kernel"],
    )
    again = run(folder, tmp_path / "run")  # measures nothing: no value is left
    assert (again.step, again.collapsed_at) == (found.step, found.collapsed_at)
    assert checkpoint.digest(again.state) == checkpoint.digest(found.state)
    rows = epochs.read_held_out(tmp_path / "run")
    assert [row["robust_accuracy"] for row in rows] == [0.2, 0.5, 0.4, 0.15]
    assert [row["collapsed"] for row in rows] == [False, False, False, True]


def test_killed_while_going_back(folder, tmp_path, monkeypatch):
    fall_at(monkeypatch, 0.2, 0.5, 0.1)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoints, "rewind", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(folder, tmp_path)
    found = run(folder, tmp_path)
    assert (found.step, found.collapsed_at) == (2 * EPOCH, 3 * EPOCH)
    assert int(found.state.step) == 2 * EPOCH


def test_a_fall_in_the_first_epoch_after_a_kill(folder, tmp_path, monkeypatch):
    run(folder, tmp_path, until=2)  # no epoch has ended
    fall_at(monkeypatch, 0.5, 0.1)
    found = run(folder, tmp_path)
    assert (found.step, found.collapsed_at) == (EPOCH, 2 * EPOCH)
    # On other devices a run that went well may fall where it is gone on with.
    other = tmp_path / "other"
    fall_at(monkeypatch, 0.9)
    run(folder, other, until=EPOCH + 2)
    shutil.rmtree(other / overfitting.FOLDER)
    fall_at(monkeypatch, 0.1)
    found = run(folder, other)
    assert (found.step, found.collapsed_at) == (EPOCH + 2, 2 * EPOCH)


def test_without_a_limit_it_only_looks(folder, tmp_path, monkeypatch):
    fall_at(monkeypatch, 0.9, 0.1)
    found = run(folder, tmp_path, until=2 * EPOCH, adversary__stop_drop=0.0)
    assert (found.step, found.collapsed_at) == (2 * EPOCH, None)
    assert len(epochs.read_held_out(tmp_path)) == 2


def test_held_out_images_without_an_answer_are_counted_and_wrong(
    folder, tmp_path, monkeypatch, capfd
):
    def silent(variables, pixels):
        return jnp.full((len(pixels), 4), jnp.nan), jnp.zeros((len(pixels), 1))

    monkeypatch.setattr(hooks.network, "make_predict", lambda *_: silent)
    run(folder, tmp_path, until=EPOCH, adversary__stop_drop=0.0)
    (row,) = epochs.read_held_out(tmp_path)
    assert (row["robust_accuracy"], row["not_finite"]) == (0.0, 4 * HELD)
    assert f"{4 * HELD} logits behind step {EPOCH} of held" in capfd.readouterr().err


def test_measured_as_it_should_be_and_on_the_page(folder, tmp_path):
    whole = run(folder, tmp_path / "whole", adversary__stop_drop=0.0)
    for until in (7, 12, None):
        parts = run(folder, tmp_path / "parts", until=until, adversary__stop_drop=0.0)
    assert checkpoint.digest(parts.state) == checkpoint.digest(whole.state)
    rows = epochs.read_held_out(tmp_path / "whole")
    assert rows == epochs.read_held_out(tmp_path / "parts")
    assert [row["step"] for row in rows] == [EPOCH * e for e in range(1, 6)]
    shown = run_view.view(tmp_path / "whole").curve
    drawn = [row.extra["held-out accuracy"] for row in shown if row.extra]
    assert drawn == [row["robust_accuracy"] for row in rows]

    # The last row, by another loop: NumPy for the steps, jax.grad for their signs.
    config = settings(folder)
    run_dir = workdir_lib.RunDir(tmp_path / "whole")
    assert json.loads(run_dir.config.read_text())["adversary"]["held_out"] == HELD
    model = network_lib.make_model(config, num_classes=4)
    predict = network_lib.make_predict(model, config)
    with np.load(folder / "train.npz") as data:
        _, held = samples.hold_out(96, HELD)
        images, labels = data["images"][held], data["labels"][held]
    clean = images.astype(np.float32) / 255
    eps = np.float32(config.adversary.eps)

    def loss(pixels):
        logits, _ = predict(whole.state.variables, pixels)
        return -jax.nn.log_softmax(logits)[jnp.arange(HELD), labels].sum()

    slope = jax.jit(jax.grad(loss))

    def draw(key, at):
        return jax.random.uniform(jax.random.fold_in(key, at), clean.shape[1:])

    low, high = np.maximum(clean - eps, 0), np.minimum(clean + eps, 1)
    share = jax.jit(jax.vmap(draw, (None, 0)))(
        jax.random.key(overfitting._STREAM), np.arange(HELD)
    )
    moved = low + np.asarray(share) * (high - low)
    for _ in range(10):
        moved = np.clip(moved + 0.25 * eps * np.sign(slope(moved)), low, high)
    answer = np.asarray(jax.jit(predict)(whole.state.variables, moved)[0]).argmax(1)
    assert rows[-1]["robust_accuracy"] == pytest.approx(
        np.mean(answer == labels), abs=1.01 / HELD
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adversary__held_out": 0}, r"stop_drop is 0.2, and adversary.held_out is 0"),
        ({"adversary__attack": "none"}, r"held_out is 16, and adversary.attack is 'n"),
        ({"data__streaming": True}, r"held_out is 16; it needs training images in m"),
        ({"adversary__held_out": 96}, r"held_out is 96; there are only 96"),
    ],
)
def test_bad_input_is_one_clear_error(folder, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        plan_lib.plan(settings(folder, **changes), tmp_path)
