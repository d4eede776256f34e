"""The table that the page begins with: its rows, their intervals, and what is best."""

import dataclasses
import re

import numpy as np
import pytest

from apr_jax import metrics
from apr_jax.report import answer, html, run_view
from apr_jax.report.sections import adversarial, corruption, fourier, ood
from apr_jax.runs import predictions, workdir
from apr_jax.runs.records import Record


def record(value, half=None, *, job="evaluate.clean", n=1000, **changes):
    fields = {
        "job": job, "data": "toy", "split": "test", "metric": "error", "value": value,
        "unit": "fraction", "n": n, "step": 1, "config_hash": "c", "code_version": "v",
        "seed": 0, "device": "cpu", "time": "2026-01-01T00:00:00+00:00",
        "low": None if half is None else value - half,
        "high": None if half is None else value + half,
    }  # fmt: skip
    return Record(**(fields | changes))


def row(*cells, number="Error ↓"):
    return answer.Row(
        question="Clean images", number=number, place="toy", section="s", cells=cells
    )


@pytest.mark.parametrize(
    ("cells", "best"),
    [
        ([(0.1, 0.02), (0.2, 0.02)], 0),
        ([(0.2, 0.02), (0.1, 0.02), (0.3, 0.02)], 1),
        ([(0.1, 0.02), (0.13, 0.02)], None),  # the intervals overlap
        ([(0.1, 0.02), (0.2, None)], None),  # one has none
        ([(0.1, 0.02)], None),  # nothing to compare with
        ([(0.1, 0.02), (0.1, 0.02), (0.3, 0.02)], None),  # two share the place
    ],
)
def test_best_lies_beyond_all_others(cells, best):
    runs = [run_view.RunView(name=str(i)) for i in range(len(cells))]
    records = [record(value, half) for value, half in cells]
    assert answer.verdict(runs, row(*records)).best == best
    flipped = row(*(record(1 - v, half) for v, half in cells), number="Accuracy ↑")
    assert answer.verdict(runs, flipped) == answer.Verdict(best)


def test_nothing_is_best_among_what_was_measured_otherwise():
    runs = [run_view.RunView(name="a"), run_view.RunView(name="b")]
    best = lambda *cells: answer.verdict(runs, row(*cells)).best
    one, other = record(0.1, 0.02), record(0.5, 0.02, n=999)
    assert best(one, other) is None
    assert best(one, None) is None
    other = record(0.5, 0.02, extra={"settings": {"examples": 9}})
    one = dataclasses.replace(one, extra={"settings": {"examples": 8}})
    assert best(one, other) is None


def answered(folder, wrong, labels=None):
    """A run that keeps which of its answers are wrong, bool [N] or [K, N]."""
    place = workdir.RunDir(folder)
    wrong = np.asarray(wrong)
    n = wrong.shape[-1]
    split = "test" if wrong.ndim == 1 else "mean"
    extra = {} if wrong.ndim == 1 else {"corruptions": ["fog"], "severities": [1, 2]}
    made = metrics.wilson(int(wrong.sum()), wrong.size)
    found = record(made.value, n=wrong.size, split=split, extra=extra)
    found = dataclasses.replace(found, low=made.low, high=made.high)
    labels = np.arange(n) % 10 if labels is None else labels
    for i, row in enumerate(np.atleast_2d(wrong), 1):
        about = predictions.About(
            job=found.job,
            data=found.data,
            split=split if wrong.ndim == 1 else f"fog/{i}",
            config_hash=found.config_hash,
            step=found.step,
        )
        arrays = {
            "index": np.arange(n),
            "label": labels,
            "predicted": np.where(row, (labels + 1) % 10, labels),
            "confidence": np.full(n, 0.5, np.float32),
        }
        predictions.write(place.predictions, about, arrays)
    return run_view.RunView(name=folder.name, records=[found], place=place)


def test_pairs_tell_runs_apart_whose_intervals_overlap(rng, tmp_path):
    """One errs on all that the other errs on, and on a little more."""
    few = rng.random(1000) < 0.2
    more = few | (rng.random(1000) < 0.03)
    runs = [answered(tmp_path / "a", more), answered(tmp_path / "b", few)]
    cells = [run.records[0] for run in runs]
    assert cells[1].high > cells[0].low
    found = answer.verdict(runs, row(*cells))
    assert found.best == 1
    difference = few.mean() - more.mean()
    assert found.differences[1].difference == pytest.approx(difference)
    page = answer.section(runs, [row(*cells)])
    assert page.count('<span class="mark">best</span>') == 1
    assert f"paired −{abs(100 * difference):.1f}" in page
    assert "McNemar" in page
    # In what is right the same difference is a gain.
    right = [
        dataclasses.replace(r, metric="accuracy", value=1 - r.value) for r in cells
    ]
    rows = [row(*right, number="Accuracy ↑")]
    assert f"paired +{abs(100 * difference):.1f}" in answer.section(runs, rows)
    # Without the answers nothing is marked, and the page says so.
    bare = [dataclasses.replace(run, place=None) for run in runs]
    page = answer.section(bare, [row(*cells)])
    assert "mark" not in page.replace("marked", "").replace("a mark", "")
    assert "--save_predictions" in page


