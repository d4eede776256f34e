"""CDES, feature discrimination: what networks can tell from high frequencies alone.

    python -m experiments.cdes_discrimination --data-dir TFDS

Trains a network on plain, on SCR and on WCR images (see ``cdes_make_dataset``) and
measures each on the frequencies beyond a radius of 10 to 18, of test images of its own
kind, as published, and of plain ones. Where the high frequencies tell the class, a
network should learn them.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from apr_jax import results, spectral, views
from experiments import cdes_common as common
from experiments import lab as lab_lib
from experiments.lab import Lab

NAME = "cdes_discrimination"
SIZES = common.SIZES


def compute(lab: Lab) -> Iterator[results.Record]:
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
        yield from lab.records(
            measured,
            split=f"{kind} on {on}",
            settings=settings,
            step=network.step,
            extra={"trained": kind, "on": on},
        )


def high_part(images: np.ndarray, radius: float) -> np.ndarray:
    """What lies beyond a radius, float32; not clipped, so it may be negative."""
    run = jax.jit(lambda x, r: spectral.split_bands(views.to_pixels(x), r)[1])
    parts = np.array_split(np.asarray(images), -(-len(images) // 500))
    return np.concatenate([np.asarray(run(part, np.float32(radius))) for part in parts])


def plot(records: Sequence[results.Record], out: Any) -> list[Any]:
    """Accuracy over the radius, ours beside the published."""
    figure = Figure(figsize=(9, 3.7), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, title in zip(
        panels, ("Test images of its own kind", "Plain test images"), strict=True
    ):
        for kind, label in common.KINDS.items():
            on = kind if axes is panels[0] else "plain"
            found = [
                next(
                    lab_lib.find(records, split=f"{kind} on {on}", metric=metric), None
                )
                for metric in (f"high_{r}" for r in common.RADII)
            ]
            found = [record for record in found if record is not None]
            if not found:
                continue
            values = np.array([r.value for r in found]) * 100
            low = np.array([r.low if r.low is not None else r.value for r in found])
            high = np.array([r.high if r.high is not None else r.value for r in found])
            radii = common.RADII[: len(values)]
            axes.plot(
                radii, values, "o-", ms=4, color=common.COLOURS[kind], label=label
            )
            axes.fill_between(
                radii,
                low * 100,
                high * 100,
                color=common.COLOURS[kind],
                alpha=0.2,
                lw=0,
            )
            if axes is panels[0]:
                axes.plot(
                    common.RADII,
                    common.PUBLISHED[kind],
                    "x:",
                    color=common.COLOURS[kind],
                    lw=1,
                    label="published",
                )
        axes.set_title(title, fontsize=10)
        axes.set(xlabel="only frequencies beyond this radius", ylim=(0, 100))
        axes.set_xticks(common.RADII)
        axes.legend(fontsize=7)
    panels[0].set_ylabel("accuracy, percent")
    figure.suptitle(
        "What a network can tell from high frequencies, by what it was trained on",
        fontsize=11,
    )
    return [lab_lib.save(figure, out / "discrimination.png")]


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
