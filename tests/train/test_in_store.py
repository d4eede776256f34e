"""Runs whose work directory is in a store: in memory, or served by this machine."""

import dataclasses
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from apr_jax import config as config_lib
from apr_jax import job, models
from apr_jax.evaluate import card, classifier, clean, command
from apr_jax.gates import places, stores
from apr_jax.runs import checkpoint, claims, curves, records, workdir
from apr_jax.train import loop
from apr_jax.train import plan as plan_lib
from tests import toy
from tests.train import test_interruptions as interruptions

LOCKS = {".lock", ".lock.measure"}


def numbers(root):
    return {(r.split, r.metric): r.value for r in records.read(root / "results.jsonl")}


def names(place):
    return {name.partition("/")[0] for name in place.below()}


@pytest.mark.usefixtures("_tiny_model")
def test_a_run_is_the_same_as_on_a_disk(folder, tmp_path, store, capsys):
    """Stopped on the way and gone on with, measured, drawn, and measured again."""
    config = toy.config(
        folder, optim__epochs=1.5, eval__parts=("clean",), train__tensorboard=True
    )
    disk, owner = tmp_path / "run", config_lib.config_hash(config)
    digests = []
    for root in (store, disk):
        trained = loop.train(plan_lib.plan(config, root), until=5, quiet=True)
        job.run(config, root, quiet=True)
        said = " ".join("".join(capsys.readouterr()).split())
        assert f"Page: {root / 'report.html'}" in said
        saved = checkpoint.Reader(root / "checkpoints", owner=owner)
        assert saved.steps == [7, 9]
        found = saved.restore(jax.tree.map(np.asarray, trained.state))
        digests.append(checkpoint.digest(found))
    assert digests[0] == digests[1]
    assert numbers(store) == numbers(disk)
    assert names(store) == {path.name for path in disk.iterdir()} - LOCKS
    for name in ("config.json", "classes.json", "facts.json"):
        assert (store / name).read_bytes() == (disk / name).read_bytes()
    steps = [[r.step for r in curves.read_curve(root)] for root in (store, disk)]
    assert steps[0] == steps[1] == sorted(set(steps[0]))
    assert "</html>" in (store / "report.html").read_text()
    sizes = [
        sorted(p.stat().st_size for p in (root / "tensorboard").glob("*tfevents*"))
        for root in (store, disk)
    ]
    assert sizes[0] == sizes[1]
    before = {name: (store / name).read_bytes() for name in store.below()}
    command.run(store, clean.measure, None, workdir=tmp_path / "beside", quiet=True)
    assert {name: (store / name).read_bytes() for name in store.below()} == before
    assert numbers(store) == numbers(tmp_path / "beside")


# --- Servers of this machine ----------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Server:
    """A store that a program serves.

    Attributes:
        packages: that it and who asks it need, by the name that they are imported by.
        program: arguments of Python; PORT stands for the port.
        environment: that finds it; URL stands for its address.
        files: module and class of fsspec's files in it.
    """

    packages: dict[str, str]
    program: tuple[str, ...]
    environment: dict[str, str]
    files: tuple[str, str]


SERVERS = {
    "s3": Server(
        {"moto": "moto[server]", "flask": "moto[server]", "s3fs": "s3fs"},
        ("-m", "moto.server", "-H", "127.0.0.1", "-p", "PORT"),
        {
            "AWS_ENDPOINT_URL": "URL",
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_DEFAULT_REGION": "us-east-1",
        },
        ("s3fs", "S3FileSystem"),
    ),
    "gs": Server(
        {"gcp_storage_emulator": "gcp-storage-emulator", "gcsfs": "gcsfs"},
        ("-m", "tests.google_storage", "PORT", "bucket"),
        {"STORAGE_EMULATOR_HOST": "URL"},
        ("gcsfs", "GCSFileSystem"),
    ),
}


