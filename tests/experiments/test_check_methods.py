"""The check of all training methods, at toy size."""

import json

import pytest

from apr_jax import models
from apr_jax.augment import AUGMENTS
from experiments import lab as lab_lib
from experiments.checks import methods
from tests import toy


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setitem(models.MODELS, "tiny", toy.TinyNet)
    toy.write_arrays(tmp_path)
    toy.small_experiments(monkeypatch, eval_batch=20)

    def run(*names):
        lab_lib.main(
            methods.NAME,
            methods.__doc__,
            methods.SIZES,
            methods.compute,
            methods.plot,
            add_options=methods.add_options,
            arguments=[
                f"--set=arrays:{tmp_path}",
                "--image_size=8",
                f"--out={tmp_path / 'out'}",
                f"--work={tmp_path / 'work'}",
                f"--cache_dir={tmp_path / 'cache'}",
                "--knob=network=tiny",
                "--knob=epochs=1",
                "--knob=extra=20",
                "--quiet",
                *(("--runs", *names) if names else ()),
            ],
        )
        lines = (tmp_path / "out" / "records.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    return run


def test_runs_are_recorded_once(run, tmp_path):
    first = run("extra images and apr_sp")
    assert [r["split"] for r in first] == ["extra images and apr_sp, test"]
    assert 0 <= first[0]["value"] <= 1
    assert len(list((tmp_path / "work").rglob("extra/*/*.png"))) == 20
    assert run("extra images and apr_sp") == first
    assert (tmp_path / "out" / "accuracy.png").stat().st_size > 3_000


def test_unknown_run_is_named(run, capsys):
    with pytest.raises(SystemExit):
        run("cutoff")
    assert "'cutoff'" in capsys.readouterr().err


@pytest.mark.slow
def test_every_method_trains(run):
    names = {r["split"].removesuffix(", test") for r in run()}
    assert names >= set(AUGMENTS) | {"FGSM", "PGD", "MaxBlurPool"}
