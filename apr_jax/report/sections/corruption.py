"""The page's part on corruptions: heatmaps of errors, means, published numbers."""

from collections.abc import Mapping, Sequence

import rich.table
from rich.markup import escape

from apr_jax.corruptions import C_BAR, CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES
from apr_jax.report import answer, numbers, tables
from apr_jax.report import html as html_lib
from apr_jax.report.published import EPOCHS, METHODS, NETWORKS, TABLE_1
from apr_jax.report.run_view import RunView, alike
from apr_jax.runs.records import Record

JOB = "evaluate.corruption"
_GROUPS = (
    ("Noise", CORRUPTIONS[:3]),
    ("Blur", CORRUPTIONS[3:7]),
    ("Weather", CORRUPTIONS[7:10]),
    ("Digital", CORRUPTIONS[10:]),
    ("Held out", EXTRA_CORRUPTIONS),
    ("C-bar", C_BAR),
)
# Split of the mean -> its set in words, and the corruptions.
_SETS = {"mean c_bar": ("C-bar", C_BAR), "mean extra": ("held out", EXTRA_CORRUPTIONS)}
TITLE = "Corrupted images"
# The columns of the table: metric of the split "mean", heading.
_COLUMNS = (
    ("error", "Mean error ↓"),
    ("mce", "mCE ↓"),
    ("relative_mce", "Relative mCE ↓"),
    ("nll", "Log-loss ↓"),
    ("ece", "ECE ↓"),
    ("rms_calibration_error", "RMS calibration ↓"),
)


def html(runs: Sequence[RunView]) -> str:
    """Heatmaps of each run and of the differences to the first, means, published."""
    parts = []
    for name in dict.fromkeys(r.data for run in runs for r in run.of(JOB)):
        cells = {i: own for i, run in enumerate(runs) if (own := _cells(run, name))}
        if not cells:  # stopped before the first corruption was done
            continue
        errors = {
            i: {place: record.value for place, record in own.items()}
            for i, own in cells.items()
        }
        most = max(max(own.values()) for own in errors.values())
        drawn = []
        for i, own in cells.items():
            size = numbers.size([("", list(own.values()))])
            title = f"Error in %, {runs[i].name}, {name}, {size}"
            drawn.append(_heatmap(errors[i], title=title, most=most, signed=False))
        first, *others = cells
        for i in others:
            gap = {
                place: record.value - errors[first][place]
                for place, record in cells[i].items()
                if place in cells[first] and alike(record, cells[first][place])
            }
            if gap:
                title = f"Points, {runs[i].name} less {runs[first].name}, {name}"
                widest = max(max(abs(v) for v in gap.values()), 1e-9)
                drawn.append(_heatmap(gap, title=title, most=widest, signed=True))
        about = (
            "Error in percent for each corruption and severity, 5 the strongest; the "
            "darker the worse. The last column is the mean of the row."
        )
        if others:
            about += (
                " Differences are in percentage points: green where the run errs less "
                "than the first, red where it errs more; there is none where the two "
                "were measured on other images."
            )
        parts.append(f"<h3>{html_lib.escape(name)}</h3>")
        parts.append(html_lib.grid("wide", drawn))
        parts.append(html_lib.note(about))
        found = [_by_split(run, name) for run in runs]
        parts += [_numbers(runs, name, mean) for mean in _means(found)]
        parts.append(_published(runs, name))
    return html_lib.section(TITLE, *parts) if parts else ""


def table(runs: Sequence[RunView]) -> rich.table.Table | None:
    """Mean error of each run, over all severities and for each."""
    groups = []
    for name in dict.fromkeys(r.data for run in runs for r in run.of(JOB)):
        found = [_by_split(run, name) for run in runs]
        mean, *others = _means(found)
        wanted = [("clean", "error", "clean"), (mean, "error", mean)]
        if not mean.startswith("mean of "):
            severities = [(f"mean/{s}", "error", f"severity {s}") for s in SEVERITIES]
            wanted[1:1] = severities
        wanted += [("mean", metric, title) for metric, title in _COLUMNS[1:3]]
        wanted += [(other, "error", _in_words(other)) for other in others]
        rows = [
            [f"{escape(name)}, {title}", *map(numbers.value, records)]
            for split, metric, title in wanted
            if any(records := [own.get((split, metric)) for own in found])
        ]
        images = [
            next((r for m in (mean, *others) if (r := own.get((m, "error")))), None)
            for own in found
        ]
        rows.append(
            ["images, over all sets", *(f"{r.n:,}" if r else "–" for r in images)]
        )
        groups.append(("", rows))
    names = [run.name for run in runs]
    return numbers.terminal("Error under corruption", names, groups) if groups else None


