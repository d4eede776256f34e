"""Watching the training: rows, resumption, and numbers against NumPy."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import config as config_lib
from apr_jax import network as network_lib
from apr_jax.data import ArraySplit, samples
from apr_jax.errors import ConfigError
from apr_jax.evaluate import classifier
from apr_jax.report import page, run_view, sections
from apr_jax.runs import checkpoint, curves
from apr_jax.runs import epochs as epochs_lib
from apr_jax.runs import workdir as workdir_lib
from apr_jax.train import hooks, loop, watch
from apr_jax.train import plan as plan_lib
from tests import toy
from tests.train.test_loop import PLAIN

BOTH = ("input_spectrum", "bands")
EVERY = (*BOTH, "accuracy")


pytestmark = pytest.mark.usefixtures("_tiny_model")


def run(folder, workdir, *, until=None, names=BOTH, **changes):
    # Plain training compiles fastest.
    changes = {
        "train__watch": names,
        "train__watch_examples": 21,
        **PLAIN,
    } | changes
    plan = plan_lib.plan(toy.config(folder, **changes), workdir)
    return loop.train(plan, until=until, quiet=True)


def rows_of(root):
    return [(row["step"], row["watch"]) for row in epochs_lib.read(root)]


def test_rows_at_the_start_and_after_every_epoch(folder, tmp_path):
    run(folder, tmp_path / "run")
    steps = [0, 6, 12, 18, 24]
    assert rows_of(tmp_path / "run") == [(s, name) for s in steps for name in BOTH]
    rows = epochs_lib.read(tmp_path / "run" / "watch.jsonl")
    assert {row["examples"] for row in rows} == {21}
    epochs, spectra = epochs_lib.table(rows, "input_spectrum", "spectrum")
    assert epochs.tolist() == [0, 1, 2, 3, 4]
    assert spectra.min(axis=1).tolist() == [0] * 5
    assert spectra.max(axis=1).tolist() == [1] * 5
    _, radii = epochs_lib.table(rows, "bands", "radius")
    np.testing.assert_array_equal(radii[0], np.arange(1, 8))


def test_epochs_need_not_be_whole_numbers_of_steps(folder, tmp_path):
    # 4.8 steps an epoch, 16.8 in all: epochs end with steps 5, 10, 14, the run with 17.
    run(folder, tmp_path, names=("bands",), train__batch_size=20, optim__epochs=3.5)
    rows = epochs_lib.read(tmp_path)
    assert [row["step"] for row in rows] == [0, 5, 10, 14, 17]
    assert rows[1]["epoch"] == pytest.approx(5 / 4.8)


@pytest.mark.slow
def test_several_steps_a_call_wait_for_its_end(folder, tmp_path):
    run(folder, tmp_path, names=("bands",), train__steps_per_call=5)
    assert [row["step"] for row in epochs_lib.read(tmp_path)] == [0, 10, 15, 20, 24]


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_watching_changes_no_bit_and_resumes(folder, tmp_path, devices):
    changes = {"names": EVERY, "train__devices": devices}
    plain = run(folder, tmp_path / "plain", names=(), train__devices=devices)
    whole = run(folder, tmp_path / "whole", **changes)
    for until in (3, 8, None):
        run(folder, tmp_path / "parts", until=until, **changes)
    assert checkpoint.digest(plain.state) == checkpoint.digest(whole.state)
    assert not (tmp_path / "plain" / "watch.jsonl").exists()
    one, other = (epochs_lib.read(tmp_path / name) for name in ("whole", "parts"))
    assert one == other


def test_rows_of_a_killed_run_are_dropped(folder, tmp_path):
    run(folder, tmp_path, until=7)
    before = epochs_lib.read(tmp_path)
    with (tmp_path / "watch.jsonl").open("a") as file:
        file.write(
            json.dumps({"step": 12, "epoch": 2, "watch": "bands", "stale": 1}) + "\n"
        )
    run(folder, tmp_path, until=13)
    rows = epochs_lib.read(tmp_path)
    assert rows[: len(before)] == before
    assert not any("stale" in row for row in rows)
    assert rows_of(tmp_path)[-2:] == [(12, name) for name in BOTH]


def test_a_later_watch_adds_its_rows_to_a_run(folder, tmp_path):
    run(folder, tmp_path, until=12, names=("bands",))
    run(folder, tmp_path)
    expected = [(s, "bands") for s in (0, 6, 12)]
    for step in (12, 18, 24):
        expected += [(step, n) for n in BOTH if (step, n) != (12, "bands")]
    assert sorted(rows_of(tmp_path)) == sorted(expected)


def numpy_gradient(variables, pixels, labels, data):
    """The loss's gradient to the pixels of ``toy.TinyNet``, by hand."""
    params = variables["params"]
    stats = variables["batch_stats"]["BatchNorm_0"]
    kernel = np.float64(params["Conv_0"]["kernel"])
    norm = {k: np.float64(v) for k, v in params["BatchNorm_0"].items()}
    weight = np.float64(params["Dense_0"]["kernel"])
    scale = norm["scale"] / np.sqrt(np.float64(stats["var"]) + 1e-5)
    shift = norm["bias"] - scale * np.float64(stats["mean"])
    std = np.array(data.std)
    x = (pixels - np.array(data.mean)) / std
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    n, height, width, _ = x.shape
    convolved = sum(
        padded[:, i : i + height, j : j + width] @ kernel[i, j]
        for i in range(3)
        for j in range(3)
    )
    before = convolved * scale + shift
    features = np.maximum(before, 0).mean((1, 2))
    logits = features @ weight + np.float64(params["Dense_0"]["bias"])
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p[np.arange(n), labels] -= 1
    back = (p @ weight.T)[:, None, None] / (height * width) * (before > 0) * scale
    out = np.zeros_like(padded)
    for i in range(3):
        for j in range(3):
            out[:, i : i + height, j : j + width] += back @ kernel[i, j].T
    return out[:, 1:-1, 1:-1] / std


