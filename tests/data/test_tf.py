"""What TensorFlow reads: TFDS sets, and streams of large images."""

import dataclasses
import io
import itertools
import json
import pathlib
import re
import runpy
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from apr_jax import data
from apr_jax.data import imagenet, images, jpeg, random_access, tfds
from apr_jax.errors import DataError
from tests import toy
from tests.data.conftest import CLASSES, picture
from tests.data.test_data import SETTINGS

ROOT = pathlib.Path(__file__).resolve().parents[2]


def encoded(pixels, kind="JPEG", mode="RGB"):
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind)
    return file.getvalue()


def settings(root, tmp_path, **changes):
    defaults = {
        "source": "tfds",
        "name": "tiny_png",
        "data_dir": str(root),
        "cache_dir": str(tmp_path / "cache"),
    }
    return dataclasses.replace(SETTINGS, **(defaults | changes))


def stream_settings(root, tmp_path, **changes):
    defaults = {"name": "tiny_jpeg", "streaming": True, "image_size": 24}
    return settings(root, tmp_path, **(defaults | {"eval_resize": 28} | changes))


def sorted_rows(pixels, labels):
    rows = [
        p.tobytes() + bytes([label]) for p, label in zip(pixels, labels, strict=True)
    ]
    return sorted(rows)


# --- TFDS sets in memory.


def test_tfds_set_in_memory(prepared, tmp_path):
    root, written = prepared
    found = data.load(settings(root, tmp_path))
    assert found.class_names == CLASSES
    for split in ("train", "test"):
        pixels, labels = map(np.stack, zip(*written["tiny_png"][split], strict=True))
        # TFDS shuffles when it writes.
        got = sorted_rows(*found.splits[split])
        assert got == sorted_rows(pixels, labels)


def test_part_of_a_split(prepared, tmp_path):
    root, _ = prepared
    where = settings(root, tmp_path)
    whole = data.load(where, splits=("train",)).splits["train"]
    part = data.load(where, splits=("train[:50%]",)).splits["train[:50%]"]
    np.testing.assert_array_equal(part.images, whole.images[:15])


def test_tfds_images_of_several_sizes_are_cropped(prepared, tmp_path):
    root, _ = prepared
    where = settings(root, tmp_path, name="tiny_jpeg:1.0.0", image_size=20)
    assert data.load(where).splits["test"].images.shape == (10, 20, 20, 3)


def test_without_tensorflow_a_line_says_so(prepared, tmp_path, monkeypatch):
    root, _ = prepared
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(DataError, match="tensorflow is not installed, which reads"):
        data.load(settings(root, tmp_path))


START = """
import sys
from apr_jax import config, data
found = data.load(config.Data(**{settings!r}))
assert "tensorflow" not in sys.modules, "TensorFlow was imported"
assert "tensorflow_datasets" not in sys.modules
print(found.fingerprint, found.splits["train"].images.sum())
"""


def test_second_start_imports_no_tensorflow(prepared, tmp_path):
    root, _ = prepared
    where = settings(root, tmp_path)
    first = data.load(where)
    code = START.format(settings=dataclasses.asdict(where))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    fingerprint, total = done.stdout.split()
    assert fingerprint == first.fingerprint
    assert int(total) == first.splits["train"].images.sum()


TRAINING = """
import pathlib, sys
from absl import app
from apr_jax import job, models
from tests import toy
models.MODELS["tiny"] = toy.TinyNet
settings = toy.settings(pathlib.Path(sys.argv[1]), **eval(sys.argv[2]))
settings.train.watch = ("accuracy",)
app.run(lambda _: job.main(settings, workdir=sys.argv[1] + "/run"), sys.argv[:1])
"""
FOREIGN = re.compile(
    "^[IWEF][0-9]{4} |^[0-9]{4}-|WARNING|absl|[Tt]ensor[Ff]low|oneDNN|rbax|deprecated"
)


