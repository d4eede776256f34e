"""Records that stand together on a page are of one network, measured in one way."""

import dataclasses
import json
import shlex
import sys
import types

import pytest

from apr_jax import config as config_lib
from apr_jax import process
from apr_jax.report import page as page_lib
from apr_jax.report import run_view, sections
from apr_jax.runs import records as records_lib
from apr_jax.runs import workdir
from apr_jax.runs.records import Record
from tests import toy

JOBS = [s.JOB for s in sections.SECTIONS.values() if hasattr(s, "JOB")]
SETTINGS = {"examples": 300, "weights": "aa"}


def record(job="evaluate.clean", split="a", step=5, value=0.5, **extra):
    return Record(
        job=job,
        data="toy",
        split=split,
        metric="error",
        value=value,
        unit="fraction",
        n=300,
        step=step,
        config_hash="c",
        code_version="1",
        seed=0,
        device="cpu",
        time="2026-01-01T00:00:00+00:00",
        extra={"classifier": "net", "settings": SETTINGS, **extra},
    )


CHANGES = {
    "weights": {"settings": {**SETTINGS, "weights": "bb"}},
    "examples": {"settings": {**SETTINGS, "examples": 200}},
    "step": {"step": 4},
    "classifier": {"classifier": "other"},
}


def test_all_measurements_are_walked_over():
    assert len(JOBS) == 7
    assert set(run_view._OWN) == set(JOBS)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("job", [*JOBS, "evaluate.clean", "evaluate.new"])
def test_nothing_of_other_weights_or_settings_is_joined(job, change):
    """Neither beside the newest, nor under a name that only the older have."""
    old = [record(job, split, **CHANGES[change]) for split in "abc"]
    new = [record(job, split) for split in "ab"]
    assert run_view.current([*old, *new]) == new
    assert run_view.current([*new, *old]) == old
    view = run_view.RunView(name="run", records=[*old, *new, record("other.job")])
    assert view.of(job) == new


@pytest.mark.parametrize("job", JOBS)
def test_what_belongs_to_one_set_may_differ(job):
    own = sorted(run_view._OWN[job])
    some = [
        record(job, split, settings={**SETTINGS, name: split})
        for split, name in enumerate(own)
    ]
    assert run_view.current(some) == some


def test_a_measurement_of_one_thing_again_replaces_it():
    old, new = [record(split=s) for s in "ab"], record(split="a", value=0.25)
    assert run_view.current([*old, new]) == [new, old[1]]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"settings": {**SETTINGS, "weights": "bb"}, "step": 9}, True),
        ({"settings": {**SETTINGS, "examples": 200}}, False),
        ({"settings": {**SETTINGS, "steps": 5}}, False),
        ({"settings": {**SETTINGS, "corruption_dir": "elsewhere"}}, True),
    ],
)
def test_runs_have_a_difference_where_they_were_measured_alike(change, same):
    assert run_view.alike(record(), record(**change)) is same
    fewer = dataclasses.replace(record(**change), n=200)
    assert not run_view.alike(record(), fewer)


@pytest.mark.parametrize("job", JOBS)
def test_what_belongs_to_one_set_is_the_same_between_runs(job):
    """What one run may have several of, two must have alike to have a difference."""
    of_scores = {"scores_file", "stat", "source"}
    for name in sorted(run_view._OWN[job]):
        pair = [
            record(job, settings={**SETTINGS, "fingerprint": "f", name: [[1, v, 3, 4]]})
            for v in "ab"
        ]
        assert run_view.alike(*pair) is (name in of_scores or name == "sets")
    named = [
        record(job, settings={**SETTINGS, "sets": [["mnist", "/a", mark, ""]]})
        for mark in "ab"
    ]
    assert not run_view.alike(*named)


def test_numbers_that_are_not_shown_are_said(tmp_path):
    job = "evaluate.corruption"
    fog, snow = (record(job, f"{name}/1") for name in ("fog", "snow"))
    fewer = record(job, "fog/1", **CHANGES["examples"])
    view = run_view.RunView(name="run", records=[fog, snow, fewer])
    page = page_lib.write_report(tmp_path / "p.html", [view]).read_text()
    assert "1 numbers of evaluate.corruption: of other weights or settings" in page
    assert "snow" not in page


@pytest.mark.parametrize("trained", [True, False])
def test_training_is_told_of_networks_that_were_trained_here(folder, tmp_path, trained):
    """The configuration beside a file of weights says nothing of its training."""
    run = workdir.RunDir(tmp_path)
    config = toy.config(folder, augment__method="mixup", optim__epochs=77.0)
    run.config.write_text(json.dumps(config_lib.to_dict(config)))
    if trained:
        run.checkpoints.mkdir()
    made = record(weights_file="elsewhere.pth") if not trained else record()
    records_lib.append(run.results, [made])
    page = page_lib.write_report(tmp_path / "p.html", [run_view.view(tmp_path)])
    text = page.read_text()
    assert ("mixup" in text) is trained
    assert ("77.0" in text) is trained
    assert ("elsewhere.pth" in text) is not trained
    assert config.model.name in text


# --- Commands ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "program", "start"),
    [
        ("apr_jax.evaluate.clean", "/x/apr_jax/evaluate/clean.py", "python -m {spec}"),
        ("experiments.tables.__main__", "/x/t.py", "python -m experiments.tables"),
        (None, "launch.py", "python launch.py"),
        (None, "HERE/launch.py", "python launch.py"),
        (None, "/usr/bin/apr-jax", "/usr/bin/apr-jax"),
    ],
)
def test_a_command_can_be_pasted(tmp_path, monkeypatch, spec, program, start):
    monkeypatch.chdir(tmp_path)
    found = spec and types.SimpleNamespace(name=spec)
    monkeypatch.setitem(sys.modules, "__main__", types.SimpleNamespace(__spec__=found))
    program = program.replace("HERE", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [program, "a run", "--out=x=folder:y z"])
    said = process.command_line()
    assert said.startswith(start.format(spec=spec))
    assert shlex.split(said)[-2:] == ["a run", "--out=x=folder:y z"]


def test_commands_are_noted_once_in_the_order_of_their_last_use(tmp_path):
    run = workdir.RunDir(tmp_path)
    assert workdir.read_commands(run) == []
    for command in ("train", "measure", "", "measure more", "measure"):
        workdir.note_command(run, command)
    assert workdir.read_commands(run) == ["train", "measure more", "measure"]
