"""The answer that the page begins with: a row for each question, runs side by side."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from apr_jax.errors import DataError
from apr_jax.report import html, numbers
from apr_jax.report.run_view import RunView, alike
from apr_jax.runs import predictions
from apr_jax.runs.records import Record

if TYPE_CHECKING:
    from apr_jax.metrics import Paired

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

    @property
    def falls(self) -> bool:
        """Whether lower is better."""
        return self.number.endswith("↓")


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


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the numbers of a row say of its runs.

    Attributes:
        best: the run that is better than every other, beyond chance; or None.
        differences: run -> how much more often it errs than the first that was
            measured, where the answers of both are kept.
    """

    best: int | None = None
    differences: Mapping[int, "Paired"] = dataclasses.field(default_factory=dict)


def verdict(runs: Sequence[RunView], row: Row) -> Verdict:
    """Whether a run is better than all others, each comparison at 95 %.

    Where both runs' answers are kept, their difference on the same images decides.
    Elsewhere intervals must lie apart: such a difference isn't nought either, as its
    standard deviation is at most the sum of the two, whatever the images.
    """
    there = [i for i, record in enumerate(row.cells) if record is not None]
    cells = {i: record for i, record in enumerate(row.cells) if record is not None}
    if len(there) < 2 or not all(alike(cells[there[0]], cells[i]) for i in there):
        return Verdict()
    sign = -1.0 if row.falls else 1.0
    first = max(there, key=lambda i: sign * cells[i].value)
    try:
        compared = {i: _difference(runs, row, first, i) for i in there if i != first}
        to_first = {i: _difference(runs, row, i, there[0]) for i in there[1:]}
    except DataError:  # answers to other images
        return Verdict()
    better = all(
        _apart(cells[first], cells[i], sign) if found is None else found.differs
        for i, found in compared.items()
    )
    return Verdict(
        first if better else None,
        {i: found for i, found in to_first.items() if found is not None},
    )


def _difference(
    runs: Sequence[RunView], row: Row, one: int, other: int
) -> "Paired | None":
    place, record = runs[one].place, row.cells[one]
    against, its = runs[other].place, row.cells[other]
    if place is None or record is None or against is None or its is None:
        return None
    return predictions.difference(place, record, against, its)


def _apart(one: Record, other: Record, sign: float) -> bool:
    """Whether the whole interval of the first is better than that of the second."""
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return False
    near = min(sign * one.low, sign * one.high)
    return near > max(sign * other.low, sign * other.high)


def section(runs: Sequence[RunView], rows: Sequence[Row]) -> str:
    """The table, and what is best by which rule; nothing where nothing was measured."""
    if not rows:
        return ""
    lines = []
    verdicts = [verdict(runs, row) for row in rows]
    for row, found in zip(rows, verdicts, strict=True):
        link = f'<a href="#{html.anchor(row.section)}">{html.escape(row.question)}</a>'
        about = f"{row.number} · {row.place}".replace("n = ", "n\u00a0=\u00a0")
        cells = [_cell(row, found, i) for i in range(len(runs))]
        small = f"<small>{html.escape(about)}</small>"
        lines.append([html.row_head(link + small), *cells])
    table = html.tabulate(
        html.run_heads([run.name for run in runs]),
        [("", lines)],
        caption="One row per question; ↓ lower is better, ↑ higher is better",
        corner="Question",
        kind="answer",
    )
    return html.section(TITLE, html.card(table), _about(runs, verdicts))


def _cell(row: Row, found: Verdict, run: int) -> str:
    record = row.cells[run]
    if record is None:
        return html.td('<span class="soft">not measured</span>', "number")
    value, interval = numbers.shown(record)
    text = html.escape(value)
    if run == found.best:
        text += '<span class="mark">best</span>'
    if interval:
        text += f"<small>{html.escape(interval)}</small>"
    if run in found.differences:
        text += f"<small>{_points(found.differences[run], row.falls)}</small>"
    return html.td(text, "number best" if run == found.best else "number")


def _points(paired: "Paired", falls: bool) -> str:
    """A difference in percentage points, of an error or of what is right."""
    values = [paired.difference, paired.low, paired.high]
    if not falls:
        values = [-paired.difference, -paired.high, -paired.low]
    digits = 1 if paired.high - paired.low >= 0.004 else 2
    value, low, high = (f"{100 * v:+.{digits}f}".replace("-", "−") for v in values)
    return f"paired {value}<br>{low} to {high}"


def _about(runs: Sequence[RunView], verdicts: Sequence[Verdict]) -> str:
    """The rules behind intervals and marks, in words."""
    lines = [
        "Small: the 95 % interval over the images, for the one network that each run "
        "trained; it says nothing of other seeds. That of a mean over sets is the mean "
        "of theirs: as wide as it must be, or wider, however the sets depend on each "
        "other."
    ]
    apart = "where a run’s interval lies beyond all others’"
    alone = (
        "Each comparison stands at 95 % by itself; without a mark runs may be equal."
    )
    if any(found.differences for found in verdicts):
        lines += [
            "Paired: what a run differs by from the first of its row on the same "
            "images, answer by answer, in percentage points.",
            "Best: where such a difference to every other run excludes nought, by the "
            "bootstrap and by McNemar’s test (AUROC: by DeLong’s variance of a "
            f"difference); in rows without them, {apart}. {alone}",
        ]
    elif len(runs) > 1:
        lines += [
            f"Best: {apart}, measured alike. {alone} Answers to single images, which "
            "tell closer runs apart, were not kept (--save_predictions keeps them)."
        ]
    return html.items(lines)
