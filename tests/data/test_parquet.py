"""Parquet files as the Hugging Face Hub serves its sets, made here by PyArrow."""

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from apr_jax import config as config_lib
from apr_jax import data
from apr_jax.data import corrupted_sets
from apr_jax.errors import DataError
from apr_jax.evaluate import ood_sets
from apr_jax.runs import workdir
from tests.data.test_data import random_split, settings

pa = pytest.importorskip("pyarrow", reason="PyArrow comes with TFDS, which isn't there")
parquet = pytest.importorskip("pyarrow.parquet")

NAMES = ("airplane", "cra", "bird", "cat")


def png(pixels):
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "PNG")
    return written.getvalue()


def write(path, images, labels, *, label="label", image="img", names=NAMES, **more):
    """Writes a file of encoded images; ``more`` are further columns."""
    contents = [x if isinstance(x, bytes | None) else png(x) for x in images]
    rows = [{"bytes": x, "path": f"{i}.png"} for i, x in enumerate(contents)]
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table(
        {image: pa.array(rows, struct), label: pa.array(labels, pa.int64()), **more}
    )
    features = {image: {"_type": "Image"}}
    features |= {name: {"dtype": "int64", "_type": "Value"} for name in more}
    features[label] = {"_type": "ClassLabel", "names": names and list(names)}
    told = json.dumps({"info": {"features": features}})
    if names is not None:
        table = table.replace_schema_metadata({"huggingface": told})
    path.parent.mkdir(parents=True, exist_ok=True)
    # Small groups of rows, as large files have several.
    parquet.write_table(table, path, row_group_size=5)


def where(tmp_path, **changes):
    return settings(tmp_path, source="parquet", **changes)


def numbered(split, part=0, parts=1):
    return f"{split}-{part:05d}-of-{parts:05d}.parquet"


@pytest.fixture
def made(tmp_path, rng):
    """A set of 12 and 7 images as CIFAR-10 lies on the Hub; its splits."""
    splits = {"train": random_split(rng, 12), "test": random_split(rng, 7)}
    for split, pair in splits.items():
        write(tmp_path / "data" / "plain_text" / numbered(split), *pair)
    return splits


def check(found, splits, names=("airplane", "crab", "bird", "cat")):
    assert found.class_names == names
    for split, (images, labels) in splits.items():
        np.testing.assert_array_equal(found.splits[split].images, images)
        np.testing.assert_array_equal(found.splits[split].labels, labels)


def test_as_the_hub_has_cifar10(tmp_path, made, monkeypatch):
    check(data.load(where(tmp_path)), made)
    folder = tmp_path / "data" / "plain_text"
    check(data.load(where(tmp_path, data_dir=str(folder))), made)
    # The second time they come from the cache.
    monkeypatch.setattr(data.parquet, "read", None)
    check(data.load(where(tmp_path)), made)


def test_as_the_hub_has_cifar100(tmp_path, rng):
    """In parts, with two kinds of labels, the images of 10 x 9 pixels and grey."""
    grey = rng.integers(0, 256, (11, 10, 9), dtype=np.uint8)
    labels, other = np.arange(11) % 4, np.zeros(11, int)
    root = tmp_path / "data" / "cifar100"
    for part, rows in enumerate((slice(0, 6), slice(6, 11))):
        path = root / numbered("train", part, 2)
        coarse = {"coarse_label": pa.array(other[rows])}
        write(path, grey[rows], labels[rows], label="fine_label", **coarse)
    found = data.load(where(tmp_path, image_size=8, eval_resize=9), splits=["train"])
    assert found.splits["train"].images.shape == (11, 8, 8, 3)
    np.testing.assert_array_equal(found.splits["train"].labels, labels)
    (root / numbered("train", 0, 2)).unlink()
    message = r"split 'train' in .* isn't whole; there is train-00001-of-00002.parquet"
    with pytest.raises(DataError, match=message):
        data.load(where(tmp_path), splits=["train"])


