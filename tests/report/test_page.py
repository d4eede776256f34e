"""The page: whole, self-contained, escaped, and true to the records."""

import dataclasses
import html.parser
import io
import os
import re

import numpy as np
import pytest
import rich.console

from apr_jax import metrics
from apr_jax.report import numbers
from apr_jax.report import page as page_lib
from apr_jax.runs import curves
from apr_jax.runs import examples as examples_lib
from apr_jax.runs import records as records_lib

VOID = {"meta", "img", "br", "wbr", "link", "input", "hr"}


class Page(html.parser.HTMLParser):
    """Tags, attributes and text of a page; fails where tags do not close."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


def view(rng, name, margin, **changes):
    records = []
    for split in ("test", "test_shifted"):
        labels = rng.integers(0, 10, 400)
        logits = rng.normal(size=(400, 10))
        logits[np.arange(400), labels] += margin
        records += records_lib.records_of(
            metrics.summary(logits, labels, replicates=50),
            job="evaluate.clean",
            data="digits",
            split=split,
            step=1234,
            config_hash="1f3a9b",
            seed=0,
            device="cpu x 1",
            extra_of={
                "ece": {"reliability": metrics.reliability_of(logits, labels)},
                "accuracy": {"confusion": metrics.confusion(logits, labels)},
            },
        )
    rows = [
        curves.CurveRow(
            step=step, epoch=step / 10, loss=1 / step, accuracy=0.5, learning_rate=0.1,
            images_per_second=100.0, time=1.7e9 + step,
        )
        for step in range(1, 30)
    ]  # fmt: skip
    original = rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    fields = {
        "name": name,
        "config": {"model": {"name": "wrn_10_1"}, "augment": {"method": name}},
        "records": records,
        "curve": rows,
        "class_names": [f"class_{i}" for i in range(10)],
        "examples": examples_lib.Examples(
            original=original, mixed=original / 255.0, donor=np.array([0, 1])
        ),
        "commands": [f"python launch.py --config configs/{name}.py"],
        "facts": {"Parameters": "77,850"},
    }
    return page_lib.RunView(**(fields | changes))


@pytest.fixture(scope="module")
def runs():
    rng = np.random.default_rng(0)
    return [view(rng, "standard", 1.0), view(rng, "apr_sp", 4.0)]


@pytest.fixture(scope="module")
def written(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    path = page_lib.write_report(folder / "report.html", runs)
    assert os.listdir(folder) == ["report.html"]
    return path.read_text()


def test_page_is_whole_and_loads_nothing(written):
    page = Page(written)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    for tag, name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "srcset", "data"):
            assert value.startswith(("data:image/", "#")), (tag, name, value[:40])
        assert not name.startswith("on")
    assert "@import" not in written
    assert not re.search(r"url\((?!#)", written)
    assert len(written) < 1_000_000


def test_page_suits_phones_dark_rooms_and_readers(written):
    page = Page(written)
    assert ("meta", "name", "viewport") in page.attributes
    assert "prefers-color-scheme: dark" in written
    images = page.tags.count("img")
    assert images == 2 * 2 * 3 * 3
    assert sum(
        t == "img" and n == "alt" and bool(v) for t, n, v in page.attributes
    ) == (images)
    labels = [v for t, n, v in page.attributes if (t, n) == ("svg", "aria-label")]
    assert len(labels) == page.tags.count("svg") == 4 + 4 + 4
    assert all(labels)


def test_ids_are_unique_and_links_lead_somewhere(written):
    page = Page(written)
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(set(ids)) == len(ids)
    links = [v for tag, name, v in page.attributes if (tag, name) == ("a", "href")]
    assert len(links) > 6
    assert {link.removeprefix("#") for link in links} <= set(ids)


def test_page_begins_with_the_answer(written):
    sections = re.findall(r'<section id="([^"]*)"', written)
    assert sections[:2] == ["the-answer", "clean-images"]
    assert written.index("<table") > written.index('id="the-answer"')
    assert written.index("<nav") > written.index("</table>")


def test_boxes_that_scroll_have_names_of_their_own(written):
    page = Page(written)
    names = re.findall(r'role="region" tabindex="0" aria-label="([^"]*)"', written)
    assert len(names) == page.tags.count("table") + page.tags.count("pre")
    assert len(set(names)) == len(names)
    assert page.tags.count("caption") == page.tags.count("table")
    heads = sum((tag, name) == ("th", "scope") for tag, name, _ in page.attributes)
    assert heads == page.tags.count("th")


def test_every_number_and_interval_is_there(written, runs):
    text = Page(written).text
    for run in runs:
        for record in run.records:
            value, interval = numbers.shown(record)
            assert f"{value} {interval}" in text, record.metric


def test_every_section_has_its_content(written):
    text = Page(written).text
    for words in (
        "standard, apr_sp",
        "digits test n = 400",
        "Log-loss (NLL)",
        "Training loss",
        "standard, test_shifted",
        "class_7",
        "Result, APR-P",
        "wrn_10_1",
        "77,850",
        "python launch.py --config configs/apr_sp.py",
        "1f3a9b",
    ):
        assert words in text, words


def test_a_new_measurement_replaces_the_old_everywhere(runs, tmp_path):
    new = [r for r in runs[0].records if r.split == "test"]
    old = [dataclasses.replace(r, value=0.123456, step=987654, extra={}) for r in new]
    run = dataclasses.replace(runs[0], records=[*old, *new])
    page = Page(page_lib.write_report(tmp_path / "p.html", [run]).read_text())
    assert "1234" in page.text
    assert "987654" not in page.text
    assert "12.3 %" not in page.text
    assert "12.35 %" not in page.text


def test_what_is_missing_is_left_out(tmp_path):
    path = page_lib.write_report(
        tmp_path / "bare.html", [page_lib.RunView(name="bare")]
    )
    page = Page(path.read_text())
    assert page.tags.count("section") == 0
    assert page.tags.count("svg") == page.tags.count("img") == 0
    assert "bare" in page.text


@pytest.mark.parametrize("part", ["records", "curve", "examples", "config"])
def test_each_part_can_be_missing_alone(runs, tmp_path, part):
    missing = {"records": (), "curve": (), "examples": None, "config": {}}[part]
    run = dataclasses.replace(runs[0], **{part: missing})
    page = Page(page_lib.write_report(tmp_path / "p.html", [run, runs[1]]).read_text())
    assert page.tags.count("section") == 7


def test_text_is_escaped_everywhere(rng, tmp_path):
    bad = "<script>alert('x')</script>&\""
    run = view(rng, bad, 1.0, class_names=[bad] * 10, commands=[bad], facts={bad: bad})
    examples = dataclasses.replace(run.examples, labels=[bad, bad])
    records = [
        dataclasses.replace(r, data=bad, device=bad, config_hash=bad)
        for r in run.records
    ]
    run = dataclasses.replace(run, examples=examples, records=records)
    path = page_lib.write_report(tmp_path / "p.html", [run])
    text = path.read_text()
    assert "<script" not in text
    page = Page(text)
    assert "script" not in page.tags
    assert bad in page.text


def test_the_old_page_stays_until_the_new_is_whole(runs, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="No space left"):
            page_lib.write_report(path, [page_lib.RunView(name="a")])
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]


def test_runs_need_names_of_their_own(tmp_path):
    for runs in ([], [page_lib.RunView(name="a"), page_lib.RunView(name="a")]):
        with pytest.raises(ValueError, match="runs of different names"):
            page_lib.write_report(tmp_path / "p.html", runs)


def test_terminal_shows_the_numbers_and_the_page(runs, tmp_path):
    console = rich.console.Console(file=io.StringIO(), width=100)
    page_lib.terminal_summary(runs, report=tmp_path / "report.html", console=console)
    text = console.file.getvalue()
    assert str(tmp_path / "report.html") in text
    assert "digits test_shifted, n = 400" in text
    for run in runs:
        assert numbers.shown(run.records[0])[0] in text
    empty = rich.console.Console(file=io.StringIO())
    page_lib.terminal_summary([page_lib.RunView(name="a")], console=empty)
    assert empty.file.getvalue() == ""
