"""Records: written, read, looked up and shown."""

import dataclasses
import io
import math
import pathlib
import re
import subprocess

import numpy as np
import pytest
import rich.console

from apr_jax import metrics
from apr_jax.report import numbers
from apr_jax.runs import records
from apr_jax.runs.records import Record


def record(**changes):
    fields = {
        "job": "evaluate.clean",
        "data": "cifar10",
        "split": "test",
        "metric": "accuracy",
        "value": 0.943,
        "unit": "fraction",
        "n": 10000,
        "step": 78200,
        "config_hash": "1f3a",
        "code_version": "0.1.0",
        "seed": 0,
        "device": "cpu x 1",
        "time": "2026-01-01T00:00:00+00:00",
        "low": 0.938,
        "high": 0.947,
        "extra": {"note": "made up"},
    }
    return Record(**(fields | changes))


def test_records_survive_the_file(tmp_path):
    path = tmp_path / "results.jsonl"
    written = [record(), record(metric="nll", value=0.2, unit="nats", low=None)]
    records.append(path, written[:1])
    records.append(path, written[1:])
    assert records.read(path) == written


def test_records_of_a_summary(rng, tmp_path):
    labels = rng.integers(0, 10, 80)
    measured = metrics.summary(rng.normal(size=(80, 10)), labels, replicates=20)
    made = records.records_of(
        measured,
        job="evaluate.clean",
        data="digits",
        split="test_shifted",
        step=7,
        config_hash="abc",
        seed=np.int64(3),
        device="cpu",
    )
    assert [r.metric for r in made] == list(measured)
    assert made[0].value == np.mean(measured["accuracy"].value)
    assert (made[3].low, made[3].high) == (measured["nll"].low, measured["nll"].high)
    assert made[0].code_version == records.code_version()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", made[0].time)
    records.append(tmp_path / "results.jsonl", made)
    assert records.read(tmp_path / "results.jsonl") == made


def test_arrays_beside_a_number_read_back(rng, tmp_path):
    """Empty bins of a diagram are NaN, which JSON does not have."""
    measured = {"ece": metrics.wilson(1, 3), "accuracy": metrics.wilson(2, 3)}
    diagram = metrics.reliability([0.9, 0.4, 0.95], [True, False, True], bins=5)
    where = {
        "job": "j", "data": "d", "split": "s", "step": 1, "config_hash": "c",
        "seed": 0, "device": "cpu",
    }  # fmt: skip
    extra = {
        "ece": {"reliability": diagram},
        "accuracy": {"confusion": np.eye(2, dtype=int)},
    }
    made = records.records_of(measured, **where, extra={"name": "x"}, extra_of=extra)
    records.append(tmp_path / "results.jsonl", made)
    read = records.read(tmp_path / "results.jsonl")
    assert read == made
    back = metrics.Reliability.from_json(read[0].extra["reliability"])
    for field in dataclasses.fields(diagram):
        expected = getattr(diagram, field.name)
        np.testing.assert_array_equal(getattr(back, field.name), expected)
        assert getattr(back, field.name).dtype == expected.dtype
    assert read[1].extra == {"name": "x", "confusion": [[1, 0], [0, 1]]}
    with pytest.raises(ValueError, match="extra_of names nll; measured were ece, acc"):
        records.records_of(measured, **where, extra_of={"nll": {}})


def test_a_number_that_is_none_is_refused_by_name(tmp_path):
    path = tmp_path / "results.jsonl"
    with pytest.raises(ValueError, match=r"'ece' of cifar10 test cannot be recorded"):
        records.append(path, [record(), record(metric="ece", value=math.nan)])
    assert not path.exists()


def test_a_cut_off_last_record_is_left_out(tmp_path):
    path = tmp_path / "results.jsonl"
    records.append(path, [record(), record(metric="ece")])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.warns(UserWarning, match="left out line 2"):
        assert records.read(path) == [record()]


