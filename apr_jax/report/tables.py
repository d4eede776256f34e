"""The tables of the page: numbers of several runs side by side, and what was run."""

import dataclasses
from collections.abc import Sequence

from apr_jax.report import html
from apr_jax.report import numbers as numbers_lib
from apr_jax.runs.records import Record


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """A number from a paper, shown beside ours and marked as what it is.

    Attributes:
        source: heading of its column, such as "APR-SP, paper (WRN-40-2)".
        data, split, metric: the row it belongs to, as in records.
        value: in the unit of the record, so a fraction rather than percent.
    """

    source: str
    data: str
    split: str
    metric: str
    value: float


def numbers(
    names: Sequence[str],
    groups: Sequence[numbers_lib.Group],
    published: Sequence[Published],
) -> str:
    """Metrics down, runs and then published sources across.

    Args:
        names: of the runs.
        groups: from ``numbers.side_by_side``.
        published: numbers of others.
    """
    sources = list(dict.fromkeys(p.source for p in published))
    heads = html.run_heads(names) + [html.th(html.escape(s), "soft") for s in sources]
    lines = []
    for (data, split), rows in groups:
        cells = []
        for metric, records in rows:
            best = clearly_best(metric, records)
            cells.append(
                [html.td(html.escape(numbers_lib.label(metric)))]
                + [number(record, best=i == best) for i, record in enumerate(records)]
                + [_published(published, s, data, split, metric) for s in sources]
            )
        place = html.escape(f"{data} {split}")
        count = f'<span class="soft">{numbers_lib.size(rows)}</span>'
        lines.append((f"{place} {count}", cells))
    return html.tabulate(heads, lines)


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


def _published(
    published: Sequence[Published], source: str, data: str, split: str, metric: str
) -> str:
    for p in published:
        if (p.source, p.data, p.split, p.metric) == (source, data, split, metric):
            fraction = metric in numbers_lib.METRICS and metric not in ("nll", "brier")
            text = f"{100 * p.value:.1f} %" if fraction else f"{p.value:.3f}"
            return html.td(text, "number soft")
    return html.td("")


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
            html.td(html.escape(name)),
            *(
                html.td(html.escape(cell), "differs" if len(set(cells)) > 1 else "")
                for cell in cells
            ),
        ]
        for name, cells in rows
    ]
    return html.tabulate(html.run_heads(names), [("", lines)])
