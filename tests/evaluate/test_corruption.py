"""Measuring under corruption: every source, resuming, what is refused, the page."""

import contextlib
import dataclasses
import functools
import itertools
import json
import os
import re
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from apr_jax import config as config_lib
from apr_jax import corruptions, data, job, metrics, models, parallel
from apr_jax.corruptions import CORRUPTIONS, frost_files
from apr_jax.data import (
    cache,
    classes,
    corrupted,
    corrupted_files,
    corrupted_sets,
    corrupted_verify,
)
from apr_jax.errors import ArgumentError, ConfigError, DataError
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate import corruption, corruption_sources
from apr_jax.evaluate.context import Context
from apr_jax.evaluate.measurement import Measurement
from apr_jax.report import run_view
from apr_jax.report.sections import corruption as section
from apr_jax.runs import records as records_lib
from apr_jax.train import loop
from tests import toy

SETS = ("contrast", "brightness")
QUICK = {"corruptions": SETS, "severities": (1, 4)}


@pytest.fixture(scope="module")
def test_split(folder):
    return data.load(toy.config(folder).data, splits=("test",)).splits["test"]


@pytest.fixture(autouse=True)
def _photographs(monkeypatch):
    rng = np.random.default_rng(0)
    made = [rng.integers(0, 256, (60, 80, 3), dtype=np.uint8) for _ in range(5)]
    monkeypatch.setattr(frost_files, "load", lambda folder=None: made)


def shade(images):
    """Logits that tell the shades of the toy classes apart."""
    level = 255 * images.mean((1, 2, 3))
    centres = 40.0 + 45.0 * jnp.arange(toy.CLASSES)
    return -jnp.abs(level[:, None] - centres[None]) / 20


def network(folder, **changes):
    config = toy.config(folder, **changes)
    names = [str(i) for i in range(toy.CLASSES)]
    return classifier_lib.from_function(shade, config, names, name="shade")


def measure(classifier, devices=1, done=(), **given):
    layout = parallel.make_layout(devices)
    settings = config_lib.Corruption(**{**QUICK, **given})
    context = Context(layout, done=done, quiet=True)
    return list(corruption.measure(classifier, settings, context))


def errors(records):
    sets = [r for r in records if r.metric == "error" and "mean" not in r.split]
    return {r.split: r.value for r in sets}


def sizes(records):
    """Numbers of examples of the corrupted sets."""
    return {r.n for r in records if "/" in r.split}


def expected_error(images, labels):
    right = np.asarray(shade(jnp.asarray(images) / 255.0)).argmax(1) == labels
    return 1 - right.mean()


# --- Sources -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [3, 4])
def test_generated(folder, test_split, seed):
    names = (*SETS, "gaussian_noise")
    records = measure(network(folder), seed=seed, corruptions=names)
    found = errors(records)
    assert set(found) == {
        "clean",
        *(f"{n}/{s}" for n, s in itertools.product(names, (1, 4))),
    }
    for name, severity in itertools.product(names, (1, 4)):
        images = corruptions.corrupt(
            jax.random.key(seed), np.asarray(test_split.images), name, severity
        )
        wanted = expected_error(images, test_split.labels)
        assert found[f"{name}/{severity}"] == pytest.approx(wanted)
    assert found["clean"] == pytest.approx(expected_error(*test_split))
    assert sizes(records) == {50}
    assert {r.metric for r in records} == set(corruption.METRICS)
    assert {r.data for r in records} == {"toy-c generated"}
    assert len({(r.data, r.split, r.metric) for r in records}) == len(records)


@pytest.mark.parametrize(("batch", "devices"), [(14, 2), (64, 4), (7, 1)])
def test_every_layout_gives_the_same(folder, batch, devices):
    noisy = {"corruptions": ("impulse_noise",), "severities": (5,)}
    one = measure(network(folder, eval__batch_size=50), **noisy)
    other = measure(network(folder, eval__batch_size=batch), devices, **noisy)
    # Sums of float32 in another order.
    wanted = pytest.approx([r.value for r in one], rel=1e-5)
    assert [r.value for r in other] == wanted


@pytest.fixture(scope="module")
def npy(test_split, tmp_path_factory):
    """A folder as CIFAR-10-C, of two corruptions."""
    out = tmp_path_factory.mktemp("npy")
    recipe = corrupted_files.Recipe("toy", 50, 8, 0, "toy")
    corrupted_files.write_npy(test_split, out, SETS, recipe=recipe, quiet=True)
    return out


def test_an_npy_folder(folder, npy):
    stored = measure(network(folder), source="folder", dir=str(npy))
    assert errors(stored) == errors(measure(network(folder)))
    assert {r.data for r in stored} == {"toy-c"}
    few = measure(network(folder), source="folder", dir=str(npy), examples=20)
    assert sizes(few) == {20}
    # What was measured with other settings isn't taken for this.
    again = measure(network(folder), source="folder", dir=str(npy), done=few)
    assert errors(again) == errors(stored)


