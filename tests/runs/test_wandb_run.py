"""Scalars at Weights & Biases: against a stand-in, and against wandb, offline."""

import json
import os
import subprocess
import sys
import textwrap
import types

import pytest

from apr_jax.errors import ConfigError
from apr_jax.runs import curves, wandb_run
from apr_jax.runs import workdir as workdir_lib
from apr_jax.train import loop, seeds
from apr_jax.train import plan as plan_lib
from tests import toy
from tests.train.test_loop import PLAIN

pytestmark = pytest.mark.usefixtures("_tiny_model")


class Stand(types.ModuleType):
    """What the project uses of wandb: runs that keep what is logged."""

    class Error(Exception):
        pass

    def __init__(self):
        super().__init__("wandb")
        self.__spec__ = object()
        self.begun, self.rows, self.finished = [], {}, []
        self.refuses, self.full = "", False

    def Settings(self, **settings):
        return settings

    def init(self, **said):
        if self.refuses:
            raise self.Error(self.refuses)
        self.begun.append(said)
        rows = self.rows.setdefault(said["id"], [])

        def log(row):
            if self.full:
                raise self.Error("no room")
            rows.append(row)

        return types.SimpleNamespace(
            define_metric=lambda *_, **__: None,
            log=log,
            finish=lambda: self.finished.append(said["id"]),
            offline=False,
            url="https://there/run",
        )


@pytest.fixture
def wandb(monkeypatch):
    stand = Stand()
    monkeypatch.setitem(sys.modules, "wandb", stand)
    return stand


def planned(folder, workdir, **changes):
    changes = {"train__wandb": "project", **PLAIN, **changes}
    return plan_lib.plan(toy.config(folder, **changes), workdir)


def test_a_stopped_training_goes_on_in_the_same_run(folder, tmp_path, wandb, capfd):
    plan = planned(folder, tmp_path, train__watch=("accuracy",))
    for until in (8, None):
        loop.train(plan, until=until, quiet=True)
    first, second = wandb.begun
    assert first["id"] == second["id"] == json.loads(plan.run.wandb.read_text())["id"]
    assert (first["project"], first["resume"]) == ("project", "allow")
    assert (first["dir"], first["name"]) == (tmp_path, "toy")
    assert first["config"]["optim"]["epochs"] == 4.0
    assert wandb.finished == [first["id"]] * 2
    rows = wandb.rows[first["id"]]
    # Each point of the curve, and each epoch's end; what the curve has is here.
    steps = [row["step"] for row in rows]
    assert steps == [5, 6, 10, 12, 15, 18, 20, 24, 24]
    kept = {row.step: row.loss for row in curves.read_curve(tmp_path)}
    assert {row["step"]: row["loss"] for row in rows if "loss" in row} == kept
    assert [r["step"] for r in rows if "test_accuracy" in r] == [6, 12, 18, 24]
    assert "W&B         https://there/run" in capfd.readouterr().err


def test_without_wandb_nothing_starts(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(wandb_run.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        ConfigError, match=r"train.wandb is 'project', and wandb is not"
    ):
        planned(folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    planned(folder, tmp_path / "run", train__wandb="")


def test_what_wandb_refuses_is_a_line(folder, tmp_path, wandb):
    wandb.refuses = "No API key\n  configured."
    plan = planned(folder, tmp_path)
    with pytest.raises(ConfigError, match="and wandb says: No API key configured"):
        loop.train(plan, quiet=True)
    plan.run.wandb.write_text("{}")
    with pytest.raises(ValueError, match=r"can't read .*wandb.json"):
        loop.train(plan, quiet=True)


def test_training_goes_on_where_wandb_fails(folder, tmp_path, wandb, caplog):
    wandb.full = True
    assert loop.train(planned(folder, tmp_path), quiet=True).step == 24
    (said,) = caplog.messages
    assert said == "nothing more goes to Weights & Biases: no room"


def test_seeds_that_train_together_have_runs_of_their_own(folder, tmp_path, wandb):
    plans = [
        planned(folder, tmp_path / str(seed), seed=seed, optim__epochs=1.0)
        for seed in (0, 1)
    ]
    seeds.check(plans)
    loop.train_together(plans, quiet=True)
    assert len({said["id"] for said in wandb.begun}) == 2
    assert len({said["dir"] for said in wandb.begun}) == 2


def test_offline_by_wandb_itself(tmp_path):
    """In a process of its own, which wandb's threads and hooks stay in."""
    pytest.importorskip("wandb", reason="wandb is not installed")
    code = """
        import pathlib, sys
        from apr_jax import config
        from apr_jax.runs import curves, wandb_run, workdir
        assert "wandb" not in sys.modules
        run = workdir.RunDir(pathlib.Path(sys.argv[1]))
        settings = config.parse({"train": {"wandb": "project"}})
        for _ in range(2):
            opened = wandb_run.opened(run, settings)
            with curves.curve_writer(
                run.root, resume_step=0, tensorboard=False, followers=opened
            ) as writer:
                writer.note({"test_accuracy": 0.5}, step=3, seconds=1e9)
            print(opened[0].where)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)],
        env=dict(os.environ, WANDB_MODE="offline"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    own = json.loads(workdir_lib.RunDir(tmp_path).wandb.read_text())["id"]
    kept = sorted(tmp_path.glob(f"wandb/offline-run-*-{own}/run-{own}.wandb"))
    assert kept
    assert all(b"test_accuracy" in path.read_bytes() for path in kept)
    assert run.stderr == ""
    folders = {str(path.parent / "files") for path in kept}
    assert set(run.stdout.split()) == folders
