"""The tables of the page: what is bold, what differs, what others published."""

import dataclasses

from apr_jax.report import numbers, tables
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


def test_published_numbers_stand_in_columns_of_their_own():
    rows = [record("error", 0.04, 0.06), record("nll", 0.2, 0.3)]
    published = [
        tables.Published(source=s, data="digits", split=t, metric=m, value=v)
        for s, t, m, v in (
            ("Paper <1>", "test", "error", 0.039),
            ("Paper <1>", "other", "nll", 9.0),
            ("Paper 2", "test", "nll", 0.25),
        )
    ]
    table = tables.numbers(["ours"], numbers.side_by_side({"ours": rows}), published)
    assert table.count("Paper &lt;1&gt;") == table.count("Paper 2") == 1
    error, nll = table.split("<tr>")[2:]
    assert error.count("<td") == nll.count("<td") == 4
    assert error.endswith("3.9 %</td><td></td></tr>")
    assert '<td></td><td class="number soft">0.250</td>' in nll
    assert "n = 1,200" in table
    assert 'class="number best"' not in table
