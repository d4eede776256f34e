"""Streams that are taken up in the middle of an epoch."""

import itertools
import shutil

import numpy as np
import pytest

from apr_jax.data import records, tfrecords
from apr_jax.errors import DataError
from tests.data.test_tf import stream_settings

SIZE = 39  # examples of "train+extra"


@pytest.mark.parametrize("gap", [0, 1, 3, 50])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 1.0])
def test_runs_have_all_that_is_wanted_and_no_wider_gaps(rng, gap, share):
    wanted = rng.random(57) < share
    runs = tfrecords.runs_of(wanted, gap)
    assert runs[0, 0] == 0
    np.testing.assert_array_equal(runs[1:, 0], (runs[:, 0] + runs[:, 1])[:-1])
    assert runs[-1, 0] + runs[-1, 1] == 57
    read = np.repeat(runs[:, 2], runs[:, 1]).astype(bool)
    assert not (wanted & ~read).any()
    # What is read beside it lies between two that are wanted, at most so far apart.
    for reading, group in itertools.groupby(range(57), lambda i: bool(wanted[i])):
        places = list(group)
        inside = places[0] > 0 and places[-1] < 56
        if not reading:
            assert read[places].all() == (inside and len(places) <= gap)
            assert read[places].any() == read[places].all()


def names_and_seeds(where, start, count, **layout):
    raw = records.train(
        where,
        seed=0,
        start_step=start,
        batch_size=3,
        **({"process_index": 0, "process_count": 1} | layout),
    )
    return list(raw.examples.take(count).as_numpy_iterator())


@pytest.mark.parametrize(
    "buffer",
    [7, *(pytest.param(buffer, marks=pytest.mark.slow) for buffer in (1, 100))],
)
def test_examples_are_those_of_a_stream_that_went_on(prepared, tmp_path, buffer):
    where = stream_settings(
        prepared[0], tmp_path, train_split="train+extra", shuffle_buffer=buffer
    )
    whole = names_and_seeds(where, 0, 2 * SIZE + 9)
    for start in (8, 20):
        found = names_and_seeds(where, start, 2 * SIZE + 9 - 3 * start)
        for mine, other in zip(found, whole[3 * start :], strict=True):
            assert mine[0] == other[0]
            assert mine[1] == other[1]
            np.testing.assert_array_equal(mine[2], other[2])
            assert mine[3] == other[3]


@pytest.mark.slow
def test_each_process_goes_on_in_its_share(prepared, tmp_path):
    where = stream_settings(
        prepared[0], tmp_path, train_split="train+extra", shuffle_buffer=5
    )
    for i in range(3):
        layout = {"process_index": i, "process_count": 3}
        whole = [name for *_, name in names_and_seeds(where, 0, 26, **layout)]
        assert len(set(whole[:13])) == 13
        found = [name for *_, name in names_and_seeds(where, 8, 18, **layout)]
        assert found == whole[8:]


def test_what_was_seen_is_not_read_again(prepared, tmp_path):
    """A record that is damaged, and can't be read, was seen before the stop."""
    root = tmp_path / "sets"
    shutil.copytree(prepared[0] / "tiny_jpeg", root / "tiny_jpeg")
    where = stream_settings(root, tmp_path, shuffle_buffer=1)
    names = [name.decode() for *_, name in names_and_seeds(where, 0, 30)]
    file, _, first = names[0].rpartition("__")
    assert first == "0"  # the buffer has no room to shuffle
    with open(file, "r+b") as damaged:
        damaged.seek(100)
        damaged.write(b"\0" * 50)
    with pytest.raises(Exception, match="corrupted record"):
        names_and_seeds(where, 0, 1)
    found = [name.decode() for *_, name in names_and_seeds(where, 3, 21)]
    assert found == names[9:]


def test_files_of_another_form_are_refused(prepared, tmp_path):
    root = tmp_path / "sets"
    shutil.copytree(prepared[0] / "tiny_jpeg", root / "tiny_jpeg")
    info = root / "tiny_jpeg" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace('"tfrecord"', '"riegeli"'))
    with pytest.raises(DataError, match=r"are riegeli; streams read tfrecord"):
        records.num_examples(stream_settings(root, tmp_path), "train")
