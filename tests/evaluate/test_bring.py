"""A network from elsewhere, measured in one call: its data, classes and records."""

import dataclasses
import sys

import jax
import numpy as np
import pytest
from PIL import Image

import apr_jax
from apr_jax import config as config_lib
from apr_jax import robustness_card, zoo
from apr_jax.data import described
from apr_jax.errors import ConfigError, DataError
from apr_jax.evaluate import bring as bring_lib
from apr_jax.evaluate import card, classifier, clean, command
from apr_jax.runs import records
from tests import toy

SHADES = np.float32([0.16, 0.33, 0.51, 0.69])  # of the classes of ``toy.write_arrays``
FILE = """
import numpy as np
from shades import SHADES

def create():
    return lambda images: -abs(images.mean((1, 2)).mean(-1)[:, None] - SHADES)

def five():
    return lambda images: images.mean((1, 2)) @ np.ones((3, 5), np.float32)

def of_classes(count):
    return create()

broken = 3
"""


def by_shade(images):
    return -abs(images.mean((1, 2, 3))[:, None] - SHADES[None])


@pytest.fixture
def arrays(folder):
    with np.load(folder / "test.npz") as stored:
        return stored["images"], stored["labels"]


@pytest.fixture
def file(tmp_path):
    (tmp_path / "shades.py").write_text(f"SHADES = {SHADES.tolist()}\n")
    (tmp_path / "by_shade.py").write_text(FILE.replace("SHADES)", "np.array(SHADES))"))
    yield str(tmp_path / "by_shade.py")
    for name in ("shades", "by_shade"):
        sys.modules.pop(name, None)


def of(found, job, metric):
    return [r for r in found if r.job == f"evaluate.{job}" and r.metric == metric]


def test_one_call(arrays, tmp_path, capsys):
    images, labels = arrays
    noise = tmp_path / "noise.npy"
    np.save(noise, images[::-1])
    measure = lambda: apr_jax.robustness_card(
        by_shade,
        data=arrays,
        out=tmp_path / "out",
        quiet=True,
        corruption={"corruptions": ("contrast",), "severities": (1, 5)},
        ood={"out": (f"noise=arrays:{noise}",)},
        adversarial={"attack": "apgd-ce", "steps": 3, "examples": 10},
        fourier={"parts": ("phase",), "examples": 10},
    )
    found = measure()
    right = np.mean(by_shade(images / np.float32(255)).argmax(1) == labels)
    assert right > 0.9
    (accuracy,) = of(found, "clean", "accuracy")
    assert (accuracy.value, accuracy.n) == (pytest.approx(right), 50)
    assert accuracy.extra["classifier"] == "by_shade"
    assert {r.split for r in of(found, "corruption", "error")} >= {"contrast/5"}
    assert of(found, "adversarial", "robust_accuracy")
    assert of(found, "fourier", "follows_phase")
    scores = {r.metric.partition(".")[0] for r in found if r.job == "evaluate.ood"}
    assert scores == {"msp", "max_logit", "energy", "entropy", "gen", "odin", "authors"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "by_shade" in page
    assert "wrn_40_2" not in page
    # Again, and nothing but the short part is measured.
    count = len(records.read(tmp_path / "out" / "results.jsonl"))
    added = len([r for r in found if r.job == "evaluate.clean"])
    measure()
    assert len(records.read(tmp_path / "out" / "results.jsonl")) == count + added
    # Other images in the same place are refused, as those of another run.
    with pytest.raises(ConfigError, match="was measured on other images"):
        apr_jax.robustness_card(
            by_shade, data=(images[:40], labels[:40]), out=tmp_path / "out"
        )


@pytest.mark.parametrize("name", ["card", "clean"])
def test_a_file_of_python(file, folder, tmp_path, capsys, name):
    out = tmp_path / "out"
    given = {"model": file, "source_of_data": f"arrays:{folder}", "classes": None}
    if name == "card":
        card.run((), {"parts": ("clean",)}, foreign=given, out=out, quiet=True)
    else:
        command.run(given, clean.measure, None, workdir=out, quiet=True)
    found = records.read(out / "results.jsonl")
    assert of(found, "clean", "accuracy")[0].value > 0.9
    assert of(found, "clean", "accuracy")[0].extra["classifier"] == "by_shade"
    assert (out / "report.html").exists()


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("FILE:five", "are for 5 classes, not 4"),
        ("FILE:six", "no function 'six'; it has create, five"),
        ("FILE:broken", "no function 'broken'"),
        ("none.py", "isn't there"),
        ("net.pth", "write FILE.py or FILE.py:create, timm:NAME, torchvision:NAME"),
        ("zoo:none", "model is 'zoo:none'; the zoo has cifar10_airbench94_apr_p"),
        ("FILE:of_classes", "is called without arguments, and missing a required arg"),
    ],
)
def test_a_file_that_makes_no_network(file, arrays, spec, said):
    with pytest.raises(ValueError, match=said):
        bring_lib.bring(spec.replace("FILE", file), arrays)


