"""Finished runs side by side, of their records alone: seeds averaged, images paired.

Nothing here needs JAX or a checkpoint, but for paired differences, which are computed
where runs have kept their answers.
"""

import dataclasses
import json
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from apr_jax import config as config_lib
from apr_jax.errors import ConfigError, DataError
from apr_jax.gates import stores
from apr_jax.report import answer
from apr_jax.report.run_view import alike, current
from apr_jax.runs import predictions, workdir
from apr_jax.runs import records as records_lib
from apr_jax.runs.records import Record

if TYPE_CHECKING:
    from apr_jax.metrics import Paired


@dataclasses.dataclass(frozen=True)
class Question:
    """A number that runs are compared by.

    Attributes:
        asked: such as "Corrupted images".
        number: its name for a reader, with an arrow to the better side.
        job, metric: of its records.
        splits: a pattern of their splits.
        mean: the split of the mean over all others, which stands for them.
    """

    asked: str
    number: str
    job: str
    metric: str
    splits: str = ".*"
    mean: str = "all"


QUESTIONS = (
    Question("Clean images", "error ↓", "evaluate.clean", "error"),
    Question("Calibration", "ECE ↓", "evaluate.clean", "ece"),
    Question(
        "Corrupted images", "error ↓", "evaluate.corruption", "error", "mean[^/]*"
    ),
    Question("Corrupted images", "mCE ↓", "evaluate.corruption", "mce", "mean"),
    Question("Images from elsewhere", "error ↓", "evaluate.shift", "error"),
    Question("Shape or texture", "shape bias ↑", "evaluate.shift", "shape_bias"),
    Question(
        "Perturbed sequences",
        "flip probability ↓",
        "evaluate.shift",
        "flip_probability",
        mean="perturbation/mean",
    ),
    Question(
        "Unknown images",
        "AUROC of MSP ↑",
        "evaluate.ood",
        "msp.auroc",
        "(?!near$|far$|full_).*",
    ),
    Question(
        "Attacked images",
        "robust accuracy ↑",
        "evaluate.adversarial",
        "robust_accuracy",
    ),
    Question(
        "Images made on another network",
        "accuracy ↑",
        "evaluate.transfer",
        "transfer_accuracy",
    ),
    Question("Phase", "answers that follow ↑", "evaluate.fourier", "follows_phase"),
)


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run: its name, which differs from all others', and its records."""

    name: str
    directory: workdir.RunDir
    config: config_lib.Config
    records: Sequence[Record]

    @property
    def from_elsewhere(self) -> bool:
        """Whether its weights come from elsewhere; ``config`` tells nothing of them."""
        return any("weights_file" in r.extra or not r.step for r in self.records)


@dataclasses.dataclass(frozen=True)
class Column:
    """Runs of one configuration that differ in their seeds, or one run."""

    name: str
    runs: Sequence[Run]


@dataclasses.dataclass(frozen=True)
class Cell:
    """A number of a column: one record of each of its runs, measured alike."""

    records: Sequence[Record]

    @property
    def value(self) -> float:
        """The mean over the seeds."""
        return statistics.fmean(record.value for record in self.records)

    @property
    def spread(self) -> float | None:
        """Sample standard deviation over the seeds; None of one."""
        values = [record.value for record in self.records]
        return statistics.stdev(values) if len(values) > 1 else None


@dataclasses.dataclass(frozen=True)
class Row:
    """A question on one set of images, and a cell of each column, or None."""

    question: Question
    data: str
    split: str
    cells: Sequence[Cell | None]


@dataclasses.dataclass(frozen=True)
class Difference:
    """What a column differs by from the first, on the same images.

    Attributes:
        row: the question.
        column: the name of the column; its error less the first one's.
        pairs: of each seed that both have.
    """

    row: Row
    column: str
    pairs: Sequence["Paired"]

    @property
    def value(self) -> float:
        """The mean over the seeds."""
        return statistics.fmean(pair.difference for pair in self.pairs)

    @property
    def spread(self) -> float | None:
        """Sample standard deviation over the seeds; None of one."""
        values = [pair.difference for pair in self.pairs]
        return statistics.stdev(values) if len(values) > 1 else None


def open_runs(roots: Iterable[stores.Place]) -> list[Run]:
    """Reads runs, each directory once.

    Raises:
        ConfigError: a directory holds no run, or one without records.
        DataError: its files can't be read.
    """
    opened = []
    for root in {root.resolve(): root for root in roots}.values():
        directory, config = workdir.open_run(root)
        found: Sequence[Record] = []
        if directory.results.exists():
            found = current(records_lib.read(directory.results))
        if not found:
            raise ConfigError(f"{root} has no records; nothing was measured yet")
        with_ends = [answer.over(r, _members(r, found)) or r for r in found]
        opened.append(Run(config.name, directory, config, with_ends))
    names = [run.name for run in opened]
    return [
        dataclasses.replace(run, name=str(run.directory.root))
        if names.count(run.name) > 1
        else run
        for run in opened
    ]