def _by_split(run: RunView, name: str) -> dict[tuple[str, str], Record]:
    """(split, metric) -> the last record."""
    return {(r.split, r.metric): r for r in run.of(JOB) if r.data == name}


def _mean(found: Sequence[Mapping[tuple[str, str], Record]]) -> str:
    """The split that the runs' means are in: of all fifteen, or of those measured."""
    splits = {split for records in found for split, _ in records}
    if "mean" in splits:
        return "mean"
    partial = [s for s in splits if s.startswith(("mean of ", "mean, "))]
    return max(partial, key=_breadth, default="mean")


def _means(found: Sequence[Mapping[tuple[str, str], Record]]) -> list[str]:
    """The splits of the runs' means: that of ``_mean``, then those of other sets."""
    splits = {split for records in found for split, _ in records if "/" not in split}
    whole = []
    for name in _SETS:
        own = [s for s in splits if s.partition(",")[0] == name]
        whole += [max(own, key=_breadth)] if own else []
    return [_mean(found), *whole]


def _in_words(mean: str) -> str:
    """How a mean is called: "mean, C-bar, severities 1 3"."""
    name, comma, severities = mean.partition(",")
    return f"mean, {_SETS[name][0]}{comma}{severities}" if name in _SETS else mean


def _breadth(split: str) -> tuple[int, int]:
    """How many corruptions and severities a mean such as "mean of 3, ..." is over."""
    members, _, severities = split.partition(", severities ")
    last = members.split()[-1]
    return int(last) if last.isdigit() else 15, len(severities.split()) or 5


def _cells(run: RunView, name: str) -> dict[tuple[str, int], Record]:
    """(corruption, severity) -> error."""
    result = {}
    for (split, metric), record in _by_split(run, name).items():
        corruption, _, severity = split.partition("/")
        if metric == "error" and severity and not corruption.startswith("mean"):
            result[corruption, int(severity)] = record
    return result


def _heatmap(
    cells: Mapping[tuple[str, int], float], *, title: str, most: float, signed: bool
) -> str:
    """Rows of corruptions, columns of severities and their mean, tinted.

    Args:
        cells: (corruption, severity) -> error or difference, a fraction.
        title: of the table.
        most: the value of the strongest colour.
        signed: whether values are differences.
    """
    columns = sorted({severity for _, severity in cells})
    groups = []
    for _, members in _GROUPS:
        rows = []
        for corruption in members:
            values = [cells.get((corruption, s)) for s in columns]
            if known := [v for v in values if v is not None]:
                values.append(sum(known) / len(known))
                label = html_lib.row_head(corruption.replace("_", " "))
                rows.append([label, *(_cell(v, most, signed) for v in values)])
        if rows:
            groups.append(("", rows))
    heads = [html_lib.th(text) for text in (*map(str, columns), "mean")]
    return html_lib.tabulate(
        heads, groups, caption=title, corner="Severity", kind="heat"
    )


def _cell(value: float | None, most: float, signed: bool) -> str:
    if value is None:
        return html_lib.td("–")
    text = f"{100 * value:+.1f}" if signed else f"{100 * value:.1f}"
    tint = "good" if signed and value < 0 else "bad"
    strength = min(abs(value) / most, 1.0) if most else 0.0
    return f'<td class="{tint}" style="--v:{strength:.2f}">{text}</td>'


def answers(runs: Sequence[RunView]) -> list[answer.Row]:
    """The mean error of each set, and mCE where it is defined."""
    rows = []
    for name in dict.fromkeys(r.data for run in runs for r in run.of(JOB)):
        found = [_by_split(run, name) for run in runs]
        rows += [r for mean in _means(found) if (r := _answer(runs, name, mean))]
    return rows


def _answer(runs: Sequence[RunView], name: str, mean: str) -> answer.Row | None:
    """The row of one mean; None where no run has it."""
    members = _SETS.get(mean.partition(",")[0], ("", CORRUPTIONS))[1]
    cells, sizes = [], set()
    for run in runs:
        record = _by_split(run, name).get((mean, "error"))
        usual = [r for (c, _), r in _cells(run, name).items() if c in members]
        cells.append(answer.over(record, usual))
        sizes |= {r.n for r in usual}
    if not any(cells):
        return None
    sizes = sizes or {r.n for run in runs for r in _cells(run, name).values()}
    size = " or ".join(f"{n:,}" for n in sorted(sizes))
    kinds = "" if mean == "mean" else f"{_in_words(mean)}, "
    return answer.Row(
        question=TITLE,
        number="Mean error ↓",
        place=f"{name}, {kinds}n = {size} a set",
        section=TITLE,
        cells=cells,
    )