@pytest.fixture(params=SERVERS)
def remote(request, monkeypatch):
    """A folder of a server of this machine, for this process and those it starts."""
    scheme, server = request.param, SERVERS[request.param]
    for module, package in server.packages.items():
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install '{package}'")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # It says a line for each request, which nobody reads.
    process = subprocess.Popen(
        [sys.executable, *(str(port) if a == "PORT" else a for a in server.program)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    toy.STARTED.append(process)
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except ConnectionRefusedError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value.replace("URL", f"http://127.0.0.1:{port}"))
    # fsspec keeps what it opened, with the address of the server before.
    module, kind = server.files
    getattr(importlib.import_module(module), kind).clear_instance_cache()
    stores._files.cache_clear()
    if scheme == "s3":
        stores._files(scheme).mkdir("bucket")
    yield places.anywhere(f"{scheme}://bucket/runs/a", "--workdir")
    stores._files.cache_clear()


@pytest.mark.slow
def test_objects_are_put_and_found(remote, tmp_path):
    assert not remote.exists()
    one = remote / "one"
    one.write_bytes(b"first")
    assert not one.write_new(b"second"), "of two who put it where none is, one may"
    assert (remote / "below" / "two").write_new(b"two")
    assert one.read_bytes() == b"first"
    assert one.stat().st_size == 5
    assert remote.is_dir()
    assert one.is_file()
    assert sorted(remote.below()) == ["below/two", "one"]
    assert [path.name for path in remote.iterdir()] == ["below", "one"]
    one.copy(remote / "three")
    one.unlink()
    one.unlink(missing_ok=True)
    assert [path.name for path in remote.glob("t*")] == ["three"]
    (remote / "three").download(tmp_path / "three")
    assert (tmp_path / "three").read_bytes() == b"first"
    (remote / "four").upload(tmp_path / "three")
    assert (remote / "four").read_text() == "first"
    with pytest.raises(FileNotFoundError) as error:
        one.read_bytes()
    assert error.value.filename == str(one)


def rows(root):
    path = root / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for_rows(root, count, process):
    interruptions.wait_for(lambda: rows(root) >= count or time.sleep(0.1), process)


@pytest.mark.slow
def test_a_run_is_stopped_killed_and_ends_with_the_same_bits(
    folder, tmp_path, remote, monkeypatch
):
    changes = {"optim__epochs": 120.0, "checkpoint__every_steps": 24}
    start = interruptions.start
    process = start(folder, remote, changes)
    wait_for_rows(remote, 1, process)
    assert [p.name for p in remote.glob(".lock*")] == [".lock-1"]
    process.send_signal(signal.SIGTERM)
    said = interruptions.finish(process, status=128 + signal.SIGTERM)
    assert "SIGTERM: saved step" in said
    with claims.claimed(remote, write=True):
        second = interruptions.finish(start(folder, remote, changes), status=2)
    assert f"another process is at work in {remote}" in second
    assert not list(remote.glob(".lock*"))
    process = start(folder, remote, changes)
    wait_for_rows(remote, rows(remote) + 8, process)
    process.send_signal(signal.SIGKILL)
    said = interruptions.finish(process, status=-signal.SIGKILL)
    assert "going on from the checkpoint of step" in said
    assert list(remote.glob(".lock*"))
    interruptions.finish(start(folder, remote, changes))
    interruptions.finish(start(folder, tmp_path / "whole", changes))
    ends = []
    for root in (remote, tmp_path / "whole"):
        about = root / "checkpoints" / "720" / "about" / "metadata"
        steps = [row.step for row in curves.read_curve(root)]
        ends.append((json.loads(about.read_bytes())["digest"], steps, numbers(root)))
    assert ends[0] == ends[1]
    assert "</html>" in (remote / "report.html").read_text()

    with monkeypatch.context() as patch:
        patch.setitem(models.MODELS, "tiny", toy.TinyNet)
        assert classifier.from_run(remote).step == 720
        card.run([remote], {"parts": ("clean",)}, quiet=True)
    assert json.loads((remote / "card.json").read_bytes())
    bucket = f"{remote.scheme}://bucket"
    page = f"{bucket}/pages/a.html"
    arguments = ("compare", remote, "--page", page, "--json", f"{bucket}/a.json")
    said = interruptions.finish(toy.start("-m", "apr_jax", *arguments))
    assert "accuracy" in said.lower() or "error" in said.lower()
    assert "</html>" in places.anywhere(page, "--page").read_text()
    assert len(workdir.read_commands(workdir.RunDir(remote))) == 2  # and this process's


@pytest.mark.slow
def test_two_processes_train_in_it(folder, tmp_path, remote, monkeypatch):
    changes = {"train__devices": 2, "optim__epochs": 2.0}
    for root in (remote, tmp_path / "two"):
        for process in interruptions.start_two(folder, [root] * 2, changes):
            interruptions.finish(process)
    assert numbers(remote) == numbers(tmp_path / "two")
    assert names(remote) - {"xla"} == {p.name for p in (tmp_path / "two").iterdir()} - {
        *LOCKS,
        "xla",
    }


@pytest.mark.slow
def test_what_it_refuses_is_a_line(folder, remote):
    os.environ["AWS_MAX_ATTEMPTS"] = "1"
    try:
        changes = {"optim__epochs": 1.0}
        nowhere = str(remote).replace("bucket", "another")
        said = interruptions.finish(
            interruptions.start(folder, nowhere, changes), status=2
        )
    finally:
        del os.environ["AWS_MAX_ATTEMPTS"]
    assert f"workdir is '{nowhere}', which can't be written: " in said
    assert "Traceback" not in said
