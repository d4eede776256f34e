"""The tables of the page: numbers of several runs side by side, and what was run."""

from collections.abc import Sequence

from apr_jax.report import html
from apr_jax.report import numbers as numbers_lib
from apr_jax.runs.records import Record


def numbers(
    names: Sequence[str], groups: Sequence[numbers_lib.Group], *, caption: str
) -> str:
    """Metrics down, runs across.

    Args:
        names: of the runs.
        groups: from ``numbers.side_by_side``.
        caption: of the table.
    """
    lines = []
    for (data, split), rows in groups:
        cells = []
        for metric, records in rows:
            best = clearly_best(metric, records)
            cells.append(
                [html.row_head(html.escape(numbers_lib.label(metric)))]
                + [number(record, best=i == best) for i, record in enumerate(records)]
            )
        place = html.escape(f"{data} {split}")
        count = f'<span class="soft">{numbers_lib.size(rows)}</span>'
        lines.append((f"{place} {count}", cells))
    heads = html.run_heads(names)
    return html.tabulate(heads, lines, caption=caption, corner="Number")


def number(record: Record | None, *, best: bool = False, digits: bool = True) -> str:
    """The cell of a number: small its interval, a dash where there is none.

    Args:
        record: or None.
        best: whether it stands out.
        digits: as many as the interval's width allows, with the unit; False takes one
            digit of percent, without its sign.
    """
    if record is None:
        return html.td("–", "number soft")
    value, interval = numbers_lib.shown(record)
    if not digits:
        value, *ends = (
            "" if x is None else f"{100 * x:.1f}"
            for x in (record.value, record.low, record.high)
        )
        interval = " to ".join(ends) if all(ends) else ""
    small = f"<small>{html.escape(interval)}</small>" if interval else ""
    return html.td(html.escape(value) + small, "number best" if best else "number")


def published(value: float | None, sign: str = " %") -> str:
    """The cell of a paper's number, in percent; empty where there is none."""
    return (
        html.td("") if value is None else html.td(f"{value:.1f}{sign}", "number soft")
    )


def clearly_best(metric: str, records: Sequence[Record | None]) -> int | None:
    """Index of the run whose interval lies beyond all the others', if there is one."""
    if metric not in numbers_lib.METRICS or sum(r is not None for r in records) < 2:
        return None
    sign = 1 if numbers_lib.METRICS[metric][1] == "↑" else -1
    ends = []
    for i, r in enumerate(records):
        if r is None:
            continue
        if r.low is None or r.high is None:
            return None
        near, far = sorted((sign * r.low, sign * r.high))
        ends.append((near, far, i))
    near, _, best = max(ends)
    return best if all(near > far for _, far, i in ends if i != best) else None


def comparison(names: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Facts down, runs across; what differs between runs stands out."""
    lines = [
        [
            html.row_head(html.escape(name)),
            *(
                html.td(html.escape(cell), "differs" if len(set(cells)) > 1 else "")
                for cell in cells
            ),
        ]
        for name, cells in rows
    ]
    return html.tabulate(
        html.run_heads(names),
        [("", lines)],
        caption="Settings and circumstances; bold: what differs between the runs",
        corner="What",
    )