def _numbers(runs: Sequence[RunView], name: str, mean: str) -> str:
    """Clean error and the numbers of one mean of each run; empty where none has it."""
    found = [_by_split(run, name) for run in runs]
    columns = [c for c in _COLUMNS if any((mean, c[0]) in f for f in found)]
    wanted = [("clean", "error"), *((mean, metric) for metric, _ in columns)]
    rows = [
        [
            html_lib.row_head(html_lib.run_name(i, run.name)),
            html_lib.td(f"{own[mean, 'error'].n:,}", "number"),
            *(
                html_lib.td(html_lib.escape(numbers.value(own.get(cell))), "number")
                for cell in wanted
            ),
        ]
        for i, (run, own) in enumerate(zip(runs, found, strict=True))
        if (mean, "error") in own
    ]
    if not rows:
        return ""
    about = f"{_about(mean)}. Lower is better everywhere."
    if any(metric == "mce" for metric, _ in columns):
        about += " mCE and relative mCE are in relation to AlexNet, which has 100 %."
    titles = ("Images, over all sets", "Clean error ↓", *dict(columns).values())
    heads = [html_lib.th(title) for title in titles]
    set_name = _SETS.get(mean.partition(",")[0], ("",))[0]
    caption = f"{name}, {set_name}" if set_name else name
    table = html_lib.tabulate(
        heads, [("", rows)], caption=f"Means, {caption}", corner="Run"
    )
    return html_lib.card(table) + html_lib.note(about)


def _about(mean: str) -> str:
    """What a mean is over, in words."""
    if mean == "mean":
        return (
            "Means over the fifteen corruptions and their severities, other sets left "
            "out"
        )
    if mean == "mean c_bar":
        return (
            "Means over the ten corruptions of C-bar, which were chosen to be unlike "
            "the fifteen (Mintun et al., NeurIPS 2021)"
        )
    words = _in_words(mean).replace("mean", "mean over corruptions")
    return (
        f"The {words}; not to be compared with a mean over the usual fifteen in all "
        "severities"
    )


def _published(runs: Sequence[RunView], name: str) -> str:
    """The paper's rows, and where each run's set-up isn't the paper's."""
    theirs = TABLE_1.get(name.partition(" ")[0])
    measured = [r for r in runs if ("mean", "error") in _by_split(r, name)]
    if theirs is None or not measured:
        return ""
    networks = [NETWORKS.get(run.settings.get("model.name", "")) for run in measured]
    chosen = [n for n in theirs if n in networks] or ["WRN-40-2"]
    rows = [
        [html_lib.row_head(method), *(tables.published(theirs[n][i]) for n in chosen)]
        for i, method in enumerate(METHODS.values())
    ]
    heads = [html_lib.th(f"{network}, paper") for network in chosen]
    table = html_lib.card(
        html_lib.tabulate(
            heads, [("", rows)], caption=f"Published, {name}", corner="Method"
        )
    )
    differences = [
        f"{run.name}: {text}" for run in measured if (text := _differences(run, name))
    ]
    about = html_lib.note(
        "Published mean errors (Chen et al., ICCV 2021; "
        f"{EPOCHS} epochs, official files), not measured here."
    )
    if differences:
        about += html_lib.note("They don’t compare directly:")
        about += html_lib.items(differences)
    return html_lib.details(f"Published for {name}", table + about)


def _differences(run: RunView, name: str) -> str:
    """Where the set-up of a run isn't the paper's, in words."""
    record = _by_split(run, name)["mean", "error"]
    settings = record.extra.get("settings", {})
    network, epochs = map(run.settings.get, ("model.name", "optim.epochs"))
    texts = [] if run.trained else ["trained elsewhere"]
    if network not in NETWORKS:
        texts.append(f"its network is {network or 'unknown'}, which the paper lacks")
    if epochs and float(epochs) != EPOCHS:
        texts.append(f"trained for {float(epochs):g} epochs, not {EPOCHS}")
    if settings.get("source") == "generated":
        texts.append("corrupted by this project, not the official files")
    if settings.get("examples"):
        texts.append(f"measured on {settings['examples']} images of each set")
    if record.extra.get("severities", list(SEVERITIES)) != list(SEVERITIES):
        texts.append(f"severities {record.extra['severities']} only")
    return "; ".join(texts)
