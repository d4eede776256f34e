"""The same classes on images from elsewhere: labels, masks, gaps, what is refused."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from apr_jax import config as config_lib
from apr_jax import data, metrics, parallel
from apr_jax.errors import ConfigError, DataError
from apr_jax.evaluate import at_hand, card, cue_conflict, shift, shift_sets
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate.context import Context
from tests import toy

NAMES = ("ant", "bee", "cow", "dog")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    toy.write_arrays(folder)
    return folder


@pytest.fixture(scope="module")
def photos(folder):
    """Darker images of two classes, as arrays and as a folder of both."""
    rng = np.random.default_rng(3)
    labels = np.repeat([1, 3], 12)
    levels = 40 + 45 * labels + rng.integers(-95, 70, 24)
    images = np.clip(levels[:, None, None, None], 0, 255).astype(np.uint8)
    images = np.broadcast_to(images, (24, 8, 8, 3))
    np.savez(folder / "photos.npz", images=images, labels=labels)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = folder / "photos" / NAMES[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number:02}.png")
    return images, labels


def shade(images):
    """Logits that tell the shades of the toy classes apart."""
    level = 255 * images.mean((1, 2, 3))
    return -jnp.abs(level[:, None] - (40.0 + 45.0 * jnp.arange(4))[None]) / 20


def measure(folder, *sets, done=(), **given):
    config = toy.config(folder)
    network = classifier_lib.from_function(shade, config, NAMES, name="shade")
    settings = config_lib.Shift(shift=sets, **given)
    context = Context(parallel.make_layout(1), done=done, quiet=True)
    return list(shift.measure(network, settings, context))


def test_folders_and_arrays_give_the_same(folder, photos):
    """Only the two classes that occur may be answered, on clean images, too."""
    images, labels = photos
    found = measure(
        folder,
        *(f"as_arrays=arrays:{folder}/photos.npz", f"photos=folder:{folder}/photos"),
    )
    numbers = {(r.split, r.metric): r for r in found}
    for metric in ("accuracy", "nll", "ece", "brier", "gap", "clean_accuracy"):
        pair = [numbers[name, metric].value for name in ("as_arrays", "photos")]
        assert pair[0] == pytest.approx(pair[1], abs=1e-6), metric
    two = np.asarray(shade(jnp.asarray(images) / 255.0))[:, [1, 3]]
    right = np.array([1, 3])[two.argmax(1)] == labels
    assert 0.3 < right.mean() < 1
    own = numbers["photos", "accuracy"]
    assert (own.value, own.n) == (pytest.approx(right.mean()), 24)
    assert (own.extra["classes"], own.extra["of"]) == (2, 4)
    clean = data.load(toy.config(folder).data, splits=("test",)).splits["test"]
    mine = np.isin(clean.labels, (1, 3))
    pixels = jnp.asarray(np.asarray(clean.images)[mine]) / 255.0
    said = np.array([1, 3])[np.asarray(shade(pixels))[:, [1, 3]].argmax(1)]
    wanted = np.mean(said == clean.labels[mine])
    beside = numbers["photos", "clean_accuracy"]
    assert (beside.value, beside.n) == (pytest.approx(wanted), mine.sum())
    gap = numbers["photos", "gap"]
    assert gap.value == pytest.approx(wanted - right.mean())
    # Newcombe's interval of both.
    room = [own.high - own.value, beside.value - beside.low]
    assert gap.low == pytest.approx(gap.value - np.hypot(*room))
    assert gap.n == 24
    assert ("photos", "effective_robustness") not in numbers
    again = measure(folder, f"photos=folder:{folder}/photos", done=found)
    assert [r.value for r in again] == []


def test_effective_robustness_by_a_published_line(folder, photos):
    found = measure(folder, f"cifar10_1=arrays:{folder}/photos.npz")
    numbers = {r.metric: r for r in found}
    predicted = 1.69 * numbers["clean_accuracy"].value - 0.727
    beyond = numbers["effective_robustness"]
    assert beyond.value == pytest.approx(numbers["accuracy"].value - predicted)
    assert beyond.low < beyond.value < beyond.high
    assert "Recht" in beyond.extra["source"]
    assert found[-1].metric == "accuracy"
    assert shift._tfds_name("tfds:cifar10_1/test") == "cifar10_1"
    assert shift._tfds_name("folder:cifar10_1") == ""


def test_newcombe_s_interval():
    """As in his article of 1998 (56/70 less 48/80: 0.0524 to 0.3339)."""
    lost = shift.difference(metrics.wilson(56, 70), metrics.wilson(48, 80))
    assert (lost.low, lost.high) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_some_images_of_another_size(folder, photos, tmp_path):
    images, labels = photos
    large = np.repeat(np.repeat(images, 2, axis=1), 2, axis=2)
    np.savez(tmp_path / "large.npz", test_images=large, test_labels=labels)
    where = f"large=arrays:{tmp_path}/large.npz"
    numbers = {r.metric: r for r in measure(folder, where)}
    same = {r.metric: r for r in measure(folder, f"a=arrays:{folder}/photos.npz")}
    assert numbers["accuracy"].value == same["accuracy"].value
    few = {r.metric: r for r in measure(folder, where, examples=10)}
    assert few["accuracy"].n == 10
    assert few["accuracy"].extra["classes"] == 2
    with pytest.raises(DataError, match="16 x 16 and the classifier takes 8 x 8"):
        measure(folder, where, fit="refuse")


def test_a_set_of_tfds_is_looked_for_where_it_is_said(folder, photos, monkeypatch):
    """Its classes, in an order of their own, go by name."""
    images, labels = photos
    asked = []

    def load(wanted, *, splits):
        asked.append((wanted.source, wanted.name, wanted.data_dir, *splits))
        split = data.ArraySplit(images, (labels == 1).astype(np.int32))
        return data.DataSet("v2", ("dog", "bee"), dict.fromkeys(splits, split), "x")

    with monkeypatch.context() as patch:
        patch.setattr(shift_sets.data, "load", load)
        opened = shift_sets.open_set(
            *("v2", "tfds", "imagenet_v2", toy.config(folder).data, NAMES),
            config_lib.Shift(tfds_dir="/sets"),
            seed=0,
        )
    assert asked == [("tfds", "imagenet_v2", "/sets", "test")]
    assert opened.classes.tolist() == [1, 3]
    (batch,) = opened.batches(24)
    np.testing.assert_array_equal(batch.label, labels)


def test_shape_or_texture(tmp_path):
    """The left half is the shape, the right half the texture; brightness says which."""
    order = list(cue_conflict.CATEGORIES)
    for shape, texture, follows in (
        *(("cat", "elephant", "shape"), ("dog", "cat", "texture")),
        *(("oven", "boat", "shape"), ("car", "knife", "none"), ("bird", "bird", "")),
    ):
        said = {"shape": shape, "texture": texture}.get(follows, "clock")
        image = np.full((8, 8, 3), 8 + 15 * order.index(said), np.uint8)
        (tmp_path / shape).mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / shape / f"{shape}7-{texture}12.png")

    def sure(images):
        level = (255 * images.mean((1, 2, 3)) - 8) / 15
        return -jnp.abs(level[:, None] - jnp.arange(16.0)[None])

    (tmp_path / "data").mkdir()
    config = toy.config(tmp_path / "data")
    network = classifier_lib.from_function(sure, config, order, name="sure")
    settings = config_lib.Shift(cue_conflict=str(tmp_path))
    context = Context(parallel.make_layout(1), quiet=True)
    found = list(shift.measure(network, settings, context))
    numbers = {r.metric: r for r in found}
    assert numbers["follows_shape"].value == pytest.approx(2 / 4)
    assert numbers["follows_texture"].value == pytest.approx(1 / 4)
    assert numbers["shape_bias"].value == pytest.approx(2 / 3)
    assert (numbers["shape_bias"].n, numbers["follows_shape"].n) == (3, 4)
    assert numbers["shape_bias"].extra["left_out"] == 1
    again = Context(parallel.make_layout(1), done=found, quiet=True)
    assert list(shift.measure(network, settings, again)) == []
    (tmp_path / "cat" / "cat7.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"'cat/cat7\.png' isn't called after a"):
        list(shift.measure(network, settings, context))


def test_categories_of_imagenet():
    """207 classes, no two the same; the mean over a category's, not their sum."""
    chosen = cue_conflict.classes_of([str(i) for i in range(1000)])
    every = [i for own in chosen for i in own]
    sizes = dict(zip(cue_conflict.CATEGORIES, map(len, chosen), strict=True))
    assert len(set(every)) == len(every) == 207
    assert (sizes["dog"], sizes["bird"], sizes["truck"]) == (109, 49, 8)
    assert not {192, 204, 227, 242, 251, 258, 260, 264, 9, 17, 21, 134} & set(every)
    logits = np.full((3, 1000), -20.0)
    logits[0, 499] = 1  # a knife, and half as sure of each of two dogs
    logits[0, [152, 153]] = 0.9
    logits[1, list(cue_conflict.CATEGORIES["dog"])] = 2
    logits[2, 0] = np.nan
    said = cue_conflict.decisions(logits, chosen)
    order = list(cue_conflict.CATEGORIES)
    assert said.tolist() == [order.index("knife"), order.index("dog"), -1]
    with pytest.raises(DataError, match="sixteen categories; this one has 10"):
        cue_conflict.classes_of(["cat", *"123456789"])


