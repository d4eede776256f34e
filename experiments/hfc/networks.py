"""The networks that the experiments on high-frequency components share.

All are trained on the same images for the same number of epochs, and watched: accuracy
on low- and high-pass images at the end of each epoch. Give the experiments the same
``--work`` and each network is trained once.
"""

import argparse
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from apr_jax import data
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.gates import places
from apr_jax.runs import epochs
from experiments.lab import Lab, networks_in, sizes

# One folder of networks for all experiments of this family.
OPTIONS: dict[str, dict[str, Any]] = {"--work": networks_in("hfc")}
KNOBS: dict[str, tuple[Any, Any]] = {
    "model": ("wrn_10_1", "wrn_28_10"),
    "images": (6000, 0),
    "tested": (2000, 0),
    "epochs": (5.0, 100.0),
    "rate": (0.1, 0.1),
}
SIZES = sizes(**KNOBS)
# What is changed in training, the heuristics of the paper's section 5.
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no BatchNorm": {"model__norm": "none"},
    "dropout": {"model__dropout": 0.3},
    "mixup": {"augment__method": "mixup"},
    "adversarial": {
        "adversary__attack": "fgsm",
        "adversary__eps": 4 / 255,
        "adversary__step_size": 5 / 255,
    },
}


def images(lab: Lab) -> tuple[data.ArraySplit, data.ArraySplit, tuple[str, ...]]:
    """Training images, test images and the names of the classes."""
    found = lab.load()
    train, test = lab.some(found, train="images", test="tested").values()
    return train, test, found.class_names


def named(text: str) -> tuple[str, str]:
    """The name and the directory of a flag NAME=DIR, as its ``type``."""
    name, _, where = text.partition("=")
    if not name or not where:
        raise argparse.ArgumentTypeError(f"{text!r} must be NAME=DIR")
    return name, str(places.argument(where))


def given(lab: Lab, run: str) -> classifier_lib.Classifier:
    """The network of a run's directory, or the plain one if there is none."""
    if run:
        return classifier_lib.from_run(places.local(run, "--run"))
    return network(lab, "plain")[0]


def network(lab: Lab, kind: str) -> tuple[classifier_lib.Classifier, pathlib.Path]:
    """A network of ``KINDS``, and its work directory."""
    train, test, names = images(lab)
    settings = lab.short(
        lab.arrays("images", names, train=train, test=test),
        optim__learning_rate=lab["rate"],
        train__watch=("bands",),
        train__watch_examples=500,
        **KINDS[kind],
    )
    name = kind.replace(" ", "_")
    return lab.train(name, settings), lab.work / name


def watched(root: pathlib.Path) -> list[dict[str, Any]]:
    """Rows of the watch on frequency bands, one for each epoch, in order."""
    rows = {row["step"]: row for row in epochs.read(root) if row["watch"] == "bands"}
    return list(rows.values())


def radii(size: int) -> list[float]:
    """The paper's radii, 4 to 28 for 32 pixels, in proportion for other sizes."""
    return [size * k / 8 for k in range(1, 8)]


def draw_epochs(
    axis: Any,
    rows: Sequence[Mapping[str, Any]],
    radii: Sequence[int],
    *,
    label: str = "{band} part, radius {radius:g}",
    colour: str = "",
    high: str = "--",
) -> None:
    """Accuracy on low and high parts, and on whole images, over the epochs.

    Args:
        axis: of Matplotlib.
        rows: of ``watched``.
        radii: places of the radii to draw in the row's.
        label: of the lines, with "{band}" and "{radius:g}" in it.
        colour: of all lines, with no line of whole images; by the radius if there is
            none.
        high: style of the lines of high parts.
    """
    epochs = [row["epoch"] for row in rows]
    if not colour:
        axis.plot(epochs, [100 * r["accuracy"] for r in rows], "k", label="whole image")
    for k in radii:
        for band, style in (("low", "-"), ("high", high)):
            axis.plot(
                epochs,
                [100 * row[band][k] for row in rows],
                style,
                color=colour or f"C{k}",
                label=label.format(band=band, radius=rows[0]["radius"][k]),
            )
    axis.set_xlabel("epoch")
    axis.grid(alpha=0.3)
