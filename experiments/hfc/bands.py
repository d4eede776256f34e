"""Accuracy on low- and high-pass images over the radius, while a network learns.

    python -m experiments.hfc.bands --data_dir TFDS
    python -m experiments.hfc.bands --run standard=runs/a --run apr_sp=runs/b

The high part of an image looks like noise to a person; a network still tells something
from it (Wang et al., CVPR 2020, sections 4 and 5). Drawn for a short training, epoch by
epoch, and over the radius for trained networks, those given by ``--run`` beside it.
"""

import argparse
import pathlib
from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure

from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.runs.records import Record
from experiments import lab as lab_lib
from experiments.hfc import networks as networks_lib
from experiments.lab import Lab

NAME = "hfc_bands"


def compute(lab: Lab) -> Iterator[Record]:
    """Yields accuracies of each epoch, and of each network and radius."""
    _, test, _ = networks_lib.images(lab)
    settings = dict(lab.knobs)
    if not lab.done(split="epochs", settings=settings):
        _, root = networks_lib.network(lab, "plain")
        rows = networks_lib.watched(root)
        yield from lab.records(
            {
                "epochs": lab_lib.number(len(rows) - 1, len(test.labels)),
            },
            split="epochs",
            settings=settings,
            extra={"rows": rows},
        )
    for name, where in {"short training": "", **runs_of(lab)}.items():
        own = {**settings, "network": name, "run": pathlib.Path(where).name}
        if lab.done(split=f"{name}, all", settings=own):
            continue
        if where:
            network = classifier_lib.from_run(pathlib.Path(where))
        else:
            network, _ = networks_lib.network(lab, "plain")
        for radius in networks_lib.radii(test.images.shape[1]):
            low, high = networks_lib.parts(test.images, radius)
            for band, pixels in (("low", low), ("high", high)):
                outputs = lab_lib.logits_of(network, pixels, test.labels)
                yield from lab.records(
                    {"accuracy": lab_lib.accuracy(outputs)},
                    split=f"{name}, {band} {radius:g}",
                    settings={**own, "band": band, "radius": radius},
                    step=network.step,
                )
        outputs = lab_lib.logits_of(network, test.images, test.labels)
        yield from lab.records(
            {"accuracy": lab_lib.accuracy(outputs)},
            split=f"{name}, all",
            settings=own,
            step=network.step,
        )


def runs_of(lab: Lab) -> dict[str, str]:
    """Name -> work directory of the networks that the command line gives."""
    return dict(text.split("=", 1) for text in lab.options.run)


def plot(records: Sequence[Record], out: pathlib.Path) -> Sequence[pathlib.Path]:
    """Draws accuracy over the epochs, and over the radius."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    figure.suptitle(
        "Accuracy on test images of which only low or only high frequencies are left",
        fontsize=10,
    )
    left, right = figure.subplots(1, 2)
    for record in records:
        if record.split == "epochs":
            draw_epochs(left, record.extra["rows"])
    left.set_title("a short training, epoch by epoch", fontsize=9)
    networks = dict.fromkeys(
        r.extra["settings"]["network"] for r in records if r.split != "epochs"
    )
    for number, name in enumerate(networks):
        for band, style in (("low", "-"), ("high", "--")):
            rows = list(lab_lib.find(records, network=name, band=band))
            rows.sort(key=lambda r: r.extra["settings"]["radius"])
            right.plot(
                [r.extra["settings"]["radius"] for r in rows],
                [100 * r.value for r in rows],
                style,
                marker="o",
                markersize=3,
                color=f"C{number}",
                label=f"{name}, {band} part",
            )
    right.set_title("when trained", fontsize=9)
    right.set_xlabel("radius, cycles an image: low within, high beyond")
    right.set_ylabel("accuracy, percent")
    right.legend(fontsize=7, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.13))
    right.grid(alpha=0.3)
    return [lab_lib.save(figure, out / "bands.png")]


def draw_epochs(axis: object, rows: Sequence[dict]) -> None:
    """Accuracy on all, low and high parts over the epochs, on a Matplotlib axis."""
    epochs = [row["epoch"] for row in rows]
    axis.plot(epochs, [100 * r["accuracy"] for r in rows], "k", label="whole image")
    radii = rows[0]["radius"]
    for k, radius in enumerate(radii):
        if k % 2 and k < 6:
            for band, style in (("low", "-"), ("high", "--")):
                axis.plot(
                    epochs,
                    [100 * row[band][k] for row in rows],
                    style,
                    color=f"C{k}",
                    label=f"{band} part, radius {radius:g}",
                )
    axis.set_xlabel("epoch")
    axis.set_ylabel("accuracy, percent")
    axis.legend(fontsize=7)
    axis.grid(alpha=0.3)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The experiment's own options."""
    parser.add_argument(
        "--run", action="append", default=[], metavar="NAME=DIR", help="of launch.py"
    )
    parser.set_defaults(work=pathlib.Path(networks_lib.WORK))


if __name__ == "__main__":
    lab_lib.main(
        NAME, __doc__, networks_lib.SIZES, compute, plot, add_options=add_options
    )
