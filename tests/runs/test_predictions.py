"""Answers of two runs to the same images, or to others."""

import dataclasses

import numpy as np
import pytest

from apr_jax import metrics
from apr_jax.errors import DataError
from apr_jax.runs import predictions, workdir
from apr_jax.runs.records import Record

LABELS = np.arange(40) % 4
SETTINGS = {"source": "generated", "seed": 0, "weights": "abc"}
ABOUT = predictions.About(
    job="evaluate.corruption",
    data="toy/1-c",
    split="clean",
    config_hash="0123",
    step=7,
    settings=SETTINGS,
)


def record(about=ABOUT, metric="error", **extra):
    return Record(
        **{k: getattr(about, k) for k in ("job", "data", "split", "config_hash")},
        metric=metric,
        value=0.1,
        unit="fraction",
        n=40,
        step=about.step,
        code_version="1",
        seed=0,
        device="cpu",
        time="2026-01-01",
        extra={"settings": about.settings, **extra},
    )


def write(root, wrong, about=ABOUT, labels=LABELS):
    """Keeps answers that are wrong at some places; returns the run."""
    said = labels.copy()
    said[list(wrong)] = (said[list(wrong)] + 1) % 4
    arrays = {
        "index": np.arange(len(labels)),
        "label": labels,
        "predicted": said,
        "confidence": np.ones(len(labels)),
    }
    run = workdir.RunDir(root)
    predictions.write(run.predictions, about, arrays)
    return run


def changed(**more):
    return dataclasses.replace(ABOUT, **more)


def test_the_difference_is_that_of_the_answers(tmp_path):
    one = write(tmp_path / "one", [1, 2, 3])
    theirs = changed(config_hash="9", settings={**SETTINGS, "weights": "def"})
    other = write(tmp_path / "other", range(3, 15), theirs)
    found = predictions.difference(one, record(), other, record(theirs))
    right = np.ones((2, 40), bool)
    right[0, 1:4] = right[1, 3:15] = False
    assert found == metrics.paired_difference(right[0], right[1])
    assert (found.won, found.lost) == (11, 2)
    assert predictions.difference(one, record(metric="ece"), other, record()) is None


def test_a_mean_is_over_its_corruptions(tmp_path):
    splits = [f"{name}/{s}" for name in ("fog", "snow") for s in (2, 5)]
    runs = []
    for who, name in enumerate(("one", "other")):
        for place, split in enumerate(splits):
            about = changed(split=split)
            run = write(tmp_path / name, range(4 * who + place), about)
        runs.append(run)
    more = {"corruptions": ["fog", "snow"], "severities": [2, 5]}
    whole = record(changed(split="mean of 2, severities 2 5"), **more)
    found = predictions.difference(runs[0], whole, runs[1], whole)
    assert found.difference == pytest.approx(-4 / 40)
    assert (found.lost, found.won) == (0, 16)
    strong = record(changed(split="mean/5"), **more)
    found = predictions.difference(runs[0], strong, runs[1], strong)
    assert found.won == 8
    (tmp_path / "one/predictions/corruption/toy_1-c/fog/2.npz").unlink()
    assert predictions.difference(runs[0], whole, runs[1], whole) is None
    assert predictions.difference(runs[0], strong, runs[1], strong) is not None


@pytest.mark.parametrize(
    ("about", "labels", "why"),
    [
        ({"settings": {**SETTINGS, "seed": 1}}, LABELS, "seed is 0 and 1"),
        (
            {"images": "f" * 64},
            LABELS,
            "fingerprints are eeeeeeeeeeee and ffffffffffff",
        ),
        ({}, LABELS[:-1], "40 and 39 examples"),
        ({}, LABELS[::-1].copy(), "40 labels differ"),
    ],
)
def test_other_images_are_refused_in_a_line(tmp_path, about, labels, why):
    mine = changed(images="e" * 64 if "images" in about else "")
    one = write(tmp_path / "one", [1], mine)
    theirs = changed(**about)
    other = write(tmp_path / "other", [2], theirs, labels)
    with pytest.raises(DataError, match=f"other images of corruption .*{why}") as e:
        predictions.difference(one, record(mine), other, record(theirs))
    assert "\n" not in str(e.value)


def test_answers_of_another_state_are_not_those_of_the_record(tmp_path):
    one, other = (write(tmp_path / name, [1]) for name in ("one", "other"))
    later = record(changed(step=8))
    assert predictions.difference(one, record(), other, record()) is not None
    assert predictions.difference(one, later, other, record()) is None
    (tmp_path / "one/predictions/corruption/toy_1-c/clean.npz").write_bytes(b"?")
    with pytest.raises(DataError, match=r"can't read .*clean\.npz"):
        predictions.difference(one, record(), other, record())
