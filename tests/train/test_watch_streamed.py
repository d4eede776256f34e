"""Watching a training whose images are streamed from files."""

import pathlib
import socket

import jax
import numpy as np
import pytest
from PIL import Image

from apr_jax.data import images as images_lib
from apr_jax.data import samples
from apr_jax.errors import ConfigError, DataError
from apr_jax.runs import checkpoint, epochs
from apr_jax.train import loop
from apr_jax.train import plan as plan_lib
from tests import toy
from tests.train.test_interruptions import finish, start

BOTH = ("input_spectrum", "bands")
STREAMED = {
    "data__source": "folder",
    "data__streaming": True,
    "data__image_size": 12,
    "data__eval_resize": 14,
    "augment__method": "standard",
    "augment__crop_pad": 0,
    "optim__epochs": 2.0,
    "train__watch": BOTH,
    "train__watch_examples": 9,
}


pytestmark = pytest.mark.usefixtures("_tiny_model")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """48 training and 20 test JPEGs of several sizes, a shade for each class."""
    root = tmp_path_factory.mktemp("jpegs")
    rng = np.random.default_rng(3)
    for split, count in (("train", 48), ("test", 20)):
        for i in range(count):
            path = root / split / f"class{i % 4}" / f"{i:02d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            sides = (20 + i % 5, 18 + i % 7, 3)
            pixels = rng.integers(0, 80, sides) + 45 * (i % 4)
            Image.fromarray(pixels.astype(np.uint8)).save(path, quality=95)
    return root


def run(folder, workdir, *, until=None, **changes):
    plan = plan_lib.plan(toy.config(folder, **(STREAMED | changes)), workdir)
    return loop.train(plan, until=until, quiet=True)


@pytest.mark.slow
def test_rows_of_a_stream_that_goes_on_are_those_of_a_whole_run(folder, tmp_path):
    whole = run(folder, tmp_path / "whole")
    for until in (2, None):
        parts = run(folder, tmp_path / "parts", until=until)
    assert checkpoint.digest(whole.state) == checkpoint.digest(parts.state)
    one, other = (epochs.read(tmp_path / name) for name in ("whole", "parts"))
    assert one == other
    expected = [(step, name) for step in (0, 3, 6) for name in BOTH]
    assert [(row["step"], row["watch"]) for row in one] == expected
    assert {row["examples"] for row in one} == {9}
    # The shares of 32 pixels that HFC's radii are, of this side.
    np.testing.assert_allclose(one[1]["radius"], np.arange(1, 8) * 12 / 8)


def test_what_is_watched_is_resized_and_cropped_as_for_evaluation(folder, monkeypatch):
    settings = toy.config(folder, **STREAMED).data
    found = samples.load(settings, "test", examples=9, seed=0)
    paths = sorted((folder / "test").rglob("*.jpg"))
    chosen = samples.subset(20, 9, 0)
    assert len(set(found.labels.tolist())) > 2  # not the first classes only
    for place, pixels, label in zip(chosen, *found, strict=True):
        expected = images_lib.fit(np.asarray(Image.open(paths[place])), 12, 14)
        np.testing.assert_array_equal(pixels, expected)
        assert paths[place].parent.name == f"class{label}"
    # The second of two processes reads the same ones.
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    again = samples.load(settings, "test", examples=9, seed=0)
    np.testing.assert_array_equal(again.images, found.images)


def test_broken_images_are_left_out_up_to_the_limit(folder, tmp_path):
    for path in folder.rglob("*.jpg"):
        copy = tmp_path / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    place = samples.subset(20, 9, 0)[4]
    broken = sorted((tmp_path / "test").rglob("*.jpg"))[place]
    broken.write_bytes(b"no image")
    settings = toy.config(tmp_path, **STREAMED, data__max_broken=1).data
    found = samples.load(settings, "test", examples=9, seed=0)
    assert found.images.shape == (8, 12, 12, 3)
    strict = toy.config(tmp_path, **STREAMED, data__max_broken=0).data
    with pytest.raises(DataError, match=f"(?s)max_broken is 0:.*{broken.name}"):
        samples.load(strict, "test", examples=9, seed=0)


def test_all_test_images_of_a_stream_are_refused_before_data_are_read(tmp_path):
    config = toy.config(tmp_path, **(STREAMED | {"train__watch_examples": 0}))
    with pytest.raises(ConfigError, match=r"watch_examples is 0, all"):
        plan_lib.plan(config, tmp_path / "run")


@pytest.mark.slow
def test_two_processes_watch_what_one_does(folder, tmp_path):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    shared = STREAMED | {"train__sync_batch_norm": True}
    processes = [
        start(
            folder,
            tmp_path / "two",
            shared | {"train__devices": 2},
            distributed=True,
            coordinator=f"localhost:{port}",
            process_count=2,
            process_id=number,
        )
        for number in range(2)
    ]
    for process in processes:
        finish(process)
    finish(start(folder, tmp_path / "one", shared))
    two, one = (epochs.read(pathlib.Path(tmp_path / n)) for n in ("two", "one"))
    assert len(two) == len(one) == 6
    for mine, other in zip(two, one, strict=True):
        assert mine["step"] == other["step"]
        if mine["watch"] == "input_spectrum":
            np.testing.assert_allclose(mine["raw"], other["raw"], rtol=2e-2)
        else:
            assert mine["accuracy"] == pytest.approx(other["accuracy"], abs=0.12)
