"""A table as a picture: one line for each method, the best first."""

import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from experiments import drawing

# Colours that people with any colour vision tell apart (Okabe and Ito).
_MAIN: dict[str, Any] = {"color": "#0072b2", "marker": "o", "linestyle": "none"}
_OTHER: dict[str, Any] = {"color": "#d55e00", "marker": "D", "linestyle": "none"}


def draw(
    target: pathlib.Path,
    values: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str,
    main: str,
    other: str,
    higher_is_better: bool,
) -> None:
    """Draws what a table says of each method, with the deviation over its seeds.

    Args:
        target: PNG to write.
        values: name of the method -> percent of each seed; the main column, by which
            methods are ordered, and the other one. Methods without a main value are
            left out.
        title: above the picture.
        main, other: headings of the two columns.
        higher_is_better: which end comes first.
    """
    ranked = sorted(
        ((name, *both) for name, both in values.items() if both[0]),
        key=lambda item: statistics.mean(item[1]),
        reverse=higher_is_better,
    )
    if not ranked:
        return
    figure = drawing.figure(7.2, 1.4 + 0.27 * len(ranked))
    axes = figure.subplots()
    for place, (_, first, second) in enumerate(ranked):
        for numbers, kind in ((second, _OTHER), (first, _MAIN)):
            if not numbers:
                continue
            spread = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
            middle, style = statistics.mean(numbers), {"markersize": 5, "capsize": 2.5}
            axes.errorbar(middle, place, xerr=spread or None, **style, **kind)
    for text, kind in ((main, _MAIN), (other, _OTHER)):
        axes.plot([], [], label=text, **kind)
    axes.set_yticks(range(len(ranked)), [name for name, *_ in ranked])
    axes.set_ylim(len(ranked) - 0.5, -0.5)
    best = "highest" if higher_is_better else "lowest"
    several = any(len(first) > 1 for _, first, _ in ranked)
    bars = "; bars: ± standard deviation over seeds" if several else ""
    axes.set_xlabel(f"Percent, ordered by the first, {best} at the top{bars}")
    axes.grid(axis="x", alpha=0.4)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=10, loc="left")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    drawing.save(figure, target)
