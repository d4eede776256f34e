"""Natural against shuffled labels: when low and high frequencies are learnt.

    python -m experiments.hfc.labels --data_dir TFDS

A network can learn labels that were drawn at random, but not from what people see: it
needs the high frequencies sooner. Two networks learn the same images, with their own
labels and with shuffled ones; accuracy on the low and the high part of the training
images is followed over the epochs (Wang et al., CVPR 2020, section 4).
"""

import argparse
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from apr_jax import metrics
from apr_jax.data import ArraySplit
from apr_jax.runs.records import Record
from experiments import lab as lab_lib
from experiments.hfc import networks
from experiments.lab import Lab

NAME = "hfc_labels"
SIZES: dict[str, dict[str, Any]] = {
    "small": {
        "model": "wrn_10_1",
        "images": 300,
        "watched": 200,
        "epochs": 40.0,
        "batch": 25,
        "rate": 0.05,
    },
    "paper": {
        "model": "resnet18",
        "images": 0,
        "watched": 5000,
        "epochs": 100.0,
        "batch": 100,
        "rate": 0.05,
    },
}


def compute(lab: Lab) -> Iterator[Record]:
    """Trains on both kinds of labels; what is watched are the training images."""
    found = lab.load("train")
    natural = lab_lib.balanced(found.splits["train"], lab["images"], seed=lab.seed)
    order = np.random.default_rng([0x5AFF1E, lab.seed]).permutation(len(natural.labels))
    for kind, labels in (
        ("natural", natural.labels),
        ("shuffled", natural.labels[order]),
    ):
        settings = {**lab.knobs, "labels": kind}
        if lab.done(split=kind, settings=settings):
            continue
        split = ArraySplit(natural.images, labels)
        config = lab_lib.short(
            lab.arrays(kind, found.class_names, train=split, test=split),
            model=lab["model"],
            epochs=lab["epochs"],
            method="standard",
        )
        # Nothing that would make a label hard to remember.
        config.augment.update(crop_pad=0, flip=False)
        config.optim.update(learning_rate=lab["rate"], weight_decay=0.0)
        config.train.batch_size = lab["batch"]
        config.train.watch = ("bands",)
        config.train.watch_examples = lab["watched"]
        network = lab.train(kind, config)
        rows = networks.watched(lab.work / kind)
        whole = lab_lib.logits_of(network, split.images, split.labels)
        yield from lab.records(
            {"training accuracy": lab_lib.accuracy(whole), **when_half(rows)},
            split=kind,
            settings=settings,
            step=network.step,
            extra={"rows": rows},
        )


def when_half(rows: Sequence[Mapping[str, Any]]) -> dict[str, metrics.Measured]:
    """The first epoch with half of the images right, and what is right then by part.

    So both kinds of labels are compared when equally much is learnt. Nothing if that
    many are never right.

    Args:
        rows: of ``hfc_networks.watched``, by epoch.
    """
    reached = [row for row in rows if row["accuracy"] >= 0.5]
    if not reached:
        return {}
    row, n = reached[0], rows[0]["examples"]
    found = {"epoch with half learnt": lab_lib.number(row["epoch"], n)}
    for radius, low, high in zip(row["radius"], row["low"], row["high"], strict=True):
        for band, share in (("low", low), ("high", high)):
            name = f"{band} part, radius {radius:g}, with half learnt"
            found[name] = metrics.wilson(round(share * n), n)
    return found


def plot(records: Sequence[Record], out: pathlib.Path) -> Sequence[pathlib.Path]:
    """Draws the accuracies on training images over the epochs."""
    records = [r for r in records if r.metric == "training accuracy"]
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    figure.suptitle(
        "Training images, whole and filtered: how much is remembered from which part",
        fontsize=10,
    )
    axes = figure.subplots(1, len(records), squeeze=False, sharey=True)[0]
    for axis, record in zip(axes, records, strict=True):
        rows = record.extra["rows"]
        epochs = [row["epoch"] for row in rows]
        axis.plot(epochs, [100 * r["accuracy"] for r in rows], "k", label="whole image")
        for k, radius in enumerate(rows[0]["radius"][:4]):
            for band, style in (("low", "-"), ("high", ":")):
                values = [100 * row[band][k] for row in rows]
                label = f"{band} part, radius {radius:g}"
                axis.plot(epochs, values, style, color=f"C{k}", label=label)
        axis.set_title(f"{record.split} labels", fontsize=9)
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("accuracy, percent")
    axes[-1].legend(fontsize=7, loc="upper left")
    return [lab_lib.save(figure, out / "labels.png")]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Its networks lie beside those of the other experiments of this family."""
    parser.set_defaults(work=pathlib.Path(networks.WORK))


if __name__ == "__main__":
    lab_lib.main(NAME, __doc__, SIZES, compute, plot, add_options=add_options)
