"""Lines of JSON: whole, cut off, replaced, and written by several at once."""

import concurrent.futures
import json
import os

import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax.errors import DataError
from apr_jax.runs import jsonl


def test_what_is_appended_is_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    jsonl.append(path, [{"a": 1}, {"b": "ünïcode\n"}])
    jsonl.append(path, [])
    jsonl.append(path, [{"c": [None, 0.1]}])
    assert jsonl.read(path) == [
        (1, {"a": 1}),
        (2, {"b": "ünïcode\n"}),
        (3, {"c": [None, 0.1]}),
    ]


def test_array_scalars_become_numbers(tmp_path):
    path = tmp_path / "rows.jsonl"
    jsonl.append(path, [{"a": np.float64(0.25), "b": jnp.int32(3), "c": np.arange(2)}])
    assert jsonl.read(path) == [(1, {"a": 0.25, "b": 3, "c": [0, 1]})]
    with pytest.raises(ValueError, match="of type object is not for JSON"):
        jsonl.append(path, [{"a": object()}])


def test_half_of_a_pair_is_kept(tmp_path):
    """As Python has the name of a file that isn't UTF-8."""
    rows = [{"command": "card \udce9.npz"}, {"command": "card é"}]
    jsonl.append(tmp_path / "a.jsonl", rows)
    assert [row for _, row in jsonl.read(tmp_path / "a.jsonl")] == rows
    assert "é" in (tmp_path / "a.jsonl").read_text()


@pytest.mark.parametrize("keep", [1, 7, -1])
def test_a_cut_off_line_is_named_and_the_next_row_is_safe(tmp_path, keep):
    path = tmp_path / "rows.jsonl"
    jsonl.append(path, [{"a": 1}])
    line = json.dumps({"b": "long enough to cut"}).encode()
    with path.open("ab") as file:
        file.write(line[:keep])
    with pytest.warns(UserWarning, match=r"rows.jsonl: left out line 2"):
        assert jsonl.read(path) == [(1, {"a": 1})]
    jsonl.append(path, [{"c": 3}])
    with pytest.warns(UserWarning, match="left out line 2"):
        assert jsonl.read(path) == [(1, {"a": 1}), (3, {"c": 3})]


def test_a_last_line_without_its_newline_is_whole(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}')
    jsonl.append(path, [{"b": 2}])
    assert [row for _, row in jsonl.read(path)] == [{"a": 1}, {"b": 2}]


def test_nothing_is_written_of_rows_that_json_cannot_hold(tmp_path):
    path = tmp_path / "rows.jsonl"
    jsonl.append(path, [{"a": 1}])
    for write in (jsonl.append, jsonl.replace):
        with pytest.raises(ValueError, match="not JSON compliant"):
            write(path, [{"b": 2}, {"c": float("nan")}])
    assert jsonl.read(path) == [(1, {"a": 1})]


def test_replace_leaves_the_old_file_if_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    jsonl.append(path, [{"a": 1}, {"b": 2}])

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            jsonl.replace(path, [{"c": 3}])
    assert len(jsonl.read(path)) == 2
    assert os.listdir(tmp_path) == ["rows.jsonl"]
    jsonl.replace(path, [{"c": 3}])
    assert jsonl.read(path) == [(1, {"c": 3})]


def test_two_writers_do_not_mix_their_lines(tmp_path):
    """Each with a file of its own, as two processes have."""
    path = tmp_path / "rows.jsonl"

    def write(name):
        for i in range(100):
            jsonl.append(path, [{"writer": name, "i": i, "text": "x" * 5000}])

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(write, "ab"))
    rows = [row for _, row in jsonl.read(path)]
    for name in "ab":
        assert [r["i"] for r in rows if r["writer"] == name] == list(range(100))


def test_rows_may_be_kept_compressed(tmp_path):
    path, rows = tmp_path / "rows.jsonl.gz", [{"a": i, "b": "same"} for i in range(99)]
    jsonl.replace(path, rows)
    first = path.read_bytes()
    assert [row for _, row in jsonl.read(path)] == rows
    assert len(first) < len(jsonl.encode(rows)) / 5
    jsonl.replace(path, rows)
    assert path.read_bytes() == first  # it says nothing of when
    for damaged in (first[:-9], b"{}\n", first[:40] + b"\0\0\0\0" + first[44:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"can't read .*rows\.jsonl\.gz"):
            jsonl.read(path)
