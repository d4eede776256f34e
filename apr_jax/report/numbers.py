"""Numbers as a reader sees them: names, digits, intervals, runs side by side."""

from collections.abc import Mapping, Sequence

import rich.markup
import rich.table

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


def side_by_side(
    runs: Mapping[str, Sequence[Record]],
) -> list[Group]:
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


def table(
    runs: Mapping[str, Sequence[Record]], *, title: str | None = None
) -> rich.table.Table:
    """A table for the terminal: metrics down, runs across, latest records only.

    Args:
        runs: name of a run -> its records.
        title: above the table.
    """
    result = rich.table.Table(title=title, title_justify="left")
    result.add_column("")
    for name in runs:
        result.add_column(rich.markup.escape(name), justify="right")
    for (data, split), rows in side_by_side(runs):
        sizes = sorted({r.n for _, records in rows for r in records if r})
        count = " or ".join(f"{n:,}" for n in sizes)
        place = rich.markup.escape(f"{data} {split}")
        result.add_section()
        result.add_row(f"[bold]{place}[/bold], n = {count}")
        for metric, records in rows:
            cells = []
            for record in records:
                value, interval = shown(record) if record else ("–", "")
                interval = interval.replace(" to ", "–")
                cells.append(f"{value} [dim]({interval})[/dim]" if interval else value)
            result.add_row(label(metric), *cells)
    return result