def numpy_profile(gradient):
    """Ring means of |FFT| of the channels' sum, by direct sums over the rings."""
    _, height, width, _ = gradient.shape
    size = np.abs(np.fft.fftshift(np.fft.fft2(gradient.sum(-1)), axes=(1, 2)))
    rows, columns = np.indices((height, width))
    ring = np.hypot(rows - (height - 1) / 2, columns - (width - 1) / 2).astype(int)
    return np.stack([size[:, ring == k].mean(1) for k in range(1, ring.max())], axis=1)


def test_spectrum_and_bands_against_numpy(folder, tmp_path):
    config = toy.config(folder, train__watch=BOTH, train__watch_examples=21, **PLAIN)
    plan = plan_lib.plan(config, tmp_path)
    trained = loop.train(plan, quiet=True)
    spectrum, bands = epochs_lib.read(tmp_path)[-2:]
    images, labels = samples.watched(plan.resident.splits["test"], 21)
    pixels = np.float64(images) / 255
    gradient = numpy_gradient(trained.state.variables, pixels, labels, config.data)
    raw = numpy_profile(gradient).mean(0)
    np.testing.assert_allclose(spectrum["raw"], raw, rtol=2e-3, atol=1e-6 * raw.max())
    expected = (raw - raw.min()) / (raw.max() - raw.min())
    np.testing.assert_allclose(spectrum["spectrum"], expected, atol=2e-3)

    network = classifier.make(config, trained.state.variables, plan.class_names)
    predict = jax.jit(network.predict)
    rows, columns = np.indices((8, 8)) - 4
    for k, radius in enumerate(bands["radius"]):
        keep = np.fft.ifftshift(np.hypot(rows, columns) < radius)[:, :, None]
        low = np.fft.ifft2(np.fft.fft2(pixels, axes=(1, 2)) * keep, axes=(1, 2)).real
        for name, part in (("low", low), ("high", pixels - low)):
            logits, _ = predict(network.variables, np.float32(part))
            right = np.asarray(logits).argmax(1) == labels
            assert bands[name][k] == pytest.approx(right.mean(), abs=1e-6)
    logits, _ = predict(network.variables, images)
    right = np.asarray(logits).argmax(1) == labels
    assert bands["accuracy"] == pytest.approx(right.mean())


def test_accuracy_and_loss_against_numpy(folder, tmp_path, monkeypatch):
    """After each epoch, by default; in rows, and where scalars are followed."""
    noted = []
    monkeypatch.setattr(
        curves.CurveWriter,
        "note",
        lambda _, scalars, *, step, **__: noted.append((step, scalars)),
    )
    usual = config_lib.default().train
    trained = run(folder, tmp_path, names=usual.watch)
    rows = epochs_lib.read(tmp_path)
    assert rows_of(tmp_path) == [(s, "accuracy") for s in (6, 12, 18, 24)]
    with np.load(folder / "test.npz") as stored:
        split = ArraySplit(stored["images"], stored["labels"])
    images, labels = samples.watched(split, 21)
    config = toy.config(folder)
    network = classifier.make(config, trained.state.variables, "0123")
    logits = np.float64(jax.jit(network.predict)(network.variables, images)[0])
    row = rows[-1]
    assert (row["split"], row["examples"]) == ("test", 21)
    right = logits.argmax(1) == labels
    assert row["accuracy"] == pytest.approx(right.mean(), abs=1e-12)
    surprise = np.log(np.exp(logits).sum(1)) - logits[np.arange(21), labels]
    assert row["loss"] == pytest.approx(surprise.mean(), rel=1e-5)
    expected = {"test_accuracy": row["accuracy"], "test_loss": row["loss"]}
    assert noted[-1] == (24, expected)
    assert [step for step, names in noted if "test_loss" in names] == [6, 12, 18, 24]


def test_the_page_says_of_which_images_the_dashed_curve_is(folder, tmp_path):
    run(folder, tmp_path, names=("accuracy",), train__log_every=7)
    view = run_view.view(tmp_path)
    rows = {row.step: row for row in view.curve}
    # Points of the curve, of the ends of epochs, and of the end, which is both.
    assert list(rows) == [6, 7, 12, 14, 18, 21, 24]
    assert rows[6].loss == rows[7].loss
    drawn = [row.extra["test_accuracy"] for row in rows.values() if row.extra]
    assert drawn == [row["accuracy"] for row in view.watched]
    assert "on 21 images of test. Nothing is chosen by them" in page._curves([view])
    assert sections.SECTIONS["watch"].html([view]) == ""


