"""Training: resumption to the bit, layouts, interruptions, and bad input."""

import dataclasses
import json
import re
import signal
import time
import types

import jax
import numpy as np
import pytest

from apr_jax import config as config_lib
from apr_jax import data, models, parallel
from apr_jax.errors import CheckpointError, ConfigError, DataError, Diverged
from apr_jax.runs import checkpoint, claims, curves
from apr_jax.runs import workdir as workdir_lib
from apr_jax.train import dispatch, loop
from apr_jax.train import plan as plan_lib
from tests import toy

pytestmark = pytest.mark.usefixtures("_tiny_model")


# One program for each number of devices serves most tests; where it doesn't matter
# what the images are, that without augmentation compiles three times as fast.
USUAL = {"augment__pair_prob": 1.0}
PLAIN = {
    "augment__method": "standard",
    "augment__crop_pad": 0,
    "augment__flip": False,
}


def run(folder, workdir, *, until=None, **changes):
    plan = plan_lib.plan(toy.config(folder, **(USUAL | changes)), workdir)
    return loop.train(plan, until=until, quiet=True)


def assert_same(one, other):
    assert checkpoint.digest(one) == checkpoint.digest(other)


def assert_close(one, other, rtol=2e-4, atol=2e-5):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), one, other
    )


def test_it_learns_and_says_so(folder, tmp_path):
    trained = run(folder, tmp_path / "run")
    assert (trained.step, trained.stopped_by) == (24, None)
    assert trained.seconds_to_first_step > 0
    rows = curves.read_curve(tmp_path / "run")
    assert [row.step for row in rows] == [5, 10, 15, 20, 24]
    assert rows[-1].accuracy > rows[0].accuracy
    assert rows[0].epoch == pytest.approx(5 / 6)
    assert rows[-1].learning_rate == pytest.approx(0.02)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["name"] == "toy"


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_resumed_is_bit_identical(folder, tmp_path, devices):
    whole = run(folder, tmp_path / "whole", train__devices=devices)
    for until in (3, 10, 17, None):
        parts = run(folder, tmp_path / "parts", until=until, train__devices=devices)
    assert parts.step == whole.step == 24
    assert_same(parts.state, whole.state)
    whole_rows = curves.read_curve(tmp_path / "whole")
    part_rows = curves.read_curve(tmp_path / "parts")
    assert [r.step for r in part_rows] == [r.step for r in whole_rows]


def test_a_finished_run_does_nothing_more(folder, tmp_path):
    first = run(folder, tmp_path / "run")
    again = run(folder, tmp_path / "run")
    assert again.seconds_to_first_step is None
    assert_same(first.state, again.state)


def test_scanned_steps_are_the_same_steps(folder, tmp_path):
    """Fives, and the four that are left."""
    one = run(folder, tmp_path / "one", train__steps_per_call=1, **PLAIN)
    five = run(folder, tmp_path / "five", train__steps_per_call=5, **PLAIN)
    assert_close(one.state.params, five.state.params)


@pytest.mark.parametrize(
    "method",
    [
        "apr_p",
        *(pytest.param(m, marks=pytest.mark.slow) for m in ("standard", "apr_sp")),
    ],
)
def test_one_step_is_the_same_on_any_number_of_devices(folder, tmp_path, method):
    states = [
        run(
            folder,
            tmp_path / str(devices),
            until=1,
            train__devices=devices,
            augment__method=method,
        ).state
        for devices in (1, 8)
    ]
    assert_close(states[0].params, states[1].params)
    assert_close(states[0].batch_stats, states[1].batch_stats)
    assert_close(states[0].opt_state, states[1].opt_state)


def test_without_synchronised_statistics_devices_differ(folder, tmp_path):
    """One device alone needs none; four differ from it, and with them do not."""
    states = [
        run(
            folder,
            tmp_path / str(devices),
            until=1,
            train__devices=devices,
            train__sync_batch_norm=devices == 1,
            **PLAIN,
        ).state
        for devices in (1, 4)
    ]
    assert toy.farthest(states[0].params, states[1].params) > 1e-4


def test_a_checkpoint_resumes_on_another_layout(folder, tmp_path):
    alone = run(folder, tmp_path / "alone")
    run(folder, tmp_path / "moved", until=10, train__devices=8)
    moved = run(folder, tmp_path / "moved", train__devices=2)
    assert moved.step == alone.step
    assert_close(moved.state.params, alone.state.params, rtol=5e-3, atol=5e-4)


def test_each_epoch_sees_every_example_once(folder, tmp_path, monkeypatch):
    seen = []
    inner = data.global_indices

    def spy(*args):
        seen.append(inner(*args))
        return seen[-1]

    monkeypatch.setattr(data, "global_indices", spy)
    more = {"train__batch_size": 20, "optim__epochs": 5.0}
    run(folder, tmp_path / "run", **more, **PLAIN)
    order = np.concatenate([s.ravel() for s in seen])
    assert len(order) == 5 * 96 + 20  # and a step to see whether the last was good
    for epoch in order[: 5 * 96].reshape(5, 96):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(96))


