"""Saved states: complete, checked, and the one before when one is damaged."""

import errno
import os
import shutil
import sys
import time

import jax
import numpy as np
import pytest

from apr_jax.errors import CheckpointError
from apr_jax.runs import checkpoint, checkpoint_reading


def state_of(step):
    values = np.arange(12, dtype=np.float32).reshape(3, 4) + step
    return {"params": {"kernel": values}, "step": np.asarray(step, np.int32)}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


@pytest.fixture
def saved(folder):
    opened = checkpoint.Checkpoints(folder, keep=2, owner="me")
    for step in (10, 20, 30):
        opened.save(step, state_of(step))
    opened.wait()
    yield opened
    opened.close()


def kinds():
    return [
        lambda folder: checkpoint.Reader(folder, owner="me"),
        lambda folder: checkpoint.Checkpoints(folder, keep=2, owner="me"),
    ]


def damage(folder, step):
    """Flips a byte in the middle of every data file of one checkpoint."""
    files = [p for p in (folder / str(step)).rglob("d/*") if p.is_file()]
    assert files
    for path in files:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(bytes(content))


def test_newest_is_restored_and_old_ones_go(saved):
    assert saved.steps == [20, 30]
    step, state = saved.restore(state_of(0))
    assert step == 30
    jax.tree.map(np.testing.assert_array_equal, state, state_of(30))
    assert state["step"].dtype == np.int32


def test_nothing_to_restore(folder):
    opened = checkpoint.Checkpoints(folder, keep=2, owner="me")
    assert opened.restore(state_of(0)) is None
    opened.close()


def test_damaged_newest_falls_back_and_says_so(saved, folder, caplog):
    damage(folder, 30)
    step, state = saved.restore(state_of(0))
    assert step == 20
    jax.tree.map(np.testing.assert_array_equal, state, state_of(20))
    assert "the checkpoint of step 30 is damaged" in caplog.text
    assert (folder / "damaged-30").is_dir()
    saved.save(30, state_of(30))  # its place is free again
    saved.wait()
    assert saved.restore(state_of(0))[0] == 30


def test_no_traceback_stands_beside_the_warning(saved, folder, monkeypatch, caplog):
    """Reads of TensorStore that end after another one has failed say nothing."""
    said = []
    monkeypatch.setattr(sys, "unraisablehook", lambda it: said.append(it.exc_value))
    many = {str(i): np.full(3, i, np.float32) for i in range(200)}
    for step in (40, 50):
        saved.save(step, many)
    saved.wait()
    (tree,) = (folder / "50" / "state" / "d").iterdir()
    content = bytearray(tree.read_bytes())
    content[40:52] = b"X" * 12
    tree.write_bytes(bytes(content))
    reader = checkpoint.Reader(folder, owner="me")
    assert reader.restore(many)[0] == 40
    time.sleep(0.5)
    reader.close()
    assert not said
    assert "step 50 is damaged" in caplog.text
    assert "asyncio" not in {record.name for record in caplog.records}

    # All else is told as ever.
    class Loud:
        def __del__(self):
            raise ValueError("loud")

    loud = Loud()
    del loud
    assert [str(it) for it in said] == ["loud"]


def test_missing_files_fall_back(saved, folder, caplog):
    shutil.rmtree(folder / "30" / "state")
    assert saved.restore(state_of(0))[0] == 20
    assert "step 30 is damaged" in caplog.text


def test_changed_values_are_noticed(saved, folder, caplog):
    # A readable checkpoint whose contents are not those of its digest.
    shutil.rmtree(folder / "30" / "state")
    shutil.copytree(folder / "20" / "state", folder / "30" / "state")
    assert saved.restore(state_of(0))[0] == 20
    assert "not those that were saved" in caplog.text


def test_all_damaged(saved, folder):
    damage(folder, 20)
    damage(folder, 30)
    with pytest.raises(
        CheckpointError, match=r"none of .* of steps 20, 30 are damaged"
    ):
        saved.restore(state_of(0))


