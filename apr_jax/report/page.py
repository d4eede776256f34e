"""The page that a run ends with: ``report.html``, one file to read and to send.

It draws plain data only (records, curve, reliability, examples) and leaves out what
isn't there. Nothing in it is loaded from outside, and every text is escaped.
"""

import dataclasses
import datetime
import json
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import rich.console

from apr_jax.gates import stores
from apr_jax.metrics.calibration import Reliability
from apr_jax.report import answer, figures, html, numbers, ranked, sections, tables
from apr_jax.report.examples import sheet
from apr_jax.report.run_view import RunView, current, view
from apr_jax.runs import files
from apr_jax.runs import records as records_lib
from apr_jax.runs.records import Record

__all__ = ["RunView", "terminal_summary", "write_report"]

# Values of a configuration that a reader looks for first, if it has them.
_HEADLINES = {
    "data.name": "Data",
    "model.name": "Network",
    "augment.method": "Augmentation",
    "optim.epochs": "Epochs",
    "optim.learning_rate": "Learning rate",
    "optim.schedule": "Schedule",
    "train.batch_size": "Batch size",
    "model.dtype": "Arithmetic",
    "seed": "Seed",
}
# More classes than this make a confusion matrix unreadable.
_MAX_CONFUSION = 12


def write_report(path: files.Path, runs: Sequence[RunView]) -> stores.Place:
    """Writes the page and returns its path; the old page stays until the new is whole.

    Args:
        path: of the file.
        runs: in the order of their columns; names must differ.

    Raises:
        ValueError: for no runs, or two of one name.
        OSError: where the file can't be written.
    """
    # A new measurement replaces the one before, everywhere.
    runs = [_newest(run) for run in runs]
    names = [run.name for run in runs]
    if not runs or len(set(names)) < len(names):
        raise ValueError(f"a page needs runs of different names, not {names}")
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    title = ", ".join(names[:3]) + more
    rows = answer.clean(runs)
    for section in sections.SECTIONS.values():
        rows += section.answers(runs)
    body = "".join(
        (
            _numbers(runs),
            _not_finite(runs),
            *(section.html(runs) for section in sections.SECTIONS.values()),
            ranked.html(runs),
            _curves(runs),
            _calibration(runs),
            _confusions(runs),
            _examples(runs),
            _setup(runs),
        )
    )
    first = answer.section(runs, rows) + html.contents(body)
    body = _header(title, runs) + first + body + _footer()
    files.write_text(path, html.document(title, body))
    return files.at(path)


def terminal_summary(
    runs: Sequence[RunView],
    *,
    report: files.Path | None = None,
    console: rich.console.Console | None = None,
) -> None:
    """Prints the numbers of the runs side by side, and where the page is."""
    console = console or rich.console.Console()
    columns = {run.name: _plain(run) for run in runs if run.records}
    if any(columns.values()):
        console.print(numbers.table(columns))
    for section in sections.SECTIONS.values():
        if (table := section.table(runs)) is not None:
            console.print(table)
    for line in _silent(runs):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if report is not None:
        where = files.at(report).resolve()
        console.print(
            "Page:", str(where), markup=False, highlight=False, soft_wrap=True
        )


# --- Sections ------------------------------------------------------------------------


def _header(title: str, runs: Sequence[RunView]) -> str:
    records = [record for run in runs for record in _plain(run)]
    parts = []
    if data := sorted({f"{r.data} {r.split}" for r in records}):
        parts.append("Measured on " + ", ".join(data))
    if records:
        parts.append(max(r.time for r in records)[:10])
    line = html.note(html.escape(" · ".join(parts)))
    return f"<header><h1>{html.breakable(title)}</h1>{line}</header>"


def _numbers(runs: Sequence[RunView]) -> str:
    groups = numbers.side_by_side({run.name: _plain(run) for run in runs})
    if not groups:
        return ""
    headline = []
    for (data, split), rows in groups:
        records = dict(rows).get("accuracy", [])
        members = [
            (i, run.name, record)
            for i, (run, record) in enumerate(zip(runs, records, strict=False))
            if record is not None
        ]
        if members:
            size = numbers.size([("", records)])
            headline.append((f"Accuracy, {data} {split}, {size}", members))
    note = html.note(
        "Small: 95 % intervals over the examples of the split, for "
        "the one network that each run trained. Bold: the best, where its interval "
        "does not touch another."
    )
    plot = html.card(figures.forest(headline)) if headline else ""
    names = [run.name for run in runs]
    caption = "All numbers of images as they are"
    table = html.card(tables.numbers(names, groups, caption=caption))
    return html.section(answer.CLEAN, plot, table, note)