def changed(npy, tmp_path, name, array):
    for file in npy.glob("*.npy"):
        if file.stem != name:
            (tmp_path / file.name).symlink_to(file)
    if array is not None:
        np.save(tmp_path / f"{name}.npy", array)
    return {"source": "folder", "dir": str(tmp_path)}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("contrast", lambda a: None, r"lacks contrast\.npy"),
        ("labels", lambda a: None, r"lacks labels\.npy"),
        ("contrast", lambda a: a[:, :7], r"contrast\.npy is uint8 \[250, 7, 8, 3\]"),
        ("contrast", lambda a: a[:249], r"contrast\.npy is uint8 \[249, 8"),
        ("contrast", lambda a: a / 255.0, r"contrast\.npy is float64"),
        ("brightness", lambda a: a[:200], "has 200 images, contrast.npy has 250"),
        ("labels", lambda a: a[:60], r"has 60 labels; 5 times 50"),
        ("labels", lambda a: a + 1, "has the label 4; the classifier's 4 classes"),
        ("labels", lambda a: np.sort(a), "isn't the same labels 5 times"),
        ("labels", lambda a: np.zeros(50, int), "label 0 50 times, the test split"),
        ("labels", lambda a: a[:, None], "they must be integers"),
    ],
)
def test_npy_folders_that_do_not_fit(folder, npy, tmp_path, name, change, message):
    array = change(np.load(npy / f"{name}.npy"))
    with pytest.raises(DataError, match=message):
        measure(network(folder), **changed(npy, tmp_path, name, array))


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A tree as ImageNet-C, made by the command from a folder of larger images."""
    root = tmp_path_factory.mktemp("tree")
    rng = np.random.default_rng(2)
    for name in "abcd":
        (root / "val" / name).mkdir(parents=True)
        for i in range(3):
            pixels = rng.integers(0, 256, (20, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "val" / name / f"{i}.png")
    out = root / "out"
    described = corrupted_sets.describe(
        str(root), data_dir="", split="val", image_size=8, resize=10
    )
    corrupted_sets.write(described, out, SETS, form="jpeg", quiet=True)
    return out


def tree_network(folder, **changes):
    return dataclasses.replace(network(folder, **changes), class_names=tuple("abcd"))


def test_a_tree(folder, tree):
    files = sorted(p.relative_to(tree) for p in tree.rglob("*.JPEG"))
    assert len(files) == 2 * 5 * 12
    assert str(files[0]) == "brightness/1/a/0.JPEG"
    settings = {"source": "folder", "dir": str(tree)}
    records = measure(tree_network(folder, eval__batch_size=5), **settings)
    images = [np.asarray(Image.open(p)) for p in sorted(tree.glob("contrast/4/*/*"))]
    wanted = expected_error(np.stack(images), np.repeat(np.arange(4), 3))
    assert errors(records)["contrast/4"] == pytest.approx(wanted)
    assert sizes(records) == {12}
    some = measure(tree_network(folder), **settings, examples=4)
    assert sizes(some) == {4}


@pytest.mark.parametrize("group", ["", "blur"])
def test_other_images_in_a_tree_are_another_source(tree, tmp_path, group):
    shutil.copytree(tree / "contrast", tmp_path / group / "contrast")

    def fingerprint():
        settings = config_lib.Corruption(
            source="folder", severities=(4,), dir=str(tmp_path)
        )
        return corruption_sources.fingerprint(settings, ["contrast"], None)

    before = fingerprint()
    assert fingerprint() == before
    place = tmp_path / group / "contrast"
    shutil.copy(place / "4" / "a" / "0.JPEG", place / "4" / "a" / "more.JPEG")
    assert fingerprint() != before


def test_trees_that_do_not_fit(folder, tree, tmp_path):
    settings = {"source": "folder", "dir": str(tree)}
    with pytest.raises(DataError, match=r"aren't the classifier's.*missing \['0'"):
        measure(network(folder), **settings)
    with pytest.raises(DataError, match="no folder 'fog'; there is brightness"):
        measure(tree_network(folder), **settings, corruptions=("fog",))
    with pytest.raises(DataError, match=r"has 8 x 8 pixels; .* takes 16 x 16"):
        measure(tree_network(folder, data__image_size=16), **settings)
    (tmp_path / "contrast").symlink_to(tree / "contrast")
    (tmp_path / "brightness" / "1").mkdir(parents=True)
    settings["dir"] = str(tmp_path)
    with pytest.raises(DataError, match=r"missing: .*brightness/4"):
        measure(tree_network(folder), **settings)


def test_names_of_tfds(folder):
    described = toy.config(folder, data__name="cifar10", data__eval_resize=9).data
    glass = corrupted.tfds_data(described, "glass_blur", 3)
    assert glass.name == "cifar10_corrupted/frosted_glass_blur_3"
    assert (glass.source, glass.test_split, glass.eval_resize) == ("tfds", "test", 0)
    imagenet = dataclasses.replace(described, name="imagenet2012:5.1.0")
    elastic = corrupted.tfds_data(imagenet, "elastic_transform", 1)
    assert elastic.name == "imagenet2012_corrupted/elastic_transform_1"
    assert elastic.test_split == "validation"
    with pytest.raises(DataError, match="corrupted forms of cifar10 and imagenet"):
        corrupted.tfds_data(dataclasses.replace(described, name="cifar100"), "fog", 1)


def test_class_names_must_be_the_classifier_s():
    check = classes.check_same
    check(["cat", "dog"], ["0", "1"], "there")
    with pytest.raises(DataError, match="has 2 classes, the classifier 3"):
        check(["cat", "dog"], ["0", "1", "2"], "there")
    with pytest.raises(DataError, match=r"class 1 of there is 'dog', .* 'frog'"):
        check(["cat", "dog"], ["cat", "frog"], "there")


# --- Means ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(folder):
    """All fifteen corruptions in two severities, with a few images."""
    with pytest.MonkeyPatch.context() as patch:
        rng = np.random.default_rng(0)
        made = [rng.integers(0, 256, (60, 80, 3), dtype=np.uint8) for _ in range(5)]
        patch.setattr(frost_files, "load", lambda folder=None: made)
        return measure(
            network(folder), corruptions=CORRUPTIONS, severities=(2, 5), examples=12
        )


# A mean over two of the severities isn't called as one over all of them.
MEAN = "mean, severities 2 5"


def test_means(whole):
    found = {(r.split, r.metric): r for r in whole}
    for metric in corruption.METRICS:
        values = [
            [found[f"{c}/{s}", metric].value for s in (2, 5)] for c in CORRUPTIONS
        ]
        assert found[MEAN, metric].value == pytest.approx(np.mean(values))
        second = found["mean/5", metric].value
        assert second == pytest.approx(np.mean(values, axis=0)[1])
    assert found[MEAN, "error"].n == 12 * 15 * 2
    assert found[MEAN, "error"].extra["severities"] == [2, 5]
    assert "mean" not in {split for split, _ in found}
    everything = found[MEAN, "error"], *(found[f"mean/{s}", "error"] for s in (2, 5))
    assert len({r.split for r in everything}) == 3


def test_the_page_shows_the_widest_mean(whole):
    shown = [run_view.RunView(name="some", records=whole)]
    assert section._mean([section._by_split(shown[0], "toy-c generated")]) == MEAN
    assert section._breadth("mean of 14") > section._breadth("mean of 3, severities 1")
    assert section._breadth(MEAN) > section._breadth("mean of 14, severities 1 2 3")


def test_a_stopped_call_goes_on(folder, whole, monkeypatch):
    class Never(Exception):
        pass

    def never(*_, **__):
        raise Never

    settings = {"corruptions": CORRUPTIONS, "severities": (2, 5), "examples": 12}
    cut = [r for r in whole if r.split not in ("fog/5", MEAN)]
    with monkeypatch.context() as patch:
        patch.setattr(classifier_lib, "make_collect", never)
        assert measure(network(folder), done=whole, **settings) == []
        with pytest.raises(Never):
            measure(network(folder), done=cut, **settings)
    rest = measure(network(folder), done=cut, **settings)
    assert {r.split for r in rest} == {"fog/5", MEAN}
    found = {(r.split, r.metric): r.value for r in whole}
    assert {(r.split, r.metric): r.value for r in rest}.items() <= found.items()


def test_numbers_that_others_hide_are_written_again(folder):
    noisy = {"corruptions": ("impulse_noise",), "severities": (5,)}
    first = measure(network(folder), **noisy, examples=12)
    second = measure(network(folder), done=first, **noisy, examples=20)
    third = measure(network(folder), done=[*first, *second], **noisy, examples=12)
    shown = {
        (r.split, r.metric): r for r in records_lib.latest([*first, *second, *third])
    }
    assert shown["impulse_noise/5", "error"].n == 12
    assert shown["impulse_noise/5", "error"] in first


def test_other_photographs_of_frost_are_measured_anew(folder, monkeypatch):
    frosty = {"corruptions": ("frost",), "severities": (5,)}
    first = measure(network(folder), **frosty)
    assert measure(network(folder), done=first, **frosty) == []
    other = [np.full((60, 80, 3), 200, np.uint8)] * 5
    monkeypatch.setattr(frost_files, "load", lambda folder=None: other)
    again = measure(network(folder), done=first, **frosty)
    assert {r.split for r in again} >= {"frost/5"}


def test_a_tree_that_changed_is_measured_anew(folder, tree, tmp_path):
    copy = tmp_path / "tree"
    shutil.copytree(tree, copy)
    settings = {"source": "folder", "dir": str(copy)}
    first = measure(tree_network(folder), **settings)
    assert measure(tree_network(folder), done=first, **settings) == []
    gone, *_ = (copy / "contrast" / "4" / "a").iterdir()
    os.utime(gone.parent, ns=(1, 1))
    assert measure(tree_network(folder), done=first, **settings)


def test_other_weights_are_measured_anew(folder):
    noisy = {"corruptions": ("impulse_noise",), "severities": (5,)}
    first = measure(network(folder), **noisy)
    dull = classifier_lib.from_function(
        lambda images: jnp.zeros((len(images), 4)),
        network(folder).config,
        "0123",
        name=network(folder).name,
    )
    assert len(measure(dull, done=first, **noisy)) == len(first)


def test_mce_of_a_thousand_classes(folder):
    """With AlexNet's own errors it is one, and so is the relative one."""
    from apr_jax.metrics import ALEXNET_ERROR

    names = map(str, range(1000))
    of_a_thousand = dataclasses.replace(network(folder), class_names=tuple(names))
    context = Context(parallel.make_layout(1))
    job = Measurement(corruption.JOB, of_a_thousand, context)
    values = {("clean", "error"): metrics.ALEXNET_CLEAN_ERROR}
    for (c, error), s in itertools.product(ALEXNET_ERROR.items(), range(1, 6)):
        values |= {(f"{c}/{s}", m): error for m in corruption.METRICS}
    number = metrics.Measured
    found = {
        key: job.records({key[1]: number(value, None, None, "fraction", 10)}, key[0])[0]
        for key, value in values.items()
    }
    args = (job, found, CORRUPTIONS, range(1, 6))
    means = {r.metric: r.value for r in corruption._means(*args) if r.split == "mean"}
    assert means["mce"] == pytest.approx(1)
    assert means["relative_mce"] == pytest.approx(1)
    assert means["error"] == pytest.approx(np.mean(list(ALEXNET_ERROR.values())))


