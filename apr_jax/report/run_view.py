"""The data of a run that the page draws, read from its work directory."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from apr_jax import config as config_lib
from apr_jax.gates import stores
from apr_jax.runs import curves, epochs, workdir
from apr_jax.runs import records as records_lib
from apr_jax.runs.curves import CurveRow
from apr_jax.runs.examples import Examples, read_examples
from apr_jax.runs.records import Record

# Settings by job that are of one set, part, radius or surrogate alone, so that they
# may differ between the records that a section shows together.
_OWN: Mapping[str, frozenset[str]] = {
    "evaluate.corruption": frozenset({"files", "frost"}),
    "evaluate.shift": frozenset({"source", "fingerprint", "note", "fit"}),
    "evaluate.ood": frozenset(
        {
            *("source", "fingerprint", "note", "sets", "near", "scores_file", "stat"),
            "full_spectrum",
        }
    ),
    "evaluate.fourier": frozenset({"part", "norm", "extent", "radii", "axes"}),
    "evaluate.adversarial": frozenset({"attack", "steps", "queries", "seed"}),
    "evaluate.masking": frozenset(),
    "evaluate.transfer": frozenset(
        {"surrogate", "surrogate_weights", "surrogate_step", "surrogate_dtype"}
    ),
}
# The parts of a configuration that say how a network was trained.
_TRAINING = ("augment", "contrast", "optim", "seed", "train")


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
        curve: rows of ``metrics.jsonl``, and of epochs' ends.
        watched: rows of ``watch.jsonl``.
        class_names: C names.
        examples: augmented training images.
        commands: what to type to get the numbers again.
        trained: whether this project trained the network; else what ``config`` says
            of training isn't its own, and isn't shown.
        facts: more lines of the summary, such as the number of parameters.
        place: its work directory, where its answers to single images may be.
    """

    name: str
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    records: Sequence[Record] = ()
    curve: Sequence[CurveRow] = ()
    watched: Sequence[Mapping[str, Any]] = ()
    class_names: Sequence[str] = ()
    examples: Examples | None = None
    commands: Sequence[str] = ()
    trained: bool = True
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    place: workdir.RunDir | None = None

    def of(self, job: str) -> list[Record]:
        """The records of a job that may be shown together."""
        return current(record for record in self.records if record.job == job)

    @property
    def known(self) -> dict[str, Any]:
        """The configuration, less all that is not known of the network."""
        if self.trained:
            return dict(self.config)
        return {k: v for k, v in self.config.items() if k not in _TRAINING}

    @property
    def settings(self) -> dict[str, Any]:
        """The known values of the configuration: "model.name" -> value."""
        return _flatten(self.known)


def current(records: Iterable[Record]) -> list[Record]:
    """The last record of each thing, of the newest weights and settings of its job.

    Numbers of other weights, or measured otherwise (so many images, another source),
    must not stand beside the newest in one table.
    """
    records = list(records)
    agreed: dict[str, dict[str, Any]] = {}
    kept = []
    for record in reversed(records):
        facts, newest = _facts(record), agreed.setdefault(record.job, {})
        if all(newest.get(name, value) == value for name, value in facts.items()):
            newest.update(facts)
            kept.append(record)
    return records_lib.latest(reversed(kept))


def alike(one: Record, other: Record) -> bool:
    """Whether records of two runs were measured alike, so that they have a difference.

    They are of as many images, and of the same settings but for the weights.
    """
    mine, theirs = (record.extra.get("settings") for record in (one, other))
    return one.n == other.n and not records_lib.otherwise(mine, theirs)


def _facts(record: Record) -> dict[str, Any]:
    """All that the records of a job must share."""
    settings = record.extra.get("settings") or {}
    own = _OWN.get(record.job, frozenset())
    found = {name: value for name, value in settings.items() if name not in own}
    if "classifier" in record.extra:
        found["classifier"] = record.extra["classifier"]
    return {**found, "config_hash": record.config_hash, "step": record.step}


def view(root: stores.Place) -> RunView:
    """Reads what a work directory holds: configuration, records, curve, classes."""
    run, config = workdir.open_run(root)
    watched = epochs.read(run.watched) if run.watched.exists() else []
    return RunView(
        name=config.name,
        config=config_lib.to_dict(config),
        records=records_lib.read(run.results) if run.results.exists() else (),
        curve=_curve(run, watched),
        watched=watched,
        class_names=workdir.read_class_names(run) if run.classes.exists() else (),
        examples=read_examples(run.examples) if run.examples.exists() else None,
        commands=workdir.read_commands(run),
        trained=run.curve.exists()
        or run.checkpoints.exists()
        or workdir.is_reduced(root),
        place=run,
    )


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _curve(
    run: workdir.RunDir, watched: Sequence[Mapping[str, Any]]
) -> Sequence[CurveRow]:
    """The curve, with accuracies of epochs on images that it doesn't train on."""
    rows = curves.read_curve(run.curve) if run.curve.exists() else []
    found = [(row, epochs.answered([row])) for row in watched]
    for held in epochs.read_held_out(run.root):
        if held["collapsed"] and rows and rows[-1].step < held["step"]:
            continue  # the run went back to before it
        found.append((held, {"held-out accuracy": held["robust_accuracy"]}))
    for row, extra in found:
        if rows and extra:
            _add(rows, row["step"], row["epoch"], extra)
    return rows


def _add(
    rows: list[CurveRow], step: int, epoch: float, extra: dict[str, float]
) -> None:
    """Puts scalars of a step into a curve, on a point of their own if need be.

    Its loss is the mean over the steps to the next point, of which it is one.
    """
    place = sum(row.step < step for row in rows)
    near = rows[min(place, len(rows) - 1)]
    there = near.step == step
    extra = {**near.extra, **extra} if there else extra
    rows[place : place + there] = [
        dataclasses.replace(near, step=step, epoch=epoch, extra=extra)
    ]
