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

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from apr_jax import corruptions, metrics
from apr_jax import network as network_lib
from apr_jax.console import say
from apr_jax.corruptions import frost_files
from apr_jax.errors import ConfigError
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.gates.answers import answer as answer_of
from apr_jax.pixels import normalise, to_pixels
from apr_jax.runs.records import Record
from experiments import drawing, measures
from experiments.lab import Lab, main, sizes

NAME = "apr_figure9_heads"
# Asked of the network that was trained with equal weights.
ASKED = tuple(k / 10 for k in range(11))
SIZES = sizes(
    model=("wrn_10_1", "resnet18"),
    images=(10_000, 0),
    epochs=(6.0, 200.0),
    lambdas=((0.0, 0.25, 0.5, 0.75, 1.0), ASKED),
    corrupted=(500, 10_000),
    unknown=(2000, 10_000),
)
OPTIONS = {
    "--out_set": {
        "action": "append",
        "help": "unknown images, name=source:where; SVHN and CIFAR-100 if none",
    },
    "--only": {"type": float, "nargs": "+", "help": "these lambdas; the others later"},
    "--frost_dir": {"default": "", "help": "photographs of frost"},
}
USUAL_OUT = ("svhn=tfds:svhn_cropped", "cifar100=tfds:cifar100")


def compute(lab: Lab) -> Iterator[Record]:
    """Trains and measures one network for each lambda."""
    found = lab.load()
    test = found.splits["test"]
    base = lab.arrays(
        "images", found.class_names, **lab.some(found, train="images"), test=test
    )
    out = list(lab.out_sets(*USUAL_OUT))
    for weight in lab.options.only or lab["lambdas"]:
        own = {"without": ("lambdas",), "lambda": weight, "out": out}
        both = {"trained": (weight,)} | ({"asked": ASKED} if weight == 0.5 else {})
        parts = {
            (kind, asked): lab.part(f"{kind}, lambda {asked:g}", **own)
            for kind, every in both.items()
            for asked in every
        }
        missing = {key: part for key, part in parts.items() if not part.done}
        if not missing:
            continue
        heads = {"augment__heads_weight": weight, "augment__pair_prob": 1.0}
        config = lab.short(base, method="apr_p_heads", **heads)
        network = lab.train(f"lambda_{weight:g}", config)
        answers = Answers(lab, network, test)
        for (kind, asked), part in missing.items():
            measured = answers.measure(asked)
            yield from part.records(measured, network, asked=asked, kind=kind)


class Answers:
    """The logits of both heads of a network for clean, corrupted and unknown images."""

    def __init__(self, lab: Lab, network: classifier_lib.Classifier, test: Any) -> None:
        """Runs the network over everything once; the heads are joined afterwards."""
        both = dataclasses.replace(network, predict=_both_heads(network))
        images, self.labels = np.asarray(test.images), np.asarray(test.labels)
        self.clean = measures.logits_of(both, images).logits
        few = slice(0, lab["corrupted"])
        self.corrupted = {}
        key = jax.random.key(lab.seed)
        for name in corruptions_at_hand(lab.options.frost_dir):
            for severity in corruptions.SEVERITIES:
                how = {"frost": lab.options.frost_dir}
                made = corruptions.corrupt(key, images[few], name, severity, **how)
                out = measures.logits_of(both, np.asarray(made))
                self.corrupted[name, severity] = out.logits
        unknown = lab.unknown(lab.out_sets(*USUAL_OUT), lab["unknown"])
        self.unknown = {
            name: measures.logits_of(both, rows).logits
            for name, rows in unknown.items()
        }

    def measure(self, weight: float) -> dict[str, metrics.Measured]:
        """Accuracy, accuracy under corruption and AUROC of the joined heads."""
        joined = lambda logits: np.asarray(network_lib.join_heads(logits, weight))
        right = answer_of(joined(self.clean)) == self.labels
        found = {"accuracy": measures.share(right)}
        hits = [
            np.mean(answer_of(joined(logits)) == self.labels[: len(logits)])
            for logits in self.corrupted.values()
        ]
        count = len(next(iter(self.corrupted.values())))
        names = len({name for name, _ in self.corrupted})
        found[f"accuracy under {names} corruptions"] = measures.number(
            np.mean(hits), count * len(hits), unit="fraction"
        )
        confidence = lambda logits: special.softmax(joined(logits), axis=1).max(1)
        inside = confidence(self.clean)
        for name, logits in self.unknown.items():
            auroc = metrics.ood_detection(inside, confidence(logits))["auroc"]
            number = measures.number(auroc, len(logits), unit="fraction")
            found[f"auroc, {name}"] = number
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


KINDS = {
    "trained": "trained and asked with lambda (Figure 9)",
    "asked": "trained with lambda 0.5, asked with lambda",
}
_LABELS = {
    "accuracy": "Accuracy",
    "accuracy under 15 corruptions": "Accuracy under 15 corruptions",
}


def plot(records: Sequence[Record]) -> drawing.Figures:
    """Draws each number over lambda."""
    metric_names = list(dict.fromkeys(r.metric for r in records))
    title = (
        "How much the label of the phase weighs (lambda): 0 asks for the amplitude's "
        "label only, 1 for the phase's"
    )
    figure = drawing.figure(9, 3.6, title)
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (kind, title) in zip(axes, KINDS.items(), strict=True):
        for metric in metric_names:
            drawing.curve(
                axis,
                [r for r in records if r.metric == metric and r.extra["kind"] == kind],
                lambda r: r.extra["asked"],
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
    return {"figure9": figure}


if __name__ == "__main__":
    main(__name__)
