"""Walks of folders: every reader takes the same images and the same classes."""

import ast
import dataclasses
import os
import pathlib
import stat
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from apr_jax import data
from apr_jax.data import (
    classes,
    corrupted,
    corrupted_sets,
    extra,
    folder,
    images,
    walk,
)
from apr_jax.errors import DataError
from apr_jax.evaluate import ood_sets
from tests.data.test_data import settings

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Found(NamedTuple):
    """The levels of the grey images that a reader gives, and their classes."""

    levels: list[int]
    classes: tuple[str, ...]


# --- The readers: (a folder of class folders, a scratch folder) -> what they find. The
# folder is called "train" and lies in one called "data".


def resident(root, scratch):
    where = settings(scratch, source="folder", data_dir=str(root.parent), max_broken=0)
    found = data.load(where, splits=("train",))
    return Found(found.splits["train"].images[:, 0, 0, 0], found.class_names)


def levels(listing):
    pixels = [images.read(listing.root / file) for file in listing.files]
    return Found([p[0, 0, 0] for p in pixels], listing.class_names)


def streamed(root, scratch):
    where = settings(scratch, source="folder", data_dir=str(root.parent))
    return levels(folder.listing(where, "train"))


def extra_resident(root, scratch):
    where = settings(scratch, extra_dirs=(str(root),), max_broken=0)
    found = extra.load(where, ("2", "10", "cat"))
    return Found(found.images[:, 0, 0, 0], walk.folders(root))


def extra_streamed(root, scratch):
    where = settings(scratch, extra_dirs=(str(root),))
    (found,) = extra.listings(where, ("2", "10", "cat"))
    return levels(found._replace(class_names=walk.folders(root)))


def out_set(root, scratch):
    opened = ood_sets.open_set("x", "folder", str(root), settings(scratch))
    (batch,) = opened.batches(opened.size)
    return Found(batch.image[batch.mask][:, 0, 0, 0], walk.folders(root))


def tree(root, scratch):
    place = scratch / "trees" / "noise"
    place.mkdir(parents=True)
    (scratch / "trees" / "__MACOSX" / "noise" / "1").mkdir(parents=True)
    (place / "1").symlink_to(root)
    return levels(
        corrupted.list_tree(scratch / "trees", "noise", 1, walk.folders(root))
    )


def command(root, scratch):
    described = corrupted_sets.describe(
        str(root.parent), data_dir="", split="train", image_size=8, resize=0
    )
    described = dataclasses.replace(described, cache_dir=str(scratch / "cache"))
    out = scratch / "out"
    corrupted_sets.write(described, out, ["brightness"], form="jpeg", quiet=True)
    written = out / "brightness" / "1"
    # Brighter by a twentieth, as on small images, and JPEG.
    found = levels(folder.list_classes(written, walk.folders(written)))
    return found._replace(levels=[round((x - 12.75) / 10) * 10 for x in found.levels])


READERS = [
    *(resident, streamed, extra_resident, extra_streamed, out_set, tree, command),
]


def picture(path, level):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (level,) * 3).save(path, "PNG")


@pytest.fixture
def messy(tmp_path):
    """A set with all that is found in folders of images: levels 10 to 70 count."""
    root = tmp_path / "data" / "train"
    picture(root / "cat" / "0.png", 10)
    picture(root / "cat" / "sub" / "1.PNG", 20)
    picture(root / "cat" / "sub" / "deep" / "2.jpg", 30)
    picture(root / "10" / "3.png", 40)
    picture(root / "2" / "4.png", 50)
    picture(tmp_path / "elsewhere" / "5.png", 60)
    picture(tmp_path / "elsewhere" / "folder" / "6.png", 70)
    (root / "cat" / "linked.png").symlink_to(tmp_path / "elsewhere" / "5.png")
    (root / "cat" / "more").symlink_to(tmp_path / "elsewhere" / "folder")
    for junk in (
        *("cat/.ipynb_checkpoints/0.png", "cat/._0.png", "cat/.hidden.png"),
        *("cat/__MACOSX/0.png", "__MACOSX/cat/0.png", ".ipynb_checkpoints/0.png"),
        *(".git/x.png", "cat/sub/@eaDir/0.png"),
    ):
        picture(root / junk, 200)
    (root / "cat" / "notes.txt").write_text("no image")
    os.mkfifo(root / "cat" / "pipe.png")
    os.mkfifo(root / "cat" / "pipe")
    os.mknod(root / "cat" / "socket.jpg", stat.S_IFSOCK | 0o600)
    (root / "cat" / "piped.png").symlink_to(root / "cat" / "pipe.png")
    (root / "cat" / "sub" / "up").symlink_to(root / "cat")
    (root / "cat" / "sub" / "top").symlink_to(tmp_path)
    return root


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_takes_the_same_images(messy, tmp_path, reader):
    found = reader(messy, tmp_path / "scratch")
    assert sorted(found.levels) == [10, 20, 30, 40, 50, 60, 70]
    assert found.classes == ("10", "2", "cat")  # not all are numbers