def test_a_line_that_is_no_record_is_named(tmp_path):
    path = tmp_path / "results.jsonl"
    records.append(path, [record()])
    with path.open("a") as file:
        file.write('{"metric": "ece", "colour": 1}\n')
    with pytest.raises(
        ValueError, match=r"line 2, is not a record: missing code_ver.*unknown colour"
    ):
        records.read(path)


def test_the_latest_measurement_wins():
    old, new = record(value=0.1, step=1), record(value=0.2, step=2)
    other = record(split="test_shifted")
    assert records.latest([old, other, new]) == [new, other]
    assert records.find([old, other, new], metric="accuracy", split="test") == new
    assert records.find([old, new], metric="ece") is None
    with pytest.raises(ValueError, match="no field 'colour'; choose from job, data"):
        records.find([old], colour=1)


def test_code_version_names_package_and_commit():
    version = records.code_version()
    assert re.fullmatch(r"\d+\.\d+\.\d+(\+g[0-9a-f]{7,}(\.dirty)?)?", version)
    git = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        cwd=pathlib.Path(records.__file__).parent,
    )
    if git.returncode == 0:
        commit = version.split("+g")[1].removesuffix(".dirty")
        assert git.stdout.startswith(commit)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("94.3 %", "93.8 to 94.7")),
        ({"low": 0.9421, "high": 0.9438}, ("94.30 %", "94.21 to 94.38")),
        ({"low": None, "high": None}, ("94.30 %", "")),
        ({"unit": "nats", "low": 0.93, "high": 0.951}, ("0.943", "0.930 to 0.951")),
        ({"unit": "nats", "low": 0.8, "high": 1.1}, ("0.94", "0.80 to 1.10")),
        ({"unit": "1", "low": None}, ("0.943", "")),
        ({"unit": "images/s", "value": 1234.56, "low": None}, ("1,235 images/s", "")),
    ],
)
def test_digits_follow_the_interval(changes, expected):
    assert numbers.shown(record(**changes)) == expected


def text_of(table):
    console = rich.console.Console(file=io.StringIO(), width=110)
    console.print(table)
    return console.file.getvalue()


def test_table_puts_runs_side_by_side():
    standard = [
        record(metric="ece", value=0.031, low=None),
        record(value=0.5),
        record(value=0.9),
        record(split="test_shifted", value=0.412, low=0.39, high=0.43, n=2000),
    ]
    ours = [record(), record(metric="speed", unit="images/s", value=15, low=None)]
    text = text_of(numbers.table({"standard": standard, "APR-SP [S then P]": ours}))
    lines = [
        " ".join(re.split(r"[│┃|\s]+", line)).strip() for line in text.splitlines()
    ]
    assert "standard APR-SP [S then P]" in lines
    assert "cifar10 test, n = 10,000" in lines
    assert "Accuracy ↑ 90.0 % (93.8–94.7) 94.3 % (93.8–94.7)" in lines
    assert "Calibration error (ECE) ↓ 3.10 % –" in lines
    assert "speed – 15 images/s" in lines
    assert "cifar10 test_shifted, n = 2,000" in lines
    assert "Accuracy ↑ 41.2 % (39.0–43.0) –" in lines
    assert "50.0 %" not in text


def test_records_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        record().value = 1.0


def test_what_is_finished_was_measured_of_the_same_weights_and_settings():
    made = [
        record(split=split, step=step, extra={"settings": settings})
        for split, step, settings in (
            ("a", 7, {"eps": (1, 2)}),
            ("b", 7, {"eps": (1,)}),
            ("c", 8, {"eps": (1, 2)}),
            ("d", 7, {"eps": [1, 2]}),  # as it comes back from a file
        )
    ]
    one = made[0]
    found = records.finished(
        made,
        job=one.job,
        config_hash=one.config_hash,
        step=7,
        settings={"eps": (1, 2)},
    )
    assert [split for _, split, _ in found] == ["a", "d"]
    assert found[one.data, "a", one.metric] is one


def test_what_a_later_record_hides_is_written_again():
    old, new, other = record(value=0.5), record(value=0.6), record(metric="ece")
    assert records.hidden([old, new, other], [old, other]) == [old]
    assert records.hidden([new, old, other], [old, other]) == []
