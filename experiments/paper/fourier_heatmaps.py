"""The authors' Fourier heatmaps, standard against APR-SP.

    python -m experiments.paper.fourier_heatmaps --data_dir TFDS --standard A --apr_sp B

The error under a wave of each frequency (``apr_jax.evaluate.fourier``). Where a run has
measured its heatmap already, that is in its ``results.jsonl``, and is taken from there.
"""

import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from apr_jax import config as config_lib
from apr_jax import parallel
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate import fourier
from apr_jax.evaluate.context import Context
from apr_jax.runs import records as records_lib
from apr_jax.runs.records import Record
from experiments import drawing, measures
from experiments.lab import Lab, main, sizes
from experiments.paper import networks as networks_lib

NAME = "apr_fourier"
SIZES = sizes(**networks_lib.KNOBS, images=(500, 10_000))
OPTIONS = networks_lib.OPTIONS


def compute(lab: Lab) -> Iterator[Record]:
    """One heatmap for each network."""
    for method in networks_lib.METHODS:
        given = getattr(lab.options, method)
        known = _measured(given)
        if known is not None:
            weights = known.extra["settings"]["weights"]
        else:
            network = networks_lib.one(lab, method)
            weights = classifier_lib.weights_digest(network)
        part = lab.part(f"waves, {method}", weights=weights)
        if part.done:
            continue
        found = _measure(lab, network) if known is None else known
        number = measures.number(found.value, found.n, unit="fraction")
        yield from part.records(
            {"mean error under waves": number},
            found,
            method=method,
            heatmap=found.extra["heatmap"],
            norm=found.extra["settings"]["norm"],
        )


def _measured(given: pathlib.Path | None) -> Record | None:
    """The heatmap that a run has among its records."""
    path = given / "results.jsonl" if given is not None else None
    if path is None or not path.exists():
        return None
    return records_lib.find(
        records_lib.read(path), job=fourier.JOB, metric="heatmap_error"
    )


def _measure(lab: Lab, network: classifier_lib.Classifier) -> Record:
    layout = parallel.make_layout(network.config.train.devices)
    measured = fourier.measure(
        network,
        config_lib.Fourier(parts=("heatmap",), examples=lab["images"]),
        Context(layout, scratch=lab.work, quiet=lab.options.quiet),
    )
    return next(r for r in measured if r.metric == "heatmap_error")


def plot(records: Sequence[Record]) -> drawing.Figures:
    """Draws both maps on one scale, and their difference."""
    found = {r.extra["method"]: r for r in records}
    maps = {m: 100 * np.array(r.extra["heatmap"]) for m, r in found.items()}
    first = next(iter(found.values()))
    title = (
        f"Error under one wave of L2 norm {first.extra['norm']:g} in each channel, "
        f"{first.n:,} images; low frequencies in the centre"
    )
    figure = drawing.figure(3.4 * (len(maps) + 1), 3.5, title)
    axes = figure.subplots(1, len(maps) + 1, squeeze=False)[0]
    for axis, (method, values) in zip(axes, maps.items(), strict=False):
        drawn = axis.imshow(values, cmap="magma", vmin=0, vmax=100)
        title = f"{networks_lib.TITLES[method]}: mean {values.mean():.1f} %"
        axis.set_title(title, fontsize=9)
    figure.colorbar(drawn, ax=axes[: len(maps)], shrink=0.8, label="error, percent")
    change = maps["apr_sp"] - maps["standard"]
    most = max(float(np.abs(change).max()), 1.0)
    drawn = axes[-1].imshow(change, cmap="RdBu_r", vmin=-most, vmax=most)
    axes[-1].set_title("APR-SP less standard\n(blue: APR-SP errs less)", fontsize=9)
    figure.colorbar(drawn, ax=axes[-1], shrink=0.8, label="percentage points")
    for axis, values in zip(axes, [*maps.values(), change], strict=True):
        centre = len(values) // 2
        ticks = [0, centre, len(values) - 1]
        axis.set_xticks(ticks, [str(t - centre) for t in ticks])
        axis.set_yticks(ticks, [str(t - centre) for t in ticks])
        axis.set_xlabel("cycles across", fontsize=8)
    axes[0].set_ylabel("cycles down", fontsize=8)
    return {"heatmaps": figure}


if __name__ == "__main__":
    main(__name__)
