"""The part of the page on images from elsewhere: what is lost on them, and to whom."""

from collections.abc import Iterable, Sequence

import rich.table

from apr_jax.report import answer, figures, numbers, tables
from apr_jax.report import html as html_lib
from apr_jax.report.run_view import RunView
from apr_jax.runs.records import Record

JOB = "evaluate.shift"
TITLE = "Images from elsewhere"
# Shape against texture has a split of its own, without a clean accuracy beside it.
_BIAS = "shape_bias"
_FLIPS, _MEAN = "flip_probability", "perturbation/mean"


def html(runs: Sequence[RunView]) -> str:
    """Accuracies with their intervals, and all numbers; empty where there are none."""
    groups = _groups(runs)
    if not groups:
        return ""
    caption = "All numbers of images from elsewhere"
    names = [run.name for run in runs]
    return html_lib.section(
        TITLE,
        _plot(runs, groups),
        html_lib.card(tables.numbers(names, groups, caption=caption)),
        html_lib.note(" ".join(html_lib.escape(text) for text in _about(groups))),
    )


def table(runs: Sequence[RunView]) -> rich.table.Table | None:
    """The numbers by set, runs across; None where nothing was measured."""
    if not _groups(runs):
        return None
    return numbers.table({run.name: run.of(JOB) for run in runs}, title=TITLE)


def answers(runs: Sequence[RunView]) -> list[answer.Row]:
    """The error on each set, the shape bias, and the flip probability.

    Of perturbations it is the mean, or where no run has one each by itself.
    """
    groups = _groups(runs)
    flips = {place: dict(found).get(_FLIPS) for place, found in groups}
    averaged = {data for (data, split), of in flips.items() if of and split == _MEAN}
    rows = []
    for (data, split), found in groups:
        for metric, question, number in (
            ("error", f"Images from elsewhere, {split}", "Error ↓"),
            (_BIAS, "Shape or texture", "Shape bias ↑"),
            (_FLIPS, "Perturbed sequences", "Flip probability ↓"),
        ):
            cells = dict(found).get(metric)
            single = metric == _FLIPS and split != _MEAN and data in averaged
            if cells is not None and not single:
                size = numbers.size([("", cells)])
                if split == _MEAN:
                    cells = [_with_ends(cell, runs[i]) for i, cell in enumerate(cells)]
                rows.append(
                    answer.Row(
                        question=question,
                        number=number,
                        place=f"{data} {split}, {size}",
                        section=TITLE,
                        cells=cells,
                    )
                )
    return rows


def _with_ends(mean: Record | None, run: RunView) -> Record | None:
    """A mean with the mean of its members' intervals."""
    members = mean.extra.get("members", ()) if mean else ()
    found = [r for r in run.of(JOB) if r.split in members and r.metric == _FLIPS]
    return answer.over(mean, found)


def _groups(runs: Sequence[RunView]) -> list[numbers.Group]:
    return numbers.side_by_side({run.name: run.of(JOB) for run in runs})


def _plot(runs: Sequence[RunView], groups: Iterable[numbers.Group]) -> str:
    """Accuracies on clean images and on these, set by set."""
    drawn = []
    for (_, split), found in groups:
        by_metric = dict(found)
        rows = [
            (i, f"{run.name}, {where}", record)
            for i, run in enumerate(runs)
            for metric, where in (("clean_accuracy", "clean"), ("accuracy", split))
            if (record := (by_metric.get(metric) or [None] * len(runs))[i]) is not None
        ]
        if rows:
            drawn.append((f"Accuracy, {split}", rows))
    return html_lib.card(figures.forest(drawn)) if drawn else ""


def _about(groups: Iterable[numbers.Group]) -> list[str]:
    """Of which classes numbers are, where it is some, and by which lines."""
    lines = [
        "Lost: clean less shifted accuracy, of the same classes, with Newcombe’s "
        "interval; small: 95 % over the examples."
    ]
    for (_, split), found in groups:
        by_metric = dict(found)
        first = _first(by_metric.get("accuracy", ()))
        if first and first.extra.get("classes", 0) < first.extra.get("of", 0):
            some = f"{first.extra['classes']:,} of {first.extra['of']:,} classes"
            lines.append(f"{split}: {some}, which alone may be answered.")
        fit = _first(by_metric.get("effective_robustness", ()))
        if fit:
            slope, intercept, source = (
                fit.extra[name] for name in ("slope", "intercept", "source")
            )
            lines.append(
                f"{split}: effective robustness is the accuracy less {slope:g} times "
                f"the clean one {100 * intercept:+.1f} points, the line of {source}."
            )
    return lines


def _first(records: Iterable[Record | None]) -> Record | None:
    return next((record for record in records if record is not None), None)
