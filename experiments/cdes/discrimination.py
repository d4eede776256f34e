"""CDES, feature discrimination: what networks can tell from high frequencies alone.

    python -m experiments.cdes.discrimination --data_dir TFDS

Trains a network on plain, on SCR and on WCR images (see ``cdes_make_dataset``) and
measures each on the frequencies beyond a radius of 10 to 18, of test images of its own
kind, beside the published rows, and of plain ones. Where the high frequencies tell the
class, a network should learn them.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from apr_jax import spectral
from apr_jax.pixels import to_pixels
from apr_jax.runs.records import Record
from experiments import lab as lab_lib
from experiments.cdes import common
from experiments.lab import Lab

NAME = "cdes_discrimination"
SIZES = common.SIZES
# The high part has no mean brightness, which no training image lacks. The description
# doesn't say whether it was put back.
GREY = np.float32(0.5)
PANELS = (
    ("Test images of its own kind", "own", "high_{}"),
    ("The same, on mid-grey", "own", "high_{}_on_grey"),
    ("Plain test images", "plain", "high_{}"),
)


def compute(lab: Lab) -> Iterator[Record]:
    """Trains the three networks and measures each on two kinds of images."""
    settings = common.settings(lab, radii=common.RADII)
    wanted = [(k, on) for k in common.KINDS for on in dict.fromkeys((k, "plain"))]
    missing = [
        pair
        for pair in wanted
        if not lab.done(split="{} on {}".format(*pair), settings=settings)
    ]
    if not missing:
        return
    splits, bases = common.sets(lab)
    for kind, on in missing:
        network = common.network(lab, kind, bases[kind])
        test = splits[on]["test"]
        measured = {
            "accuracy": lab_lib.accuracy(
                lab_lib.logits_of(network, test.images, test.labels)
            )
        }
        for radius in common.RADII:
            high = high_part(test.images, radius)
            outputs = lab_lib.logits_of(network, high, test.labels)
            measured[f"high_{radius}"] = lab_lib.accuracy(outputs)
            if on == kind:
                outputs = lab_lib.logits_of(network, high + GREY, test.labels)
                measured[f"high_{radius}_on_grey"] = lab_lib.accuracy(outputs)
        yield from lab.records(
            measured,
            split=f"{kind} on {on}",
            settings=settings,
            step=network.step,
            extra={"trained": kind, "on": on},
        )


def high_part(images: np.ndarray, radius: float) -> np.ndarray:
    """What lies beyond a radius, float32; not clipped, so it may be negative."""
    run = jax.jit(lambda x, r: spectral.split_bands(to_pixels(x), r)[1])
    parts = np.array_split(np.asarray(images), -(-len(images) // 500))
    return np.concatenate([np.asarray(run(part, np.float32(radius))) for part in parts])


def plot(records: Sequence[Record], out: Any) -> list[Any]:
    """Accuracy over the radius, ours beside the published."""
    figure = Figure(figsize=(11, 3.7), layout="constrained")
    grid = figure.subplots(1, len(PANELS), sharey=True)
    for axes, (title, on, metric) in zip(grid, PANELS, strict=True):
        for kind, label in common.KINDS.items():
            split = f"{kind} on {kind if on == 'own' else on}"
            _line(axes, records, split, metric, common.COLOURS[kind], label)
            if axes is grid[0]:
                axes.plot(
                    common.RADII,
                    common.PUBLISHED[kind],
                    "x:",
                    color=common.COLOURS[kind],
                    lw=1,
                    label="published",
                )
        axes.axhline(10, color="black", lw=0.6, ls="--")
        axes.set_title(title, fontsize=10)
        axes.set(xlabel="only frequencies beyond this radius", ylim=(0, 100))
        axes.set_xticks(common.RADII)
        axes.legend(fontsize=7)
    grid[0].set_ylabel("accuracy, percent")
    figure.suptitle(
        "What a network can tell from high frequencies, by what it was trained on; "
        "dashed: chance of ten classes", fontsize=11
    )  # fmt: skip
    return [lab_lib.save(figure, out / "discrimination.png")]


def _line(
    axes: Any,
    records: Sequence[Record],
    split: str,
    metric: str,
    colour: str,
    label: str,
) -> None:
    """One network's accuracy over the radii with its intervals, if it was measured."""
    found = {r.metric: r for r in lab_lib.find(records, split=split)}
    mine = [found[m] for m in map(metric.format, common.RADII) if m in found]
    if len(mine) < len(common.RADII):
        return
    ends = [
        [
            100 * (r.value if end is None else end)
            for r, end in zip(mine, side, strict=True)
        ]
        for side in ([r.low for r in mine], [r.high for r in mine])
    ]
    whole = f"{label} (whole: {100 * found['accuracy'].value:.0f} %)"
    axes.plot(
        common.RADII, [100 * r.value for r in mine], "o-", ms=4, color=colour,
        label=whole,
    )  # fmt: skip
    axes.fill_between(common.RADII, *ends, color=colour, alpha=0.2, lw=0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the experiment."""
    lab_lib.main(
        NAME,
        __doc__,
        SIZES,
        compute,
        plot,
        add_options=common.add_options,
        arguments=arguments,
    )


if __name__ == "__main__":
    main()
