"""Figures 2 and 3: amplitude swapped between two images, and what a network says.

    python -m experiments.paper.figure2_swap --data_dir TFDS --standard RUN --apr_sp RUN

Each image is paired with another one of another class; the two swap amplitudes. Counted
over all pairs is what becomes of the two answers: both go with the amplitude (as in
the paper's examples), both stay with the phase, or something else. Unknown images, by
default SVHN, are paired by what the standard network answers. The pictures are the
pairs whose answers the standard network swaps with the highest confidence.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from scipy import special

from apr_jax import metrics, spectral
from apr_jax.evaluate import fourier_probe
from apr_jax.gates.answers import NO_ANSWER
from apr_jax.gates.answers import answer as answer_of
from apr_jax.pixels import to_pixels
from apr_jax.runs.records import Record
from experiments import drawing, measures
from experiments.lab import Lab, main, sizes
from experiments.paper import networks as networks_lib

NAME = "apr_figure2_swap"
SIZES = sizes(
    **networks_lib.KNOBS | {"model": ("wrn_10_1", "allconv")},
    pairs=(2000, 10_000),
    confident=(0.8, 0.9),
)
OPTIONS = networks_lib.OPTIONS | {
    "--out_set": {"help": "unknown images, name=source:where; SVHN"}
}
# Outcome -> colour and label.
OUTCOMES = {
    "swapped": ("tab:red", "both go with the amplitude"),
    "kept": ("tab:green", "both stay with the phase"),
    "other": ("lightgrey", "something else"),
}
SHOWN = 2  # pairs of each set


def compute(lab: Lab) -> Iterator[Record]:
    """Counts what becomes of the answers, for each set and network."""
    networks = networks_lib.both(lab)
    settings = {
        "weights": networks_lib.digests(networks),
        "out": lab.options.out_set or "",
    }
    names = next(iter(networks.values())).class_names
    for kind, (images, labels) in _sets(lab).items():
        parts = {m: lab.part(f"{kind}, {m}", **settings) for m in networks}
        if parts["standard"].done:
            continue
        known = labels
        if labels is None:
            known = measures.logits_of(networks["standard"], images).said
        donors = fourier_probe.draw_donors(known, lab.seed)
        pairs = _recombined(images, donors)
        answers = {
            method: [measures.logits_of(network, part).logits for part in pairs]
            for method, network in networks.items()
        }
        truth = None if labels is None else np.stack([labels, labels[donors]])
        cases = {m: _cases(parts, truth) for m, parts in answers.items()}
        shown = _choose(cases["standard"])
        for method, found in reversed(cases.items()):
            extra: dict[str, Any] = {"kind": kind, "method": method}
            if method == "standard":
                extra["pairs"] = [_story(i, pairs, cases, names) for i in shown]
            counted = _numbers(found, lab["confident"])
            yield from parts[method].records(counted, networks[method], **extra)


def _sets(lab: Lab) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """Images and labels of the known set, and images of the unknown one if any."""
    test = lab.tested("pairs")
    found: dict[str, Any] = {"known": (test.images, test.labels)}
    specs = lab.out_sets("svhn=tfds:svhn_cropped")
    for images in lab.unknown(specs, lab["pairs"]).values():
        found["unknown"] = (images, None)
    return found


def _recombined(images: np.ndarray, donors: np.ndarray) -> list[np.ndarray]:
    """Pixels of a, of b, phase of a with amplitude of b, and the other way round."""
    a = np.asarray(to_pixels(jax.numpy.asarray(images)))
    b = a[donors]
    swap = jax.jit(spectral.recombine)
    return [a, b, np.asarray(swap(b, a)), np.asarray(swap(a, b))]


def _cases(logits: Sequence[np.ndarray], truth: np.ndarray | None) -> dict[str, Any]:
    """Outcome of each pair, its confidences, and whether it counts."""
    said = np.stack([answer_of(part) for part in logits])
    sure = np.stack([special.softmax(part, axis=1).max(1) for part in logits])
    swapped = (said[2] == said[1]) & (said[3] == said[0])
    kept = (said[2] == said[0]) & (said[3] == said[1])
    counts = (said[0] != said[1]) & (said[:2] != NO_ANSWER).all(0)
    if truth is not None:
        counts &= (said[:2] == truth).all(0)
    outcome = np.where(swapped, 0, np.where(kept, 1, 2))
    follows = np.where(said[2] == said[1], 0, np.where(said[2] == said[0], 1, 2))
    return {
        "logits": logits,
        "said": said,
        "sure": sure,
        "outcome": outcome,
        "follows": follows,
        "counts": counts,
    }


def _numbers(found: dict[str, Any], confident: float) -> dict[str, metrics.Measured]:
    """Shares of the outcomes over the pairs that count, and over confident ones."""
    counts = found["counts"]
    numbers = {"pairs that count": measures.share(counts)}
    sure = counts & (found["sure"].min(0) >= confident)
    for suffix, rows in (("", counts), (", all four confident", sure)):
        if rows.any():
            for k, name in enumerate(OUTCOMES):
                numbers[f"{name}{suffix}"] = measures.share(found["outcome"][rows] == k)
    if counts.any():
        for k, name in enumerate(("amplitude", "phase", "neither")):
            hits = found["follows"][counts] == k
            numbers[f"answer follows {name}"] = measures.share(hits)
    return numbers


def _choose(found: dict[str, Any]) -> list[int]:
    """Swapped pairs of different answers, the most confident first."""
    good = np.flatnonzero(found["counts"] & (found["outcome"] == 0))
    order = good[np.argsort(-found["sure"].min(0)[good], kind="stable")]
    chosen: list[int] = []
    seen: set[frozenset[int]] = set()
    for i in order.tolist():
        pair = frozenset(found["said"][:2, i].tolist())
        if pair not in seen:
            seen.add(pair)
            chosen.append(i)
    return chosen[:SHOWN]


def _story(
    i: int,
    pairs: Sequence[np.ndarray],
    cases: dict[str, Any],
    names: Sequence[str],
) -> dict[str, Any]:
    """The four images of a pair and what each network says of them."""
    return {
        "images": [drawing.pack(part[i]) for part in pairs],
        "said": {
            method: [
                [name, round(sure, 3)]
                for name, sure in (
                    measures.told(part[i], names) for part in found["logits"]
                )
            ]
            for method, found in cases.items()
        },
    }


def plot(records: Sequence[Record]) -> drawing.Figures:
    """Draws the chosen pairs, and how often each outcome occurs."""
    stories = [
        (r.extra["kind"], story)
        for r in drawing.find(records, metric="pairs that count")
        for story in r.extra.get("pairs", ())
    ]
    pairs = {"pairs": _examples(stories)} if stories else {}
    return pairs | {"counts": _bars(records)}


def _examples(stories: Sequence[Any]) -> Figure:
    titles = ("a", "b", "phase a,\namplitude b", "phase b,\namplitude a")
    title = (
        "Chosen pairs in which the standard network's answers go with the amplitude\n"
        "(red: answer of the amplitude's image, green: of the phase's)"
    )
    figure = drawing.figure(6.4, 2.1 * len(stories) + 0.6, title, size=9)
    grid = figure.subplots(len(stories), 4, squeeze=False)
    for i, (row, (kind, story)) in enumerate(zip(grid, stories, strict=True)):
        for k, axis in enumerate(row):
            image = drawing.unpack(story["images"][k])
            drawing.picture(axis, image, "" if i else titles[k])
            for line, (method, said) in enumerate(story["said"].items()):
                name, sure = said[k]
                phase, amplitude = said[k % 2][0], said[1 - k % 2][0]
                colour = "black"
                if k > 1:
                    colour = {phase: "green", amplitude: "red"}.get(name, "grey")
                text = f"{networks_lib.TITLES[method]}: {name} {100 * sure:.0f} %"
                place = {"ha": "center", "va": "top", "transform": axis.transAxes}
                place |= {"fontsize": 7, "color": colour}
                axis.text(0.5, -0.04 - 0.12 * line, text, **place)
            # Room for the two lines of text, which the layout does not count.
            axis.set_xlabel("\n ", fontsize=9)
        row[0].set_ylabel(kind, fontsize=8)
    return figure


def _bars(records: Sequence[Record]) -> Figure:
    splits = list(dict.fromkeys(r.split for r in records))
    figure = drawing.figure(6.4, 0.6 + 0.5 * len(splits))
    axis = figure.subplots()
    ticks = []
    for place, split in enumerate(splits):
        left, rows = 0.0, {r.metric: r for r in records if r.split == split}
        for name, (colour, label) in OUTCOMES.items():
            if name not in rows:
                continue
            share = 100 * rows[name].value
            shown = None if place else label
            axis.barh(place, share, left=left, color=colour, label=shown)
            if share > 2:
                middle = {"ha": "center", "va": "center", "fontsize": 8}
                axis.text(left + share / 2, place, f"{share:.1f}", **middle)
            left += share
        count = rows["swapped"].n if "swapped" in rows else 0
        ticks.append(f"{split}\n{count:,} pairs")
    axis.set_yticks(range(len(splits)), ticks, fontsize=8)
    axis.invert_yaxis()
    title = "What becomes of both answers when amplitudes are swapped"
    axis.set_title(title, fontsize=9)
    axis.set(
        xlabel="percent of the pairs whose images get two answers (known: right ones)"
    )
    axis.legend(fontsize=7, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.35))
    return figure


if __name__ == "__main__":
    main(__name__)