def _not_finite(runs: Sequence[RunView]) -> str:
    return html.section("Logits that are not finite", html.items(_silent(runs)))


def _silent(runs: Sequence[RunView]) -> list[str]:
    """A line for each measurement, some of whose logits were NaN or infinite."""
    found: dict[tuple[str, str, str], int] = {}
    for run in runs:
        for r in run.records:
            if count := r.extra.get("not_finite", 0):
                place = run.name, r.data, r.split
                found[place] = max(count, found.get(place, 0))
        for row in run.watched:
            if count := row.get("not_finite", 0):
                place = run.name, "watch", row["watch"]
                found[place] = max(count, found.get(place, 0))
    return [
        f"{run}, {data} {split}: {count:,} logits are NaN or infinite; an example "
        "without an answer counts as wrong"
        for (run, data, split), count in found.items()
    ]


def _curves(runs: Sequence[RunView]) -> str:
    # Every run keeps its place, and so its colour, whether it has a curve or not.
    rows = {run.name: run.curve for run in runs}
    if not any(rows.values()):
        return ""
    names = ("loss", "accuracy", "learning_rate", "images_per_second")
    drawn = [figures.curves(rows, quantity) for quantity in names]
    legend = html.legend(dict(enumerate(rows)))
    return html.section("Training", legend, html.grid("wide", drawn), _dashed(runs))


def _dashed(runs: Sequence[RunView]) -> str:
    """Says of which images the dashed lines of the curves are."""
    images = {
        (row["split"], row["examples"])
        for run in runs
        for row in run.watched
        if row["watch"] == "accuracy"
    }
    if not images:
        return ""
    listed = " and ".join(f"{n:,} images of {split}" for split, n in sorted(images))
    words = f"Dashed: after each epoch, on {listed}. Nothing is chosen by them."
    return html.note(html.escape(words))


def _calibration(runs: Sequence[RunView]) -> str:
    drawn = [
        figures.reliability(Reliability.from_json(lists), run=i, title=title)
        for i, title, lists in _extras(runs, "reliability")
    ]
    note = (
        "Share that is correct in each bin of confidence; a calibrated "
        "network follows the dashed line. Pale: right more often than it is confident. "
        "Red: more confident than right. Below: the share of examples in each bin."
    )
    return html.section("Calibration", html.noted(note, html.grid("small", drawn)))


def _confusions(runs: Sequence[RunView]) -> str:
    drawn = []
    for i, title, counts in _extras(runs, "confusion"):
        classes = len(counts)
        if classes <= _MAX_CONFUSION:
            names = runs[i].class_names or [str(c) for c in range(classes)]
            drawn.append(figures.confusion(np.array(counts), names, run=i, title=title))
    note = (
        "Percent of each class. Mistakes are few, and tinted on a scale of their own."
    )
    body = html.noted(note, html.grid("wide", drawn))
    return html.section("Confusion between classes", body)


def _examples(runs: Sequence[RunView]) -> str:
    parts = []
    for i, run in enumerate(runs):
        if run.examples is not None:
            name = f"<h3>{html.dot(i)}{html.escape(run.name)}</h3>"
            parts.append(name + html.card(sheet(run.examples)))
    mixed = any(run.examples and run.examples.mixed is not None for run in runs)
    note = (
        "Beside each picture its log-amplitude (above) and its phase (below), low "
        "frequencies in the middle, of the mean over channels."
    )
    if mixed:
        note += (
            ' The result joins the donor’s <span class="key amplitude">amplitude</span>'
            ' with the image’s own <span class="key phase">phase</span>, '
            "and keeps the image’s label."
        )
    return html.section("What the network sees", html.noted(note, "".join(parts)))


