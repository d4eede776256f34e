"""The CDES experiments at toy size: each runs, records and draws."""

import numpy as np
import pytest

from apr_jax import cdes, models
from apr_jax.data import ArraySplit
from apr_jax.train import dispatch
from experiments.cdes import (
    common,
    discrimination,
    hars,
    make_dataset,
    priority,
    train_kernels,
)
from tests import toy
from tests.experiments import toy_lab

TOY = {"kernel_images": 12, "mixed_images": 16, "kernel_batch": 4, "kernel_epochs": 2}
TOY |= {"images": 64, "test_images": 32, "watched": 20, "model": "tiny", "epochs": 2.0}
TOY |= {"batch_size": 16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cdes")
    (folder / "set").mkdir()
    # 32 pixels: rings of 10 and 11, and radii up to 18, are of that size.
    toy.write_arrays(folder / "set", size=32)
    return folder


@pytest.fixture
def run(folder, monkeypatch):
    monkeypatch.setitem(models.MODELS, "tiny", toy.TinyNet)
    monkeypatch.setattr(train_kernels, "TIMED", 3)
    monkeypatch.setattr(train_kernels, "SECONDS", 0.0)
    monkeypatch.setattr(make_dataset, "TIMED", 2)
    # Plain convolutions take long to compile.
    monkeypatch.setattr(cdes, "FORMS", ("fft",))

    def run(module):
        out, work = folder / module.NAME, folder / "work"
        records = toy_lab.run(module, folder / "set", out, work=work, size=32, **TOY)
        return records, sorted(path.name for path in out.glob("*.png"))

    return run


@pytest.mark.slow
def test_kernels(run):
    records, pictures = run(train_kernels)
    assert pictures == ["densities.png", "filters.png"]
    splits = list(dict.fromkeys(r.split for r in records))
    assert splits == ["0", "1", "2", "3", "all classes", "timing"]
    speeds = [r.metric for r in records if r.split == "timing"]
    assert len(speeds) == 4
    # What is there is not computed again.
    assert len(run(train_kernels)[0]) == len(records)


@pytest.mark.slow
def test_sets_and_networks_are_shared(run, folder, monkeypatch):
    records, pictures = run(make_dataset)
    assert pictures == ["densities.png", "sheets.png"]
    sets = folder / "work" / "small" / "sets"
    assert sorted(path.name for path in sets.iterdir()) == ["plain", "scr", "wcr"]
    with (
        np.load(sets / "scr" / "train.npz") as scr,
        np.load(sets / "plain" / "train.npz") as plain,
    ):
        np.testing.assert_array_equal(scr["labels"], plain["labels"])
        assert scr["images"].shape == plain["images"].shape == (64, 32, 32, 3)
        assert (scr["images"] != plain["images"]).mean() > 0.5

    records, pictures = run(discrimination)
    assert pictures == ["discrimination.png"]
    assert len(records) == 3 * 11 + 2 * 6
    assert all(0 <= r.low <= r.value <= r.high <= 1 for r in records)

    def no_training(*_):
        raise AssertionError("the networks are there already")

    monkeypatch.setattr(dispatch, "make_step", no_training)
    with pytest.raises(AssertionError, match="the networks are there already"):
        run(hars)  # the HARS network is not
    monkeypatch.undo()


@pytest.mark.slow
def test_priority(run):
    records, pictures = run(priority)
    assert pictures == ["priority.png"]
    assert {r.split for r in records} == {"plain", "scr", "wcr"}
    spectra = np.array(records[0].extra["spectra"])
    assert spectra.shape == (3, 20)  # before the first epoch, and after two
    assert len(records[0].extra["density"]) == 20


@pytest.mark.slow
def test_hars(run):
    records, pictures = run(hars)
    assert pictures == ["examples.png", "hars.png"]
    found = {(r.split, r.metric) for r in records}
    assert {(k, m) for k in ("plain", "hars") for m in hars.MEASURES} <= found
    shown = next(r for r in records if r.split == "examples").extra
    assert all(own != other for own, other in shown["labels"])


def test_remade_takes_the_kernels_of_the_class(rng):
    first, second = rng.normal(size=(2, 3, 3, 3, 2)), rng.normal(size=(2, 3, 3, 2, 3))
    own = {"first": np.float32(first), "second": np.float32(second)}
    images = rng.integers(0, 256, (5, 32, 32, 3), np.uint8)
    labels = np.array([1, 0, 0, 1, 1])
    made = common.remade(own, ArraySplit(images, labels), batch=2)
    for i, label in enumerate(labels):
        expected = cdes.remake(common.one_set(own, label), images[i : i + 1])
        off = np.abs(np.float64(made.images[i]) - 255 * np.float64(expected[0]))
        assert off.max() <= 0.51
