"""Names of classes, their order, and labels that must not be bent to fit."""

import codecs

import numpy as np
import pytest

from apr_jax import data
from apr_jax.data import arrays, classes, corrupted, corrupted_sets, samples
from apr_jax.errors import ConfigError, DataError, UserError
from tests.data.test_data import settings

NAMES = ("äpfel", "b c", "d")
TEXTS = {
    "as ever": "äpfel\nb c\nd\n".encode(),
    "no final newline": "äpfel\nb c\nd".encode(),
    "mark": codecs.BOM_UTF8 + "äpfel\nb c\nd\n".encode(),
    "UTF-16": "äpfel\nb c\nd\n".encode("utf-16"),
    "Latin-1": "äpfel\nb c\nd\n".encode("latin-1"),
    "blank end": "äpfel\nb c\nd\n\n  \n".encode(),
    "Windows": "äpfel\r\nb c\r\nd\r\n".encode(),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_names_in_a_text(tmp_path, kind):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "class_names.txt").write_bytes(TEXTS[kind])
    np.savez(
        tmp_path / "data" / "train.npz",
        images=np.zeros((3, 8, 8, 3), np.uint8),
        labels=np.arange(3),
    )
    assert data.load(settings(tmp_path), splits=("train",)).class_names == NAMES


@pytest.mark.parametrize(("text", "line"), [("", 1), ("a\n\nb\n", 2)])
def test_a_blank_line_is_no_name(tmp_path, text, line):
    (tmp_path / "x.txt").write_text(text)
    with pytest.raises(DataError, match=rf"line {line} of .*x\.txt is blank"):
        classes.read_text(tmp_path / "x.txt")


@pytest.mark.parametrize("reader", ["txt", "npz"])
def test_two_classes_need_two_names(tmp_path, reader):
    names = ["crane", "dog", "crane", "cat", "crane"]
    if reader == "txt":
        (tmp_path / "x.txt").write_text("\n".join(names))
        message = r"lines 1 and 3 and 5 of .*x\.txt are all 'crane'"
        with pytest.raises(DataError, match=message):
            classes.read_text(tmp_path / "x.txt")
    else:
        message = "class_names 0 and 2 and 4 of x are all 'crane'"
        with pytest.raises(DataError, match=message):
            classes.of_array(np.array(names), "x")


def test_names_in_an_archive():
    assert classes.of_array(np.array(["a", "b"]), "x") == ("a", "b")
    assert classes.of_array(np.array([b"a", b"b"]), "x") == ("a", "b")
    for wrong in (np.arange(2), np.array([["a"]])):
        with pytest.raises(DataError, match="class_names of x are"):
            classes.of_array(wrong, "x")


def read_arrays(root, labels):
    images = np.zeros((len(labels), 8, 8, 3), np.uint8)
    np.savez(root / "train.npz", images=images, labels=labels)
    return arrays.read(settings(root, data_dir=str(root)), "train").split.labels


def read_corrupted(root, labels):
    np.save(root / "labels.npy", labels)
    np.save(root / "fog.npy", np.zeros((5 * len(labels), 8, 8, 3), np.uint8))
    corrupted.check_npy(root, ["fog"], image_size=8, num_classes=10)
    return corrupted.read_npy(root, "fog", 1, len(labels)).labels


def read_extra(root, labels):
    """Of an archive of extra images."""
    images = np.zeros((10, 8, 8, 3), np.uint8)
    for name in ("train", "test"):
        np.savez(root / f"{name}.npz", images=images, labels=np.arange(10))
    np.savez(root / "more.npz", images=images, labels=labels)
    where = settings(root, data_dir=str(root), extra_dirs=(str(root / "more.npz"),))
    return data.load(where).extra.labels


READERS = [read_arrays, read_corrupted, read_extra]


@pytest.mark.parametrize("reader", READERS)
def test_labels_are_not_bent(tmp_path, reader):
    assert reader(tmp_path, np.arange(10)).tolist() == list(range(10))
    for wrong in (
        np.arange(10) + 2**32,
        np.arange(10) - 1,
        np.r_[np.arange(9), 10**9],
        np.arange(10.0),
        np.arange(10) > 5,
        np.arange(10)[:, None],
    ):
        with pytest.raises(DataError, match="label"):
            reader(tmp_path, wrong)


# --- So many examples.


def list_tree(root, count):
    for i in range(5):
        path = root / "fog" / "1" / "cat" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = corrupted.list_tree(root, "fog", 1, ("cat",), examples=count)
    assert len(found.files) == count


EXAMPLES = {
    "subset": lambda _, n: samples.subset(10, n, 0),
    "watched": lambda _, n: samples.watched(
        data.ArraySplit(np.zeros((10, 2, 2, 3), np.uint8), np.arange(10)), n
    ),
    "hold_out": lambda _, n: samples.hold_out(10, n),
    "list_tree": list_tree,
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_fewer_than_no_examples(tmp_path, name):
    EXAMPLES[name](tmp_path, 3)
    with pytest.raises(UserError, match="is -3; it must be"):
        EXAMPLES[name](tmp_path, -3)


def test_the_command_writes_no_part_of_a_negative_number(tmp_path):
    described = corrupted_sets.describe(
        "bundled", data_dir="", split="test", image_size=32, resize=0
    )
    with pytest.raises((ConfigError, UserError), match="examples is -3"):
        corrupted_sets.write(described, tmp_path, ["fog"], examples=-3, quiet=True)
    assert not list(tmp_path.iterdir())


def test_two_images_of_one_stem_are_refused_before_anything_is_written(tmp_path):
    rng = np.random.default_rng(0)
    from PIL import Image

    for name in ("0.png", "0.jpg", "1.png"):
        path = tmp_path / "data" / "test" / "cat" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    described = corrupted_sets.describe(
        str(tmp_path / "data"), data_dir="", split="test", image_size=8, resize=0
    )
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"cat/0.jpg and cat/0.png .* cat/0.JPEG"):
        corrupted_sets.write(described, out, ["fog"], form="jpeg", quiet=True)
    assert not out.exists()
