"""The ranking of networks under corruption, drawn: on a page and in a terminal."""

from collections.abc import Iterable, Sequence

import rich.table
from rich.markup import escape

from apr_jax.report import html as html_lib
from apr_jax.report import robustbench
from apr_jax.report.ranking import Entrant, Place, Ranking, rank
from apr_jax.report.run_view import RunView

TITLE = "Ranked under corruption"
_HEADS = ("Network", "Architecture", "Accuracy ↑", "Under corruption ↑", "Whose")


def entrants(runs: Iterable[RunView]) -> list[Entrant]:
    """The networks of a page's runs."""
    found = []
    for run in runs:
        values = {key: str(value) for key, value in run.settings.items()}
        name, split = values.get("model.name", ""), values.get("data.test_split", "")
        found.append(Entrant(run.name, name, split, run.records))
    return found


def html(runs: Sequence[RunView]) -> str:
    """The rankings of a page's runs; empty where nobody is to be ranked."""
    rankings, left_out = rank(entrants(runs))
    parts = []
    for found in rankings:
        if len(found.places) > 1:
            parts.append(html_lib.card(_drawn(found, [run.name for run in runs])))
        if worth_saying(found):
            parts.append(html_lib.note(html_lib.escape(_note(found))))
    if not parts:
        return ""
    return html_lib.section(TITLE, *parts, html_lib.items(left_out))


def tables(
    rankings: Iterable[Ranking],
) -> list[tuple[rich.table.Table, str]]:
    """A table of each ranking of several for the terminal, and what to say of it."""
    found = []
    for ranking in rankings:
        if len(ranking.places) < 2:
            continue
        table = rich.table.Table(title=_caption(ranking), title_justify="left")
        for head, justify in zip(("", *_HEADS), "rllrrl", strict=True):
            side = "right" if justify == "r" else "left"
            table.add_column(head, justify=side, overflow="fold")  # type: ignore[arg-type]
        for place in ranking.places:
            cells = [escape(cell) for cell in _cells(place)]
            if not place.source:
                cells = [f"[bold]{cell}[/bold]" for cell in cells]
            table.add_row(str(place.place), *cells)
        found.append((table, _note(ranking)))
    return found


def worth_saying(ranking: Ranking) -> bool:
    """Whether somebody may look for the published numbers, or they are there."""
    data = ranking.data.partition("-c")[0]
    return len(ranking.places) > 1 or bool(robustbench.entries(f"{data}-c"))


def _drawn(ranking: Ranking, names: Sequence[str]) -> str:
    rows = []
    for place in ranking.places:
        first, *others = _cells(place)
        ours = not place.source
        name = html_lib.escape(first)
        if ours:
            name = html_lib.run_name(names.index(place.name), place.name)
        kinds = ("", "number", "number", "soft")
        rows.append(
            [
                html_lib.row_head(str(place.place)),
                html_lib.td(name, "" if ours else "soft"),
                *(
                    html_lib.td(html_lib.escape(cell), _kind(kind, ours))
                    for cell, kind in zip(others, kinds, strict=True)
                ),
            ]
        )
    heads = [html_lib.th(head) for head in _HEADS]
    caption = _caption(ranking)
    return html_lib.tabulate(heads, [("", rows)], caption=caption, corner="Place")


def _kind(kind: str, ours: bool) -> str:
    return kind if ours or kind == "soft" else f"{kind} soft".strip()


def _caption(ranking: Ranking) -> str:
    return f"Accuracy under corruption, {ranking.data}, n = {ranking.images:,}"


def _note(ranking: Ranking) -> str:
    if ranking.why_alone:
        return f"{ranking.why_alone[0].upper()}{ranking.why_alone[1:]}."
    return (
        "The mean over fifteen corruptions in five severities, of the same files. "
        f"Others' numbers are {ranking.beside}'s, “extra data” as it is said there; of "
        "those measured here it isn't asked."
    )


def _cells(place: Place) -> list[str]:
    """Name, architecture, both accuracies, and whose the number is."""
    clean = "–" if place.clean is None else f"{place.clean:.2f} %"
    whose = place.source or "measured here"
    extra = ", extra data" if place.extra_data else ""
    name, kind = place.name, place.architecture
    return [name, kind, clean, f"{place.corrupted:.2f} %", whose + extra]
