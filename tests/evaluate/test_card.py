"""The card: parts as the configuration lists them, resumed, and on one page."""

import collections
import dataclasses
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from apr_jax import config as config_lib
from apr_jax import data, job, models
from apr_jax.data import corrupted_files
from apr_jax.errors import ConfigError
from apr_jax.evaluate import card, fourier
from apr_jax.runs import records
from tests import toy
from tests.train.test_loop import PLAIN

pytestmark = pytest.mark.usefixtures("_tiny_model")


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("finished") / "run"
    config = toy.config(
        folder,
        optim__epochs=1.0,
        **PLAIN,
        eval__parts=("clean", "fourier"),
        eval__fourier__examples=8,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "tiny", toy.TinyNet)
        assert job.run(config, root, quiet=True) is None
    return root


def jobs(root):
    return collections.Counter(r.job for r in records.read(root / "results.jsonl"))


def test_a_run_ends_with_the_parts_that_its_configuration_lists(finished):
    assert set(jobs(finished)) == {"evaluate.clean", "evaluate.fourier"}
    page = (finished / "report.html").read_text()
    assert "Phase" in page
    assert "Accuracy" in page


def test_a_card_measures_only_what_is_missing(finished, folder, tmp_path, capsys, rng):
    noise = tmp_path / "noise.npy"
    np.save(noise, rng.integers(0, 256, (12, 8, 8, 3), np.uint8))
    before = jobs(finished)
    card.run(
        [finished],
        {
            "parts": ("fourier", "ood", "corruption"),
            "ood": {"out": (f"noise=arrays:{noise}",), "scores": ("msp",)},
            "corruption": {
                "corruptions": ("gaussian_noise", "frost"),
                "severities": (1,),
                "frost_dir": str(tmp_path),
            },
        },
        target=tmp_path / "card.html",
        quiet=True,
    )
    after = jobs(finished)
    assert after["evaluate.fourier"] == before["evaluate.fourier"]
    assert after["evaluate.ood"] > 0 == before["evaluate.ood"]
    # What can't be measured is named, and takes nothing else with it.
    assert after["evaluate.corruption"] > 0
    measured = {r.split for r in records.read(finished / "results.jsonl")}
    assert "gaussian_noise/1" in measured
    assert "frost/1" not in measured
    assert "frost is left out: " in capsys.readouterr().err
    assert "noise" in (tmp_path / "card.html").read_text()


def test_a_card_takes_corrupted_images_from_files(finished, folder, tmp_path):
    config = toy.config(folder)
    split = data.load(config.data, splits=("test",)).splits["test"]
    recipe = corrupted_files.Recipe("toy", 50, 8, 0, "toy")
    corrupted_files.write_npy(split, tmp_path, ("contrast",), recipe=recipe, quiet=True)
    own = {"corruptions": ("contrast",), "source": "folder", "dir": str(tmp_path)}
    changes = {"parts": ("corruption",), "corruption": own}
    card.run([finished], changes, quiet=True)
    found = [
        r
        for r in records.read(finished / "results.jsonl")
        if r.job == "evaluate.corruption" and r.data == "toy-c"
    ]
    assert {r.extra["settings"]["source"] for r in found} == {"folder"}
    assert "mean of 1" in {r.split for r in found}
    own["dir"] = ""
    with pytest.raises(ConfigError, match="source 'folder' needs it"):
        card.run([finished], changes, quiet=True)


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "full"),
        *(
            pytest.param(error, marks=pytest.mark.slow)
            for error in (RuntimeError("odd"), KeyError(3))
        ),
    ],
)
def test_a_part_that_fails_takes_no_later_one_with_it(
    finished, monkeypatch, capsys, caplog, error
):
    def fail(*_):
        raise error

    before = jobs(finished)
    monkeypatch.setattr(fourier, "measure", fail)
    card.run([finished], {"parts": ("fourier", "clean")}, quiet=True)
    assert jobs(finished)["evaluate.clean"] > before["evaluate.clean"]
    said = capsys.readouterr().err
    assert f"fourier is left out: {type(error).__name__}: " in said
    assert "the part fourier failed" in caplog.text


