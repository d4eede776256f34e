"""The zoo: what is put into it, and all doors to it; its own networks remeasured."""

import dataclasses
import gzip
import hashlib
import json
import runpy
import sys

import numpy as np
import pytest

from apr_jax import config as config_lib
from apr_jax import job, models, robustness_card, settings, zoo
from apr_jax.cli import zoo as listing
from apr_jax.errors import ConfigError, DataError
from apr_jax.evaluate import card, clean, command
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.gates import places
from apr_jax.models import state_dicts
from apr_jax.report import run_view
from apr_jax.runs import records, weights, workdir
from experiments import zoo as writer
from tests import toy

pytestmark = pytest.mark.usefixtures("_tiny_model")


@pytest.fixture(scope="module")
def _filled(folder, tmp_path_factory):
    """A zoo of one network, and the run that it was."""
    place, root = (tmp_path_factory.mktemp(name) for name in ("zoo", "trained"))
    config = toy.config(folder, optim__epochs=1.0, eval__parts=("clean",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "tiny", toy.TinyNet)
        patch.setattr(places, "ZOO_FOLDER", place)
        assert job.run(config, root, quiet=True) is None
        before = bytes_of(root)
        patch.setattr(sys, "argv", ["zoo", str(root), "small"])
        writer.main()
        assert bytes_of(root) == before
    return place, root


@pytest.fixture
def filled(_filled, monkeypatch, tmp_path):
    monkeypatch.setattr(places, "ZOO_FOLDER", _filled[0])
    monkeypatch.chdir(tmp_path)
    return _filled


def bytes_of(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_network_of_the_zoo_answers_as_the_run_that_it_was(filled, rng):
    _, root = filled
    loaded, own = zoo.load("small"), classifier_lib.from_run(root)
    assert loaded.class_names == own.class_names
    assert loaded.step == own.step == 6
    images = rng.integers(0, 256, (8, 8, 8, 3), np.uint8)
    answers = [np.asarray(c.predict(c.variables, images)[0]) for c in (loaded, own)]
    np.testing.assert_allclose(*answers, rtol=2e-3, atol=2e-3)  # float16
    assert not np.array_equal(*answers)


def test_its_card_is_known_without_loading_it(filled):
    about = zoo.about("small")
    recorded = records.latest(records.read(workdir.RunDir(filled[1]).results))
    error = next(r.value for r in recorded if r.metric == "error")
    assert about.number("evaluate.clean", "test", "error") == error
    assert about.number("evaluate.clean", "test", "nothing") is None
    assert about.config.name == "small"
    assert zoo.names() == ("small",)


def test_nothing_in_it_names_a_place_of_the_machine(filled, folder):
    place, _ = filled
    kept = sorted(path.name for path in (place / "small").iterdir())
    assert kept == [
        *("classes.json", "config.json", "results.jsonl.gz", "weights.json"),
        "weights.safetensors",
    ]
    for name in kept[:-1]:
        written = (place / "small" / name).read_bytes()
        text = (gzip.decompress(written) if name.endswith("gz") else written).decode()
        assert str(folder) not in text
        assert '"/' not in text


def test_a_card_shows_what_is_recorded_and_measures_nothing(
    filled, monkeypatch, capsys
):
    place, _ = filled
    before = bytes_of(place)
    monkeypatch.setattr(classifier_lib, "from_run", lambda *_: pytest.fail("loaded"))
    root = places.run("zoo:small", "the run")
    card.run([root], {"parts": ("clean",)}, shown=[root], quiet=True)
    assert "small" in capsys.readouterr().out
    own = workdir.RunDir(workdir.place_of_records(root))
    assert own.report.exists()
    assert own.card.exists()
    assert bytes_of(place) == before


def test_parts_that_are_asked_for_are_measured_beside_what_is_recorded(
    filled, folder, capsys
):
    place, _ = filled
    before = bytes_of(place)
    root = places.run("zoo:small", "the run")
    where = {"data_dir": str(folder)}
    card.run([root], {"parts": ("clean",)}, places=where, quiet=True)
    assert bytes_of(place) == before
    own = workdir.RunDir(workdir.place_of_records(root))
    measured = {r.metric: r.value for r in records.read(own.results)}
    recorded = {r.metric: r.value for r in zoo.about("small").records}
    assert measured["error"] == pytest.approx(recorded["error"], abs=0.021)
    assert measured["nll"] == pytest.approx(recorded["nll"], abs=1e-3)
    page = own.report.read_text()
    assert f"small ({own.root})" in page
    assert f"small ({root})" in page


def test_a_card_keeps_its_records_where_it_is_told(filled, folder, tmp_path, capsys):
    place, _ = filled
    before = bytes_of(place)
    root, out = places.run("zoo:small", "the run"), tmp_path / "elsewhere"
    common = {"places": {"data_dir": str(folder)}, "out": out, "quiet": True}
    card.run([root], {"parts": ("clean",)}, shown=[root], **common)
    own = workdir.RunDir(out)
    assert own.report.exists()
    assert not own.results.exists()
    card.run([root], {"parts": ("clean",)}, **common)
    assert {r.job for r in records.read(own.results)} == {"evaluate.clean"}
    assert bytes_of(place) == before
    assert not workdir.RunDir(workdir.place_of_records(root)).root.exists()
    # So does that of any other run, which is only read then.
    trained = filled[1]
    before, common["out"] = bytes_of(trained), tmp_path / "third"
    card.run([trained], {"parts": ("clean",)}, **common)
    assert workdir.RunDir(tmp_path / "third").results.exists()
    assert bytes_of(trained) == before


def test_runs_stand_on_a_page_as_they_are_named(filled, folder, capsys):
    root, trained = places.run("zoo:small", "the run"), filled[1]
    where = {"data_dir": str(folder)}
    common = {"places": where, "shown": [root], "quiet": True}
    card.run([root, trained], {"parts": ("clean",)}, **common)
    own = workdir.RunDir(workdir.place_of_records(root))
    written = json.loads(own.card.read_text())
    assert [run["name"] for run in written["runs"]] == ["small", "toy"]
    assert own.report.exists()
    assert not own.results.exists()


def test_an_evaluation_leaves_its_records_in_runs(filled, folder):
    root = places.run("zoo:small", "the run")
    command.run(root, clean.measure, None, places={"data_dir": str(folder)}, quiet=True)
    assert workdir.RunDir(workdir.place_of_records(root)).results.exists()


def test_a_run_begins_with_its_weights(filled, folder, tmp_path, capsys):
    config = toy.config(folder, optim__epochs=0.2, train__init_from="zoo:small")
    kept = workdir.with_absolute_places(config)
    assert kept.train.init_from == "zoo:small"
    own = dataclasses.replace(config.eval, parts=())
    config = dataclasses.replace(config, eval=own)
    assert job.run(config, tmp_path / "further", quiet=True) is None
    assert "begins with the weights of" in capsys.readouterr().err


def test_an_unknown_name_is_one_line_with_the_names_that_there_are(filled):
    with pytest.raises(ConfigError, match=r"'zoo:large'; the zoo has small"):
        zoo.load("large")


def test_changed_weights_are_not_loaded(filled, tmp_path, monkeypatch):
    place, _ = filled
    copy = tmp_path / "copy" / "small"
    copy.mkdir(parents=True)
    for path in (place / "small").iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    file = workdir.RunDir(copy).weights
    changed = bytearray(file.read_bytes())
    changed[-1] ^= 1
    file.write_bytes(bytes(changed))
    monkeypatch.setattr(places, "ZOO_FOLDER", copy.parent)
    with pytest.raises(DataError, match="SHA-256"):
        zoo.load("small")


def test_what_is_no_float16_is_refused(tmp_path):
    run = workdir.RunDir(tmp_path)
    with pytest.raises(ConfigError, match="params/kernel goes up to 70000"):
        weights.write(run, 1, {"params": {"kernel": np.float32([70000.0])}})
    assert not run.weights.exists()


def test_safetensors_are_written_as_they_are_read(tmp_path, rng):
    arrays = {
        "a/b": rng.normal(size=(3, 2)).astype(np.float16),
        "c": rng.integers(0, 9, 5),
        "empty": np.zeros((0, 4), np.float32),
        "number": np.float32(2).reshape(()),
    }
    path = tmp_path / "x.safetensors"
    path.write_bytes(state_dicts.write_safe(arrays))
    found = state_dicts.read(path)
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    safetensors = pytest.importorskip("safetensors.numpy")
    for name, array in safetensors.load_file(path).items():
        np.testing.assert_array_equal(array, arrays[name])


def test_the_list_shows_errors_in_percent(filled, capsys):
    listing.main()
    shown = capsys.readouterr().out
    error = zoo.about("small").number("evaluate.clean", "test", "error")
    assert f"{100 * error:.1f}" in shown
    assert "apr_p" in shown


# --- The networks that come with the package -----------------------------------------

NAMES = zoo.names()


@pytest.mark.parametrize("name", NAMES)
def test_what_comes_with_the_package_is_whole_and_without_places(name):
    root = places.ZOO_FOLDER / name
    about, kept = zoo.about(name), json.loads((root / "weights.json").read_text())
    contents = (root / "weights.safetensors").read_bytes()
    assert hashlib.sha256(contents).hexdigest() == kept["sha256"]
    assert about.config.name == name
    default = {leaf.name: leaf.value for leaf in settings.leaves(config_lib.Config())}
    for leaf in settings.leaves(about.config):
        if leaf.about.place:
            assert leaf.value == default[leaf.name]
    for number in listing.NUMBERS.values():
        assert about.number(*number) is not None
    assert {r.step for r in about.records} == {kept["step"]}


def test_the_networks_are_small_together():
    assert sum(p.stat().st_size for p in places.ZOO_FOLDER.rglob("*.*")) < 30e6


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_what_comes_with_the_package_measures_as_recorded(name, shared, tmp_path):
    read = runpy.run_path(str(shared / "data" / "read.py"))["read_tiles"]
    images, labels, _ = read(shared / "data" / "cifar10" / "test.npz")
    np.savez(tmp_path / "test.npz", images=images, labels=labels)
    about = zoo.about(name)
    robustness_card(
        zoo.load(name),
        data=f"arrays:{tmp_path / 'test.npz'}",
        classes=about.class_names,
        out=tmp_path / "card",
        parts=("clean",),
        quiet=True,
    )
    found = {r.metric: r for r in records.read(tmp_path / "card" / "results.jsonl")}
    assert found["error"].n == 10_000
    recorded = about.number(*listing.NUMBERS["Clean"])
    # Ten images: weights are halved in precision, and bfloat16 depends on the kernels.
    assert found["error"].value == pytest.approx(recorded, abs=1.05e-3)


def test_networks_of_the_zoo_were_trained_here():
    """Their page says how, as their configuration does."""
    for name in zoo.names():
        view = run_view.view(places.zoo(f"zoo:{name}", "run"))
        assert view.trained
        assert view.settings["optim.epochs"] == 16.0
