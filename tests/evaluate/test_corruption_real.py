"""Corrupted sets as others keep them: TFDS folders, and a tree of real JPEGs."""

import dataclasses
import io
import itertools
import os
import runpy
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from apr_jax import config as config_lib
from apr_jax import corruptions, data, parallel
from apr_jax.data import images as images_lib
from apr_jax.data import tfds
from apr_jax.errors import DataError
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate import corruption
from apr_jax.evaluate.context import Context
from tests import toy
from tests.data.test_tf import ROOT

SETS = ("brightness", "contrast")
SEVERITIES = (1, 4)
QUICK = {"corruptions": SETS, "severities": SEVERITIES}
COUNT = 40
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer")
CIFAR10 += ("dog", "frog", "horse", "ship", "truck")  # in TFDS's order


def by_colour(classes):
    """A classifier by the mean colour, for any number of classes."""

    def logits(pixels):
        mean = pixels.mean((1, 2))
        waves = jnp.arange(1, classes + 1)[None] * 9.0 * mean.sum(1)[:, None]
        return jnp.cos(waves) + mean[:, :1]

    return logits


def network(config, names):
    return classifier_lib.from_function(
        by_colour(len(names)), config, names, name="colour"
    )


def measure(classifier, done=(), **given):
    layout = parallel.make_layout(1)
    settings = config_lib.Corruption(**{**QUICK, **given})
    context = Context(layout, done=done, quiet=True)
    return list(corruption.measure(classifier, settings, context))


def errors(records):
    return {r.split: r.value for r in records if r.metric == "error"}


def expected_error(images, labels, classes=10):
    logits = by_colour(classes)(jnp.asarray(images, jnp.float32) / 255)
    return 1 - np.mean(np.asarray(logits).argmax(1) == labels)


# --- TensorFlow Datasets -------------------------------------------------------------


def store(root, images, labels, *, name, config=None):
    """Writes a folder of TFDS, as its own builders lay it out."""
    module = tfds.engine().tfds
    module.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.0.0",
        config=config,
        features=module.features.FeaturesDict(
            {
                "image": module.features.Image(shape=(32, 32, 3)),
                "label": module.features.ClassLabel(names=CIFAR10),
            }
        ),
        split_datasets={
            "test": [
                (str(i), {"image": image, "label": int(label)})
                for i, (image, label) in enumerate(zip(images, labels, strict=True))
            ]
        },
        data_dir=root,
        disable_shuffling=True,
    )


@pytest.fixture(scope="module")
def originals():
    """CIFAR-10's first test images where they are there, else noise of ten shades."""
    path = ROOT.parent / "shared" / "data"
    if path.is_dir():
        read = runpy.run_path(str(path / "read.py"))["read_tiles"]
        images, labels, _ = read(path / "cifar10" / "test.npz", COUNT)
        return images, labels
    rng = np.random.default_rng(4)
    labels = np.arange(COUNT) % 10
    noise = rng.integers(0, 30, (COUNT, 32, 32, 3))
    return (noise + 20 * labels[:, None, None, None]).astype(np.uint8), labels


def disturbed(originals, name, severity):
    images, _ = originals
    return np.asarray(corruptions.corrupt(jax.random.key(5), images, name, severity))


@pytest.fixture(scope="module")
def sets(originals, tmp_path_factory):
    """``cifar10``, four configurations of ``cifar10_corrupted``, as TFDS has them."""
    root = tmp_path_factory.mktemp("tfds")
    store(root, *originals, name="cifar10")
    for name, severity in itertools.product(SETS, SEVERITIES):
        images = disturbed(originals, name, severity)
        where = {"name": "cifar10_corrupted", "config": f"{name}_{severity}"}
        store(root, images, originals[1], **where)
    return root


def cifar(root, tmp_path, **changes):
    config = toy.config(
        root,
        data__source="tfds",
        data__name="cifar10",
        data__image_size=32,
        data__cache_dir=str(tmp_path / "cache"),
        **changes,
    )
    return network(config, CIFAR10)


def test_sets_of_tfds_are_measured_from_end_to_end(sets, originals, tmp_path):
    place = sets / "cifar10_corrupted" / "brightness_1" / "1.0.0"
    assert (place / "dataset_info.json").is_file()
    records = measure(cifar(sets, tmp_path), source="tfds")
    found = errors(records)
    for name, severity in itertools.product(SETS, SEVERITIES):
        images = disturbed(originals, name, severity)
        wanted = expected_error(images, originals[1])
        assert found[f"{name}/{severity}"] == pytest.approx(wanted)
    assert found["clean"] == pytest.approx(expected_error(*originals))
    assert len(set(found.values())) > 2  # the classifier sees a difference
    assert {r.n for r in records if "/" in r.split and "mean" not in r.split} == {COUNT}
    assert {r.data for r in records} == {"cifar10-c"}
    few = measure(cifar(sets, tmp_path), source="tfds", examples=7)
    assert {r.n for r in few if "/" in r.split and "mean" not in r.split} == {7}


def test_corrupted_sets_can_be_measured_without_the_clean_one(sets, tmp_path):
    copy = tmp_path / "only"
    shutil.copytree(sets / "cifar10_corrupted", copy / "cifar10_corrupted")
    # Where there is no network, whether or not this machine has one.
    with pytest.MonkeyPatch.context() as patch:
        offline(patch)
        found = errors(measure(cifar(copy, tmp_path), source="tfds"))
    whole = errors(measure(cifar(sets, tmp_path), source="tfds"))
    assert "clean" not in found
    assert found == {split: v for split, v in whole.items() if split != "clean"}