@pytest.mark.parametrize("reader", READERS)
def test_a_link_that_leads_nowhere_is_named(messy, tmp_path, reader):
    link = messy / "cat" / "sub" / "gone.png"
    link.symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"cat/sub/gone\.png"):
        reader(messy, tmp_path / "scratch")
    link.unlink()
    for name in ("dog", "loop"):  # where a class, or a folder of images, should be
        link = messy / "cat" / name
        link.symlink_to(link if name == "loop" else tmp_path / "nowhere")
        with pytest.raises(DataError, match=f"cat/{name} is a link that leads nowhere"):
            reader(messy, tmp_path / "scratch" / name)
        link.unlink()


def test_links_that_lead_nowhere_count_as_broken_images(messy, tmp_path, caplog):
    (messy / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    where = settings(tmp_path, source="folder", max_broken=1)
    found = data.load(where, splits=("train",)).splits["train"]
    assert len(found.labels) == 7
    assert "cat/gone.png" in caplog.text


def test_a_link_back_is_named_and_ends(messy, caplog):
    assert len(walk.images(messy)) == 7
    assert "cat/sub/up leads back" in caplog.text
    assert "cat/sub/top leads back" in caplog.text


@pytest.mark.parametrize("reader", [r for r in READERS if "extra" not in r.__name__])
def test_folders_named_by_number_count_as_numbers(tmp_path, caplog, reader):
    classes._say.cache_clear()
    root = tmp_path / "data" / "train"
    for i in range(12):
        picture(root / str(i) / "0.png", 10 * i)
    found = reader(root, tmp_path / "scratch")
    assert found.classes == tuple(str(i) for i in range(12))
    if reader is not out_set:  # has no classes
        assert list(found.levels) == [10 * i for i in range(12)]
    assert caplog.text.count("12 folders named by number, from 0 on, are sorted") == 1
    reader(root, tmp_path / "again")
    assert caplog.text.count("are sorted as numbers") == 1


def test_numbers_of_one_length_are_in_any_order_the_same(tmp_path, caplog):
    for name in ("007", "012", "100"):
        picture(tmp_path / name / "0.png", 1)
    assert walk.folders(tmp_path) == ("007", "012", "100")
    picture(tmp_path / "dog" / "0.png", 1)
    assert walk.folders(tmp_path) == ("007", "012", "100", "dog")
    assert not caplog.text


def test_order_is_torchvision_s(tmp_path):
    """Its ``make_dataset`` goes over the sorted tuples of ``os.walk``."""
    for i, name in enumerate(["b", "a/x", "a-b/y", "a", "a/x/z", "B", "a/x-"]):
        picture(tmp_path / "one" / name / f"{i}.png", 1)
        picture(tmp_path / "one" / name / "Z.pgm", 1)
    picture(tmp_path / "two" / "0.png", 1)
    theirs = [
        (os.path.join(place, name), label)
        for label, folder_name in enumerate(["one", "two"])
        for place, _, names in sorted(os.walk(tmp_path / folder_name))
        for name in sorted(names)
    ]
    ours = folder.list_classes(tmp_path, walk.folders(tmp_path))
    paths = [str(tmp_path / file) for file in ours.files]
    assert list(zip(paths, ours.labels.tolist(), strict=True)) == theirs


def test_a_folder_that_cannot_be_listed_is_named(tmp_path):
    for walker in (walk.folders, walk.images):
        with pytest.raises(DataError, match=r"can't list .*nowhere"):
            walker(tmp_path / "nowhere")


def test_hidden_arrays_are_none(tmp_path):
    (tmp_path / "._fog.npy").write_bytes(b"")
    assert not corrupted.is_npy(tmp_path)
    np.save(tmp_path / "fog.npy", 0)
    assert corrupted.is_npy(tmp_path)


# --- New readers.

# Calls that list folders, and the modules that may make them: not for images.
LISTING = {"scandir", "rglob", "listdir", "iterdir", "fwalk"}
MAY_LIST = {"walk.py": {"scandir"}, "tfds.py": {"iterdir"}, "cache.py": {"iterdir"}}


@pytest.mark.parametrize(
    "path",
    [*(ROOT / "apr_jax").glob("data/*.py"), *(ROOT / "apr_jax").glob("evaluate/*.py")],
    ids=lambda path: path.name,
)
def test_no_reader_lists_folders_by_itself(path):
    calls = {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
    }
    assert calls & LISTING <= MAY_LIST.get(path.name, set())


def test_every_source_of_files_is_walked_here():
    assert set(data._SOURCES) - {"bundled", "tfds", "arrays"} == {"folder", "parquet"}
    assert set(ood_sets.SOURCES) - {"tfds", "arrays"} == {"folder", "parquet"}
