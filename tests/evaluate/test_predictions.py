"""The answers to single images: kept where they are asked for, and once."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import config as config_lib
from apr_jax import data, parallel
from apr_jax.evaluate import adversarial, card, clean, corruption, fourier, ood
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate.context import Context
from apr_jax.runs import predictions, workdir
from tests import toy

QUICK = {"corruptions": ("contrast", "brightness"), "severities": (1, 4)}


@pytest.fixture
def network(folder):
    def shade(images):
        level = 255 * images.mean((1, 2, 3))
        centres = 40.0 + 45.0 * jnp.arange(toy.CLASSES)
        return -jnp.abs(level[:, None] - centres[None]) / 20

    config = toy.config(folder, eval__save_predictions=True)
    names = [str(i) for i in range(toy.CLASSES)]
    return classifier_lib.from_function(shade, config, names, name="shade")


def context(root, **more):
    kept = workdir.RunDir(root).predictions
    return Context(parallel.make_layout(1), predictions=kept, quiet=True, **more)


def read(root, name):
    return predictions.read(root / "predictions" / f"{name}.npz")


def test_clean_answers(network, folder, tmp_path):
    records = clean.measure(network, None, context(tmp_path))
    found = read(tmp_path, "clean/toy/test")
    split = data.load(network.config.data, splits=("test",)).splits["test"]
    logits = np.asarray(network.predict({}, jnp.asarray(split.images))[0], np.float64)
    share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_array_equal(found.predicted, logits.argmax(1))
    np.testing.assert_array_equal(found.label, split.labels)
    np.testing.assert_array_equal(found.index, np.arange(50))
    np.testing.assert_allclose(found.confidence, share.max(1), rtol=1e-5)
    accuracy = next(r for r in records if r.metric == "accuracy")
    assert np.mean(found.right) == pytest.approx(accuracy.value)
    run = workdir.RunDir(tmp_path)
    assert predictions.behind(run, accuracy)[0].about == found.about
    assert predictions.behind(run, dataclasses.replace(accuracy, step=3)) is None


def test_nothing_is_kept_unasked(network, tmp_path):
    config = dataclasses.replace(network.config, eval=config_lib.Eval())
    silent = dataclasses.replace(network, config=config)
    clean.measure(silent, None, context(tmp_path))
    assert not any(tmp_path.iterdir())


def test_corrupted_answers_are_made_where_they_are_missing(network, tmp_path):
    settings = config_lib.Corruption(**QUICK)
    measure = lambda **more: list(
        corruption.measure(network, settings, context(tmp_path, **more))
    )
    records = measure()
    folder = tmp_path / "predictions" / "corruption" / "toy-c generated"
    names = {str(p.relative_to(folder)) for p in folder.rglob("*.npz")}
    assert names == {
        "clean.npz",
        *(f"{c}/{s}.npz" for c in QUICK["corruptions"] for s in (1, 4)),
    }
    mean = next(r for r in records if r.split.startswith("mean of 2"))
    parts = predictions.behind(workdir.RunDir(tmp_path), mean)
    assert np.mean([1 - p.right.mean() for p in parts]) == pytest.approx(mean.value)
    assert measure(done=records) == []
    # A call that was stopped, a damaged file, other weights.
    (folder / "contrast/4.npz").unlink()
    (folder / "brightness/1.npz").write_bytes(b"PK")
    again = measure(done=records)
    assert {r.split for r in again} == {"contrast/4", "brightness/1"}
    assert {r.value for r in again} <= {r.value for r in records}
    other = dataclasses.replace(network, name="another")
    assert list(corruption.measure(other, settings, context(tmp_path, done=records)))
    assert predictions.behind(workdir.RunDir(tmp_path), mean) is None


def test_answers_under_attack_are_right_where_it_failed(network, tmp_path):
    settings = config_lib.Adversarial(attack="fgsm", linf=(22.4 / 255,), examples=20)
    records = list(adversarial.measure(network, settings, context(tmp_path)))
    robust = next(r for r in records if r.metric == "robust_accuracy")
    (found,) = predictions.behind(workdir.RunDir(tmp_path), robust)
    assert 0 < robust.value < 1
    assert np.mean(found.right) == pytest.approx(robust.value)
    assert len(found.index) == 20


def test_scores_of_detection_can_be_measured_again(network, tmp_path, rng):
    np.save(tmp_path / "noise.npy", rng.integers(0, 256, (30, 8, 8, 3), np.uint8))
    out = {"out": (f"noise=arrays:{tmp_path}/noise.npy",), "scores": ("msp", "energy")}
    first = list(ood.measure(network, config_lib.Ood(**out), context(tmp_path)))
    file = tmp_path / "predictions" / "ood" / "toy" / "noise.npz"
    given = config_lib.Ood(scores_file=str(file))
    second = list(ood.measure(network, given, context(tmp_path)))
    values = lambda records: {(r.split, r.metric): r.value for r in records}
    assert values(second) == pytest.approx(values(first), abs=1e-6)
    assert ("noise", "msp.oscr") in values(second)


def test_answers_to_phases_of_two_networks_are_paired(network, tmp_path):
    settings = config_lib.Fourier(parts=("phase",))
    squared = lambda v, x: network.predict(v, x**2)
    other = dataclasses.replace(network, predict=squared, name="other")
    runs = []
    for name, measured in (("one", network), ("other", other)):
        records = list(fourier.measure(measured, settings, context(tmp_path / name)))
        (record,) = (r for r in records if r.metric == "follows_phase")
        runs += [workdir.RunDir(tmp_path / name), record]
        (kept,) = predictions.behind(*runs[-2:])
        assert np.mean(kept.right) == pytest.approx(record.value)
    found = predictions.difference(*runs)
    assert found.difference == pytest.approx(runs[3].value - runs[1].value)
    assert found.n == 50
    again = context(tmp_path / "other", done=records)
    assert list(fourier.measure(other, settings, again)) == []
    (runs[2].predictions / "fourier" / "toy" / "test.npz").unlink()
    again = context(tmp_path / "other", done=records)
    assert len(list(fourier.measure(other, settings, again))) == len(records)


def test_detection_of_two_networks_is_paired(network, tmp_path, rng):
    for name in ("dark", "bright"):
        images = rng.integers(0, 180, (30, 8, 8, 3), np.uint8)
        np.save(tmp_path / f"{name}.npy", images + 75 * (name == "bright"))
    out = tuple(f"{n}=arrays:{tmp_path}/{n}.npy" for n in ("dark", "bright"))
    settings = config_lib.Ood(out=out, scores=("msp",))

    def blurred(variables, images):
        logits, features = network.predict(variables, images)
        return 0.2 * logits**2, features

    other = dataclasses.replace(network, predict=blurred)
    runs = []
    for name, measured in (("one", network), ("other", other)):
        surroundings = context(tmp_path / name)
        records = list(ood.measure(measured, settings, surroundings))
        by_split = {r.split: r for r in records if r.metric == "msp.auroc"}
        runs.append((workdir.RunDir(tmp_path / name), by_split))
    (one, mine), (two, theirs) = runs
    for split in ("dark", "bright", "all"):
        found = predictions.difference(one, mine[split], two, theirs[split])
        gap = theirs[split].value - mine[split].value
        assert found.difference == pytest.approx(gap, abs=1e-6)
        assert found.low < found.difference < found.high
    assert found.n == 50 + 60
    (one.predictions / "ood" / "toy" / "dark.npz").unlink()
    assert predictions.difference(one, mine["all"], two, theirs["all"]) is None
    assert predictions.difference(one, mine["bright"], two, theirs["bright"])


def test_a_card_measures_the_clean_images_once(network, tmp_path, monkeypatch):
    own = config_lib.Eval(
        batch_size=16,
        parts=("clean", "corruption"),
        corruption=config_lib.Corruption(**QUICK),
    )
    seen = []
    make = classifier_lib.make_collect

    def counting(classifier, surroundings, **options):
        collect = make(classifier, surroundings, **options)

        def counted(batches, expected, **more):
            seen.append(more["what"])
            return collect(batches, expected, **more)

        return counted

    monkeypatch.setattr(classifier_lib, "make_collect", counting)
    for parts in (own.parts, own.parts[::-1]):
        asked = dataclasses.replace(own, parts=parts)
        config = dataclasses.replace(network.config, eval=asked)
        measured = dataclasses.replace(network, config=config)
        seen.clear()
        records = list(card.measure(measured, None, context(tmp_path)))
        assert len(set(seen) & {"test", "clean"}) == 1
        assert len(seen) == 5
        errors = {
            (r.job, r.split): r.value for r in records if r.metric in ("error", "nll")
        }
        assert errors["evaluate.clean", "test"] == pytest.approx(
            errors["evaluate.corruption", "clean"], rel=1e-6
        )
    # Fewer images are others.
    fewer = dataclasses.replace(own.corruption, examples=20)
    asked = dataclasses.replace(own, corruption=fewer)
    config = dataclasses.replace(network.config, eval=asked)
    seen.clear()
    list(
        card.measure(
            dataclasses.replace(network, config=config), None, context(tmp_path)
        )
    )
    assert {"test", "clean"} <= set(seen)
