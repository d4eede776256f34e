"""A pod as far as one machine goes: 64 virtual devices over eight processes."""

import socket
import time

import pytest

from tests.train import test_interruptions as interruptions

PROCESSES, DEVICES = 8, 64
# Training alone: what is measured afterwards is tested on two processes.
PROGRAM = interruptions.PROGRAM.replace(
    "job.main(",
    "job.card.measure = lambda *_: []\njob._draw = lambda *_: None\njob.main(",
)
CHANGES = {
    "train__devices": DEVICES,
    "train__batch_size": DEVICES,
    "eval__batch_size": DEVICES,
    "optim__epochs": 40.0,
    "optim__milestones": (),
    "checkpoint__every_steps": 8,
}
STEPS = 60
PATIENCE = 900.0  # seconds: some machines have two cores for eight processes


def start_pod(folder, workdir):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    return [
        interruptions.start(
            folder,
            workdir,
            CHANGES,
            program=PROGRAM,
            coordinator=f"localhost:{port}",
            process_count=PROCESSES,
            process_id=number,
        )
        for number in range(PROCESSES)
    ]


def train(folder, workdir):
    said = [
        interruptions.finish(process, timeout=PATIENCE)
        for process in start_pod(folder, workdir)
    ]
    assert f"devices     {DEVICES} x cpu ({PROCESSES} processes)" in said[0]
    return said[0]


@pytest.mark.slow
@pytest.mark.timeout(4 * PATIENCE)
def test_one_process_is_killed_and_the_run_started_anew(folder, tmp_path):
    """It ends with the bits of a run that nothing happened to."""
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    pod = start_pod(folder, killed)
    interruptions.wait_for(
        lambda: (killed / "checkpoints").is_dir() and interruptions.saved_steps(killed),
        pod[0],
        timeout=PATIENCE,
    )
    pod[5].kill()
    time.sleep(1)
    for process in pod:  # as a cluster does with what is left of a job
        process.kill()
    for process in pod:
        process.communicate()
    step = interruptions.saved_steps(killed)[-1]
    assert 0 < step < STEPS
    assert f"going on from the checkpoint of step {step} of {STEPS}" in train(
        folder, killed
    )
    train(folder, whole)
    ends = [interruptions.final_digest(root, CHANGES) for root in (killed, whole)]
    assert ends[0] == ends[1]
    assert ends[0][1][-1] == STEPS
