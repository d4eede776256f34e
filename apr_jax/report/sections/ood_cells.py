"""Records of the detection of unknowns, as they may stand in one table."""

from collections.abc import Mapping, Sequence

import numpy as np

from apr_jax import ood
from apr_jax.report.run_view import RunView
from apr_jax.runs.records import Record

JOB = "evaluate.ood"
# Before the names of OpenOOD's full spectrum, where known classes on other images
# count as known.
FULL = "full_"
GROUPS: Mapping[str, str] = {
    "near": "Mean, near",
    "far": "Mean, far",
    "all": "Mean",
    "full_near": "Full spectrum: mean, near",
    "full_far": "Full spectrum: mean, far",
    "full_all": "Full spectrum: mean",
}
# (split, score) -> metric -> record
Cells = dict[tuple[str, str], dict[str, Record]]


def of_run(run: RunView) -> Cells:
    """The numbers of a run that were measured with each other."""
    cells: Cells = {}
    for record in run.of(JOB):
        score, _, metric = record.metric.rpartition(".")
        cells.setdefault((record.split, score), {})[metric] = record
    for score, metric in {(s, m) for (_, s), by in cells.items() for m in by}:
        rows = {
            split: by[metric]
            for (split, s), by in cells.items()
            if s == score and metric in by
        }
        for split in set(rows) - _together(rows):
            del cells[split, score][metric]
    return {key: by for key, by in cells.items() if by}


def _together(rows: Mapping[str, Record]) -> set[str]:
    """The sets and means of one number that were measured with each other.

    A mean that isn't that of its members as they are shown is of an earlier call, and
    so are sets that a good mean over all leaves out. The full spectrum is apart.
    """
    found: set[str] = set()
    for full in (False, True):
        own = {k: v for k, v in rows.items() if k.startswith(FULL) == full}
        found |= _of_one_call(own, FULL + "all" if full else "all")
    return found


def _of_one_call(rows: Mapping[str, Record], over_all: str) -> set[str]:
    """``_together`` of one spectrum, whose mean over all sets has that name."""
    sets = {split for split in rows if split not in GROUPS}
    means = {split for split in rows if split in GROUPS and _is_mean(rows, split)}
    whole = rows[over_all].extra if over_all in means else {}
    if "members" not in whole:
        return sets | means
    same = {m for m in means if rows[m].extra.get("settings") == whole.get("settings")}
    return (sets & set(whole["members"])) | same


def _is_mean(rows: Mapping[str, Record], group: str) -> bool:
    """Whether a mean is that of its members; where they aren't named, it may be."""
    members = rows[group].extra.get("members")
    if members is None:
        return True
    if not set(members) <= set(rows):
        return False
    mean = float(np.mean([rows[member].value for member in members]))
    return bool(np.isclose(mean, rows[group].value, rtol=0.0, atol=1e-6))


def get(own: Cells, split: str, score: str, metric: str) -> Record | None:
    """A number of a score on a set; None where there is none."""
    return own.get((split, score), {}).get(metric)


def has(what: str, own: Cells, split: str, score: str) -> bool:
    """Whether the record of an AUROC carries what a figure is drawn from."""
    record = get(own, split, score, "auroc")
    return record is not None and what in record.extra


def scores(cells: Cells) -> list[str]:
    """The names of the scores, in their usual order."""
    order = list(ood.LABELS)
    found = dict.fromkeys(score for _, score in cells)
    known = [score for score in order if score in found]
    return known + [score for score in found if score not in order]


def columns(cells: Sequence[Cells]) -> list[str]:
    """The means there are, then the out sets, the near ones first."""
    found: dict[str, str] = {}
    for own in cells:
        for (split, _), records in own.items():
            first = next(iter(records.values()))
            found[split] = first.extra.get("group", "far")
    sets = [name for name in found if name not in GROUPS]
    sets.sort(key=lambda name: (name.startswith(FULL), found[name] != "near"))
    return [group for group in GROUPS if group in found] + sets


def headline(cells: Sequence[Cells]) -> str:
    """The score that the figures show: the paper's, where there is one for all."""
    names = [scores(own) for own in cells if own]
    shared = [score for score in names[0] if all(score in each for each in names)]
    return "msp" if "msp" in shared else (shared or names[0])[0]
