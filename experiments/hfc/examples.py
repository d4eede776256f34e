"""Images that a network knows by their high frequencies and not by their low ones.

    python -m experiments.hfc.examples --run runs/cifar10_small_standard
    python -m experiments.hfc.examples --data_dir TFDS

The original is recognised, its high part, which shows a person next to nothing, is
recognised too, and its low part, which looks like the original, is not (Figure 2 of
Wang et al., CVPR 2020). How often each of the cases occurs is recorded, and
how often the network gives high parts the one answer that it likes best for them.
"""

import base64
import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

from apr_jax.gates.answers import answer as answer_of
from apr_jax.runs.records import Record
from experiments import drawing, measures
from experiments.hfc import networks
from experiments.lab import Lab, main

NAME = "hfc_examples"
SIZES = networks.SIZES
OPTIONS = networks.OPTIONS | {
    "--run": {"default": "", "help": "work directory of launch.py"}
}
SHOWN = 8
OF = ", of recognised images"
USUAL = "the commonest answer to high parts"
# Of the radii: 12 of 32 pixels, where a person sees no loss in the low part.
SHOWN_RADIUS = 2


def compute(lab: Lab) -> Iterator[Record]:
    """Yields the share of each case, for each radius, and images of the odd one."""
    _, test, names = networks.images(lab)
    run = lab.options.run
    wanted = networks.radii(test.images.shape[1])[:4]
    # What is recorded last of a radius.
    last = {r: "found" if r == wanted[SHOWN_RADIUS] else USUAL for r in wanted}
    own = {"run": pathlib.Path(run).name if run else ""}
    parts = {r: lab.part(f"radius {r:g}", **own) for r in wanted}
    done = lambda r: last[r] in {record.metric for record in parts[r].done}
    missing = {r: part for r, part in parts.items() if not done(r)}
    if not missing:
        return
    network = networks.given(lab, run)
    whole = measures.logits_of(network, test.images, test.labels).logits
    for radius, part in missing.items():
        low, high = measures.bands(test.images, radius)
        logits = {"whole": whole}
        for band, pixels in (("low", low), ("high", high)):
            logits[band] = measures.logits_of(network, pixels).logits
        right = {name: answer_of(x) == test.labels for name, x in logits.items()}
        found = {}
        for on_low, on_high in itertools.product((True, False), repeat=2):
            case = (right["low"] == on_low) & (right["high"] == on_high)
            name = f"low {'right' if on_low else 'wrong'}, "
            name += f"high {'right' if on_high else 'wrong'}{OF}"
            found[name] = measures.share(case[right["whole"]])
        # A network that gives one answer to all high parts is right by chance.
        said = answer_of(logits["high"])
        usual = int(np.bincount(said[said >= 0], minlength=len(names)).argmax())
        found[USUAL] = measures.share(said == usual)
        yield from part.records(found, network, radius=radius, usual=names[usual])
        if radius != wanted[SHOWN_RADIUS]:
            continue
        odd = np.flatnonzero(right["whole"] & right["high"] & ~right["low"])
        sure = special.softmax(logits["high"][odd], axis=1).max(1)
        chosen = odd[np.argsort(-sure, kind="stable")][:SHOWN]
        shown = (test.images, 255 * low, 255 * high + 127.5)
        yield from part.records(
            {"found": measures.number(len(odd), len(test.labels))},
            network,
            radius=radius,
            examples=[_example(i, shown, logits, names, test.labels) for i in chosen],
        )


def _example(
    i: int,
    parts: Sequence[np.ndarray],
    logits: Mapping[str, np.ndarray],
    names: Sequence[str],
    labels: np.ndarray,
) -> dict[str, Any]:
    """Pictures of test image ``i``, and answers with their confidence."""
    return {
        "label": names[labels[i]],
        "images": [packed(part[i]) for part in parts],
        "answers": [list(measures.told(x[i], names)) for x in logits.values()],
    }


def packed(image: np.ndarray) -> str:
    """Grey levels as text, a quarter of the size of a list of numbers."""
    levels = np.clip(np.round(image), 0, 255).astype(np.uint8)
    return base64.b64encode(levels.tobytes()).decode("ascii")


def unpacked(text: str) -> np.ndarray:
    """The square colour image of ``packed``: uint8 [H, H, 3]."""
    levels = np.frombuffer(base64.b64decode(text), np.uint8)
    side = round((len(levels) / 3) ** 0.5)
    return levels.reshape(side, side, 3)


def plot(records: Sequence[Record]) -> drawing.Figures:
    """Draws images of the odd case, surest first, and the shares of all four cases."""
    (best,) = (r for r in records if r.metric == "found")
    examples = best.extra["examples"]
    title = (
        "Known by the high part (shown plus mid-grey), not by the low one: "
        f"{best.value:.0f} of {best.n} images at radius {best.extra['radius']:g} "
        "cycles. Answers with confidence, green where right"
    )
    figure = drawing.figure(2 + 1.35 * max(len(examples), 3), 7, title, size=9)
    grid = figure.add_gridspec(2, 1, height_ratios=[3, 1.5])
    if examples:
        tiles = grid[0].subgridspec(3, len(examples))
        for column, example in enumerate(examples):
            for row, name in enumerate(("original", "low part", "high part")):
                axis = figure.add_subplot(tiles[row, column])
                drawing.picture(axis, unpacked(example["images"][row]))
                answer, sure = example["answers"][row]
                colour = "green" if answer == example["label"] else "firebrick"
                axis.set_title(f"{answer} {100 * sure:.0f} %", fontsize=7, color=colour)
                if column == 0:
                    axis.set_ylabel(name, fontsize=8)
    axis = figure.add_subplot(grid[1])
    names = dict.fromkeys(r.metric for r in records if r.metric.endswith(OF))
    usual = {r.extra["radius"]: r for r in records if r.metric == USUAL}
    bars = [
        f"radius {radius:g}\n{100 * usual[radius].value:.0f} % of high parts "
        f"called {usual[radius].extra['usual']}"
        for radius in sorted(usual)
    ]
    radii = sorted({r.extra["radius"] for r in records})
    left = np.zeros(len(radii))
    for name in names:
        rows = {r.extra["radius"]: r for r in records if r.metric == name}
        widths = np.array([100 * rows[r].value for r in radii])
        axis.barh(bars, widths, left=left, label=name.removesuffix(OF))
        left += widths
    axis.tick_params(axis="y", labelsize=8)
    axis.set_xlim(0, 100)
    axis.set_xlabel("percent of the images that are recognised as a whole")
    axis.legend(fontsize=7, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1))
    return {"examples": figure}


if __name__ == "__main__":
    main(__name__)
