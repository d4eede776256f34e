"""Fills a table of the paper: trains what is missing, measures, and shows it all.

    python -m experiments.tables 1 --data_dir TFDS
    python -m experiments.tables 1 --budget medium --rows standard apr_sp --seeds 3
    python -m experiments.tables 1 --budget paper --columns "cifar10 wrn_40_2" \\
        --rows standard apr_p apr_s apr_sp --seeds 3
    python -m experiments.tables 3 --budget small --show
    python -m experiments.tables search --budget medium --set_field optim.epochs=8.0

``search`` is for what may become a method: it trains on nine tenths of the training
images and measures on the last one, under C-bar's ten corruptions and the four held
out, so that nothing is chosen by the test set or by the fifteen.
Each cell is a run of its own, with the work directory that ``launch.py`` would make, so
that a stopped table goes on where it was, and any run can be opened by itself. Tables
1 and 2 share networks where data, method, size and seed are the same: the second to
come only measures.
Before it starts it says what is missing and what that will cost. The table is printed
and written as Markdown, HTML and records; published numbers stand beside ours. With
``--share I/N`` several processes, on other devices or hosts, each do every N-th run;
the seeds of a small network train together where there is an accelerator (where some
hosts have none, ``--together 1`` keeps shares alike); ``--show`` draws what there is.
"""

import argparse
import gc
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax

from apr_jax import config as config_lib
from apr_jax import data, job, parallel, process, tuning
from apr_jax.console import say
from apr_jax.errors import CheckpointError, ConfigError, Diverged
from apr_jax.gates import places, processes
from apr_jax.models import flops
from apr_jax.runs import files
from apr_jax.train import plan as plan_lib
from experiments import lab as lab_lib
from experiments.tables import catalogue, page, plan
from experiments.tables import missing as missing_lib
from experiments.tables.rows import CHOICES


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line and fills the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("table", choices=tuple(catalogue.TABLES))
    add("--budget", choices=catalogue.BUDGETS, default="small")
    add("--rows", nargs="+", help=CHOICES)
    add("--columns", nargs="+", help='"SET NETWORK", several allowed')
    add("--seeds", type=int, default=1)
    for flag in ("--data_dir", "--cache_dir", "--quiet"):
        add(flag, **lab_lib.OPTIONS[flag])
    add("--frost_dir", default="", help="photographs of frost")
    sets = "table 2: name=source:where"
    add("--out_set", action="append", default=[], help=sets)
    fields = (
        "of every run's configuration, VALUE as JSON: optim.epochs=5; or of the "
        "runs of a row, ROW:FIELD=VALUE"
    )
    named = {"metavar": "FIELD=VALUE", "help": fields}
    add("--set_field", action="append", default=[], **named)
    add("--share", default="1/1", metavar="I/N")
    together = (
        "seeds of a cell that share a device, in one program; 0: all of them for a "
        "small network on an accelerator, otherwise one"
    )
    add("--together", type=int, default=0, metavar="N", help=together)
    hosts = "every run on all hosts: TPU pod, Slurm"
    add("--distributed", action="store_true", help=hosts)
    add("--coordinator", metavar="HOST:PORT", help="of other clusters")
    add("--processes", type=int, help="how many there are")
    add("--process", type=int, help="which this is, from 0")
    add("--work", type=places.argument, default="runs/tables")
    add("--out", type=places.argument)
    add("--show", action="store_true", help="train nothing")
    options = parser.parse_args(arguments)
    process.finish(lambda: work(options))


