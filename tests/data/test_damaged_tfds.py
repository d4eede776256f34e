"""TFDS sets whose files are damaged or missing, and splits that can't be."""

import dataclasses
import json
import shutil

import pytest

from apr_jax import data
from apr_jax.data import imagenet, tfds
from apr_jax.errors import DataError
from tests.data.test_tf import settings, stream_settings

NAMES = {"memory": "tiny_png", "stream": "tiny_jpeg"}


def read(kind, root, tmp_path, **changes):
    """All test images, in memory or streamed."""
    if kind == "memory":
        described = settings(root, tmp_path, **changes)
        return data.load(described, splits=[described.test_split])
    described = stream_settings(root, tmp_path, **changes)
    imagenet.class_names(described)
    split = described.test_split
    return list(imagenet.eval_stream(described, split, batch_size=4))


# --- Splits ---------------------------------------------------------------------------

WRONG = {
    **dict.fromkeys(
        ["test[:10", "test[", "test[a]", "test[5]", "test[0.5]"], "can't be"
    ),
    **dict.fromkeys(["test[::2]", "test[:200%]", "test[10%:5]"], "can't be understood"),
    **dict.fromkeys(["test[:0]", "test[5:2]", "test[:1%]", "test[10:]"], "no such ex"),
    **dict.fromkeys(
        ["test[:11]", "test[:-10]", "train[30:31]+test"], "has no such exam"
    ),
    **dict.fromkeys(
        ["", "+", "test+", "all", " test", "Test"], "choose from train, ext"
    ),
}
RIGHT = {"test[-3:]": 3, "test[:10]": 10, "test[25%:]": 8, "test[:-90%]": 1, "test": 10}


@pytest.mark.parametrize("split", WRONG)
def test_a_split_that_can_not_be(prepared, tmp_path, split):
    for kind in NAMES:
        with pytest.raises(DataError, match=WRONG[split]):
            read(kind, prepared[0], tmp_path, test_split=split)


@pytest.mark.parametrize("split", RIGHT)
def test_a_part_of_a_split_is_that_of_tfds(prepared, tmp_path, split):
    """Which counts it by itself; ours is the check alone."""
    found = read("memory", prepared[0], tmp_path, test_split=split)
    assert len(found.splits[split].labels) == RIGHT[split]


def test_a_version_may_have_stars(prepared, tmp_path):
    described = settings(prepared[0], tmp_path, name="tiny_png:1.*.*")
    assert tfds.prepared_dir(described).name == "1.0.0"
    other = dataclasses.replace(described, name="tiny_png:2.*.*")
    assert not tfds.is_prepared(other)


# --- Files ----------------------------------------------------------------------------


def shard(folder):
    return next(path for path in folder.iterdir() if "-test." in path.name)


def flip(path, place):
    contents = bytearray(path.read_bytes())
    contents[place] ^= 255
    path.write_bytes(contents)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def no_counts(folder):
    info = json.loads((folder / "dataset_info.json").read_text())
    del info["splits"]
    (folder / "dataset_info.json").write_text(json.dumps(info))


DAMAGES = {
    "no shard": lambda f: shard(f).unlink(),
    "a shard cut off": lambda f: shard(f).write_bytes(shard(f).read_bytes()[:-30]),
    "a bit of a shard": lambda f: flip(shard(f), 100),
    "the head of a shard": lambda f: flip(shard(f), 3),
    "another file for a shard": lambda f: shard(f).write_bytes(b"x" * 500),
    "a folder for a shard": lambda f: (shard(f).unlink(), (f / "x-test.y").mkdir()),
    "no description": lambda f: (f / "dataset_info.json").write_text(""),
    "a list": lambda f: (f / "dataset_info.json").write_text("[]"),
    "no JSON": lambda f: (f / "dataset_info.json").write_bytes(b"\xff\xfe{"),
    "another's fields": lambda f: edit(f / "dataset_info.json", "shardLen", "shrdLen"),
    "no counts": no_counts,
    "no features": lambda f: (f / "features.json").unlink(),
    "empty features": lambda f: (f / "features.json").write_text(""),
    "other features": lambda f: (f / "features.json").write_text('{"a": 1}'),
    "names twice": lambda f: (f / "label.labels.txt").write_text("a\na\nb\n"),
}


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_set_is_named(prepared, tmp_path, kind, damage):
    root = tmp_path / "sets"
    shutil.copytree(prepared[0] / NAMES[kind], root / NAMES[kind])
    DAMAGES[damage](root / NAMES[kind] / "1.0.0")
    with pytest.raises(DataError, match=NAMES[kind]) as caught:
        read(kind, root, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("empty", [True, False])
def test_a_stream_makes_up_no_images(prepared, tmp_path, empty):
    root = tmp_path / "sets"
    shutil.copytree(prepared[0] / "tiny_jpeg", root / "tiny_jpeg")
    folder = root / "tiny_jpeg" / "1.0.0"
    if empty:
        shard(folder).write_bytes(b"")
    found = read("stream", root, tmp_path)
    assert sum(int(batch.mask.sum()) for batch in found) == (0 if empty else 10)
