"""The effect of BatchNorm, dropout, mixup, adversarial training on frequencies used.

    python -m experiments.hfc.heuristics --data_dir TFDS

The same network, trained five ways: accuracy on the low and on the high part of test
images over the epochs, and how far the two are apart in the end (Wang et al., CVPR
2020, section 5: BatchNorm promotes high-frequency information, adversarial training
turns away from it).
"""

from collections.abc import Iterator, Sequence

import numpy as np

from apr_jax.runs.records import Record
from experiments import drawing, measures
from experiments.hfc import networks
from experiments.lab import Lab, main

NAME = "hfc_heuristics"
SIZES, OPTIONS = networks.SIZES, networks.OPTIONS


def compute(lab: Lab) -> Iterator[Record]:
    """Trains each network and yields its accuracies on whole, low and high images."""
    _, test, _ = networks.images(lab)
    size = test.images.shape[1]
    for kind in networks.KINDS:
        part = lab.part(kind, kind=kind)
        if part.done:
            continue
        network, root = networks.network(lab, kind)
        found = {"accuracy": measures.accuracy(network, test.images, test.labels)}
        for radius in networks.radii(size)[:4]:
            pairs = measures.bands(test.images, radius)
            both = [measures.accuracy(network, x, test.labels) for x in pairs]
            for band, accuracy in zip(("low", "high"), both, strict=True):
                found[f"accuracy on the {band} part, radius {radius:g}"] = accuracy
            found[f"low less high, radius {radius:g}"] = measures.number(
                both[0].value - both[1].value, len(test.labels), unit="fraction"
            )
        yield from part.records(found, network, rows=networks.watched(root))


def plot(records: Sequence[Record]) -> drawing.Figures:
    """Draws the end of each training, and low and high over the epochs."""
    kinds = list(dict.fromkeys(r.split for r in records))
    radius = records[0].extra["rows"][0]["radius"][1]
    title = "Five ways to train: accuracy on low and high frequencies of test images"
    figure = drawing.figure(11, 4.2, title)
    bars, lines = figure.subplots(1, 2)
    names = {"accuracy": "whole image"}
    for band in ("low", "high"):
        part = f"{band} part, radius {radius:g}"
        names[f"accuracy on the {part}"] = part
    for number, (metric, label) in enumerate(names.items()):
        rows = {r.split: r for r in records if r.metric == metric}
        at = np.arange(len(kinds)) + 0.27 * (number - 1)
        values = np.array([100 * rows[kind].value for kind in kinds])
        sides = lambda r: [100 * (r.low or 0), 100 * (r.high or 0)]
        ends = np.array([sides(rows[kind]) for kind in kinds])
        bars.bar(at, values, 0.25, yerr=np.abs(ends.T - values[None]), label=label)
    bars.set_xticks(range(len(kinds)), kinds, fontsize=8)
    bars.set_ylabel("accuracy, percent; 95 % intervals")
    bars.set_title("at the end", fontsize=9)
    bars.legend(fontsize=7)
    for number, kind in enumerate(kinds):
        (record,) = (r for r in records if r.split == kind and r.metric == "accuracy")
        own = {"label": f"{kind}, {{band}} part", "colour": f"C{number}"}
        networks.draw_epochs(lines, record.extra["rows"], (1,), **own)
    lines.set_title(f"over the epochs, radius {radius:g}", fontsize=9)
    lines.set_ylabel("accuracy, percent")
    lines.legend(fontsize=6)
    return {"heuristics": figure}


if __name__ == "__main__":
    main(__name__)
