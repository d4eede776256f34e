"""Compiles every program of the project for chips that this machine hasn't got.

    pip install --no-deps -r requirements-aot.txt
    python -m experiments.checks.compile_for v5e:4x4 v4:2x2x4 v6e:2x4 h100

Each program is compiled as a whole, as its users' would be, and looked at: whether its
memory fits the chip, training waits for at most two all-reduces a step, a TPU has no
FFT, nothing looks up more than a million single words at once, nothing computes in
float64, memory that is handed over is taken, and what a CPU exports is what the target
would trace. Records go to ``--out``; what is there isn't compiled again, so that it
goes on where it was stopped: the whole takes hours. Ends with status 1 where there is a
fault.

With JAX_OPTIMIZATION_LEVEL=O0 in the environment it is several times faster, and its
memory and estimates of time mean nothing.
"""

import argparse
import fnmatch
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from apr_jax import process
from apr_jax.errors import ConfigError
from apr_jax.gates import places
from apr_jax.runs import jsonl
from experiments.checks.compile_for import chips, table

OUT = pathlib.Path(__file__).parents[2] / "results" / "compile_for.jsonl"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m experiments.checks.compile_for",
        description="Compiles every program for chips that this machine hasn't got.",
    )
    made.add_argument("targets", nargs="*", help="v5e:4x4, v4:2x2x4, v6e:2x4, h100")
    made.add_argument(
        "--programs", nargs="+", default=["*"], help="names, * for any letters"
    )
    made.add_argument("--list", action="store_true", help="say the names, and end")
    made.add_argument(
        "--no_export", action="store_true", help="don't compare what a CPU exports"
    )
    made.add_argument(
        "--out", type=places.argument, default=OUT, help="records, appended"
    )
    made.add_argument(
        "--page", type=places.argument, help="put the table into this page"
    )
    return made


def chosen(patterns: Sequence[str]) -> dict[str, Any]:
    """The programs that the patterns name, in their order.

    Raises:
        ConfigError: there is none of a name.
    """
    from experiments.checks.compile_for import programs

    known = programs.every()
    for pattern in patterns:
        if not fnmatch.filter(known, pattern):
            raise ConfigError(f"--programs has {pattern!r}; --list says what there is")
    return {
        name: program
        for name, program in known.items()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }


def run(args: argparse.Namespace) -> int:
    """Compiles what is missing; returns how many programs have faults."""
    from experiments.benchmarks import common
    from experiments.checks.compile_for import measure

    wanted = chosen(args.programs)
    if args.list:
        print("\n".join(wanted))
        return 0
    records = read(args.out)
    known = {_identity(found): found for found in records}
    faulty = 0
    for name in args.targets:
        target = chips.describe(name)
        for program in wanted.values():
            found = known.get(_identity(measure.key_of(program.name, name)))
            if found is None:
                found = measure.record(program, target, exported=not args.no_export)
                common.append(args.out, [found])
                records.append(found)
            faults = found.get("error") or ", ".join(found["faults"]) or "as it should"
            print(f"{name} {program.name}: {faults}", flush=True)
            faulty += bool(found["faults"])
    if args.page is not None:
        full = [r for r in records if r["optimisation"] not in ("O0", "O1")]
        table.write(args.page, full)
    return faulty


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """The records of a file, of which there may be none yet."""
    return [row for _, row in jsonl.read(path)] if path.exists() else []


def _identity(found: Any) -> tuple[Any, ...]:
    names = ("program", "target", "optimisation", "jax", "compiler")
    return tuple(found[name] for name in names)


def main() -> None:
    """Parses the command line."""
    args = parser().parse_args()
    chips.prepare()

    def work() -> None:
        if run(args):
            sys.exit(1)

    process.finish(work)


if __name__ == "__main__":
    main()