def work(options: argparse.Namespace) -> str | None:
    """Does what the command line says; returns the signal that ended it, if one did."""
    where = options.coordinator, options.processes, options.process
    processes.check(options.distributed, *where)
    if options.distributed or options.coordinator:
        parallel.start_processes(*where)
        process.end_with(parallel.Others())
    table = catalogue.TABLES[options.table]
    if options.budget not in table.budgets:
        raise ConfigError(
            f"--budget is {options.budget!r}, which Table {options.table} has not; "
            f"choose from {', '.join(table.budgets)}"
        )
    fields = changes(options)
    columns = options.columns or catalogue.columns_of(table, options.budget)
    root = options.work / table.recipe / options.budget
    called = f"table{options.table}" if options.table.isdigit() else options.table
    out = options.out or lab_lib.RESULTS / f"{called}_{options.budget}"
    try:
        fits = lambda r: plan.has_images(r, fields) and plan.has_network(r, columns)
        rows = options.rows or list(filter(fits, table.rows))
        mine = share(options.share)
        chosen = {"rows": rows, "columns": columns, "seeds": options.seeds}
        runs = plan.runs_of(table, options.budget, **chosen, changes=fields)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(str(error)) from error
    configs = {run.name: config_lib.parse(run.settings.to_dict()) for run in runs}
    for config in configs.values():
        plan_lib.check_names(config)
    out.mkdir(parents=True, exist_ok=True)
    devices = max(config.train.devices for config in configs.values())
    tuning.use_onednn()
    if any(config.train.deterministic for config in configs.values()):
        tuning.use_deterministic()
    parallel.declare_cpu_devices(devices // (options.processes or 1))
    done = lambda run: missing_lib.measured(
        options.table, configs[run.name], root / run.name
    )
    missing = [run for run in runs if not done(run)]
    failed: list[str] = []
    if not options.show:
        check_extra([configs[run.name].data for run in missing])
        # Shares of all runs, so that they don't depend on what is done already.
        groups = grouped(runs, options.together)[mine]
        if not groups:
            say(f"share {options.share} has no runs: there are too few")
        own = [run for group in groups for run in group if run in missing]
        missing_lib.say_cost(own, root)
        for group in groups:
            left = [run for run in group if run in missing]
            stopped = train(left, configs, root, out, failed, options)
            if stopped is not None:
                return stopped
    if parallel.is_primary():
        for run in runs:
            if (root / run.name).exists():
                page.keep(out, run, root / run.name)
        if options.show or any(out.glob("*.jsonl")):
            page.show(options.table, options.budget, out)
    if failed:
        raise ConfigError(
            f"{len(failed)} of {len(runs)} runs failed, see above: {', '.join(failed)}"
        )
    return None


def share(text: str) -> slice:
    """The groups of runs that "I/N" stands for.

    Raises:
        ValueError: it isn't 1/N to N/N.
    """
    part, _, parts = text.partition("/")
    numbers = part.isdecimal() and parts.isdecimal()
    if not numbers or not 1 <= int(part) <= int(parts):
        raise ValueError(f"--share is {text!r}; it must be 1/N to N/N")
    return slice(int(part) - 1, None, int(parts))


def grouped(runs: Sequence[plan.Run], together: int) -> list[list[plan.Run]]:
    """Runs that train in one program: seeds of one cell, ``together`` at most.

    0 stands for all seeds where the network is small and the device an accelerator,
    and for one otherwise. Runs that are watched, or hold images out, train alone.
    """
    accelerated = parallel.make_layout(0).accelerated
    groups: list[list[plan.Run]] = []
    open_groups: dict[tuple[str, str], list[plan.Run]] = {}
    for run in runs:
        limit = together
        if together == 0:
            name, side = run.settings.model.name, run.settings.data.image_size
            size = flops.parameters(name, num_classes=10, size=side)
            limit = len(runs) if accelerated and size <= SMALL else 1
        own = run.settings
        if own.train.watch or own.adversary.held_out or own.data.streaming:
            limit = 1
        group = open_groups.get((run.row, run.column))
        if group is None or len(group) >= limit:
            group = open_groups[run.row, run.column] = []
            groups.append(group)
        group.append(run)
    return groups


# Parameters up to which a network leaves much of an accelerator idle.
SMALL = 5_000_000


def train(
    group: Sequence[plan.Run],
    configs: dict[str, config_lib.Config],
    root: pathlib.Path,
    out: pathlib.Path,
    failed: list[str],
    options: argparse.Namespace,
) -> str | None:
    """Trains and measures; returns the signal that ended it early, or None.

    A run that diverges, or whose state can't be read, is said and its name added to
    ``failed``; the others go on.
    """
    quiet = options.quiet
    if group:
        say(", ".join(run.name for run in group))
    stopped: str | None
    if len(group) > 1:
        mine = [configs[run.name] for run in group]
        roots = [root / run.name for run in group]
        try:
            stopped = job.train_seeds(mine, roots, quiet=quiet)
        except (Diverged, CheckpointError) as error:
            say(f"{error}; each seed goes on by itself")
            stopped = None
        if stopped is not None:
            return stopped
    for run in group:
        try:
            stopped = job.run(configs[run.name], root / run.name, quiet=quiet)
        except (Diverged, CheckpointError) as error:
            if isinstance(error, CheckpointError) and parallel.are_several():
                raise  # the others wouldn't know
            say(f"{run.name} failed: {error}")
            failed.append(run.name)
            stopped = None
        else:
            page.keep(out, run, root / run.name)
            if stopped is None and parallel.is_primary():
                mark = missing_lib.mark(options.table, root / run.name)
                files.write_text(mark, missing_lib.asked(configs[run.name]))
        # The next run has programs of its own, and memory is not for both.
        jax.clear_caches()
        gc.collect()
        if stopped is not None:
            return stopped
    return None


def changes(options: argparse.Namespace) -> dict[str, Any]:
    """Fields of every run that the command line sets."""
    fields: dict[str, Any] = {
        "data.data_dir": options.data_dir,
        "data.cache_dir": options.cache_dir,
        "eval.corruption.frost_dir": options.frost_dir,
        "eval.ood.out": tuple(options.out_set),
    }
    for text in options.set_field:
        field, _, value = text.partition("=")
        try:
            fields[field] = json.loads(value)
        except json.JSONDecodeError as error:
            raise ConfigError(
                f"--set_field is {text!r}; it must be FIELD=VALUE with a JSON value"
            ) from error
    return fields


def check_extra(settings: Sequence[config_lib.Data]) -> None:
    """Raises DataError if images that a run mixes in aren't there, or don't fit."""
    for each in settings:
        if each.extra_dirs:
            data.extra.check(each, data.describe(each).class_names)


if __name__ == "__main__":
    main()
