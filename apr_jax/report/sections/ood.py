"""Detection of unknowns on the page: AUROC table, ROC curves, score histograms."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import rich.markup
import rich.table
from matplotlib import ticker
from matplotlib.figure import Figure

from apr_jax import ood
from apr_jax.report import figures, numbers
from apr_jax.report import html as html_lib
from apr_jax.report.published import OOD_AUROC, OOD_SETS
from apr_jax.report.run_view import RunView
from apr_jax.runs import records as records_lib
from apr_jax.runs.records import Record

JOB = "evaluate.ood"
_GROUPS = {"near": "Mean, near", "far": "Mean, far", "all": "Mean"}
_METRICS = {
    "auroc": "AUROC ↑",
    "aupr_in": "Area under precision-recall, known positive ↑",
    "aupr_out": "Area under precision-recall, unknown positive ↑",
    "fpr95_id_positive": "Unknown accepted where 95 % of the known are (APR, ODIN) ↓",
    "fpr95_ood_positive": "Known rejected where 95 % of the unknown are (OpenOOD) ↓",
    "tnr_at_tpr95": "Unknown rejected where 95 % of the known are accepted ↑",
    "detection_accuracy": "Detection accuracy, best threshold ↑",
    "oscr": "Open-set classification rate ↑",
}
# (split, score) -> metric -> record
_Cells = dict[tuple[str, str], dict[str, Record]]


def html(runs: Sequence[RunView]) -> str:
    """Table, curves and histograms of the runs; empty where none was measured."""
    cells = [_cells(run) for run in runs]
    if not any(cells):
        return ""
    columns, score = _columns(cells), _headline(cells)
    named = html_lib.escape(ood.LABELS.get(score, score))
    intro = (
        '<p class="soft">How well a score tells images of the test set (known) from '
        "images of other sets (unknown). AUROC, in percent: the chance that a known "
        "image scores higher than an unknown one; 50 is chance, 100 perfect, higher "
        "is better. Small: 95 % intervals. Bold: the best score of each run on each "
        "set. Means give every set the same weight.</p>"
    )
    table = html_lib.card(html_lib.scroll(_auroc_table(runs, cells, columns)))
    sets = [column for column in columns if column not in _GROUPS]
    curves = [
        _roc({run.name: c for run, c in zip(runs, cells, strict=True)}, name, score)
        for name in sets
    ]
    bars = [
        _histogram(c[name, score]["auroc"], i, f"{run.name}, {name}")
        for name in sets
        for i, (run, c) in enumerate(zip(runs, cells, strict=True))
        if _has("histogram", c, name, score)
    ]
    legend = "".join(
        f"<span>{html_lib.dot(i)}{html_lib.escape(run.name)}</span>"
        for i, run in enumerate(runs)
    )
    return html_lib.section(
        "Unknowns",
        intro,
        table,
        _notes(cells),
        f"<h3>ROC curves, {named}</h3>",
        f'<div class="legend">{legend}</div>',
        html_lib.grid("small", [c for c in curves if c]),
        '<p class="soft">Share of known images accepted over the share of unknown '
        "images accepted, as the threshold falls. The further up and to the left, the "
        "better; the dashed line is chance.</p>",
        f"<h3>Scores, {named}</h3>",
        html_lib.grid("small", bars),
        '<p class="soft">Coloured: the test set. Grey: the unknown images. The less '
        "they overlap, the better. Scores beyond the axis are counted at its ends."
        "</p>",
        _all_metrics(runs, cells, columns, score),
    )


def table(runs: Sequence[RunView]) -> rich.table.Table | None:
    """AUROC by run, score and set; None where nothing was measured."""
    cells = [_cells(run) for run in runs]
    if not any(cells):
        return None
    columns = _columns(cells)
    drawn = rich.table.Table(title="Unknowns: AUROC in %, ↑", title_justify="left")
    drawn.add_column("")
    for column in columns:
        drawn.add_column(
            _GROUPS.get(column, rich.markup.escape(column)), justify="right"
        )
    for run, own in zip(runs, cells, strict=True):
        if not own:
            continue
        drawn.add_section()
        drawn.add_row(f"[bold]{rich.markup.escape(run.name)}[/bold]")
        for score in _scores(own):
            values = [own.get((column, score), {}).get("auroc") for column in columns]
            drawn.add_row(
                score, *(f"{100 * r.value:.1f}" if r else "–" for r in values)
            )
    return drawn


# --- Records -------------------------------------------------------------------------


def _cells(run: RunView) -> _Cells:
    cells: _Cells = {}
    for record in run.records:
        if record.job == JOB:
            score, _, metric = record.metric.rpartition(".")
            cells.setdefault((record.split, score), {})[metric] = record
    for score, metric in {(s, m) for (_, s), by in cells.items() for m in by}:
        rows = {
            split: by[metric]
            for (split, s), by in cells.items()
            if s == score and metric in by
        }
        for split in set(rows) - _together(rows):
            del cells[split, score][metric]
    return {key: by for key, by in cells.items() if by}


def _together(rows: Mapping[str, Record]) -> set[str]:
    """Which of the sets and means of one number were measured with each other.

    A mean that isn't that of its members as they are shown is of an earlier call, and
    so are sets that a good mean over all leaves out.
    """
    sets = {split for split in rows if split not in _GROUPS}
    means = {split for split in rows if split in _GROUPS and _is_mean(rows, split)}
    whole = rows["all"].extra if "all" in means else {}
    if "members" not in whole:
        return sets | means
    same = {m for m in means if rows[m].extra.get("settings") == whole.get("settings")}
    return (sets & set(whole["members"])) | same


def _is_mean(rows: Mapping[str, Record], group: str) -> bool:
    """Whether a mean is that of its members; where they aren't named, it may be."""
    members = rows[group].extra.get("members")
    if members is None:
        return True
    if not set(members) <= set(rows):
        return False
    mean = float(np.mean([rows[member].value for member in members]))
    return bool(np.isclose(mean, rows[group].value, rtol=0.0, atol=1e-6))


