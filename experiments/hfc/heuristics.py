"""What BatchNorm, dropout, mixup and adversarial training do to the frequencies used.

    python -m experiments.hfc.heuristics --data_dir TFDS

The same network, trained five ways: accuracy on the low and on the high part of test
images over the epochs, and how far the two are apart in the end (Wang et al., CVPR
2020, section 5: BatchNorm promotes high-frequency information, adversarial training
turns away from it).
"""

import argparse
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.figure import Figure

from apr_jax import metrics
from apr_jax.runs.records import Record
from experiments import lab as lab_lib
from experiments.hfc import networks
from experiments.lab import Lab

NAME = "hfc_heuristics"


def compute(lab: Lab) -> Iterator[Record]:
    """Trains each network and yields its accuracies on whole, low and high images."""
    _, test, _ = networks.images(lab)
    size = test.images.shape[1]
    for kind in networks.KINDS:
        settings = {**lab.knobs, "kind": kind}
        if lab.done(split=kind, settings=settings):
            continue
        network, root = networks.network(lab, kind)
        found = {
            "accuracy": lab_lib.accuracy(
                lab_lib.logits_of(network, test.images, test.labels)
            )
        }
        for radius in networks.radii(size)[:4]:
            both = []
            for band, pixels in zip(
                ("low", "high"), networks.parts(test.images, radius), strict=True
            ):
                outputs = lab_lib.logits_of(network, pixels, test.labels)
                both.append(outputs.logits.argmax(1) == test.labels)
                found[f"accuracy on the {band} part, radius {radius:g}"] = (
                    metrics.wilson(int(both[-1].sum()), len(test.labels))
                )
            gap = float(np.mean(both[0]) - np.mean(both[1]))
            found[f"low less high, radius {radius:g}"] = metrics.Measured(
                gap, None, None, "fraction", len(test.labels)
            )
        yield from lab.records(
            found,
            split=kind,
            settings=settings,
            step=network.step,
            extra={"rows": networks.watched(root)},
        )


def plot(records: Sequence[Record], out: pathlib.Path) -> Sequence[pathlib.Path]:
    """Draws the end of each training, and low and high over the epochs."""
    kinds = list(dict.fromkeys(r.split for r in records))
    radius = records[0].extra["rows"][0]["radius"][1]
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    figure.suptitle(
        "Five ways to train: accuracy on low and high frequencies of test images",
        fontsize=10,
    )
    bars, lines = figure.subplots(1, 2)
    names = {"accuracy": "whole image"}
    for band in ("low", "high"):
        part = f"{band} part, radius {radius:g}"
        names[f"accuracy on the {part}"] = part
    for number, (metric, label) in enumerate(names.items()):
        rows = {r.split: r for r in records if r.metric == metric}
        at = np.arange(len(kinds)) + 0.27 * (number - 1)
        values = np.array([100 * rows[kind].value for kind in kinds])
        ends = np.array(
            [[100 * (rows[k].low or 0), 100 * (rows[k].high or 0)] for k in kinds]
        )
        bars.bar(at, values, 0.25, yerr=np.abs(ends.T - values[None]), label=label)
    bars.set_xticks(range(len(kinds)), kinds, fontsize=8)
    bars.set_ylabel("accuracy, percent; 95 % intervals")
    bars.set_title("at the end", fontsize=9)
    bars.legend(fontsize=7)
    for number, kind in enumerate(kinds):
        (record,) = (r for r in records if r.split == kind and r.metric == "accuracy")
        for band, style in (("low", "-"), ("high", "--")):
            lines.plot(
                [row["epoch"] for row in record.extra["rows"]],
                [100 * row[band][1] for row in record.extra["rows"]],
                style,
                color=f"C{number}",
                label=f"{kind}, {band} part",
            )
    lines.set_title(f"over the epochs, radius {radius:g}", fontsize=9)
    lines.set_xlabel("epoch")
    lines.set_ylabel("accuracy, percent")
    lines.legend(fontsize=6)
    lines.grid(alpha=0.3)
    return [lab_lib.save(figure, out / "heuristics.png")]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The networks are shared with the other experiments of this family."""
    parser.set_defaults(work=pathlib.Path(networks.WORK))


if __name__ == "__main__":
    lab_lib.main(NAME, __doc__, networks.SIZES, compute, plot, add_options=add_options)
