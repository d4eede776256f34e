"""Runs as users start them: killed, stopped, continued, and in several processes."""

import json
import os
import pathlib
import random
import signal
import socket
import time

import jax
import numpy as np
import pytest

from apr_jax import data, job, models
from apr_jax.evaluate import classifier
from apr_jax.runs import claims, curves
from apr_jax.runs import records as records_lib
from apr_jax.runs import workdir as workdir_lib
from tests import toy
from tests.train.test_loop import PLAIN

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = """
import pathlib, sys
from apr_jax import job, models
from tests import toy
models.MODELS["tiny"] = toy.TinyNet
folder, workdir, changes, keywords = sys.argv[1], sys.argv[2], *map(eval, sys.argv[3:])
settings = toy.settings(pathlib.Path(folder), **changes)
job.main(settings, workdir=workdir, quiet=True, **keywords)
"""


def start(folder, workdir, changes, *, program=PROGRAM, **keywords):
    return toy.start("-c", program, folder, workdir, changes, keywords)


def finish(process, status=0, timeout=240):
    output, _ = process.communicate(timeout=timeout)
    assert process.returncode == status, output
    return output


def final_digest(workdir, changes):
    """Digest of the last checkpoint, and the steps of the curve."""
    steps = [row.step for row in curves.read_curve(workdir)]
    saved = sorted(
        int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()
    )
    about = workdir / "checkpoints" / str(saved[-1]) / "about" / "metadata"
    return json.loads(about.read_text())["digest"], steps


def wait_for(condition, process, timeout=120):
    deadline = time.monotonic() + timeout
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.002)


def kill_at_random(folder, workdir, changes, *, times, seed):
    """Kills a run ``times`` times; returns how many kills hit a save under way."""
    moments, during_saves = random.Random(seed), 0
    checkpoints = workdir / "checkpoints"
    for number in range(times):
        process = start(folder, workdir, changes)
        before = sorted(p.name for p in checkpoints.glob("*"))
        if number == 0:  # in the middle of a save
            wait_for(lambda: any(checkpoints.glob("*tmp*")), process)
        else:
            wait_for(
                lambda before=before: (
                    sorted(p.name for p in checkpoints.glob("*")) != before
                ),
                process,
            )
            time.sleep(moments.uniform(0, 0.4))
        process.send_signal(signal.SIGKILL)
        finish(process, status=-signal.SIGKILL)
        during_saves += any(checkpoints.glob("*tmp*"))
    return during_saves


def kills_leave_no_trace(folder, tmp_path, times):
    # Long enough that every start is killed before the end.
    changes = {"optim__epochs": 120.0, "checkpoint__every_steps": 24}
    during_saves = kill_at_random(
        folder, tmp_path / "killed", changes, times=times, seed=times
    )
    finish(start(folder, tmp_path / "killed", changes))
    finish(start(folder, tmp_path / "whole", changes))
    killed = final_digest(tmp_path / "killed", changes)
    assert killed == final_digest(tmp_path / "whole", changes)
    assert during_saves >= 1, "no kill came while a checkpoint was written"


@pytest.mark.slow
def test_killed_twice_is_bit_identical(folder, tmp_path):
    kills_leave_no_trace(folder, tmp_path, 2)


@pytest.mark.slow
def test_killed_ten_times_is_bit_identical(folder, tmp_path):
    kills_leave_no_trace(folder, tmp_path, 10)


def saved_steps(workdir):
    folder = workdir / "checkpoints"
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_to_a_program_saves_says_so_and_goes_on(folder, tmp_path, number):
    changes = {"optim__epochs": 2000.0, "checkpoint__every_steps": 100000}
    process = start(folder, tmp_path / "run", changes)
    curve = tmp_path / "run" / "metrics.jsonl"
    wait_for(lambda: curve.exists() and curve.stat().st_size > 0, process)
    process.send_signal(number)
    says_that_it_saved(finish(process, status=128 + number), tmp_path / "run", number)


def says_that_it_saved(output, workdir, number):
    assert f"{number.name}: saved step" in output
    assert "the same command goes on from there" in output
    assert len(saved_steps(workdir)) == 1