def test_a_network_that_knows_some_categories_is_asked_about_these(tmp_path):
    """CIFAR-10's classes: seven categories, two of them by other names."""
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse"]
    own = cue_conflict.classes_of([*names, "ship", "truck"])
    chosen = dict(zip(cue_conflict.CATEGORIES, own, strict=True))
    assert {name: own for name, own in chosen.items() if own} == {
        "airplane": (0,),
        "car": (1,),
        "bird": (2,),
        "cat": (3,),
        "dog": (5,),
        "boat": (8,),
        "truck": (9,),
    }
    logits = np.zeros((2, 10))
    logits[0, 4], logits[0, 8] = 9, 1  # a deer, else a boat
    logits[1, 1] = 1
    order = list(cue_conflict.CATEGORIES)
    said = cue_conflict.decisions(logits, list(chosen.values()))
    assert said.tolist() == [order.index("boat"), order.index("car")]

    for name in ("cat1-dog2.png", "cat3-oven1.png", "bear1-cat1.png"):
        Image.fromarray(np.full((8, 8, 3), 175, np.uint8)).save(tmp_path / name)
    (tmp_path / "data").mkdir()
    settings = config_lib.Shift(cue_conflict=str(tmp_path))
    network = classifier_lib.from_function(
        shade, toy.config(tmp_path / "data"), ("cat", "bee", "car", "dog"), name="few"
    )
    context = Context(parallel.make_layout(1), quiet=True)
    found = {r.metric: r for r in shift.measure(network, settings, context)}
    assert found["follows_texture"].value == 1
    about = found["shape_bias"].extra
    assert (about["left_out"], about["categories"]) == (2, 3)