def test_the_step_compiles_once(folder, tmp_path):
    plan = plan_lib.plan(toy.config(folder, **USUAL), tmp_path / "run")
    traces = []
    inner = plan.model.__class__.__call__

    class Counting(toy.TinyNet):
        def __call__(self, x, *, train, capture=False):
            if train:
                traces.append(x.shape)
            return inner(self, x, train=train, capture=capture)

    counting = Counting(num_classes=toy.CLASSES, sync_axis=parallel.AXIS)
    loop.train(dataclasses.replace(plan, model=counting), quiet=True)
    assert traces == [(32, 8, 8, 3)]


def test_a_signal_saves_and_leaves_within_one_call(folder, tmp_path, monkeypatch):
    inner = data.global_indices

    def stop_at_nine(seed, step, *rest):
        if step == 9:
            signal.raise_signal(signal.SIGTERM)
        return inner(seed, step, *rest)

    monkeypatch.setattr(data, "global_indices", stop_at_nine)
    before = signal.getsignal(signal.SIGTERM)
    stopped = run(folder, tmp_path / "run")
    assert (stopped.step, stopped.stopped_by) == (10, "SIGTERM")
    assert signal.getsignal(signal.SIGTERM) is before
    monkeypatch.undo()
    monkeypatch.setitem(models.MODELS, "tiny", toy.TinyNet)
    finished = run(folder, tmp_path / "run")
    assert_same(finished.state, run(folder, tmp_path / "whole").state)


def test_nan_loss_stops_and_keeps_the_last_good_state(folder, tmp_path):
    message = r"loss is (nan|inf) at step \d+; the last good checkpoint, of step 7, is"
    good = run(folder, tmp_path / "run", until=7)
    steps = tmp_path / "run" / "checkpoints"
    poisoned = good.state.replace(
        step=np.asarray(9, np.int32),
        params=jax.tree.map(lambda p: p * np.float32(np.inf), good.state.params),
    )
    plan = plan_lib.plan(toy.config(folder, **USUAL), tmp_path / "run")
    inner = checkpoint.Checkpoints.restore
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint.Checkpoints, "restore", lambda *_: (9, poisoned))
        with pytest.raises(Diverged, match=message):
            loop.train(plan, quiet=True)
    assert inner is checkpoint.Checkpoints.restore
    assert [p.name for p in steps.iterdir() if p.name.isdigit()] == ["7"]


@pytest.mark.parametrize(("every", "last"), [(1, False), (3, False), (100, True)])
def test_a_state_that_gives_no_number_is_not_saved(folder, tmp_path, every, last):
    """Each that is kept gives a finite loss, so resuming can't fail at once."""
    wild = {"optim__learning_rate": 1e6, "checkpoint__every_steps": every}
    wild |= {"train__log_every": 50, **PLAIN}
    with pytest.raises(Diverged, match="needs another --workdir") as found:
        run(folder, tmp_path / "run", **wild)
    diverged = int(re.search(r"at step (\d+)", str(found.value))[1])
    if last:  # no step after it shows that the state is bad
        with pytest.raises(Diverged, match=f"at step {diverged}"):
            run(folder, tmp_path / "run", until=diverged, **wild)
    assert diverged >= 1, "the first step should be fine, or this shows nothing"
    plan = plan_lib.plan(toy.config(folder, **USUAL, **wild), tmp_path / "run")
    steps = [int(p.name) for p in plan.run.checkpoints.glob("[0-9]*")]
    assert max(steps, default=0) == (diverged - 1) // every * every
    # The curve goes up to the last loss that was a number.
    assert curves.read_curve(plan.run.root)[-1].step == diverged
    for step in steps:
        saved = checkpoint.Reader(plan.run.checkpoints, owner=config_hash(plan))
        state = saved._read(step, plan_lib.initial_state(plan))
        with dispatch.advancing([plan], step) as call:
            metrics = call(parallel.replicate(state, plan.layout), step, 1)[1]
        assert np.isfinite(parallel.first_copy(metrics)["loss"]).all()
    # What the message advises can be done.
    again = {**wild, "optim__learning_rate": 0.1}
    assert run(folder, tmp_path / "other", until=9, **again).step == 9


def config_hash(plan):
    return config_lib.config_hash(plan.config)


def test_disk_full_keeps_what_was_saved(folder, tmp_path, monkeypatch):
    run(folder, tmp_path / "run", until=7)

    def full(self, step, state):
        with self._explained():
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.Checkpoints, "save", full)
    with pytest.raises(CheckpointError, match=r"disk is full; .* there: 7"):
        run(folder, tmp_path / "run")


