"""The part of the page on adversarial attacks: robust accuracy, attack by attack."""

import functools
import itertools
from collections.abc import Sequence

import rich.table
from matplotlib.axes import Axes

from apr_jax.report import answer, figures, numbers, tables
from apr_jax.report import html as html_lib
from apr_jax.report.published import FGSM, FGSM_EPS, table_3
from apr_jax.report.run_view import RunView
from apr_jax.runs import records as records_lib
from apr_jax.runs.records import Record

JOB = "evaluate.adversarial"
TITLE = "Attacked images"

_NORMS = {"linf": "L∞", "l2": "L2", "l1": "L1"}
_NAMES = {
    "clean": "No attack",
    "fgsm": "FGSM",
    "pgd": "PGD",
    "apgd-ce": "APGD, cross-entropy",
    "apgd-dlr": "APGD, DLR",
    "apgd-t": "APGD, targeted DLR",
    "fab": "FAB",
    "fab-t": "FAB, targeted",
    "square": "Square",
    "pma": "PMA",
}


def html(runs: Sequence[RunView]) -> str:
    """Curves over the radius, a table for each radius, and some of the images."""
    mine = [_mine(run) for run in runs]
    if not any(mine):
        return ""
    drawn = [_curve(runs, mine, family) for family in _families(mine)]
    return html_lib.section(
        TITLE,
        _note(mine),
        html_lib.grid("wide", drawn),
        html_lib.card(_table(runs, mine)),
        _warnings(runs, mine),
        _sheets(runs, mine),
    )


def table(runs: Sequence[RunView]) -> rich.table.Table | None:
    """Accuracy left after each attack, runs across, for the terminal."""
    mine = [_mine(run) for run in runs]
    if not any(mine):
        return None
    groups = [
        (
            numbers.bold(_title(mine, *place)),
            [
                [_label(metric), *map(numbers.with_interval, found)]
                for metric, found in _rows(mine, *place)
            ],
        )
        for place in _places(mine)
    ]
    return numbers.terminal("Adversarial attacks", [run.name for run in runs], groups)


# --- Records -------------------------------------------------------------------------


def _mine(run: RunView) -> list[Record]:
    """A run's records of this job, of the newest settings of each split."""
    records = run.of(JOB)
    newest = {(r.data, r.split): r.extra["settings"] for r in records}
    return [r for r in records if r.extra["settings"] == newest[r.data, r.split]]


def _places(mine: Sequence[Sequence[Record]]) -> list[tuple[str, str]]:
    """(data, split), norm by norm in the order of the radius."""
    order = list(_NORMS)
    places = {
        (r.data, r.split): (r.data, order.index(r.extra["norm"]), r.extra["eps"])
        for r in itertools.chain(*mine)
    }
    return sorted(places, key=lambda place: (places[place], place))


# (data, norm, attack, its steps, its queries)
_Family = tuple[str, str, str, int, int]


def _family(record: Record) -> _Family:
    """The figure of a record: radii of one attack of one strength are a curve."""
    settings = record.extra["settings"]
    strength = (settings["attack"], settings["steps"], settings["queries"])
    return record.data, record.extra["norm"], *strength


def _families(mine: Sequence[Sequence[Record]]) -> list[_Family]:
    order = list(_NORMS)
    found = {
        _family(r) for r in itertools.chain(*mine) if r.metric == "robust_accuracy"
    }
    return sorted(found, key=lambda f: (f[0], order.index(f[1]), *f[2:]))


def _rows(
    mine: Sequence[Sequence[Record]], data: str, split: str
) -> list[tuple[str, list[Record | None]]]:
    """The rows of one radius: attacks in their order, then the outcome."""
    places = {
        r.metric: r.extra["order"]
        for r in itertools.chain(*mine)
        if (r.data, r.split) == (data, split) and "order" in r.extra
    }
    find = functools.partial(records_lib.find, data=data, split=split)
    return [
        (metric, [find(records, metric=metric) for records in mine])
        for metric in (*sorted(places, key=places.__getitem__), "robust_accuracy")
    ]


def _label(metric: str) -> str:
    if metric == "robust_accuracy":
        return "Robust accuracy\u00a0↑"
    name = "clean" if metric == "clean_accuracy" else metric.removeprefix("after_")
    return _NAMES.get(name, name) if name == "clean" else f"+ {_NAMES.get(name, name)}"