def records_of(folder, errors, severities):
    """Made-up records of sets, and the means over them."""
    context = Context(parallel.make_layout(1))
    job = Measurement(corruption.JOB, network(folder), context, data="toy-c")
    found = {}
    for (name, severity), error in errors.items():
        number = metrics.Measured(error, None, None, "fraction", 10)
        made = job.records(dict.fromkeys(corruption.METRICS, number), name + severity)
        found |= {(r.split, r.metric): r for r in made}
    names = list(dict.fromkeys(name for name, _ in errors))
    return [*found.values(), *corruption._means(job, found, names, severities)]


def test_each_set_has_a_mean_of_its_own(folder):
    sets = {"c": 0.1, "extra": 0.2, "c_bar": 0.3}
    rng = np.random.default_rng(0)
    errors = {
        (name, f"/{severity}"): base + 0.1 * rng.random()
        for one, base in sets.items()
        for name in corruptions.names_of([one], (8, 8))
        for severity in (1, 3)
    }
    made = records_of(folder, errors, (1, 3))
    found = {r.split: r for r in made if r.metric == "error"}
    over = {"c": "mean", "extra": "mean extra", "c_bar": "mean c_bar"}
    for one, label in over.items():
        members = corruptions.names_of([one], (8, 8))
        own = [[errors[name, f"/{s}"] for s in (1, 3)] for name in members]
        whole = found[f"{label}, severities 1 3"]
        assert whole.value == pytest.approx(np.mean(own))
        assert whole.extra["corruptions"] == list(members)
        assert found[f"{label}/3"].value == pytest.approx(np.mean(own, axis=0)[1])
    assert len({s for s in found if s.startswith("mean")}) == 9
    view = [run_view.RunView(name="some", records=made)]
    rows = section.answers(view)
    assert [row.place.split(", ")[2] for row in rows] == [
        *("severities 1 3", "C-bar", "held out")
    ]
    page = section.html(view)
    assert all(text in page for text in ("Means, toy-c, C-bar", "pinch and twirl"))
    # Of a set that isn't whole, the mean of what there is.
    fog = {k: v for k, v in errors.items() if k[0] in ("fog", "ripple")}
    rest = {k: v for k, v in errors.items() if k[0] in corruptions.EXTRA_CORRUPTIONS}
    splits = {r.split for r in records_of(folder, fog | rest, (1, 3))}
    assert {s for s in splits if s.startswith("mean") and "/" not in s} == {
        *("mean extra, severities 1 3", "mean of 2, severities 1 3")
    }


