"""The tables of the page: what is bold, what differs."""

import dataclasses

from apr_jax.report import tables
from apr_jax.runs.records import Record


def record(metric, low, high):
    return Record(
        job="j", data="digits", split="test", metric=metric, value=(low + high) / 2,
        unit="fraction", n=1200, step=1, config_hash="", code_version="", seed=0,
        device="", time="", low=low, high=high,
    )  # fmt: skip


def test_bold_needs_intervals_that_do_not_touch():
    low, middle, high = (
        record("m", 0.1, 0.2),
        record("m", 0.18, 0.3),
        record("m", 0.4, 0.5),
    )
    assert tables.clearly_best("accuracy", [low, high, middle]) == 1
    assert tables.clearly_best("error", [low, high]) == 0
    assert tables.clearly_best("error", [low, middle, high]) is None
    assert tables.clearly_best("accuracy", [None, low, high]) == 2
    assert tables.clearly_best("accuracy", [None, high]) is None
    assert tables.clearly_best("unheard_of", [low, high]) is None
    no_interval = dataclasses.replace(high, low=None)
    assert tables.clearly_best("accuracy", [low, no_interval]) is None


def test_differences_between_runs_stand_out():
    page = tables.comparison(["a_b", "c"], [("Seed", ["0", "0"]), ("Rate", ["1", "2"])])
    assert '<td class="differs">1</td><td class="differs">2</td>' in page
    assert "<td>0</td><td>0</td>" in page
    assert "a_<wbr>b" in page
