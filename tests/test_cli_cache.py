"""apr-jax cache: what it lists, what it removes, and what it leaves alone."""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from apr_jax import config as config_lib
from apr_jax import data
from apr_jax.cli import cache as command
from apr_jax.data import cache
from apr_jax.errors import ConfigError
from tests import toy


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A cache with two splits and programs, and a run with scratch and results."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    toy.write_arrays(tmp_path)
    config = toy.config(tmp_path)
    data.load(config.data, splits=("train", "test"))
    folder = tmp_path / "cache"
    (folder / "xla").mkdir()
    (folder / "xla" / "program").write_bytes(b"x" * 3000)
    (folder / "mine").mkdir()
    (folder / "mine" / "notes").write_text("kept")
    run = tmp_path / "runs" / "one"
    for name in ("scratch/ood/a.npz", "scratch/adversarial/b/c.npz", "checkpoints/7/d"):
        path = run / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"y" * 50)
    (run / "results.jsonl").write_text("")
    (run / "config.json").write_text(json.dumps(config_lib.to_dict(config)))
    return folder, tmp_path / "runs"


def listed(folder, runs):
    return {item.name: item for item in command.items(folder, [runs])}


def state(root):
    return {p: p.stat().st_mtime_ns for p in root.rglob("*")}


def test_looking_lists_and_changes_nothing(places, tmp_path, capsys):
    folder, runs = places
    before = state(tmp_path)
    command.run([], folder=folder, runs=[runs])
    said = capsys.readouterr().out
    assert state(tmp_path) == before
    assert max(map(len, said.splitlines())) <= 80
    found = listed(folder, runs)
    assert sorted(item.kind for item in found.values()) == [
        *("images", "images"),
        "programs",
        *("scratch", "scratch"),
    ]
    assert found["xla"].size == 3000
    assert time.time() - found["xla"].written < 600
    images = next(i for i in found.values() if "train" in i.name)
    assert images.size == sum(p.stat().st_size for p in images.path.iterdir())
    assert images.size > np.load(tmp_path / "train.npz")["images"].nbytes
    assert "3.0 kB" in said
    assert "0 min ago" in said


def test_cleaning_removes_what_is_listed_and_no_result(places, tmp_path, capsys):
    folder, runs = places
    total = sum(item.size for item in listed(folder, runs).values())
    command.run([], folder=folder, runs=[runs], clean=True)
    said = capsys.readouterr().out
    assert said.count("removed ") == 5
    assert f"{command._bytes(total)} freed" in said
    assert listed(folder, runs) == {}
    kept = {str(p.relative_to(runs)) for p in runs.rglob("*") if p.is_file()}
    assert kept >= {"one/results.jsonl", "one/config.json", "one/checkpoints/7/d"}
    assert (folder / "mine" / "notes").read_text() == "kept"
    assert (tmp_path / "train.npz").exists()
    # All of it is made again.
    data.load(toy.config(tmp_path).data, splits=("test",))
    assert len(listed(folder, runs)) == 1
    command.run(["images"], folder=folder, clean=True)
    command.run([], folder=folder)
    assert "nothing is cached" in capsys.readouterr().out


def test_names_and_kinds_choose(places, capsys):
    folder, runs = places
    ood = str(runs / "one" / "scratch" / "ood")
    command.run(["xla", f"{ood}/"], folder=folder, runs=[runs], clean=True)
    left = listed(folder, runs)
    assert sorted(item.kind for item in left.values()) == [
        *("images", "images", "scratch"),
    ]
    command.run(["images"], folder=folder, runs=[runs], clean=True)
    assert len(listed(folder, runs)) == 1
    with pytest.raises(ConfigError, match="nothing cached is called 'mine'; there is"):
        command.run(["mine"], folder=folder, runs=[runs], clean=True)


def test_what_is_in_use_stays(places, tmp_path, capsys):
    folder, runs = places
    entry = cache.entries(folder)[0]
    with contextlib.ExitStack() as held:
        for lock in (folder / f".{entry.name}.lock", runs / "one" / ".lock.measure"):
            file = held.enter_context(open(lock, "a"))
            fcntl.flock(file, fcntl.LOCK_EX)
        command.run([], folder=folder, runs=[runs], clean=True)
    said = capsys.readouterr().out
    assert f"{entry.name} stays: another process is at work" in said
    assert "stays: another process measures" in said
    left = {item.kind for item in listed(folder, runs).values()}
    assert left == {"images", "scratch"}
    assert len(cache.entries(folder)) == 1


def test_half_made_entries_are_listed_and_links_are_not_followed(places, tmp_path):
    folder, runs = places
    entry = cache.entries(folder)[0]
    (folder / f".{entry.name}.tmpab_12").mkdir()
    (folder / "link-0123456789abcdef").symlink_to(tmp_path / "runs")
    (runs / "one" / "scratch" / "link").symlink_to(tmp_path)
    names = [path.name for path in cache.entries(folder)]
    assert f".{entry.name}.tmpab_12" in names
    assert len(names) == 3
    command.run([], folder=folder, runs=[runs], clean=True)
    assert (runs / "one" / "results.jsonl").exists()
    assert cache.entries(folder) == []


def test_a_cache_of_all_programs_stays(places, tmp_path, monkeypatch, capsys):
    folder, _ = places
    other = tmp_path / "everybody"
    other.mkdir()
    (other / "program").write_bytes(b"z")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(other))
    command.run(["programs"], folder=folder, clean=True)
    said = capsys.readouterr().out
    assert f"{other} stays: JAX_COMPILATION_CACHE_DIR names it" in said
    assert (other / "program").exists()
    assert not (folder / "xla").exists()


def test_the_command_answers_before_jax_is_there(places):
    folder, runs = places
    program = (
        "import sys\nfrom apr_jax import cli\n"
        f"sys.argv = ['apr-jax', 'cache', '--cache_dir', {str(folder)!r}, "
        f"'--runs', {str(runs)!r}]\n"
        "try:\n    cli.main()\nexcept SystemExit as end:\n"
        "    sys.exit(end.code or 'jax' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=toy.ROOT,
        env={k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "programs" in done.stdout