def columns(runs: Iterable[Run]) -> list[Column]:
    """Joins runs that differ in their seeds alone, in the order of the first of each.

    Runs of the same seed, of other steps, and weights of files stay alone.
    """
    groups: dict[str, list[Run]] = {}
    for number, run in enumerate(runs):
        own = config_lib.identity(dataclasses.replace(run.config, seed=0))
        steps = sorted({record.step for record in run.records})
        key = json.dumps([own, steps], sort_keys=True)
        same = {other.config.seed for other in groups.get(key, [])}
        if run.from_elsewhere or run.config.seed in same:
            key += f" {number}"
        groups.setdefault(key, []).append(run)
    names = [_joint_name(group) for group in groups.values()]
    return [
        Column(f"{name} ({group[0].name})" if names.count(name) > 1 else name, group)
        for name, group in zip(names, groups.values(), strict=True)
    ]


def rows(compared: Sequence[Column]) -> list[Row]:
    """Every question that a run answers, on each set of images, in order."""
    found = []
    for question in QUESTIONS:
        cells = [_answers(column, question) for column in compared]
        places = dict.fromkeys(place for own in cells for place in own)
        for data, split in places:
            mean = question.mean
            if split != mean and (data, mean) in places:
                continue  # a mean stands for its members
            across = [own.get((data, split)) for own in cells]
            found.append(Row(question, data, split, across))
    return found


def otherwise(compared: Sequence[Column], table: Iterable[Row]) -> list[str]:
    """What stands beside each other, or was left out, as it wasn't measured alike."""
    found = []
    for row in table:
        there = [cell for cell in row.cells if cell is not None]
        first = there[0].records[0]
        where = f"{row.question.asked}, {row.data} {row.split}"
        if not all(alike(first, cell.records[0]) for cell in there):
            found.append(f"{where}: not measured alike in all columns")
        for column, cell in zip(compared, row.cells, strict=True):
            if cell is not None and len(cell.records) < len(column.runs):
                few = f"{len(cell.records)} of {len(column.runs)} seeds"
                found.append(f"{where}: {few} of {column.name} were measured, or alike")
    return found


def differences(
    compared: Sequence[Column], table: Iterable[Row]
) -> tuple[list[Difference], list[str]]:
    """What columns differ by from the first, where both have kept their answers.

    A seed is paired with the same seed; one run with one run, whatever the seeds.

    Returns:
        The differences, and a line for each pair that saw other images.
    """
    found, refused = [], []
    for row in table:
        if not predictions.can_pair(row.question.metric) or row.cells[0] is None:
            continue
        for column, cell in list(zip(compared, row.cells, strict=True))[1:]:
            if cell is None:
                continue
            pairs = []
            for run, own, first, theirs in _pairs(compared[0], column, row, cell):
                try:
                    pair = predictions.difference(
                        run.directory, own, first.directory, theirs
                    )
                except DataError as error:
                    refused.append(str(error))
                    continue
                pairs += [pair] if pair is not None else []
            if pairs:
                found.append(Difference(row, column.name, pairs))
    return found, refused


def _answers(column: Column, question: Question) -> Mapping[tuple[str, str], Cell]:
    """(data, split) -> the numbers of a column's runs that were measured alike."""
    found: dict[tuple[str, str], list[Record]] = {}
    for run in column.runs:
        for record in run.records:
            asked = (record.job, record.metric) == (question.job, question.metric)
            if asked and re.fullmatch(question.splits, record.split):
                found.setdefault((record.data, record.split), []).append(record)
    return {
        place: Cell([record for record in own if alike(own[0], record)])
        for place, own in found.items()
    }


def _members(mean: Record, records: Iterable[Record]) -> list[Record]:
    """What a number is the mean of, in the records beside it."""
    splits = set(predictions.splits(mean)) - {mean.split}
    if not splits:
        return []
    of = lambda r: (r.job, r.data, r.metric, r.step)
    return [r for r in records if r.split in splits and of(r) == of(mean)]


def _pairs(
    base: Column, column: Column, row: Row, cell: Cell
) -> Iterable[tuple[Run, Record, Run, Record]]:
    """Runs of two columns that belong together, with their records."""
    first = row.cells[0]
    assert first is not None
    mine, theirs = (_by_run(c, found) for c, found in ((column, cell), (base, first)))
    for run, own in mine:
        for other, record in theirs:
            alone = len(mine) == len(theirs) == 1
            if alone or run.config.seed == other.config.seed:
                yield run, own, other, record


def _by_run(column: Column, cell: Cell) -> list[tuple[Run, Record]]:
    return [
        (run, record)
        for run in column.runs
        for record in cell.records
        if any(record is own for own in run.records)
    ]


def _joint_name(group: Sequence[Run]) -> str:
    """The name of some seeds: what is common to theirs."""
    if len(group) == 1:
        return group[0].name
    configured = {run.config.name for run in group}
    if len(configured) == 1:
        return group[0].config.name
    parts = zip(*(run.config.name.split("_") for run in group), strict=False)
    kept = [words[0] for words in parts if len(set(words)) == 1]
    return "_".join(kept) or group[0].name
