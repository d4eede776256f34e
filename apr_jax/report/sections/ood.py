"""Detection of unknowns on the page: AUROC table, ROC curves, score histograms."""

from collections.abc import Mapping, Sequence

import numpy as np
import rich.table
from matplotlib.axes import Axes

from apr_jax import ood
from apr_jax.report import answer, figures, numbers, tables
from apr_jax.report import html as html_lib
from apr_jax.report.published import OUT_METHODS, OUT_SETS, table_2
from apr_jax.report.run_view import RunView
from apr_jax.report.sections import ood_cells
from apr_jax.runs import records as records_lib
from apr_jax.runs.records import Record

JOB = ood_cells.JOB
TITLE = "Unknown images"
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
# Columns that a terminal has room for.
_WIDEST = 12


def html(runs: Sequence[RunView]) -> str:
    """Table, curves and histograms of the runs; empty where none was measured."""
    cells = [ood_cells.of_run(run) for run in runs]
    if not any(cells):
        return ""
    columns, score = ood_cells.columns(cells), ood_cells.headline(cells)
    label = ood.LABELS.get(score, score)
    names = [run.name for run in runs]
    intro = (
        "How well a score tells images of the test set (known) from images of other "
        "sets (unknown). AUROC, in percent: the chance that a known image scores "
        "higher than an unknown one; 50 is chance, 100 perfect, higher is better. "
        "Small: 95 % intervals. Bold: the highest score of each run on each set, be "
        "it by chance or not. Means give every set the same weight."
    )
    sets = [column for column in columns if column not in ood_cells.GROUPS]
    curves = [_roc(cells, name, score) for name in sets]
    bars = [
        _histogram(own[name, score]["auroc"], i, f"{names[i]}, {name}")
        for name in sets
        for i, own in enumerate(cells)
        if ood_cells.has("histogram", own, name, score)
    ]
    shares = html_lib.noted(
        "Coloured: the test set. Grey: the unknown images. The less they overlap, "
        "the better. Scores beyond the axis are counted at its ends.",
        html_lib.grid("small", bars),
    )
    return html_lib.section(
        TITLE,
        html_lib.note(intro),
        html_lib.card(_auroc_table(runs, cells, columns)),
        _notes(cells),
        f"<h3>ROC curves, {html_lib.escape(label)}</h3>",
        html_lib.legend(dict(enumerate(names))),
        html_lib.grid("small", [c for c in curves if c]),
        html_lib.note(
            "Share of known images accepted over the share of unknown images accepted, "
            "as the threshold falls. The further up and to the left, the better; the "
            "dashed line is chance."
        ),
        html_lib.details(f"Scores of known and unknown images, {label}", shares),
        html_lib.details(
            f"All metrics of: {label}, in percent",
            html_lib.card(_all_metrics(names, cells, columns, score)),
        ),
    )


def table(runs: Sequence[RunView]) -> rich.table.Table | None:
    """AUROC by run, score and set; None where nothing was measured."""
    cells = [ood_cells.of_run(run) for run in runs]
    if not any(cells):
        return None
    columns, title = ood_cells.columns(cells), "Unknowns: AUROC in %, ↑"
    means = [column for column in columns if column in ood_cells.GROUPS]
    if len(columns) > _WIDEST and means:
        columns, title = means, f"{title}; the page has each set"
    groups = []
    for run, own in zip(runs, cells, strict=True):
        found = {
            s: [ood_cells.get(own, c, s, "auroc") for c in columns]
            for s in ood_cells.scores(own)
        }
        rows = [
            [score, *(f"{100 * r.value:.1f}" if r else "–" for r in records)]
            for score, records in found.items()
        ]
        if own:
            sizes = [r.n for by in own.values() for r in by.values() if _inside(by)]
            images = f", up to {max(sizes):,} images a set" if sizes else ""
            groups.append((numbers.bold(run.name) + images, rows))
    heads = [ood_cells.GROUPS.get(column, column) for column in columns]
    return numbers.terminal(title, heads, groups)