def _title(mine: Sequence[Sequence[Record]], data: str, split: str) -> str:
    found = [r for r in itertools.chain(*mine) if (r.data, r.split) == (data, split)]
    attack = _attack(found[0].extra["settings"]["attack"])
    size = numbers.size([("", found)])
    return f"{data}, {bounds(found[0])}, {attack}, {size}"


def bounds(record: Record) -> str:
    """The ball of a record, such as “L∞ up to 8/255”."""
    norm = record.extra["norm"]
    return f"{_NORMS[norm]} up to {_radius(record.extra['eps'], norm)}"


def _attack(name: str) -> str:
    known = {"standard": "AutoAttack", "standard+pma": "AutoAttack and PMA"}
    return known.get(name, name)


def _radius(eps: float, norm: str) -> str:
    """A radius as 8/255 where it is one of those."""
    grey = 255 * eps
    if norm == "linf" and grey > 0.5 and abs(grey - round(grey)) < 1e-3:
        return f"{round(grey)}/255"
    return f"{eps:.4g}"


# The radius that is usual for each norm in the literature; RobustBench's for two.
_USUAL = {"linf": 8 / 255, "l2": 0.5, "l1": 12.0}


def answers(runs: Sequence[RunView]) -> list[answer.Row]:
    """Robust accuracy of each norm, at its usual radius, or else the largest."""
    mine = [_mine(run) for run in runs]
    chosen: dict[tuple[str, str], tuple[str, str]] = {}
    for place in _places(mine):  # by rising radius
        found = [r for r in itertools.chain(*mine) if (r.data, r.split) == place]
        norm = found[0].extra["norm"]
        usual = abs(found[0].extra["eps"] - _USUAL[norm]) < 1e-6
        if usual or not _at_usual(mine, chosen.get((place[0], norm))):
            chosen[place[0], norm] = place
    norms = {norm for _, norm in chosen}
    return [
        answer.Row(
            question=TITLE if len(norms) == 1 else f"{TITLE}, {_NORMS[norm]}",
            number="Robust accuracy ↑",
            place=_title(mine, *place),
            section=TITLE,
            cells=_rows(mine, *place)[-1][1],
        )
        for (_, norm), place in chosen.items()
    ]


def _at_usual(mine: Sequence[Sequence[Record]], place: tuple[str, str] | None) -> bool:
    return any(
        (r.data, r.split) == place
        and abs(r.extra["eps"] - _USUAL[r.extra["norm"]]) < 1e-6
        for r in itertools.chain(*mine)
    )


# --- Parts of the page ---------------------------------------------------------------


def _note(mine: Sequence[Sequence[Record]]) -> str:
    short = sorted(
        {
            f"{r.extra['settings'][what]} {what} instead of {usual}"
            for r in itertools.chain(*mine)
            for what, usual in (("steps", 100), ("queries", 5000))
            if r.extra["settings"][what] < usual
        }
    )
    text = (
        "Share of the images that are still classified correctly after each attack has "
        "tried to change them within the given radius; higher is better. Every attack "
        "works on what those before it left standing, so the last is the worst case "
        "over all of them. An attack can show that a network is not robust, never that "
        "it is."
    )
    if short:
        text += f" Weaker than usual, with {' and '.join(short)}."
    return html_lib.note(html_lib.escape(text))


def _curve(
    runs: Sequence[RunView], mine: Sequence[Sequence[Record]], family: _Family
) -> str:
    """Robust accuracy over the radius, beginning with the clean accuracy at 0."""
    lines: list[tuple[int, list[Record]]] = []
    data, norm, attack, steps, queries = family
    for i, records in enumerate(mine):
        chosen = [r for r in records if _family(r) == family]
        robust = [r for r in chosen if r.metric == "robust_accuracy"]
        robust.sort(key=lambda r: r.extra["eps"])
        clean = [r for r in chosen if r.metric == "clean_accuracy"]
        if robust:
            lines.append((i, [*clean[:1], *robust]))
    name = f"{data}, {_NORMS[norm]}, {_attack(attack)}"
    if len({other[3:] for other in _families(mine) if other[:3] == family[:3]}) > 1:
        name += f", {steps} steps, {queries:,} queries"

    def draw(axes: Axes) -> None:
        for i, line in lines:
            place = [
                0.0 if r.metric == "clean_accuracy" else r.extra["eps"] for r in line
            ]
            ends = [
                [
                    100 * abs(r.value - (r.value if end is None else end))
                    for end in (r.low, r.high)
                ]
                for r in line
            ]
            axes.errorbar(
                place,
                [100 * r.value for r in line],
                yerr=list(zip(*ends, strict=True)),
                color=figures.colour(i),
                marker="o",
                markersize=4,
                capsize=2,
                elinewidth=0.9,
            )
        places = sorted({r.extra["eps"] for _, line in lines for r in line})
        axes.set_xticks([0.0, *places], ["0", *(_radius(eps, norm) for eps in places)])
        axes.set_xlabel(f"Radius ({_NORMS[norm]}, pixels in [0, 1])")
        figures.percent(axes.yaxis, whole=100, decimals=0)
        axes.set_ylim(0, 100)

    words = f"Robust accuracy over the radius, {name}"
    caption = (
        "Accuracy on the worst image found within each radius; the higher a line "
        "stays, the better. Bars: 95 % intervals over the images."
    )
    colours = html_lib.legend(
        {i: f"{runs[i].name}, n = {line[-1].n:,}" for i, line in lines}
    )
    return colours + figures.plot(draw, (4.2, 2.7), words, title=name, note=caption)


