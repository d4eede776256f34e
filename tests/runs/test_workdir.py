"""The work directory: whose it is, and who works there."""

import dataclasses
import json
import pathlib
import re
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from apr_jax import config as config_lib
from apr_jax import data, job, parallel, settings
from apr_jax.errors import ConfigError, DataError
from apr_jax.evaluate import card, clean, command
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate.context import Context
from apr_jax.runs import claims, epochs, records, workdir
from apr_jax.train import loop
from apr_jax.train import plan as plan_lib
from tests import toy
from tests.train.test_loop import PLAIN

pytestmark = pytest.mark.usefixtures("_tiny_model")


def train(folder, root, until=3, **changes):
    plan = plan_lib.plan(toy.config(folder, **(PLAIN | changes)), root)
    return loop.train(plan, until=until, quiet=True)


# --- Whose it is ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"train__batch_size": 512},
        {"data__data_dir": "/nowhere"},
        {"data__train_split": "lost"},
    ],
)
def test_a_start_that_fails_leaves_the_directory_free(folder, tmp_path, wrong):
    with pytest.raises((ConfigError, DataError)):
        train(folder, tmp_path, **wrong)
    assert not workdir.RunDir(tmp_path).config.exists()
    assert train(folder, tmp_path).step == 3


def test_a_directory_where_nothing_was_trained_takes_another_run(folder, tmp_path):
    plan_lib.plan(toy.config(folder, seed=1, **PLAIN), tmp_path)
    train(folder, tmp_path, seed=2)
    saved = json.loads(workdir.RunDir(tmp_path).config.read_text())
    assert saved["seed"] == 2
    with pytest.raises(ConfigError, match="seed is 3, there 2"):
        train(folder, tmp_path, seed=3)


def test_nothing_of_a_run_that_took_no_step_stays_for_the_next(folder, tmp_path):
    changes = {"train__watch": ("bands",), "train__watch_examples": 8}
    train(folder, tmp_path, until=0, **changes)
    run = workdir.RunDir(tmp_path)
    before = epochs.read(run.watched)
    assert [row["step"] for row in before] == [0]
    train(folder, tmp_path, until=0, seed=2, **changes)
    after = epochs.read(run.watched)
    assert [row["step"] for row in after] == [0]
    assert after != before


def other_images(folder, tmp_path):
    """A set of the same classes and sizes, of other pixels."""
    other = tmp_path / "other"
    other.mkdir()
    for split in ("train", "test"):
        with np.load(folder / f"{split}.npz") as stored:
            arrays = dict(stored)
        arrays = {
            name: array[::-1] if array.ndim == 4 else array
            for name, array in arrays.items()
        }
        np.savez(other / f"{split}.npz", **arrays)
    return other


def test_a_run_goes_on_with_its_own_images_only(folder, tmp_path):
    root = tmp_path / "run"
    train(folder, root)
    other = other_images(folder, tmp_path)
    with pytest.raises(ConfigError, match=r"was trained on other images.*'toy'"):
        train(other, root, until=6)
    assert train(folder, root, until=6).step == 6


def test_the_same_images_may_have_moved(folder, tmp_path):
    moved = tmp_path / "moved"
    moved.mkdir()
    for split in ("train", "test"):
        (moved / f"{split}.npz").write_bytes((folder / f"{split}.npz").read_bytes())
    train(folder, tmp_path / "run")
    assert train(moved, tmp_path / "run", until=6).step == 6


def test_a_run_is_measured_on_its_own_images_only(folder, tmp_path):
    """Given anew, a place must hold the same images; the card asks as commands do."""
    root, other = tmp_path / "run", other_images(folder, tmp_path)
    train(folder, root)
    for measure in (
        lambda places: command.run(
            root, clean.measure, None, places=places, quiet=True
        ),
        lambda places: card.run(
            [root], {"parts": ("clean",)}, places=places, quiet=True
        ),
    ):
        with pytest.raises(ConfigError, match=r"other images.*'toy' in data.data_dir"):
            measure({"data_dir": str(other)})
        assert not (root / "results.jsonl").exists()
    command.run(root, clean.measure, None, places={"data_dir": str(folder)}, quiet=True)
    assert records.read(root / "results.jsonl")