def answers(runs: Sequence[RunView]) -> list[answer.Row]:
    """The AUROC of the headline score: its mean over sets, or that of the only one."""
    cells = [ood_cells.of_run(run) for run in runs]
    if not any(cells):
        return []
    columns, score = ood_cells.columns(cells), ood_cells.headline(cells)
    sets = [
        c
        for c in columns
        if c not in ood_cells.GROUPS and not c.startswith(ood_cells.FULL)
    ]
    split = "all" if "all" in columns else sets[0]
    rows = []
    for own in cells:
        found = ood_cells.get(own, split, score, "auroc")
        members = [ood_cells.get(own, name, score, "auroc") for name in sets]
        rows.append(answer.over(found, [r for r in members if r is not None]))
    label = ood.LABELS.get(score, score)
    over = _mean_over(rows, sets) if split == "all" else split
    return [
        answer.Row(
            question=TITLE,
            number="AUROC ↑",
            place=f"{label[0].lower()}{label[1:]}, {over}",
            section=TITLE,
            cells=rows,
        )
    ]


def _mean_over(means: Sequence[Record | None], sets: Sequence[str]) -> str:
    """What means are over, in words: so many sets, or each run its own."""
    found = [set(r.extra.get("members", sets)) for r in means if r is not None]
    if all(members == found[0] for members in found):
        return f"mean over {len(found[0])} sets"
    return "mean over the sets of each run, which differ"


# --- Tables --------------------------------------------------------------------------


def _heads(columns: Sequence[str]) -> list[str]:
    return [
        html_lib.th(ood_cells.GROUPS.get(c) or html_lib.breakable(c)) for c in columns
    ]


def _auroc_table(
    runs: Sequence[RunView], cells: Sequence[ood_cells.Cells], columns: Sequence[str]
) -> str:
    groups = []
    for i, (run, own) in enumerate(zip(runs, cells, strict=True)):
        if not own:
            continue
        accuracy = records_lib.find(
            run.records, job="evaluate.clean", metric="accuracy"
        )
        beside = f", accuracy {numbers.value(accuracy)}" if accuracy else ""
        inside = sorted({n for by in own.values() for n in _inside(by)})
        if inside:
            beside += f", {' or '.join(f'{n:,}' for n in inside)} known images"
        best = {c: _best(own, c) for c in columns}
        rows = []
        for score in ood_cells.scores(own):
            found = {c: ood_cells.get(own, c, score, "auroc") for c in columns}
            name = html_lib.row_head(html_lib.escape(ood.LABELS.get(score, score)))
            row = [
                tables.number(
                    r, best=r is not None and r.value >= best[c], digits=False
                )
                for c, r in found.items()
            ]
            rows.append([name, *row])
        name = html_lib.dot(i) + html_lib.escape(run.name)
        groups.append((f'{name}<span class="soft">{beside}</span>', rows))
    return html_lib.tabulate(
        _heads(columns),
        groups + _published(cells, columns),
        caption="AUROC in %, by score and set of unknown images",
        corner="Score",
    )


def _inside(records: Mapping[str, Record]) -> set[int]:
    """The numbers of known images behind some records."""
    return {r.extra["inside"] for r in records.values() if "inside" in r.extra}


def _best(own: ood_cells.Cells, column: str) -> float:
    values = [
        records["auroc"].value
        for (split, _), records in own.items()
        if split == column and "auroc" in records
    ]
    return max(values, default=2.0) if len(values) > 1 else 2.0


