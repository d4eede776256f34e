"""ArrayRecord files: packed, and streamed without TensorFlow."""

import dataclasses
import io
import itertools
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from apr_jax import data
from apr_jax.data import (
    array_records,
    imagenet,
    images,
    jpeg,
    jpeg_blocks,
    pack,
    philox,
    records,
    shards,
    tf_example,
    tfds,
)
from apr_jax.errors import ConfigError, DataError
from tests.data.conftest import CLASSES, picture
from tests.data.test_data import SETTINGS
from tests.data.test_tf import ROOT, close, encoded, run, same, taken

pytest.importorskip("grain", reason="the extra 'grain' reads ArrayRecord files")
pytest.importorskip("array_record", reason="the extra 'grain' reads ArrayRecord files")

SHORTER, QUALITY = 40, 95
COUNT = {"train": 31, "test": 11}


# --- The pieces.


def test_random_numbers_are_tensorflows(rng):
    tf = tfds.engine().tf
    seeds = rng.integers(-(2**62), 2**62, (6, 2))
    seeds[0] = 0, 0
    found = jpeg.draws(seeds)
    for seed, mine in zip(seeds, found, strict=True):
        np.testing.assert_array_equal(mine, jpeg.uniforms(tf, seed).numpy())
    assert philox.uniform(seeds, 3).tobytes() == found.reshape(6, -1)[:, :3].tobytes()


@pytest.mark.parametrize("label", [0, 1, 127, 128, 999, 2**40])
def test_examples_are_protocol_buffers_of_tensorflow(label):
    tf = tfds.engine().tf
    mine = tf_example.encode(b"some bytes" * 40, label)
    feature = tf.train.Example.FromString(mine).features.feature
    assert list(feature["image"].bytes_list.value) == [b"some bytes" * 40]
    assert list(feature["label"].int64_list.value) == [label]
    more = tf.train.Example.FromString(mine)
    more.features.feature["a"].float_list.value.append(0.5)
    more.features.feature["file"].bytes_list.value.append(b"x.jpg")
    for kept in (mine, more.SerializeToString()):
        assert tf_example.decode(kept) == (b"some bytes" * 40, label)


@pytest.mark.parametrize(
    "record", [b"", b"no example", b"\xff" * 20, tf_example.encode(b"abc", 1)[:-3]]
)
def test_what_is_no_example_is_an_error(record):
    with pytest.raises(tf_example.NotAnExampleError):
        tf_example.decode(record)


@pytest.mark.parametrize("sides", [(48, 64), (57, 71), (16, 16), (5, 33), (65, 1)])
def test_a_window_of_blocks_has_the_pixels_of_the_whole(rng, sides):
    pixels = rng.integers(0, 256, (*sides, 3), dtype=np.uint8)  # edges everywhere
    file = jpeg_blocks.encode(pixels, 90)
    assert jpeg_blocks.sides(file) == sides
    whole = np.asarray(Image.open(io.BytesIO(file)))
    plain = io.BytesIO()
    Image.fromarray(pixels).save(plain, "JPEG", quality=90)
    np.testing.assert_array_equal(whole, images.decode(plain.getvalue()))
    edges = [{0, 1, 15, 16, 17, 31, 32, 47, n - 1} & {*range(n)} for n in sides]
    for top, left in itertools.product(*map(sorted, edges)):
        for tall, wide in ((1, 1), (16, 16), (17, 2), sides):
            tall, wide = min(tall, sides[0] - top), min(wide, sides[1] - left)
            part, (down, across) = jpeg_blocks.cut(file, (top, left, tall, wide))
            found = np.asarray(Image.open(io.BytesIO(part)))
            assert found.shape[0] <= min(sides[0], tall + 2 + 30)
            np.testing.assert_array_equal(
                found[down : down + tall, across : across + wide],
                whole[top : top + tall, left : left + wide],
            )