# --- Refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"corruptions": ("rain",)}, "corruptions has 'rain'; choose from 'gaussian"),
        ({"severities": ()}, "give one or more"),
        ({"sets": ("c", "d"), "corruptions": ()}, "sets has 'd'; choose from 'c', 'ex"),
        ({"sets": (), "corruptions": ()}, "sets is .*; give one or more"),
        ({"sets": ("c_bar",)}, "give one of the two"),
        ({"corruptions": ("fog", "fog")}, "give each once"),
        ({"severities": (0,)}, "severities has 0"),
        ({"severities": (1, 1)}, "each once"),
        ({"source": "web"}, "source is 'web'; choose from"),
        ({"source": "folder"}, "'folder' needs it"),
        ({"dir": "x"}, "no other takes it"),
        ({"examples": -1}, "examples is -1"),
    ],
)
def test_settings_are_checked(folder, settings, message):
    with pytest.raises(ConfigError, match=message):
        measure(network(folder), **settings)


def test_frost_must_be_there(folder, monkeypatch):
    def missing(folder=None):
        raise FileNotFoundError("frost needs the photographs")

    monkeypatch.setattr(frost_files, "load", missing)
    with pytest.raises(ConfigError, match="frost needs the photographs"):
        measure(network(folder), corruptions=("frost",))


# --- Writing -------------------------------------------------------------------------


