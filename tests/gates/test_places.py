"""Places that users name: ``~`` and addresses, in every flag and field."""

import argparse
import pathlib
import re
import socket

import pytest

from apr_jax import config as config_lib
from apr_jax import parallel, settings
from apr_jax.errors import ConfigError
from apr_jax.gates import places, processes

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIELDS = {
    leaf.name: leaf
    for leaf in settings.leaves(config_lib.default())
    if leaf.about.place
}
REMOTE = {"data.data_dir", "eval.ood.tfds_dir", "eval.shift.tfds_dir"}


def test_a_place_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert places.local("~/runs/a", "--workdir") == tmp_path / "runs" / "a"
    assert places.argument("~") == tmp_path
    assert places.local("a/~", "--workdir") == pathlib.Path("a/~")


@pytest.mark.parametrize("place", ["gs://b/r", "file:///r", "~no.body/r", "a/\udcff"])
def test_what_is_none(place):
    wanted = f"^--out is {re.escape(repr(place))}; "
    with pytest.raises(ConfigError, match=wanted):
        places.local(place, "--out")
    with pytest.raises(argparse.ArgumentTypeError, match=re.escape(repr(place))):
        places.argument(place)


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("place", ["gs://b/r", "~no.body/r"])
def test_every_field_that_is_a_place(name, place):
    several = FIELDS[name].kind is not str
    given = [place] if several else place
    for part in reversed(name.split(".")):
        given = {part: given}
    if "://" in place and name in REMOTE:
        assert dict(config_lib.flatten(config_lib.parse(given)))[name] == place
        given["data"] = {"source": "folder", "data_dir": place}  # not of TFDS
        name = "data.data_dir"
    with pytest.raises(ConfigError, match=f"{name} (is|has) '{re.escape(place)}'; "):
        config_lib.parse(given)


def test_nobody_reads_places_otherwise():
    """Homes are looked up in ``places``; TFDS's root may be on an object store."""
    found = set()
    for folder in ("apr_jax", "experiments"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            if ".expanduser(" in text or re.search(r"type\W+pathlib.Path\b", text):
                found.add(str(path.relative_to(ROOT)))
    found = {name for name in found if not name.startswith("experiments/benchmarks/")}
    assert found == {"apr_jax/gates/places.py", "apr_jax/data/tfds.py"}


def test_processes_that_can_not_start(monkeypatch):
    from jax import distributed, errors

    def fail(*_):
        raise errors.JaxRuntimeError("UNKNOWN: Failed to start RPC server\n  at 0x0")

    monkeypatch.setattr(distributed, "initialize", fail)
    wanted = r"'h:1', where process 0 can't start: .*RPC server. Is the port another"
    with pytest.raises(ConfigError, match=wanted):
        parallel.start_processes("h:1", 2, 0)


def test_a_process_waits_for_the_first_one(capsys):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{server.getsockname()[1]}"
        wanted = f"'{address}', where no process 0 has answered for 0 s"
        with pytest.raises(ConfigError, match=wanted):
            processes.wait_for(address, 0.2)
        assert capsys.readouterr().err == f"waiting for process 0 at {address}\n"
        server.listen()
        processes.wait_for(address, 0.2)
    assert not capsys.readouterr().err


def test_only_later_processes_wait(monkeypatch):
    from jax import distributed

    met: list[object] = []
    monkeypatch.setattr(processes, "wait_for", met.append)
    monkeypatch.setattr(distributed, "initialize", lambda *where: met.append(where))
    parallel.start_processes("h:1", 2, 0)
    parallel.start_processes("h:1", 2, 1)
    parallel.start_processes()
    assert met == [("h:1", 2, 0), "h:1", ("h:1", 2, 1), (None, None, None)]
