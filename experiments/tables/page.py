"""The records that a table keeps, and its forms: printed, Markdown and HTML."""

import contextlib
import dataclasses
import json
import math
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

import rich.console
import rich.markup
import rich.measure
import rich.table

from apr_jax import config as config_lib
from apr_jax import parallel
from apr_jax.console import say
from apr_jax.errors import ConfigError
from apr_jax.report import html, published
from apr_jax.report.run_view import current
from apr_jax.runs import files as files_lib
from apr_jax.runs import records as records_lib
from apr_jax.runs import workdir
from apr_jax.runs.records import Record
from experiments.tables import catalogue, picture, plan
from experiments.tables import cells as cells_lib
from experiments.tables.rows import ROWS, row_of


def records(
    root: pathlib.Path, config: config_lib.Config | None = None
) -> list[Record]:
    """The newest records of a run, none if it has none.

    With a configuration only those that were measured as its ``eval`` says: the card
    may have added others since.
    """
    path = workdir.RunDir(root).results
    found = records_lib.read(path) if path.exists() else []
    if config is not None:
        found = [record for record in found if _as_asked(record, config.eval)]
    return current(found)


def _as_asked(record: Record, wanted: config_lib.Eval) -> bool:
    """Whether a record was measured as a configuration says, as far as it tells."""
    settings = record.extra.get("settings", {})
    asked: dict[str, Any] = {}
    if record.job == "evaluate.corruption":
        how = wanted.corruption
        asked = {"source": how.source, "examples": how.examples}
        chosen = how.corruptions
        averaged = record.extra.get("corruptions", chosen)
        if chosen and sorted(averaged) != sorted(chosen):
            return False
    elif record.job == "evaluate.ood":
        asked = {"examples": wanted.ood.examples}
    elif record.job == "evaluate.adversarial":
        own = wanted.adversarial
        asked = {"attack": own.attack, "examples": own.examples}
        radii = getattr(own, record.extra.get("norm", ""), ())
        near = (math.isclose(record.extra["eps"], r, rel_tol=1e-6) for r in radii)
        if radii and not any(near):
            return False
    return all(settings.get(field, value) == value for field, value in asked.items())


_KEPT = ("error", "accuracy", "msp.auroc", "csi.auroc", "robust_accuracy", "mce")
# The fields of a record that the table's own files have, beside those of ``Kept``.
_FIELDS = tuple(
    field.name
    for field in dataclasses.fields(Record)
    if field.name not in ("seed", "low", "high", "extra")
)


@dataclasses.dataclass(frozen=True)
class Kept:
    """A run's part of the table.

    Attributes:
        row, column, seed: of the run.
        cell: hash of its configuration without the seed.
        epochs: its length.
        records: those that the table needs.
    """

    row: str
    column: str
    seed: int
    cell: str
    epochs: float
    records: Sequence[Record]

    @property
    def label(self) -> str:
        """The heading of its row."""
        return row_of(self.row).label

    @property
    def time(self) -> str:
        """The time of its last measurement."""
        return max(record.time for record in self.records)


def keep(out: pathlib.Path, run: plan.Run, root: pathlib.Path) -> None:
    """Writes the records that the table needs beside it, one file for each run."""
    there = workdir.read_config(workdir.RunDir(root))
    config = there or config_lib.parse(run.settings.to_dict())
    about = {
        "row": run.row,
        "column": run.column,
        "seed": run.seed,
        "cell": config_lib.config_hash(dataclasses.replace(config, seed=0)),
        "epochs": config.optim.epochs,
    }
    lines = [
        json.dumps(about | {field: getattr(record, field) for field in _FIELDS}) + "\n"
        for record in records(root, config_lib.parse(run.settings.to_dict()))
        if record.metric in _KEPT
    ]
    if lines and parallel.is_primary():
        files_lib.write_text(out / f"{run.name}.jsonl", "".join(lines))


