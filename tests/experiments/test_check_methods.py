"""The check of all training methods, at toy size."""

import pytest

from apr_jax import models
from apr_jax.augment import AUGMENTS, get_method
from experiments.checks import methods
from tests import toy
from tests.experiments import toy_lab


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setitem(models.MODELS, "tiny", toy.TinyNet)
    toy.write_arrays(tmp_path, 32)  # the least that MaxBlurPool takes
    toy.small_experiments(monkeypatch, eval_batch=20)
    monkeypatch.setattr(methods, "HELD_OUT", 16)

    def run(*names):
        knobs = {"network": "tiny", "epochs": 1.0, "extra": 20}
        arguments = ("--runs", *names) if names else ()
        out, work = tmp_path / "out", tmp_path / "work"
        given = {"work": work, "size": 32, **knobs}
        return toy_lab.run(methods, tmp_path, out, *arguments, **given)

    return run


@pytest.mark.slow
def test_runs_are_recorded_once(run, tmp_path):
    first = run("extra images and apr_sp")
    assert [r.split for r in first] == ["extra images and apr_sp, test"]
    assert 0 <= first[0].value <= 1
    assert len(list((tmp_path / "work").rglob("extra/*/*.png"))) == 20
    assert run("extra images and apr_sp") == first
    assert (tmp_path / "out" / "accuracy.png").stat().st_size > 3_000


def test_unknown_run_is_named(run, capsys):
    with pytest.raises(SystemExit):
        run("cutoff")
    assert "'cutoff'" in capsys.readouterr().err


@pytest.mark.slow
def test_every_method_trains(run, monkeypatch):
    checks = methods.checks

    def shallow(lab):
        """The checks, features blended where the small network lets them."""
        return {
            name: (method, {**changes, "augment__mix_depth": 1})
            if get_method(method).features
            else (method, changes)
            for name, (method, changes) in checks(lab).items()
        }

    monkeypatch.setattr(methods, "checks", shallow)
    names = {r.split.removesuffix(", test") for r in run()}
    assert names >= set(AUGMENTS) | {"FGSM", "PGD", "MaxBlurPool"}
