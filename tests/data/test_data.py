"""Orders and batches, and the sources that need no TensorFlow: arrays, folders."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from apr_jax import config as config_lib
from apr_jax import data
from apr_jax.data import images
from apr_jax.errors import DataError

SETTINGS = config_lib.Data(
    source="arrays",
    name="tiny",
    data_dir="",
    cache_dir="",
    train_split="train",
    test_split="test",
    shifted_splits=(),
    image_size=8,
    eval_resize=0,
    extra_dirs=(),
    extra_ratio=0.0,
    streaming=False,
    max_broken=0,
    shuffle_buffer=16,
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
)


def settings(tmp_path, **changes):
    base = dataclasses.replace(
        SETTINGS, data_dir=str(tmp_path / "data"), cache_dir=str(tmp_path / "cache")
    )
    return dataclasses.replace(base, **changes)


def random_split(rng, count, size=8, classes=4):
    pixels = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    labels = np.arange(count) % classes
    return pixels, labels


def write_folder(root, rng, *, split="train", names=("cat", "dog"), count=3, size=8):
    """Writes PNG files and returns their pixels in the order they are read."""
    written = []
    for name in names:
        (root / split / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / split / name / f"{i}.png")
            written.append(pixels)
    return np.stack(written)


# --- Order and batches.


@pytest.mark.parametrize(("size", "batch_size"), [(10, 4), (7, 7), (5, 12), (64, 16)])
def test_every_epoch_has_every_example_once(size, batch_size):
    epochs = 6
    steps = -(-epochs * size // batch_size)
    order = data.global_indices(3, 0, steps, batch_size, size)
    assert order.shape == (steps, batch_size)
    assert order.dtype == np.int32
    for epoch in order.ravel()[: epochs * size].reshape(epochs, size):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(size))


def test_order_depends_on_seed_and_step_alone():
    whole = data.global_indices(1, 0, 20, 6, 25)
    for start in (0, 3, 4, 11):
        part = data.global_indices(1, start, 20 - start, 6, 25)
        np.testing.assert_array_equal(part, whole[start:])
    assert not np.array_equal(whole, data.global_indices(2, 0, 20, 6, 25))
    first, second = (data.epoch_order(1, epoch, 25) for epoch in (0, 1))
    assert not np.array_equal(first, second)


def test_order_is_the_same_on_every_machine():
    # Resuming elsewhere must go on with the same examples.
    assert data.epoch_order(0, 0, 8).tolist() == ORDER_OF_EIGHT


ORDER_OF_EIGHT = [7, 5, 6, 1, 2, 3, 0, 4]


def test_order_mixes():
    order = data.epoch_order(0, 0, 2000).astype(float)
    assert abs(np.corrcoef(order, np.arange(2000))[0, 1]) < 0.1
    with pytest.raises(ValueError, match="read-only"):
        data.epoch_order(0, 0, 2000)[0] = 1


@pytest.mark.parametrize("mix", [data.Mix(10), data.Mix(9, 4)])
def test_each_image_is_mirrored_in_every_other_epoch(mix):
    steps, batch = 39, 7
    where = data.global_indices(3, 0, steps, batch, mix).reshape(-1)
    mirrored = data.mirrored(3, 0, steps, batch, mix).reshape(-1)
    first = []
    for image in range(mix.main + mix.extra):
        turns = mirrored[where == image]
        assert len(turns) > 10
        assert (turns[1:] != turns[:-1]).all()
        first.append(turns[0])
    assert 0 < np.mean(first) < 1
    # At any step, and by the seed.
    part = data.mirrored(3, 11, 5, batch, mix)
    np.testing.assert_array_equal(part.reshape(-1), mirrored[77:112])
    other = data.mirrored(4, 0, steps, batch, mix).reshape(-1)
    assert (other != mirrored).any()


def test_empty_split_has_no_order():
    with pytest.raises(DataError, match="0 examples"):
        data.global_indices(0, 0, 1, 4, 0)


@pytest.mark.parametrize(("size", "batch_size"), [(10, 4), (8, 4), (3, 5), (1, 1)])
def test_evaluation_counts_every_example_once(rng, size, batch_size):
    pixels, labels = random_split(rng, size)
    found = list(data.eval_batches(data.ArraySplit(pixels, labels), batch_size))
    assert all(b.image.shape == (batch_size, 8, 8, 3) for b in found)
    assert all(b.label.dtype == np.int32 for b in found)
    mask = np.concatenate([b.mask for b in found])
    assert mask.dtype == bool
    assert mask.sum() == size
    np.testing.assert_array_equal(
        np.concatenate([b.image for b in found])[mask], pixels
    )
    np.testing.assert_array_equal(
        np.concatenate([b.label for b in found])[mask], labels
    )


# --- Images.


@pytest.mark.parametrize(("height", "width"), [(40, 50), (51, 40), (37, 37), (16, 90)])
@pytest.mark.parametrize(("size", "shorter"), [(16, 16), (16, 20), (15, 20), (16, 0)])
def test_fit_is_resize_and_centre_crop(rng, height, width, size, shorter):
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    fitted = images.fit(pixels, size, shorter)
    assert fitted.shape == (size, size, 3)
    if shorter:
        image = Image.fromarray(pixels)
        wide = width >= height
        factor = shorter / min(height, width)
        sides = [shorter, int(factor * max(height, width) + 1e-9)]
        image = image.resize(sides[::-1] if wide else sides, Image.Resampling.BILINEAR)
        left, top = (round((side - size) / 2) for side in image.size)
        pixels = np.asarray(image)[top : top + size, left : left + size]
    else:
        top, left = (round((side - size) / 2) for side in (height, width))
        pixels = pixels[top : top + size, left : left + size]
    np.testing.assert_array_equal(fitted, pixels)


def test_small_images_are_enlarged_to_the_crop(rng):
    pixels = rng.integers(0, 256, (10, 12, 3), dtype=np.uint8)
    assert images.fit(pixels, 16, 0).shape == (16, 16, 3)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK", "1", "LA"])
def test_every_kind_of_image_becomes_rgb(tmp_path, rng, mode):
    pixels = rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    image.save(path)
    decoded = images.decode(path)
    assert decoded.shape == (9, 11, 3)
    if mode in ("L", "1", "LA"):
        np.testing.assert_array_equal(decoded[..., 0], decoded[..., 2])
    np.testing.assert_array_equal(decoded, images.decode(path.read_bytes()))


def test_transparent_palette_gives_no_warning(tmp_path):
    image = Image.new("P", (4, 4))
    image.save(tmp_path / "x.png", transparency=b"\x00\xff")
    assert images.decode(tmp_path / "x.png").shape == (4, 4, 3)


# --- Arrays.


def write_npz(folder, rng):
    sets = {split: random_split(rng, 12) for split in ("train", "test")}
    folder.mkdir()
    for split, (pixels, labels) in sets.items():
        np.savez(folder / f"{split}.npz", images=pixels, labels=labels)
    return folder, sets


def write_one_npz(folder, rng):
    sets = {split: random_split(rng, 12) for split in ("train", "test")}
    folder.mkdir()
    fields = {}
    for split, (pixels, labels) in sets.items():
        fields |= {f"{split}_images": pixels, f"{split}_labels": labels}
    np.savez(folder / "all.npz", **fields)
    return folder / "all.npz", sets


def write_npy(folder, rng):
    sets = {split: random_split(rng, 12) for split in ("train", "test")}
    folder.mkdir()
    for split, (pixels, labels) in sets.items():
        np.save(folder / f"{split}_images.npy", pixels)
        np.save(folder / f"{split}_labels.npy", labels)
    return folder, sets


def write_shared_labels(folder, rng):
    sets = {split: random_split(rng, 12) for split in ("train", "test")}
    folder.mkdir()
    for split, (pixels, labels) in sets.items():
        np.save(folder / f"{split}.npy", pixels)
        np.save(folder / "labels.npy", labels)
    return folder, sets


@pytest.mark.parametrize(
    "write", [write_npz, write_one_npz, write_npy, write_shared_labels]
)
def test_arrays_in_every_layout(tmp_path, rng, write):
    where, sets = write(tmp_path / "data", rng)
    found = data.load(settings(tmp_path, data_dir=str(where)))
    assert found.class_names == ("0", "1", "2", "3")
    for split, (pixels, labels) in sets.items():
        np.testing.assert_array_equal(found.splits[split].images, pixels)
        np.testing.assert_array_equal(found.splits[split].labels, labels)
        assert found.splits[split].labels.dtype == np.int32
        assert isinstance(found.splits[split].images, np.memmap)
    assert data.describe(settings(tmp_path, data_dir=str(where))).train_size == 12


def test_arrays_of_floats_and_greys(tmp_path, rng):
    folder = tmp_path / "data"
    folder.mkdir()
    levels = rng.integers(0, 256, (12, 8, 8), dtype=np.uint8)
    labels = np.arange(12) % 3
    np.savez(folder / "train.npz", images=levels / np.float32(255), labels=labels)
    np.savez(folder / "test.npz", images=levels[..., None], labels=labels)
    found = data.load(settings(tmp_path))
    for split in ("train", "test"):
        expected = np.repeat(levels[..., None], 3, axis=-1)
        np.testing.assert_array_equal(found.splits[split].images, expected)


def test_arrays_of_another_size_are_resized(tmp_path, rng):
    folder = tmp_path / "data"
    folder.mkdir()
    pixels, labels = random_split(rng, 4, size=16)
    np.savez(folder / "train.npz", images=pixels, labels=labels)
    found = data.load(settings(tmp_path), splits=("train",))
    expected = np.stack([images.resize(p, 8, 8) for p in pixels])
    np.testing.assert_array_equal(found.splits["train"].images, expected)


def test_class_names_of_arrays(tmp_path, rng):
    folder, _ = write_npy(tmp_path / "data", rng)
    (folder / "class_names.txt").write_text("a\nb\nc\nd\n")
    assert data.load(settings(tmp_path)).class_names == ("a", "b", "c", "d")
    pixels, labels = random_split(rng, 12)
    where = tmp_path / "named.npz"
    np.savez(where, test_images=pixels, test_labels=labels, class_names=list("wxyz"))
    found = data.load(settings(tmp_path, data_dir=str(where)), splits=("test",))
    assert found.class_names == ("w", "x", "y", "z")


BAD_ARRAYS = [
    ({"images": np.zeros((12, 3, 8, 8), np.uint8)}, "channels come last"),
    ({"images": np.zeros((12, 8, 8, 4), np.uint8)}, r"\[12, 8, 8, 4\]"),
    ({"images": np.zeros((12, 8, 8, 3), np.int64)}, "are int64; they must be uint8"),
    ({"images": np.full((12, 8, 8, 3), 255.0)}, "from 255 to 255; floats must be in"),
    ({"images": np.full((12, 8, 8, 3), np.nan)}, r"floats must be in \[0, 1\]"),
    ({"labels": np.zeros((12, 4))}, r"labels of .* are float64 \[12, 4\]"),
    ({"labels": np.zeros(11, int)}, "12 images and 11 labels"),
    ({"labels": np.arange(12) - 1}, "label -1 of example 0 .* labels count from 0"),
    ({"labels": np.arange(12) + 2**32}, "label 4294967296 of example 0 .* range"),
    (
        {"labels": np.arange(12) + 1},
        "go from 1 to 12, and none is 0; count them from 0",
    ),
    ({"labels": [10**9, *range(11)]}, "go from 0 to 1000000000, and none is 11"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_ARRAYS, ids=lambda x: str(x)[:30])
def test_bad_arrays_are_refused(tmp_path, changes, message):
    fields = {"images": np.zeros((12, 8, 8, 3), np.uint8), "labels": np.arange(12)}
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "train.npz", **(fields | changes))
    with pytest.raises(DataError, match=message):
        data.load(settings(tmp_path), splits=("train",))


def test_label_that_training_does_not_have(tmp_path, rng):
    folder, sets = write_npz(tmp_path / "data", rng)
    np.savez(folder / "test.npz", images=sets["test"][0], labels=np.full(12, 4))
    with pytest.raises(DataError, match=r"label 4 of example 0 in split 'test'"):
        data.load(settings(tmp_path))


def test_arrays_that_are_not_there(tmp_path, rng):
    with pytest.raises(DataError, match=r"data.data_dir is .*which isn't there"):
        data.load(settings(tmp_path))
    with pytest.raises(DataError, match=r"data.data_dir is empty"):
        data.load(settings(tmp_path, data_dir=""))
    write_npz(tmp_path / "data", rng)
    with pytest.raises(DataError, match=r"no split 'exam'.*test.npz, train.npz"):
        data.load(settings(tmp_path), splits=("exam",))
    (tmp_path / "data" / "exam.npz").write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"can't read .*exam.npz"):
        data.load(settings(tmp_path), splits=("exam",))


# --- Image folders.


def test_image_folder(tmp_path, rng):
    expected = write_folder(tmp_path / "data", rng)
    write_folder(tmp_path / "data", rng, split="test", count=2, size=12)
    (tmp_path / "data" / "train" / "dog" / "notes.txt").write_text("no image")
    found = data.load(settings(tmp_path, source="folder"))
    assert found.class_names == ("cat", "dog")
    np.testing.assert_array_equal(found.splits["train"].images, expected)
    assert found.splits["train"].labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.splits["test"].images.shape == (4, 8, 8, 3)


def test_broken_files_are_named_and_counted(tmp_path, rng, caplog):
    root = tmp_path / "data"
    write_folder(root, rng)
    whole = (root / "train" / "cat" / "1.png").read_bytes()
    (root / "train" / "cat" / "1.png").write_bytes(whole[: len(whole) // 2])
    (root / "train" / "dog" / "0.png").write_bytes(b"")
    where = settings(tmp_path, source="folder", max_broken=2)
    split = data.load(where, splits=("train",)).splits["train"]
    assert split.labels.tolist() == [0, 0, 1, 1]
    assert "cat/1.png" in caplog.text
    assert "dog/0.png" in caplog.text
    caplog.clear()
    data.load(where, splits=("train",))
    assert "without 2 broken files" in caplog.text  # from the cache, too
    with pytest.raises(DataError, match=r"(?s)max_broken is 1:.*cat/1.*dog/0"):
        data.load(dataclasses.replace(where, max_broken=1), splits=("train",))


def test_folders_that_are_wrong(tmp_path, rng):
    where = settings(tmp_path, source="folder")
    with pytest.raises(DataError, match=r"data.data_dir is .*no folder"):
        data.load(where)
    write_folder(tmp_path / "data", rng)
    with pytest.raises(DataError, match=r"no split 'test' .*: train"):
        data.load(where)
    (tmp_path / "data" / "test").mkdir()
    with pytest.raises(DataError, match="no class folders"):
        data.load(where)
    (tmp_path / "data" / "test" / "cat").mkdir()
    with pytest.raises(DataError, match=r"missing \['dog'\]"):
        data.load(where)
    (tmp_path / "data" / "test" / "dog").mkdir()
    with pytest.raises(DataError, match=r"no images in .*test.*\.jpeg"):
        data.load(where)


def test_changed_files_are_read_again(tmp_path, rng):
    root = tmp_path / "data"
    write_folder(root, rng)
    where = settings(tmp_path, source="folder")
    before = data.load(where, splits=("train",))
    assert data.load(where, splits=("train",)).fingerprint == before.fingerprint
    Image.fromarray(np.full((8, 8, 3), 7, np.uint8)).save(root / "train/cat/0.png")
    after = data.load(where, splits=("train",))
    assert (after.splits["train"].images[0] == 7).all()
    assert after.fingerprint != before.fingerprint


# --- What can't be loaded.


def test_unknown_source_and_streams_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"'hdf5'; choose from 'bundled', 'tfds'"):
        data.load(settings(tmp_path, source="hdf5"))
    with pytest.raises(DataError, match=r"data.streaming is true"):
        data.load(settings(tmp_path, streaming=True))
    with pytest.raises(DataError, match=r"streams come from folder or tfds"):
        data.imagenet.num_examples(settings(tmp_path), "train")
