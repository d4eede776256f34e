"""The frame of the experiments: records, resumption, data of one's own."""

import json
import sys
import types

import numpy as np
import pytest

from apr_jax import models, process
from apr_jax.data import ArraySplit
from apr_jax.errors import ConfigError
from experiments import lab as lab_lib
from experiments import lab_options, measures, recipes
from tests import toy

SIZES = {"small": {"images": 3}, "paper": {"images": 300}}


def experiment(tmp_path, compute, *, extra=()):
    drawn = []
    thing = types.SimpleNamespace(NAME="thing", SIZES=SIZES, compute=compute)
    thing.plot = lambda records: drawn.extend(records) or {}
    sys.modules["thing"] = thing
    arguments = [
        "--set",
        f"arrays:{tmp_path / 'set'}",
        "--image_size=8",
        f"--out={tmp_path / 'out'}",
        f"--work={tmp_path / 'work'}",
        f"--cache_dir={tmp_path / 'cache'}",
        "--quiet",
        *extra,
    ]
    try:
        lab_lib.main("thing", arguments)
    finally:
        del sys.modules["thing"]
    return drawn


@pytest.fixture
def own_set(tmp_path):
    (tmp_path / "set").mkdir()
    toy.write_arrays(tmp_path / "set")


@pytest.mark.usefixtures("own_set")
def test_records_are_kept_and_not_computed_again(tmp_path, monkeypatch):
    calls = []

    def compute(lab):
        for split in ("a", "b"):
            part = lab.part(split)
            if part.done:
                continue
            calls.append(split)
            yield from part.records({"count": measures.number(lab["images"], 1)})
            if len(calls) == 1:
                raise KeyboardInterrupt

    # It ends a program without waiting for its threads, and would end this one.
    with monkeypatch.context() as patch:
        patch.setattr(process, "_leave", lambda status, line="": sys.exit(status))
        with pytest.raises(SystemExit, match="130"):
            experiment(tmp_path, compute)
    drawn = experiment(tmp_path, compute)
    assert calls == ["a", "b"]
    assert [(r.split, r.value) for r in drawn] == [("a", 3.0), ("b", 3.0)]
    # Another size is another measurement.
    experiment(tmp_path, compute, extra=["--size=paper"])
    assert calls == ["a", "b", "a", "b"]
    lines = (tmp_path / "out" / "records.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["job"] == "experiments.thing"
    assert len(experiment(tmp_path, None, extra=["--plot_only"])) == 2


def test_plot_only_needs_records(tmp_path, capsys):
    with pytest.raises(SystemExit):
        experiment(tmp_path, None, extra=["--plot_only"])
    assert "records.jsonl is not there" in capsys.readouterr().err


@pytest.mark.usefixtures("own_set")
def test_trains_on_a_set_that_it_makes(tmp_path, rng, monkeypatch):
    monkeypatch.setitem(models.MODELS, "tiny", toy.TinyNet)

    def compute(lab):
        train = lab.load("train").splits["train"]
        dark = ArraySplit(train.images // 2, train.labels)
        settings = recipes.short(
            lab.arrays("dark", "wxyz", train=dark, test=dark),
            model="tiny",
            epochs=1,
            method="standard",
        )
        settings.train.batch_size = 16
        settings.eval.batch_size = 16
        settings.augment.crop_pad = 0
        network = lab.train("dark", settings)
        outputs = measures.logits_of(network, dark.images, dark.labels)
        assert outputs.logits.shape == (96, 4)
        # Pixels in [0, 1] are the same images.
        again = measures.logits_of(network, np.float32(dark.images) / 255)
        np.testing.assert_allclose(again.logits, outputs.logits, atol=1e-4)
        right = measures.accuracy(network, *dark)
        yield from lab.part("dark").records({"accuracy": right})
        with pytest.raises(ValueError, match="holds other images"):
            lab.arrays("dark", "wxyz", train=train, test=dark)

    (record,) = experiment(tmp_path, compute)
    assert record.n == 96
    assert record.low < record.value < record.high


def test_balanced_takes_equally_many_of_each_class(rng):
    labels = rng.permutation(np.repeat(np.arange(5), [50, 40, 30, 20, 10]))
    images = np.arange(150, dtype=np.uint8)[:, None, None, None]
    chosen = measures.balanced(ArraySplit(images, labels), 40)
    assert np.bincount(chosen.labels).tolist() == [8] * 5
    np.testing.assert_array_equal(labels[chosen.images.ravel()], chosen.labels)
    # What few examples leave open is shared by the other classes.
    assert (
        np.bincount(measures.balanced(ArraySplit(images, labels), 75).labels)[4] == 10
    )
    assert len(measures.balanced(ArraySplit(images, labels), 0).labels) == 150


def test_knobs_are_turned():
    sizes = {"epochs": 5.0, "images": 10, "radii": (1, 2), "model": "wrn_10_1"}
    given = ["epochs=2", "radii=[3, 4]", "model=wrn_16_1"]
    assert lab_options.turned(sizes, given) == {
        "epochs": 2.0,
        "images": 10,
        "radii": (3, 4),
        "model": "wrn_16_1",
    }
    for text, message in (
        ("epoch=2", r"--knob is 'epoch=2'; choose from epochs, images, radii, model"),
        ("images=2.5", r"--knob is 'images=2.5'; images must be like 10"),
        ("images", r"images must be like 10"),
        ("images=true", r"images must be like 10"),
    ):
        with pytest.raises(ConfigError, match=message):
            lab_options.turned(sizes, [text])


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        ([], "thing"),
        (["--set", "bundled"], "thing_bundled"),
        (["--set", "arrays:a/b"], "thing_arrays_a_b"),
        (["--size", "paper", "--seed", "3"], "thing_paper_seed3"),
        (["--out", "there"], "there"),
    ],
)
def test_other_data_have_a_folder_of_their_own(given, folder, monkeypatch, tmp_path):
    """So that no figure mixes them with the default's."""
    seen = []

    class Stopped(Exception):
        pass

    def lab(**fields):
        seen.append(fields["out"])
        raise Stopped

    thing = types.SimpleNamespace(
        NAME="thing", SIZES=lab_lib.sizes(images=(1, 2)), __doc__="x"
    )
    monkeypatch.setitem(sys.modules, "thing", thing)
    monkeypatch.setattr(lab_lib, "RESULTS", tmp_path)
    monkeypatch.setattr(lab_lib, "Lab", lab)
    monkeypatch.setattr(lab_lib.process, "finish", lambda work: work())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Stopped):
        lab_lib.main("thing", given)
    assert seen[0].name == folder
