"""Ctrl-C, in every program: one line, no traceback, status 130."""

import argparse
import io
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from apr_jax import job
from apr_jax import process as process_lib
from apr_jax.runs import files
from tests import toy

ROOT = pathlib.Path(__file__).resolve().parents[1]


def programs():
    """Names of all modules that can be started, and launch.py."""
    found = ["launch.py"]
    for path in sorted(
        [*ROOT.glob("apr_jax/**/*.py"), *ROOT.glob("experiments/**/*.py")]
    ):
        if '\nif __name__ == "__main__":' in path.read_text():
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found.append(name.removesuffix(".__main__"))
    return found


def ends_in_a_line(process, timeout=60):
    printed, errors = process.communicate(timeout=timeout)
    assert process.returncode == 130, errors
    words = [line for line in errors.splitlines() if "import time:" not in line]
    assert words[-1] == "stopped by Ctrl-C"
    assert "Traceback" not in printed + errors
    assert "KeyboardInterrupt" not in printed + errors


def start(*arguments):
    return toy.start(*arguments, stderr=subprocess.PIPE)


def test_programs_are_found():
    some = {"launch.py", "apr_jax.evaluate.clean", "experiments.paper.recombine"}
    assert some < set(programs())
    assert len(programs()) > 25


@pytest.mark.parametrize("name", programs())
def test_ctrl_c_while_a_program_is_imported(name):
    command = ["-m", name]
    if name == "launch.py":
        command = [name, "--config", "configs/quickstart.py"]
    process = start("-X", "importtime", *command)
    for line in process.stderr:
        if line.split("|")[-1].strip() == "apr_jax.process":
            break
    process.send_signal(signal.SIGINT)
    ends_in_a_line(process)


PROGRAM = """
import hashlib, threading, time
from apr_jax import process
def sleep():
    print("at work", flush=True)
    time.sleep(100)
def clean_up_for_long():
    try:
        sleep()
    except KeyboardInterrupt:
        sleep()
def deaf():  # in C, where Python's handlers don't run
    threading.Timer(0.5, print, ["at work"], {"flush": True}).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**30)
process.finish(WORK)
"""


@pytest.mark.parametrize(
    ("work", "times"), [("sleep", 1), ("clean_up_for_long", 2), ("deaf", 2)]
)
def test_a_second_ctrl_c_leaves_at_once(work, times):
    process = start("-c", PROGRAM.replace("WORK", work))
    for _ in range(times):
        assert process.stdout.readline() == "at work\n"
        process.send_signal(signal.SIGINT)
        if work == "deaf":  # signals that come together are one
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
            process.send_signal(signal.SIGINT)
            break
    ends_in_a_line(process, timeout=10)


# --- What it sets before JAX starts ---------------------------------------------------


@pytest.fixture
def able(monkeypatch, tmp_path):
    """A processor with AMX and a JAX that gains from it."""
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags : fpu amx_bf16 amx_tile\n")
    monkeypatch.setattr(process_lib, "_CPUINFO", cpuinfo)
    monkeypatch.setattr(process_lib.importlib.metadata, "version", lambda _: "0.12.1")
    monkeypatch.setattr(process_lib, "knows_flags", lambda _: True)
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.delenv("APR_JAX_ONEDNN", raising=False)
    return cpuinfo


def test_onednn_where_it_helps(able):
    flags = "--xla_cpu_use_onednn=true --xla_cpu_experimental_onednn_custom_call=true"
    assert process_lib.onednn_flags() == flags


def test_no_onednn_elsewhere(able, monkeypatch):
    def there():
        return bool(process_lib.onednn_flags())

    with monkeypatch.context() as patch:
        patch.setenv("APR_JAX_ONEDNN", "0")
        assert not there()
    with monkeypatch.context() as patch:
        patch.setenv("XLA_FLAGS", "--xla_cpu_use_onednn=false")
        assert not there()
    with monkeypatch.context() as patch:
        patch.setattr(process_lib.importlib.metadata, "version", lambda _: "0.10.2")
        assert not there()
    with monkeypatch.context() as patch:
        patch.setattr(process_lib, "knows_flags", lambda _: False)
        assert not there()
    assert there()
    able.write_text("flags : fpu avx512_bf16\n")
    assert not there()
    able.unlink()
    assert not there()


