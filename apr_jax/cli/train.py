"""Trains a network as a configuration says, measures it, and draws a page.

    apr-jax train --config quickstart --workdir runs/quickstart
    apr-jax train --config cifar:resnet18,apr_p,cifar100
    apr-jax train --config cifar10_wrn_aprsp --config.optim.epochs=100

A configuration is a name that ``apr-jax configs`` lists, or a file. The same command
again goes on where it stopped. Results are in the work directory: ``results.jsonl``,
``metrics.jsonl``, ``report.html``, ``checkpoints/``.
"""

import difflib
import logging
import sys
from collections.abc import Sequence

from absl import app, flags
from ml_collections import config_flags

from apr_jax import config as config_lib
from apr_jax import process
from apr_jax.cli import by_name
from apr_jax.gates import places, processes
from apr_jax.runs import workdir

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Configuration: a name or a file; change values with --config.GROUP.FIELD=VALUE.",
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where everything goes; runs/NAME of the configuration if unset."
)
_BESIDE = flags.DEFINE_list(
    "beside", [], "Work directories of finished runs to show beside this one."
)
_QUIET = flags.DEFINE_bool("quiet", False, "No progress bar.")
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Say the plan, and how long, how much memory and disk; then end."
)
_PRINT_CONFIG = flags.DEFINE_bool(
    "print_config", False, "Print every value of the configuration; then end."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of the first of several processes."
)
_PROCESSES = flags.DEFINE_integer("processes", None, "How many processes there are.")
_PROCESS = flags.DEFINE_integer("process", None, "Which process this is, from 0.")
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Find the other processes (TPU pod, Slurm) by themselves."
)


def main(argv: list[str]) -> None:
    """Hands the flags to the job."""
    logging.getLogger().setLevel(logging.WARNING)
    if len(argv) > 1:
        print(f"error: unexpected argument {argv[1]!r}", file=sys.stderr)
        sys.exit(2)
    process.finish(check)
    if _PRINT_CONFIG.value:
        for name, value in config_lib.flatten(
            config_lib.parse(_CONFIG.value.to_dict())
        ).items():
            print(f"{name} = {value!r}")
        return
    if not _QUIET.value and not _PROCESS.value:
        print(f"{_CONFIG.value.name}: starting", file=sys.stderr, flush=True)
    # Imported here, so that --help and a mistake in a flag answer at once.
    from apr_jax import job

    job.main(
        _CONFIG.value,
        workdir=_WORKDIR.value,
        beside=_BESIDE.value,
        quiet=_QUIET.value,
        dry_run=_DRY_RUN.value,
        distributed=_DISTRIBUTED.value,
        coordinator=_COORDINATOR.value,
        process_count=_PROCESSES.value,
        process_id=_PROCESS.value,
    )


def check() -> None:
    """Checks all that the flags say by themselves, before JAX loads.

    Raises:
        UserError: a value isn't allowed, or a run that it names isn't there.
    """
    config = config_lib.parse(_CONFIG.value.to_dict())
    where = _COORDINATOR.value, _PROCESSES.value, _PROCESS.value
    processes.check(_DISTRIBUTED.value, *where)
    root = places.local(_WORKDIR.value or f"runs/{config.name}", "--workdir")
    workdir.check_beside(root, [places.local(p, "--beside") for p in _BESIDE.value])
    workdir.prepare(root, config, write=False)


def parse(arguments: Sequence[str]) -> list[str]:
    """Reads the flags; a mistake in them ends the program with a line and status 2.

    Returns:
        The arguments that are none, the program's name first.
    """
    try:
        left: list[str] = flags.FLAGS(by_name.with_files(arguments))
        if _CONFIG.value is None:
            raise flags.Error(f"--config is missing; {by_name.listed()}")
        _CONFIG.value.to_dict()  # a file that couldn't be read says so only now
    except BrokenPipeError:  # of --help
        raise
    except (flags.Error, OSError, AttributeError, KeyError, TypeError, ValueError) as e:
        print(f"error: {_mistake(arguments, e)}", file=sys.stderr)
        sys.exit(2)
    return left


def _mistake(arguments: Sequence[str], error: Exception) -> str:
    """What is wrong with a command line that could not be read, in one line."""
    values = config_lib.flatten(config_lib.default())
    for argument in arguments:
        flag, _, value = argument.partition("=")
        name = flag.lstrip("-").removeprefix("config.")
        if not flag.startswith(("--config.", "-config.")):
            continue
        if name not in values:
            near = difflib.get_close_matches(name, values, 3)
            group = f"{name.partition('.')[0]}."
            there = [field for field in values if field.startswith(group)]
            there = there or list(dict.fromkeys(f.partition(".")[0] for f in values))
            guess = f"did you mean {' or '.join(near)}? " if near else ""
            return f"{flag}: no such field; {guess}There are {', '.join(there)}"
        if flag in str(error):
            kind = type(values[name]).__name__
            how = ", in brackets and quotes" if kind == "tuple" else ""
            return f"{flag} is {value!r}; it must be of type {kind}{how}"
    lines = [line for line in str(error).splitlines() if line.strip()]
    if isinstance(error, OSError) or any("No such file" in line for line in lines):
        given = [a for a in arguments[1:] if "config" in a.partition("=")[0]]
        return f"{' '.join(given)}: can't be read; {by_name.listed()}"
    return lines[-1].strip() if lines else repr(error)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
