"""Figure 7: what APR-P and APR-S make of some images.

    python -m experiments.paper.figure7_examples --data_dir TFDS

With the pictures the mean absolute change of a pixel by each, over more images.
"""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax import apr_pair, apr_single
from apr_jax.runs.records import Record
from experiments import drawing, measures
from experiments.lab import Lab, main, sizes

NAME = "apr_figure7_examples"
SIZES = sizes(images=(500, 10_000), shown=(5, 5))


def compute(lab: Lab) -> Iterator[Record]:
    """Augments images and measures by how much they change."""
    part = lab.part("test")
    if part.done:
        return
    found = lab.load("test")
    test = measures.balanced(found.splits["test"], lab["images"])
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
    changes = {}
    for name in ("APR-P", "APR-S"):
        change = np.abs(np.clip(made[name], 0, 1) - pixels).mean()
        number = measures.number(change, len(pixels))
        changes[f"mean change of a pixel, {name}"] = number
    yield from part.records(
        changes,
        images={k: [drawing.pack(x) for x in v[few]] for k, v in made.items()},
        names=[found.class_names[i] for i in test.labels[order[few]]],
    )


def plot(records: Sequence[Record]) -> drawing.Figures:
    """Draws an image a row: original, donor, APR-P, APR-S."""
    extra = records[0].extra
    count = len(extra["names"])
    lines = [f"{r.metric}: {r.value:.3f}" for r in records]
    title = "APR-P: phase of the original; APR-S: an augmented copy of it on both sides"
    figure = drawing.figure(5.6, 1.4 * count + 0.8, "\n".join([title, *lines]), size=8)
    grid = figure.subplots(count, 4, squeeze=False)
    for column, (title, images) in zip(grid.T, extra["images"].items(), strict=True):
        column[0].set_title(title, fontsize=9)
        for axis, image in zip(column, images, strict=True):
            drawing.picture(axis, drawing.unpack(image))
    for axis, name in zip(grid[:, 0], extra["names"], strict=True):
        axis.set_ylabel(name, fontsize=8)
    return {"examples": figure}


if __name__ == "__main__":
    main(__name__)
