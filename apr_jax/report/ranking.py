"""Networks ranked by their accuracy under corruption, beside RobustBench's entries.

Ours are ranked where they were measured alike. Published ones stand among them only
where the images are theirs: all of CIFAR-10-C's or CIFAR-100-C's files.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from apr_jax.report import robustbench
from apr_jax.runs import records as records_lib
from apr_jax.runs.records import Record

_JOB = "evaluate.corruption"
_ALL = "mean"  # of all fifteen corruptions in all five severities


class Entrant(NamedTuple):
    """A network and its records.

    Attributes:
        name: as pages call it.
        architecture: of its configuration.
        test_split: of its data, for the accuracy on clean images.
        records: those that are shown.
    """

    name: str
    architecture: str
    test_split: str
    records: Sequence[Record]


class Place(NamedTuple):
    """A line of a ranking; accuracies are in percent.

    Attributes:
        place: 1 is the best; those of one accuracy share it.
        name, architecture: of the network.
        clean: accuracy on images as they are, None where it wasn't measured.
        corrupted: the mean over corruptions and severities.
        source: whose number it is; "" for ours.
        extra_data: whether it learned from other data; None where it isn't known.
    """

    place: int
    name: str
    architecture: str
    clean: float | None
    corrupted: float
    source: str = ""
    extra_data: bool | None = None


class Ranking(NamedTuple):
    """Networks on the same images.

    Attributes:
        data: of the records, such as "cifar10-c generated".
        images: behind each of our means.
        places: the best first.
        beside: the source of the published ones; "" where there are none.
        why_alone: why there are none, in words; "" where there are.
    """

    data: str
    images: int
    places: Sequence[Place]
    beside: str
    why_alone: str


def rank(entrants: Iterable[Entrant]) -> tuple[list[Ranking], list[str]]:
    """Ranks networks by what they have in common.

    Returns:
        A ranking of each set of images, and a line for each network that has numbers of
        corruptions, but no mean over all of them.
    """
    groups: dict[str, list[tuple[Entrant, Record]]] = {}
    left_out = []
    for entrant in entrants:
        means = [r for r in entrant.records if (r.job, r.metric) == (_JOB, "error")]
        whole = [record for record in means if record.split == _ALL]
        for record in whole:
            groups.setdefault(_alike(record), []).append((entrant, record))
        if means and not whole:
            partial = [r.split for r in means if r.split.startswith("mean")]
            what = f"{partial[-1]} is all there is" if partial else "they aren't done"
            left_out.append(
                f"{entrant.name} has no mean over fifteen corruptions in five "
                f"severities: {what}"
            )
    return [_ranking(members) for members in groups.values()], left_out


def as_json(rankings: Iterable[Ranking], left_out: Sequence[str]) -> dict[str, Any]:
    """Rankings as values of JSON; accuracies are percent, as numbers."""
    return {
        "rankings": [
            {
                **{k: v for k, v in found._asdict().items() if k != "places"},
                "places": [place._asdict() for place in found.places],
            }
            for found in rankings
        ],
        "left_out": list(left_out),
    }


def _alike(record: Record) -> str:
    """What records must share to be ranked together: the images."""
    settings = records_lib.of_images(record.extra.get("settings"))
    if settings.get("source") in ("folder", "tfds"):
        settings.pop("files", None)  # a copy of published files has other dates
    return json.dumps([record.data, record.n, settings], sort_keys=True)


def _setup(record: Record) -> tuple[str, int]:
    settings: Mapping[str, Any] = record.extra.get("settings") or {}
    return settings.get("source", ""), settings.get("examples", 0)


def _ranking(members: Sequence[tuple[Entrant, Record]]) -> Ranking:
    _, record = members[0]
    why = _why_alone(record)
    found = [
        Place(
            0,
            entrant.name,
            entrant.architecture,
            _clean(entrant),
            round(100 * (1 - own.value), 2),
        )
        for entrant, own in members
    ]
    if not why:
        found += [
            Place(
                0,
                entry.name,
                entry.architecture,
                entry.clean,
                entry.corrupted,
                robustbench.SOURCE,
                entry.extra_data,
            )
            for entry in robustbench.entries(record.data)
        ]
    found.sort(key=lambda place: -place.corrupted)
    above = [place.corrupted for place in found]
    places = [p._replace(place=above.index(p.corrupted) + 1) for p in found]
    beside = "" if why else robustbench.SOURCE
    return Ranking(record.data, record.n, places, beside, why)


def _why_alone(record: Record) -> str:
    """Why RobustBench's numbers aren't of the same images; "" where they are."""
    source, examples = _setup(record)
    name = record.data.partition("-c")[0]
    if not robustbench.entries(f"{name}-c"):
        return f"RobustBench's numbers are of CIFAR-10-C and CIFAR-100-C, not of {name}"
    if source not in ("folder", "tfds"):
        return (
            "RobustBench's numbers are of the published files; these images were made "
            "here (--corruption.source folder takes the files)"
        )
    if examples or record.n != robustbench.IMAGES:
        return (
            f"RobustBench's numbers are of 10,000 images a set; these of "
            f"{record.n / 75:,.0f}"
        )
    return ""


def _clean(entrant: Entrant) -> float | None:
    for record in entrant.records:
        where = (record.job, record.metric, record.split)
        if where == ("evaluate.clean", "accuracy", entrant.test_split):
            return round(100 * record.value, 2)
    return None
