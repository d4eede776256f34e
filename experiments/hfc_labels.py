"""Natural against shuffled labels: when low and high frequencies are learnt.

    python -m experiments.hfc_labels --data-dir TFDS

A network can learn labels that were drawn at random, but not from what people see: it
needs the high frequencies sooner. Two networks learn the same images, with their own
labels and with shuffled ones; accuracy on the low and the high part of the training
images is followed over the epochs (Wang et al., CVPR 2020, section 4).
"""

import argparse
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from apr_jax import results
from apr_jax.data import ArraySplit
from experiments import hfc_bands, hfc_networks
from experiments import lab as lab_lib
from experiments.lab import Lab

NAME = "hfc_labels"
SIZES: dict[str, dict[str, Any]] = {
    "small": {"model": "wrn_10_1", "images": 1000, "epochs": 30.0, "rate": 0.05},
    "paper": {"model": "resnet18", "images": 0, "epochs": 100.0, "rate": 0.05},
}


def compute(lab: Lab) -> Iterator[results.Record]:
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
        config.train.watch = ("bands",)
        config.train.watch_examples = 300
        network = lab.train(kind, config)
        rows = hfc_networks.watched(lab.work / kind)
        whole = lab_lib.logits_of(network, split.images, split.labels)
        yield from lab.records(
            {"training accuracy": lab_lib.accuracy(whole)},
            split=kind,
            settings=settings,
            step=network.step,
            extra={"rows": rows},
        )


def plot(
    records: Sequence[results.Record], out: pathlib.Path
) -> Sequence[pathlib.Path]:
    """Draws the accuracies on training images over the epochs."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    axes = figure.subplots(1, len(records), squeeze=False, sharey=True)[0]
    for axis, record in zip(axes, records, strict=True):
        hfc_bands.draw_epochs(axis, record.extra["rows"])
        axis.set_title(f"{record.split} labels, training images", fontsize=9)
    return [lab_lib.save(figure, out / "labels.png")]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Its networks lie beside those of the other experiments of this family."""
    parser.set_defaults(work=pathlib.Path(hfc_networks.WORK))


if __name__ == "__main__":
    lab_lib.main(NAME, __doc__, SIZES, compute, plot, add_options=add_options)
