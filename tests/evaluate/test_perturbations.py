"""Sequences from files and folders, their records, and the page."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from apr_jax import config as config_lib
from apr_jax import parallel
from apr_jax.errors import ConfigError, DataError
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate import perturbations, shift
from apr_jax.evaluate.context import Context
from apr_jax.report.run_view import RunView
from apr_jax.report.sections import shift as section
from tests import toy

COUNT, FRAMES = 5, 12


def shades(pixels):
    levels = (40 + 45 * jnp.arange(toy.CLASSES, dtype=jnp.float32)) / 255
    return -jnp.abs(pixels.mean((1, 2, 3))[:, None] - levels[None])


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    toy.write_arrays(folder)
    return classifier_lib.from_function(
        shades, toy.config(folder), "abcd", name="shades"
    )


def drifting(seed):
    """Frames [COUNT, FRAMES, 8, 8, 3] whose shade drifts."""
    rng = np.random.default_rng(seed)
    level = rng.integers(40, 180, (COUNT, 1)) + rng.normal(0, 25, (COUNT, FRAMES))
    noise = rng.integers(-9, 10, (COUNT, FRAMES, 8, 8, 3))
    return np.clip(level[:, :, None, None, None] + noise, 0, 255).astype(np.uint8)


def wanted(frames, first):
    """Flip probability, by a loop."""
    each = []
    for clip in frames:
        said = np.asarray(shades(clip / np.float32(255))).argmax(1)
        other = [said[0] if first else said[j - 1] for j in range(1, len(said))]
        each.append(np.mean(said[1:] != other))
    return np.mean(each)


def measured(network, folder, **given):
    done = given.pop("done", ())
    context = Context(parallel.make_layout(1), quiet=True, done=done)
    settings = config_lib.Shift(perturbations=str(folder), **given)
    return list(shift.measure(network, settings, context))


def test_arrays_and_folders(network, tmp_path, monkeypatch):
    frames = {name: drifting(i) for i, name in enumerate(("gaussian_noise_2", "tilt"))}
    for name, clips in frames.items():
        np.save(tmp_path / f"{name}.npy", clips)
    folders = {"scale": drifting(7)}
    for number, clip in enumerate(folders["scale"]):
        place = tmp_path / "scale" / "n01" / f"clip{number}"
        place.mkdir(parents=True)
        for i, image in enumerate(clip):  # 10 comes after 9
            Image.fromarray(image).save(place / f"frame{i}.png")
    monkeypatch.setattr(perturbations, "_AT_ONCE", 4 * 2 * FRAMES)  # two at a time
    records = measured(network, tmp_path)
    by = {(r.split, r.metric): r for r in records}
    assert len(by) == len(records) == 6
    for name, clips in (frames | folders).items():
        record = by[f"perturbation/{name}", "flip_probability"]
        assert 0 < record.value == pytest.approx(wanted(clips, "noise" in name))
        assert record.value != pytest.approx(wanted(clips, "noise" not in name))
        assert record.low < record.value < record.high
        assert (record.n, record.extra["frames"]) == (COUNT, FRAMES)
        distance = by[f"perturbation/{name}", "top5_distance"]
        assert (distance.unit, distance.n) == ("1", COUNT)
        assert distance.value > 0
    assert by["perturbation/tilt", "top5_distance"].extra["compared_with"] == "before"
    # Not measured again, but for other sequences.
    assert measured(network, tmp_path, done=records) == []
    some = measured(network, tmp_path, done=records, examples=2)
    assert {r.n for r in some} == {2}
    np.save(tmp_path / "tilt.npy", drifting(9)[:3])
    again = measured(network, tmp_path, done=records)
    assert {r.split for r in again} == {"perturbation/tilt"}

    page = section.html([RunView(name="a", records=records)])
    assert "perturbation/tilt" in page.replace("<wbr>", "")
    assert "Answers that flip between frames" in page
    rows = section.answers([RunView(name="a", records=records)])  # without a mean
    flips = [r for r in records if r.metric == "flip_probability"]
    assert [(row.question, row.cells) for row in rows] == [
        ("Perturbed sequences", [record]) for record in flips
    ]


def test_the_mean_is_of_the_ten(network, tmp_path, capfd):
    ten = (*perturbations._SHARED, "spatter", *perturbations._MOVED)
    for i, name in enumerate((*ten, "shear", "snow")):
        np.save(tmp_path / f"{name}.npy", drifting(i)[:2, :3])
    records = measured(network, tmp_path)
    flips = {
        r.split.partition("/")[2]: r.value
        for r in records
        if r.metric == "flip_probability"
    }
    assert flips["mean"] == pytest.approx(np.mean([flips[name] for name in ten]))
    assert records[-1].extra["members"] == [f"perturbation/{name}" for name in ten]
    (row,) = section.answers([RunView(name="a", records=records)])
    assert row.cells[0].value == flips["mean"]
    lows = [
        r.low
        for r in records
        if r.metric == "flip_probability" and r.split.partition("/")[2] in ten
    ]
    assert row.cells[0].low == pytest.approx(np.mean(lows))
    assert measured(network, tmp_path, done=records) == []
    (tmp_path / "tilt.npy").unlink()
    again = measured(network, tmp_path, done=records)
    assert not any(r.split.endswith("/mean") for r in again)
    assert "of its ten tilt lacks" in capfd.readouterr().err


def test_what_is_refused(network, tmp_path):
    with pytest.raises(ConfigError, match="or --perturbations FOLDER"):
        list(shift.measure(network, config_lib.Shift(), Context(None)))
    with pytest.raises(DataError, match="which is no folder"):
        measured(network, tmp_path / "none")
    with pytest.raises(DataError, match=r"neither NAME.npy nor a folder"):
        measured(network, tmp_path)
    (tmp_path / "tilt" / "n01").mkdir(parents=True)
    (tmp_path / "tilt" / "n01" / "clip.mp4").write_bytes(b"")
    with pytest.raises(DataError, match="videos must be taken apart first"):
        measured(network, tmp_path)
    file = tmp_path / "snow.npy"
    for array, message in (
        (np.zeros((2, 3, 8, 8), np.uint8), r"\[2, 3, 8, 8\]; it must be"),
        (np.zeros((2, 3, 8, 8, 3)), r"float64 .*; it must be uint8"),
        (np.zeros((2, 1, 8, 8, 3), np.uint8), "fewer than two frames"),
    ):
        np.save(file, array)
        with pytest.raises(DataError, match=message):
            measured(network, tmp_path)
