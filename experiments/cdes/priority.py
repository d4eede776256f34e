"""CDES, learning priority: which frequencies a network heeds, epoch by epoch.

    python -m experiments.cdes.priority --data_dir TFDS

Trains a network on plain, on SCR and on WCR images (see ``cdes_make_dataset``) with
``train.watch=("input_spectrum",)`` and shows the spectrum of the loss's gradient to the
pixels at every epoch beside the density of the images. What the images have much of,
and what tells their classes, should come first.
"""

from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np
from matplotlib import ticker

from apr_jax import cdes, data
from apr_jax.pixels import to_pixels
from apr_jax.runs import epochs as epochs_lib
from apr_jax.runs.records import Record
from experiments import drawing, measures
from experiments.cdes import common
from experiments.lab import Lab, main

NAME = "cdes_priority"
SIZES, OPTIONS = common.SIZES, common.OPTIONS


def compute(lab: Lab) -> Iterator[Record]:
    """Trains the three networks, or takes them, and reads what was watched."""
    missing = [kind for kind in common.KINDS if not lab.part(kind).done]
    if not missing:
        return
    splits, bases = common.sets(lab)
    for kind in missing:
        network = common.network(lab, kind, bases[kind])
        rows = epochs_lib.read(lab.work / f"network_{kind}")
        epochs, spectra = epochs_lib.table(rows, "input_spectrum", "spectrum")
        _, raw = epochs_lib.table(rows, "input_spectrum", "raw")
        images = mean_density(splits[kind]["train"])
        half = raw.shape[1] // 2
        correlation = np.corrcoef(spectra[-1], images)[0, 1]
        measured = {
            "correlation_with_density": correlation,
            "share_of_high_bands": raw[-1, half:].sum() / raw[-1].sum(),
            "share_of_high_bands_at_epoch_1": raw[1, half:].sum() / raw[1].sum(),
        }
        n = rows[0]["examples"]
        yield from lab.part(kind).records(
            {name: measures.number(value, n) for name, value in measured.items()},
            network,
            epochs=np.round(epochs, 3).tolist(),
            spectra=np.round(spectra, 4).tolist(),
            density=np.round(images, 4).tolist(),
        )


def mean_density(split: data.ArraySplit) -> np.ndarray:
    """Mean azimuthal density of up to 2,000 images, from all over the split."""
    chosen = np.linspace(0, len(split.labels) - 1, min(2000, len(split.labels)))
    images = np.asarray(split.images)[chosen.astype(int)]
    pixels = to_pixels(jnp.asarray(images))
    return np.asarray(cdes.density(pixels).mean(0), np.float64)


def plot(records: Sequence[Record]) -> drawing.Figures:
    """For each kind a heatmap, band upwards and epoch across, and the density."""
    ends = drawing.find(records, metric="correlation_with_density")
    found = {r.split: r for r in ends}
    kinds = [kind for kind in common.KINDS if kind in found]
    if not kinds:
        return {}
    title = (
        "Spectrum of the loss's gradient to the pixels over the epochs, and the "
        "density of the training images"
    )
    figure = drawing.figure(3.7 * len(kinds) + 0.6, 3.6, title, size=11)
    widths = [3, 1] * len(kinds)
    grid = figure.subplots(1, len(widths), width_ratios=widths, sharey=True)
    for i, kind in enumerate(kinds):
        record, (map_axes, side) = found[kind], grid[2 * i : 2 * i + 2]
        spectra = np.array(record.extra["spectra"])
        bands = np.arange(spectra.shape[1])
        shown = map_axes.pcolormesh(
            record.extra["epochs"], bands, spectra.T, cmap="magma", vmin=0, vmax=1
        )
        title = f"{common.KINDS[kind]}\ncorrelation {record.value:.2f}"
        map_axes.set_title(title, fontsize=9)
        map_axes.set_xlabel("epoch")
        side.plot(record.extra["density"], bands, color=common.COLOURS[kind])
        side.set_title("images", fontsize=9)
        side.set(xlabel="density", xlim=(0, 1), xticks=(0, 1))
    grid[0].set_ylabel("band, low to high")
    grid[0].yaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    figure.colorbar(shown, ax=grid, label="gradient, each epoch 0 to 1", shrink=0.9)
    return {"priority": figure}


if __name__ == "__main__":
    main(__name__)