def read_kept(path: pathlib.Path) -> Kept:
    """What ``keep`` wrote of a run."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    about = {f.name: lines[0].get(f.name) for f in dataclasses.fields(Kept)}
    own = [
        Record(**{f: line[f] for f in _FIELDS if f in line}, seed=line["seed"])
        for line in lines
    ]
    return Kept(**about | {"records": own})


def kept(out: pathlib.Path) -> dict[str, Kept]:
    """Name of a run -> what ``keep`` wrote of it.

    Seeds of one cell are of one configuration: where there are several, those of the
    one that was measured last. Rows that other versions of the code had are left out.
    """
    found: dict[str, Kept] = {}
    newest: dict[tuple[str, str], Kept] = {}
    for path in sorted(out.glob("*.jsonl")):
        run = read_kept(path)
        with contextlib.suppress(ValueError):  # of a row that there is no more
            row_of(run.row)
            found[path.stem] = run
            place = run.row, run.column
            newest[place] = max(newest.get(place, run), run, key=lambda each: each.time)
    return {
        name: run
        for name, run in found.items()
        if run.cell == newest[run.row, run.column].cell
    }


def read(
    out: pathlib.Path, table: catalogue.Table
) -> dict[tuple[str, str], list[float]]:
    """(row, column) -> percent of each seed."""
    found: dict[tuple[str, str], list[float]] = {}
    runs = kept(out).values()
    named = table is catalogue.TABLES["1"] or len({run.column for run in runs}) > 1
    for run in runs:
        rows = {run.row: table.cells(run.records)}
        for row, cells in table.more(run.records).items():
            if ROWS[row].run in rows:
                rows[row] = cells
        for row, cells in rows.items():
            for name, value in cells.items():
                column = f"{run.column} {name}".strip() if named else name
                found.setdefault((row, column), []).append(100 * value)
    return found


def shown(values: Sequence[float]) -> str:
    """Mean ± standard deviation over seeds; one seed has no deviation."""
    if not values:
        return "–"
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


def show(number: str, budget: str, out: pathlib.Path) -> None:
    """Prints the table, and writes it as Markdown and HTML."""
    table = catalogue.TABLES[number]
    ours = read(out, table)
    runs = kept(out)
    left_out = {path.stem for path in out.glob("*.jsonl")} - set(runs)
    if left_out:
        say(
            "left out, as newer seeds are of another configuration, or no method has "
            f"that name: {', '.join(sorted(left_out))}"
        )
    if not ours:
        raise ConfigError(f"{out} has no records yet")
    theirs = table.published()
    sets = {column.split()[0] for column in table.columns}  # of published numbers
    if not any(run.column.split()[0] in sets for run in runs.values()):
        theirs = {}
    there = sorted({row for row, _ in ours})
    rows = sorted(there, key=lambda r: [*ROWS, r].index(r))  # others behind
    columns = list(dict.fromkeys(column for _, column in ours))
    shadows = list(dict.fromkeys(c for r in rows for c in theirs.get(r, {})))
    if number == "1":
        sets = {column.split()[0] for column in columns}
        shadows = [c for c in shadows if c.split()[0] in sets]
    heads = ["", *columns, *(f"{c}, published" for c in shadows)]
    radii = {cells_lib.radius(run.records) for run in runs.values()} - {0.0}
    if radii:
        mine = " or ".join(f"{255 * radius:.3g}/255" for radius in sorted(radii))
        heads = _at(heads, mine, f"{255 * published.FGSM_EPS:.3g}/255")
    percent = lambda row, column: ours.get((row, column), [])
    lines = []
    for row in rows:
        cells = [shown(percent(row, column)) for column in columns]
        known = theirs.get(row, {})
        cells += [f"{known[c]:.1f}" if c in known else "" for c in shadows]
        lines.append([row_of(row).label, *cells])
    counts = sorted({len(values) for values in ours.values()})
    note = (
        f"Percent, {table.better} is better. Ours: budget {budget}, {about(out)}, "
        f"{' or '.join(map(str, counts))} seed{'s' if counts != [1] else ''}"
        + (", mean ± standard deviation" if counts[-1] > 1 else "")
        + (f". Published: {table.source}; not measured here." if shadows else ".")
    )
    if any(not math.isclose(r, published.FGSM_EPS, rel_tol=1e-3) for r in radii):
        note += " Attacked within other radii, the two don't compare."
    means = [(run.label, _mean_of(run)) for run in runs.values() if number == "1"]
    fewer = [f"{label} ({mean})" for label, mean in means if mean != "mean"]
    if fewer:
        note = f"{note} Of fewer than all corruptions: {', '.join(fewer)}."
    if any(row_of(row).run for row in rows):
        note = f"{note} {table.note}"
    show_in_terminal(table.title, note, heads, lines, own=1 + len(columns))
    write(out, table.title, note, heads, lines)
    main, other = table.shown(columns)
    picture.draw(
        out / "table.png",
        {row_of(r).label: (percent(r, main), percent(r, other)) for r in rows},
        title=f"{table.title}\n{about(out)}",
        main=table.title.partition(": ")[2],
        other=other.removeprefix(f"{main} "),
        higher_is_better=table.better == "↑",
    )


def _at(heads: Sequence[str], mine: str, theirs: str) -> list[str]:
    """Column heads with the radius of what is robust: measured here, and published."""
    found = []
    for head in heads:
        name, comma, source = head.partition(", published")
        if name.endswith("robust"):
            name += f" at {theirs if comma else mine}"
        found.append(name + comma + source)
    return found


def _mean_of(run: Kept) -> str:
    """The corruptions that a mean error is over: "mean" for all, or "mean of 14"."""
    mean = cells_lib.mean_corruption(run.records)
    return "no mean" if mean is None else mean.split


def show_in_terminal(
    title: str,
    note: str,
    heads: Sequence[str],
    lines: Sequence[Sequence[str]],
    *,
    own: int,
) -> None:
    """Prints a table, with as many columns past the first ``own`` as the line holds."""
    console = rich.console.Console()
    for count in range(len(heads), own - 1, -1):
        left_out = len(heads) - count
        more = f" {left_out} more columns are in table.md." if left_out else ""
        printed = rich.table.Table(title=title, caption=note + more)
        for head in heads[:count]:
            # Broken where it has spaces, and never within a word.
            text = rich.markup.escape(head).replace(" ", "\n")
            printed.add_column(text, no_wrap=True)
        for line in lines:
            printed.add_row(*map(rich.markup.escape, line[:count]))
        unbounded = console.options.update(width=10_000)
        wanted = rich.measure.Measurement.get(console, unbounded, printed)
        if wanted.maximum <= console.width:
            break
    console.print(printed)


def about(out: pathlib.Path) -> str:
    """The length of the runs that a table is of, and what they ran on, in words."""
    runs = kept(out).values()
    epochs = " or ".join(f"{each:g}" for each in sorted({run.epochs for run in runs}))
    columns = ", ".join(sorted({run.column for run in runs}))
    devices = ", ".join(sorted({run.records[0].device for run in runs}))
    return f"{columns}, {epochs} epochs, {devices}"


def write(
    out: pathlib.Path,
    title: str,
    note: str,
    heads: Sequence[str],
    lines: Sequence[Sequence[str]],
) -> None:
    """Writes ``table.md`` and ``table.html``."""
    join = lambda cells: "| " + " | ".join(cells) + " |"
    text = [f"# {title}", "", join(heads), join(["---"] * len(heads))]
    text += [join(line) for line in lines] + ["", note, ""]
    files_lib.write_text(out / "table.md", "\n".join(text))
    rows = [
        [
            html.row_head(html.escape(first)),
            *(html.td(html.escape(cell), "number") for cell in rest),
        ]
        for first, *rest in lines
    ]
    columns = [html.th(html.escape(head)) for head in heads[1:]]
    table = html.tabulate(
        columns, [("", rows)], caption=title, corner=heads[0] or "Row"
    )
    body = f"<h1>{html.escape(title)}</h1>{html.note(html.escape(note))}"
    page = html.document(title, body + html.card(table))
    files_lib.write_text(out / "table.html", page)
    for name in ("table.md", "table.html"):
        say(f"wrote {out / name}")