def test_few_images_take_small_batches(arrays, tmp_path):
    images, labels = (part[:4] for part in arrays)
    shapes = []

    def seen(x):
        shapes.append(np.shape(x)[0])
        return by_shade(x)

    apr_jax.robustness_card(
        seen,
        data=(images, labels),
        out=tmp_path / "out",
        classes=4,
        quiet=True,
        parts=("clean", "corruption", "fourier", "adversarial"),
        corruption={"corruptions": ("contrast",), "severities": (1,)},
        fourier={"parts": ("heatmap",), "extent": 3, "examples": 4},
        adversarial={"attack": "fgsm", "examples": 4},
    )
    assert max(shapes) <= 4


@pytest.mark.parametrize("limits", [(0, 255), (-1, 1)])
def test_pixels_of_another_range_are_found_out(arrays, limits):
    low, high = limits
    wants = lambda x: by_shade((x - low) / (high - low))
    about = {"classes": 4, "image_size": 8, "name": "net"}
    wrong = classifier.Classifier.from_function(wants, **about)
    said = rf"of 32 images 'net' recognises \d+ .*, and \d+ with range=\({low}, {high}"
    with pytest.raises(ValueError, match=said):
        bring_lib.bring(wrong, arrays)
    right = classifier.Classifier.from_function(wants, range=limits, **about)
    assert bring_lib.bring(right, arrays).classifier.class_names == tuple("0123")


def test_classes_in_another_order_are_suspected(arrays, capsys):
    turned = lambda x: by_shade(x)[:, jax.numpy.array([1, 2, 3, 0])]
    bring_lib.bring(turned, arrays)
    assert "no more than by chance: are its classes" in capsys.readouterr().err


@pytest.fixture
def pictures(arrays, tmp_path):
    """Folders of two of the four classes."""
    for i, (image, label) in enumerate(zip(*arrays, strict=True)):
        if label in (1, 3):
            path = tmp_path / "pictures" / "abcd"[label] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return tmp_path / "pictures"


@pytest.mark.parametrize("split", ["", "val"])
def test_a_folder_with_some_of_the_classes(pictures, tmp_path, monkeypatch, split):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if split:
        pictures.rename(tmp_path / split)
    place = f"folder:{tmp_path if split else pictures}"
    brought = bring_lib.bring(by_shade, place, classes=["a", "b", "c", "d"])
    assert brought.classifier.class_names == tuple("abcd")
    assert brought.classifier.config.data.image_size == 8
    ((_, labels),) = brought.resident.splits.values()
    assert set(labels) == {1, 3}
    with pytest.raises(
        DataError, match=r"2 classes \(b, d, …\), the network 4 .* name"
    ):
        bring_lib.bring(by_shade, place, classes=4)
    with pytest.raises(DataError, match="missing"):
        bring_lib.bring(by_shade, place, classes=["a", "B", "c", "d"])