def _table(runs: Sequence[RunView], mine: Sequence[Sequence[Record]]) -> str:
    """A group of rows for each radius, a column for each run, then published ones."""
    sources = FGSM if _comparable(runs, mine) else {}
    heads = html_lib.run_heads([run.name for run in runs])
    heads += [
        html_lib.th(f"{html_lib.escape(name)}, paper (PreAct-ResNet-18)", "soft")
        for name in sources.values()
    ]
    groups = []
    for place in _places(mine):
        rows = [
            [
                html_lib.row_head(
                    html_lib.escape(_label(metric)),
                    "outcome" if metric == "robust_accuracy" else "",
                ),
                *(tables.number(r) for r in found),
                *(_paper(source, metric, found) for source in sources),
            ]
            for metric, found in _rows(mine, *place)
        ]
        groups.append((html_lib.escape(_title(mine, *place)), rows))
    return html_lib.tabulate(
        heads, groups, caption="Accuracy left after each attack", corner="After"
    )


def _is_published(record: Record) -> bool:
    """Whether the paper measured the same: the whole AutoAttack at 8/255."""
    settings = record.extra["settings"]
    return (
        record.data == "cifar10"
        and record.extra["norm"] == "linf"
        and abs(record.extra["eps"] - FGSM_EPS) < 1e-6
        and settings["attack"] == "standard"
        and settings["steps"] >= 100
        and settings["queries"] >= 5000
    )


def _comparable(runs: Sequence[RunView], mine: Sequence[Sequence[Record]]) -> bool:
    """Whether the paper's network is among the runs, attacked as the paper did."""
    return any(
        run.settings.get("model.name") == "preact_resnet18"
        and any(_is_published(r) for r in records)
        for run, records in zip(runs, mine, strict=True)
    )


def _paper(source: str, metric: str, found: Sequence[Record | None]) -> str:
    column = {"clean_accuracy": "accuracy", "robust_accuracy": "robust"}.get(metric)
    if column is None or not any(r is not None and _is_published(r) for r in found):
        return tables.published(None)
    return tables.published(table_3()[source][column])


def _warnings(runs: Sequence[RunView], mine: Sequence[Sequence[Record]]) -> str:
    """Reasons not to take the numbers at their word."""
    lines = [
        f"{run.name}, {r.split}: {text}"
        for run, records in zip(runs, mine, strict=True)
        for r in records
        for text in r.extra.get("warnings", ())
    ]
    return html_lib.part("To be read with care", html_lib.items(lines))


def _sheets(runs: Sequence[RunView], mine: Sequence[Sequence[Record]]) -> str:
    """Images before and after, with what each was taken for."""
    parts = []
    for i, (run, records) in enumerate(zip(runs, mine, strict=True)):
        for record in records:
            sheet = record.extra.get("sheet")
            if not sheet:
                continue
            title = f"{run.name}, {bounds(record)}"
            pairs = ", ".join(
                f"{a} → {b}" for a, b in zip(sheet["from"], sheet["to"], strict=True)
            )
            parts.append(
                f'<figure><p class="title">{html_lib.run_name(i, title)}</p>'
                f'<img alt="{html_lib.escape(f"Adversarial images, {title}")}" '
                'style="width:100%;image-rendering:pixelated" '
                f'src="data:image/png;base64,{sheet["png"]}">'
                f"<figcaption>{html_lib.escape(pairs)}</figcaption></figure>"
            )
    about = (
        "Above the images, below what they became, then the difference around grey, "
        "stretched. Under them the class before and after."
    )
    body = html_lib.noted(about, html_lib.grid("wide", parts))
    return html_lib.part("Adversarial images", body)
