"""Checkpoints in a store: whole or not there, and no more than are kept."""

import threading

import numpy as np
import pytest

from apr_jax.errors import CheckpointError
from apr_jax.gates import stores
from apr_jax.runs import checkpoint, checkpoint_store

WHOLE = "_CHECKPOINT_METADATA"


def folders(place):
    return sorted({name.partition("/")[0] for name in place.below()})


def state(number):
    return {"a": np.full((3, 2), number, np.float32), "b": {"c": np.arange(number)}}


@pytest.fixture
def saved(store):
    """Checkpoints of the steps 10 and 20, of which 10 is older than what is kept."""
    opened = checkpoint.Checkpoints(store / "ck", keep=2, owner="me")
    for step in (5, 10, 20):
        opened.save(step, state(7))
    opened.close()
    return store / "ck"


def reader(place):
    return checkpoint.Reader(place, owner="me")


def test_saved_and_read(saved):
    assert folders(saved) == ["10", "20"]
    step, found = reader(saved).restore(state(7))
    assert step == 20
    assert checkpoint.digest(found) == checkpoint.digest(state(7))


def test_a_copy_on_a_disk_is_a_folder_of_checkpoints(saved, tmp_path):
    for name in saved.below():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (saved / name).download(tmp_path / name)
    assert reader(tmp_path).steps == [10, 20]
    assert reader(tmp_path).restore(state(7))[0] == 20


def test_half_of_one_is_none(saved):
    """As where its writer was killed: what it had copied goes, and is saved again."""
    (saved / "20" / WHOLE).unlink()
    (saved / "20" / "state" / "left").write_bytes(b"x")
    assert reader(saved).restore(state(7))[0] == 10
    opened = checkpoint.Checkpoints(saved, keep=2, owner="me")
    assert folders(saved) == ["10"]
    assert opened.restore(state(7))[0] == 10
    opened.save(20, state(7))
    opened.close()
    assert reader(saved).steps == [10, 20]
    assert "state/left" not in (saved / "20").below()


def test_the_mark_goes_last(store, monkeypatch):
    """Whatever else is missing, nobody sees it."""
    put, order, lock = stores.StorePath.upload, [], threading.Lock()

    def upload(place, source):
        with lock:
            order.append((place.name, reader(store / "ck").steps))
        put(place, source)

    monkeypatch.setattr(stores.StorePath, "upload", upload)
    opened = checkpoint.Checkpoints(store / "ck", keep=2, owner="me")
    opened.save(5, state(7))
    opened.close()
    assert [name for name, _ in order].index(WHOLE) == len(order) - 1
    assert all(steps == [] for _, steps in order)


@pytest.mark.parametrize("writes", [False, True])
def test_a_damaged_one(saved, writes, caplog):
    for name in (saved / "20").below():
        if "/d/" in name:
            (saved / "20" / name).write_bytes(b"?")
    opened = (
        checkpoint.Checkpoints(saved, keep=2, owner="me") if writes else reader(saved)
    )
    assert opened.restore(state(7))[0] == 10
    assert f"that of step 10 in {saved}, the one before, is used" in caplog.text
    opened.close()
    names = folders(saved)
    assert names == (["10", "damaged-20"] if writes else ["10", "20"])


def test_later_ones_go(saved):
    opened = checkpoint.Checkpoints(saved, keep=2, owner="me")
    opened.rewind(15, state(8))
    opened.close()
    assert reader(saved).steps == [10, 15]
    assert reader(saved).restore(state(8))[0] == 15


def test_another_owner_is_an_error_that_names_the_place(saved):
    other = checkpoint.Reader(saved, owner="you")
    with pytest.raises(CheckpointError, match=f"step 20 in {saved} belongs to a run"):
        other.restore(state(7))


def test_a_store_that_says_no(saved, monkeypatch):
    def fail(*_, **__):
        raise PermissionError(13, "Access Denied", str(saved / "30"))

    opened = checkpoint.Checkpoints(saved, keep=2, owner="me")
    monkeypatch.setattr(checkpoint_store.Mirror, "store", fail)
    opened.save(30, state(7))
    wanted = f"in {saved}: .*Access Denied.*checkpoints there: 10, 20"
    with pytest.raises(CheckpointError, match=wanted):
        opened.wait()
