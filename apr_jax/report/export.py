"""Records for other programs: a table of CSV, and one JSON document.

``docs/measuring.md`` has the fields. What RobustBench's ``model_info`` has, and means
the same, is called as there and written as there: percent as text, ``eps`` a number.
"""

import csv
import dataclasses
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from apr_jax.gates import stores
from apr_jax.report import compare, ranking
from apr_jax.report.compare import Column, Difference, Row, Run
from apr_jax.runs import files, workdir
from apr_jax.runs.records import Record

SCHEMA = "apr_jax.compare/1"
# What of a record goes into both; of ``extra``, only how it was measured.
FIELDS = tuple(f.name for f in dataclasses.fields(Record) if f.name != "extra")
# The name of each norm's threat model there; there is none for L1.
_THREATS = {"linf": "Linf", "l2": "L2"}
# Images of the test splits whose published corruptions, or networks, RobustBench has.
_IMAGES = {"cifar10": 10_000, "cifar100": 10_000, "imagenet2012": 50_000}
# The steps and queries of AutoAttack's standard version.
_STANDARD = {"attack": "standard", "steps": 100, "queries": 5000}


def write_card(path: stores.Place, roots: Sequence[stores.Place]) -> None:
    """Writes the document of some work directories; those without records aren't in it.

    Raises:
        DataError: files of a run can't be read.
    """
    there = [root for root in roots if workdir.RunDir(root).results.exists()]
    if not there:
        return
    runs = compare.open_runs(there)
    columns = compare.columns(runs)
    table = compare.rows(columns)
    found, _ = compare.differences(columns, table)
    files.write_text(path, as_json(runs, columns, table, found))


def as_csv(runs: Sequence[Run]) -> str:
    """A line for each record, under a line of names."""
    out = io.StringIO()
    heads = ("run", "dataset", "architecture", "method", *FIELDS, "settings")
    writer = csv.DictWriter(out, heads, lineterminator="\n")
    writer.writeheader()
    for run in runs:
        own = {"run": run.name, **_about(run)}
        for record in run.records:
            settings = json.dumps(_settings(record), sort_keys=True)
            writer.writerow({**own, **_fields(record), "settings": settings})
    return out.getvalue()


def as_json(
    runs: Sequence[Run],
    columns: Sequence[Column],
    table: Sequence[Row],
    differences: Sequence[Difference],
) -> str:
    """One document: the runs with their records, the table, what differs in pairs."""
    document = {
        "schema": SCHEMA,
        "runs": [_run(run) for run in runs],
        "columns": [
            {"name": c.name, "runs": [run.name for run in c.runs]} for c in columns
        ],
        "table": [_row(row, columns) for row in table],
        "differences": [_difference(found, columns) for found in differences],
        "ranking": ranking.as_json(*ranking.rank(entrants(runs))),
    }
    return json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def entrants(runs: Sequence[Run]) -> list[ranking.Entrant]:
    """The networks of runs, for a ranking."""
    return [
        ranking.Entrant(
            run.name, run.config.model.name, run.config.data.test_split, run.records
        )
        for run in runs
    ]


def robustbench(run: Run) -> list[dict[str, Any]]:
    """What a run has for RobustBench's tables, an entry for each threat model.

    Only what means the same there: the whole of CIFAR-C's or ImageNet-C's published
    images, and standard AutoAttack, as many images as ``n_ex`` says.
    """
    about = {k: v for k, v in _about(run).items() if k != "method"}
    common = {"name": run.name, **about, "clean_acc": None}
    for record in run.records:
        clean = (record.job, record.split) == (
            "evaluate.clean",
            run.config.data.test_split,
        )
        if clean and record.metric == "accuracy":
            common["clean_acc"] = _percent(record.value)
    return [{**common, **entry} for entry in (*_corrupted(run), *_attacked(run))]


def _corrupted(run: Run) -> Iterator[dict[str, Any]]:
    for record in run.records:
        settings = _settings(record)
        whole = record.job == "evaluate.corruption" and record.split == "mean"
        published = settings.get("source") in ("folder", "tfds")
        images = _IMAGES.get(run.config.data.name.partition(":")[0])
        if not whole or not published or record.n != 75 * (images or 0):
            continue
        if record.metric == "error":
            mce = [
                other.value
                for other in run.records
                if (other.job, other.data, other.split, other.metric)
                == (record.job, record.data, record.split, "mce")
            ]
            yield {
                "threat_model": "corruptions",
                "eps": None,
                "corruptions_acc": _percent(1 - record.value),
                **({"corruptions_mce": _percent(mce[0])} if mce else {}),
                "n_ex": record.n // 75,
            }


def _attacked(run: Run) -> Iterator[dict[str, Any]]:
    for record in run.records:
        settings, norm = _settings(record), record.extra.get("norm")
        standard = all(settings.get(k) == v for k, v in _STANDARD.items())
        standard &= run.config.data.name.partition(":")[0] in _IMAGES
        if record.metric == "robust_accuracy" and norm in _THREATS and standard:
            yield {
                "threat_model": _THREATS[norm],
                "eps": record.extra["eps"],
                "autoattack_acc": _percent(record.value),
                "n_ex": record.n,
            }


def _run(run: Run) -> dict[str, Any]:
    return {
        "name": run.name,
        **_about(run),
        "seed": run.config.seed,
        "config": dataclasses.asdict(run.config),
        "robustbench": robustbench(run),
        "records": [
            {**_fields(record), "settings": _settings(record)} for record in run.records
        ],
    }


def _row(row: Row, columns: Sequence[Column]) -> dict[str, Any]:
    return {
        **_where(row),
        "values": {
            column.name: None
            if cell is None
            else {
                "value": cell.value,
                "std": cell.spread,
                "seeds": [record.seed for record in cell.records],
                "low": cell.records[0].low if len(cell.records) == 1 else None,
                "high": cell.records[0].high if len(cell.records) == 1 else None,
                "n": cell.records[0].n,
            }
            for column, cell in zip(columns, row.cells, strict=True)
        },
    }


def _difference(found: Difference, columns: Sequence[Column]) -> dict[str, Any]:
    return {
        **_where(found.row),
        "of": found.column,
        "from": columns[0].name,
        "difference": found.value,
        "std": found.spread,
        "pairs": [
            {**dataclasses.asdict(pair), "differs": pair.differs}
            for pair in found.pairs
        ],
    }


def _where(row: Row) -> dict[str, Any]:
    question = row.question
    return {
        "question": question.asked,
        "job": question.job,
        "metric": question.metric,
        "data": row.data,
        "split": row.split,
    }


def _about(run: Run) -> dict[str, Any]:
    data = run.config.data
    found = {
        "dataset": (data.name or data.source).partition(":")[0],
        "architecture": run.config.model.name,
    }
    # Of weights from a file it isn't known how they were trained.
    return found | {"method": "" if run.from_elsewhere else run.config.augment.method}


def _fields(record: Record) -> dict[str, Any]:
    return {name: getattr(record, name) for name in FIELDS}


def _settings(record: Record) -> Mapping[str, Any]:
    return record.extra.get("settings") or {}


def _percent(share: float) -> str:
    return str(round(100 * share, 2))
