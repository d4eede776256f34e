"""The data of a run that the page draws, read from its work directory."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from apr_jax import config as config_lib
from apr_jax.runs import curves, epochs, workdir
from apr_jax.runs import records as records_lib
from apr_jax.runs.curves import CurveRow
from apr_jax.runs.examples import Examples, read_examples
from apr_jax.runs.records import Record


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunView:
    """The data of one run; everything but the name may be missing.

    Attributes:
        name: as the page calls the run.
        config: nested, as in ``config.json``.
        records: numbers; of several of the same thing the last is shown. A record's
            ``extra`` may hold a reliability diagram (``"reliability"``, from
            ``Reliability.to_json``) and counts of label by prediction
            (``"confusion"``, [C, C]), which are drawn.
        curve: rows of ``metrics.jsonl``.
        watched: rows of ``watch.jsonl``.
        class_names: C names.
        examples: augmented training images.
        command: what to type to run it again.
        facts: more lines of the summary, such as the number of parameters.
    """

    name: str
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    records: Sequence[Record] = ()
    curve: Sequence[CurveRow] = ()
    watched: Sequence[Mapping[str, Any]] = ()
    class_names: Sequence[str] = ()
    examples: Examples | None = None
    command: str = ""
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def of(self, job: str) -> list[Record]:
        """The records of a job."""
        return [record for record in self.records if record.job == job]

    @property
    def settings(self) -> dict[str, Any]:
        """The values of the configuration: "model.name" -> value."""
        return _flatten(self.config)


def view(root: pathlib.Path) -> RunView:
    """Reads what a work directory holds: configuration, records, curve, classes."""
    run, config = workdir.open_run(root)
    return RunView(
        name=config.name,
        config=config_lib.to_dict(config),
        records=records_lib.read(run.results) if run.results.exists() else (),
        curve=_curve(run),
        watched=epochs.read(run.watched) if run.watched.exists() else (),
        class_names=workdir.read_class_names(run) if run.classes.exists() else (),
        examples=read_examples(run.examples) if run.examples.exists() else None,
    )


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _curve(run: workdir.RunDir) -> Sequence[curves.CurveRow]:
    """The curve, with accuracy under attack where images were held out for it."""
    rows = curves.read_curve(run.curve) if run.curve.exists() else []
    for held in epochs.read_held_out(run.root):
        if held["collapsed"] and rows and rows[-1].step < held["step"]:
            continue  # the run went back to before it
        near = [i for i, row in enumerate(rows) if row.step <= held["step"]][-1:]
        for i in near:
            extra = {**rows[i].extra, "held-out accuracy": held["robust_accuracy"]}
            rows[i] = dataclasses.replace(rows[i], extra=extra)
    return rows
