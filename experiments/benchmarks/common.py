"""Tools of the benchmarks: turns, worker processes, tables, records.

JAX is imported where it is needed: a contestant may be of a Python without it.
"""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import datetime
import itertools
import json
import multiprocessing
import os
import pathlib
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import rich.console
import rich.table

ROOT = pathlib.Path(__file__).resolve().parents[2]
BATCHES = {32: 256, 224: 32}  # image size -> images


class Timed(NamedTuple):
    """A call's result, and its seconds: of the clock and of all threads' processors."""

    result: Any
    clock: float
    processor: float


def timed(work: Callable[[], Any]) -> Timed:
    """Calls a function once."""
    clock, processor = time.perf_counter(), time.process_time()
    result = work()
    processor = time.process_time() - processor
    return Timed(result, time.perf_counter() - clock, processor)


# -- turns within one process ----------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Row:
    """Images per second of one contestant, and how often that is the first one's."""

    part: str
    size: int
    name: str
    speed: float
    ratio: float  # the first contestant's speed over this one's
    low: float  # the lowest and the highest ratio of a round
    high: float
    images: int


@dataclasses.dataclass(frozen=True)
class Turns:
    """Rounds of turns, each turn about ``seconds`` long."""

    rounds: int
    seconds: float

    def take(
        self,
        part: str,
        size: int,
        contestants: Mapping[str, Callable[[], object]],
        *,
        images: int,
    ) -> list[Row]:
        """Times the contestants in turns.

        Each is called once beforehand; a call must return only when its work is done.
        """
        speeds: dict[str, list[float]] = {name: [] for name in contestants}
        calls = {}
        for name, work in contestants.items():
            work()
            calls[name] = max(1, round(self.seconds / seconds_of(work)))
        for _ in range(self.rounds):
            for name, work in contestants.items():
                elapsed = seconds_of(work, calls[name])
                speeds[name].append(calls[name] * images / elapsed)
        first = next(iter(speeds.values()))
        rows = []
        for name, own in speeds.items():
            ratios = [a / b for a, b in zip(first, own, strict=True)]
            speed, ratio = statistics.median(own), statistics.median(ratios)
            ends = min(ratios), max(ratios)
            rows.append(Row(part, size, name, speed, ratio, *ends, images))
        return rows


def seconds_of(work: Callable[[], object], calls: int = 1) -> float:
    """Seconds that some calls take."""
    start = time.perf_counter()
    for _ in range(calls):
        work()
    return time.perf_counter() - start


def report(rows: Sequence[Row], path: pathlib.Path | None, *, job: str) -> None:
    """Prints a table, and appends records to a file if there is to be one.

    A row makes two of them: its speed, and the first one's ratio to it.
    """
    import jax

    from apr_jax.metrics import Measured
    from apr_jax.runs import records as records_lib

    columns = {
        "": "{name}",
        "px": "{size}",
        "images/s": "{speed:,.0f}",
        "times slower": "{ratio:.2f}",
        "rounds": "{low:.2f} to {high:.2f}",
    }
    show("", columns, map(vars, rows))
    device = f"{jax.devices()[0].device_kind}, {cores()} cores"
    for row in rows if path else ():
        speed = Measured(row.speed, None, None, "images/s", row.images)
        ratio = Measured(row.ratio, None, None, "1", row.images)
        records = records_lib.records_of(
            {"images_per_second": speed, "speed_of_first_over_this": ratio},
            job=job,
            data=row.name,
            split=f"{row.part}, {row.size} px",
            step=0,
            config_hash="",
            seed=0,
            device=device,
            extra={"ratio_lowest": row.low, "ratio_highest": row.high},
        )
        records_lib.append(path, records)


def turns_parser(
    doc: str | None, *, rounds: int, seconds: float, quick: float
) -> argparse.ArgumentParser:
    """The command line of a benchmark by turns; ``quick`` is the length of a turn."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes", nargs="+", type=int, choices=tuple(BATCHES), default=list(BATCHES)
    )
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--seconds", type=float, default=seconds, help="of a turn")
    parser.add_argument(
        "--quick",
        action="store_const",
        const=Turns(3, quick),
        help=f"3 rounds of {quick} seconds",
    )
    parser.add_argument("--out", type=pathlib.Path, help="append records to this file")
    return parser


def turns_of(arguments: argparse.Namespace) -> Turns:
    """The turns that a command line of ``turns_parser`` asks for."""
    return arguments.quick or Turns(arguments.rounds, arguments.seconds)


# -- worker processes ------------------------------------------------------------------

held: np.ndarray  # the images, in a worker process


def _hold(images: np.ndarray) -> None:
    global held
    held = images
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a word


@contextlib.contextmanager
def workers(images: np.ndarray) -> Iterator[concurrent.futures.Executor]:
    """A pool of a process for each core, in which ``common.held`` are the images."""
    # Workers that share a core slow each other down.
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        cores(), context, initializer=_hold, initargs=(images,)
    ) as pool:
        yield pool


def shares(count: int) -> list[tuple[int, int]]:
    """Start and stop of each core's share of ``count`` images."""
    bounds = np.linspace(0, count, cores() + 1).astype(int).tolist()
    return list(itertools.pairwise(bounds))


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def machine() -> str:
    """The machine that the benchmark runs on, in words."""
    import jax

    from apr_jax.runs import machine as machine_lib

    return f"{jax.devices()[0].device_kind}: {machine_lib.machine()}"


def operations(work: Callable[[], object]) -> list[tuple[str, float]]:
    """Name and seconds of each of XLA's operations in a call."""
    import jax

    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            work()
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        data = jax.profiler.ProfileData.from_file(str(path))
    events = (e for plane in data.planes for line in plane.lines for e in line.events)
    found = ((dict(event.stats).get("hlo_op"), event.duration_ns) for event in events)
    return [(str(name), duration / 1e9) for name, duration in found if name]


# -- tables and records ----------------------------------------------------------------


def stamped(**fields: Any) -> dict[str, Any]:
    """A record with the machine and the time behind its fields."""
    from apr_jax.runs.machine import machine

    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {**fields, "machine": machine(), "time": now}


def append(path: pathlib.Path | None, records: Iterable[Mapping[str, Any]]) -> None:
    """Appends records to a file of JSON lines, if there is to be one."""
    if path is not None:
        with path.open("a") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)


def show(
    title: str, columns: Mapping[str, str], records: Iterable[Mapping[str, Any]]
) -> None:
    """Prints a table.

    Args:
        title: above it.
        columns: heading -> format of a record's fields, such as "{seconds:.1f}".
        records: one for each row.
    """
    printed = rich.table.Table(title=title)
    for heading in columns:
        printed.add_column(heading, justify="right" if heading else "left")
    for record in records:
        printed.add_row(*(text.format(**record) for text in columns.values()))
    rich.console.Console().print(printed)
