"""Batches that are attacked side by side: as one after the other, and only where that
is safe."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax.attacks import core, rounds, sequence, slots

SIDE, CLASSES, COUNT = 4, 4, 30


def logits_fn(images):
    """A network of one hidden layer."""
    rng = np.random.default_rng(0)
    inner = jnp.asarray(rng.normal(0, 0.4, (SIDE * SIDE * 3, 8)), jnp.float32)
    outer = jnp.asarray(rng.normal(0, 0.4, (8, CLASSES)), jnp.float32)
    return jnp.tanh((images.reshape(len(images), -1) - 0.5) @ inner) @ outer


def calls_python(images):
    """The same, of which Python computes a part."""
    shape = jax.ShapeDtypeStruct((len(images), CLASSES), np.float32)
    return jax.pure_callback(np.array, shape, logits_fn(images))


@pytest.fixture(scope="module")
def points():
    rng = np.random.default_rng(1)
    images = rng.uniform(size=(COUNT, SIDE, SIDE, 3)).astype(np.float32)
    return images, np.asarray(logits_fn(images)).argmax(1).astype(np.int32)


@pytest.fixture
def threads(monkeypatch):
    """The threads that batches were put together in, by lanes that a test sets."""
    seen = []
    put = core.Engine.put

    def noted(self, points):
        seen.append(threading.current_thread())
        return put(self, points)

    monkeypatch.setattr(core.Engine, "put", noted)
    return seen


def attacked(points, name, function=logits_fn):
    engine = core.Engine(function, COUNT)
    engine.sizes, engine.accelerated = (32, 24, 16, 12, 8), False
    stages = sequence.make_stages("standard", "linf", steps=8, queries=30)
    stage = next(stage for stage in stages if stage.name == name)
    *_, result = rounds.attack_in_turn(
        engine, (stage,), jax.random.key(0), *points, norm="linf", eps=0.04
    )
    return result


@pytest.mark.parametrize("name", ["apgd-t", "square"])
def test_lanes_change_nothing(points, name, threads, monkeypatch):
    monkeypatch.setattr(core.Engine, "lanes", lambda *_: 1)
    alone = attacked(points, name)
    assert set(threads) == {threading.main_thread()}
    monkeypatch.setattr(core.Engine, "lanes", lambda *_: 3)
    beside = attacked(points, name)
    assert len(set(threads)) == 3
    assert 0 < beside.robust.sum() < COUNT
    np.testing.assert_array_equal(beside.robust, alone.robust)
    np.testing.assert_array_equal(beside.images, alone.images)


def test_no_lane_compiles_what_the_first_does(points, monkeypatch):
    traces = []

    def counted(images):
        assert threading.current_thread() is threading.main_thread()
        traces.append(images.shape)
        return logits_fn(images)

    monkeypatch.setattr(core.Engine, "lanes", lambda *_: 3)
    attacked(points, "square", counted)
    # The clean images, and a step of the attack.
    assert len(traces) == len(set(traces)) == 2


def test_an_error_in_one_ends_all(points, monkeypatch):
    put = core.Engine.put

    def fails(self, points):
        if threading.current_thread() is not threading.main_thread():
            raise MemoryError("no room")
        return put(self, points)

    monkeypatch.setattr(core.Engine, "put", fails)
    monkeypatch.setattr(core.Engine, "lanes", lambda *_: 3)
    before = threading.active_count()
    with pytest.raises(MemoryError, match="no room"):
        attacked(points, "apgd-t")
    assert threading.active_count() == before


def test_what_a_thread_would_compile_otherwise_stays_in_its_own(points, threads):
    with jax.default_matmul_precision("bfloat16"):
        assert not slots._traced_alike_in_threads()
        attacked(points, "square")
    assert set(threads) == {threading.main_thread()}
    assert slots._traced_alike_in_threads()


def test_how_many(points):
    images, _ = points
    engine = core.Engine(logits_fn, 64)
    engine.sizes, engine.accelerated = (32, 24, 16, 12, 8), False
    assert [engine.lanes(images, n) for n in (1, 8, 9, 500)] == [1, 1, 2, 2]
    # Together they hold no more than one batch would.
    assert [engine.slots(n, 2) for n in (9, 18, 500)] == [8, 12, 16]
    other = core.Engine(calls_python, 64)
    other.sizes, other.accelerated = engine.sizes, False
    assert other.lanes(images, 500) == 1, "calls into Python could wait for each other"
    engine.sizes = core.sizes(4096, accelerated=False, cores=64)
    assert engine.lanes(images, 5000) == 8
    assert engine.slots(5000, 8) == 128
    engine.sizes = (12,)
    assert engine.lanes(images, 500) == 1
    engine.accelerated = True
    engine.sizes = (128, 16)
    assert engine.lanes(images, 500) == 1