def _has(what: str, own: _Cells, split: str, score: str) -> bool:
    """Whether the record of an AUROC carries what a figure is drawn from."""
    record = own.get((split, score), {}).get("auroc")
    return record is not None and what in record.extra


def _scores(cells: _Cells) -> list[str]:
    order = list(ood.LABELS)
    found = dict.fromkeys(score for _, score in cells)
    known = [score for score in order if score in found]
    return known + [score for score in found if score not in order]


def _columns(cells: Sequence[_Cells]) -> list[str]:
    """The means there are, then the out sets, the near ones first."""
    found: dict[str, str] = {}
    for own in cells:
        for (split, _), records in own.items():
            first = next(iter(records.values()))
            found[split] = first.extra.get("group", "far")
    sets = [name for name in found if name not in _GROUPS]
    sets.sort(key=lambda name: found[name] != "near")
    return [group for group in _GROUPS if group in found] + sets


def _headline(cells: Sequence[_Cells]) -> str:
    """The score that the figures show: the paper's, where there is one for all."""
    names = [_scores(own) for own in cells if own]
    shared = [score for score in names[0] if all(score in each for each in names)]
    return "msp" if "msp" in shared else (shared or names[0])[0]


# --- Tables --------------------------------------------------------------------------


def _heads(columns: Sequence[str]) -> str:
    return "".join(
        f"<th>{html_lib.escape(_GROUPS[c]) if c in _GROUPS else html_lib.breakable(c)}"
        "</th>"
        for c in columns
    )


def _auroc_table(
    runs: Sequence[RunView], cells: Sequence[_Cells], columns: Sequence[str]
) -> str:
    heads = _heads(columns)
    lines = [f"<thead><tr><th></th>{heads}</tr></thead>"]
    for i, (run, own) in enumerate(zip(runs, cells, strict=True)):
        if not own:
            continue
        accuracy = records_lib.find(
            run.records, job="evaluate.clean", metric="accuracy"
        )
        beside = f", accuracy {numbers.shown(accuracy)[0]}" if accuracy else ""
        lines.append(
            f'<tbody><tr class="group"><th colspan="{1 + len(columns)}">'
            f"{html_lib.dot(i)}{html_lib.escape(run.name)}"
            f'<span class="soft">{beside}</span></th></tr>'
        )
        best = {c: _best(own, c) for c in columns}
        for score in _scores(own):
            row = "".join(
                _cell(own.get((c, score), {}).get("auroc"), best[c]) for c in columns
            )
            name = html_lib.escape(ood.LABELS.get(score, score))
            lines.append(f"<tr><td>{name}</td>{row}</tr>")
        lines.append("</tbody>")
    lines.append(_published(cells, columns))
    return f"<table>{''.join(lines)}</table>"


def _best(own: _Cells, column: str) -> float:
    values = [
        records["auroc"].value
        for (split, _), records in own.items()
        if split == column and "auroc" in records
    ]
    return max(values, default=2.0) if len(values) > 1 else 2.0


def _cell(record: Record | None, best: float) -> str:
    if record is None:
        return '<td class="number soft">–</td>'
    interval = ""
    if record.low is not None and record.high is not None:
        interval = f"<small>{100 * record.low:.1f} to {100 * record.high:.1f}</small>"
    kind = "number best" if record.value >= best else "number"
    return f'<td class="{kind}">{100 * record.value:.1f}{interval}</td>'


