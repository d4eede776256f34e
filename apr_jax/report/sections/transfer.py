"""The part of the page on images that were made on another network."""

from collections.abc import Sequence

import rich.table

from apr_jax.report import answer, numbers, tables
from apr_jax.report import html as html_lib
from apr_jax.report.run_view import RunView
from apr_jax.report.sections import adversarial
from apr_jax.runs.records import Record

JOB = "evaluate.transfer"
TITLE = "Images made on another network"
_NAMES = {
    "clean_accuracy": "No attack",
    "transfer_fgsm": "FGSM on the other network",
    "transfer_pgd": "PGD on the other network",
    "transfer_accuracy": "Right under both ↑",
    "surrogate_accuracy": "The other network, no attack",
    "surrogate_fgsm": "The other network, FGSM",
    "surrogate_pgd": "The other network, PGD",
}


def html(runs: Sequence[RunView]) -> str:
    """Accuracies of both networks, by attack; empty where there are none."""
    groups = _groups(runs)
    if not groups:
        return ""
    lines = []
    for title, rows in groups:
        cells = [
            [html_lib.row_head(html_lib.escape(_NAMES[m])), *map(tables.number, found)]
            for m, found in rows
        ]
        lines.append((html_lib.escape(title), cells))
    heads = html_lib.run_heads([run.name for run in runs])
    table = html_lib.tabulate(
        heads, lines, caption="Accuracy on images made on another network", corner=""
    )
    return html_lib.section(TITLE, html_lib.note(_NOTE), html_lib.card(table))


_NOTE = (
    "Attacks follow the other network’s gradients through all their steps; nothing is "
    "asked of the network itself. Where such images break more than attacks on the "
    "network do, its own gradients are masked."
)


def table(runs: Sequence[RunView]) -> rich.table.Table | None:
    """The same for the terminal; None where nothing was measured."""
    groups = [
        (
            numbers.bold(title),
            [[_NAMES[m], *map(numbers.with_interval, found)] for m, found in rows],
        )
        for title, rows in _groups(runs)
    ]
    if not groups:
        return None
    return numbers.terminal(TITLE, [run.name for run in runs], groups)


def answers(runs: Sequence[RunView]) -> list[answer.Row]:
    """The accuracy under both attacks, of each ball."""
    return [
        answer.Row(
            question=TITLE,
            number="Accuracy ↑",
            place=title,
            section=TITLE,
            cells=dict(rows)["transfer_accuracy"],
        )
        for title, rows in _groups(runs)
    ]


def _groups(
    runs: Sequence[RunView],
) -> list[tuple[str, list[tuple[str, list[Record | None]]]]]:
    """(heading, a row for each number) of each ball and surrogate."""
    groups = []
    by_place = numbers.side_by_side({run.name: run.of(JOB) for run in runs})
    for (data, split), found in by_place:
        by_metric = dict(found)
        rows = [(name, by_metric[name]) for name in _NAMES if name in by_metric]
        there = [r for _, records in rows for r in records if r is not None]
        of = " or ".join(sorted({r.extra["settings"]["surrogate"] for r in there}))
        title = f"{data}, {adversarial.bounds(there[0])}, made on {of}"
        groups.append((title, split.rpartition("-")[2], rows))
    titles = [title for title, *_ in groups]
    return [
        (f"{_apart(title, digest, titles)}, {numbers.size(rows)}", rows)
        for title, digest, rows in groups
    ]


def _apart(title: str, digest: str, titles: Sequence[str]) -> str:
    """A title, with the digest of the weights where two networks are called alike."""
    return f"{title} ({digest})" if titles.count(title) > 1 else title
