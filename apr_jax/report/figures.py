"""The figures of the page, in colours that come from the page's style.

SVG is drawn with Matplotlib's objects, never ``pyplot``, so no state is left behind.
Its colours are place-holders that become CSS variables (``--ink``, ``--run-0`` ...), by
which one figure serves a light and a dark page; text stays text.
"""

import html
import io
import itertools
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from apr_jax.metrics.calibration import Reliability
from apr_jax.report.html import breakable
from apr_jax.report.html import figure as titled
from apr_jax.report.numbers import shown
from apr_jax.report.style import RUNS as COUNT
from apr_jax.runs.curves import CurveRow
from apr_jax.runs.records import Record

# Colours that occur nowhere else, each replaced by a CSS variable.
INK, FAINT, BAD, GREY = "#010203", "#010204", "#010205", "#010206"
RUNS = tuple(f"#01030{i}" for i in range(COUNT))
_VARIABLES = {INK: "--ink", FAINT: "--faint", BAD: "--bad", GREY: "--grey"} | {
    colour: f"--run-{i}" for i, colour in enumerate(RUNS)
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "apr_jax",
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.alpha": 0.5,
    "grid.linewidth": 0.6,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}
# A curve on a page needs no more points than this across its width.
_POINTS = 300


def colour(run: int) -> str:
    """The place-holder colour of the run-th run; they repeat after ``style.RUNS``."""
    return RUNS[run % len(RUNS)]


# --- Numbers -------------------------------------------------------------------------


def forest(groups: Sequence[tuple[str, Sequence[tuple[int, str, Record]]]]) -> str:
    """Values with their intervals, one under the other, on one scale.

    Boxes rather than SVG: on a narrow page the names move above their lines, where a
    picture would only shrink.

    Args:
        groups: (title, rows) with a row of (index of the run, its name, record); all
            of them fractions.
    """
    every = [
        100 * x
        for _, rows in groups
        for _, _, record in rows
        for x in (record.value, record.low, record.high)
        if x is not None
    ]
    room = max(0.06 * (max(every) - min(every)), 0.5)
    low, high = max(0.0, min(every) - room), min(100.0, max(every) + room)
    at = lambda value: f"{100 * (value - low) / (high - low):.2f}%"
    ticks = ticker.MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], min_n_ticks=3).tick_values(
        low, high
    )
    ticks = [tick for tick in ticks if low <= tick <= high]
    lines = "".join(f'<i style="left:{at(tick)}"></i>' for tick in ticks)
    parts = []
    for title, rows in groups:
        parts.append(f"<h3>{html.escape(title)}</h3>")
        for run, name, record in rows:
            value = 100 * record.value
            ends = [value if x is None else 100 * x for x in (record.low, record.high)]
            width = f"{100 * (ends[1] - ends[0]) / (high - low):.2f}%"
            parts.append(
                f'<div class="row" style="color:var(--run-{run % len(RUNS)})">'
                f'<span class="name">{breakable(name)}</span>'
                f'<span class="track">{lines}'
                f'<b style="left:{at(ends[0])};width:{width}"></b>'
                f'<u style="left:{at(value)}"></u></span>'
                f'<span class="value">{html.escape(shown(record)[0])}</span></div>'
            )
    axis = "".join(
        f'<span style="left:{at(tick)}">{tick:g}&nbsp;%</span>' for tick in ticks
    )
    return (
        f'<div class="forest">{"".join(parts)}<div class="row axis">'
        f'<span class="name"></span><span class="track">{axis}</span></div></div>'
    )


# --- Curves --------------------------------------------------------------------------


