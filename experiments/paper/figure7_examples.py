"""Figure 7: what APR-P and APR-S make of some images.

    python -m experiments.paper.figure7_examples --data_dir TFDS

With the pictures the mean absolute change of a pixel by each, over more images.
"""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from apr_jax import apr_pair, apr_single
from apr_jax.runs.records import Record
from experiments import lab as lab_lib
from experiments.lab import Lab
from experiments.paper import networks as networks_lib

NAME = "apr_figure7_examples"
SIZES: dict[str, dict[str, Any]] = {
    "small": {"images": 500, "shown": 5},
    "paper": {"images": 10_000, "shown": 5},
}


def compute(lab: Lab) -> Iterator[Record]:
    """Augments images and measures by how much they change."""
    settings = dict(lab.knobs)
    if lab.done(split="test", settings=settings):
        return
    found = lab.load("test")
    test = lab_lib.balanced(found.splits["test"], lab["images"])
    order = np.random.default_rng([7, lab.seed]).permutation(len(test.labels))
    pixels = np.float32(test.images[order]) / 255
    donors = np.roll(np.arange(len(pixels)), 1)
    key_pair, key_single = jax.random.split(jax.random.key(lab.seed))
    pair = apr_pair(key_pair, jnp.asarray(pixels), prob=1.0, donor_index=donors)
    single = apr_single(key_single, jnp.asarray(pixels), prob=1.0)
    made = {
        "original": pixels,
        "amplitude from": pixels[donors],
        "APR-P": np.asarray(pair),
        "APR-S": np.asarray(single),
    }
    few = slice(0, lab["shown"])
    extra = {
        "images": {k: [networks_lib.pack(x) for x in v[few]] for k, v in made.items()},
        "names": [found.class_names[i] for i in test.labels[order[few]]],
    }
    change = lambda name: float(np.abs(np.clip(made[name], 0, 1) - pixels).mean())
    numbers = {
        f"mean change of a pixel, {name}": lab_lib.number(change(name), len(pixels))
        for name in ("APR-P", "APR-S")
    }
    yield from lab.records(numbers, split="test", settings=settings, extra=extra)


def plot(records: Sequence[Record], out: pathlib.Path) -> Sequence[pathlib.Path]:
    """Draws an image a row: original, donor, APR-P, APR-S."""
    extra = records[0].extra
    count = len(extra["names"])
    figure = Figure(figsize=(5.6, 1.4 * count + 0.8), layout="constrained")
    lines = [f"{r.metric}: {r.value:.3f}" for r in records]
    title = "APR-P: phase of the original; APR-S: an augmented copy of it on both sides"
    figure.suptitle("\n".join([title, *lines]), fontsize=8)
    grid = figure.subplots(count, 4, squeeze=False)
    for column, (title, images) in zip(grid.T, extra["images"].items(), strict=True):
        column[0].set_title(title, fontsize=9)
        for axis, image in zip(column, images, strict=True):
            axis.imshow(networks_lib.unpack(image))
            axis.set_xticks([])
            axis.set_yticks([])
    for axis, name in zip(grid[:, 0], extra["names"], strict=True):
        axis.set_ylabel(name, fontsize=8)
    return [lab_lib.save(figure, out / "examples.png")]


if __name__ == "__main__":
    lab_lib.main(NAME, __doc__, SIZES, compute, plot)
