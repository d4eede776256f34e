"""Natural against shuffled labels: when low and high frequencies are learnt.

    python -m experiments.hfc.labels --data_dir TFDS

A network can learn labels that were drawn at random, but not from what people see: it
needs the high frequencies sooner. Two networks learn the same images, with their own
labels and with shuffled ones; accuracy on the low and the high part of the training
images is followed over the epochs (Wang et al., CVPR 2020, section 4).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from apr_jax import metrics
from apr_jax.data import ArraySplit
from apr_jax.runs.records import Record
from experiments import drawing, measures
from experiments.hfc import networks
from experiments.lab import Lab, main, sizes

NAME = "hfc_labels"
SIZES = sizes(
    model=("wrn_10_1", "resnet18"),
    images=(300, 0),
    watched=(200, 5000),
    epochs=(40.0, 100.0),
    batch=(25, 100),
    rate=(0.05, 0.05),
)
OPTIONS = networks.OPTIONS


def compute(lab: Lab) -> Iterator[Record]:
    """Trains on both kinds of labels; what is watched are the training images."""
    found = lab.load("train")
    (natural,) = lab.some(found, train="images").values()
    order = np.random.default_rng([0x5AFF1E, lab.seed]).permutation(len(natural.labels))
    kinds = {"natural": natural.labels, "shuffled": natural.labels[order]}
    for kind, labels in kinds.items():
        part = lab.part(kind, labels=kind)
        if part.done:
            continue
        split = ArraySplit(natural.images, labels)
        config = lab.short(
            lab.arrays(kind, found.class_names, train=split, test=split),
            # Nothing that would make a label hard to remember.
            augment__crop_pad=0,
            augment__flip=False,
            optim__learning_rate=lab["rate"],
            optim__weight_decay=0.0,
            train__batch_size=lab["batch"],
            train__watch=("bands",),
            train__watch_examples=lab["watched"],
        )
        network = lab.train(kind, config)
        rows = networks.watched(lab.work / kind)
        whole = measures.accuracy(network, split.images, split.labels)
        measured = {"training accuracy": whole, **when_half(rows)}
        yield from part.records(measured, network, rows=rows)


def when_half(rows: Sequence[Mapping[str, Any]]) -> dict[str, metrics.Measured]:
    """The first epoch with half of the images right, and what is right then by part.

    So both kinds of labels are compared when equally much is learnt. Nothing if that
    many are never right.

    Args:
        rows: of ``networks.watched``, by epoch.
    """
    reached = [row for row in rows if row["accuracy"] >= 0.5]
    if not reached:
        return {}
    row, n = reached[0], rows[0]["examples"]
    found = {"epoch with half learnt": measures.number(row["epoch"], n)}
    for radius, low, high in zip(row["radius"], row["low"], row["high"], strict=True):
        for band, share in (("low", low), ("high", high)):
            name = f"{band} part, radius {radius:g}, with half learnt"
            found[name] = metrics.wilson(round(share * n), n)
    return found


def plot(records: Sequence[Record]) -> drawing.Figures:
    """Draws the accuracies on training images over the epochs."""
    records = [r for r in records if r.metric == "training accuracy"]
    title = (
        "Training images, whole and filtered: how much is remembered from which part"
    )
    figure = drawing.figure(11, 4.2, title)
    axes = figure.subplots(1, len(records), squeeze=False, sharey=True)[0]
    for axis, record in zip(axes, records, strict=True):
        rows = record.extra["rows"]
        networks.draw_epochs(axis, rows, range(len(rows[0]["radius"][:4])), high=":")
        axis.set_title(f"{record.split} labels", fontsize=9)
    axes[0].set_ylabel("accuracy, percent")
    axes[-1].legend(fontsize=7, loc="upper left")
    return {"labels": figure}


if __name__ == "__main__":
    main(__name__)
