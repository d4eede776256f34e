"""The answer that the page begins with: a row for each question, runs side by side."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from apr_jax.report import html, numbers
from apr_jax.report.run_view import RunView, alike
from apr_jax.runs.records import Record

TITLE = "The answer"
CLEAN = "Clean images"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One question and the number that answers it, of each run.

    Attributes:
        question: such as "Corrupted images".
        number: what is shown, with an arrow to the better side: "Mean error ↓".
        place: what it was measured on.
        section: title of the section with the details.
        cells: a record of each run, or None.
    """

    question: str
    number: str
    place: str
    section: str
    cells: Sequence[Record | None]


def clean(runs: Sequence[RunView]) -> list[Row]:
    """The error on each split of images as they are."""
    found = [
        {(r.data, r.split): r for r in run.of("evaluate.clean") if r.metric == "error"}
        for run in runs
    ]
    places = dict.fromkeys(place for own in found for place in own)
    rows = []
    for data, split in places:
        cells = [own.get((data, split)) for own in found]
        asked = CLEAN if split == next(iter(places))[1] else f"Split {split}"
        rows.append(
            Row(
                question=asked,
                number="Error ↓",
                place=f"{data} {split}, {numbers.size([('', cells)])}",
                section=CLEAN,
                cells=cells,
            )
        )
    return rows


def over(mean: Record | None, members: Sequence[Record]) -> Record | None:
    """A mean with an interval, from those of what it is the mean of.

    The ends are the means of the members' ends. However the members depend upon each
    other (they share images), the standard deviation of their mean is at most the mean
    of theirs, so the interval is as wide as it must be, or wider.

    Returns:
        The record as it is where it has an interval, or a member has none, or it is
        the mean of something else.
    """
    if mean is None or mean.low is not None or not members:
        return mean
    ends = [(r.low, r.high) for r in members if r.low is not None]
    same = np.isclose(np.mean([r.value for r in members]), mean.value, atol=1e-6)
    if len(ends) < len(members) or not same:
        return mean
    low, high = np.mean(np.array(ends, np.float64), axis=0)
    return dataclasses.replace(mean, low=float(low), high=float(high))


def best(row: Row) -> int | None:
    """The run whose interval lies beyond those of all others, measured alike.

    Such a difference isn't nought, on the same images or others: its standard
    deviation is at most the sum of the two.
    """
    there = [(i, r) for i, r in enumerate(row.cells) if r is not None]
    if len(there) < 2 or not all(alike(there[0][1], r) for _, r in there):
        return None
    sign = -1.0 if row.number.endswith("↓") else 1.0
    ends = []
    for i, r in there:
        if r.low is None or r.high is None:
            return None
        near, far = sorted((sign * r.low, sign * r.high))
        ends.append((near, far, i))
    near, _, first = max(ends)
    return first if all(near > far for _, far, i in ends if i != first) else None


def section(runs: Sequence[RunView], rows: Sequence[Row]) -> str:
    """The table, and what is best by which rule; nothing where nothing was measured."""
    if not rows:
        return ""
    lines = []
    for row in rows:
        first = best(row)
        link = f'<a href="#{html.anchor(row.section)}">{html.escape(row.question)}</a>'
        about = f"{row.number} · {row.place}".replace("n = ", "n\u00a0=\u00a0")
        cells = [_cell(r, marked=i == first) for i, r in enumerate(row.cells)]
        small = f"<small>{html.escape(about)}</small>"
        lines.append([html.row_head(link + small), *cells])
    table = html.tabulate(
        html.run_heads([run.name for run in runs]),
        [("", lines)],
        caption="One row per question; ↓ lower is better, ↑ higher is better",
        corner="Question",
        kind="answer",
    )
    return html.section(TITLE, html.card(table), html.note(_about(runs, rows)))


def _cell(record: Record | None, *, marked: bool) -> str:
    if record is None:
        return html.td('<span class="soft">not measured</span>', "number")
    value, interval = numbers.shown(record)
    mark = '<span class="mark">best</span>' if marked else ""
    small = f"<small>{html.escape(interval)}</small>" if interval else ""
    text = f"{html.escape(value)}{mark}{small}"
    return html.td(text, "number best" if marked else "number")


def _about(runs: Sequence[RunView], rows: Sequence[Row]) -> str:
    """The rules behind the marks, in words."""
    text = (
        "Below each number its 95 % interval over the images, for the one network that "
        "each run trained: other seeds would differ by more. A mean over sets has the "
        "mean of their intervals, which is wide enough however the sets depend on each "
        "other."
    )
    if len(runs) > 1:
        text += (
            " Best is marked where a run’s interval lies beyond all others’, measured "
            "alike; answers image by image, by which closer runs could be told apart, "
            "were not recorded. Without a mark the runs may be equals."
        )
    return html.escape(text)