@pytest.mark.slow
def test_a_program_says_nothing_of_what_it_is_built_on(prepared, tmp_path):
    """Reads a set of TFDS, trains, saves, measures, and draws."""
    changes = {
        "data__source": "tfds",
        "data__name": "tiny_png",
        "data__data_dir": str(prepared[0]),
        "train__batch_size": 10,
        "optim__epochs": 1.0,
    }
    program = toy.start("-c", TRAINING, tmp_path, changes)
    said, _ = program.communicate(timeout=240)
    assert program.returncode == 0, said
    assert "Page: " in said
    assert not [line for line in said.splitlines() if FOREIGN.search(line)]


def test_tfds_errors_say_what_to_do(prepared, tmp_path, monkeypatch):
    root, _ = prepared
    with pytest.raises(DataError, match=r"data.name is ''; for"):
        data.load(settings(root, tmp_path, name=""))
    with pytest.raises(DataError, match=r"no split 'exam'.*train, extra, test"):
        data.load(settings(root, tmp_path), splits=("exam",))
    with pytest.raises(DataError, match=r"no such set.*tiny_jpeg, tiny_png"):
        data.load(settings(root, tmp_path, name="no_such_set"))
    # Without a network, whether or not this machine has one.
    monkeypatch.setattr(tfds.urllib.request, "getproxies", dict)

    def unreachable(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(tfds.socket, "create_connection", unreachable)
    message = r"mnist' is not there: data.data_dir is .*tfds build mnist --data_dir="
    with pytest.raises(DataError, match=message):
        data.load(settings(root, tmp_path, name="mnist"))
    message = r"(?s)can't be reached.*ILSVRC2012_img_train.tar"
    with pytest.raises(DataError, match=message):
        data.load(settings(root, tmp_path, name="imagenet2012"))


def test_newest_version_and_configurations(tmp_path):
    for folder in ("a/3.0.2", "a/10.0.0", "a/9.9.9", "b/one/1.0.0", "b/two/1.0.0"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "dataset_info.json").write_text('{"splits": []}')
    (tmp_path / "a" / "11.0.0").mkdir()  # incomplete

    def found(name):
        where = settings(tmp_path, tmp_path, name=name)
        return str(tfds.prepared_dir(where).relative_to(tmp_path))

    assert found("a") == "a/10.0.0"
    assert found("a:3.0.2") == "a/3.0.2"
    assert found("b/two") == "b/two/1.0.0"
    with pytest.raises(DataError, match=r"data.name is b/one, b/two"):
        found("b")


def test_sets_without_labels_are_refused(prepared, tmp_path):
    root, _ = prepared
    copy = tmp_path / "sets" / "tiny_png" / "1.0.0"
    copy.mkdir(parents=True)
    for file in (root / "tiny_png" / "1.0.0").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    features = json.loads((copy / "features.json").read_text())
    parts = features["featuresDict"]["features"]
    parts["class"] = parts.pop("label")
    (copy / "features.json").write_text(json.dumps(features))
    (copy / "label.labels.txt").rename(copy / "class.labels.txt")
    with pytest.raises(
        DataError, match=r"no 'label'; it has (class, image|image, class)"
    ):
        data.load(settings(tmp_path / "sets", tmp_path))


# --- Decoding.


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("sides", [(300, 400), (57, 31), (20, 200)])
def test_window_is_torchvisions(seed, sides):
    rng = np.random.default_rng(seed)
    draws = rng.random((jpeg.TRIES, 4))
    top, left, tall, wide = jpeg.window(draws, *sides)
    assert top >= 0
    assert left >= 0
    assert top + tall <= sides[0]
    assert left + wide <= sides[1]
    share = tall * wide / np.prod(sides)
    if sides != (20, 200):
        assert 0.06 < share < 1.03
        assert 0.7 < wide / tall < 1.4
    tf = tfds.engine().tf
    in_graph = jpeg._tf_window(tf, tf.constant(draws), *sides)
    assert in_graph.numpy().tolist() == [top, left, tall, wide]


def test_windows_have_the_shares_and_shapes_of_torchvisions_default():
    assert jpeg.SCALE == (0.08, 1.0)
    draws = np.random.default_rng(0).random((400, jpeg.TRIES, 4))
    found = np.array([jpeg.window(d, 300, 300)[2:] for d in draws])
    shares = found.prod(1) / 300**2
    assert 0.07 < shares.min() < 0.12
    assert shares.max() > 0.93
    shapes = found[:, 1] / found[:, 0]
    assert 0.74 < shapes.min() < 0.8
    assert 1.25 < shapes.max() < 1.35


def test_window_of_a_very_wide_image_is_central():
    # At ten tries of an area near 100 %, nothing of an allowed ratio fits.
    draws = np.full((jpeg.TRIES, 4), 0.99)
    assert jpeg.window(draws, 20, 200) == (0, 86, 20, 27)
    assert jpeg.window(draws, 200, 20) == (86, 0, 27, 20)
    tf = tfds.engine().tf
    in_graph = jpeg._tf_window(tf, tf.constant(draws), 20, 200)
    assert in_graph.numpy().tolist() == [0, 86, 20, 27]


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("sides", [(60, 80), (33, 21)])
def test_tensorflow_decodes_as_pillow_does(rng, kind, mode, sides):
    tf = tfds.engine().tf
    contents = encoded(picture(rng, *sides), kind, mode)
    for _ in range(3):
        draws = rng.random((jpeg.TRIES, 4))
        ours = jpeg.tf_train_image(tf, contents, tf.constant(draws), 24).numpy()
        close(ours, jpeg.train_image(images.decode(contents), draws, 24), beyond=0.1)
    for size, shorter in ((24, 28), (24, 0), (21, 30)):
        ours = jpeg.tf_eval_image(tf, contents, size, shorter).numpy()
        close(ours, images.fit(images.decode(contents), size, shorter))


def close(ours, theirs, beyond=0.0):
    """Pillow's weights are integers, so a grey level may be off by one.

    ``beyond`` is the share of values that may be off by more: where only a window is
    decoded, colours at its edge are interpolated without their neighbours outside.
    """
    assert ours.shape == theirs.shape
    assert ours.dtype == np.uint8
    difference = np.abs(ours.astype(int) - theirs)
    assert (difference > 1).mean() <= beyond
    assert (difference > 0).mean() < 0.25


# --- Streams.


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """An image folder: 22 for training, of all kinds, and 11 to test on."""
    root = tmp_path_factory.mktemp("folder")
    rng = np.random.default_rng(2)
    for split, count in (("train", 22), ("test", 11)):
        for i in range(count):
            path = root / split / CLASSES[i % 3] / f"{i:02d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            kind = "PNG" if i == 4 else "JPEG"
            mode = {2: "L", 7: "CMYK"}.get(i, "RGB")
            more = b"after the end" if i == 9 else b""
            path.write_bytes(encoded(picture(rng, 40 + i, 50), kind, mode) + more)
    return root


def copied(folder, tmp_path):
    """A copy of the folder whose files may be damaged."""
    copy = tmp_path / "copy"
    for path in folder.rglob("*.jpg"):
        target = copy / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return copy


def taken(stream, count):
    return list(itertools.islice(stream, count))


def same(first, second):
    for a, b in zip(first, second, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


SOURCES = ["folder", "tfds"]


@pytest.fixture(params=SOURCES)
def streamed(request, tmp_path):
    """Settings of a stream from each source."""
    if request.param == "folder":
        root = request.getfixturevalue("folder")
        return stream_settings(root, tmp_path, source="folder")
    root, _ = request.getfixturevalue("prepared")
    # Two files, so that their order is drawn too.
    return stream_settings(root, tmp_path, train_split="train+extra")


@pytest.mark.parametrize(
    "streamed", ["folder", pytest.param("tfds", marks=pytest.mark.slow)], indirect=True
)
def test_stream_goes_on_where_it_stopped(streamed):
    whole = taken(data.imagenet.train_stream(streamed, **run(0, batch_size=6)), 12)
    assert whole[0].image.shape == (6, 24, 24, 3)
    assert whole[0].image.dtype == np.uint8
    assert whole[0].label.dtype == np.int32
    assert all(b.mask.all() for b in whole)
    for start in (3, 9):
        stream = data.imagenet.train_stream(streamed, **run(start, batch_size=6))
        same(taken(stream, 12 - start), whole[start:])
    other = taken(data.imagenet.train_stream(streamed, **run(0, 6, seed=1)), 1)
    assert not np.array_equal(other[0].image, whole[0].image)


def run(start, batch_size, seed=0, **layout):
    return {"seed": seed, "start_step": start, "batch_size": batch_size, **layout}


def test_every_epoch_of_a_stream_has_every_example_once(streamed, monkeypatch):
    """Without the random window, pixels tell which example it is."""
    monkeypatch.setattr(jpeg, "SCALE", (1e9, 1e9))  # nothing fits: the whole centre
    size = data.imagenet.num_examples(streamed, streamed.train_split)
    assert size == {"folder": 22, "tfds": 39}[streamed.source]
    stream = data.imagenet.train_stream(streamed, **run(0, batch_size=5))
    found = taken(stream, -(-2 * size // 5))
    pixels = np.concatenate([b.image for b in found])[: 2 * size]
    labels = np.concatenate([b.label for b in found])[: 2 * size]
    first, second = (
        sorted_rows(pixels[part], labels[part])
        for part in (slice(0, size), slice(size, 2 * size))
    )
    assert first == second
    assert len(set(first)) == size


def drawn_for(streamed, seed, count):
    """Names and what windows are drawn from, of the first images of a run."""
    if streamed.source == "tfds":
        raw = imagenet.records.train(
            streamed,
            seed=seed,
            start_step=0,
            batch_size=1,
            process_index=0,
            process_count=1,
        )
        found = raw.examples.take(count).as_numpy_iterator()
        return [(name, tuple(drawn)) for _, _, drawn, name in found]
    found = []
    with pytest.MonkeyPatch.context() as patch:
        note = lambda _, drawn, size, name: found.append((name, drawn.tobytes()))
        patch.setattr(jpeg, "train_pixels", note)
        work = random_access.train_work(
            streamed, seed=seed, start_step=0, batch_size=1, rows=1, process_index=0
        )
        for step in range(count):
            with pytest.raises(TypeError):  # there are no pixels
                work(step, 0)
    return found


def test_every_epoch_has_an_order_and_windows_of_its_own(streamed):
    size = data.imagenet.num_examples(streamed, streamed.train_split)

    def epochs(seed):
        found = drawn_for(streamed, seed, 2 * size)
        return found[:size], found[size:]

    first, second = epochs(0)
    assert dict(first).keys() == dict(second).keys()
    assert [name for name, _ in first] != [name for name, _ in second]
    # The window of an example is drawn anew, and no two have the same draws.
    assert len({drawn for _, drawn in (*first, *second)}) == 2 * size
    other, _ = epochs(1)
    assert [name for name, _ in other] != [name for name, _ in first]
    assert not {drawn for _, drawn in other} & {drawn for _, drawn in first}


def test_the_buffer_shuffles_so_far(prepared, tmp_path):
    """With room for one example only files are in another order."""
    root, _ = prepared
    risen = []
    for room in (1, 100):
        where = stream_settings(root, tmp_path, shuffle_buffer=room)
        given = run(0, 1, process_index=0, process_count=1)
        raw = imagenet.records.train(where, **given)
        names = [x[3].decode() for x in raw.examples.take(30).as_numpy_iterator()]
        numbers = [int(name.rpartition("__")[2]) for name in names]
        assert sorted(numbers) == list(range(30))
        risen.append(numbers == sorted(numbers))
    assert risen == [True, False]


def test_processes_share_a_folders_batches(folder, tmp_path):
    where = stream_settings(folder, tmp_path, source="folder")
    whole = taken(data.imagenet.train_stream(where, **run(2, batch_size=6)), 4)
    parts = [
        taken(
            data.imagenet.train_stream(
                where, **run(2, 6, process_index=i, process_count=2)
            ),
            4,
        )
        for i in range(2)
    ]
    for batch, first, second in zip(whole, *parts, strict=True):
        joined = [np.concatenate(pair) for pair in zip(first, second, strict=True)]
        same([joined], [batch])


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow), 3])
def test_evaluation_stream_counts_every_example_once(streamed, processes):
    found = [
        list(
            data.imagenet.eval_stream(
                streamed,
                "test",
                batch_size=2 * processes,
                process_index=i,
                process_count=processes,
            )
        )
        for i in range(processes)
    ]
    assert len({len(batches) for batches in found}) == 1
    rows = []
    for batch in itertools.chain.from_iterable(found):
        assert batch.image.shape == (2, 24, 24, 3)
        rows += sorted_rows(batch.image[batch.mask], batch.label[batch.mask])
    size = data.imagenet.num_examples(streamed, "test")
    assert len(rows) == size
    assert len(set(rows)) == size


def test_evaluation_is_resize_and_centre_crop(folder, tmp_path):
    where = stream_settings(folder, tmp_path, source="folder")
    (batch,) = data.imagenet.eval_stream(where, "test", batch_size=11)
    paths = sorted(p for p in (folder / "test").rglob("*.jpg"))
    for path, pixels in zip(paths, batch.image, strict=True):
        close(pixels, images.fit(images.decode(path), 24, 28))
    assert data.describe(where) == (CLASSES, 22)


def test_training_goes_on_past_broken_files(folder, tmp_path, caplog):
    root = copied(folder, tmp_path)
    cut = root / "train" / "cat" / "00.jpg"
    cut.write_bytes(cut.read_bytes()[:-200])
    (root / "train" / "dog" / "01.jpg").write_bytes(b"\xff\xd8 no image")
    where = stream_settings(root, tmp_path, source="folder", max_broken=2)
    found = taken(data.imagenet.train_stream(where, **run(0, batch_size=4)), 11)
    assert all(b.mask.all() for b in found)
    # Named once, though two epochs came by.
    assert caplog.text.count("cat/00.jpg") == 1
    assert caplog.text.count("dog/01.jpg") == 1
    whole = stream_settings(folder, tmp_path, source="folder")
    unbroken = taken(data.imagenet.train_stream(whole, **run(0, batch_size=4)), 11)
    changed = [
        not np.array_equal(ours[i], theirs[i])
        for a, b in zip(found, unbroken, strict=True)
        for ours, theirs in [(a.image, b.image)]
        for i in range(4)
    ]
    assert sum(changed) == 4  # two files in two epochs; no other row
    strict = dataclasses.replace(where, max_broken=1)
    with pytest.raises(DataError, match=r"(?s)2 images are broken.*max_broken"):
        taken(data.imagenet.train_stream(strict, **run(0, batch_size=4)), 11)


def test_broken_record_is_named(prepared, tmp_path, caplog):
    root, _ = prepared
    tf = tfds.engine().tf
    copy = tmp_path / "sets" / "tiny_jpeg" / "1.0.0"
    copy.mkdir(parents=True)
    for file in (root / "tiny_jpeg" / "1.0.0").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (file,) = copy.glob("*-train.tfrecord*")
    records = list(tf.data.TFRecordDataset(str(file)).as_numpy_iterator())
    start = records[4].index(b"\xff\xd8")
    damaged = bytearray(records[4])
    damaged[start : start + 2] = b"no"
    records[4] = bytes(damaged)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for record in records:
            writer.write(record)
    where = stream_settings(tmp_path / "sets", tmp_path, max_broken=1)
    found = taken(data.imagenet.train_stream(where, **run(0, batch_size=10)), 3)
    assert all(b.mask.all() for b in found)
    assert caplog.text.count(f"{file}__4 ") == 1


def test_evaluation_goes_on_past_broken_files(folder, tmp_path, caplog):
    root = copied(folder, tmp_path)
    (root / "test" / "cat" / "00.jpg").write_bytes(b"")
    where = stream_settings(root, tmp_path, source="folder", max_broken=1)
    found = list(data.imagenet.eval_stream(where, "test", batch_size=4))
    assert caplog.text.count("cat/00.jpg") == 1
    whole = stream_settings(folder, tmp_path, source="folder")
    unbroken = list(data.imagenet.eval_stream(whole, "test", batch_size=4))
    count = sum(b.mask.sum() for b in unbroken)
    assert sum(b.mask.sum() for b in found) == count - 1
    rows = lambda batches: np.concatenate([b.image[b.mask] for b in batches])
    np.testing.assert_array_equal(rows(found), rows(unbroken)[1:])
    strict = dataclasses.replace(where, max_broken=0)
    with pytest.raises(DataError, match=r"(?s)max_broken is 0:.*cat/00.jpg"):
        list(data.imagenet.eval_stream(strict, "test", batch_size=4))


def test_a_batch_of_broken_files_alone(folder, tmp_path):
    root = copied(folder, tmp_path)
    for path in (root / "train").rglob("*.jpg"):
        path.write_bytes(b"nothing")
    where = stream_settings(root, tmp_path, source="folder", max_broken=99)
    with pytest.raises(DataError, match="all 4 images of a batch are broken"):
        next(data.imagenet.train_stream(where, **run(0, batch_size=4)))


def test_streams_check_their_settings(folder, tmp_path):
    where = stream_settings(folder, tmp_path, source="folder")
    with pytest.raises(DataError, match="batch of 5 can't be divided among 2"):
        data.imagenet.train_stream(where, **run(0, 5, process_count=2))
    with pytest.raises(DataError, match="no split 'exam'"):
        data.imagenet.eval_stream(where, "exam", batch_size=4)


# --- Real data.


@pytest.mark.parity
@pytest.mark.slow
def test_svhn_through_tfds(shared, tmp_path):
    make = runpy.run_path(str(shared / "tools" / "make-tfds"))["main"]
    make(str(tmp_path), ["svhn_cropped"])
    where = settings(tmp_path, tmp_path, name="svhn_cropped", image_size=32)
    split = data.load(where, splits=("test",)).splits["test"]
    read = runpy.run_path(str(shared / "data" / "read.py"))["read_tiles"]
    pixels, labels, _ = read(shared / "data" / "ood" / "svhn_test5k.npz")
    assert sorted_rows(*split) == sorted_rows(pixels, labels)


@pytest.mark.slow
@pytest.mark.parity
def test_cifar10_through_tfds(shared, tmp_path):
    make = runpy.run_path(str(shared / "tools" / "make-tfds"))["main"]
    make(str(tmp_path), ["cifar10"])
    where = settings(tmp_path, tmp_path, name="cifar10", image_size=32)
    found = data.load(where)
    assert found.class_names[:3] == ("airplane", "automobile", "bird")
    for split, files in (("train", ["train_0", "train_1"]), ("test", ["test"])):
        read = runpy.run_path(str(shared / "data" / "read.py"))["read_tiles"]
        parts = [read(shared / "data" / "cifar10" / f"{f}.npz") for f in files]
        pixels, labels = (np.concatenate([p[i] for p in parts]) for i in range(2))
        assert len(set(np.bincount(found.splits[split].labels))) == 1
        assert sorted_rows(*found.splits[split]) == sorted_rows(pixels, labels)


@pytest.mark.slow
@pytest.mark.parity
def test_real_jpegs(shared, tmp_path):
    """200 files of ImageNet: training windows and evaluation crops as Pillow's."""
    read = runpy.run_path(str(shared / "data" / "read.py"))["read_jpegs"]
    files, labels = read(shared / "data" / "imagenet_sample" / "original_200.npz")
    for i, (contents, label) in enumerate(zip(files, labels, strict=True)):
        path = tmp_path / "in" / "train" / f"{label:04d}" / f"{i:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents)
    where = stream_settings(
        tmp_path / "in", tmp_path, source="folder", image_size=224, eval_resize=256
    )
    paths = sorted((tmp_path / "in").rglob("*.jpg"))
    batches = data.imagenet.eval_stream(where, "train", batch_size=40)
    pixels = np.concatenate([b.image[b.mask] for b in batches])
    assert len(pixels) == 200
    for path, ours in zip(paths, pixels, strict=True):
        close(ours, images.fit(images.decode(path), 224, 256), beyond=1e-4)
    (batch,) = taken(data.imagenet.train_stream(where, **run(0, batch_size=200)), 1)
    order = data.global_indices(0, 0, 1, 200, 200)[0]
    tf = tfds.engine().tf
    seed = imagenet.records.epoch_seed(0, 0)
    for i, ours in zip(order, batch.image, strict=True):
        draws = jpeg.uniforms(tf, np.asarray([seed, i], np.int64)).numpy()
        decoded = images.decode(paths[i])
        close(ours, jpeg.train_image(decoded, draws, 224), beyond=0.004)