def test_unknown_parts_are_refused_before_anything_is_measured(finished, folder):
    before = jobs(finished)
    wanted = r"eval.parts has 'corruptions'; choose from 'clean', 'corruption', 'shift'"
    with pytest.raises(ConfigError, match=wanted):
        card.run([finished], {"parts": ("clean", "corruptions")}, quiet=True)
    assert jobs(finished) == before


@pytest.mark.parametrize(
    ("part", "field", "value", "wanted"),
    [
        ("corruption", "corruptions", ("snow", "hail"), "has 'hail'"),
        ("ood", "out", ("svhn",), "write name=source:where"),
        ("adversarial", "linf", (8.0,), "did you mean 8/255"),
        ("adversarial", "attack", "magic", "attack is 'magic'"),
        ("fourier", "examples", -1, "eval.fourier.examples is -1"),
    ],
)
def test_settings_are_refused_before_training(
    folder, tmp_path, part, field, value, wanted
):
    values = toy.settings(folder)
    values.eval.update({"parts": (part,), part: {field: value}})
    with pytest.raises(ConfigError, match=wanted):
        job.run(config_lib.parse(values.to_dict()), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "page", ["/proc/none/page.html", "FOLDER", "/dev/full", "a" * 300]
)
def test_a_page_that_can_not_be_written(finished, tmp_path, page):
    before = jobs(finished)
    page = pathlib.Path(page.replace("FOLDER", str(tmp_path)))
    with pytest.raises(ConfigError, match=r"--page is .*, which can't be written: "):
        card.run([finished], {"parts": ("clean",)}, target=page, quiet=True)
    assert jobs(finished) == before


def test_a_run_that_is_named_twice_is_measured_once(finished):
    before = jobs(finished)["evaluate.clean"]
    roots = [finished, finished.parent / "x" / ".." / "run"]
    card.run(roots, {"parts": ("clean",)}, quiet=True)
    found = records.read(finished / "results.jsonl")
    once = len({r.metric for r in found if r.job == "evaluate.clean"})
    assert jobs(finished)["evaluate.clean"] - before == once > 0


def test_out_sets_that_are_not_there_are_named(finished, capsys):
    card.run([finished], {"parts": ("ood",)}, quiet=True)
    said = capsys.readouterr().err
    assert "ood is left out: eval.ood.out is empty" in said
    assert "svhn_cropped" in said


def test_other_settings_of_the_measurements_leave_the_run_the_same(folder):
    one, other = toy.config(folder), toy.config(folder, eval__adversarial__examples=7)
    assert config_lib.config_hash(one) == config_lib.config_hash(other)


def helped(name):
    """The flags that a command's ``--help`` lists."""
    said = subprocess.run(
        [sys.executable, "-m", f"apr_jax.evaluate.{name}", "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    return set(re.findall(r"^  --(?:\[no\])?([\w.]+):", said.stdout, re.MULTILINE))


@pytest.mark.slow
def test_a_setting_has_one_name_at_every_door():
    foreign = {"classes", "data", "model", "trust_remote_code", "weights", "workdir"}
    places = {"cache_dir", "data_dir"}
    own = {"beside", "config", "devices", "quiet", "save_predictions"}
    own |= foreign | places
    assert helped("clean") == own
    wanted = {"devices", "page", "quiet", *foreign, *places}
    for name in config_lib.to_dict(config_lib.default())["eval"]:
        part = getattr(config_lib.Eval(), name)
        if not dataclasses.is_dataclass(part):
            wanted.add(name)
            continue
        fields = set(dataclasses.asdict(part))
        assert helped(name) == own | fields
        wanted |= {f"{name}.{field}" for field in fields}
    assert helped("card") == wanted


def test_settings_of_parts_that_are_not_listed_are_checked(tmp_path):
    config = toy.config(tmp_path, eval__parts=("clean",))
    card.check(config)
    for part, field, value in (
        ("corruption", "corruptions", ("fog", "fog")),
        ("ood", "scores", ("msq",)),
        ("adversarial", "linf", (2.0,)),
        ("fourier", "extent", 100),
    ):
        own = dataclasses.replace(getattr(config.eval, part), **{field: value})
        changed = dataclasses.replace(config.eval, **{part: own})
        with pytest.raises(ConfigError, match=f"{field} (is|has) "):
            card.check(dataclasses.replace(config, eval=changed))