@pytest.mark.parametrize("aside", [False, True])
def test_a_start_on_damaged_ones_alone_refuses(saved, folder, aside):
    """Not from step 0 without a word: nothing is renamed, and no start forgets it."""
    for step in (20, 30):
        damage(folder, step)
        if aside:
            (folder / str(step)).rename(folder / f"damaged-{step}")
    names = sorted(p.name for p in folder.iterdir())
    for _ in range(2):
        opened = checkpoint.Checkpoints(folder, keep=2, owner="me")
        with pytest.raises(CheckpointError, match="To start anew remove that folder"):
            opened.restore(state_of(0))
        opened.close()
        assert sorted(p.name for p in folder.iterdir()) == names


@pytest.mark.parametrize("make", kinds())
def test_a_disk_that_fails_for_once_damages_nothing(saved, folder, make, monkeypatch):
    saved.wait()
    opened = make(folder)
    restore, calls = opened._manager.restore, []

    def once(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise ValueError("DATA_LOSS: Input/output error")
        return restore(*args, **kwargs)

    monkeypatch.setattr(opened._manager, "restore", once)
    assert opened.restore(state_of(0))[0] == 30
    assert len(calls) == 4
    opened.close()
    assert not list(folder.glob("damaged-*"))


def test_a_reader_is_not_misled_by_what_the_writer_removes(saved, folder, caplog):
    """Half of a checkpoint is gone when it is read: there is a newer one."""
    saved.wait()
    reader = checkpoint.Reader(folder, owner="me")
    assert reader.steps[-1] == 30
    saved.save(40, state_of(40))
    saved.wait()
    shutil.rmtree(folder / "30" / "state")
    assert reader.restore(state_of(0))[0] == 40
    assert "damaged" not in caplog.text
    reader.close()


def traces(folder):
    """All that a look could change: names, inodes, times and bytes."""
    return {
        str(p): (p.stat().st_ino, p.stat().st_mtime_ns, p.is_file() and p.read_bytes())
        for p in [folder, *folder.rglob("*")]
    }


def test_a_reader_changes_nothing(saved, folder):
    """Neither a half-written checkpoint of the writer nor a damaged one."""
    damage(folder, 30)
    (folder / "40.orbax-checkpoint-tmp").mkdir()
    (folder / "40.orbax-checkpoint-tmp" / "half").write_text("half")
    before = traces(folder.parent)
    reader = checkpoint.Reader(folder, owner="me")
    step, state = reader.restore(state_of(0))
    reader.close()
    assert step == 20
    jax.tree.map(np.testing.assert_array_equal, state, state_of(20))
    assert traces(folder.parent) == before


def test_a_reader_of_nothing_makes_nothing(folder):
    reader = checkpoint.Reader(folder, owner="me")
    assert reader.steps == []
    assert reader.restore(state_of(0)) is None
    assert not folder.exists()


def test_a_reader_takes_the_next_where_the_writer_removes_its_own(saved, folder):
    reader = checkpoint.Reader(folder, owner="me")
    assert reader.steps == [20, 30]
    saved.save(40, state_of(40))
    saved.save(50, state_of(50))
    saved.wait()
    assert reader.restore(state_of(0))[0] == 50


OTHER = {
    "shape": {**state_of(0), "params": {"kernel": np.zeros((3, 5), np.float32)}},
    "type": {**state_of(0), "params": {"kernel": np.zeros((3, 4), np.float16)}},
    "name": {**state_of(0), "params": {"weight": np.zeros((3, 4), np.float32)}},
    "more": {**state_of(0), "more": np.zeros(2, np.float32)},
    "fewer": {"step": np.zeros((), np.int32)},
}


@pytest.mark.parametrize("make", kinds())
@pytest.mark.parametrize("change", OTHER)
def test_a_state_of_another_tree_is_not_damaged(saved, folder, change, make):
    saved.wait()
    opened = make(folder)
    with pytest.raises(CheckpointError, match=r"of step 30 in .* holds another state"):
        opened.restore(OTHER[change])
    opened.close()
    assert not list(folder.glob("damaged-*"))
    assert saved.restore(state_of(0))[0] == 30


@pytest.mark.parametrize("make", kinds())
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE])
def test_a_file_that_can_not_be_read_is_not_damaged(
    saved, folder, make, number, monkeypatch
):
    """The error names it; it may well be read the next time."""
    saved.wait()
    opened = make(folder)

    def never(*args, **kwargs):
        raise ValueError("PERMISSION_DENIED: somewhere in a library")

    def denied(path, *args, **kwargs):
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(opened._manager, "restore", never)
    monkeypatch.setattr(checkpoint_reading, "open", denied, raising=False)
    with pytest.raises(CheckpointError, match=f"{folder}/30.*{os.strerror(number)}"):
        opened.restore(state_of(0))
    monkeypatch.undo()
    assert not list(folder.glob("damaged-*"))
    assert opened.restore(state_of(0))[0] == 30
    opened.close()