def test_a_run_without_fingerprints_goes_on_and_is_measured(folder, tmp_path):
    """As older versions left it."""
    train(folder, tmp_path)
    workdir.RunDir(tmp_path).facts.unlink()
    assert train(folder, tmp_path, until=6).step == 6
    assert workdir.RunDir(tmp_path).facts.exists()
    (tmp_path / "facts.json").unlink()
    command.run(tmp_path, clean.measure, None, quiet=True)


@pytest.mark.parametrize("part", ["images", "labels"])
def test_extra_images_are_among_those_of_a_run(folder, part):
    found = data.load(toy.config(folder).data)
    extra = data.ArraySplit(np.zeros((2, 8, 8, 3), np.uint8), np.zeros(2, np.int32))
    changed = extra._replace(**{part: getattr(extra, part) + 1})
    alone, one, two = (
        data.fingerprint(
            toy.config(folder).data, dataclasses.replace(found, extra=extra)
        )
        for extra in (None, extra, changed)
    )
    assert len({alone, one, two}) == 3


@pytest.mark.parametrize("change", ["class", "file"])
def test_streamed_images_are_known_by_their_names(tmp_path, change):
    root = tmp_path / "train"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        (root / name / "0.png").write_bytes(b"")
    settings = config_lib.Data(
        source="folder", data_dir=str(tmp_path), streaming=True, image_size=8
    )
    before = data.fingerprint(settings, None)
    assert data.fingerprint(settings, None) == before
    if change == "class":
        (root / "b").rename(root / "c")
    else:
        (root / "b" / "1.png").write_bytes(b"")
    assert data.fingerprint(settings, None) != before


def test_another_number_of_devices_is_said(folder, tmp_path, capsys):
    train(folder, tmp_path)
    assert "devices before" not in capsys.readouterr().err
    train(folder, tmp_path, until=5, train__devices=2)
    said = " ".join(capsys.readouterr().err.split())
    assert "was on 1 devices before, and goes on with 2" in said


# --- Moved data ----------------------------------------------------------------------


def test_the_place_of_the_data_can_be_given_anew(folder, tmp_path, monkeypatch):
    """A run's own is kept as an absolute path, and found from any directory."""
    monkeypatch.chdir(folder.parent)
    root = tmp_path / "run"
    frost = {"eval__corruption__frost_dir": "frost"}
    train(pathlib.Path(folder.name), root, **frost)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    network = classifier_lib.from_run(root)
    assert network.config.data.data_dir == str(folder)
    corruption = network.config.eval.corruption
    assert corruption.frost_dir == str(folder.parent / "frost")
    moved = classifier_lib.from_run(root, {"data_dir": "/new", "cache_dir": "/cache"})
    assert moved.config.data.data_dir == "/new"
    assert moved.config.data.cache_dir == "/cache"
    assert config_lib.config_hash(moved.config) == config_lib.config_hash(
        network.config
    )
    with pytest.raises(ConfigError, match="--data_dir"):
        command._open(root, {"seed": 0}, None, {})


@pytest.mark.parametrize(
    "name", [n for n in vars(workdir.RunDir(toy.ROOT)) if n != "root"]
)
def test_a_folder_where_a_file_is_to_be_is_found_at_once(tmp_path, name):
    path = getattr(workdir.RunDir(tmp_path), name)
    workdir.check_writable(tmp_path)
    path.mkdir() if path.suffix else path.touch()
    kind = "a" if path.suffix else "no"
    with pytest.raises(ConfigError, match=f"written: {path.name} in it is {kind} fold"):
        workdir.check_writable(tmp_path)


