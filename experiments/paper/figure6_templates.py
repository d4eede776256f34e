"""Figure 6: the four contrast templates of a coefficient, and equation (4) checked.

    python -m experiments.paper.figure6_templates --data_dir TFDS

Every coefficient of some images: the phase by the four contrasts against the phase of
NumPy's FFT, with arctan2, and with the quotient alone as the paper writes it.
"""

from collections.abc import Iterator, Sequence

import jax
import numpy as np

from apr_jax import spectral
from apr_jax.report import numbers
from apr_jax.runs.records import Record
from experiments import drawing, measures
from experiments.lab import Lab, main, sizes

NAME = "apr_figure6_templates"
SHOWN = [[0, 1], [1, 0], [2, 3], [7, 4]]
SIZES = sizes(images=(20, 1000), shown=(SHOWN, SHOWN))


def compute(lab: Lab) -> Iterator[Record]:
    """Compares phases, and keeps what the templates gather of one image."""
    part = lab.part("test")
    if part.done:
        return
    test = lab.tested("images")
    images = np.float32(test.images) / 255
    height, width = images.shape[1:3]
    rows, columns = (x.ravel() for x in np.indices((height, width)))
    sums = jax.jit(jax.vmap(spectral.template_sums, (None, 0, 0)))
    phases = jax.jit(jax.vmap(spectral.template_phase, (None, 0, 0)))
    plus, minus, up, down = map(np.asarray, sums(images, rows, columns))
    spectrum = np.fft.fft2(np.float64(images), axes=(1, 2))
    truth = spectrum[:, rows, columns].transpose(1, 0, 2)
    # A coefficient that vanishes has no phase to speak of.
    clear = np.abs(truth) > 1e-2
    angle = np.angle(truth)
    apart = lambda phase: np.abs(np.angle(np.exp(1j * (phase - angle))))[clear]
    by_four = apart(np.asarray(phases(images, rows, columns)))
    with np.errstate(divide="ignore", invalid="ignore"):
        by_quotient = apart(np.nan_to_num(np.arctan((up - down) / (plus - minus))))
    count = int(clear.sum())
    shown = [int(u * width + v) for u, v in lab["shown"]]
    yield from part.records(
        {
            "largest error of the phase, arctan2": measures.number(
                by_four.max(), count, unit="radians"
            ),
            "phases half a turn off, arctan": measures.share(by_quotient > np.pi / 2),
        },
        size=[height, width],
        image=drawing.pack(test.images[0]),
        sums=[
            [round(float(x[i, 0].mean()), 3) for x in (plus, minus, up, down)]
            for i in shown
        ],
        shown=lab["shown"],
    )


def plot(records: Sequence[Record]) -> drawing.Figures:
    """Draws the templates of some coefficients, and what each gathers of an image."""
    extra = records[0].extra
    height, width = extra["size"]
    names = ("R+", "R-", "I+", "I-")
    count = len(extra["shown"])
    lines = [f"{r.metric}: {numbers.shown(r)[0]}" for r in records]
    title = (
        "Contrast templates (eq. 3) and what they gather of the image's mean channel"
    )
    title += "\n" + "; ".join(lines)
    figure = drawing.figure(7.0, 1.55 * count + 0.9, title, size=8)
    grid = figure.subplots(count, 5, squeeze=False)
    for row, (u, v), sums in zip(grid, extra["shown"], extra["sums"], strict=True):
        drawing.picture(row[0], drawing.unpack(extra["image"]))
        row[0].set_ylabel(f"(u, v) = ({u}, {v})", fontsize=8)
        phase = np.arctan2(sums[2] - sums[3], sums[0] - sums[1])
        row[0].set_xlabel(f"phase {phase:.2f}", fontsize=8)
        templates = spectral.contrast_templates(height, width, u, v)
        for k, axis in enumerate(row[1:]):
            drawn = drawing.picture(axis, templates[k], cmap="gray", vmin=0, vmax=1)
            axis.set_xlabel(f"{names[k]}: sum {sums[k]:.1f}", fontsize=8)
    figure.colorbar(drawn, ax=grid, shrink=0.4).set_label("weight", fontsize=8)
    return {"templates": figure}


if __name__ == "__main__":
    main(__name__)