def test_the_gradient_is_jax_s_own(folder, key):
    config = toy.config(folder)
    model = network_lib.make_model(config, num_classes=4)
    predict = network_lib.make_predict(model, config)
    images = np.random.default_rng(0).random((3, 9, 7, 3), np.float32)
    labels = np.array([0, 3, 1])
    variables = jax.jit(partial(model.init, train=False))(key, images)
    found = jax.jit(watch.input_gradient, static_argnums=0)(
        predict, variables, images, labels
    )

    # Each image alone: the loss of one must not depend on another.
    def loss(image, label):
        return -jax.nn.log_softmax(predict(variables, image[None])[0][0])[label]

    slope = jax.jit(jax.grad(loss))
    for i in range(3):
        np.testing.assert_allclose(found[i], slope(images[i], labels[i]), atol=1e-6)


def test_the_images_are_the_same_for_every_seed(rng):
    images = np.arange(50, dtype=np.uint8)[:, None, None, None]
    split = ArraySplit(images, np.arange(50))
    chosen = samples.watched(split, 20)
    assert len(set(chosen.labels.tolist())) == 20
    assert (np.diff(chosen.labels) > 0).all()
    np.testing.assert_array_equal(chosen.images.ravel(), chosen.labels)
    np.testing.assert_array_equal(samples.watched(split, 20).labels, chosen.labels)
    assert chosen.labels.max() > 30  # not the first ones
    assert samples.watched(split, 0) is split


def test_what_cannot_be_watched_is_refused_before_data_are_read(tmp_path):
    config = toy.config(tmp_path, train__watch=("bands", "gradients"))
    message = r"train.watch has 'gradients'; choose from accuracy, input_spectrum"
    with pytest.raises(ConfigError, match=message):
        plan_lib.plan(config, tmp_path / "run")


def test_watching_is_not_part_of_what_is_computed(folder, tmp_path):
    one = toy.config(folder)
    other = toy.config(folder, train__watch=BOTH, train__watch_examples=3)
    assert config_lib.config_hash(one) == config_lib.config_hash(other)
    assert config_lib.differences(one, other) == []


def test_numbers_that_are_none_become_null(tmp_path):
    assert hooks._finite([1.0, np.nan]) == [1.0, None]
    rows = [{"watch": "bands", "epoch": 1.0, "low": [0.5, None]}]
    _, low = epochs_lib.table(rows, "bands", "low")
    assert np.isnan(low[0, 1])


def test_logits_that_are_not_finite_are_counted_and_never_right(
    folder, tmp_path, monkeypatch, capfd
):
    """Against a network that answers NaN for what is bright, else class 0."""

    def dazzled(variables, pixels):
        bright = pixels.mean((1, 2, 3)) > 0.5
        logits = jnp.where(bright[:, None], jnp.nan, jnp.array([[5.0, 0, 0, 0]]))
        return logits, jnp.zeros((len(pixels), 1))

    monkeypatch.setattr(hooks.network, "make_predict", lambda *_: dazzled)
    run(folder, tmp_path, until=1)
    with np.load(folder / "test.npz") as stored:
        split = ArraySplit(stored["images"], stored["labels"])
    images, labels = samples.watched(split, 21)
    pixels = images / 255
    bright = pixels.mean((1, 2, 3)) > 0.5
    assert 0 < bright.sum() < 21
    assert (labels[bright] != 0).all()  # or the test would show nothing
    spectrum, bands = epochs_lib.read(tmp_path)
    assert spectrum["not_finite"] == 4 * bright.sum()
    assert bands["accuracy"] == pytest.approx(np.mean(labels == 0))
    # The low parts, eight times, and nothing of the high ones.
    assert bands["not_finite"] == 8 * 4 * bright.sum()
    lines = page._silent([run_view.view(tmp_path)])
    assert f"watch bands: {8 * 4 * bright.sum()} logits are NaN" in lines[1]
    said = capfd.readouterr().err
    assert f"{4 * bright.sum()} logits behind step 0 of watch.jsonl" in said


def test_nothing_is_said_of_finite_logits(folder, tmp_path, capfd):
    run(folder, tmp_path, until=1)
    assert not any("not_finite" in row for row in epochs_lib.read(tmp_path))
    assert "not finite" not in capfd.readouterr().err


def test_the_page_shows_what_was_watched(folder, tmp_path):
    run(folder, tmp_path / "run")
    view = run_view.view(tmp_path / "run")
    assert len(view.watched) == 10
    html = sections.SECTIONS["watch"].html([view])
    assert html.count("<svg") == 3
    assert "Watched while learning" in html
    assert sections.SECTIONS["watch"].table([view]) is None
    run(folder, tmp_path / "plain", names=())
    assert sections.SECTIONS["watch"].html([run_view.view(tmp_path / "plain")]) == ""
    assert workdir_lib.RunDir(tmp_path).watched == tmp_path / "watch.jsonl"
