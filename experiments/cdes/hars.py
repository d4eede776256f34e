"""CDES, class consistency: what is learnt when low and high part tell two classes.

    python -m experiments.cdes.hars --data_dir TFDS

HARS images have the low part (within a radius of 12) of an image of another class and
their own high part, which gives the label. Compares a network trained on them with one
trained on plain images: how often each is right on plain images, on their low and on
their high part, and which of the two labels it gives to HARS images.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from apr_jax import cdes, data, metrics
from apr_jax.evaluate import fourier_probe
from apr_jax.gates.answers import answer as answer_of
from apr_jax.pixels import to_pixels
from apr_jax.runs.records import Record
from experiments import drawing, measures
from experiments.cdes import common
from experiments.lab import Lab, main

NAME = "cdes_hars"
RADIUS = 12
SIZES, OPTIONS = common.NETWORKS, common.OPTIONS
SHOWN = 6
MEASURES = {
    "plain": "right on\nplain images",
    "low": "right on\ntheir low part",
    "high": "right on\ntheir high part",
    "hars_high": "HARS: says the label\nof the high part",
    "hars_low": "HARS: says the label\nof the low part",
}
TRAINED = {"plain": "trained on plain images", "hars": "trained on HARS images"}


def compute(lab: Lab) -> Iterator[Record]:
    """Trains both networks and asks them; keeps a few images for the picture."""
    parts = {k: lab.part(k, radius=RADIUS) for k in TRAINED}
    missing = {k: part for k, part in parts.items() if not part.done}
    if not missing:
        return
    found = lab.load()
    plain = common.plain_splits(lab, found)
    hars = {name: made(split, lab.seed) for name, split in plain.items()}
    donors = fourier_probe.draw_donors(plain["test"].labels, lab.seed)
    bases = {
        "plain": lab.arrays("plain", found.class_names, **plain),
        "hars": lab.arrays("hars", found.class_names, **hars),
    }
    for kind, part in missing.items():
        network = common.network(lab, kind, bases[kind])
        measured = answers(network, plain["test"], hars["test"], donors)
        yield from part.records(measured, network)
    yield from examples(lab, plain["test"], hars["test"], donors, found.class_names)


def made(split: data.ArraySplit, seed: int) -> data.ArraySplit:
    """The HARS images of a split, with the labels of their high parts."""
    images, labels = np.asarray(split.images), np.asarray(split.labels)
    donors = fourier_probe.draw_donors(labels, seed)
    run = jax.jit(
        lambda own, other: common.to_uint8(
            cdes.foreign_low(to_pixels(own), to_pixels(other), RADIUS)
        )
    )
    return data.ArraySplit(measures.in_parts(run, images, images[donors]), labels)


def answers(
    network: Any, plain: data.ArraySplit, hars: data.ArraySplit, donors: np.ndarray
) -> dict[str, metrics.Measured]:
    """Shares of answers, named as in ``MEASURES``."""
    low, high = measures.bands(plain.images, RADIUS)
    measured = {
        name: measures.accuracy(network, images, plain.labels)
        for name, images in (("plain", plain.images), ("low", low), ("high", high))
    }
    outputs = measures.logits_of(network, hars.images, hars.labels)
    said = answer_of(outputs.logits)
    measured["hars_high"] = measures.share(said == hars.labels)
    measured["hars_low"] = measures.share(said == np.asarray(hars.labels)[donors])
    return measured


def examples(
    lab: Lab,
    plain: data.ArraySplit,
    hars: data.ArraySplit,
    donors: np.ndarray,
    names: Sequence[str],
) -> Iterator[Record]:
    """A record of a few images: own, other, and joined."""
    labels = np.asarray(plain.labels)
    chosen = np.unique(labels, return_index=True)[1][:SHOWN]
    apart = np.float32(hars.images[chosen]) - np.float32(plain.images[chosen])
    distance = np.mean(np.abs(apart))
    yield from lab.part("examples", radius=RADIUS).records(
        {"distance": measures.number(distance / 255, len(chosen))},
        own=np.asarray(plain.images[chosen]).tolist(),
        other=np.asarray(plain.images[donors[chosen]]).tolist(),
        hars=np.asarray(hars.images[chosen]).tolist(),
        labels=[[names[labels[i]], names[labels[donors[i]]]] for i in chosen.tolist()],
    )


def plot(records: Sequence[Record]) -> drawing.Figures:
    """Bars for both networks, and a few of the images."""
    return {"hars": _bars(records), **_images(records)}


def _bars(records: Sequence[Record]) -> Figure:
    figure = drawing.figure(8.5, 3.6)
    axes = figure.subplots()
    for k, (kind, label) in enumerate(TRAINED.items()):
        found = {r.metric: r for r in drawing.find(records, split=kind)}
        for at, name in enumerate(MEASURES):
            if name not in found:
                continue
            value, place = 100 * found[name].value, at + 0.4 * k - 0.2
            colour = ("#555555", "#8e44ad")[k]
            axes.bar(place, value, 0.38, color=colour, label=label if at == 0 else None)
            axes.text(place, value + 1, f"{value:.0f}", ha="center", fontsize=8)
    axes.axhline(10, color="black", lw=0.8, ls=":", label="chance of ten classes")
    axes.set_xticks(range(len(MEASURES)), list(MEASURES.values()), fontsize=8)
    axes.set(ylabel="percent of test images", ylim=(0, 100))
    axes.legend(fontsize=8)
    title = f"Low part (radius {RADIUS}) of another class, own high part: what is used?"
    axes.set_title(title, fontsize=11)
    return figure


def _images(records: Sequence[Record]) -> drawing.Figures:
    found = next(drawing.find(records, split="examples"), None)
    if found is None:
        return {}
    columns = found.extra["labels"]
    figure = drawing.figure(1.3 * len(columns) + 1, 4.2, "HARS images")
    grid = figure.subplots(3, len(columns), squeeze=False)
    rows = {"own": "high part from", "other": "low part from", "hars": "HARS image"}
    for line, (kind, label) in zip(grid, rows.items(), strict=True):
        for k, axes in enumerate(line):
            image = np.array(found.extra[kind][k], np.uint8)
            own, other = columns[k]
            title = {"own": own, "other": other, "hars": f"label: {own}"}[kind]
            drawing.picture(axes, image, title, interpolation="nearest")
        line[0].set_ylabel(label, fontsize=8)
    return {"examples": figure}


if __name__ == "__main__":
    main(__name__)
