"""Batches read ahead by a thread: their order, their errors, and its end."""

import contextlib
import threading
import time

import jax
import numpy as np
import pytest
from PIL import Image

from apr_jax import job, models, parallel
from apr_jax.errors import DataError, Diverged
from apr_jax.evaluate import classifier
from apr_jax.runs import checkpoint
from apr_jax.train import ahead, dispatch, loop
from apr_jax.train import plan as plan_lib
from tests import toy
from tests.train.test_interruptions import finish, start_two
from tests.train.test_watch_streamed import STREAMED


def threads():
    return [t.name for t in threading.enumerate() if t.name.startswith(ahead.THREAD)]


def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_two_are_ready_and_no_more():
    read, put, closed = [], [], []

    def batches():
        try:
            for number in range(6):
                read.append((number, threading.current_thread().name))
                yield number
        finally:
            closed.append(True)

    def on_device(number):
        put.append(number)
        return 10 * number

    with ahead.read_ahead(batches(), on_device) as ready:
        assert not read  # nothing is read for a run that has no step to do
        for number in range(6):
            assert next(ready) == 10 * number
            most = min(number + 3, 6)
            until(lambda most=most: len(put) == most)
            time.sleep(0.01)
            assert len(put) == most
        assert list(ready) == []
        assert len(threads()) == 1
    assert put == [*range(6)]
    assert {name for _, name in read} == {f"{ahead.THREAD}_0"}
    assert closed
    assert not threads()


@pytest.mark.parametrize("where", ["read", "put"])
def test_an_error_comes_when_its_batch_is_asked_for(where):
    def batches():
        yield from (0, 1)
        if where == "read":
            raise DataError("2 images are broken")
        yield 2

    def put(number):
        if number == 2:
            raise DataError("2 images are broken")
        return number

    with ahead.read_ahead(batches(), put) as ready:
        assert [next(ready), next(ready)] == [0, 1]
        with pytest.raises(DataError, match=r"^2 images are broken$"):
            next(ready)
    assert not threads()


@pytest.mark.parametrize("error", [KeyboardInterrupt, Diverged("no number")])
def test_whatever_ends_the_run_ends_the_thread(error):
    closed = []

    def batches():
        try:
            while True:
                yield 0
        finally:
            closed.append(True)

    kinds = contextlib.suppress(KeyboardInterrupt, Diverged)
    with kinds, ahead.read_ahead(batches(), lambda x: x) as ready:
        next(ready)
        raise error
    assert closed
    assert not threads()


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_shares_are_views_and_lie_on_the_devices_alike(rng, devices):
    layout = parallel.make_layout(devices)
    batch = rng.integers(0, 256, (8, 4, 4, 3), np.uint8), np.arange(8, dtype=np.int32)
    shared = parallel.split_batch(batch, layout)
    for own, leaf in zip(shared, batch, strict=True):
        np.testing.assert_array_equal(own, np.stack(np.split(leaf, devices)))
        assert np.shares_memory(own, leaf)
    columns = parallel.split_batch(batch[0], layout, axis=1)
    np.testing.assert_array_equal(columns, np.stack(np.split(batch[0], devices, 1)))
    add = lambda image, label: image.sum(dtype=np.int32) + label.sum()
    mapped = parallel.map_devices(add, layout)
    on_devices = parallel.put_batch(batch, layout)
    for own, leaf in zip(on_devices, shared, strict=True):
        assert isinstance(own, jax.Array)
        np.testing.assert_array_equal(own, leaf)
        assert {s.device for s in own.addressable_shards} == {*layout.local}
    np.testing.assert_array_equal(mapped(*on_devices), mapped(*shared))
    with pytest.raises(ValueError, match="reshape"):
        parallel.split_batch(np.zeros(7), parallel.make_layout(2))


@pytest.fixture
def jpegs(tmp_path, rng):
    for split, count in (("train", 16), ("test", 4)):
        for i in range(count):
            path = tmp_path / "data" / split / f"class{i % 4}" / f"{i:02d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(path, quality=95)
    return tmp_path / "data"


def run(jpegs, workdir, **changes):
    changes = STREAMED | {"train__watch": (), "optim__epochs": 4.0} | changes
    plan = plan_lib.plan(toy.config(jpegs, **changes), workdir)
    return loop.train(plan, quiet=True)


@pytest.mark.slow
@pytest.mark.usefixtures("_tiny_model")
def test_training_has_the_bits_of_batches_read_when_needed(
    jpegs, tmp_path, monkeypatch
):
    found = run(jpegs, tmp_path / "ahead")
    assert not threads()

    def at_once(batches, put):
        rows = (parallel.split_batch((b.image, b.label), layout) for b in batches)
        return contextlib.nullcontext(rows)

    layout = parallel.make_layout(1)
    monkeypatch.setattr(dispatch.ahead, "read_ahead", at_once)
    plain = run(jpegs, tmp_path / "plain")
    assert found.step == plain.step > 2
    assert checkpoint.digest(found.state) == checkpoint.digest(plain.state)


@pytest.mark.usefixtures("_tiny_model")
def test_broken_files_end_a_training_as_they_did(jpegs, tmp_path):
    (jpegs / "train" / "class1" / "05.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1 images? .*broken.*max_broken"):
        run(jpegs, tmp_path / "run", data__max_broken=0)
    assert not threads()


@pytest.mark.slow
@pytest.mark.parametrize("mapping", ["pmap", "shard_map"])
def test_two_processes_put_their_own_batches_ahead(jpegs, tmp_path, mapping):
    changes = STREAMED | {
        "train__devices": 2,
        "train__mapping": mapping,
        "train__watch": (),
        "train__batch_size": 4,
        "optim__epochs": 2.0,
        "eval__parts": ("clean",),
    }
    for process in start_two(jpegs, [tmp_path / "two"] * 2, changes):
        finish(process)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "tiny", toy.TinyNet)
        alone = toy.config(jpegs, **changes)
        job.run(alone, tmp_path / "one", quiet=True)
        two, one = (classifier.from_run(tmp_path / n) for n in ("two", "one"))
    assert two.step == one.step > 2
    # The batches of a folder are the same for any number of processes.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        two.variables,
        one.variables,
    )
