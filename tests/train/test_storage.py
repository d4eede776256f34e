"""Where states can't be written, and evaluations that are killed or come in pairs."""

import collections
import contextlib
import os
import random
import signal
import subprocess
import time

import pytest

from apr_jax import job, models
from apr_jax import process as process_lib
from apr_jax.errors import CheckpointError
from apr_jax.runs import records
from tests import toy

# Root may do all; without the capabilities 1 to 3, and a new start, rights hold for it.
PROGRAM = """
import os, pathlib, sys
if os.geteuid() == 0 and "WITHOUT_RIGHTS" not in os.environ:
    import ctypes
    for number in (1, 2, 3):
        assert ctypes.CDLL(None).prctl(24, number, 0, 0, 0) == 0
    os.environ["WITHOUT_RIGHTS"] = "1"
    os.execv(sys.executable, sys.orig_argv)
from apr_jax import job, models, process
from apr_jax.evaluate import clean, command
from tests import toy
models.MODELS["tiny"] = toy.TinyNet
folder, root = map(pathlib.Path, sys.argv[2:4])
if sys.argv[1] == "train":
    changes = dict(optim__epochs=34.0, checkpoint__every_steps=1)
    job.main(toy.settings(folder, **changes), workdir=str(root), quiet=True)
else:
    process.finish(lambda: command.run(root, clean.measure, None, quiet=True))
"""


def start(what, folder, root):
    return toy.start("-c", PROGRAM, what, folder, root)


def fails_at_once(process, message):
    """It ends within seconds of the error line, and not with status 0."""
    said, ended = [], time.monotonic()
    for line in process.stdout:
        said.append(line)
        if line.startswith("error:"):
            ended = time.monotonic()
    process.stdout.close()
    process.wait(timeout=30)
    assert time.monotonic() - ended < 10
    assert process.returncode == 2, "".join(said)
    assert message in "".join(said)


def test_a_save_that_fails_ends_a_program_at_once(monkeypatch, capsys):
    """Without waiting for the threads of that save, as Python's own end would."""
    left = []

    def leave(status):
        left.append(status)
        raise InterruptedError

    def save():
        raise CheckpointError("could not save a checkpoint")

    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(InterruptedError):
        process_lib.finish(save)
    assert left == [2]
    assert capsys.readouterr().err == "error: could not save a checkpoint\n"


@pytest.mark.slow
def test_checkpoints_that_can_not_be_written_end_the_training(folder, tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints").chmod(0o555)
    process = start("train", folder, tmp_path / "run")
    try:
        fails_at_once(process, "error: could not save a checkpoint in")
    finally:
        (tmp_path / "run" / "checkpoints").chmod(0o755)


@contextlib.contextmanager
def small_disk(place, options):
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, check=False).returncode != 0:
        pytest.skip("needs root that may mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("options", ["size=200k", "size=20m,nr_inodes=60"])
def test_a_full_disk_ends_the_training(folder, tmp_path, options):
    """By bytes and by inodes."""
    with small_disk(tmp_path / "disk", options):
        process = start("train", folder, tmp_path / "disk" / "run")
        fails_at_once(process, "the disk is full")


@pytest.fixture
def finished(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(models.MODELS, "tiny", toy.TinyNet)
    job.run(toy.config(folder, optim__epochs=1.0), tmp_path / "run", quiet=True)
    (tmp_path / "run" / "results.jsonl").unlink()
    return tmp_path / "run"


def counts(root):
    found = records.read(root / "results.jsonl")
    return collections.Counter((r.split, r.metric) for r in found)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*left out line:UserWarning")
def test_ten_evaluations_that_are_killed_leave_whole_records(folder, finished):
    before = sorted(p.name for p in (finished / "checkpoints").iterdir())
    moments = random.Random(0)
    for _ in range(10):
        process = start("measure", folder, finished)
        time.sleep(moments.uniform(1.0, 6.0))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    last = start("measure", folder, finished)
    said = last.communicate(timeout=120)[0]
    assert last.returncode == 0, said
    values = {}
    for record in records.read(finished / "results.jsonl"):
        key = (record.split, record.metric)
        assert values.setdefault(key, record.value) == record.value
    assert ("test", "accuracy") in values
    assert sorted(p.name for p in (finished / "checkpoints").iterdir()) == before


@pytest.mark.slow
def test_two_evaluations_at_once_take_turns(folder, finished):
    both = [start("measure", folder, finished) for _ in range(2)]
    for process in both:
        process.communicate(timeout=120)
        assert process.returncode == 0
    assert set(counts(finished).values()) <= {1, 2}
    rows = records.read(finished / "results.jsonl")
    metrics = [(r.split, r.metric) for r in rows]
    half = len(metrics) // 2
    assert len(set(metrics)) in (len(metrics), half)
    assert metrics[:half] == metrics[half:] or len(set(metrics)) == len(metrics)
