"""Frequencies on the page: heatmaps, filtered images, phase against amplitude."""

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import rich.table
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable

from apr_jax.report import answer, figures, numbers
from apr_jax.report import html as html_lib
from apr_jax.report.run_view import RunView, alike
from apr_jax.runs.records import Record

JOB = "evaluate.fourier"
TITLE = "Frequencies"
_FOLLOWS = {
    "follows_phase": ("the phase", "var(--phase)"),
    "follows_amplitude": ("the amplitude", "var(--amplitude)"),
    "follows_neither": ("neither", "var(--grey)"),
}


def html(runs: Sequence[RunView]) -> str:
    """Heatmaps, band curves and bars of the runs; empty where none was measured."""
    found = [_records(run) for run in runs]
    if not any(found):
        return ""
    return html_lib.section(
        TITLE, _heatmaps(runs, found), _bands(runs, found), _phases(runs, found)
    )


def table(runs: Sequence[RunView]) -> rich.table.Table | None:
    """The numbers by run; None where nothing was measured."""
    found = [_records(run) for run in runs]
    if not any(found):
        return None
    rows = [
        [_readable(name), *(numbers.value(own.get(name)) for own in found)]
        for name in dict.fromkeys(name for own in found for name in own)
    ]
    sizes = [{r.n for r in own.values() if ".clean" in r.metric} for own in found]
    rows.append(["Images", *(" or ".join(f"{n:,}" for n in sorted(s)) for s in sizes)])
    return numbers.terminal("Frequencies", [run.name for run in runs], [("", rows)])


def _records(run: RunView) -> dict[str, Record]:
    return {r.metric: r for r in run.of(JOB)}


def _readable(name: str) -> str:
    if name == "heatmap_error":
        return "Mean error under waves ↓"
    kind, joined, rest = name.partition(".")
    if rest == "clean_error":
        return f"Clean error, images of: {kind}"
    if rest[1:2].isdigit():
        return f"{kind.replace('_', ' ').capitalize()}, radius {rest[1:]}"
    beyond = ", both recognised" if joined else ""
    return f"{kind.replace('_', ' ').capitalize()}{beyond}"


def answers(runs: Sequence[RunView]) -> list[answer.Row]:
    """How often the answer follows the phase where it disagrees with the amplitude."""
    cells = [_records(run).get("follows_phase") for run in runs]
    there = [r for r in cells if r is not None]
    if not there:
        return []
    place = f"{there[0].data} {there[0].split}, {numbers.size([('', cells)])}"
    return [
        answer.Row(
            question="Phase or amplitude",
            number="Answers that follow the phase ↑",
            place=place,
            section=TITLE,
            cells=cells,
        )
    ]


# --- Heatmaps ------------------------------------------------------------------------


def _heatmaps(runs: Sequence[RunView], found: Sequence[dict[str, Record]]) -> str:
    maps = {
        i: np.array(own["heatmap_error"].extra["heatmap"])
        for i, own in enumerate(found)
        if "heatmap_error" in own
    }
    if not maps:
        return ""
    top = max(float(errors.max()) for errors in maps.values())
    records = {i: found[i]["heatmap_error"] for i in maps}
    drawn = []
    for i, errors in maps.items():
        mean = f"mean {100 * errors.mean():.1f} %, n = {records[i].n:,}"
        drawn.append(_map(errors, f"{runs[i].name}: {mean}", 0.0, top))
    first, *others = maps
    for i in others:
        pair = [records[k].extra["settings"]["norm"] for k in (first, i)]
        same = maps[i].shape == maps[first].shape and pair[0] == pair[1]
        if same and alike(records[i], records[first]):
            change = maps[i] - maps[first]
            most = max(float(np.abs(change).max()), 1e-4)
            title = f"{runs[i].name} less {runs[first].name}"
            drawn.append(_map(change, title, -most, most))
    drawn.append(_radial(maps, [run.name for run in runs]))
    norms = {r.extra["settings"]["norm"] for r in records.values()}
    norm = " or ".join(f"{norm:g}" for norm in sorted(norms))
    about = html_lib.note(
        "Error on test images to which a wave of one frequency was added, with an L2 "
        f"norm of {norm} in each channel. Each point of a map is a "
        "frequency: the lowest in the centre, the highest in the corners, horizontal "
        "waves left and right. Dark is better. In a difference blue means that the "
        "second run errs less. The curves are means over rings of the map."
    )
    legend = html_lib.legend({i: runs[i].name for i in maps})
    return html_lib.part(
        "Error under waves", legend, html_lib.grid("small", drawn), about
    )