def test_arrays_need_no_training_split_and_not_every_class(arrays, tmp_path):
    images, labels = arrays
    kept = labels != 0
    np.savez(tmp_path / "some.npz", images=images[kept], labels=labels[kept])
    brought = bring_lib.bring(by_shade, f"arrays:{tmp_path}/some.npz", classes=4)
    (split,) = brought.resident.splits.values()
    np.testing.assert_array_equal(split.labels, labels[kept])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("cifar10", {"name": "cifar10", "test_split": "test", "image_size": 32}),
        ("svhn_cropped/train", {"name": "svhn_cropped", "test_split": "train"}),
        ("imagenet2012", {"test_split": "validation", "streaming": True}),
        ("bundled", {"source": "bundled", "shifted_splits": ("test_shifted",)}),
    ],
)
def test_data_in_a_word(text, wanted):
    found = config_lib.to_dict(config_lib.Config(data=described.parse(text)))["data"]
    assert {name: found[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "data is ''"),
        ("tfds:cifar10", "write the name of a set"),
        ("./images", "folder:PATH, arrays:PATH or parquet:PATH"),
        ("a.npz", "write the name of a set"),
        ("array:a.npz", "write the name of a set"),
        ("parquet:/none", "no folder"),
        ("folder:/none", "no folder"),
        ("arrays:/none", "isn't there"),
    ],
)
def test_data_that_are_none(text, said):
    with pytest.raises(ValueError, match=said):
        described.parse(text)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ((np.arange(5), np.arange(5)), r"have the shape \[5\]"),
        ("bundled", "parts is 'clean'; it must be a sequence of names, such as"),
    ],
)
def test_what_a_card_can_not_take(tmp_path, data, said):
    parts = "clean" if isinstance(data, str) else ("clean",)
    with pytest.raises(ValueError, match=said):
        robustness_card(by_shade, data=data, out=tmp_path / "out", parts=parts)
    assert not (tmp_path / "out").exists()


def test_a_network_of_the_zoo_on_other_data(tmp_path, rng, monkeypatch):
    """Of an image in Parquet files it answers as by itself."""
    pytest.importorskip("pyarrow")
    from tests.data import test_parquet

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    name = zoo.names()[0]
    classes = zoo.about(name).class_names
    images = rng.integers(0, 256, (12, 32, 32, 3), np.uint8)
    labels = np.arange(12) % 10
    place = tmp_path / "photographs"
    file = place / "data" / test_parquet.numbered("test")
    test_parquet.write(file, images, labels, names=classes)
    brought = bring_lib.bring(f"zoo:{name}", f"parquet:{place}")
    assert brought.root.name == f"{name}_photographs"
    assert brought.classifier.class_names == classes
    (split,) = brought.resident.splits.values()
    np.testing.assert_array_equal(split.images, images)
    np.testing.assert_array_equal(split.labels, labels)
    own = zoo.load(name)
    answers = [np.asarray(c.predict(c.variables, images)[0]) for c in (own, brought[0])]
    np.testing.assert_array_equal(*answers)


def test_the_program(file, folder, tmp_path, monkeypatch, capsys):
    """The command itself, with the class names from a file."""
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\n")
    done = toy.start(
        "-m",
        "apr_jax.evaluate.clean",
        f"--model={file}",
        f"--data=arrays:{folder}",
        f"--classes={tmp_path}/names.txt",
        f"--workdir={tmp_path}/out",
        "--quiet",
    )
    said, _ = done.communicate()
    assert done.returncode == 0, said
    assert (tmp_path / "out" / "classes.json").read_text().split('"')[1] == "a"


@pytest.mark.parametrize(("resize", "shorter"), [(0, 8), (10, 10)])
def test_larger_arrays_are_cut_as_the_network_says(rng, resize, shorter):
    pictures = rng.integers(0, 256, (4, 20, 24, 3), np.uint8)
    network = classifier.Classifier.from_function(
        by_shade, classes=4, image_size=8, resize=resize
    )
    brought = bring_lib.bring(network, (pictures, np.arange(4)))
    found = brought.resident.splits["test"].images
    wide = [
        Image.fromarray(x).resize((int(shorter * 24 / 20), shorter), 2)
        for x in pictures
    ]
    wanted = [np.asarray(x) for x in wide]
    top, left = (shorter - 8) // 2, round((wanted[0].shape[1] - 8) / 2)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other[top : top + 8, left : left + 8])
    with pytest.raises(ValueError, match="resize is 7; it must be at least"):
        classifier.Classifier.from_function(by_shade, classes=4, image_size=8, resize=7)


def test_images_that_are_no_squares_are_said_to_be_cropped(arrays, capsys):
    images, labels = arrays
    wide = np.concatenate([images, images], axis=2)
    usual = config_lib.default().data
    about = dataclasses.replace(usual, image_size=images.shape[1])
    resident, _ = described.of_arrays(about, wide, labels)
    height, width = wide.shape[1:3]
    assert f"images of {height} x {width} are resized and cr" in capsys.readouterr().err
    assert resident.splits[about.test_split].images.shape == images.shape