def test_a_card_measures_what_it_can_of_a_part(folder, photos, tmp_path, capfd):
    """Cue conflicts that can't be take neither shifted sets nor sequences with them."""
    frames = np.zeros((2, 3, 8, 8, 3), np.uint8)
    np.save(tmp_path / "tilt.npy", frames)
    (tmp_path / "none").mkdir()
    given = {
        "shift": (f"photos=arrays:{folder / 'photos.npz'}",),
        "cue_conflict": str(tmp_path / "none"),
        "perturbations": str(tmp_path),
    }
    config = toy.config(folder, eval__parts=("shift",))
    own = config_lib.Shift(**given)
    config = dataclasses.replace(
        config, eval=dataclasses.replace(config.eval, shift=own)
    )
    network = classifier_lib.from_function(shade, config, NAMES, name="shade")
    context = Context(parallel.make_layout(1), quiet=True)
    found = list(card.measure(network, None, context))
    assert {r.split for r in found} == {"photos", "perturbation/tilt"}
    assert "shift is left out: cue conflicts are for" in capfd.readouterr().err


def test_a_card_takes_the_usual_sets_that_are_prepared(monkeypatch):
    config = config_lib.default()
    there = {"cifar10_1"}
    monkeypatch.setattr(at_hand.tfds, "is_prepared", lambda data: data.name in there)
    settings_of = functools.partial(at_hand.settings_of, "shift")
    assert settings_of(config).shift == ("cifar10_1=tfds:cifar10_1",)
    conflicts = config_lib.parse({"eval": {"shift": {"cue_conflict": "a"}}})
    assert settings_of(conflicts).shift == ("cifar10_1=tfds:cifar10_1",)
    there.clear()
    assert settings_of(conflicts).shift == ()
    with pytest.raises(DataError, match=r"sets \(cifar10_1\) none is prepared"):
        settings_of(config)
    own = config_lib.parse({"eval": {"shift": {"shift": ("a=folder:b",)}}})
    assert settings_of(own).shift == ("a=folder:b",)
    other = config_lib.parse({"data": {"name": "cifar100"}})
    with pytest.raises(DataError, match=r"eval\.shift\.shift is empty$"):
        settings_of(other)