def test_flags_are_looked_up_in_the_library():
    assert process_lib.knows_flags(("xla_cpu_use_onednn",))
    assert not process_lib.knows_flags(("xla_cpu_use_onednn", "xla_cpu_no_such_flag"))


def test_a_flag_of_former_versions_is_not_known(monkeypatch, tmp_path):
    (tmp_path / "xla.so").write_bytes(b"a\0xla_new\0b\1xla_old\2xla_older\0")
    spec = argparse.Namespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(process_lib.importlib.util, "find_spec", lambda _: spec)
    known = [process_lib.knows_flags((f"xla_{n}",)) for n in ("new", "old", "older")]
    assert known == [True, False, False]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_output_says_anything(monkeypatch, encoding):
    """Also half of a character, as in names of files that are no UTF-8."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
    process_lib.say_anything()
    print("±2 ↑ \udcff end", flush=True)
    assert written.getvalue().endswith(b"? end\n")


@pytest.mark.parametrize("error", [OSError(28, "No space left"), OSError("odd")])
def test_a_system_error_is_a_line(capsys, error):
    def work():
        with files.naming("/a/results.jsonl"):
            raise error

    with pytest.raises(SystemExit) as end:
        process_lib.finish(work)
    assert end.value.code == 2
    wanted = "/a/results.jsonl: No space left" if error.errno else "odd"
    assert capsys.readouterr().err == f"error: {wanted}\n"


STARTED = """
import os, sys
sys.orig_argv = ["python", "-m", MODULE]
import apr_jax
import resource
for i in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"1" * (80_000_000 + i)
pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
apr_jax.process.use_onednn()
flags = os.environ.get("XLA_FLAGS", "")
print("onednn" in flags, pages > 1000, sys.stdout.errors == "replace")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc's malloc")
def test_a_program_keeps_memory_and_multiplies_by_onednn(monkeypatch):
    """Not where another program imports the package."""
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.delenv("APR_JAX_ONEDNN", raising=False)

    def said(module):
        output, _ = start("-c", STARTED.replace("MODULE", repr(module))).communicate()
        return output.split()

    able = str(bool(process_lib.onednn_flags()))
    assert said("another.program") == ["False", "True", "False"]
    assert said("apr_jax.evaluate.clean") == [able, "False", "True"]
    monkeypatch.setenv("APR_JAX_ONEDNN", "0")
    monkeypatch.setenv("APR_JAX_KEEP_MEMORY", "0")
    assert said("apr_jax.evaluate.clean") == ["False", "True", "True"]


@pytest.mark.parametrize("program", [["launch.py"], ["-m", "apr_jax.evaluate.clean"]])
def test_a_reader_that_leaves_ends_a_program_quietly(program):
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(
        [sys.executable, *program, "--help"],
        stdout=theirs,
        stderr=subprocess.PIPE,
        text=True,
        cwd=toy.ROOT,
        check=False,
    )
    os.close(theirs)
    assert done.stderr == ""


INTERRUPTED = """
import os, runpy, signal, sys, time
from apr_jax import models, process
from tests import toy
models.MODELS["tiny"] = toy.TinyNet
def interrupted(_):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(100)
process.use_compile_cache = interrupted
module, sys.argv = sys.argv[1], sys.argv[1:]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
MEASURING = {
    **{
        f"apr_jax.evaluate.{name}": ["RUN"]
        for name in ("clean", "corruption", "ood", "adversarial", "fourier", "card")
    },
    "apr_jax.corruptions": ["--data", "arrays:FOLDER", "--out", "OUT"],
    "experiments.paper.figure4_bands": ["--out", "OUT"],
    "launch.py": ["--config", "configs/quickstart.py", "--workdir", "OUT"],
}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    toy.write_arrays(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(job.plan_lib.models.MODELS, "tiny", toy.TinyNet)
        job.run(toy.config(folder, optim__epochs=1.0), folder / "run", quiet=True)
    return {"RUN": folder / "run", "FOLDER": folder, "OUT": folder / "out"}


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURING)
def test_ctrl_c_in_every_measurement(places, name):
    given = MEASURING[name]
    for word, place in places.items():
        given = [text.replace(word, str(place)) for text in given]
    program = INTERRUPTED
    if name == "launch.py":
        program = program.replace("run_module", "run_path")
        program = program.replace(", alter_sys=True", "")
    ends_in_a_line(start("-c", program, name, *given))