def test_pairs_of_a_mean_are_of_all_its_sets(rng, tmp_path):
    one, other = rng.random((2, 2, 500)) < [[[0.3]], [[0.2]]]
    runs = [answered(tmp_path / "a", one), answered(tmp_path / "b", other)]
    found = answer.verdict(runs, row(*(run.records[0] for run in runs)))
    difference = other.mean() - one.mean()
    assert found.differences[1].difference == pytest.approx(difference)
    assert found.differences[1].n == 500


def test_answers_to_other_images_are_not_compared(tmp_path):
    wrong = np.arange(1000) % 10 == 0
    labels = np.zeros(1000, int)
    runs = [answered(tmp_path / "a", wrong), answered(tmp_path / "b", ~wrong, labels)]
    cells = [run.records[0] for run in runs]
    assert answer.verdict(runs, row(*cells)) == answer.Verdict()


def test_the_interval_of_a_mean_holds_however_its_sets_depend():
    """Against means of answers that are the same, or unlike, in all sets."""
    rng = np.random.default_rng(0)
    sets, n, trials = 5, 400, 2000
    same = np.repeat(rng.random((trials, 1, n)) < 0.3, sets, axis=1)
    other = rng.random((trials, sets, n)) < 0.3
    for wrong in (same, other):
        rates = wrong.mean(axis=2)
        half = 1.96 * np.sqrt(rates * (1 - rates) / n)
        covered = 0
        for rate, each in zip(rates, half, strict=True):
            members = [record(r, h) for r, h in zip(rate, each, strict=True)]
            mean = answer.over(record(float(rate.mean())), members)
            covered += mean.low <= 0.3 <= mean.high
        assert covered / trials > 0.93


def test_a_mean_of_something_else_has_no_interval():
    members = [record(0.1, 0.01), record(0.3, 0.01)]
    assert answer.over(record(0.2), members).high == pytest.approx(0.21)
    assert answer.over(record(0.25), members).low is None
    assert answer.over(record(0.2), [members[0], record(0.3)]).low is None
    assert answer.over(record(0.2), []).low is None
    assert answer.over(None, members) is None


def measured(shift):
    """A record of each question, better by ``shift`` of a percent."""
    error = lambda v, **kw: record(v - shift, 0.01, **kw)
    right = lambda v, **kw: record(v + shift, 0.01, **kw)
    c, o, a, f = (s.JOB for s in (corruption, ood, adversarial, fourier))
    asked = {"attack": "standard", "steps": 100, "queries": 5000}
    radius = lambda eps: {"norm": "linf", "eps": eps, "settings": asked}
    return [
        error(0.1),
        error(0.2, split="test_shifted"),
        error(0.3, job=c, data="toy-c", split="fog/1"),
        error(0.5, job=c, data="toy-c", split="fog/2"),
        record(0.4 - shift, job=c, data="toy-c", split="mean of 1"),
        right(0.7, job=o, split="svhn", metric="msp.auroc", extra={"group": "far"}),
        right(
            0.6, job=a, split="linf/1", metric="robust_accuracy", extra=radius(8 / 255)
        ),
        right(
            0.3, job=a, split="linf/2", metric="robust_accuracy", extra=radius(16 / 255)
        ),
        right(0.5, job=f, metric="follows_phase"),
        error(0.2, job=f, metric="follows_amplitude"),
        error(0.2, job=f, metric="follows_neither"),
    ]


def test_every_question_has_a_row_and_every_run_a_column():
    runs = [
        run_view.RunView(name=name, records=measured(shift))
        for name, shift in (("one", 0.0), ("two", 0.05))
    ]
    rows = answer.clean(runs)
    for section in (corruption, ood, adversarial, fourier):
        rows += section.answers(runs)
    values = {r.question: [c.value for c in r.cells] for r in rows}
    assert list(values) == [
        "Clean images",
        "Split test_shifted",
        "Corrupted images",
        "Unknown images",
        "Attacked images",
        "Phase or amplitude",
    ]
    assert values["Corrupted images"] == pytest.approx([0.4, 0.35])
    # The usual radius, not the larger one.
    assert values["Attacked images"] == pytest.approx([0.6, 0.65])
    page = answer.section(runs, rows)
    assert page.count('<span class="mark">best</span>') == 6
    links = set(re.findall(r'href="#([^"]*)"', page))
    assert html.anchor(adversarial.TITLE) in links
    assert len(links) == 5
    assert answer.section(runs, []) == ""
