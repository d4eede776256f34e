"""One record per number that a job measures, kept as lines of ``results.jsonl``.

Tables, plots and the page read records only, so whatever is shown was written down
first, with the code and configuration that it came from.
"""

import dataclasses
import datetime
import functools
import json
import operator
import pathlib
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import apr_jax
from apr_jax.errors import DataError
from apr_jax.runs import files, jsonl
from apr_jax.runs.machine import machine

if TYPE_CHECKING:  # records are read without JAX
    from apr_jax.metrics import Measured


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One measured number and where it came from.

    Attributes:
        job: what measured it, such as "evaluate.clean".
        data: name of the data set.
        split: part of the data set, such as "test".
        metric: name of the number, such as "accuracy".
        value: the number; finite.
        unit: "fraction" (in [0, 1]), "nats", "1", or any other unit by its name.
        n: number of examples behind it.
        step: training step of the weights that were measured.
        config_hash: of the configuration of the run.
        code_version: from ``code_version()``.
        seed: of the run.
        device: kind and number of the devices that measured it.
        time: when, in UTC, ISO 8601.
        machine: the processor and versions beside the device, from ``machine()``; ""
            in records of older versions.
        low, high: 95 % interval, or None.
        extra: anything more that JSON can hold.
    """

    job: str
    data: str
    split: str
    metric: str
    value: float
    unit: str
    n: int
    step: int
    config_hash: str
    code_version: str
    seed: int
    device: str
    time: str
    machine: str = ""
    low: float | None = None
    high: float | None = None
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)


def records_of(
    measured: Mapping[str, "Measured"],
    *,
    extra: Mapping[str, Any] | None = None,
    extra_of: Mapping[str, Mapping[str, Any]] | None = None,
    **where: Any,
) -> list[Record]:
    """Records of what ``metrics.summary`` returns, of this code and this moment.

    Args:
        measured: metric -> number.
        extra: for every record.
        extra_of: metric -> more for its record. The page draws a ``"reliability"``
            (a ``Reliability``) and a ``"confusion"`` ([C, C] counts) found there.
        where: job, data, split, step, config_hash, seed, device, as in ``Record``.

    Raises:
        ValueError: for an ``extra_of`` of a metric that was not measured.
    """
    extra_of = extra_of or {}
    if strange := sorted(set(extra_of) - set(measured)):
        raise ValueError(
            f"extra_of names {', '.join(strange)}; measured were {', '.join(measured)}"
        )
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return [
        Record(
            metric=metric,
            code_version=code_version(),
            machine=machine(),
            time=now,
            extra=_plain({**(extra or {}), **extra_of.get(metric, {})}),
            **vars(number),
            **where,
        )
        for metric, number in measured.items()
    ]


def _plain(extra: Mapping[str, Any]) -> dict[str, Any]:
    """The extra fields of a record as it reads back from the file."""
    return {
        name: value.to_json()
        if hasattr(value, "to_json")
        else value.tolist()
        if hasattr(value, "tolist")
        else value
        for name, value in extra.items()
    }


def append(path: files.Path, records: Iterable[Record]) -> None:
    """Appends records to a file of one JSON object a line; see ``jsonl.append``.

    Raises:
        ValueError: for a record that JSON cannot hold, such as a NaN, naming it; then
            nothing is written.
        OSError: where the file cannot be written.
    """
    rows = []
    for record in records:
        row = dataclasses.asdict(record)
        try:
            jsonl.encode([row])
        except ValueError as error:
            raise ValueError(
                f"{record.metric!r} of {record.data} {record.split} cannot be "
                f"recorded: {error} (value {record.value!r}, "
                f"interval {record.low!r} to {record.high!r})"
            ) from error
        rows.append(row)
    jsonl.append(path, rows)


def read(path: files.Path) -> list[Record]:
    """Reads the records of a file in the order of their writing.

    A line cut off while it was written is left out with a warning.

    Raises:
        FileNotFoundError: where there is no such file.
        DataError: a line with missing or unknown fields; names file and line.
    """
    known = {field.name: field for field in dataclasses.fields(Record)}
    required = {
        name
        for name, field in known.items()
        if field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    }
    records = []
    for number, row in jsonl.read(path):
        unknown, missing = sorted(set(row) - set(known)), sorted(required - set(row))
        if unknown or missing:
            raise DataError(
                f"{files.named(path)}, line {number}, is not a record: "
                f"missing {', '.join(missing) or 'nothing'}, "
                f"unknown {', '.join(unknown) or 'nothing'}"
            )
        records.append(Record(**row))
    return records


_THING = operator.attrgetter("job", "data", "split", "metric")


def latest(records: Iterable[Record]) -> list[Record]:
    """Keeps the last of the records that measure the same thing.

    The same job, data, split and metric are the same thing; the order is that of
    the first measurement of each.
    """
    return list({_THING(record): record for record in records}.values())


def find(records: Iterable[Record], **fields: Any) -> Record | None:
    """The last record with these fields, or None: ``find(r, metric="ece")``.

    Raises:
        ValueError: for a field that records do not have.
    """
    names = [field.name for field in dataclasses.fields(Record)]
    for name in fields:
        if name not in names:
            raise ValueError(
                f"records have no field {name!r}; choose from {', '.join(names)}"
            )
    fits = lambda r: all(getattr(r, name) == value for name, value in fields.items())
    return next(filter(fits, reversed(list(records))), None)


def finished(
    records: Iterable[Record],
    *,
    job: str,
    config_hash: str,
    step: int,
    settings: Mapping[str, Any],
) -> dict[tuple[str, str, str], Record]:
    """The records that a job has of these weights with these settings.

    An evaluation whose numbers depend on settings (how many images, which radius)
    writes them to the ``"settings"`` of each record's ``extra``.

    Args:
        records: of a work directory.
        job, config_hash, step: as in ``Record``.
        settings: as in the records' ``extra["settings"]``.

    Returns:
        (data, split, metric) -> the last such record.
    """
    plain = lambda values: json.loads(json.dumps(values))  # tuples become lists
    wanted = plain(settings)
    return {
        (r.data, r.split, r.metric): r
        for r in records
        if (r.job, r.config_hash, r.step) == (job, config_hash, step)
        and plain(r.extra.get("settings")) == wanted
    }


# Settings of a measurement that say nothing of its images, nor of what is done to them.
_NOT_OF_IMAGES = ("weights", "dtype", "corruption_dir", "scores_file", "stat")


def of_images(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the settings of a measurement say of its images and of what is done to them.

    Of all, less what is the network's own, and less where the images lay where they
    have a fingerprint.
    """
    found = {k: v for k, v in (settings or {}).items() if k not in _NOT_OF_IMAGES}
    if found.get("fingerprint"):
        found.pop("source", None)
    if "sets" in found:
        # Name, source, fingerprint and note of each.
        found["sets"] = [
            [name, "" if mark else source, mark, *rest]
            for name, source, mark, *rest in found["sets"]
        ]
    return found