def test_every_place_of_a_run_is_found_from_any_directory(folder, tmp_path):
    """Whatever names files or folders; a new setting that does has to say so."""
    values = {}
    for name, value, _, about in settings.leaves(config_lib.default()):
        if re.search(r"(dir|dirs|file|files|path|ood\.out)$", name):
            assert about.place, f"{name} names files or folders: see settings.place"
        if not about.place:
            continue
        several = not isinstance(value, str)
        values[name.replace(".", "__")] = ("here/x",) if several else "here/x"
    specs = ("a=folder:here/x", "b=arrays:~/y", "c=tfds:svhn/test")
    values["eval__ood__out"] = specs
    config = toy.config(folder, **values)
    found = workdir.with_absolute_places(config)
    root = f"{pathlib.Path.cwd()}/here/x"
    for name, value, _, about in settings.leaves(found):
        if about.place and name != "eval.ood.out":
            assert value == (root if isinstance(value, str) else (root,)), name
    assert found.eval.ood.out == (
        f"a=folder:{root}",
        f"b=arrays:{pathlib.Path('~/y').expanduser()}",
        "c=tfds:svhn/test",
    )
    assert found.optim == config.optim
    assert config_lib.config_hash(found) == config_lib.config_hash(config)
    assert workdir.with_absolute_places(found) == found
    # What stands for itself in the hash stays as it is.
    bare = toy.config(folder, data__extra_dirs=("train",))
    assert workdir.with_absolute_places(bare).data.extra_dirs == ("train",)
    plain = toy.config(folder)
    assert workdir.with_absolute_places(plain) == plain
    # So does a network's file, which a built-in network hasn't.
    own = toy.config(folder, model__name="here/net.py:make")
    moved = workdir.with_absolute_places(own)
    assert moved.model.name == f"{pathlib.Path.cwd()}/here/net.py:make"
    assert config_lib.config_hash(moved) == config_lib.config_hash(own)


def test_extra_images_may_move_and_are_not_needed_to_measure(
    folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name in "0123":
        path = tmp_path / "styled" / name / "0.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (8, 8), (45 * int(name),) * 3).save(path)
    extra = {"data__extra_dirs": ("styled",)}
    train(folder, tmp_path / "run", **extra)
    (tmp_path / "moved").mkdir()
    (tmp_path / "styled").rename(tmp_path / "moved" / "styled")
    monkeypatch.chdir(folder)
    command.run(tmp_path / "run", clean.measure, None, quiet=True)
    assert (tmp_path / "run" / "results.jsonl").exists()
    with pytest.raises(DataError, match="which isn't there"):
        train(folder, tmp_path / "run", until=6, **extra)
    place = str(tmp_path / "moved" / "styled")
    train(folder, tmp_path / "run", until=6, data__extra_dirs=(place,))
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert stored["data"]["extra_dirs"] == [place]


def test_training_at_a_new_place_notes_it(folder, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    train(folder, tmp_path / "run")
    train(moved, tmp_path / "run", until=6)
    network = classifier_lib.from_run(tmp_path / "run")
    assert network.config.data.data_dir == str(moved)


# --- Who works there -----------------------------------------------------------------

HOLDER = """
import pathlib, sys, time
from apr_jax.runs import claims
with claims.claimed(pathlib.Path(sys.argv[1]), write=True, waiting=print):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def hold(root, seconds):
    process = toy.start("-c", HOLDER, root, seconds)
    assert process.stdout.readline() == "held\n"
    return process


def test_measurements_take_turns(folder, tmp_path, capsys):
    """The second waits, and finds what the first has measured."""
    job.run(toy.config(folder, optim__epochs=0.5, **PLAIN), tmp_path, quiet=True)
    network = classifier_lib.from_run(tmp_path)
    started = time.monotonic()
    first = hold(tmp_path, 1.5)
    command.keep(
        workdir.RunDir(tmp_path),
        lambda context: clean.measure(network, None, context),
        Context(parallel.make_layout(1), quiet=True),
    )
    assert time.monotonic() - started > 1.4
    first.communicate()
    said = " ".join(capsys.readouterr().err.split())
    assert "this one waits for it" in said
    assert records.read(tmp_path / "results.jsonl")


def test_one_may_measure_while_another_trains(tmp_path):
    with (
        claims.claimed(tmp_path, write=True),
        claims.claimed(tmp_path, write=True, waiting=print),
    ):
        pass


def test_a_name_may_have_a_point(tmp_path):
    workdir.check_writable(tmp_path / "runs" / "v1.2")
    workdir.check_writable(tmp_path / "runs" / "v1.2")


@pytest.mark.parametrize(("one", "now"), [("", ()), ("runs/x", ("runs/x",))])
def test_runs_of_one_surrogate_are_read(tmp_path, one, now):
    """As older versions wrote it."""
    values = {"eval": {"adversarial": {"surrogate": one}}}
    (tmp_path / "config.json").write_text(json.dumps(values))
    _, config = workdir.open_run(tmp_path)
    assert config.eval.adversarial.surrogate == now
