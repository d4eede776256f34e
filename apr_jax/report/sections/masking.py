"""The part of the page on gradient masking: each sign, what it is, what it would be."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import rich.table
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable

from apr_jax.report import answer, figures, numbers
from apr_jax.report import html as html_lib
from apr_jax.report.run_view import RunView
from apr_jax.report.sections import adversarial
from apr_jax.runs.records import Record

JOB = "evaluate.masking"
TITLE = "Gradient masking"
_NAMES = {
    "black_box": "Without gradients and with them",
    "steps": "More steps",
    "unbounded": "Pixels free",
    "single_step": "One step and many",
    "random_search": "Random points of the ball",
    "gradients": "Gradients of the log-loss",
    "loss_surface": "Loss surface",
}
_SURFACE = "loss_surface"
_VERDICTS = {True: "suspicious", False: "as it should be"}


def html(runs: Sequence[RunView]) -> str:
    """A row for each sign, what would be suspicious beside what was measured."""
    groups = _groups(runs)
    if not groups:
        return ""
    heads = [html_lib.th("Suspicious if")]
    heads += html_lib.run_heads([run.name for run in runs])
    lines = []
    for title, rows in groups:
        cells = [
            [
                html_lib.row_head(html_lib.escape(_NAMES[metric])),
                html_lib.td(html_lib.escape(_suspicious_if(found))),
                *(_cell(record) for record in found),
            ]
            for metric, found in rows
        ]
        lines.append((html_lib.escape(title), cells))
    caption = "Signs of gradient masking"
    table = html_lib.tabulate(heads, lines, caption=caption, corner="Sign")
    drawn = _surfaces(runs, groups)
    return html_lib.section(TITLE, html_lib.note(_NOTE), html_lib.card(table), drawn)


_NOTE = (
    "Whether gradients lead attacks astray, so that a network looks more robust than "
    "it is (Athalye et al. 2018, Carlini et al. 2019). Accuracies are of all images, "
    "and each attack begins anew. Attacks differ where McNemar’s test says so at the "
    "5 % level. No sign is no proof: attacks made for a network may still break it."
)


def _surfaces(
    runs: Sequence[RunView],
    groups: Sequence[tuple[str, Sequence[tuple[str, Sequence[Record | None]]]]],
) -> str:
    """The loss around a few images of each run, ball by ball."""
    parts = []
    for title, rows in groups:
        found = dict(rows).get(_SURFACE, ())
        drawn = [
            _surface(run.name, record.extra["surface"]["offsets"], image)
            for run, record in zip(runs, found, strict=False)
            if record is not None
            for image in record.extra["surface"]["images"]
        ]
        about = f"The loss around images, {title.rpartition(', n =')[0]}"
        parts.append(html_lib.part(about, html_lib.grid("small", drawn)))
    if not any(parts):
        return ""
    return "".join(parts) + html_lib.note(_SURFACES)


_SURFACES = (
    "Log-loss in nats; the middle is the image, the edge the radius. From left to "
    "right along the gradient (its signs, for L∞), upwards along a random direction of "
    "the same length: there should be a slope to the right. In the table, of the first "
    "images answered right: how many of them lose as much by the random step; how far "
    "the loss departs from its tangent, as a share of its largest change; how much "
    "farther than once through its range it goes up and down."
)


def _surface(name: str, offsets: Sequence[float], image: Mapping[str, Any]) -> str:
    title = f"{name}, image {image['example']}"
    ends = (offsets[0], offsets[-1]) * 2

    def draw(axes: Axes) -> ScalarMappable:
        axes.set(xlabel="Along the gradient, radii", ylabel="At random, radii")
        losses = np.array(image["losses"]).T
        return axes.imshow(
            losses, cmap="magma", extent=ends, origin="lower", interpolation="nearest"
        )

    return figures.field(draw, f"Loss around {title}", title=title, as_percent=False)


def table(runs: Sequence[RunView]) -> rich.table.Table | None:
    """The same for the terminal; None where nothing was measured."""
    groups = [
        (
            numbers.bold(title),
            [[_NAMES[metric], *map(_words, found)] for metric, found in rows],
        )
        for title, rows in _groups(runs)
    ]
    if not groups:
        return None
    return numbers.terminal(TITLE, [run.name for run in runs], groups)


def answers(runs: Sequence[RunView]) -> list[answer.Row]:
    """None: signs say whether to trust an answer, which stands under its own title."""
    del runs
    return []


def _groups(
    runs: Sequence[RunView],
) -> list[tuple[str, list[tuple[str, list[Record | None]]]]]:
    """(heading, a row for each sign) of each ball."""
    mine = [run.of(JOB) for run in runs]
    by_place: dict[tuple[str, str], list[dict[str, Record]]] = {}
    for i, records in enumerate(mine):
        for record in records:
            place = record.data, record.split
            cells = by_place.setdefault(place, [{} for _ in runs])
            cells[i][record.metric] = record
    groups = []
    for (data, _), cells in by_place.items():
        rows = [
            (name, [own.get(name) for own in cells])
            for name in _NAMES
            if any(name in own for own in cells)
        ]
        first = next(r for r in itertools.chain(*(found for _, found in rows)) if r)
        # The surface is of a few of them.
        size = numbers.size([row for row in rows if row[0] != _SURFACE])
        title = f"{data}, {adversarial.bounds(first)}, {size}"
        groups.append((title, rows))
    return groups


def _suspicious_if(found: Sequence[Record | None]) -> str:
    return next(r.extra["suspicious_if"] for r in found if r is not None)


def _measured(record: Record) -> str:
    parts = record.extra["measured"].items()
    return ", ".join(f"{name} {100 * share:.1f} %" for name, share in parts)


def _words(record: Record | None) -> str:
    """What was measured, and the verdict."""
    if record is None:
        return "–"
    return f"{_measured(record)}: {_VERDICTS[record.extra['suspicious']]}"


def _cell(record: Record | None) -> str:
    if record is None:
        return html_lib.td("–", "number soft")
    verdict = _VERDICTS[record.extra["suspicious"]]
    text = html_lib.escape(_measured(record))
    if record.extra["suspicious"]:
        verdict = f"<strong>{verdict}</strong>"
    return html_lib.td(f"{text}<small>{verdict}</small>", "number")
