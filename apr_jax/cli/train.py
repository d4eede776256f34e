"""Trains a network as a configuration says, measures it, and draws a page.

    apr-jax train --config quickstart --workdir runs/quickstart
    apr-jax train --config cifar:resnet18,apr_p,cifar100
    apr-jax train --config cifar10_wrn_aprsp --config.optim.epochs=100

A configuration is a name that ``apr-jax configs`` lists, or a file. The same command
again goes on where it stopped. Results are in the work directory: ``results.jsonl``,
``metrics.jsonl``, ``report.html``, ``checkpoints/``.
"""

import logging
import sys
from collections.abc import Sequence

from absl import app, flags
from ml_collections import config_flags

from apr_jax import config as config_lib
from apr_jax import process
from apr_jax.cli import by_name, program
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
        program.mistaken(f"unexpected argument {argv[1]!r}")
    process.finish(check)
    if _PRINT_CONFIG.value:
        config = config_lib.parse(_CONFIG.value.to_dict())
        from apr_jax.train import plan

        process.finish(lambda: plan.check_names(config))
        for name, value in config_lib.flatten(config).items():
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
    root = places.anywhere(_WORKDIR.value or f"runs/{config.name}", "--workdir")
    workdir.check_beside(root, [places.run(p, "--beside") for p in _BESIDE.value])
    workdir.prepare(root, config, write=False)


def parse(arguments: Sequence[str]) -> list[str]:
    """Reads the flags; a mistake in them ends the program with a line and status 2.

    Returns:
        The arguments that are none, the program's name first.
    """
    left = program.parse(arguments)
    if _CONFIG.value is None:
        program.mistaken(f"--config is missing; {by_name.listed()}")
    return left


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
