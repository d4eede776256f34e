"""Numbers as a reader sees them: names, digits, intervals, runs side by side."""

from collections.abc import Iterable, Mapping, Sequence

import rich.table
from rich.markup import escape

from apr_jax.runs.records import Record

# How metrics are named and ordered for a reader, and which way is better.
METRICS: dict[str, tuple[str, str]] = {
    "accuracy": ("Accuracy", "↑"),
    "error": ("Error", "↓"),
    "top5": ("Top-5 accuracy", "↑"),
    "nll": ("Log-loss (NLL)", "↓"),
    "ece": ("Calibration error (ECE)", "↓"),
    "rms_calibration_error": ("RMS calibration error", "↓"),
    "brier": ("Brier score", "↓"),
    "aurc": ("Risk, mean over coverage (AURC)", "↓"),
    "nll_scaled": ("Log-loss, temperature fitted", "↓"),
    "ece_scaled": ("ECE, temperature fitted", "↓"),
    "rms_calibration_error_scaled": ("RMS calibration, temperature fitted", "↓"),
    "clean_accuracy": ("Accuracy, clean images of these classes", "↑"),
    "gap": ("Accuracy lost, clean to these", "↓"),
    "effective_robustness": ("Effective robustness", "↑"),
    "follows_shape": ("Answers that follow the shape", "↑"),
    "shape_bias": ("Shape bias", "↑"),
    "flip_probability": ("Answers that flip between frames", "↓"),
    "top5_distance": ("Top-5 distance between frames", "↓"),
    "brier_scaled": ("Brier score, temperature fitted", "↓"),
}
# ((data, split), [(metric, one record or None for each run)])
Group = tuple[tuple[str, str], list[tuple[str, list[Record | None]]]]


def shown(record: Record) -> tuple[str, str]:
    """Value and interval as text, such as ("94.3 %", "93.8 to 94.7").

    Fractions become percent. Digits follow the width of the interval; without one,
    the interval is the empty string.
    """
    scale, suffix = (100.0, " %") if record.unit == "fraction" else (1.0, "")
    if record.unit not in ("fraction", "nats", "1"):
        suffix = f" {record.unit}"
    if record.low is None or record.high is None:
        digits = 2 if record.unit == "fraction" else 3
        if suffix not in ("", " %"):
            return f"{record.value:,.4g}{suffix}", ""
        return f"{scale * record.value:.{digits}f}{suffix}", ""
    half_width = scale * (record.high - record.low) / 2
    if record.unit == "fraction":
        digits = 1 if half_width >= 0.2 else 2
    else:
        digits = 2 if half_width >= 0.05 else 3
    low, high = (f"{scale * x:.{digits}f}" for x in (record.low, record.high))
    return f"{scale * record.value:.{digits}f}{suffix}", f"{low} to {high}"


def label(metric: str) -> str:
    """A metric's name for a reader, with an arrow to the better side if known."""
    if metric in METRICS:
        # A space that does not break: an arrow alone on a line says nothing.
        return "\u00a0".join(METRICS[metric])
    return metric.replace("_", " ")


def side_by_side(runs: Mapping[str, Sequence[Record]]) -> list[Group]:
    """The latest records of several runs, arranged for a table.

    Returns:
        For each (data, split), in order of appearance: its metrics, known ones first
        and in the order of ``METRICS``, each with one record or None per run.
    """
    cells: dict[tuple[str, str], dict[str, dict[str, Record]]] = {}
    for name, records in runs.items():
        for record in records:
            metrics = cells.setdefault((record.data, record.split), {})
            metrics.setdefault(record.metric, {})[name] = record
    order = list(METRICS)
    rank = lambda metric: order.index(metric) if metric in METRICS else len(order)
    return [
        (
            group,
            [
                (m, [metrics[m].get(name) for name in runs])
                for m in sorted(metrics, key=rank)
            ],
        )
        for group, metrics in cells.items()
    ]


def size(rows: Sequence[tuple[str, Sequence[Record | None]]]) -> str:
    """The numbers of examples behind the rows of a group, such as "n = 1,200"."""
    sizes = sorted({r.n for _, records in rows for r in records if r})
    return "n = " + " or ".join(f"{n:,}" for n in sizes)


def value(record: Record | None) -> str:
    """A number without its interval; a dash where there is none."""
    return shown(record)[0] if record else "–"


def with_interval(record: Record | None) -> str:
    """A number for the terminal, its interval in brackets behind it."""
    interval = shown(record)[1].replace(" to ", "–") if record else ""
    return value(record) + (f" [dim]({interval})[/dim]" if interval else "")


def bold(text: str) -> str:
    """Any text as bold markup of the terminal."""
    return f"[bold]{escape(text)}[/bold]"


def terminal(
    title: str | None,
    columns: Iterable[str],
    groups: Iterable[tuple[str, Iterable[Sequence[str]]]],
) -> rich.table.Table:
    """A table for the terminal.

    Args:
        title: above it.
        columns: heads after the first column, which has none.
        groups: (heading in rich's markup, or the empty string; rows of cells).
    """
    result = rich.table.Table(title=title, title_justify="left")
    result.add_column("")
    for column in columns:
        result.add_column(escape(column), justify="right")
    for heading, rows in groups:
        result.add_section()
        if heading:
            result.add_row(heading)
        for row in rows:
            result.add_row(*row)
    return result


def table(
    runs: Mapping[str, Sequence[Record]], *, title: str | None = None
) -> rich.table.Table:
    """A table for the terminal: metrics down, runs across, latest records only.

    Args:
        runs: name of a run -> its records.
        title: above it.
    """
    groups = [
        (
            f"{bold(f'{data} {split}')}, {size(rows)}",
            [[label(metric), *map(with_interval, records)] for metric, records in rows],
        )
        for (data, split), rows in side_by_side(runs)
    ]
    return terminal(title, runs, groups)