BAD = [
    ({"model__name": "resnet19"}, r"model.name: unknown model 'resnet19'.*wrn_40_2"),
    ({"augment__method": "apr_x"}, r"augment.method: unknown method 'apr_x'.*apr_sp"),
    (
        {"train__batch_size": 18, "train__devices": 4},
        r"train.batch_size is 18, which 4",
    ),
    ({"eval__batch_size": 9, "train__devices": 2}, r"eval.batch_size is 9, which 2"),
    ({"train__batch_size": 100}, r"train.batch_size is 100; there are only 96 images"),
    ({"optim__accumulate": 25}, r"optim.accumulate is 25; there are only 24 steps"),
    ({"train__devices": 999}, r"train.devices is 999; there are \d+ devices"),
    ({"data__data_dir": "/nowhere"}, r"data.data_dir.*/nowhere"),
    ({"data__image_size": 2}, r"data.image_size.*2.*at least 4"),
    ({"data__test_split": "exam"}, r"exam"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=lambda x: str(x)[:40])
def test_bad_input_is_one_clear_error(folder, tmp_path, changes, message):
    config = toy.config(folder, **changes)
    with pytest.raises((ConfigError, DataError), match=message):
        plan_lib.plan(config, tmp_path / "run")


def test_one_class_is_nothing_to_tell_apart(tmp_path):
    toy.write_arrays(tmp_path)
    for split in ("train", "test"):
        stored = dict(np.load(tmp_path / f"{split}.npz"))
        stored["labels"] = np.zeros_like(stored["labels"])
        np.savez(tmp_path / f"{split}.npz", **stored)
    with pytest.raises(ConfigError, match="has 1 class, 0; there is nothing to tell"):
        plan_lib.plan(toy.config(tmp_path), tmp_path / "run")


def test_what_is_measured_may_change_and_is_kept(folder, tmp_path):
    """Settings that a run may go on with under other values are in its file then."""
    run(folder, tmp_path / "run", until=1)
    later = {"eval__parts": ("clean", "fourier"), "eval__fourier__examples": 7}
    run(folder, tmp_path / "run", until=2, **later)
    _, found = workdir_lib.open_run(tmp_path / "run")
    assert found.eval.parts == ("clean", "fourier")
    assert found.eval.fourier.examples == 7


def test_labels_out_of_range(tmp_path):
    toy.write_arrays(tmp_path)
    stored = dict(np.load(tmp_path / "test.npz"))
    stored["labels"][3] = -1
    np.savez(tmp_path / "test.npz", **stored)
    with pytest.raises(DataError, match=r"label -1 of example 3"):
        plan_lib.plan(toy.config(tmp_path), tmp_path / "run")


def test_workdir_of_another_configuration_is_refused(folder, tmp_path):
    run(folder, tmp_path / "run", until=1)
    more = {"optim__learning_rate": 0.2, "augment__method": "apr_s"}
    changed = toy.config(folder, **USUAL, **more)
    message = (
        r"another configuration: augment.method is 'apr_s', there 'apr_p'; "
        r"optim.learning_rate is 0.2, there 0.1"
    )
    with pytest.raises(ConfigError, match=message):
        plan_lib.plan(changed, tmp_path / "run")


def test_workdir_not_writable(folder, tmp_path):
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(ConfigError, match=r"workdir is .* can't be written"):
        plan_lib.plan(toy.config(folder), tmp_path / "file" / "run")


def test_checks_come_before_data(tmp_path):
    # The data aren't there either, but the cheaper mistake is named first.
    config = toy.config(tmp_path, model__name="resnet19")
    started = time.monotonic()
    with pytest.raises(ConfigError, match="unknown model"):
        plan_lib.plan(config, tmp_path / "run")
    assert time.monotonic() - started < 5
    assert not (tmp_path / "run").exists()


def test_one_process_at_a_time_works_in_a_directory(tmp_path):
    root = tmp_path / "run"
    with claims.claimed(root, write=True):
        with claims.claimed(root, write=False):
            pass
        with (
            pytest.raises(ConfigError, match="another process is at work"),
            claims.claimed(root, write=True),
        ):
            pass
    with claims.claimed(root, write=True):
        pass


@pytest.mark.parametrize(
    ("asked", "accelerated", "streamed", "steps"),
    [
        (0, True, False, 25),
        (0, False, False, 1),
        (7, False, False, 7),
        (7, True, True, 1),
    ],
)
def test_steps_of_a_call_are_as_many_for_every_total(
    asked, accelerated, streamed, steps
):
    """39,062 steps, as of 200 epochs in batches of 256, have no useful divisor."""
    settings = types.SimpleNamespace(train=types.SimpleNamespace(steps_per_call=asked))
    plan = types.SimpleNamespace(
        config=settings,
        resident=None if streamed else object(),
        layout=types.SimpleNamespace(accelerated=accelerated),
        total_steps=39_062,
    )
    assert plan_lib.Plan.steps_per_call.fget(plan) == steps


def test_a_run_has_one_kind_of_key_whatever_the_default_is():
    """Images that are mapped over must not share the first one's key."""
    usual = jax.random.key_data(dispatch.run_key(3))
    assert jax.random.key_impl(dispatch.run_key(3)) == "threefry2x32"
    for impl in ("rbg", "unsafe_rbg"):
        with jax.default_prng_impl(impl):
            key = dispatch.run_key(3)
        assert jax.random.key_impl(key) == "threefry2x32"
        assert (jax.random.key_data(key) != usual).any()
