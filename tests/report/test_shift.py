"""Images from elsewhere on the page: their numbers, and what is said of them."""

import html as html_lib
import re

import pytest

from apr_jax.report import page, run_view
from apr_jax.report.sections import shift
from apr_jax.runs.records import Record

FIT = {"slope": 1.69, "intercept": -0.727, "source": "a paper"}
SETS = {
    "cifar10_1": {
        "accuracy": (0.812, {"classes": 10, "of": 10}),
        "error": (0.188, {}),
        "clean_accuracy": (0.9, {}),
        "gap": (0.088, {}),
        "effective_robustness": (0.018, FIT),
    },
    "few": {"accuracy": (0.4, {"classes": 4, "of": 10}), "error": (0.6, {})},
    "cue_conflict": {"shape_bias": (0.35, {}), "follows_shape": (0.2, {})},
}


def run(name, less=0.0, sets=SETS):
    return run_view.RunView(
        name=name,
        records=[
            Record(
                job=shift.JOB,
                data="toy",
                split=split,
                metric=metric,
                value=value - less,
                unit="fraction",
                n=2000,
                step=1,
                config_hash="c",
                code_version="1",
                seed=0,
                device="cpu",
                time="2026-01-01T00:00:00+00:00",
                low=value - less - 0.01,
                high=value - less + 0.01,
                extra={"settings": {"source": split}, **extra},
            )
            for split, numbers in sets.items()
            for metric, (value, extra) in numbers.items()
        ],
    )


@pytest.fixture
def runs():
    return [run("one"), run("two", 0.05), run_view.RunView(name="bare")]


def test_each_set_and_the_shape_bias_answer(runs):
    found = {row.question: row for row in shift.answers(runs)}
    assert list(found) == [
        "Images from elsewhere, cifar10_1",
        "Images from elsewhere, few",
        "Shape or texture",
    ]
    first = found["Images from elsewhere, cifar10_1"]
    assert first.falls
    assert [c and c.value for c in first.cells] == [0.188, pytest.approx(0.138), None]
    assert not found["Shape or texture"].falls
    assert found["Shape or texture"].place == "toy cue_conflict, n = 2,000"
    assert shift.answers(runs[2:]) == []


def test_the_page_has_all_numbers_and_says_of_what(runs, tmp_path):
    text = page.write_report(tmp_path / "page.html", runs).read_text()
    (section,) = re.findall(r'<section id="images-from-elsewhere">.*?</section>', text)
    section = html_lib.unescape(re.sub(r"<wbr>", "", section))
    for value in ("81.2 %", "18.8 %", "8.8 %", "1.8 %", "40.0 %", "35.0 %", "76.2 %"):
        assert value in section
    assert "few: 4 of 10 classes, which alone may be answered." in section
    assert "cifar10_1: 10 of" not in section
    assert (
        "cifar10_1: effective robustness is the accuracy less 1.69 times the clean one "
        "-72.7 points, the line of a paper."
    ) in section
    assert shift.html(runs[2:]) == ""


def test_the_terminal_has_them_once(runs, capsys):
    page.terminal_summary(runs)
    said = capsys.readouterr().out
    assert said.count("toy cifar10_1") == 1
    assert shift.TITLE in said
    assert shift.table(runs[2:]) is None
