"""Kernels of the first layer: are robust ones smoother, and does smoothing help?

    python -m experiments.hfc.kernels --data_dir TFDS

Draws the first convolution's kernels of a network trained as usual and of one trained
against an adversary, and measures how rough they are. Then the kernels of both are
smoothed (each tap mixed with the mean of its neighbours by rho), and the networks
attacked by FGSM and PGD (Wang et al., CVPR 2020, section 6).
"""

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax import attacks, metrics
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.models import kernels
from apr_jax.runs.records import Record
from experiments import drawing, measures
from experiments.hfc import networks
from experiments.lab import Lab, main, sizes

NAME = "hfc_kernels"
SIZES = sizes(
    **networks.KNOBS,
    attacked=(300, 10_000),
    rhos=((0.0, 0.1, 0.2, 0.3, 0.4, 0.6), tuple(k / 10 for k in range(11))),
    levels=((1, 2, 4), (1, 2, 4, 8)),
)
OPTIONS = networks.OPTIONS
KINDS = ("plain", "adversarial")
STEPS = 10
ATTACKS = {"FGSM": attacks.fgsm, "PGD": functools.partial(attacks.pgd, steps=STEPS)}


def compute(lab: Lab) -> Iterator[Record]:
    """Yields roughness, and accuracies over rho."""
    _, test, _ = networks.images(lab)
    few = lab["attacked"]
    pixels = np.asarray(test.images[:few], np.float32) / 255
    labels = np.asarray(test.labels[:few])
    for kind in KINDS:
        own = {"without": ("rhos",), "kind": kind, "steps": STEPS}
        parts = {rho: lab.part(f"{kind}, rho {rho:g}", **own) for rho in lab["rhos"]}
        missing = {rho: part for rho, part in parts.items() if not part.done}
        if not missing:
            continue
        network, _ = networks.network(lab, kind)
        first = network.variables["params"]["conv1"]["kernel"]
        for rho, part in missing.items():
            smoothed = kernels.smooth(jnp.asarray(first), rho)
            variables = with_first(network.variables, smoothed)
            given = variables, pixels, labels
            measured = attacked(network, *given, levels=lab["levels"])
            rough = np.asarray(kernels.roughness(smoothed))
            measured["roughness"] = measures.number(rough.mean(), rough.size)
            extra = {} if rho else {"kernels": np.asarray(smoothed).tolist()}
            yield from part.records(measured, network, rho=rho, **extra)


def with_first(variables: Mapping[str, Any], kernel: jax.Array) -> dict[str, Any]:
    """The same variables with another kernel in the first convolution."""
    params = dict(variables["params"])
    params["conv1"] = {**params["conv1"], "kernel": kernel}
    return {**variables, "params": params}


def attacked(
    network: classifier_lib.Classifier,
    variables: Mapping[str, Any],
    pixels: np.ndarray,
    labels: np.ndarray,
    *,
    levels: Sequence[int],
) -> dict[str, metrics.Measured]:
    """Accuracy on images as they are, under FGSM and under PGD, over the radius.

    ``levels`` are radii of the L-infinity ball in grey levels of 255.
    """
    logits_fn = functools.partial(_logits, variables, predict=network.predict)
    key = jax.random.key(0)
    found: dict[str, metrics.Measured] = {}
    for level, name in itertools.product(levels, ATTACKS):
        result = ATTACKS[name](key, logits_fn, pixels, labels, eps=level / 255)
        found.setdefault("accuracy", measures.share(result.survived["clean"]))
        name = f"accuracy under {name}, eps {level}/255"
        found[name] = measures.share(result.robust)
    return found


def _logits(variables: Any, pixels: jax.Array, *, predict: Any) -> jax.Array:
    return predict(variables, pixels)[0]


def plot(records: Sequence[Record]) -> drawing.Figures:
    """Draws the kernels, and accuracy over rho."""
    figure = drawing.figure(11, 6.4)
    grid = figure.add_gridspec(2, 2, height_ratios=[1, 1.5])
    for column, kind in enumerate(KINDS):
        mine = [r for r in records if r.extra["settings"]["kind"] == kind]
        (plain,) = (r for r in mine if r.metric == "roughness" and not r.extra["rho"])
        axis = figure.add_subplot(grid[0, column])
        axis.imshow(sheet(np.array(plain.extra["kernels"])), interpolation="nearest")
        axis.set_axis_off()
        title = f"{kind}: kernels of the first layer, roughness {plain.value:.2f} "
        axis.set_title(title + "(1 is noise, 0 constant)", fontsize=9)
        axis = figure.add_subplot(grid[1, column])
        draw_curves(axis, [r for r in mine if r.metric != "roughness"])
        axis.set_title(f"{kind}: accuracy, kernels smoothed", fontsize=9)
    return {"kernels": figure}


def draw_curves(axis: Any, records: Sequence[Record]) -> None:
    """Accuracy over rho, a colour for each radius, on a Matplotlib axis."""
    colours = {"accuracy": "k"}
    for metric in dict.fromkeys(r.metric for r in records):
        kind, _, level = metric.partition(", ")
        label = metric.removeprefix("accuracy under ").replace("accuracy", "no attack")
        colour = colours.setdefault(level or metric, f"C{len(colours) - 1}")
        drawing.curve(
            axis,
            [r for r in records if r.metric == metric],
            lambda r: r.extra["rho"],
            "--" if kind.endswith("FGSM") else "-",
            interval=0.1,
            marker="o",
            ms=3,
            color=colour,
            label=label,
        )
    axis.set_xlabel("rho: how much each tap is mixed with its neighbours")
    axis.set(ylabel="accuracy, percent; 95 % intervals", ylim=(0, 100))
    axis.legend(fontsize=7, ncols=2)
    axis.grid(alpha=0.3)


def sheet(first: np.ndarray) -> np.ndarray:
    """Kernels [h, w, 3, N] side by side as colours, each scaled to its largest tap."""
    scaled = 0.5 + 0.5 * first / np.abs(first).max(axis=(0, 1, 2), keepdims=True)
    tiles = [
        np.pad(scaled[..., k], ((0, 1), (0, 1), (0, 0)), constant_values=1)
        for k in range(scaled.shape[-1])
    ]
    rows = [np.concatenate(tiles[k : k + 8], axis=1) for k in range(0, len(tiles), 8)]
    return np.concatenate([r for r in rows if r.shape == rows[0].shape])


if __name__ == "__main__":
    main(__name__)
