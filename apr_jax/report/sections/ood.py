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
from apr_jax.runs import records as records_lib
from apr_jax.runs.records import Record

JOB = "evaluate.ood"
TITLE = "Unknown images"
# Before the names of OpenOOD's full spectrum, where known classes on other images
# count as known.
_FULL = "full_"
_GROUPS = {
    "near": "Mean, near",
    "far": "Mean, far",
    "all": "Mean",
    "full_near": "Full spectrum: mean, near",
    "full_far": "Full spectrum: mean, far",
    "full_all": "Full spectrum: mean",
}
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
# (split, score) -> metric -> record
_Cells = dict[tuple[str, str], dict[str, Record]]


def html(runs: Sequence[RunView]) -> str:
    """Table, curves and histograms of the runs; empty where none was measured."""
    cells = [_cells(run) for run in runs]
    if not any(cells):
        return ""
    columns, score = _columns(cells), _headline(cells)
    label = ood.LABELS.get(score, score)
    names = [run.name for run in runs]
    intro = (
        "How well a score tells images of the test set (known) from images of other "
        "sets (unknown). AUROC, in percent: the chance that a known image scores "
        "higher than an unknown one; 50 is chance, 100 perfect, higher is better. "
        "Small: 95 % intervals. Bold: the highest score of each run on each set, be "
        "it by chance or not. Means give every set the same weight."
    )
    sets = [column for column in columns if column not in _GROUPS]
    curves = [_roc(cells, name, score) for name in sets]
    bars = [
        _histogram(own[name, score]["auroc"], i, f"{names[i]}, {name}")
        for name in sets
        for i, own in enumerate(cells)
        if _has("histogram", own, name, score)
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
    cells = [_cells(run) for run in runs]
    if not any(cells):
        return None
    columns, title = _columns(cells), "Unknowns: AUROC in %, ↑"
    means = [column for column in columns if column in _GROUPS]
    if len(columns) > _WIDEST and means:
        columns, title = means, f"{title}; the page has each set"
    groups = []
    for run, own in zip(runs, cells, strict=True):
        found = {s: [_get(own, c, s, "auroc") for c in columns] for s in _scores(own)}
        rows = [
            [score, *(f"{100 * r.value:.1f}" if r else "–" for r in records)]
            for score, records in found.items()
        ]
        if own:
            sizes = [r.n for by in own.values() for r in by.values() if _inside(by)]
            images = f", up to {max(sizes):,} images a set" if sizes else ""
            groups.append((numbers.bold(run.name) + images, rows))
    heads = [_GROUPS.get(column, column) for column in columns]
    return numbers.terminal(title, heads, groups)


# --- Records -------------------------------------------------------------------------


def _cells(run: RunView) -> _Cells:
    cells: _Cells = {}
    for record in run.of(JOB):
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
    """The sets and means of one number that were measured with each other.

    A mean that isn't that of its members as they are shown is of an earlier call, and
    so are sets that a good mean over all leaves out. The full spectrum is apart.
    """
    found: set[str] = set()
    for full in (False, True):
        own = {k: v for k, v in rows.items() if k.startswith(_FULL) == full}
        found |= _of_one_call(own, _FULL + "all" if full else "all")
    return found


def _of_one_call(rows: Mapping[str, Record], over_all: str) -> set[str]:
    """``_together`` of one spectrum, whose mean over all sets has that name."""
    sets = {split for split in rows if split not in _GROUPS}
    means = {split for split in rows if split in _GROUPS and _is_mean(rows, split)}
    whole = rows[over_all].extra if over_all in means else {}
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


def _get(own: _Cells, split: str, score: str, metric: str) -> Record | None:
    return own.get((split, score), {}).get(metric)


def _has(what: str, own: _Cells, split: str, score: str) -> bool:
    """Whether the record of an AUROC carries what a figure is drawn from."""
    record = _get(own, split, score, "auroc")
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
    sets.sort(key=lambda name: (name.startswith(_FULL), found[name] != "near"))
    return [group for group in _GROUPS if group in found] + sets


def _headline(cells: Sequence[_Cells]) -> str:
    """The score that the figures show: the paper's, where there is one for all."""
    names = [_scores(own) for own in cells if own]
    shared = [score for score in names[0] if all(score in each for each in names)]
    return "msp" if "msp" in shared else (shared or names[0])[0]


def answers(runs: Sequence[RunView]) -> list[answer.Row]:
    """The AUROC of the headline score: its mean over sets, or that of the only one."""
    cells = [_cells(run) for run in runs]
    if not any(cells):
        return []
    columns, score = _columns(cells), _headline(cells)
    sets = [c for c in columns if c not in _GROUPS and not c.startswith(_FULL)]
    split = "all" if "all" in columns else sets[0]
    rows = []
    for own in cells:
        found = _get(own, split, score, "auroc")
        members = [_get(own, name, score, "auroc") for name in sets]
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
    return [html_lib.th(_GROUPS.get(c) or html_lib.breakable(c)) for c in columns]


def _auroc_table(
    runs: Sequence[RunView], cells: Sequence[_Cells], columns: Sequence[str]
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
        for score in _scores(own):
            found = {c: _get(own, c, score, "auroc") for c in columns}
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


def _best(own: _Cells, column: str) -> float:
    values = [
        records["auroc"].value
        for (split, _), records in own.items()
        if split == column and "auroc" in records
    ]
    return max(values, default=2.0) if len(values) > 1 else 2.0


def _published(
    cells: Sequence[_Cells], columns: Sequence[str]
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
    names: Sequence[str], cells: Sequence[_Cells], columns: Sequence[str], score: str
) -> str:
    """Every metric of the headline score."""
    groups = [
        (
            html_lib.escape(title),
            [
                [html_lib.row_head(html_lib.run_name(i, name))]
                + [
                    tables.number(_get(own, c, score, metric), digits=False)
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


def _notes(cells: Sequence[_Cells]) -> str:
    """The number of images of each set, and the treatment of other sizes."""
    notes: dict[str, str] = {}
    for own in cells:
        for (split, _), records in own.items():
            extra = next(iter(records.values())).extra
            if split not in _GROUPS:
                size = f"{extra.get('outside', 0):,} images"
                notes[split] = "; ".join(filter(None, (size, extra.get("note", ""))))
    text = " · ".join(f"{name}: {what}" for name, what in notes.items())
    return html_lib.note(html_lib.escape(text))


# --- Figures -------------------------------------------------------------------------


def _roc(cells: Sequence[_Cells], out_set: str, score: str) -> str:
    lines = [
        (i, own[out_set, score]["auroc"].extra["roc"])
        for i, own in enumerate(cells)
        if _has("roc", own, out_set, score)
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
