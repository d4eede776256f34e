"""The cache on disk: damage, interruptions, several processes, a full disk."""

import errno
import json
import os
import pathlib
import shutil
import threading

import numpy as np
import pytest

from apr_jax import data
from apr_jax.data import cache
from apr_jax.errors import DataError
from tests.data.test_data import random_split


def entry(rng, count=6):
    pixels, labels = random_split(rng, count)
    split = data.ArraySplit(pixels, labels.astype(np.int32))
    return cache.Entry(split, ("a", "b", "c", "d"))


def entries(root):
    return [p for p in root.iterdir() if not p.name.endswith(".lock")]


@pytest.fixture
def forget(monkeypatch):
    """Makes the process forget what checksums it has compared."""

    def forget():
        monkeypatch.setattr(cache, "_compared", set())

    return forget


def test_cache_builds_once(tmp_path, rng):
    calls = []

    def build():
        calls.append(1)
        return entry(rng)

    first, digest = cache.load_or_build(tmp_path, "x", {"k": 1}, build)
    second, same = cache.load_or_build(tmp_path, "x", {"k": 1}, build)
    assert len(calls) == 1
    assert digest == same
    assert second.class_names == ("a", "b", "c", "d")
    np.testing.assert_array_equal(first.split.images, second.split.images)
    cache.load_or_build(tmp_path, "x", {"k": 2}, build)
    assert len(calls) == 2
    assert len(entries(tmp_path)) == 2
    manifest = json.loads((entries(tmp_path)[0] / "manifest.json").read_text())
    assert manifest["arrays"]["images"]["shape"] == [6, 8, 8, 3]


def flip_a_bit(folder):
    path = folder / "images.npy"
    contents = bytearray(path.read_bytes())
    contents[-5] ^= 1
    path.write_bytes(contents)


def cut_short(folder):
    path = folder / "images.npy"
    path.write_bytes(path.read_bytes()[:200])


DAMAGES = {
    "bit": flip_a_bit,
    "short": cut_short,
    "missing": lambda folder: (folder / "labels.npy").unlink(),
    "manifest": lambda folder: (folder / "manifest.json").write_text("{"),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_cache_is_made_again(tmp_path, rng, caplog, forget, damage):
    good = entry(rng)
    cache.load_or_build(tmp_path, "x", {"k": 1}, lambda: good)
    (folder,) = entries(tmp_path)
    DAMAGES[damage](folder)
    forget()
    found, _ = cache.load_or_build(tmp_path, "x", {"k": 1}, lambda: good)
    assert "damaged" in caplog.text
    np.testing.assert_array_equal(found.split.images, good.split.images)
    assert entries(tmp_path) == [folder]


def test_interrupted_write_leaves_no_trace(tmp_path, rng):
    cache.load_or_build(tmp_path, "x", {"k": 1}, lambda: entry(rng))
    (folder,) = entries(tmp_path)
    leftover = tmp_path / f".{folder.name}.tmp123"
    shutil.copytree(folder, leftover)
    shutil.rmtree(folder)
    found, _ = cache.load_or_build(tmp_path, "x", {"k": 1}, lambda: entry(rng))
    assert len(found.split.labels) == 6
    assert entries(tmp_path) == [folder]


def test_several_starts_at_once_build_once(tmp_path, rng):
    good, calls, found = entry(rng), [], []
    barrier = threading.Barrier(6)

    def build():
        calls.append(1)
        return good

    def start():
        barrier.wait()
        found.append(cache.load_or_build(tmp_path, "x", {"k": 1}, build)[1])

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len(set(found)) == 1
    assert len(found) == 6


def test_without_locks_the_first_entry_stays(tmp_path, rng, monkeypatch):
    """A file system without locks: two build, and what is found is whole."""
    import fcntl

    def no_locks(*args):
        raise OSError(errno.ENOTSUP, "no locks")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    first, second = entry(rng), entry(rng)

    def slow():
        cache.load_or_build(tmp_path, "x", {"k": 1}, lambda: first)
        return second

    found, _ = cache.load_or_build(tmp_path, "x", {"k": 1}, slow)
    np.testing.assert_array_equal(found.split.images, first.split.images)
    assert len(entries(tmp_path)) == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk_is_a_clear_error(tmp_path, rng, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage)
        with pytest.raises(DataError, match=r"full .*MiB needed.*data.cache_dir"):
            cache.load_or_build(tmp_path, "x", {}, lambda: entry(rng))

    def to_full_disk(path, mode):
        return open("/dev/full" if mode == "wb" else path, mode)

    with monkeypatch.context() as patch:
        patch.setattr(cache, "open", to_full_disk, raising=False)
        with pytest.raises(DataError, match=r"disk is full .*data.cache_dir"):
            cache.load_or_build(tmp_path, "x", {}, lambda: entry(rng))
    assert entries(tmp_path) == []
    cache.load_or_build(tmp_path, "x", {}, lambda: entry(rng))


def test_cache_that_cannot_be_written(tmp_path, rng):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"can't write .*data.cache_dir"):
        cache.load_or_build(tmp_path / "file" / "x", "x", {}, lambda: entry(rng))


def test_cache_folder(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache.folder("") == pathlib.Path("/somewhere/apr_jax")
    assert cache.folder("/x/y") == pathlib.Path("/x/y")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.folder("") == pathlib.Path.home() / ".cache" / "apr_jax"
