"""Figure 4: what is learnt from low, intermediate and high amplitude and phase.

    python -m experiments.paper.figure4_bands --data_dir TFDS

Each of sixteen networks learns from images, and is tested on images, whose amplitude
is kept in one band of frequencies and whose phase in another (all, low, intermediate,
high); elsewhere the amplitude is 1 and the phase 0, the transfer function of section
3.1. The paper doesn't say where the bands meet: here at a quarter and at half of the
image's size, 8 and 16 cycles for 32 pixels, which are radii of the HFC paper. Nor does
it say how such images, whose values leave [0, 1], are given to a network: here each is
stretched to [0, 255] and rounded, its channels together.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax import spectral
from apr_jax.data import ArraySplit
from apr_jax.runs.records import Record
from experiments import drawing, measures
from experiments.lab import Lab, main, sizes

NAME = "apr_figure4_bands"
SIZES = sizes(
    model=("wrn_10_1", "resnet18"),
    images=(5000, 0),
    tested=(5000, 0),
    epochs=(6.0, 200.0),
)
# Rows: amplitude, columns: phase, in percent (Chen et al., ICCV 2021, Figure 4).
PUBLISHED = (
    (93.0, 89.5, 83.0, 77.8),
    (89.2, 89.0, 66.1, 66.5),
    (83.7, 52.8, 83.3, 51.8),
    (48.6, 27.1, 26.9, 46.5),
)
OPTIONS = {
    "--only": {
        "nargs": "+",
        "help": "cells, such as amplitude_low_phase_full; the others later",
    }
}


def compute(lab: Lab) -> Iterator[Record]:
    """Trains and tests one network for each pair of bands."""
    found = lab.load()
    splits = lab.some(found, train="images", test="tested")
    for amplitude, phase in itertools.product(spectral.BANDS, repeat=2):
        name = f"amplitude_{amplitude}_phase_{phase}"
        part = lab.part(name, amplitude=amplitude, phase=phase)
        if part.done or (lab.options.only and name not in lab.options.only):
            continue
        made = {which: keep(own, amplitude, phase) for which, own in splits.items()}
        base = lab.arrays(name, found.class_names, **made)
        network = lab.train(name, lab.short(base))
        yield from part.records(
            {"accuracy": measures.accuracy(network, *made["test"])},
            network,
            example=made["test"].images[_EXAMPLE].tolist(),
        )


# Which test image stands for its cell in the picture.
_EXAMPLE = 5


def keep(split: ArraySplit, amplitude: str, phase: str) -> ArraySplit:
    """Images of a split with amplitude and phase each in one band, as uint8."""
    size = split.images.shape[1]

    @jax.jit
    def work(images: jax.Array) -> jax.Array:
        kept = spectral.keep_bands(
            images.astype(jnp.float32) / 255,
            amplitude=amplitude,
            phase=phase,
            edges=(size / 4, size / 2),
        )
        return jnp.round(255 * spectral.stretch(kept)).astype(jnp.uint8)

    return ArraySplit(measures.in_parts(work, split.images, at_once=1000), split.labels)


def plot(records: Sequence[Record]) -> drawing.Figures:
    """Draws our matrix, with an image of each cell, beside the published one."""
    ours = np.full((4, 4), np.nan)
    pictures: dict[tuple[int, int], Any] = {}
    for record in records:
        settings = record.extra["settings"]
        cell = tuple(spectral.BANDS.index(settings[k]) for k in ("amplitude", "phase"))
        ours[cell] = 100 * record.value
        pictures[cell] = np.array(record.extra["example"], np.uint8)
    title = "Test accuracy of networks that see amplitude and phase in some bands only"
    figure = drawing.figure(13, 4.6, title, size=11)
    shown, mine, theirs = figure.subplots(1, 3)
    knobs = records[0].extra["settings"]
    title = f"ours ({knobs['model']}, {knobs['epochs']:g} epochs), percent"
    for axis, values, name in (
        (mine, ours, title),
        (theirs, np.array(PUBLISHED), "published (ResNet-18, 200 epochs), percent"),
    ):
        axis.imshow(values, cmap="viridis", vmin=10, vmax=95)
        for (i, j), value in np.ndenumerate(values):
            colour = "white" if not value > 60 else "black"
            text = "–" if np.isnan(value) else f"{value:.1f}"
            axis.text(j, i, text, ha="center", va="center", color=colour)
        axis.set_title(name, fontsize=9)
    side = next(iter(pictures.values())).shape[0]
    sheet = np.full((4 * (side + 2), 4 * (side + 2), 3), 255, np.uint8)
    for (i, j), picture in pictures.items():
        top, left = i * (side + 2) + 1, j * (side + 2) + 1
        sheet[top : top + side, left : left + side] = picture
    shown.imshow(sheet, extent=(-0.5, 3.5, 3.5, -0.5))
    shown.set_title("one test image in each cell", fontsize=9)
    for axis in (shown, mine, theirs):
        axis.set_xticks(range(4), spectral.BANDS)
        axis.set_yticks(range(4), spectral.BANDS)
        axis.set(xlabel="phase", ylabel="amplitude")
    return {"figure4": figure}


if __name__ == "__main__":
    main(__name__)