def _map(values: npt.NDArray[np.float64], title: str, low: float, high: float) -> str:
    height, width = values.shape
    # The zero frequency is the pixel (side // 2); its middle is the origin.
    left, bottom = -(width // 2) - 0.5, height - height // 2 - 0.5

    def draw(axes: Axes) -> ScalarMappable:
        axes.set(xlabel="Cycles across", ylabel="Cycles down")
        return axes.imshow(
            values,
            cmap="RdBu_r" if low < 0 else "magma",
            vmin=low,
            vmax=high,
            extent=(left, left + width, bottom, bottom - height),
            interpolation="nearest",
        )

    words = f"Error by frequency: {title}"
    return figures.field(draw, words, title=title, as_percent=True)


def _radial(maps: dict[int, npt.NDArray[np.float64]], names: Sequence[str]) -> str:
    def draw(axes: Axes) -> None:
        for i, errors in maps.items():
            height, width = errors.shape
            rows = np.arange(height)[:, None] - height // 2
            columns = np.arange(width)[None] - width // 2
            ring = np.rint(np.hypot(rows, columns)).astype(int)
            counts = np.bincount(ring.ravel())
            mean = np.bincount(ring.ravel(), errors.ravel()) / counts
            axes.plot(np.arange(len(mean)), mean, color=figures.colour(i))
        axes.set(xlabel="Cycles an image", ylabel="Error")
        axes.set_ylim(bottom=0)
        figures.percent(axes.yaxis)

    words = f"Error by distance from zero frequency: {', '.join(names)}"
    return figures.plot(draw, (3.3, 2.7), words, title="Error over frequency")


# --- Bands ---------------------------------------------------------------------------


def _bands(runs: Sequence[RunView], found: Sequence[dict[str, Record]]) -> str:
    # Records of earlier radii may lie beside those of the last measurement.
    lines = {}
    for i, own in enumerate(found):
        if "bands.clean_error" in own:
            radii = own["bands.clean_error"].extra["settings"]["radii"]
            lines[i] = {
                band: [
                    own[name]
                    for r in radii
                    if (name := f"{band}_pass_error.r{r:g}") in own
                ]
                for band in ("low", "high")
            }
    if not lines:
        return ""

    def draw(band: str, axes: Axes) -> None:
        for i, bands in lines.items():
            rows = bands[band]
            radii = [r.extra["radius"] for r in rows]
            axes.plot(
                radii, [r.value for r in rows], "o-", ms=3, color=figures.colour(i)
            )
            ends = ([r.low or 0.0 for r in rows], [r.high or 1.0 for r in rows])
            axes.fill_between(radii, *ends, color=figures.colour(i), alpha=0.2, lw=0)
            level = found[i]["bands.clean_error"].value
            axes.axhline(level, color=figures.colour(i), ls=":", lw=1)
        side = "below" if band == "low" else "from"
        axes.set(xlabel=f"Frequencies {side} the radius, cycles", ylabel="Error")
        axes.set_ylim(0, 1)
        figures.percent(axes.yaxis, decimals=0)

    drawn = [
        figures.plot(
            functools.partial(draw, band),
            (4.2, 2.5),
            f"Error on {band}-pass filtered images over the radius",
            title=f"Only {band} frequencies",
        )
        for band in ("low", "high")
    ]
    clean = {i: found[i]["bands.clean_error"] for i in lines}
    colours = html_lib.legend(
        {i: f"{runs[i].name}, n = {record.n:,}" for i, record in clean.items()}
    )
    about = html_lib.note(
        "Error on test images of which only the frequencies within a radius (left) or "
        "beyond it (right) are left; lower is better. Dotted: on the images as they "
        "are. Shaded: 95 % intervals. A network that does well on the right leans on "
        "what people hardly see."
    )
    return html_lib.part(
        "Filtered images", colours, html_lib.grid("wide", drawn), about
    )


# --- Phase or amplitude --------------------------------------------------------------


def _phases(runs: Sequence[RunView], found: Sequence[dict[str, Record]]) -> str:
    parts = []
    for suffix, title in (
        ("", "All pairs"),
        (".recognised", "Pairs of images that are both recognised by themselves"),
    ):
        rows = [
            _bar(i, runs[i].name, [own[f"{name}{suffix}"] for name in _FOLLOWS])
            for i, own in enumerate(found)
            if f"follows_phase{suffix}" in own
        ]
        if rows:
            parts.append(f'<p class="title">{title}</p>{"".join(rows)}')
    if not parts:
        return ""
    colours = "".join(
        f'<span><span class="dot" style="background:{colour}"></span>{name}</span>'
        for name, colour in _FOLLOWS.values()
    )
    about = html_lib.note(
        "Each image joins the phase of one test image with the amplitude of another of "
        "a different class. People name the class of the phase; a network that names "
        "that of the amplitude looks at something else. More of the phase is better. "
        "In brackets: 95 % intervals."
    )
    return (
        f'<h3>Phase or amplitude?</h3><div class="legend">The answer follows {colours}'
        f"</div>{html_lib.card(''.join(parts))}{about}"
    )


def _bar(run: int, name: str, records: Sequence[Record]) -> str:
    pieces, words = [], []
    for record, (what, colour) in zip(records, _FOLLOWS.values(), strict=True):
        value, interval = numbers.shown(record)
        pieces.append(
            f'<span style="width:{100 * record.value:.2f}%;background:{colour}"></span>'
        )
        words.append(f"{what} {value} ({interval})")
    text = html_lib.escape("; ".join(words))
    return (
        f"<p>{html_lib.run_name(run, name)} "
        f'<span class="soft">{records[0].n:,} images: {text}</span></p>'
        '<div class="bar" '
        f'role="img" aria-label="{text}">{"".join(pieces)}</div>'
    )
