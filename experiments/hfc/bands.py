"""Accuracy on low- and high-pass images over the radius, while a network learns.

    python -m experiments.hfc.bands --data_dir TFDS
    python -m experiments.hfc.bands --run standard=runs/a --run apr_sp=runs/b

The high part of an image looks like noise to a person; a network still tells something
from it (Wang et al., CVPR 2020, sections 4 and 5). Drawn for a short training, epoch by
epoch, and over the radius for trained networks, those given by ``--run`` beside it.
"""

import pathlib
from collections.abc import Iterator, Sequence

from apr_jax.runs.records import Record
from experiments import drawing, measures
from experiments.hfc import networks as networks_lib
from experiments.lab import Lab, main

NAME = "hfc_bands"
SIZES = networks_lib.SIZES
OPTIONS = networks_lib.OPTIONS | {
    "--run": {
        "action": "append",
        "default": [],
        "type": networks_lib.named,
        "metavar": "NAME=DIR",
        "help": "of launch.py",
    }
}


def compute(lab: Lab) -> Iterator[Record]:
    """Yields accuracies of each epoch, and of each network and radius."""
    _, test, _ = networks_lib.images(lab)
    part = lab.part("epochs")
    if not part.done:
        _, root = networks_lib.network(lab, "plain")
        rows = networks_lib.watched(root)
        count = measures.number(len(rows) - 1, len(test.labels))
        yield from part.records({"epochs": count}, rows=rows)
    given = dict(lab.options.run)
    for name, where in {"short training": "", **given}.items():
        own = {"network": name, "run": pathlib.Path(where).name}
        whole = lab.part(f"{name}, all", **own)
        if whole.done:
            continue
        network = networks_lib.given(lab, where)
        for radius in networks_lib.radii(test.images.shape[1]):
            pairs = measures.bands(test.images, radius)
            for band, pixels in zip(("low", "high"), pairs, strict=True):
                here = {**own, "band": band, "radius": radius}
                part = lab.part(f"{name}, {band} {radius:g}", **here)
                found = {"accuracy": measures.accuracy(network, pixels, test.labels)}
                yield from part.records(found, network)
        found = {"accuracy": measures.accuracy(network, test.images, test.labels)}
        yield from whole.records(found, network)


def plot(records: Sequence[Record]) -> drawing.Figures:
    """Draws accuracy over the epochs, and over the radius."""
    title = (
        "Accuracy on test images of which only low or only high frequencies are left"
    )
    figure = drawing.figure(11, 4.2, title)
    left, right = figure.subplots(1, 2)
    for record in drawing.find(records, split="epochs"):
        rows = record.extra["rows"]
        networks_lib.draw_epochs(left, rows, range(1, len(rows[0]["radius"]), 2)[:3])
        left.set_ylabel("accuracy, percent")
        left.legend(fontsize=7)
    left.set_title("a short training, epoch by epoch", fontsize=9)
    networks = dict.fromkeys(
        r.extra["settings"]["network"] for r in records if r.split != "epochs"
    )
    for number, name in enumerate(networks):
        for band, style in (("low", "-"), ("high", "--")):
            drawing.curve(
                right,
                drawing.find(records, network=name, band=band),
                lambda r: r.extra["settings"]["radius"],
                style,
                marker="o",
                markersize=3,
                color=f"C{number}",
                label=f"{name}, {band} part",
            )
    right.set_title("when trained", fontsize=9)
    label = "radius, cycles an image: low within, high beyond"
    right.set(xlabel=label, ylabel="accuracy, percent")
    right.legend(fontsize=7, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.13))
    right.grid(alpha=0.3)
    return {"bands": figure}


if __name__ == "__main__":
    main(__name__)