def otherwise(mine: Mapping[str, Any] | None, theirs: Mapping[str, Any] | None) -> str:
    """What two measurements did differently, in words; "" if nothing."""
    # As JSON has them: of tuples lists.
    own, other = (json.loads(json.dumps(of_images(each))) for each in (mine, theirs))
    for name in {**own, **other}:
        if own.get(name) != other.get(name):
            return f"{name} is {own.get(name)!r} and {other.get(name)!r}"
    return ""


def hidden(records: Sequence[Record], found: Iterable[Record]) -> list[Record]:
    """The records of ``found`` that a later one of ``records`` of the same name hides.

    A page shows the last record of each (job, data, split, metric). Where that was
    measured with other settings, one that is used again must be written again.
    """
    newest = {_THING(record): record for record in records}
    return [record for record in found if newest.get(_THING(record)) is not record]


@functools.cache
def code_version() -> str:
    """Version of the package, with the commit where it runs from a checkout.

    For instance "0.1.0", or "0.1.0+g3f2a1bc.dirty" in a checkout with changes.
    """
    root = pathlib.Path(__file__).resolve().parents[2]
    version = apr_jax.__version__
    if not (root / ".git").exists():
        return version
    try:
        described = subprocess.run(
            # Without tags, which would bring their own version along.
            ["git", "describe", "--always", "--exclude=*", "--dirty=.dirty"],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        # No git, or no commit yet: the version has to do.
        return version
    return f"{version}+g{described}"
