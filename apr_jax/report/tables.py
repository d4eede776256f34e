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
    head = _heads(names)
    head += "".join(f'<th class="soft">{html.escape(s)}</th>' for s in sources)
    lines = [f"<thead><tr><th></th>{head}</tr></thead>"]
    for (data, split), rows in groups:
        sizes = sorted({r.n for _, records in rows for r in records if r})
        count = " or ".join(f"{n:,}" for n in sizes)
        place = f"{html.escape(f'{data} {split}')}"
        lines.append(
            f'<tbody><tr class="group"><th colspan="{1 + len(names) + len(sources)}">'
            f'{place} <span class="soft">n = {count}</span></th></tr>'
        )
        for metric, records in rows:
            best = clearly_best(metric, records)
            cells = [_cell(record, i == best) for i, record in enumerate(records)]
            for source in sources:
                cells.append(_published_cell(published, source, data, split, metric))
            name = html.escape(numbers_lib.label(metric))
            lines.append(f"<tr><td>{name}</td>{''.join(cells)}</tr>")
        lines.append("</tbody>")
    return f"<table>{''.join(lines)}</table>"


def _cell(record: Record | None, best: bool) -> str:
    if record is None:
        return '<td class="number soft">–</td>'
    value, interval = numbers_lib.shown(record)
    small = f"<small>{html.escape(interval)}</small>" if interval else ""
    kind = "number best" if best else "number"
    return f'<td class="{kind}">{html.escape(value)}{small}</td>'


def _published_cell(
    published: Sequence[Published], source: str, data: str, split: str, metric: str
) -> str:
    for p in published:
        if (p.source, p.data, p.split, p.metric) == (source, data, split, metric):
            fraction = metric in numbers_lib.METRICS and metric not in ("nll", "brier")
            text = f"{100 * p.value:.1f} %" if fraction else f"{p.value:.3f}"
            return f'<td class="number soft">{text}</td>'
    return "<td></td>"


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
    lines = []
    for name, cells in rows:
        differs = ' class="differs"' if len(set(cells)) > 1 else ""
        tds = "".join(f"<td{differs}>{html.escape(cell)}</td>" for cell in cells)
        lines.append(f"<tr><td>{html.escape(name)}</td>{tds}</tr>")
    return (
        f"<table><thead><tr><th></th>{_heads(names)}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def _heads(names: Sequence[str]) -> str:
    return "".join(
        f"<th>{html.dot(i)}{html.breakable(name)}</th>" for i, name in enumerate(names)
    )