@pytest.mark.parametrize(
    ("name", "out", "near"),
    [
        ("cifar10", ("svhn_cropped", "cifar100"), ("cifar100",)),
        ("cifar100", ("svhn_cropped", "cifar10"), ("cifar10",)),
        ("cifar10_1", ("svhn_cropped", "cifar100"), ("cifar100",)),
        ("cifar10_corrupted:fog_1", ("svhn_cropped", "cifar100"), ("cifar100",)),
        ("mnist", ("svhn_cropped", "cifar10", "cifar100"), ()),
        ("svhn_cropped", ("cifar10", "cifar100"), ()),
    ],
)
def test_the_usual_out_sets_are_unknown_and_near_only_to_cifar(
    monkeypatch, name, out, near
):
    monkeypatch.setattr(at_hand.tfds, "is_prepared", lambda data: True)
    settings = at_hand.settings_of("ood", config_lib.parse({"data": {"name": name}}))
    assert settings.out == tuple(f"{each}=tfds:{each}" for each in out)
    assert settings.near == near
    given = {"data": {"name": name}, "eval": {"ood": {"near": out[:1]}}}
    assert at_hand.settings_of("ood", config_lib.parse(given)).near == out[:1]


def test_classes_go_by_name_or_number():
    of = lambda names: shift_sets.labels_of(names, NAMES, "there").tolist()
    assert of(["dog", "bee"]) == [3, 1]
    assert of(["0", "2"]) == [0, 2]
    with pytest.raises(DataError, match="lacks 1, such as 'eel'; its 4 are 'ant'"):
        of(["bee", "eel"])
    with pytest.raises(DataError, match="lacks 2, such as '0'"):
        of(["0", "4"])


@pytest.mark.parametrize(
    ("sets", "kind", "message"),
    [
        ((), ConfigError, "nothing to measure: give --shift"),
        (("x",), ConfigError, "shift is 'x'; write name=source:where"),
        (("x=web:y",), ConfigError, "shift 'x' has the source 'web'"),
        (("x=arrays:y", "x=arrays:z"), ConfigError, "shift has 'x' twice"),
        (("test=arrays:y",), ConfigError, "'test', which is a split of the data"),
        (("x=folder:/nowhere",), DataError, "shift 'x': '/nowhere' is no folder"),
        (("x=arrays:/nowhere",), DataError, "shift 'x': '/nowhere' is neither"),
    ],
)
def test_what_is_refused(folder, sets, kind, message):
    with pytest.raises(kind, match=message):
        measure(folder, *sets)


def test_arrays_need_labels_of_the_classes(folder, tmp_path):
    images = np.zeros((3, 8, 8, 3), np.uint8)
    path = tmp_path / "some.npz"
    for arrays, message in (
        ({}, "no labels or test_labels"),
        ({"labels": [0, 1, 4]}, "labels from 0 to 4; the classifier's 4 classes"),
        ({"labels": [2, 2, 2]}, "one class alone"),
    ):
        np.savez(path, images=images, **arrays)
        with pytest.raises(DataError, match=message):
            measure(folder, f"x=arrays:{path}")
