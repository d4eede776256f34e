"""Extra images: their places in a run, their labels, and that runs go on."""

import dataclasses
import logging
import runpy

import numpy as np
import pytest
from PIL import Image

from apr_jax import config as config_lib
from apr_jax import data, models
from apr_jax.data import Mix, images, jpeg, records, samples, tfds
from apr_jax.data import batches as batches_lib
from apr_jax.errors import ConfigError, DataError
from apr_jax.runs import checkpoint
from apr_jax.train import dispatch, loop
from apr_jax.train import plan as plan_lib
from tests import toy
from tests.data.test_data import settings
from tests.data.test_tf import (  # noqa: F401
    CLASSES,
    close,
    folder,
    run,
    same,
    stream_settings,
    taken,
)

# --- The order.


def places_by_hand(mix, count):
    """Which places have extra images, one after the other."""
    share = mix.ratio or mix.extra / (mix.main + mix.extra)
    given, found = 0, []
    for t in range(1, count + 1):
        more = int(np.floor(t * share + 1e-9)) > given
        given += more
        found.append(more)
    return np.array(found)


@pytest.mark.parametrize("ratio", [0.0, 0.5, 1 / 3, 0.13, 1.0])
@pytest.mark.parametrize("sizes", [(12, 12), (7, 20), (20, 7)])
def test_extra_images_have_their_share_of_every_batch(sizes, ratio):
    mix, batch = Mix(*sizes, ratio), 8
    order = data.global_indices(3, 0, 60, batch, mix)
    extra = order >= mix.main
    np.testing.assert_array_equal(extra.ravel(), places_by_hand(mix, 60 * batch))
    share = ratio or sizes[1] / sum(sizes)
    assert (np.abs(extra.sum(1) - batch * share) < 1).all()
    # Of either kind every image comes up once before any comes up again.
    for kind, size in ((order[~extra], mix.main), (order[extra] - mix.main, mix.extra)):
        passes = kind[: len(kind) // size * size].reshape(-1, size)
        np.testing.assert_array_equal(
            np.sort(passes, axis=1), np.broadcast_to(np.arange(size), passes.shape)
        )
        if len(passes) > 1:
            assert (passes[0] != passes[1]).any()


def test_by_their_size_all_images_come_up_equally_often():
    order = data.global_indices(0, 0, 1, 3 * 31, Mix(20, 11))
    np.testing.assert_array_equal(np.bincount(order[0]), np.full(31, 3))


def test_order_goes_on_and_is_as_ever_without_extra_images():
    mix = Mix(25, 25, 0.4)
    whole = data.global_indices(1, 0, 20, 6, mix)
    for start in (0, 7, 19):
        part = data.global_indices(1, start, 20 - start, 6, mix)
        np.testing.assert_array_equal(part, whole[start:])
    for plain in (Mix(25), Mix(25, 0, 0.0)):
        np.testing.assert_array_equal(
            data.global_indices(1, 0, 20, 6, plain),
            data.global_indices(1, 0, 20, 6, 25),
        )
    # Sets as large as each other don't have the same order.
    extra = whole[whole >= 25][:25] - 25
    assert (extra != whole[whole < 25][:25]).mean() > 0.5


# --- In memory.


@pytest.fixture
def small(tmp_path):
    """Arrays of classes a, b, c, d; extra folders and an .npz in other orders."""
    rng = np.random.default_rng(5)
    (tmp_path / "data").mkdir()
    for split, count in (("train", 20), ("test", 8)):
        images = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        names = np.array(["a", "b", "c", "d"])
        np.savez(
            tmp_path / "data" / f"{split}.npz",
            images=images,
            labels=np.arange(count) % 4,
            class_names=names,
        )
    # The shade says the class, 40 for each.
    for name in "bd":
        for i in range(3):
            path = tmp_path / "style" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            shade = 40 * "abcd".index(name) + i
            Image.new("RGB", (8, 8), (shade,) * 3).save(path)
    np.savez(
        tmp_path / "more.npz",
        images=np.full((2, 8, 8, 3), [[[[80]]], [[[0]]]], np.uint8),
        labels=np.array([0, 1]),
        class_names=np.array(["c", "a"]),
    )
    return tmp_path


def extra_dirs(root, *names):
    return tuple(str(root / name) for name in names)


def test_extra_images_in_memory_have_the_main_set_s_labels(small, caplog):
    where = settings(small, extra_dirs=extra_dirs(small, "style", "more.npz"))
    found = data.load(where)
    images, labels = found.extra
    assert images.shape == (8, 8, 8, 3)
    np.testing.assert_array_equal(images[:, 0, 0, 0] // 40, labels)
    assert sorted(labels.tolist()) == [0, 1, 1, 1, 2, 3, 3, 3]
    assert found.fingerprint == data.load(settings(small)).fingerprint
    assert data.load(where, splits=("test",)).extra is None
    assert data.load(settings(small)).extra is None
    assert "classes" not in caplog.text
    # A changed file is read anew.
    Image.new("RGB", (9, 9), (45,) * 3).save(small / "style" / "b" / "0.png")
    with caplog.at_level(logging.WARNING):
        where = dataclasses.replace(where, extra_dirs=extra_dirs(small, "style"))
        assert 45 in data.load(where).extra.images
    assert "the extra images have 2 of the 4 classes" in caplog.text


def test_wrong_extra_images_are_refused_by_name(small):
    def message(*names):
        with pytest.raises(DataError) as caught:
            data.load(settings(small, extra_dirs=extra_dirs(small, *names)))
        return str(caught.value)

    assert message("style", "nowhere").endswith("nowhere', which isn't there")
    assert "which isn't there" in message("nowhere.npz")
    (small / "empty").mkdir()
    assert "no class folders; it must have CLASS/IMAGE.jpg" in message("empty")
    (small / "empty" / "a").mkdir()
    assert "no images in" in message("empty")
    (small / "style" / "e").mkdir()
    wrong = message("style")
    assert str(small / "style") in wrong
    assert "a class 'e'; the classes of 'tiny' are a, b, c, d" in wrong
    # Without names labels can't be told.
    images = np.zeros((2, 8, 8, 3), np.uint8)
    np.savez(small / "bare.npz", images=images, labels=np.array([0, 1]))
    assert "a class '0'; the classes of 'tiny' are a, b, c, d" in message("bare.npz")
    names = np.array(["a"])
    np.savez(small / "bad.npz", images=images, labels=[0, 1], class_names=names)
    assert "2 labels don't count its 1 classes" in message("bad.npz")


def test_training_on_extra_images_goes_on_with_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setitem(models.MODELS, "tiny", toy.TinyNet)
    toy.write_arrays(tmp_path)
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "extra.npz", images=images, labels=np.arange(30) % 4)
    changes = {
        "augment__method": "standard",
        "optim__epochs": 2.0,
        "data__extra_dirs": (str(tmp_path / "extra.npz"),),
        "data__extra_ratio": 0.25,
    }

    def trained(where, until=None, **more):
        config = toy.config(tmp_path, **(changes | more))
        plan = plan_lib.plan(config, tmp_path / where)
        # An epoch is the main set's.
        assert (plan.mix.extra, plan.train_size, plan.total_steps) == (30, 96, 12)
        return checkpoint.digest(loop.train(plan, until=until, quiet=True).state)

    whole = trained("whole")
    trained("parts", until=5)
    assert trained("parts") == whole
    # Other pictures, other weights: they are used.
    np.savez(tmp_path / "extra.npz", images=images // 2, labels=np.arange(30) % 4)
    assert trained("darker") != whole


def test_images_held_out_come_up_neither_way(tmp_path, monkeypatch):
    monkeypatch.setitem(models.MODELS, "tiny", toy.TinyNet)
    toy.write_arrays(tmp_path)
    images = np.arange(10, dtype=np.uint8)[:, None, None, None]
    images = np.broadcast_to(images, (10, 8, 8, 3))
    np.savez(tmp_path / "extra.npz", images=images, labels=np.arange(10) % 4)
    config = toy.config(
        tmp_path,
        data__extra_dirs=(str(tmp_path / "extra.npz"),),
        adversary__attack="fgsm",
        adversary__held_out=16,
    )
    plan = plan_lib.plan(config, tmp_path / "run")
    assert (plan.train_size, plan.mix.extra) == (80, 10)
    places = dispatch.indices_of(plan, 0, 9).ravel()[:90]
    all_images, labels = dispatch.training_images(plan)
    assert (len(all_images), len(labels)) == (106, 106)
    # By their size, so in 90 places each once.
    extra = all_images[places[places >= 96]][:, 0, 0, 0]
    assert sorted(extra.tolist()) == list(range(10))
    held = samples.hold_out(96, 16)[1]
    assert sorted([*places[places < 96], *held]) == list(range(96))


# --- Streams.


@pytest.fixture(scope="module")
def styled(tmp_path_factory):
    """15 JPEGs of one grey level each, which says class and number."""
    root = tmp_path_factory.mktemp("styled") / "EDSR"
    for label, name in enumerate(CLASSES):
        for i in range(5):
            path = root / name / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            shade = 60 * label + 10 * i + 3
            Image.new("RGB", (30, 27), (shade,) * 3).save(path, quality=95)
    return root


@pytest.fixture(params=["folder", "tfds"])
def mixed(request, tmp_path, styled):
    """Settings of a stream from each source, 40 % of it extra images."""
    changes = {"extra_dirs": (str(styled),), "extra_ratio": 0.4}
    if request.param == "folder":
        root = request.getfixturevalue("folder")
        return stream_settings(root, tmp_path, source="folder", **changes)
    root, _ = request.getfixturevalue("prepared")
    return stream_settings(root, tmp_path, train_split="train+extra", **changes)


def flat(batches):
    """Images and labels of all rows, and which are of one grey level."""
    pixels = np.concatenate([b.image for b in batches])
    labels = np.concatenate([b.label for b in batches])
    grey = pixels.reshape(len(pixels), -1)
    return pixels, labels, grey.max(1) - grey.min(1) <= 2


def test_stream_has_extra_images_in_their_places(mixed, monkeypatch):
    monkeypatch.setattr(jpeg, "SCALE", (1e9, 1e9))  # nothing fits: the whole centre
    mix = data.imagenet.mix(mixed)
    size = {"folder": 22, "tfds": 39}[mixed.source]
    assert (mix.main, mix.extra, float(mix.share)) == (size, 15, 0.4)
    batches = taken(data.imagenet.train_stream(mixed, **run(0, batch_size=5)), 26)
    pixels, labels, extra = flat(batches)
    np.testing.assert_array_equal(extra, places_by_hand(mix, 130))
    shades = pixels[extra][:, 12, 12, 0]
    np.testing.assert_array_equal(shades // 60, labels[extra])
    # Each extra image once in 15, each image of the main set once in its size.
    passes = (shades.astype(int) // 10)[:45].reshape(3, 15)
    assert (np.sort(passes) == np.sort(passes[0])).all()
    assert len(set(passes[0].tolist())) == 15
    assert (passes[0] != passes[1]).any()
    main = [p.tobytes() for p in pixels[~extra]][:size]
    assert len(set(main)) == size


@pytest.mark.parametrize(
    "mixed", ["folder", pytest.param("tfds", marks=pytest.mark.slow)], indirect=True
)
def test_processes_share_extra_images_and_go_on_where_they_stopped(mixed):
    def stream(start, count, **layout):
        found = data.imagenet.train_stream(mixed, **run(start, 6, **layout))
        return taken(found, count)

    whole = stream(3, 6)
    same(stream(6, 3), whole[3:])
    second = {"process_index": 1, "process_count": 2}
    parts = [stream(3, 6, process_count=2), stream(3, 6, **second)]
    same(stream(6, 3, **second), parts[1][3:])
    joined = [
        data.Batch(*(np.concatenate(rows) for rows in zip(*batches, strict=True)))
        for batches in zip(*parts, strict=True)
    ]
    if mixed.source == "folder":
        same(joined, whole)
    # From TFDS each process reads its own records, but the extra ones are the same.
    (pixels, labels, extra), (ours, mine, also) = flat(whole), flat(joined)
    np.testing.assert_array_equal(extra, also)
    np.testing.assert_array_equal(labels[extra], mine[extra])
    np.testing.assert_array_equal(pixels[extra], ours[extra])


def test_a_broken_extra_image_is_named(mixed, styled, tmp_path, caplog):
    root = tmp_path / "CAE"
    for path in styled.rglob("*.jpg"):
        copy = root / path.relative_to(styled)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (root / "dog" / "2.jpg").write_bytes(b"\xff\xd8 no image")
    where = dataclasses.replace(mixed, extra_dirs=(str(root),), max_broken=1)
    taken(data.imagenet.train_stream(where, **run(0, batch_size=5)), 10)
    assert caplog.text.count("dog/2.jpg (") == 1
    assert "broken image 2" not in caplog.text


def test_wrong_folders_are_refused_before_training(mixed, tmp_path):
    (tmp_path / "SIN" / "n01440764").mkdir(parents=True)
    changes = {"SIN": "has a class 'n01440764'; the classes of .* are cat, dog, owl"}
    changes |= {"nowhere": "which isn't there", "a.npz": "which isn't there"}
    for name, message in changes.items():
        where = dataclasses.replace(mixed, extra_dirs=(str(tmp_path / name),))
        with pytest.raises(DataError, match=message):
            data.imagenet.mix(where)
    (tmp_path / "a.npz").write_bytes(b"")
    with pytest.raises(DataError, match=r"with data.streaming it names folders"):
        data.imagenet.mix(where)


# --- Real data.


@pytest.mark.slow
@pytest.mark.parity
def test_imagenet_s_own_files_beside_others_made_of_them(shared, tmp_path):
    """Files of ImageNet, and the same ones posterised as another style."""
    read = runpy.run_path(str(shared / "data" / "read.py"))["read_jpegs"]
    files, labels = read(shared / "data" / "imagenet_sample" / "original_200.npz")
    for i, (contents, label) in enumerate(zip(files[:24], labels, strict=False)):
        for part in ("in/train", "SIN"):
            path = tmp_path / part / f"n{label:08d}" / f"{i:03d}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            if part == "SIN":
                pixels = images.decode(contents)
                Image.fromarray(pixels // 64 * 64).save(path, "JPEG", quality=95)
            else:
                path.write_bytes(contents)
    where = stream_settings(
        tmp_path / "in",
        tmp_path,
        source="folder",
        image_size=64,
        extra_dirs=(str(tmp_path / "SIN"),),
    )
    mix = data.imagenet.mix(where)
    assert (mix.main, mix.extra, mix.share) == (24, 24, 0.5)
    (batch,) = taken(data.imagenet.train_stream(where, **run(0, batch_size=48)), 1)
    order = data.global_indices(0, 0, 1, 48, mix)[0]
    assert sorted(order) == list(range(48))
    paths = sorted((tmp_path / "in").rglob("*.JPEG"))
    paths += sorted((tmp_path / "SIN").rglob("*.JPEG"))
    names = data.describe(where).class_names
    tf = tfds.engine().tf
    numbers = np.arange(48, dtype=np.int64)
    indices, epochs, seeds = batches_lib.mixed_numbers(0, numbers, mix)
    for row, i in enumerate(indices):
        assert names[batch.label[row]] == paths[i].parent.name
        seed = [records.epoch_seed(seeds[row], epochs[row]), i]
        draws = jpeg.uniforms(tf, np.asarray(seed, np.int64)).numpy()
        expected = jpeg.train_image(images.decode(paths[i]), draws, 64)
        close(batch.image[row], expected, beyond=0.02)


# --- The configuration.


def test_a_share_of_no_images_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"data.extra_dirs names no folder"):
        toy.config(tmp_path, data__extra_ratio=0.5)
    with pytest.raises(ConfigError, match=r"extra_ratio is 1.5; it must be"):
        toy.config(tmp_path, data__extra_ratio=1.5, data__extra_dirs=("a",))


def test_extra_images_are_part_of_what_is_computed_but_not_where_they_lie(tmp_path):
    dirs = lambda *names: toy.config(tmp_path, data__extra_dirs=names)
    hashes = [
        config_lib.config_hash(c)
        for c in (
            toy.config(tmp_path),
            dirs("/a/EDSR", "/a/CAE"),
            dirs("/b/EDSR/", "CAE"),
            dirs("/a/CAE", "/a/EDSR"),
            toy.config(
                tmp_path, data__extra_dirs=("EDSR", "CAE"), data__extra_ratio=0.5
            ),
        )
    ]
    assert hashes[1] == hashes[2]
    assert len(set(hashes)) == 4