def _published(
    cells: Sequence[ood_cells.Cells], columns: Sequence[str]
) -> list[tuple[str, list[list[str]]]]:
    """A group of rows of the paper's Table 2 for the sets that are the paper's."""
    known = {r.data for own in cells for by in own.values() for r in by.values()}
    sets = [OUT_SETS.get(column.lower()) for column in columns]
    if "cifar10" not in known or not any(sets):
        return []
    theirs = {name: table_2()[row] for row, name in OUT_METHODS.items()}
    *means, last = (f"{values['mean']:.1f}" for values in theirs.values())
    heading = (
        'Published: Table 2 of the APR paper <span class="soft">ResNet-18 trained for '
        "200 epochs, maximum softmax probability; another network or fewer epochs are "
        f"another set-up. Its means are over its own six sets: {', '.join(means)} and "
        f"{last}</span>"
    )
    rows = [
        [
            html_lib.row_head(name, "soft"),
            *(tables.published(values[s] if s else None, "") for s in sets),
        ]
        for name, values in theirs.items()
    ]
    return [(heading, rows)]


def _all_metrics(
    names: Sequence[str],
    cells: Sequence[ood_cells.Cells],
    columns: Sequence[str],
    score: str,
) -> str:
    """Every metric of the headline score."""
    groups = [
        (
            html_lib.escape(title),
            [
                [html_lib.row_head(html_lib.run_name(i, name))]
                + [
                    tables.number(ood_cells.get(own, c, score, metric), digits=False)
                    for c in columns
                ]
                for i, (name, own) in enumerate(zip(names, cells, strict=True))
                if own
            ],
        )
        for metric, title in _METRICS.items()
    ]
    return html_lib.tabulate(
        _heads(columns), groups, caption="All metrics, in %", corner="Run"
    )


def _notes(cells: Sequence[ood_cells.Cells]) -> str:
    """The number of images of each set, and the treatment of other sizes."""
    notes: dict[str, str] = {}
    for own in cells:
        for (split, _), records in own.items():
            extra = next(iter(records.values())).extra
            if split not in ood_cells.GROUPS:
                size = f"{extra.get('outside', 0):,} images"
                notes[split] = "; ".join(filter(None, (size, extra.get("note", ""))))
    text = " · ".join(f"{name}: {what}" for name, what in notes.items())
    return html_lib.note(html_lib.escape(text))


# --- Figures -------------------------------------------------------------------------


def _roc(cells: Sequence[ood_cells.Cells], out_set: str, score: str) -> str:
    lines = [
        (i, own[out_set, score]["auroc"].extra["roc"])
        for i, own in enumerate(cells)
        if ood_cells.has("roc", own, out_set, score)
    ]
    if not lines:
        return ""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], "--", color=figures.INK, linewidth=0.9)
        for i, roc in lines:
            axes.plot(roc["fpr"], roc["tpr"], color=figures.colour(i))
        axes.set(xlim=(0, 1), ylim=(0, 1.01))
        axes.set(xlabel="Unknown accepted", ylabel="Known accepted")
        for axis in (axes.xaxis, axes.yaxis):
            figures.percent(axis, decimals=0)

    words = f"ROC curves, unknown images of {out_set}"
    return figures.plot(draw, (3.1, 2.9), words, title=out_set)


def _histogram(record: Record, run: int, title: str) -> str:
    bars = record.extra["histogram"]
    inside, outside = np.array(bars["inside"]), np.array(bars["outside"])
    edges = np.linspace(bars["low"], bars["high"], len(inside) + 1)

    def draw(axes: Axes) -> None:
        for share, tint in ((outside, figures.GREY), (inside, figures.colour(run))):
            axes.stairs(share, edges, fill=True, color=tint, alpha=0.45, linewidth=0)
            axes.stairs(share, edges, color=tint, linewidth=1.3)
        log = record.extra["score"] in ("msp", "odin")
        name = "Score, log of the probability" if log else "Score"
        axes.set(xlabel=name, ylabel="Share of images")
        axes.set_ylim(0, 1.2 * max(inside.max(), outside.max()))
        figures.percent(axes.yaxis)

    label = f"Scores of known and unknown images, {title}"
    title += f": AUROC {100 * record.value:.1f}"
    return figures.plot(draw, (3.1, 2.3), label, title=title)
