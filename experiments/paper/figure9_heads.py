"""Figure 9 and section 5.3: labels of the phase and of the amplitude, mixed by lambda.

    python -m experiments.paper.figure9_heads --data_dir TFDS

A network with two linear layers learns from images that join one image's phase with
another's amplitude: one layer tells the label of the phase, the other that of the
amplitude, and lambda weighs their losses (equation 7) and their answers. For each
lambda a network is trained and measured: accuracy on clean images, mean accuracy
under 15 corruptions x 5, and AUROC against unknown images by the maximum softmax
probability. The network of lambda 0.5 is also asked with every other lambda, which
shows what the two layers know without training anew.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from scipy import special

from apr_jax import config as config_lib
from apr_jax import corruptions, metrics
from apr_jax import network as network_lib
from apr_jax.console import say
from apr_jax.corruptions import frost_files
from apr_jax.errors import ConfigError
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate import ood_sets
from apr_jax.pixels import normalise, to_pixels
from apr_jax.runs.records import Record
from experiments import lab as lab_lib
from experiments.lab import Lab

NAME = "apr_figure9_heads"
SIZES: dict[str, dict[str, Any]] = {
    "small": {
        "model": "wrn_10_1",
        "images": 10_000,
        "epochs": 6.0,
        "lambdas": (0.0, 0.25, 0.5, 0.75, 1.0),
        "corrupted": 500,
        "unknown": 2000,
    },
    "paper": {
        "model": "resnet18",
        "images": 0,
        "epochs": 200.0,
        "lambdas": tuple(k / 10 for k in range(11)),
        "corrupted": 10_000,
        "unknown": 10_000,
    },
}
# Asked of the network that was trained with equal weights.
ASKED = tuple(k / 10 for k in range(11))
USUAL_OUT = ("svhn=tfds:svhn_cropped", "cifar100=tfds:cifar100")


def compute(lab: Lab) -> Iterator[Record]:
    """Trains and measures one network for each lambda."""
    found = lab.load()
    train = lab_lib.balanced(found.splits["train"], lab["images"], seed=lab.seed)
    test = found.splits["test"]
    base = lab.arrays("images", found.class_names, train=train, test=test)
    for weight in lab.options.only or lab["lambdas"]:
        settings = {**lab.knobs, "lambda": weight, "out": list(outside(lab))}
        del settings["lambdas"]
        both = {"trained": (weight,)} | ({"asked": ASKED} if weight == 0.5 else {})
        missing = [
            (kind, asked)
            for kind, every in both.items()
            for asked in every
            if not lab.done(split=split(kind, asked), settings=settings)
        ]
        if not missing:
            continue
        config = lab_lib.short(
            base, model=lab["model"], epochs=lab["epochs"], method="apr_p_heads"
        )
        config.augment.heads_weight = weight
        config.augment.pair_prob = 1.0
        network = lab.train(f"lambda_{weight:g}", config)
        answers = Answers(lab, network, test)
        for kind, asked in missing:
            yield from lab.records(
                answers.measure(asked),
                split=split(kind, asked),
                settings=settings,
                step=network.step,
                extra={"asked": asked, "kind": kind},
            )


def split(kind: str, weight: float) -> str:
    """How a record says what it is of."""
    return f"{kind}, lambda {weight:g}"


def outside(lab: Lab) -> Sequence[str]:
    """Sets of unknown images: the given ones, or the usual where the data are TFDS."""
    if lab.options.out_set:
        return tuple(lab.options.out_set)
    return USUAL_OUT if lab.base.data.source == "tfds" else ()


class Answers:
    """What both heads of a network say of clean, corrupted and unknown images."""

    def __init__(self, lab: Lab, network: classifier_lib.Classifier, test: Any) -> None:
        """Runs the network over everything once; the heads are joined afterwards."""
        both = dataclasses.replace(network, predict=_both_heads(network))
        images, self.labels = np.asarray(test.images), np.asarray(test.labels)
        self.clean = lab_lib.logits_of(both, images).logits
        few = slice(0, lab["corrupted"])
        self.corrupted = {}
        key = jax.random.key(lab.seed)
        for name in corruptions_at_hand(lab.options.frost_dir):
            for severity in corruptions.SEVERITIES:
                made = corruptions.corrupt(
                    key, images[few], name, severity, frost=lab.options.frost_dir
                )
                out = lab_lib.logits_of(both, np.asarray(made))
                self.corrupted[name, severity] = out.logits
        self.unknown = {}
        config = config_lib.parse(lab.base.to_dict())
        for name, where in ood_sets.parse(outside(lab)).items():
            opened = ood_sets.open_set(
                name,
                *where,
                config.data,
                examples=lab["unknown"],
                seed=lab.seed,
                fit="resize",
                tfds_dir=lab.options.data_dir,
            )
            batches = list(opened.batches(500))
            rows = np.concatenate([b.image[b.mask] for b in batches])
            self.unknown[name] = lab_lib.logits_of(both, rows).logits

    def measure(self, weight: float) -> dict[str, metrics.Measured]:
        """Accuracy, accuracy under corruption and AUROC of the joined heads."""
        joined = lambda logits: np.asarray(network_lib.join_heads(logits, weight))
        right = joined(self.clean).argmax(1) == self.labels
        found = {"accuracy": metrics.wilson(int(right.sum()), len(right))}
        hits = [
            np.mean(joined(logits).argmax(1) == self.labels[: len(logits)])
            for logits in self.corrupted.values()
        ]
        count = len(next(iter(self.corrupted.values())))
        names = len({name for name, _ in self.corrupted})
        found[f"accuracy under {names} corruptions"] = dataclasses.replace(
            lab_lib.number(float(np.mean(hits)), count * len(hits)), unit="fraction"
        )
        confidence = lambda logits: special.softmax(joined(logits), axis=1).max(1)
        inside = confidence(self.clean)
        aurocs = []
        for name, logits in self.unknown.items():
            scores = metrics.ood_detection(inside, confidence(logits))
            aurocs.append(float(scores["auroc"]))
            found[f"auroc, {name}"] = dataclasses.replace(
                lab_lib.number(aurocs[-1], len(logits)), unit="fraction"
            )
        return found


def corruptions_at_hand(frost_dir: str) -> Sequence[str]:
    """The fifteen; without frost where no folder is given and no package has it."""
    try:
        frost_files.load(frost_dir)
    except FileNotFoundError as error:
        if frost_dir:
            raise ConfigError(str(error)) from error
        say(f"left out frost: {error}")
        return tuple(n for n in corruptions.CORRUPTIONS if n != "frost")
    return corruptions.CORRUPTIONS


def _both_heads(network: classifier_lib.Classifier) -> Any:
    """``predict`` of a network with the outputs of both heads, [B, 2 K]."""
    config = network.config
    model = network_lib.make_model(config, num_classes=len(network.class_names))

    def predict(variables: Any, images: jax.Array) -> Any:
        inputs = normalise(to_pixels(images), config.data)
        logits, features = model.apply(variables, inputs, train=False, capture=True)
        return logits.astype(jnp.float32), features.astype(jnp.float32)

    return predict


_LABELS = {
    "accuracy": "Accuracy",
    "accuracy under 15 corruptions": "Accuracy under 15 corruptions",
}


def plot(records: Sequence[Record], out: pathlib.Path) -> Sequence[pathlib.Path]:
    """Draws each number over lambda."""
    kinds = {
        "trained": "trained and asked with lambda (Figure 9)",
        "asked": "trained with lambda 0.5, asked with lambda",
    }
    metric_names = list(dict.fromkeys(r.metric for r in records))
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    figure.suptitle(
        "How much the label of the phase weighs (lambda): 0 asks for the amplitude's "
        "label only, 1 for the phase's",
        fontsize=10,
    )
    for axis, (kind, title) in zip(
        figure.subplots(1, 2, sharey=True), kinds.items(), strict=True
    ):
        for metric in metric_names:
            rows = [
                r for r in records if r.metric == metric and r.extra["kind"] == kind
            ]
            rows.sort(key=lambda r: r.extra["asked"])
            axis.plot(
                [r.extra["asked"] for r in rows],
                [100 * r.value for r in rows],
                marker="o",
                markersize=4,
                label=_LABELS.get(metric, metric.replace("auroc", "AUROC")),
            )
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("lambda")
        axis.grid(alpha=0.3)
    figure.axes[0].set_ylabel("percent")
    lines, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(lines, labels, fontsize=8, loc="outside lower center", ncols=4)
    return [lab_lib.save(figure, out / "figure9.png")]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The experiment's own options."""
    parser.add_argument(
        "--out_set",
        action="append",
        help="unknown images, name=source:where; SVHN and CIFAR-100 if none is given",
    )
    parser.add_argument(
        "--only", type=float, nargs="+", help="these lambdas; the others later"
    )
    parser.add_argument("--frost_dir", default="", help="photographs of frost")


if __name__ == "__main__":
    lab_lib.main(NAME, __doc__, SIZES, compute, plot, add_options=add_options)
