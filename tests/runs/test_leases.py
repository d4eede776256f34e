"""Claims to a folder in a store: one holds it, and what a killed one held is free."""

import json
import threading
import time

import pytest

from apr_jax.errors import CheckpointError, ConfigError
from apr_jax.runs import claims, files, jsonl, leases


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(leases, "BEAT", 0.02)
    monkeypatch.setattr(leases, "STALE", 20.0)  # so long a busy machine may sleep


def held(store):
    return sorted(p.name for p in store.glob(".lock*"))


def leave(store, name=".lock-1", **about):
    """What a process leaves behind that is killed."""
    words = {"machine": "another", "process": 1, "id": "theirs", "beats": 3, **about}
    (store / name).write_bytes(json.dumps(words).encode())


def test_one_trains(store):
    with claims.claimed(store, write=True):
        with (
            pytest.raises(ConfigError, match=f"another process is at work in {store}"),
            claims.claimed(store, write=True),
        ):
            pass
        with claims.claimed(store, write=False):
            pass
        with claims.claimed(store, write=True, waiting=print):  # it measures
            assert held(store) == [".lock-1", ".lock.measure-1"]
    assert held(store) == []


def test_it_gives_signs_of_life(store):
    with claims.claimed(store, write=True):
        first = (store / ".lock-1").read_bytes()
        deadline = time.monotonic() + 5
        while (store / ".lock-1").read_bytes() == first:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_measurements_take_turns(store):
    said, done = [], threading.Event()

    def first():
        with claims.claimed(store, write=True, waiting=print):
            done.wait()

    thread = threading.Thread(target=first)
    thread.start()
    while not held(store):
        time.sleep(0.01)

    def say(line):
        said.append(line)
        if "this one waits for it" in line:
            done.set()

    with claims.claimed(store, write=True, waiting=say):
        assert done.is_set()
    thread.join()
    assert f"another process measures {store}; this one waits for it" in said


@pytest.mark.parametrize("numbers", [[1], [3], [1, 2]])
def test_what_a_killed_process_held_is_free_after_a_while(
    store, numbers, caplog, monkeypatch
):
    monkeypatch.setattr(leases, "STALE", 0.4)
    for number in numbers:
        leave(store, f".lock-{number}")
    started = time.monotonic()
    with claims.claimed(store, write=True):
        assert time.monotonic() - started >= leases.STALE
        assert held(store) == [f".lock-{numbers[-1] + 1}"]
    assert held(store) == []
    assert f"whether another process still works in {store}" in caplog.text


def test_of_this_machine_it_is_known_at_once(store, monkeypatch):
    monkeypatch.setattr(leases, "STALE", 60.0)
    here = leases._whereabouts()
    if not here["machine"]:
        pytest.skip("the system doesn't say which machine this is")
    leave(store, **{**here, "process": 2**22 + 1})  # above Linux's largest number
    with claims.claimed(store, write=True):
        assert held(store) == [".lock-2"]


def test_of_two_who_find_it_free_one_has_it(store, monkeypatch):
    leave(store)
    barrier, lost = threading.Barrier(2), threading.Event()
    seen, winners, losers = set(), [], []

    def is_stale(*_):
        """Says that it is free to both at once; later that the other one works."""
        if (me := threading.get_ident()) in seen:
            return False
        seen.add(me)
        barrier.wait(timeout=10)
        return True

    def take():
        try:
            with claims.claimed(store, write=True):
                winners.append(held(store))
                lost.wait(timeout=10)
        except ConfigError as error:
            losers.append(error)
            lost.set()

    monkeypatch.setattr(leases._Lease, "_is_stale", is_stale)
    both = [threading.Thread(target=take) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(timeout=30)
    assert (len(winners), len(losers)) == (1, 1)


def test_of_two_who_find_it_released_one_has_it(store, monkeypatch):
    """One counts on from the claim that was, the other begins anew."""
    leave(store)
    listed, taken = threading.Event(), threading.Event()
    whole = leases._Lease._read

    def read(self, number):
        if threading.current_thread() is late and not listed.is_set():
            listed.set()  # .lock-1 is in its list, and then released
            taken.wait(timeout=10)
        return whole(self, number)

    monkeypatch.setattr(leases._Lease, "_read", read)
    refused = []

    def take():
        try:
            with claims.claimed(store, write=True):
                pass
        except ConfigError as error:
            refused.append(error)

    late = threading.Thread(target=take)
    late.start()
    assert listed.wait(timeout=10)
    (store / ".lock-1").unlink()
    with claims.claimed(store, write=True):
        taken.set()
        late.join(timeout=30)
        assert held(store) == [".lock-1"]
        leases.check(store / "a.jsonl")
    assert len(refused) == 1
    with claims.claimed(store, write=True):  # nothing is left behind
        assert held(store) == [".lock-1"]


@pytest.mark.parametrize("after", ["taken over", "taken over and done", "taken anew"])
def test_a_process_that_slept_writes_nothing_more(store, after):
    with claims.claimed(store, write=True):
        jsonl.append(store / "a.jsonl", [{"x": 1}])
        (store / ".lock-1").unlink()
        if after != "taken over and done":
            leave(store, ".lock-2" if after == "taken over" else ".lock-1")
        deadline = time.monotonic() + 5
        while not leases._held[-1]._lost:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for write in (
            lambda: jsonl.append(store / "a.jsonl", [{"x": 2}]),
            lambda: files.write_text(store / "b", "x"),
        ):
            with pytest.raises(CheckpointError, match="has taken over"):
                write()
        files.write_text(store.parent / "elsewhere", "x")
    assert [row for _, row in jsonl.read(store / "a.jsonl")] == [{"x": 1}]
    assert held(store) == {"taken over": [".lock-2"], "taken anew": [".lock-1"]}.get(
        after, []
    )


def test_one_out_of_reach_looks_before_it_writes(store, monkeypatch):
    monkeypatch.setattr(leases, "BEAT", 3600.0)
    with claims.claimed(store, write=True):
        (lease,) = leases._held
        leave(store, ".lock-2")
        files.write_text(store / "a", "x")  # it has just been seen
        lease._seen -= 3 * leases.BEAT
        with pytest.raises(CheckpointError, match="has taken over"):
            files.write_text(store / "b", "x")
        (store / ".lock-2").unlink()