def offline(patch):
    def unreachable(*args, **kwargs):
        raise OSError("no network")

    patch.setattr(tfds.urllib.request, "getproxies", dict)
    patch.setattr(tfds.socket, "create_connection", unreachable)


def test_what_tfds_does_not_have_is_refused_by_name(sets, tmp_path, monkeypatch):
    """TFDS itself, not told which, would take brightness at severity 1."""
    offline(monkeypatch)
    classifier = cifar(sets, tmp_path)
    measured = []
    never = lambda *args, **options: measured.append
    monkeypatch.setattr(classifier_lib, "make_collect", never)
    for wrong, name in (
        ({"severities": (1, 2)}, "cifar10_corrupted/brightness_2"),
        ({"corruptions": ("brightness", "fog")}, "cifar10_corrupted/fog_1"),
        ({"corruptions": ("glass_blur",)}, "cifar10_corrupted/frosted_glass_blur_1"),
    ):
        with pytest.raises(DataError, match=f"the set '{name}' is not there"):
            measure(classifier, source="tfds", **wrong)
    assert not measured  # found before anything was measured
    config = dataclasses.replace(classifier.config.data, name="cifar10_corrupted")
    with pytest.raises(DataError, match=r"several configurations.*contrast_4"):
        data.load(config, splits=("test",))


def test_a_set_of_tfds_that_changed_is_measured_anew(sets, originals, tmp_path):
    copy = tmp_path / "sets"
    shutil.copytree(sets, copy)
    classifier = cifar(copy, tmp_path)
    first = measure(classifier, source="tfds")
    assert measure(classifier, source="tfds", done=first) == []
    other = np.zeros_like(originals[0])
    shutil.rmtree(copy / "cifar10_corrupted" / "contrast_4")
    where = {"name": "cifar10_corrupted", "config": "contrast_4"}
    store(copy, other, originals[1], **where)
    again = errors(measure(classifier, source="tfds", done=first))
    wanted = expected_error(other, originals[1])
    assert again["contrast/4"] == pytest.approx(wanted)
    assert errors(first)["contrast/4"] != again["contrast/4"]
    # Of one that was only made again, too: of the same length, at another time.
    done = measure(classifier, source="tfds")
    assert measure(classifier, source="tfds", done=done) == []
    (file,) = (copy / "cifar10_corrupted" / "contrast_4").rglob("*.tfrecord*")
    os.utime(file, (1, 1))
    assert measure(classifier, source="tfds", done=done)


# --- A tree of real JPEGs ------------------------------------------------------------


def through_jpeg(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=85)
    return np.asarray(Image.open(file))


@pytest.mark.slow
@pytest.mark.parity
def test_a_tree_of_imagenet_s_files_against_generating_them(shared, tmp_path):
    """The command's files, read back as ImageNet-C's, and the same made on the fly."""
    read = runpy.run_path(str(shared / "data" / "read.py"))["read_jpegs"]
    files, labels = read(shared / "data" / "imagenet_sample" / "original_200.npz")
    for i, (contents, label) in enumerate(zip(files[:24], labels, strict=False)):
        path = tmp_path / "in" / "val" / f"n{int(label) % 6:08d}" / f"{i:03d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents)
    command = [sys.executable, "-m", "apr_jax.corruptions", "--quiet"]
    command += [f"--data={tmp_path / 'in'}", f"--out={tmp_path / 'out'}", "--split=val"]
    command += ["--image_size=80", f"--corruptions={','.join(SETS)}"]
    subprocess.run(
        command, check=True, cwd=ROOT, env={**os.environ, "JAX_PLATFORMS": "cpu"}
    )
    described = toy.config(
        tmp_path / "in",
        data__source="folder",
        data__streaming=True,
        data__name="imagenet2012",
        data__train_split="val",
        data__test_split="val",
        data__image_size=80,
        data__eval_resize=round(80 * 256 / 224),
        eval__batch_size=10,
    )
    names = data.describe(described.data).class_names
    classifier = network(described, names)
    made = measure(classifier)
    stored = measure(classifier, source="folder", dir=str(tmp_path / "out"))
    assert {r.data for r in made} == {"imagenet2012-c generated"}
    assert {r.data for r in stored} == {"imagenet2012-c"}
    ours, theirs = errors(stored), errors(made)
    assert set(ours) == set(theirs)
    assert ours["clean"] == theirs["clean"]
    paths = sorted((tmp_path / "in" / "val").rglob("*.JPEG"))
    clean = np.stack([images_lib.fit(images_lib.decode(p), 80, 91) for p in paths])
    wanted = np.array([names.index(p.parent.name) for p in paths])
    for name, severity in itertools.product(SETS, SEVERITIES):
        tree = sorted((tmp_path / "out" / name / str(severity)).rglob("*.JPEG"))
        assert [p.name for p in tree] == [p.name for p in paths]
        images = np.stack([np.asarray(Image.open(p)) for p in tree])
        direct = corruptions.corrupt(jax.random.key(0), clean, name, severity)
        # JPEG at quality 85 is all that lies between them.
        through = np.stack([through_jpeg(image) for image in np.asarray(direct)])
        assert (np.abs(images.astype(int) - through) > 1).mean() < 1e-3
        split = f"{name}/{severity}"
        assert ours[split] == pytest.approx(expected_error(images, wanted, len(names)))
        # What it is generated from is TensorFlow's, within a grey level of Pillow's.
        direct = expected_error(direct, wanted, len(names))
        assert theirs[split] == pytest.approx(direct, abs=1.01 / 24)
