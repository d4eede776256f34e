"""Training curves: rows of ``metrics.jsonl``, and TensorBoard where it is installed."""

import dataclasses
import math
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, Self

from apr_jax.errors import DataError
from apr_jax.gates import stores
from apr_jax.runs import files, jsonl

FILE_NAME = "metrics.jsonl"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurveRow:
    """The state of a training at one step.

    Attributes:
        step: steps taken so far.
        epoch: passes over the data so far, fractions included.
        loss: mean training loss since the row before.
        accuracy: mean training accuracy since the row before, in [0, 1].
        learning_rate: of the last step.
        images_per_second: since the row before.
        time: seconds since 1970, UTC.
        extra: further scalars by name; those that end in "loss" or "accuracy", such
            as "test_accuracy", are drawn beside the curve of that name.
    """

    step: int
    epoch: float
    loss: float
    accuracy: float
    learning_rate: float
    images_per_second: float
    time: float
    extra: dict[str, float] = dataclasses.field(default_factory=dict)


_SCALARS = ("loss", "accuracy", "learning_rate", "images_per_second")


class Follower(Protocol):
    """A place where the scalars of a run can be followed."""

    def scalars(self, values: dict[str, float], *, step: int, seconds: float) -> None:
        """Takes finite scalars of a step, and their time since 1970, UTC."""

    def close(self) -> None:
        """Waits until they are there."""


class CurveWriter:
    """Appends rows to a curve; made by ``curve_writer``, closed by ``with``."""

    def __init__(self, path: files.Path, followers: Sequence[Follower]):
        self._path = path
        self._followers = followers

    def write(self, row: CurveRow) -> None:
        """Appends a row and waits until it is on the disk.

        NaN and infinite scalars are kept as null, which reads back as NaN.
        """
        fields = dataclasses.asdict(row)
        scalars = {name: fields[name] for name in _SCALARS}
        finite = {name: _finite(x) for name, x in scalars.items()}
        extra = {name: _finite(x) for name, x in row.extra.items()}
        jsonl.append(self._path, [{**fields, **finite, "extra": extra}])
        self.note({**scalars, **row.extra}, step=row.step, seconds=row.time)

    def note(self, scalars: Mapping[str, float], *, step: int, seconds: float) -> None:
        """Adds scalars where they are followed, but to no row: they have their own.

        Args:
            scalars: by name; those that are not finite are left out.
            step: steps taken so far.
            seconds: since 1970, UTC.
        """
        finite = {name: x for name, x in scalars.items() if math.isfinite(x)}
        for follower in self._followers if finite else ():
            follower.scalars(finite, step=step, seconds=seconds)

    def close(self) -> None:
        for follower in self._followers:
            follower.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def curve_writer(
    workdir: files.Path,
    *,
    resume_step: int,
    tensorboard: bool = True,
    followers: Iterable[Follower] = (),
) -> CurveWriter:
    """Opens the curve of a run to go on after ``resume_step``, 0 for a new run.

    Rows beyond that step, which a killed run wrote after its last checkpoint, are
    dropped first (the file is replaced at once), so that every step has one row. A
    row cut off while it was written is dropped too, with a warning.

    Args:
        workdir: the directory of the run, which exists; holds ``metrics.jsonl``.
        resume_step: the step of the restored checkpoint.
        tensorboard: also write scalars to ``workdir/tensorboard``, if the tensorboard
            package can be imported. TensorFlow is not needed and not imported.
        followers: further places for the scalars; closed with the curve.

    Raises:
        OSError: where the files cannot be written.
    """
    path = files.at(workdir) / FILE_NAME
    if path.exists():
        rows = [row for _, row in jsonl.read(path)]
        with files.reading(path):
            kept = [row for row in rows if row["step"] <= resume_step]
        jsonl.replace(path, kept)
    events = None
    if tensorboard:
        events = _EventFile.open(files.at(workdir) / "tensorboard", resume_step)
    return CurveWriter(path, [*([events] if events else []), *followers])


def read_curve(path: files.Path) -> list[CurveRow]:
    """Reads a curve, in the order of its steps.

    Args:
        path: ``metrics.jsonl``, or the directory that holds it.

    Raises:
        FileNotFoundError: where there is no such file.
        DataError: a line is no row of a curve; names file and line.
    """
    path = files.at(path)
    path = path / FILE_NAME if path.is_dir() and path.name != FILE_NAME else path
    rows = []
    for number, row in jsonl.read(path):
        try:
            for scalars in (row, row.get("extra", {})):
                scalars.update({k: math.nan for k, x in scalars.items() if x is None})
            rows.append(CurveRow(**row))
        except (TypeError, AttributeError) as error:
            raise DataError(
                f"{path}, line {number}, is not a row of a curve: {error}"
            ) from error
    return sorted(rows, key=lambda row: row.step)


def _finite(x: Any) -> float | None:
    return float(x) if math.isfinite(x) else None


class _EventFile:
    """A TensorBoard event file, written through the protocol buffers alone.

    TensorBoard's own writer would import TensorFlow for its file system.
    """

    def __init__(self, path: stores.Place, resume_step: int):
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer import record_writer

        self._event, self._summary = event_pb2, summary_pb2
        self._records = record_writer.RecordWriter(files.growing(path))
        self._write(file_version="brain.Event:2", wall_time=time.time())
        # Tells readers to forget what an interrupted run wrote from here on.
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(session_log=start, step=resume_step + 1, wall_time=time.time())

    @classmethod
    def open(cls, folder: stores.Place, resume_step: int) -> "_EventFile | None":
        stamp = f"{time.time_ns() // 1000:016d}"
        name = f"events.out.tfevents.{stamp}.{socket.gethostname()}"
        try:
            import tensorboard.compat.proto  # noqa: F401
        except ImportError:
            return None
        folder.mkdir(exist_ok=True)
        return cls(folder / name, resume_step)

    def scalars(self, values: dict[str, float], *, step: int, seconds: float) -> None:
        summary = self._summary.Summary(
            value=[
                self._summary.Summary.Value(tag=name, simple_value=x)
                for name, x in values.items()
            ]
        )
        self._write(summary=summary, step=step, wall_time=seconds)

    def close(self) -> None:
        self._records.close()

    def _write(self, **fields: Any) -> None:
        self._records.write(self._event.Event(**fields).SerializeToString())
        self._records.flush()