def _published(cells: Sequence[_Cells], columns: Sequence[str]) -> str:
    """Rows of the paper's Table 2 for the sets that are the paper's."""
    known = {name for own in cells for r in own.values() for name in _data_of(r)}
    place = {
        column: next(
            (k for k, names in enumerate(OOD_SETS) if column.lower() in names), None
        )
        for column in columns
    }
    if "cifar10" not in known or all(k is None for k in place.values()):
        return ""
    lines = [
        f'<tbody><tr class="group"><th colspan="{1 + len(columns)}">Published: Table 2 '
        'of the APR paper <span class="soft">ResNet-18 trained for 200 epochs, maximum '
        "softmax probability; another network or fewer epochs are another set-up. Its "
        "means are over its own six sets: 88.1, 93.1, 91.3, 94.7 and 94.0</span></th>"
        "</tr>"
    ]
    for method, values in OOD_AUROC.items():
        row = "".join(
            f'<td class="number soft">{values[k]:.1f}</td>'
            if k is not None
            else "<td></td>"
            for k in place.values()
        )
        lines.append(f'<tr><td class="soft">{method}</td>{row}</tr>')
    return "".join(lines) + "</tbody>"


def _data_of(records: Mapping[str, Record]) -> set[str]:
    return {record.data for record in records.values()}


def _all_metrics(
    runs: Sequence[RunView],
    cells: Sequence[_Cells],
    columns: Sequence[str],
    score: str,
) -> str:
    """Every metric of the headline score, folded away."""
    heads = _heads(columns)
    lines = [f"<thead><tr><th></th>{heads}</tr></thead>"]
    for metric, title in _METRICS.items():
        lines.append(
            f'<tbody><tr class="group"><th colspan="{1 + len(columns)}">'
            f"{html_lib.escape(title)}</th></tr>"
        )
        for i, (run, own) in enumerate(zip(runs, cells, strict=True)):
            if own:
                row = "".join(
                    _cell(own.get((c, score), {}).get(metric), 2.0) for c in columns
                )
                name = f"{html_lib.dot(i)}{html_lib.breakable(run.name)}"
                lines.append(f"<tr><td>{name}</td>{row}</tr>")
        lines.append("</tbody>")
    named = html_lib.escape(ood.LABELS.get(score, score))
    return (
        f"<details><summary>All metrics of: {named}, in percent</summary>"
        f"{html_lib.scroll(f'<table>{chr(10).join(lines)}</table>')}</details>"
    )


def _notes(cells: Sequence[_Cells]) -> str:
    """What was done to images of other sizes, and how many of each set there were."""
    notes: dict[str, str] = {}
    for own in cells:
        for (split, _), records in own.items():
            extra = next(iter(records.values())).extra
            if split not in _GROUPS:
                size = f"{extra.get('outside', 0):,} images"
                notes[split] = "; ".join(filter(None, (size, extra.get("note", ""))))
    text = " · ".join(f"{name}: {what}" for name, what in notes.items())
    return f'<p class="soft">{html_lib.escape(text)}</p>'


# --- Figures -------------------------------------------------------------------------


def _roc(cells: Mapping[str, _Cells], out_set: str, score: str) -> str:
    lines = [
        (i, own[out_set, score]["auroc"].extra["roc"])
        for i, own in enumerate(cells.values())
        if _has("roc", own, out_set, score)
    ]
    if not lines:
        return ""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_title(out_set)
        axes.plot([0, 1], [0, 1], "--", color=figures.INK, linewidth=0.9)
        for i, roc in lines:
            axes.plot(roc["fpr"], roc["tpr"], color=figures.colour(i))
        axes.set(xlim=(0, 1), ylim=(0, 1.01))
        axes.set(xlabel="Unknown accepted", ylabel="Known accepted")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(ticker.PercentFormatter(1.0, decimals=0))

    return figures.svg(draw, (3.1, 2.9), f"ROC curves, unknown images of {out_set}")


def _histogram(record: Record, run: int, title: str) -> str:
    bars = record.extra["histogram"]
    inside, outside = np.array(bars["inside"]), np.array(bars["outside"])
    edges = np.linspace(bars["low"], bars["high"], len(inside) + 1)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_title(textwrap.fill(title, 38))
        for share, tint in ((outside, figures.FAINT), (inside, figures.colour(run))):
            axes.stairs(share, edges, fill=True, color=tint, alpha=0.45, linewidth=0)
            axes.stairs(share, edges, color=tint, linewidth=1.3)
        axes.text(
            0.03,
            0.95,
            f"AUROC {100 * record.value:.1f}",
            transform=axes.transAxes,
            va="top",
            weight="bold",
        )
        log = record.extra["score"] in ("msp", "odin")
        name = "Score, log of the probability" if log else "Score"
        axes.set(xlabel=name, ylabel="Share of images")
        axes.set_ylim(0, 1.2 * max(inside.max(), outside.max()))
        axes.yaxis.set_major_formatter(ticker.PercentFormatter(1.0, decimals=None))

    label = f"Scores of known and unknown images, {title}"
    return figures.svg(draw, (3.1, 2.3), label)
