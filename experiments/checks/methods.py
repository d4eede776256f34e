"""Does every training method train? One short run of each, to the end, and its error.

    python -m experiments.checks.methods --set bundled

Each method of ``apr_jax.augment.AUGMENTS``, the attacks that training takes, a stop
before catastrophic overfitting, images of an extra folder and MaxBlurPool's ResNet-50
go through the project's own loop. It answers whether a method runs and learns, not
which is best: the tables compare them, and these runs are far too short for that. With
``--set cifar10 --data_dir TFDS`` they see CIFAR-10.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from apr_jax import data
from apr_jax.augment import AUGMENTS
from apr_jax.errors import ConfigError
from apr_jax.runs.records import Record
from experiments import drawing, measures, recipes
from experiments.lab import Lab, main, sizes

NAME = "check_methods"
SIZES = sizes(
    network=("wrn_10_1", "wrn_40_2"),
    epochs=(1.0, 20.0),
    eps=(2 / 255, 8 / 255),
    extra=(500, 5000),
)
OPTIONS = {"--runs": {"nargs": "+", "default": [], "help": "names; all if none"}}
# Of so many passes over a batch that they get less than an epoch.
SHARE = {"csi": 0.25}
EXTRA = "extra images and apr_sp"


Check = tuple[str, dict[str, Any]]  # method, and what else its configuration changes
# Images on which overfitting to an attack is looked for.
HELD_OUT = 200


def checks(lab: Lab) -> dict[str, Check]:
    """All runs, by name."""
    eps = {"adversary__eps": lab["eps"]}
    fgsm = {"adversary__attack": "fgsm", "adversary__step_size": 1.25 * lab["eps"]}
    pgd = {"adversary__attack": "pgd", "adversary__step_size": lab["eps"] / 2}
    steps = {"adversary__steps": 3}
    stop = {"adversary__held_out": HELD_OUT, "adversary__stop_drop": 0.2}
    folders = (str(lab.work / "extra"),)
    return {
        **{method: (method, {}) for method in AUGMENTS},
        "FGSM": ("standard", eps | fgsm),
        "FGSM, stop on overfitting": ("standard", eps | fgsm | stop),
        "FGSM and cutout+apr_p": ("cutout+apr_p", eps | fgsm),
        "PGD": ("standard", eps | pgd | steps),
        EXTRA: ("apr_sp", {"data__extra_dirs": folders, "data__extra_ratio": 0.25}),
        "MaxBlurPool": ("standard", {"model__name": "resnet50_blur"}),
    }


def chosen(lab: Lab) -> dict[str, Check]:
    """The runs that the command line names, or all.

    Raises:
        ConfigError: there is none of that name.
    """
    known = checks(lab)
    for name in lab.options.runs:
        if name not in known:
            listed = ", ".join(known)
            raise ConfigError(f"--runs has {name!r}; choose from {listed}")
    return {name: known[name] for name in lab.options.runs or known}


def compute(lab: Lab) -> Iterator[Record]:
    """Yields the accuracy of each, on all test splits of the data."""
    splits = tuple(dict.fromkeys(["test", *lab.base.data.shifted_splits]))
    found = lab.load("train", *splits)
    for name, (method, changes) in chosen(lab).items():
        epochs = lab["epochs"] * SHARE.get(method, 1.0)
        own = {"run": name, "epochs": epochs, "without": ("extra",)}
        parts = {split: lab.part(f"{name}, {split}", **own) for split in splits}
        if all(part.done for part in parts.values()):
            continue
        if name == EXTRA:
            write_extra(lab, found)
        usual = {"model": lab["network"], "epochs": epochs, "method": method}
        settings = recipes.changed(recipes.short(lab.base, **usual), **changes)
        network = lab.train(name.replace(" ", "_").replace(",", ""), settings)
        for split, part in parts.items():
            images, labels = map(np.asarray, found.splits[split])
            accuracy = measures.accuracy(network, images, labels)
            yield from part.records({"accuracy": accuracy}, network)


def write_extra(lab: Lab, found: data.DataSet) -> None:
    """A folder of negatives of training images, in the place of stylised ones."""
    few = measures.balanced(found.splits["train"], lab["extra"], seed=lab.seed)
    for i, (image, label) in enumerate(zip(few.images, few.labels, strict=True)):
        folder = lab.work / "extra" / found.class_names[int(label)]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - np.asarray(image)).save(folder / f"{i}.png")


def plot(records: Sequence[Record]) -> drawing.Figures:
    """Draws a bar for each run, and the accuracy of guessing."""
    mine = [r for r in records if r.split.endswith(", test")]
    figure = drawing.figure(7, 0.24 * len(mine) + 1)
    axis = figure.add_subplot()
    names = [r.extra["settings"]["run"] for r in mine]
    values = [100 * r.value for r in mine]
    bars = axis.barh(names, values, color="#4477aa")
    axis.bar_label(bars, [f"{v:.1f}" for v in values], fontsize=7, padding=2)
    axis.invert_yaxis()
    axis.set_xlim(0, 100)
    axis.set_xlabel(f"accuracy after a short run in %, {mine[0].data}")
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    return {"accuracy": figure}


if __name__ == "__main__":
    main(__name__)
