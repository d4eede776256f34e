"""Ctrl-C, in every program: one line, no traceback, status 130."""

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


@pytest.mark.parametrize(
    "program",
    [
        ["launch.py"],
        pytest.param(["-m", "apr_jax.evaluate.clean"], marks=pytest.mark.slow),
    ],
)
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
def interrupted(*_):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(100)
process.use_compile_cache = interrupted
module, sys.argv = sys.argv[1], sys.argv[1:]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
MEASURING = {
    **{
        f"apr_jax.evaluate.{name}": ["RUN"]
        for name in (
            "clean",
            "corruption",
            "shift",
            "ood",
            "adversarial",
            "fourier",
            "card",
        )
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