def test_written_sets(npy, test_split):
    images, labels = np.load(npy / "contrast.npy"), np.load(npy / "labels.npy")
    assert images.shape == (250, 8, 8, 3)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(labels, np.tile(test_split.labels, 5))
    for severity in (1, 5):
        wanted = corruptions.corrupt(
            jax.random.key(0), np.asarray(test_split.images), "contrast", severity
        )
        np.testing.assert_array_equal(
            images[50 * severity - 50 : 50 * severity], np.asarray(wanted)
        )


def test_writing_needs_room_and_the_folder_for_itself(test_split, tmp_path):
    recipe = corrupted_files.Recipe("toy", 50, 8, 0, "toy")
    write = lambda: corrupted_files.write_npy(
        test_split, tmp_path, ["contrast"], recipe=recipe, quiet=True
    )
    with (
        cache.locked(tmp_path / "sets"),
        pytest.raises(DataError, match="another process is at work on"),
    ):
        write()
    size = 5 * 50 * 8 * 8 * 3
    usage = lambda free: lambda _: shutil._ntuple_diskusage(10**9, 10**9 - free, free)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corrupted_files.shutil, "disk_usage", usage(size - 1))
        with pytest.raises(
            DataError, match=r"MB of room, and the next file takes 0\.0"
        ):
            write()
    assert not [*tmp_path.glob("*contrast*"), *tmp_path.glob(".contrast*")]
    write()
    assert (tmp_path / "contrast.npy").exists()


def test_writing_goes_on_where_it_stopped(test_split, tmp_path, monkeypatch):
    recipe = corrupted_files.Recipe("toy", 50, 8, 0, "toy")
    write = lambda names, **changes: corrupted_files.write_npy(
        test_split,
        tmp_path,
        names,
        recipe=dataclasses.replace(recipe, **changes),
        quiet=True,
    )
    write(["contrast"])
    before = (tmp_path / "contrast.npy").stat().st_mtime_ns
    real, calls = corruptions.corrupt, []

    def stopped(key, images, name, severity, **rest):
        calls.append((name, severity))
        if severity == 3:
            raise KeyboardInterrupt
        return real(key, images, name, severity, **rest)

    monkeypatch.setattr(corruptions, "corrupt", stopped)
    with pytest.raises(KeyboardInterrupt):
        write(SETS)
    assert not (tmp_path / "brightness.npy").exists()
    assert {name for name, _ in calls} == {"brightness"}
    monkeypatch.setattr(corruptions, "corrupt", real)
    write(SETS)
    assert (tmp_path / "contrast.npy").stat().st_mtime_ns == before
    assert {p.name for p in tmp_path.glob("[!.]*")} == {
        "contrast.npy",
        "brightness.npy",
        "labels.npy",
        "corruptions.json",
    }
    with pytest.raises(DataError, match="holds sets with seed 0, now it is 1"):
        write(SETS, seed=1)
    (tmp_path / "corruptions.json").unlink()
    with pytest.raises(DataError, match=r"but no corruptions\.json"):
        write(SETS)


def test_a_tree_goes_on_where_it_stopped(tree):
    file = tree / "contrast" / "2" / "b" / "1.JPEG"
    old = {p: p.stat().st_mtime_ns for p in tree.rglob("*.JPEG")}
    contents = file.read_bytes()
    file.unlink()
    described = corrupted_sets.describe(
        str(tree.parent), data_dir="", split="val", image_size=8, resize=10
    )
    corrupted_sets.write(described, tree, SETS, form="jpeg", quiet=True)
    assert file.read_bytes() == contents
    redone = [p for p, t in old.items() if p.stat().st_mtime_ns != t]
    assert {p.parents[2].name + p.parents[1].name for p in redone} == {"contrast2"}


def test_the_kinds_of_data(folder, tree):
    describe = lambda what, split="test": corrupted_sets.describe(
        what, data_dir="there", split=split, image_size=32, resize=0
    )
    assert describe("cifar10").source == "tfds"
    assert describe("cifar10").data_dir == "there"
    assert describe("bundled").source == "bundled"
    assert describe(str(folder)).source == "arrays"
    assert describe(str(folder / "test.npz")).source == "arrays"
    assert describe(str(tree.parent), "val").source == "folder"
    assert corrupted_sets.default_resize(224) == 256
    assert corrupted_sets.default_resize(32) == 0


