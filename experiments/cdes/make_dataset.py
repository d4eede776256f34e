"""CDES, data sets: SCR and WCR images, written as arrays that the loader reads.

    python -m experiments.cdes.make_dataset --data_dir TFDS

Each new image keeps the low frequencies of an image of the set and takes the high ones
of what the trained kernels of its class (SCR), or of all classes (WCR), make of it. The
sets lie in ``--work`` as ``sets/{plain,scr,wcr}``, for ``--set arrays:FOLDER`` of any
experiment. Shows a sheet of both beside the plain images, and their densities beside
the target, and says how long it takes in batches and image by image.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from apr_jax import cdes, data
from apr_jax.pixels import to_pixels
from apr_jax.runs.records import Record
from experiments import drawing, measures
from experiments.cdes import common
from experiments.lab import Lab, main

NAME = "cdes_make_dataset"
SIZES, OPTIONS = common.SIZES, common.OPTIONS
PER_CLASS = 2  # images of each class on a sheet
TIMED = 50  # images made one by one


def compute(lab: Lab) -> Iterator[Record]:
    """Makes the sets; then their densities, sheets and the timings."""
    if all(lab.part(kind).done for kind in (*common.KINDS, "time")):
        return
    splits, bases = common.sets(lab)
    names = lab.load("test").class_names
    for kind in common.KINDS:
        yield from measure(lab, kind, splits[kind]["train"], names, bases[kind])
    yield from timings(lab, splits["plain"]["train"])


def measure(
    lab: Lab, kind: str, split: data.ArraySplit, names: Sequence[str], base: Any
) -> Iterator[Record]:
    """Distance of the densities from the target, by class, and a sheet of images."""
    labels = np.asarray(split.labels)
    densities = lambda images: cdes.density(to_pixels(jnp.asarray(images)))
    profiles = measures.in_parts(densities, split.images, at_once=1000)
    target = cdes.double_peak(profiles.shape[-1])
    by_class = [profiles[labels == c].mean(0) for c in range(len(names))]
    missed = np.mean((profiles - target) ** 2)
    yield from lab.part(kind).records(
        {"density_error": measures.number(missed, len(labels))},
        classes=list(names),
        folder=base.data.data_dir.rpartition("sets")[2],
        profile=np.round(profiles.mean(0), 4).tolist(),
        by_class=np.round(by_class, 4).tolist(),
        target=np.round(target, 4).tolist(),
        sheet=sheet(split, len(names)),
    )


def sheet(split: data.ArraySplit, classes: int) -> str:
    """The first images of each class, a row for each: a PNG in base 64."""
    labels = np.asarray(split.labels)
    rows = [
        np.concatenate(list(split.images[np.flatnonzero(labels == c)[:PER_CLASS]]), 1)
        for c in range(classes)
    ]
    return drawing.pack(np.concatenate(rows))


def timings(lab: Lab, split: data.ArraySplit) -> Iterator[Record]:
    """Images a second of the making: all classes at once, and one image a call."""
    own = common.kernels(lab, lab.load("train").splits["train"])["scr"]
    few = data.ArraySplit(split.images[:2000], split.labels[:2000])
    common.remade(own, few)  # compiles
    started = time.monotonic()
    common.remade(own, few)
    together = len(few.labels) / (time.monotonic() - started)
    alone = jax.jit(lambda k, x: common.to_uint8(cdes.remake(k, x)))

    def one(i: int) -> np.ndarray:
        kernels = common.one_set(own, int(few.labels[i]))
        return np.asarray(alone(kernels, np.asarray(few.images[i : i + 1])))

    one(0)
    started = time.monotonic()
    count = min(TIMED, len(few.labels))
    for i in range(count):
        one(i)
    single = count / (time.monotonic() - started)
    speeds = {
        "made in batches": measures.number(together, len(few.labels), unit="img/s"),
        "made image by image": measures.number(single, count, unit="img/s"),
    }
    yield from lab.part("time").records(speeds)


def plot(records: Sequence[Record]) -> drawing.Figures:
    """The three sheets side by side, and the densities."""
    found = {r.split: r for r in drawing.find(records, metric="density_error")}
    found = {kind: found[kind] for kind in common.KINDS if kind in found}
    if not found:
        return {}
    return {"sheets": _sheets(found), "densities": _densities(found)}


def _sheets(found: dict[str, Record]) -> Figure:
    names = next(iter(found.values())).extra["classes"]
    title = "The same images, their high frequencies replaced"
    figure = drawing.figure(4.0, 5.4, title)
    grid = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, (kind, record) in zip(grid, found.items(), strict=True):
        picture = drawing.unpack(record.extra["sheet"])
        drawing.picture(axes, picture, common.KINDS[kind], interpolation="nearest")
        side = picture.shape[0] / len(names)
        if axes is grid[0]:
            axes.set_yticks((np.arange(len(names)) + 0.5) * side, names, fontsize=8)
    return figure


def _densities(found: dict[str, Record]) -> Figure:
    figure = drawing.figure(9, 3.4)
    left, right = figure.subplots(1, 2)
    left.plot(next(iter(found.values())).extra["target"], "k--", lw=1, label="target")
    for kind, record in found.items():
        label = f"{common.KINDS[kind]} (MSE {record.value:.3f})"
        left.plot(record.extra["profile"], color=common.COLOURS[kind], label=label)
        spread = np.std(record.extra["by_class"], axis=0)
        right.plot(spread, color=common.COLOURS[kind], label=common.KINDS[kind])
    left.legend(fontsize=7)
    left.set(xlabel="band, low to high", ylabel="density, 0 to 1")
    left.set_title("Mean density of the sets", fontsize=10)
    right.legend(fontsize=7)
    right.set_title("Spread of the density between classes", fontsize=10)
    right.set(xlabel="band, low to high", ylim=(0, None))
    right.set_ylabel("standard deviation of class means")
    return figure


if __name__ == "__main__":
    main(__name__)