def test_as_the_hub_converts_sets(tmp_path, rng):
    """SPLIT/0000.parquet, and no names of classes."""
    images, labels = random_split(rng, 9)
    for split in ("train", "test"):
        path = tmp_path / "data" / "default" / split / "0000.parquet"
        write(path, images, labels, image="image", names=None)
    found = data.load(where(tmp_path))
    check(found, {"train": (images, labels)}, names=("0", "1", "2", "3"))
    gap = np.where(labels == 1, 0, labels)
    path = tmp_path / "data" / "default" / "train" / "0000.parquet"
    write(path, images, gap, image="image", names=None)
    with pytest.raises(DataError, match=r"labels of the split 'train' .* none is 1"):
        data.load(where(tmp_path))


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "page"])
def test_a_damaged_file_is_named(tmp_path, made, damage):
    path = tmp_path / "data" / "plain_text" / numbered("test")
    whole = path.read_bytes()
    middle = len(whole) // 4
    contents = {
        "cut": whole[: len(whole) // 2],
        "garbage": b"no parquet" * 50,
        "empty": b"",
        "page": whole[:4] + b"\xff" * middle + whole[4 + middle :],
    }
    path.write_bytes(contents[damage])
    with pytest.raises(DataError, match=r"test-00000-of-00001\.parquet"):
        data.load(where(tmp_path))


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (None, r"row 3 of .*test-00000-of-00001\.parquet has no image in it"),
        (b"\x89PNG", r"row 3 of .*test-00000-of-00001\.parquet can't be read: Unid"),
    ],
)
def test_a_damaged_image_is_named(tmp_path, made, contents, message):
    images, labels = made["test"]
    images = [*images[:3], contents, *images[4:]]
    write(tmp_path / "data" / "plain_text" / numbered("test"), images, labels)
    with pytest.raises(DataError, match=message):
        data.load(where(tmp_path))


def test_what_does_not_fit_is_said(tmp_path, made):
    folder = tmp_path / "data"
    images, labels = made["train"]
    with pytest.raises(DataError, match=r"no split 'val' in .*: test, train"):
        data.load(where(tmp_path, train_split="val"))
    with pytest.raises(DataError, match=r"plain_text/no.*', which is no folder"):
        data.load(where(tmp_path, data_dir=str(folder / "plain_text" / "no")))
    with pytest.raises(DataError, match="'parquet' it names a folder with train-"):
        data.load(where(tmp_path, data_dir=""))
    write(folder / "other" / "train.parquet", images, labels, label="x", image="y")
    with pytest.raises(DataError, match=r"other and .*plain_text have a split 'train'"):
        data.load(where(tmp_path))
    # A single column will do, whatever it is called; of two none is meant.
    other = where(tmp_path, data_dir=str(folder / "other"))
    check(data.load(other, splits=["train"]), {"train": made["train"]})
    more = {"z": pa.array(labels)}
    write(folder / "other" / "train.parquet", images, labels, label="x", **more)
    with pytest.raises(
        DataError, match=r"labels, or several; .* there is img \(struct"
    ):
        data.load(other, splits=["train"])
    with pytest.raises(DataError, match="streams come from folder or tfds"):
        data.describe(where(tmp_path, streaming=True))


def test_without_pyarrow_it_is_a_line(tmp_path, made, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=r"pyarrow.* is not installed, which reads Par"):
        data.load(where(tmp_path))


def test_other_doors_take_it_too(tmp_path, made):
    folder = tmp_path / "data"
    described = corrupted_sets.describe(
        str(folder), data_dir="", split="test", image_size=8, resize=0
    )
    assert (described.source, described.name) == ("parquet", "data")
    opened = ood_sets.open_set("far", "parquet", str(folder), where(tmp_path))
    assert opened.size == 7
    found = next(opened.batches(7)).image
    np.testing.assert_array_equal(found, made["test"][0])
    config = config_lib.parse({"eval": {"ood": {"out": ("x=parquet:here",)}}})
    (out,) = workdir.with_absolute_places(config).eval.ood.out
    assert out.startswith("x=parquet:/")
