"""The files for clusters: what they ask for exists, and their schemas are kept."""

import importlib.util
import pathlib
import re
import shlex
import subprocess

import pytest

from experiments.tables.__main__ import share

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "docs" / "clusters"
SCRIPTS = sorted(FOLDER.glob("*.sbatch"))


def jobset():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    return yaml.safe_load((FOLDER / "jobset.yaml").read_text())


def replicated():
    (job,) = jobset()["spec"]["replicatedJobs"]
    return job


def test_the_scripts_are_those_that_the_docs_name():
    text = (FOLDER.parent / "training.md").read_text()
    named = set(re.findall(r"clusters/([\w.]+)", text))
    assert named == {path.name for path in FOLDER.iterdir()}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_bash_and_is_signalled(path):
    subprocess.run(["bash", "-n", path], check=True)
    asked = re.findall(r"^#SBATCH (--\S+)", path.read_text(), re.M)
    assert {"--signal=TERM@180", "--requeue"} <= set(asked)
    assert 'if [ "$status" -eq 143 ]' in path.read_text()


@pytest.mark.parametrize(
    ("status", "requeued"), [(0, False), (2, False), (143, True)], ids=str
)
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_what_was_stopped_is_requeued(tmp_path, path, status, requeued):
    """With stand-ins for Slurm's commands, which note how they are called."""
    for name, end in (("srun", status), ("scontrol", 0)):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho {name} "$@" >> calls\nexit {end}\n')
        program.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": "7",
        "SLURM_ARRAY_TASK_ID": "3",
        "SLURM_ARRAY_TASK_MAX": "16",
    }
    done = subprocess.run(["bash", path, "--workdir", "a b"], env=environment)
    assert done.returncode == status
    first, *rest = (tmp_path / "calls").read_text().splitlines()
    assert rest == (["scontrol requeue 7"] if requeued else [])
    assert "--workdir a b" in first
    if path.name == "tables.sbatch":
        assert share(shlex.split(first)[-1]) == slice(2, None, 16)


def test_the_pods_of_the_jobset_find_each_other():
    job = replicated()
    spec = job["template"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    flags = dict(word[2:].split("=", 1) for word in container["args"])
    host, _, port = flags["coordinator"].partition(":")
    name = jobset()["metadata"]["name"]
    assert host == f"{name}-{job['name']}-0-0.{name}"
    assert int(port) in [entry["containerPort"] for entry in container["ports"]]
    assert int(flags["processes"]) == spec["completions"] == spec["parallelism"]
    assert flags["process"] == "$(JOB_COMPLETION_INDEX)"
    assert spec["completionMode"] == "Indexed"


def test_the_jobset_is_by_the_schemas_of_kubernetes():
    """A JobSet's own schema isn't among them; that of its jobs and pods is."""
    validate = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate is not installed"
    )
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "train"},
        "spec": replicated()["template"]["spec"],
    }
    validate.validate(job, "1.31", strict=True)
    job["spec"]["paralelism"] = 4
    with pytest.raises(validate.ValidationError):
        validate.validate(job, "1.31", strict=True)


def test_the_configuration_exists():
    (container,) = replicated()["template"]["spec"]["template"]["spec"]["containers"]
    (name,) = (w[9:] for w in container["args"] if w.startswith("--config="))
    assert (FOLDER.parents[1] / "configs" / f"{name}.py").exists()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_programs_that_are_named_can_be_started(path):
    """``python -m MODULE``: a module, or a package that has a ``__main__``."""
    named = re.findall(r"-m[\s\",]+([\w.]+)", path.read_text())
    assert named
    for module in named:
        found = importlib.util.find_spec(module)
        assert found is not None, module
        if found.submodule_search_locations is not None:
            assert importlib.util.find_spec(f"{module}.__main__"), module