def test_other_files_are_not_cut(rng):
    pixels = picture(rng)
    window = (0, 0, 8, 8)
    for kind, mode in (("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "L")):
        assert jpeg_blocks.cut(encoded(pixels, kind, mode), window) is None
    file = jpeg_blocks.encode(pixels, 90)
    assert jpeg_blocks.cut(file[:-40], window) is None  # cut off
    for knobs in ({"progressive": True}, {"subsampling": 0}, {"subsampling": 1}):
        other = io.BytesIO()
        image = Image.fromarray(pixels)
        image.save(other, "JPEG", restart_marker_blocks=1, **knobs)
        assert jpeg_blocks.cut(other.getvalue(), window) is None


@pytest.mark.parametrize("kind", ["blocks", "JPEG", "PNG", "CMYK"])
def test_decoding_a_window_is_decoding_and_cutting(rng, kind):
    pixels = picture(rng, 61, 83)
    file = {
        "blocks": lambda: jpeg_blocks.encode(pixels, 90),
        "CMYK": lambda: encoded(pixels, "JPEG", "CMYK"),
    }.get(kind, lambda: encoded(pixels, kind))()
    for drawn in rng.random((20, jpeg.TRIES, 4)):
        expected = jpeg.train_image(images.decode(file), drawn, 24)
        found = jpeg.train_pixels(file, drawn, 24)
        np.testing.assert_array_equal(found, expected)


# --- Packing.


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """An image folder with files of several sizes and kinds, a broken one too."""
    root = tmp_path_factory.mktemp("source")
    rng = np.random.default_rng(5)
    for split, count in COUNT.items():
        for i in range(count):
            path = root / split / CLASSES[i % 3] / f"{i:02d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            mode = {2: "L", 7: "CMYK"}.get(i, "RGB")
            size = (30, 36) if i == 3 else (50 + i, 60)
            path.write_bytes(encoded(picture(rng, *size), "JPEG", mode))
    (root / "train" / "dog" / "no.jpg").write_bytes(b"\xff\xd8 no image")
    return root


@pytest.fixture(scope="module")
def packed(source, tmp_path_factory):
    """A packed set in three files of the training split."""
    out = tmp_path_factory.mktemp("packed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack, "_IMAGES", 12)
        packing(source, out)
    return out


def packing(source, out, **changes):
    described = pack.described(f"folder:{source}", max_broken=1)
    knobs = {"shorter": SHORTER, "quality": QUALITY, "quiet": True} | changes
    return pack.write(described, out, "tiny", **knobs)


def settings(out, tmp_path, **changes):
    defaults = {
        "source": "tfds",
        "name": "tiny",
        "data_dir": str(out),
        "cache_dir": str(tmp_path / "cache"),
        "image_size": 24,
        "eval_resize": 28,
        "streaming": True,
    }
    return dataclasses.replace(SETTINGS, **(defaults | changes))


def contents_of(out, split):
    """Files and labels of a packed split as TFDS reads them."""
    builder = tfds.module().builder_from_directory(str(out / "tiny" / pack.VERSION))
    decoders = {"image": tfds.module().decode.SkipDecoding()}
    found = builder.as_data_source(split, decoders=decoders)
    return [
        (x["image"], int(x["label"])) for x in (found[i] for i in range(len(found)))
    ]


def test_a_packed_set_has_all_images_made_small(source, packed, tmp_path):
    where = settings(packed, tmp_path)
    assert data.describe(where) == (CLASSES, COUNT["train"])
    for split in COUNT:
        expected = {}
        for path in sorted((source / split).rglob("*.jpg")):
            if path.name == "no.jpg":
                continue
            pixels = images.decode(path)
            if min(pixels.shape[:2]) > SHORTER:
                pixels = images.resize_shorter(pixels, SHORTER)
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY)
            decoded = images.decode(file.getvalue())
            label = CLASSES.index(path.parent.name)
            expected[decoded.tobytes()] = (label, decoded.shape)
        found = contents_of(packed, split)
        assert len(found) == len(expected) == COUNT[split]
        for file, label in found:
            pixels = images.decode(file)
            assert expected.pop(pixels.tobytes()) == (label, pixels.shape)
        labels = [label for _, label in found]
        assert labels != sorted(labels)  # the first ones stand for a draw
    place = packed / "tiny" / pack.VERSION
    assert json.loads((place / "packed.json").read_text())["quality"] == QUALITY
    assert len(list(place.glob("tiny-train.array_record-0000?-of-00003"))) == 3
    assert not list(packed.rglob("*.part")) + list(packed.rglob("*incomplete"))


def test_broken_images_count_however_often_it_is_called(tmp_path):
    rng = np.random.default_rng(5)
    root = tmp_path / "source"
    for split in ("train", "test"):
        (root / split / "cat").mkdir(parents=True)
        whole = root / split / "cat" / "a.jpg"
        whole.write_bytes(encoded(picture(rng, 30, 30), "JPEG", "RGB"))
        (root / split / "cat" / "b.jpg").symlink_to(tmp_path / "gone.jpg")
    for _ in range(2):
        with pytest.raises(DataError, match=r"2 images are broken, .*max_broken is 1"):
            packing(root, tmp_path / "out")
    described = pack.described(f"folder:{root}", max_broken=2)
    knobs = {"shorter": SHORTER, "quality": QUALITY, "quiet": True}
    made = pack.write(described, tmp_path / "out", "tiny", **knobs)
    broken = json.loads((made / "broken.json").read_text())
    reasons = [why for each in broken.values() for why in each.values()]
    assert len(reasons) == 2
    assert all("No such file" in why for why in reasons)
    for split in ("train", "test"):
        assert len(contents_of(tmp_path / "out", split)) == 1


def test_packing_goes_on_where_it_was_stopped(source, packed, tmp_path, monkeypatch):
    monkeypatch.setattr(pack, "_IMAGES", 12)
    whole, times = pack._write_shard, []

    def stopped(shard):
        if len(times) == 2:
            raise KeyboardInterrupt
        times.append(shard.path)
        return whole(shard)

    monkeypatch.setattr(pack, "_write_shard", stopped)
    with pytest.raises(KeyboardInterrupt):
        packing(source, tmp_path)
    with pytest.raises(DataError, match=r"'tiny' is only begun; repeat `apr-jax pack`"):
        data.describe(settings(tmp_path, tmp_path))
    with pytest.raises(ConfigError, match=r"incomplete was begun with quality 95, now"):
        packing(source, tmp_path, quality=90)
    before = [path.stat().st_mtime_ns for path in times]
    monkeypatch.setattr(pack, "_write_shard", whole)
    place = packing(source, tmp_path)
    assert [(place / p.name).stat().st_mtime_ns for p in times] == before
    for split in COUNT:
        assert contents_of(tmp_path, split) == contents_of(packed, split)
    with pytest.raises(ConfigError, match=r"tiny/1.0.0 is there already"):
        packing(source, tmp_path)


def test_bad_input_is_an_error_before_anything_is_written(source, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(DataError, match="which has no SPLIT/CLASS/IMAGE"):
        pack.described(f"folder:{tmp_path / 'none'}")
    with pytest.raises(DataError, match="no split 'exam'"):
        packing(source, out, splits=("exam",))
    assert not out.exists()
    described = pack.described(f"folder:{source}")  # no broken images allowed
    with pytest.raises(DataError, match=r"max_broken is 0: .*dog/no.jpg"):
        pack.write(described, out, "tiny", quiet=True)
    assert not (out / "tiny" / pack.VERSION).exists()


def test_sets_of_tfds_are_packed_too(prepared, tmp_path):
    root, _ = prepared
    described = pack.described("tiny_jpeg", str(root))
    pack.write(described, tmp_path, "tiny", shorter=99, quiet=True, splits=("test",))
    where = dataclasses.replace(described, image_size=24)
    (expected,) = imagenet.eval_stream(where, "test", batch_size=10)
    found = contents_of(tmp_path, "test")
    assert [label for _, label in found] == expected.label.tolist()
    for (file, _), pixels in zip(found, expected.image, strict=True):
        mine = images.fit(images.decode(file), 24, 0)
        assert np.abs(mine.astype(int) - pixels).mean() < 4  # as JPEG


# --- Streams.


def test_stream_is_that_of_a_folder(packed, tmp_path):
    """The same files in a folder: the same order, windows and, nearly, pixels."""
    where = settings(packed, tmp_path)
    order = []
    for i, (file, label) in enumerate(contents_of(packed, "train")):
        path = tmp_path / "files" / "train" / CLASSES[label] / f"{i:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file)
        order.append(file)
    batches = taken(imagenet.train_stream(where, **run(0, batch_size=6)), 11)
    indices = data.global_indices(0, 0, 11, 6, COUNT["train"])
    labels = [label for _, label in contents_of(packed, "train")]
    for step, batch in enumerate(batches):
        assert batch.mask.all()
        assert batch.label.dtype == np.int32
        for i, (index, pixels) in enumerate(
            zip(indices[step], batch.image, strict=True)
        ):
            mixing = records.epoch_seed(0, (6 * step + i) // COUNT["train"])
            drawn = jpeg.draws(np.array([[mixing, index]]))[0]
            expected = jpeg.train_image(images.decode(order[index]), drawn, 24)
            np.testing.assert_array_equal(pixels, expected)
            assert batch.label[i] == labels[index]
    # TensorFlow's stream draws the same windows for an example of the same number.
    tf = tfds.engine().tf
    seed = np.array([records.epoch_seed(0, 0), indices[0, 0]])
    drawn = jpeg.uniforms(tf, seed)
    theirs = jpeg.tf_train_image(tf, order[indices[0, 0]], drawn, 24).numpy()
    close(theirs, batches[0].image[0], beyond=0.1)


def test_stream_goes_on_where_it_stopped(packed, tmp_path):
    where = settings(packed, tmp_path)
    whole = taken(imagenet.train_stream(where, **run(0, batch_size=35)), 5)
    stream = imagenet.train_stream(where, **run(3, batch_size=35))
    same(taken(stream, 2), whole[3:])


def test_what_came_before_is_not_read(packed, tmp_path, monkeypatch):
    read = []

    class Noted(array_records.Records):
        def read(self, number):
            read.append(number)
            return super().read(number)

    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    monkeypatch.setattr(array_records, "Records", Noted)
    stream = imagenet.train_stream(settings(packed, tmp_path), **run(3, batch_size=4))
    next(stream)
    stream.close()
    order = data.global_indices(0, 0, 7, 4, COUNT["train"])  # within an epoch
    assert {*order[3]} <= {*read} <= {*order[3:].ravel()}


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_share_batches_and_count_every_example_once(
    packed, tmp_path, processes
):
    where = settings(packed, tmp_path)
    layouts = [
        {"process_index": i, "process_count": processes} for i in range(processes)
    ]
    whole = taken(imagenet.train_stream(where, **run(2, 6)), 3)
    parts = [taken(imagenet.train_stream(where, **run(2, 6), **w), 3) for w in layouts]
    for batch, *shares in zip(whole, *parts, strict=True):
        same([[np.concatenate(part) for part in zip(*shares, strict=True)]], [batch])
    found = [
        list(imagenet.eval_stream(where, "test", batch_size=2 * processes, **w))
        for w in layouts
    ]
    assert len({len(batches) for batches in found}) == 1
    rows = [
        (pixels.tobytes(), int(label))
        for batch in itertools.chain.from_iterable(found)
        for pixels, label in zip(
            batch.image[batch.mask], batch.label[batch.mask], strict=True
        )
    ]
    expected = [
        (images.fit(images.decode(file), 24, 28).tobytes(), label)
        for file, label in contents_of(packed, "test")
    ]
    assert rows == expected if processes == 1 else sorted(rows) == sorted(expected)


@pytest.mark.slow
def test_processes_that_decode_change_no_bit(packed, tmp_path):
    where = settings(packed, tmp_path)
    one = taken(imagenet.train_stream(where, **run(1, batch_size=70)), 4)
    several = dataclasses.replace(where, workers=2)
    two = taken(imagenet.train_stream(several, **run(1, batch_size=70)), 4)
    same(two, one)


def test_extra_images_are_mixed_in(source, packed, tmp_path):
    extra = str(source / "test")
    where = settings(packed, tmp_path, extra_dirs=(extra,), extra_ratio=0.25)
    mix = imagenet.mix(where)
    assert (mix.main, mix.extra) == (COUNT["train"], COUNT["test"])
    batches = taken(imagenet.train_stream(where, **run(0, batch_size=8)), 3)
    numbers = data.global_indices(0, 0, 3, 8, mix)
    labels = [label for _, label in contents_of(packed, "train")]
    labels += [
        CLASSES.index(p.parent.name) for p in sorted((source / "test").rglob("*.jpg"))
    ]
    for batch, chosen in zip(batches, numbers, strict=True):
        assert (chosen >= COUNT["train"]).sum() == 2
        assert batch.label.tolist() == [labels[i] for i in chosen]


def test_broken_images_are_counted_and_damage_is_named(packed, tmp_path, caplog):
    from array_record.python import array_record_module

    root = tmp_path / "sets"
    shutil.copytree(packed / "tiny", root / "tiny")
    (path,) = root.rglob("tiny-test.array_record-*")
    files = contents_of(packed, "test")
    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
    for i, (file, label) in enumerate(files):
        writer.write(tf_example.encode(b"no image" if i == 4 else file, label))
    writer.close()
    where = settings(root, tmp_path, max_broken=1)
    found = list(imagenet.eval_stream(where, "test", batch_size=4))
    assert sum(batch.mask.sum() for batch in found) == COUNT["test"] - 1
    assert caplog.text.count(f"{path}__4 ") == 1
    strict = dataclasses.replace(where, max_broken=0)
    with pytest.raises(DataError, match=r"max_broken is 0: .*__4: "):
        list(imagenet.eval_stream(strict, "test", batch_size=4))
    path.write_bytes(b"x" * 500)
    with pytest.raises(DataError, match=r"tiny-test.*can't be read: ") as caught:
        list(imagenet.eval_stream(where, "test", batch_size=4))
    assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(DataError, match=r"tiny-test.* isn't there"):
        list(imagenet.eval_stream(where, "test", batch_size=4))


def test_a_part_of_a_split_in_memory(packed, tmp_path):
    where = settings(packed, tmp_path, streaming=False, eval_resize=0)
    split = data.load(where, splits=("test[3:]",)).splits["test[3:]"]
    expected = contents_of(packed, "test")[3:]
    assert split.labels.tolist() == [label for _, label in expected]
    for pixels, (file, _) in zip(split.images, expected, strict=True):
        np.testing.assert_array_equal(pixels, images.fit(images.decode(file), 24, 24))
    streamed = settings(packed, tmp_path)
    assert records.num_examples(streamed, "test[3:]") == len(expected)
    (batch,) = imagenet.eval_stream(streamed, "test[3:]", batch_size=8)
    assert batch.label.tolist() == split.labels.tolist()


WITHOUT = """
import sys
from importlib.machinery import PathFinder
there = PathFinder.find_spec
def find_spec(name, *where):  # as where it isn't installed
    return None if name == "tensorflow" else there(name, *where)
PathFinder.find_spec = find_spec
from apr_jax import config, data
from apr_jax.data import imagenet
where = config.Data(**eval(sys.argv[1]))
print(data.describe(where).train_size)
stream = imagenet.train_stream(where, seed=0, start_step=4, batch_size=6)
print(next(stream).image.sum())
(batch,) = imagenet.eval_stream(where, "test", batch_size=11)
print(batch.label.sum(), "tensorflow" in sys.modules)
"""


def test_no_tensorflow_is_needed(packed, tmp_path):
    where = settings(packed, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, repr(dataclasses.asdict(where))],
        cwd=ROOT,
        env=dict(os.environ, JAX_PLATFORMS="cpu"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (batch,) = taken(imagenet.train_stream(where, **run(4, batch_size=6)), 1)
    labels = sum(label for _, label in contents_of(packed, "test"))
    assert done.stdout.split() == ["31", str(batch.image.sum()), str(labels), "False"]


def test_without_grain_a_line_says_so(packed, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(DataError, match=r"grain is not installed, .*apr_jax\[grain\]"):
        imagenet.train_stream(settings(packed, tmp_path), **run(0, batch_size=6))


def test_which_files_have_an_index(prepared, packed, tmp_path):
    assert shards.are_indexed(settings(packed, tmp_path))
    root, _ = prepared
    assert not shards.are_indexed(settings(root, tmp_path, name="tiny_jpeg"))
    assert not shards.are_indexed(settings(root, tmp_path, source="folder"))