def curves(runs: Mapping[str, Sequence[CurveRow]], quantity: str) -> str:
    """One quantity over the epochs, a line for each run.

    Extra scalars whose names end in the quantity's are dashed lines beside it.

    Args:
        runs: name -> rows, perhaps none; the place of a run is its colour.
        quantity: "loss", "accuracy", "learning_rate" or "images_per_second".
    """
    titles = {
        "loss": "Training loss",
        "accuracy": "Training accuracy",
        "learning_rate": "Learning rate",
        "images_per_second": "Images per second",
    }
    if quantity not in titles:
        raise ValueError(f"unknown quantity {quantity!r}; choose from {list(titles)}")

    def draw(axes: Axes) -> None:
        for run, rows in enumerate(runs.values()):
            if not rows:
                continue
            epochs = np.array([row.epoch for row in rows])
            values = np.array([getattr(row, quantity) for row in rows])
            # A rate that jumps must not be smeared by averaging.
            line = _thin if quantity == "learning_rate" else _averaged
            # Thinner from run to run: equal curves lie upon each other.
            width = max(1.2, 3.0 - run)
            axes.plot(*line(epochs, values), color=colour(run), linewidth=width)
            for extra in sorted({key for row in rows for key in row.extra}):
                if extra.endswith(quantity):
                    some = [row for row in rows if extra in row.extra]
                    axes.plot(
                        [row.epoch for row in some],
                        [row.extra[extra] for row in some],
                        color=colour(run),
                        linestyle="--",
                    )
        axes.set_xlabel("Epoch")
        axes.margins(x=0.01)
        if quantity == "accuracy":
            percent(axes.yaxis)
        elif quantity == "images_per_second":
            axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
            axes.set_ylim(0, 1.08 * axes.get_ylim()[1])
        elif quantity == "learning_rate":
            axes.set_ylim(bottom=0)

    label = f"{titles[quantity]} over epochs: {', '.join(runs)}"
    return plot(draw, (4.2, 2.5), label, title=titles[quantity])


def _thin(x: npt.NDArray, y: npt.NDArray) -> tuple[npt.NDArray, npt.NDArray]:
    keep = np.unique(np.linspace(0, len(x) - 1, 4 * _POINTS).astype(int))
    # Only where the line bends: a schedule of steps is a handful of points.
    bend = np.ones(len(keep), bool)
    bend[1:-1] = (y[keep][1:-1] != y[keep][:-2]) | (y[keep][1:-1] != y[keep][2:])
    return x[keep][bend], y[keep][bend]


def _averaged(x: npt.NDArray, y: npt.NDArray) -> tuple[npt.NDArray, npt.NDArray]:
    if len(x) <= _POINTS:
        return x, y
    parts = [np.array_split(v, _POINTS) for v in (x, y)]
    return tuple(np.array([part.mean() for part in v]) for v in parts)  # type: ignore


# --- Calibration and confusion -------------------------------------------------------


def reliability(diagram: Reliability, *, run: int, title: str) -> str:
    """A reliability diagram, with the share of examples in each bin below it."""
    filled = diagram.count > 0
    total = diagram.count.sum()
    gap = np.where(filled, diagram.confidence - diagram.accuracy, 0.0)
    error = float(np.sum(diagram.count / total * np.abs(gap)))
    width = np.diff(diagram.edges)[filled]
    left = diagram.edges[:-1][filled]
    accuracy, confidence = diagram.accuracy[filled], diagram.confidence[filled]

    def draw(figure: Figure) -> None:
        # Placed by hand: to measure all the bars and labels takes a second.
        places = {"left": 0.22, "right": 0.94, "top": 0.98, "bottom": 0.13}
        figure.set_layout_engine("none")
        axes, below = figure.subplots(
            2, 1, sharex=True, gridspec_kw={"height_ratios": [4.5, 1], **places}
        )
        kind = {"align": "edge", "linewidth": 0}
        wide, under = width * 0.94, np.minimum(accuracy, confidence)
        axes.bar(left, under, wide, color=colour(run), alpha=0.9, **kind)
        for excess, tint in ((accuracy, colour(run)), (confidence, BAD)):
            axes.bar(left, excess - under, wide, under, color=tint, alpha=0.35, **kind)
        axes.plot([0, 1], [0, 1], "--", color=INK, linewidth=0.9)
        axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="Accuracy")
        below.bar(left, diagram.count[filled] / total, width * 0.94, color=GREY, **kind)
        below.set(xlabel="Confidence", ylabel="Share")
        below.set_ylim(bottom=0)
        for axis in (axes.yaxis, below.yaxis, below.xaxis):
            percent(axis, decimals=0)
        below.yaxis.set_major_locator(ticker.MaxNLocator(2))

    label = f"Reliability diagram, {title}: expected error {100 * error:.1f} %"
    return titled(f"{title}: ECE {100 * error:.1f} %", svg(draw, (3.1, 2.9), label))