def test_an_unfinished_save_is_no_checkpoint(saved, folder):
    saved.close()
    shutil.copytree(folder / "30", folder / "40.orbax-checkpoint-tmp-1")
    again = checkpoint.Checkpoints(folder, keep=2, owner="me")
    assert again.restore(state_of(0))[0] == 30
    again.close()


def test_disk_full(saved, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(saved._manager, "save", full)
    message = r"could not save .*: the disk is full; complete checkpoints there: 20, 30"
    with pytest.raises(CheckpointError, match=message):
        saved.save(40, state_of(40))
    monkeypatch.undo()


def test_digest_tells_values_names_and_types_apart():
    one = checkpoint.digest(state_of(1))
    assert one == checkpoint.digest(state_of(1))
    assert one != checkpoint.digest(state_of(2))
    assert checkpoint.digest({"a": np.zeros(2)}) != checkpoint.digest(
        {"b": np.zeros(2)}
    )
    single, double = np.zeros(2, np.float32), np.zeros(1, np.float64)
    assert checkpoint.digest([single]) != checkpoint.digest([double])


def test_states_of_another_owner_are_refused(saved, folder):
    saved.wait()
    other = checkpoint.Checkpoints(folder, keep=2, owner="you")
    with pytest.raises(CheckpointError, match="of another configuration"):
        other.restore(state_of(0))
    other.close()
    assert saved.restore(state_of(0))[0] == 30


# --- Every file, every way ------------------------------------------------------------

DAMAGES = {
    "removed": lambda path, content: path.unlink(),
    "empty": lambda path, content: path.write_bytes(b""),
    "cut": lambda path, content: path.write_bytes(content[: len(content) // 2]),
    "flipped": lambda path, content: path.write_bytes(
        bytes(b ^ 0xFF if i == len(content) // 2 else b for i, b in enumerate(content))
    ),
    "noise": lambda path, content: path.write_bytes(b"\x5a" * len(content)),
    "longer": lambda path, content: path.write_bytes(content + b"\x5a" * 20),
}


@pytest.mark.slow
@pytest.mark.parametrize("make", kinds())
@pytest.mark.parametrize("way", DAMAGES)
def test_whatever_is_damaged_the_state_is_right(saved, folder, way, make, caplog):
    """Each file of a checkpoint is damaged in turn, and nothing but damage is found."""
    saved.close()
    files = sorted(p for p in (folder / "30").rglob("*") if p.is_file())
    assert len(files) > 10
    fell = 0
    for file in files:
        here = folder.parent / "copy"
        shutil.copytree(folder, here)
        path = here / file.relative_to(folder)
        DAMAGES[way](path, path.read_bytes())
        caplog.clear()
        opened = make(here)
        step, state = opened.restore(state_of(0))
        opened.close()
        jax.tree.map(np.testing.assert_array_equal, state, state_of(step))
        assert step in (20, 30), file
        assert (step == 20) == ("step 30 is damaged" in caplog.text), file
        put_aside = isinstance(opened, checkpoint.Checkpoints) and step == 20
        assert [p.name for p in here.glob("damaged-*")] == ["damaged-30"] * put_aside
        fell += step == 20
        shutil.rmtree(here)
    assert fell >= 3
