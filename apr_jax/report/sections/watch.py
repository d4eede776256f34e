"""The watches over a network that learns: heatmaps of frequency over epochs."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import rich.table
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable

from apr_jax.report import answer, figures
from apr_jax.report import html as html_lib
from apr_jax.report.run_view import RunView
from apr_jax.runs import epochs as epochs_lib


def html(runs: Sequence[RunView]) -> str:
    """A row of heatmaps for each watch; empty where nothing was watched."""
    drawn = [_spectra(runs), _bands(runs)]
    return html_lib.section("Watched while learning", *drawn) if any(drawn) else ""


def table(runs: Sequence[RunView]) -> rich.table.Table | None:
    """Nothing: these are curves, not numbers."""
    del runs
    return None


def answers(runs: Sequence[RunView]) -> list[answer.Row]:
    """None: what is watched answers no question by itself."""
    del runs
    return []


def _spectra(runs: Sequence[RunView]) -> str:
    drawn = []
    for run in runs:
        epochs, spectra = epochs_lib.table(run.watched, "input_spectrum", "spectrum")
        if len(epochs) > 1:
            bands = np.arange(1, spectra.shape[1] + 1)
            drawn.append(_heatmap(epochs, bands, spectra, run.name, "Band, cycles"))
    text = html_lib.note(
        "Where the loss is sensitive: the mean amplitude of its gradient to the pixels "
        "in rings of frequency, on the same test images each time. Each epoch is "
        "scaled to its own lowest (dark) and highest (bright)."
    )
    return html_lib.part(
        "Spectrum of the input gradient", html_lib.grid("small", drawn), text
    )


def _bands(runs: Sequence[RunView]) -> str:
    drawn = []
    for run in runs:
        epochs, radii = epochs_lib.table(run.watched, "bands", "radius")
        if len(epochs) > 1:
            for band in ("low", "high"):
                values = epochs_lib.table(run.watched, "bands", band)[1]
                title = f"{run.name}, {band} frequencies"
                drawn.append(_heatmap(epochs, radii[0], values, title, "Radius"))
    text = html_lib.note(
        "Accuracy on test images of which only the frequencies within a radius (low) "
        "or beyond it (high) are left; bright is better."
    )
    return html_lib.part(
        "Accuracy on filtered images", html_lib.grid("small", drawn), text
    )


def _heatmap(
    epochs: npt.NDArray[np.float64],
    bands: npt.NDArray[np.float64],
    values: npt.NDArray[np.float64],
    title: str,
    label: str,
) -> str:
    """Values [T, K] in [0, 1]: epochs across, bands upwards."""

    def draw(axes: Axes) -> ScalarMappable:
        # A cell reaches half-way to its neighbours, whatever the distances.
        shown = axes.pcolormesh(
            epochs, bands, values.T, cmap="magma", vmin=0, vmax=1, shading="nearest"
        )
        shown.set_rasterized(True)
        axes.set(xlabel="Epoch", ylabel=label)
        axes.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
        return shown

    words = f"{title}: {label.lower()} over epochs"
    return figures.field(draw, words, title=title, as_percent=False)