@pytest.mark.usefixtures("_tiny_model")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_saves_says_so_and_goes_on(
    folder, tmp_path, monkeypatch, capfd, number
):
    inner = data.global_indices

    def signalled(seed, step, *rest):
        if step == 9:
            os.kill(os.getpid(), number)
        return inner(seed, step, *rest)

    monkeypatch.setattr(data, "global_indices", signalled)
    settings = toy.settings(folder, **PLAIN, checkpoint__every_steps=100000)
    with pytest.raises(SystemExit) as ended:
        job.main(settings, workdir=str(tmp_path / "run"), quiet=True)
    assert ended.value.code == 128 + number
    says_that_it_saved("".join(capfd.readouterr()), tmp_path / "run", number)
    assert saved_steps(tmp_path / "run") == [10]


def test_a_mistake_is_one_line_and_status_two(folder, tmp_path, capfd):
    settings = toy.settings(folder, model__name="resnet19")
    with pytest.raises(SystemExit) as ended:
        job.main(settings, workdir=str(tmp_path / "run"), quiet=True)
    assert ended.value.code == 2
    output = "".join(capfd.readouterr())
    assert "error: model.name: unknown model 'resnet19'" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("flag", [{"process_count": 2}, {"process_id": 0}])
def test_processes_without_a_place_to_meet_are_refused(folder, tmp_path, capsys, flag):
    """Each would train by itself."""
    with pytest.raises(SystemExit) as ended:
        job.main(toy.settings(folder), workdir=str(tmp_path / "run"), **flag)
    assert ended.value.code == 2
    assert "--coordinator HOST:PORT is where" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def start_two(folder, workdirs, changes, program=PROGRAM):
    """Two processes of one run, each with the work directory of its place."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    return [
        start(
            folder,
            workdir,
            changes,
            program=program,
            distributed=True,
            coordinator=f"localhost:{port}",
            process_count=2,
            process_id=number,
        )
        for number, workdir in enumerate(workdirs)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("steps_per_call", [1, 25])
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda s: s.name
)
@pytest.mark.parametrize("signalled", [0, 1])
def test_either_process_stops_both(folder, tmp_path, steps_per_call, number, signalled):
    changes = {
        "train__devices": 2,
        "train__steps_per_call": steps_per_call,
        "optim__epochs": 20000.0,
        "optim__milestones": (),
        "checkpoint__every_steps": 100000,
    }
    workdir = tmp_path / "run"
    processes = start_two(folder, [workdir] * 2, changes)
    curve = workdir / "metrics.jsonl"
    wait_for(lambda: curve.exists() and curve.stat().st_size > 0, processes[0])
    processes[signalled].send_signal(number)
    outputs = [finish(p, status=128 + number, timeout=60) for p in processes]
    (step,) = saved_steps(workdir)
    assert step % steps_per_call == 0
    assert f"{number.name}: saved step {step:,} of" in outputs[0]
    assert not any("Traceback" in output for output in outputs)


# One process of two comes to a place where it does something else; the other goes on
# to where it waits for the first.
ASIDE = """
import hashlib, jax, time
from apr_jax.errors import DataError
def deaf():  # in C, as where a program is compiled: Python's handlers don't run
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
def fail():
    raise DataError("nothing is there")
def aside(inner):
    def work(*args, **keywords):
        if jax.process_index() == PROCESS:
            pathlib.Path(sys.argv[2] + ".here").touch()
            DOES()
        return inner(*args, **keywords)
    return work