@pytest.mark.slow
def test_the_command_explains_itself():
    helped = subprocess.run(
        [sys.executable, "-m", "apr_jax.corruptions", "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "--frost_dir" in helped.stdout + helped.stderr


# --- The page ------------------------------------------------------------------------


def views(whole):
    config = {
        "model": {"name": "wrn_40_2"},
        "augment": {"method": "apr_sp"},
        "optim": {"epochs": 6.0},
    }
    # Shown as if it had been over all severities.
    renamed = [
        dataclasses.replace(
            r, data="cifar10-c generated", split=r.split.removesuffix(MEAN[4:])
        )
        for r in whole
    ]
    better = [dataclasses.replace(r, value=r.value / 2) for r in renamed]
    return [
        run_view.RunView(name="first <run>", config=config, records=renamed),
        run_view.RunView(name="none"),
        run_view.RunView(name="second", config=config, records=better),
    ]


def test_the_page(whole):
    page = section.html(views(whole))
    assert page.count('<table class="heat">') == 3  # two runs and their difference
    assert "first &lt;run&gt;" in page
    assert "second less first" in page
    assert "impulse noise" in page
    assert "WRN-40-2, paper" in page
    assert "26.9" in page
    assert "trained for 6 epochs, not 200" in page
    assert "measured on 12 images" in page
    assert "not the official files" in page
    mean = next(r for r in whole if (r.split, r.metric) == (MEAN, "error"))
    assert f"{100 * mean.value:.2f} %" in page
    errors_shown = re.findall(r"<td[^>]*--v:[^>]*>(-?\d+\.\d)</td>", page)
    assert len(errors_shown) >= 2 * 15 * 3


def test_the_terminal(whole):
    table = section.table(views(whole))
    assert table.row_count == 5  # clean, two severities, mean, images
    assert section.table([run_view.RunView(name="none")]) is None
    assert section.html([run_view.RunView(name="none")]) == ""


def test_a_choice_of_corruptions(folder):
    records = measure(network(folder))
    sets = {r.split: r.value for r in records if "/" in r.split and r.metric == "error"}
    names = {split.partition("/")[0] for split in sets}
    found = {(r.split, r.metric): r for r in records}
    mean = found[f"mean of {len(names)}, severities 1 4", "error"]
    assert mean.value == pytest.approx(np.mean(list(sets.values())))
    assert set(mean.extra["corruptions"]) == names
    shown = [run_view.RunView(name="some", records=records)]
    assert "not to be compared" in section.html(shown)
    assert section.table(shown).row_count == 3  # clean, mean, images


def test_sets_of_one_name_are_told_apart(tmp_path):
    """Two ``.npz`` named alike don't share a folder; the same images go on."""
    rng = np.random.default_rng(0)
    labels = np.arange(4, dtype=np.int32) % 2
    described = []
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        images = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
        np.savez(tmp_path / place / "test.npz", test_images=images, test_labels=labels)
        described.append(
            corrupted_sets.describe(
                str(tmp_path / place / "test.npz"),
                data_dir="",
                split="test",
                image_size=8,
                resize=0,
            )
        )
    out = tmp_path / "out"
    for _ in range(2):  # the same again goes on
        corrupted_sets.write(described[0], out, ["brightness"], quiet=True)
    with pytest.raises(DataError, match="holds sets with digest"):
        corrupted_sets.write(described[1], out, ["brightness"], quiet=True)
    # Other labels alone are other data, too.
    arrays = data.ArraySplit(images, labels)
    turned = data.ArraySplit(images, labels[::-1])
    assert corrupted_files.digest_arrays(arrays) != corrupted_files.digest_arrays(
        turned
    )
    # A folder of before there were digests can be gone on with.
    settings = out / "corruptions.json"
    older = json.loads(settings.read_text())
    del older["digest"]
    settings.write_text(json.dumps(older))
    corrupted_sets.write(described[0], out, ["brightness"], quiet=True)


def test_no_difference_between_runs_measured_on_other_images(folder):
    noisy = {"corruptions": ("impulse_noise",), "severities": (5,)}
    few, more = (measure(network(folder), **noisy, examples=n) for n in (12, 20))
    pages = [
        section.html(
            [run_view.RunView(name=str(i), records=r) for i, r in enumerate(p)]
        )
        for p in ((few, few), (few, more))
    ]
    assert ["1 less 0" in page for page in pages] == [True, False]
    assert "n = 12" in pages[1]
    assert "n = 20" in pages[1]


def test_all_routes_give_the_same_pixels(tmp_path, rng):
    """Made on the fly, written as arrays and written as JPEG files, at 64 pixels."""
    for name in ("a", "b"):
        (tmp_path / "in" / "test" / name).mkdir(parents=True)
        picture = np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((8, 8, 1)))
        picture = Image.fromarray(picture.astype(np.uint8))
        picture.save(tmp_path / "in" / "test" / name / "0.png")
    described = corrupted_sets.describe(
        str(tmp_path / "in"), data_dir="", split="test", image_size=64, resize=0
    )
    sets = ("contrast", "impulse_noise")
    for form in ("npy", "jpeg"):
        corrupted_sets.write(described, tmp_path / form, sets, form=form, quiet=True)
        settings = json.loads((tmp_path / form / "corruptions.json").read_text())
        assert settings["stored_as"] == "jpeg"
        assert settings["strengths"] == "Tiny ImageNet-C"
    images = np.stack(
        [np.asarray(Image.open(tmp_path / "in/test" / n / "0.png")) for n in ("a", "b")]
    )
    for name in sets:
        wanted = corruptions.corrupt(
            jax.random.key(0), images, name, 4, stored_as=corruptions_form(64)
        )
        written = np.load(tmp_path / "npy" / f"{name}.npy")[6:8]
        np.testing.assert_array_equal(written, wanted)
        files = [tmp_path / "jpeg" / name / "4" / n / "0.JPEG" for n in ("a", "b")]
        stored = np.stack([np.asarray(Image.open(file)) for file in files])
        np.testing.assert_array_equal(stored, wanted)
    with pytest.raises(ConfigError, match="'array'"):
        corrupted_sets.write(
            described, tmp_path / "x", sets, form="jpeg", stored_as="array"
        )
    corrupted_sets.write(
        described, tmp_path / "plain", sets, form="npy", stored_as="array", quiet=True
    )
    plain = np.load(tmp_path / "plain" / "contrast.npy")
    assert (plain != np.load(tmp_path / "npy" / "contrast.npy")).any()


def corruptions_form(size):
    return corruptions.published_form((size, size))


def test_records_say_how_images_were_made(folder):
    made = measure(network(folder), corruptions=("contrast",), severities=(1,))
    settings = made[0].extra["settings"]
    assert settings["strengths"] == "CIFAR-10-C"
    assert settings["stored_as"] == "array"


def test_records_say_who_compressed(folder):
    given = {"corruptions": ("jpeg_compression",), "severities": (5,)}
    classifier = network(folder)
    pillow = measure(classifier, **given)
    device = measure(classifier, done=pillow, **given, jpeg="device")
    assert errors(device) == errors(pillow)  # the same images
    assert len(device) == len(pillow)
    assert not {r.data for r in device} & {r.data for r in pillow}
    assert {r.extra["settings"].get("jpeg") for r in pillow} == {None}
    assert {r.extra["settings"]["jpeg"] for r in device} == {"device"}
    both = [*pillow, *device]
    assert measure(classifier, done=both, **given, jpeg="device") == []
    assert measure(classifier, done=both, **given) == []
    for other in ({"corruptions": ("fog",)}, {"source": "folder", "dir": "x"}):
        with pytest.raises(ConfigError, match="jpeg is 'device', but nothing is comp"):
            measure(classifier, **{**given, **other}, jpeg="device")


def verified(described, root, sets, **more):
    found = corrupted_verify.compare(described, root, sets, **more)
    return {(c.name, c.severity): c for c in found}


def test_files_from_elsewhere_are_compared(folder, tmp_path):
    sets = ("contrast", "gaussian_noise", "brightness")
    described = corrupted_sets.describe(
        str(folder), data_dir="", split="test", image_size=8, resize=0
    )
    # Official files are of another draw; these have one that is wrong, too.
    corrupted_sets.write(described, tmp_path, sets, seed=1, quiet=True)
    wrong = np.load(tmp_path / "brightness.npy")
    np.save(tmp_path / "brightness.npy", np.minimum(wrong, 200))
    found = verified(
        described, tmp_path, sets, answer=lambda images: images.mean((1, 2, 3)) > 128
    )
    assert list(found)[:2] == [("contrast", 1), ("contrast", 2)]
    assert len(found) == 15
    with np.load(folder / "test.npz") as stored:
        clean, labels = stored["images"], stored["labels"]
    same, noisy, dark = (found[name, 3] for name in sets)
    assert same.apart == 0
    assert same.theirs == same.ours
    stored = np.load(tmp_path / "contrast.npy")[100:150]
    gap = stored.astype(float) - clean
    assert same.theirs.mean == pytest.approx(gap.mean())
    assert same.theirs.spread == pytest.approx(gap.std())
    wanted = np.mean((stored.mean((1, 2, 3)) > 128) != labels)
    assert same.theirs.error == pytest.approx(wanted)
    assert noisy.apart > 5
    assert noisy.theirs.spread == pytest.approx(noisy.ours.spread, rel=0.1)
    assert dark.theirs.mean < dark.ours.mean - 1
    assert re.search(r"contrast/3: .* in the files, .* 0\.00 apart; 50 im", same.line())
    few = verified(described, tmp_path, ("contrast",), examples=10)
    assert few["contrast", 1].n == 10
    assert few["contrast", 1].ours.error is None
    with pytest.raises(DataError, match=r"lacks fog\.npy"):
        verified(described, tmp_path, ("fog",))


def test_files_in_another_order_are_compared_image_by_image(folder, tmp_path):
    """As those of CIFAR-10-C beside a shuffled set of TensorFlow Datasets."""
    sets = ("contrast", "brightness")
    described = corrupted_sets.describe(
        str(folder), data_dir="", split="test", image_size=8, resize=0
    )
    corrupted_sets.write(described, tmp_path / "C", sets, quiet=True)
    with np.load(folder / "test.npz") as stored:
        order = np.random.default_rng(3).permutation(50)
        (tmp_path / "moved").mkdir()
        np.savez(
            tmp_path / "moved" / "test.npz",
            images=stored["images"][order],
            labels=stored["labels"][order],
        )
    moved = dataclasses.replace(described, data_dir=str(tmp_path / "moved"))
    answer = lambda images: (images.mean((1, 2, 3)) // 64).astype(int)
    for examples in (0, 20):
        knobs = {"answer": answer, "examples": examples}
        wanted = verified(described, tmp_path / "C", sets, **knobs)
        found = verified(moved, tmp_path / "C", sets, **knobs)
        assert all(c.apart == 0 for c in found.values())
        assert all(c.theirs == c.ours for c in found.values())
        assert found == wanted
    other = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), np.uint8)
    with np.load(folder / "test.npz") as stored:
        np.savez(
            tmp_path / "moved" / "test.npz",
            images=other,
            labels=stored["labels"][order],
        )
    with pytest.raises(DataError, match="aren't those of the clean split"):
        verified(moved, tmp_path / "C", sets)