def _setup(runs: Sequence[RunView]) -> str:
    flat = [run.settings for run in runs]
    rows = [
        (name, [str(values.get(key, "–")) for values in flat])
        for key, name in _HEADLINES.items()
        if any(key in values for values in flat)
    ]
    for fact in dict.fromkeys(fact for run in runs for fact in run.facts):
        rows.append((fact, [run.facts.get(fact, "–") for run in runs]))
    places: dict[str, Callable[[Record], str]] = {
        "Weights from": lambda r: r.extra.get("weights_file", ""),
        "Weights of step": lambda r: f"{r.step}" if r.step else "",
        "Measured with": lambda r: r.device,
        "On": lambda r: r.machine,
        "Code": lambda r: r.code_version,
        "Configuration": lambda r: r.config_hash,
    }
    for name, place in places.items():
        cells = [
            ", ".join(dict.fromkeys(filter(None, map(place, run.records)))) or "–"
            for run in runs
        ]
        if any(cell != "–" for cell in cells):
            rows.append((name, cells))
    names = [run.name for run in runs]
    boxes = html.card(tables.comparison(names, rows)) if rows else ""
    commands = dict.fromkeys(command for run in runs for command in run.commands)
    if commands:
        text = html.escape("\n".join(commands))
        boxes += f"<h3>To run it again</h3>{_pre(text, 'Commands')}"
    for run in runs:
        if run.known:
            text = html.escape(json.dumps(run.known, indent=2, default=str))
            name = f"Configuration of {run.name}"
            boxes += html.details(name, _pre(text, name))
    return html.section("What was run", boxes)


def _pre(text: str, name: str) -> str:
    """Text as it is, in a box that scrolls."""
    return (
        f'<pre role="region" tabindex="0" aria-label="{html.escape(name)}">{text}</pre>'
    )


def _footer() -> str:
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    version = html.escape(records_lib.code_version())
    return f"<footer>Drawn on {today} by apr_jax {version} from its records.</footer>"


# --- Inner workings ------------------------------------------------------------------


def _newest(run: RunView) -> RunView:
    """A run with the records that are shown, and a fact of those that aren't."""
    shown = current(run.records)
    thing = operator.attrgetter("job", "data", "split", "metric")
    seen = {thing(record) for record in shown}
    others = {thing(record) for record in run.records} - seen
    facts = dict(run.facts)
    if others:
        jobs = ", ".join(sorted({job for job, *_ in others}))
        facts["Not shown"] = (
            f"{len(others):,} numbers of {jobs}: of other weights or settings than the "
            "newest"
        )
    return dataclasses.replace(run, records=shown, facts=facts)


def _plain(run: RunView) -> list[Record]:
    """The numbers of a run that no section of their own shows."""
    return [r for r in run.records if r.job not in sections.SECTIONS]


def _extras(runs: Sequence[RunView], what: str) -> list[tuple[int, str, Any]]:
    """(index of the run, title, content), the runs of one split side by side."""
    found: dict[tuple[str, str], dict[int, tuple[str, Any]]] = {}
    for i, run in enumerate(runs):
        for record in run.records:
            if what in record.extra:
                title = f"{run.name}, {record.split}, n = {record.n:,}"
                split = found.setdefault((record.data, record.split), {})
                split[i] = (title, record.extra[what])
    return [(i, *found[split][i]) for split in found for i in sorted(found[split])]


def write(
    target: stores.Place,
    roots: Sequence[stores.Place],
    *,
    facts: Mapping[str, str] | None = None,
) -> None:
    """Draws the report of some work directories and prints the table.

    Args:
        target: file to write.
        roots: work directories; the first is the one that the page is about. One that
            is named twice is shown once.
        facts: further lines about the first.
    """
    roots = list({root.resolve(): root for root in reversed(roots)}.values())[::-1]
    views = [view(root) for root in roots]
    views[0] = dataclasses.replace(views[0], facts=facts or {})
    names = [v.name for v in views]
    for i, name in enumerate(names):  # columns must be told apart
        if names.count(name) > 1:
            views[i] = dataclasses.replace(views[i], name=f"{name} ({roots[i]})")
    write_report(target, views)
    terminal_summary(views, report=target)
