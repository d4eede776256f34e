"""Runs of several processes that Open MPI starts, and JAX finds by itself."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from apr_jax import models
from apr_jax.evaluate import card
from apr_jax.runs import records
from tests import toy
from tests.train import test_interruptions as interruptions

CHANGES = {
    "train__devices": 4,
    "optim__epochs": 300.0,
    "optim__milestones": (),
    "checkpoint__every_steps": 100000,
    "eval__parts": ("clean",),
}
STEPS = 1800
# mpirun kills what it has sent SIGTERM to after a second; a state may take longer.
PATIENT = ("--mca", "odls_base_sigkill_timeout", "20")


def mpirun(folder, workdir, count):
    """Starts ``count`` processes of a run, as ``toy.start`` starts one."""
    program = [sys.executable, "-c", interruptions.PROGRAM]
    given = [str(folder), str(workdir), repr(CHANGES), repr({"distributed": True})]
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    process = subprocess.Popen(
        ["mpirun", "--oversubscribe", *PATIENT, "-n", str(count), *program, *given],
        cwd=toy.ROOT,
        env={**os.environ, **root, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(toy.ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    toy.STARTED.append(process)
    return process


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mpirun") is None, reason="there is no mpirun")
@pytest.mark.parametrize("count", [2, 4])
def test_a_run_is_preempted_goes_on_and_is_measured(
    folder, tmp_path, count, monkeypatch
):
    root = tmp_path / "run"
    curve = root / "metrics.jsonl"
    process = mpirun(folder, root, count)
    interruptions.wait_for(
        lambda: curve.exists() and curve.stat().st_size > 0, process, timeout=300
    )
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "SIGTERM: saved step" in said
    (step,) = interruptions.saved_steps(root)
    said = interruptions.finish(mpirun(folder, root, count), timeout=600)
    assert f"4 x cpu ({count} processes)" in said
    assert f"going on from the checkpoint of step {step:,} of {STEPS:,}" in said
    found = records.read(root / "results.jsonl")
    assert {r.step for r in found} == {STEPS}
    assert {r.n for r in found} == {25, 50}
    assert (root / "report.html").exists()
    monkeypatch.setitem(models.MODELS, "tiny", toy.TinyNet)
    card.run([root], {"parts": ("clean",)}, quiet=True)
    assert json.loads((root / "card.json").read_text())
