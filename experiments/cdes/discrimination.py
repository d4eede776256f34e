"""CDES, feature discrimination: what networks can tell from high frequencies alone.

    python -m experiments.cdes.discrimination --data_dir TFDS

Trains a network on plain, on SCR and on WCR images (see ``cdes_make_dataset``) and
measures each on the frequencies beyond a radius of 10 to 18, of test images of its own
kind, beside the published rows, and of plain ones. Where the high frequencies tell the
class, a network should learn them.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from apr_jax import spectral
from apr_jax.pixels import to_pixels
from apr_jax.runs.records import Record
from experiments import drawing, measures
from experiments.cdes import common
from experiments.lab import Lab, main

NAME = "cdes_discrimination"
SIZES, OPTIONS = common.SIZES, common.OPTIONS
# The high part has no mean brightness, which no training image lacks. The description
# doesn't say whether it was put back.
GREY = np.float32(0.5)
PANELS = (
    ("Test images of its own kind", "own", "high_{}"),
    ("The same, on mid-grey", "own", "high_{}_on_grey"),
    ("Plain test images", "plain", "high_{}"),
)


def compute(lab: Lab) -> Iterator[Record]:
    """Trains the three networks and measures each on two kinds of images."""
    wanted = [(k, on) for k in common.KINDS for on in dict.fromkeys((k, "plain"))]
    parts = {
        pair: lab.part("{} on {}".format(*pair), radii=common.RADII) for pair in wanted
    }
    missing = {pair: part for pair, part in parts.items() if not part.done}
    if not missing:
        return
    splits, bases = common.sets(lab)
    for (kind, on), part in missing.items():
        network = common.network(lab, kind, bases[kind])
        test = splits[on]["test"]
        measured = {"accuracy": measures.accuracy(network, test.images, test.labels)}
        for radius in common.RADII:
            high = high_part(test.images, radius)
            found = measures.accuracy(network, high, test.labels)
            measured[f"high_{radius}"] = found
            if on == kind:
                found = measures.accuracy(network, high + GREY, test.labels)
                measured[f"high_{radius}_on_grey"] = found
        yield from part.records(measured, network, trained=kind, on=on)


def high_part(images: np.ndarray, radius: float) -> np.ndarray:
    """The part of images beyond a radius, float32, not clipped: it may be negative."""
    run = jax.jit(lambda x, r: spectral.split_bands(to_pixels(x), r)[1])
    return measures.in_parts(lambda x: run(x, np.float32(radius)), images)


def plot(records: Sequence[Record]) -> drawing.Figures:
    """Accuracy over the radius, ours beside the published."""
    title = (
        "What a network can tell from high frequencies, by what it was trained on; "
        "dashed: chance of ten classes"
    )
    figure = drawing.figure(11, 3.7, title, size=11)
    grid = figure.subplots(1, len(PANELS), sharey=True)
    for axes, (title, on, metric) in zip(grid, PANELS, strict=True):
        for kind, label in common.KINDS.items():
            split = f"{kind} on {kind if on == 'own' else on}"
            found = {r.metric: r for r in drawing.find(records, split=split)}
            wanted = [metric.format(radius) for radius in common.RADII]
            style: dict[str, Any] = {"color": common.COLOURS[kind]}
            if found.keys() >= set(wanted):
                style["label"] = (
                    f"{label} (whole: {100 * found['accuracy'].value:.0f} %)"
                )
                drawing.curve(
                    axes,
                    [found[m] for m in wanted],
                    lambda r: int(r.metric.split("_")[1]),
                    "o-",
                    interval=0.2,
                    ms=4,
                    **style,
                )
            if axes is grid[0]:
                style["label"] = "published"
                axes.plot(common.RADII, common.PUBLISHED[kind], "x:", lw=1, **style)
        axes.axhline(10, color="black", lw=0.6, ls="--")
        axes.set_title(title, fontsize=10)
        axes.set(xlabel="only frequencies beyond this radius", ylim=(0, 100))
        axes.set_xticks(common.RADII)
        axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.26))
    grid[0].set_ylabel("accuracy, percent")
    return {"discrimination": figure}


if __name__ == "__main__":
    main(__name__)
