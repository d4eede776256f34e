"""Sequences and cue conflicts that are made for a card."""

import numpy as np
import pytest
from PIL import Image

from apr_jax.evaluate import cue_conflict, perturbations
from experiments.checks import card_data

SIDE = 16


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (3, 4, 4, 3), np.uint8)
    images = coarse.repeat(4, 1).repeat(4, 2)
    folder = tmp_path_factory.mktemp("made")
    card_data.write_sequences(images, folder)
    return images, {f.stem: np.load(f) for f in folder.glob("*.npy")}


def test_the_ten_of_the_mean_are_made(made):
    _, found = made
    ten = {*perturbations._SHARED, "spatter", *perturbations._MOVED}
    assert set(found) == ten
    frames = {name: x.shape[1] for name, x in found.items()}
    assert frames == {**dict.fromkeys(ten, 31), "translate": 16, "motion_blur": 21}
    assert {x.shape[::2] for x in found.values()} == {(3, SIDE, 3)}
    assert set(card_data.sequences(224)) == (ten - {"spatter"}) | {"snow"}


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        *(("gaussian_noise", 0), ("shot_noise", 0), ("zoom_blur", 0)),
        *(("brightness", 15), ("translate", 7), ("rotate", 15), ("tilt", 15)),
        ("scale", 15),
    ],
)
def test_one_frame_is_the_image(made, name, frame):
    images, found = made
    off = np.abs(found[name][:, frame].astype(int) - images)
    assert off.max() <= 2  # cut off to whole levels, after a warp or by hue


def test_frames_are_moved_and_lit_as_they_should_be(made):
    images, found = made
    np.testing.assert_allclose(
        found["translate"][:, 10, :, 3:], images[:, :, :-3], atol=1
    )
    assert (found["translate"][:, 10, :, :3] == 0).all()
    noise = found["gaussian_noise"][:, 1:].astype(float) - images[:, None]
    inside = (images > 20) & (images < 235)
    assert noise[:, 0][inside].std() == pytest.approx(255 * 0.02, rel=0.1)
    value = found["brightness"].max(-1).astype(float).mean((0, 2, 3))
    assert (np.diff(value) > 0).all()
    blurred = found["motion_blur"].astype(float)
    assert blurred.std() < images.std()
    assert np.abs(blurred.mean() - images.mean()) < 8


def test_conflicts_are_called_after_both(tmp_path):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (6, 8, 8, 3), np.uint8)
    names = ["cat", "frog", "ship"]
    labels = np.array([0, 1, 2, 0, 1, 2])
    card_data.write_conflicts(images, labels, names, tmp_path, 5)
    files = list(tmp_path.rglob("*.png"))
    assert len(files) == 5
    for file in files:
        shape, texture = cue_conflict.categories_of(file.name)
        assert {shape, texture} == {"cat", "boat"}
        one = int(file.stem.partition("-")[0].strip("catbo"))
        assert names[labels[one]].replace("ship", "boat") == shape == file.parent.name
        # The phases are the first one's, but where pixels were cut off.
        mixed, own = (
            np.fft.fft2(np.float64(x), axes=(0, 1))
            for x in (np.asarray(Image.open(file)), images[one])
        )
        turned = np.cos(np.angle(mixed) - np.angle(own))
        assert np.average(turned, weights=np.abs(mixed)) > 0.8