PLACE = aside(PLACE)
job.main("""
PLACES = {
    "reading": "job.plan_lib.plan",
    "before the first step": "job.loop.seeds.Lanes",
    "measuring": "job.card.measure",
}


def start_aside(folder, workdir, place, does, process):
    program = PROGRAM.replace("job.main(", ASIDE)
    for word, by in (("PLACE", PLACES[place]), ("DOES", does), ("PROCESS", process)):
        program = program.replace(word, str(by))
    changes = {"train__devices": 2, "optim__epochs": 1.0, "optim__milestones": ()}
    both = start_two(folder, [workdir] * 2, changes, program)
    here = workdir.with_name(workdir.name + ".here")
    wait_for(here.exists, both[process])
    return both


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("number", "signalled", "does"),
    [
        (signal.SIGTERM, 0, "deaf"),
        (signal.SIGTERM, 1, "(lambda: time.sleep(1000))"),
        (signal.SIGINT, 1, "deaf"),
        (signal.SIGHUP, 0, "(lambda: time.sleep(1000))"),
    ],
)
def test_a_stop_beside_the_training_ends_both(
    folder, tmp_path, place, number, signalled, does
):
    both = start_aside(folder, tmp_path / "run", place, does, signalled)
    time.sleep(1)  # so that the other one waits
    both[signalled].send_signal(number)
    outputs = [finish(p, status=128 + number, timeout=15) for p in both]
    said = "Ctrl-C" if number == signal.SIGINT else number.name
    assert outputs[signalled].splitlines()[-1] == f"stopped by {said}"
    assert outputs[1 - signalled].splitlines()[-1] == (
        f"process {signalled} was stopped ({128 + number}); this one ends with it"
    )
    assert not any("Traceback" in output for output in outputs)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["before the first step", "measuring"])
@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize(("does", "status"), [("fail", 2), ("(lambda: 1 / 0)", 1)])
def test_what_one_process_fails_at_ends_both(
    folder, tmp_path, place, failing, does, status
):
    both = start_aside(folder, tmp_path / "run", place, does, failing)
    outputs = [finish(p, status=status, timeout=30) for p in both]
    words = "error: nothing is there" if does == "fail" else "ZeroDivisionError"
    assert words in outputs[failing].splitlines()[-1]
    assert outputs[1 - failing].splitlines()[-1] == (
        f"process {failing} can't go on: see what it says; this one ends with it"
    )


@pytest.mark.slow
@pytest.mark.parametrize("trained", [False, True])
def test_work_directories_that_differ_are_an_error_on_both(folder, tmp_path, trained):
    changes = {"train__devices": 2, "optim__epochs": 1.0, "optim__milestones": ()}
    here, there = tmp_path / "here", tmp_path / "there"
    if trained:
        finish(start(folder, here, {**changes, "train__devices": 0}))
    for process in start_two(folder, [here, there], changes):
        output = finish(process, status=2, timeout=90)
        assert "must be one folder that all processes see" in output
        assert "process 1 doesn't see" in output
        assert "Traceback" not in output
    assert not list(here.glob(".seen*"))


@pytest.mark.slow
def test_what_fails_on_one_process_is_an_error_on_both(folder, tmp_path):
    workdir = tmp_path / "run"
    with claims.claimed(workdir, write=True):
        processes = start_two(folder, [workdir] * 2, {"train__devices": 2})
        outputs = [finish(p, status=2, timeout=90) for p in processes]
    assert "another process is at work in" in outputs[0]
    assert "process 0 can't go on" in outputs[1]


def test_two_processes_are_one_run(folder, tmp_path):
    changes = {
        "train__devices": 2,
        "augment__pair_prob": 1.0,
        "optim__epochs": 2.0,
    }
    for process in start_two(folder, [tmp_path / "two"] * 2, changes):
        finish(process)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "tiny", toy.TinyNet)
        alone = toy.config(folder, **(changes | {"train__devices": 1}))
        job.run(alone, tmp_path / "one", quiet=True)
        two, one = (classifier.from_run(tmp_path / n) for n in ("two", "one"))
    assert two.step == one.step == 12
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=5e-3, atol=5e-4),
        two.variables,
        one.variables,
    )
    records = [
        {
            (r.split, r.metric): r.n
            for r in records_lib.read(tmp_path / n / "results.jsonl")
        }
        for n in ("two", "one")
    ]
    assert records[0] == records[1]
    assert set(records[0].values()) == {25, 50}  # half of them after a temperature
    assert workdir_lib.RunDir(tmp_path / "two").report.exists()


# Stops after six steps, as at the end of an allocation.
STOPPED = PROGRAM.replace(
    "job.main",
    "from apr_jax.train import loop\n"
    "whole = loop.train\n"
    "loop.train = lambda plan, **more: whole(plan, until=6, **more)\n"
    "job.main",
)


@pytest.mark.slow
def test_two_processes_have_the_same_bits_by_either_mapping(folder, tmp_path):
    changes = {
        "augment__method": "apr_sp",
        "train__devices": 2,
        "train__steps_per_call": 2,
        "optim__epochs": 2.0,
        "eval__parts": ("clean",),
    }

    def digest(name, *turns):
        for mapping, program in turns:
            own = changes | {"train__mapping": mapping}
            started = start_two(folder, [tmp_path / name] * 2, own, program)
            for process in started:
                finish(process)
        return final_digest(tmp_path / name, changes)[0]

    by_pmap = digest("pmap", ("pmap", PROGRAM))
    assert digest("mesh", ("shard_map", PROGRAM)) == by_pmap
    turns = ("shard_map", STOPPED), ("pmap", PROGRAM)
    assert digest("both", *turns) == by_pmap
