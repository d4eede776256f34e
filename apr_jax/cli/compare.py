"""Compares finished runs by their records: no checkpoint, no data, no device.

    apr-jax compare runs/standard runs/apr_sp
    apr-jax compare runs/*_seed? --csv numbers.csv --json numbers.json

prints a row for each question. Runs that differ in their seeds alone are one column,
their mean ± sample standard deviation. Where the first column and another have kept
their answers (``--save_predictions``), their difference on the same images follows,
with its 95 % interval and McNemar's p. Networks that were measured on all fifteen
corruptions are ranked, beside RobustBench's where the images are its own. Reading
changes nothing in a run.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import rich.console
import rich.table
from absl import app, flags
from rich.markup import escape

from apr_jax import process, settings
from apr_jax.cli import program
from apr_jax.errors import ConfigError
from apr_jax.gates import places, stores
from apr_jax.report import compare, export, numbers, ranked, ranking, run_view
from apr_jax.runs import files

# Characters of a terminal's line that the questions take, and a column of numbers.
_FIRST, _EACH = 34, 21


def main() -> None:
    """Runs the command."""
    targets = {
        "csv": flags.DEFINE_string("csv", None, "File for all records, a line each."),
        "json": flags.DEFINE_string(
            "json", None, "File for records, table and differences as one document."
        ),
        "page": flags.DEFINE_string("page", None, "File for a page of the runs."),
    }
    settings.list_in_help(*targets)

    def work(argv: Sequence[str]) -> None:
        if len(argv) < 2:
            raise app.UsageError("give one run directory or several")
        process.finish(
            lambda: run(
                [places.run(root, "the run") for root in argv[1:]],
                **{
                    name: places.anywhere(flag.value, f"--{name}")
                    for name, flag in targets.items()
                    if flag.value
                },
            )
        )

    program.run(work)


def run(
    roots: Sequence[stores.Place],
    *,
    csv: stores.Place | None = None,
    json: stores.Place | None = None,
    page: stores.Place | None = None,
) -> None:
    """Prints the comparison of runs and writes it to files.

    Args:
        roots: their directories; one that is named twice is read once.
        csv, json, page: files to write.

    Raises:
        ConfigError: a directory holds no records, or a file can't be written.
        DataError: files of a run can't be read.
    """
    for name, target in (("--csv", csv), ("--json", json), ("--page", page)):
        if target is not None:
            files.check_target(target, name)
    runs = compare.open_runs(roots)
    columns = compare.columns(runs)
    table = compare.rows(columns)
    if not table and not (csv or json or page):
        raise ConfigError("these runs have no numbers that answer a question")
    found, refused = compare.differences(columns, table)
    console = rich.console.Console()
    for part in _parts(columns, console.width):
        console.print(_table(columns, table, part))
    if found:
        console.print(_differences(columns[0].name, found))
    rankings, left_out = ranking.rank(export.entrants(runs))
    for drawn, note in ranked.tables(rankings):
        console.print(drawn)
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    if len(runs) > 1:
        refused = [*refused, *left_out]
    for line in (*compare.otherwise(columns, table), *dict.fromkeys(refused)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if csv is not None:
        files.write_text(csv, export.as_csv(runs))
    if json is not None:
        files.write_text(json, export.as_json(runs, columns, table, found))
    if page is not None:
        from apr_jax.report import page as page_lib  # JAX, which takes a while to load

        views = [
            dataclasses.replace(run_view.view(run.directory.root), name=run.name)
            for run in runs
        ]
        page_lib.write_report(page, views)


def _parts(columns: Sequence[compare.Column], width: int) -> Iterable[range]:
    """As many columns at a time as fit into the width."""
    many = max(1, (width - _FIRST) // _EACH)
    for start in range(0, len(columns), many):
        yield range(start, min(start + many, len(columns)))


def _table(
    columns: Sequence[compare.Column], rows: Sequence[compare.Row], part: range
) -> rich.table.Table:
    result = rich.table.Table()
    result.add_column("")
    for place in part:
        seeds = len(columns[place].runs)
        many = f"\n{seeds} seeds" if seeds > 1 else ""
        name = escape(columns[place].name)
        result.add_column(f"{name}{many}", justify="right", overflow="fold")
    shown = None
    for row in rows:
        question = row.question
        if question != shown:
            result.add_section()
            result.add_row(f"{numbers.bold(question.asked)}, {question.number}")
        shown = question
        cells = [_cell(row.cells[place]) for place in part]
        result.add_row(escape(f"{row.data} {row.split}"), *cells)
    return result


def _cell(cell: compare.Cell | None) -> str:
    if cell is None or cell.spread is None:
        return numbers.with_interval(cell.records[0] if cell else None)
    mean, spread, sign = cell.value, cell.spread, ""
    if cell.records[0].unit == "fraction":
        mean, spread, sign = 100 * mean, 100 * spread, " %"
    return f"{mean:.2f} ± {spread:.2f}{sign}"


def _differences(first: str, found: Sequence[compare.Difference]) -> rich.table.Table:
    title = f"Error less that of {escape(first)}, same images, points of percent"
    result = rich.table.Table(title=title, title_justify="left")
    for head in ("", "", "difference", "95 %", "p"):
        result.add_column(head, justify="right" if head else "left", overflow="fold")
    for one in found:
        where = f"{one.row.question.asked}, {one.row.data} {one.row.split}"
        value, more = f"{100 * one.value:+.2f}", ("", "")
        if one.spread is not None:
            value += f" ± {100 * one.spread:.2f}"
            more = (f"n = {len(one.pairs)} seeds", "")
        else:
            (pair,) = one.pairs
            ends = f"{100 * pair.low:+.2f} to {100 * pair.high:+.2f}"
            more = (ends, f"{pair.p:.2g}")
            value = f"[bold]{value}[/bold]" if pair.differs else value
        result.add_row(escape(where), escape(one.column), value, *more)
    return result


if __name__ == "__main__":
    main()