@pytest.mark.parametrize("form", ["npy", "jpeg"])
def test_some_of_the_images_are_compared(tmp_path, rng, form):
    """Those of ``--examples``."""
    for name in ("a", "b"):
        (tmp_path / "in" / "test" / name).mkdir(parents=True)
        for i in range(3):
            picture = rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)
            Image.fromarray(picture).save(tmp_path / "in" / "test" / name / f"{i}.png")
    described = corrupted_sets.describe(
        str(tmp_path / "in"), data_dir="", split="test", image_size=32, resize=0
    )
    out, sets = tmp_path / "out", ("contrast",)
    write = functools.partial(corrupted_sets.write, described, quiet=True)
    write(out, sets, form=form, examples=4)
    found = verified(described, out, sets, answer=lambda x: np.zeros(len(x), int))
    assert {c.n for c in found.values()} == {4}
    assert all(c.apart == 0 for c in found.values())
    assert found["contrast", 1].theirs.error == 0.25  # a, a, a, b
    assert {c.n for c in verified(described, out, sets, examples=2).values()} == {2}
    with pytest.raises(ArgumentError, match="examples is -3"):
        verified(described, out, sets, examples=-3)
    if form == "jpeg":
        shutil.rmtree(out / "contrast" / "1")
        (out / "contrast" / "1").mkdir()
        with pytest.raises(DataError, match="has no image by the name of a clean one"):
            verified(described, out, sets)