def confusion(
    counts: npt.NDArray[np.int64], names: Sequence[str], *, run: int, title: str
) -> str:
    """How often each class (row) is taken for each (column), in percent of the row.

    Args:
        counts: [C, C] examples, label by prediction.
        names: of the classes, C of them; long ones are cut.
        run: index of the run.
        title: above the figure.
    """
    c, cell, margin = len(counts), 30, 92
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    wrong = np.where(np.eye(c, dtype=bool), 0, share)
    # Mistakes are few: on the scale of the hits nobody would see them.
    strength = np.where(np.eye(c, dtype=bool), share, wrong / max(wrong.max(), 0.05))
    parts = []
    for i, j in itertools.product(range(c), range(c)):
        x, y = margin + cell * j, cell * i
        tint = f"var(--run-{run % len(RUNS)})" if i == j else "var(--bad)"
        if strength[i, j] >= 0.02:
            parts.append(
                f'<rect x="{x}" y="{y}" width="{cell}" height="{cell}" '
                f'fill="{tint}" style="--v:{strength[i, j]:.2f}"/>'
            )
        if round(100 * share[i, j]) >= 1:
            text = f"{100 * share[i, j]:.0f}"
            parts.append(f'<text x="{x + cell / 2}" y="{y + 19.5}">{text}</text>')
    side, low = cell * c, cell * c
    for k, name in enumerate(names):
        # Long names would run out of the picture.
        name = html.escape(name if len(name) <= 13 else name[:12] + "…")
        at = cell * k + 19
        parts.append(f'<text x="{margin - 6}" y="{at}" class="end">{name}</text>')
        place = f"translate({margin + cell * k + 19} {low + 6}) rotate(-90)"
        parts.append(f'<text transform="{place}" class="end">{name}</text>')
    middle = margin + side / 2
    parts += [
        f'<rect x="{margin}" y="0" width="{side}" height="{side}" class="frame"/>',
        f'<text x="{middle}" y="{low + margin + 8}">Prediction</text>',
        f'<text transform="translate(8 {side / 2}) rotate(-90)">Label</text>',
    ]
    size = margin + side + 10, low + margin + 14
    return titled(title, boxes(parts, size, f"Confusion between classes, {title}"))


def boxes(parts: Sequence[str], size: tuple[int, int], label: str) -> str:
    """An ``<svg>`` of rectangles and text, up to 1.2 times its size wide."""
    view = f"0 0 {size[0]} {size[1]}"
    opened = _open('class="confusion"', view, label, 1.2 * size[0])
    return f"{opened}>{''.join(parts)}</svg>"


def _open(first: str, view: str, label: str, width: float) -> str:
    """The beginning of an ``<svg>`` up to ``width`` pixels wide."""
    return (
        f'<svg {first} viewBox="{view}" role="img" '
        f'aria-label="{html.escape(label, quote=True)}" '
        f'style="max-width:{width:.0f}px"'
    )


# --- From Matplotlib to the page -----------------------------------------------------


def percent(axis: Axis, *, whole: float = 1.0, decimals: int | None = None) -> None:
    """Labels an axis in percent of ``whole``; None takes as many digits as it needs."""
    axis.set_major_formatter(ticker.PercentFormatter(whole, decimals=decimals))


def plot(
    draw: Callable[[Axes], None],
    size: tuple[float, float],
    label: str,
    *,
    title: str,
    note: str = "",
) -> str:
    """Draws one pair of axes, as ``svg`` does a figure, under a title of the page."""
    picture = svg(lambda figure: draw(figure.subplots()), size, label)
    return titled(title, picture, note)


def field(
    draw: Callable[[Axes], ScalarMappable], label: str, *, title: str, as_percent: bool
) -> str:
    """Draws a field of colours with a bar that explains them, as ``plot``."""

    def both(axes: Axes) -> None:
        axes.grid(False)
        bar = axes.figure.colorbar(
            draw(axes), ax=axes, shrink=0.85 if as_percent else 1
        )
        bar.outline.set_visible(False)  # type: ignore[operator]
        if as_percent:
            percent(bar.ax.yaxis)

    return plot(both, (3.3, 2.7), label, title=title)


def svg(draw: Callable[[Figure], None], size: tuple[float, float], label: str) -> str:
    """Draws and returns an ``<svg>`` element that scales with its surroundings."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for placeholder, variable in _VARIABLES.items():
        text = text.replace(placeholder, f"var({variable})")
    # Several figures share the page, and Matplotlib numbers each from one.
    prefix = f"f{zlib.crc32(text.encode()):08x}"
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{prefix}-", text)
    head = text[: text.index(">")]
    view = re.search(r'viewBox="([^"]*)"', head)
    assert view is not None, "Matplotlib's SVG has a viewBox"
    width = float(view[1].split()[2])
    names = 'xmlns:xlink="http://www.w3.org/1999/xlink"'
    return _open(names, view[1], label, 1.5 * width) + text[text.index(">") :].strip()