COMMAND = """
import runpy, sys
from apr_jax import models
from tests import toy
models.MODELS["tiny"] = toy.TinyNet
runpy.run_module("apr_jax.corruptions", run_name="__main__", alter_sys=True)
"""


def command(*arguments, status=0):
    process = toy.start("-c", COMMAND, *arguments)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == status, output
    assert "Traceback" not in output
    return output


@pytest.mark.slow
def test_the_command_refuses_less_than_no_images(folder, tmp_path):
    given = ["--data", folder / "test.npz", "--image_size=8", "--examples=-3"]
    said = command(*given, "--out", tmp_path / "C", status=2)
    assert "error: examples is -3; it must be" in said
    assert not (tmp_path / "C").exists()


def test_places_and_sizes_that_there_cannot_be(folder, tmp_path):
    describe = functools.partial(
        corrupted_sets.describe, str(folder), data_dir="", split="test"
    )
    with pytest.raises(ArgumentError, match="resize is -3"):
        describe(image_size=8, resize=-3)
    described = describe(image_size=8, resize=0)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"can't make the folder .*file: File exists"):
        corrupted_sets.write(described, tmp_path / "file", SETS, quiet=True)
    for place in ("file", "nowhere"):
        with pytest.raises(DataError, match=f"{place} is no folder of corrupted"):
            verified(described, tmp_path / place, SETS)


@pytest.mark.slow
def test_the_command_tells_the_errors_of_a_run(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(models.MODELS, "tiny", toy.TinyNet)
    run = tmp_path / "run"
    config = toy.config(folder, optim__epochs=1.0, augment__method="standard")
    with contextlib.ExitStack() as held:
        (plan,) = job._prepared([config], [run], held)
        loop.train(plan, quiet=True)
    given = ["--data", folder, "--image_size=8", "--corruptions=contrast"]
    command(*given, "--out", tmp_path / "C", "--examples=30", "--quiet")
    said = command(*given, "--verify", tmp_path / "C", "--network", run)
    lines = [line for line in said.splitlines() if line.startswith("contrast/")]
    assert len(lines) == 5
    found = classifier_lib.from_run(run)
    images = np.load(tmp_path / "C" / "contrast.npy")[:30]
    logits, _ = found.predict(found.variables, jnp.asarray(images))
    labels = np.load(tmp_path / "C" / "labels.npy")[:30]
    wrong = 100 * np.mean(np.asarray(logits).argmax(1) != labels)
    assert lines[0].endswith(
        f"0.00 apart; 30 images; errors {wrong:.1f} % and {wrong:.1f} %"
    )


def test_a_tree_from_elsewhere_is_compared(tmp_path, rng):
    for name in ("a", "b"):
        (tmp_path / "in" / "test" / name).mkdir(parents=True)
        picture = Image.fromarray(rng.integers(0, 256, (64, 64, 3)).astype(np.uint8))
        picture.save(tmp_path / "in" / "test" / name / "0.png")
    described = corrupted_sets.describe(
        str(tmp_path / "in"), data_dir="", split="test", image_size=64, resize=0
    )
    out = tmp_path / "out"
    corrupted_sets.write(described, out, ("contrast",), form="jpeg", quiet=True)
    found = verified(described, out, ("contrast",))
    assert [c.apart for c in found.values()] == [0] * 5
    (out / "contrast" / "2" / "b" / "0.JPEG").unlink()
    with pytest.raises(DataError, match=r"b/0\.JPEG is missing"):
        verified(described, out, ("contrast",))
