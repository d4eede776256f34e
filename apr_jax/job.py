"""One job from start to end: prepare, train, measure, draw the page."""

import contextlib
import functools
import pathlib
import tempfile
from collections.abc import Sequence

import ml_collections

from apr_jax import augment, data, parallel, process, tuning
from apr_jax import config as config_lib
from apr_jax.console import duration, say
from apr_jax.evaluate import card, classifier, command
from apr_jax.evaluate.context import Context
from apr_jax.gates import places, processes, stores
from apr_jax.report import page as page_lib
from apr_jax.runs import claims
from apr_jax.runs import workdir as workdir_lib
from apr_jax.runs.examples import write_examples
from apr_jax.runs.machine import machine
from apr_jax.train import examples, forecast, loop, seeds
from apr_jax.train import plan as plan_lib


def main(
    values: ml_collections.ConfigDict,
    *,
    workdir: str | None,
    beside: Sequence[str] = (),
    quiet: bool = False,
    dry_run: bool = False,
    distributed: bool = False,
    coordinator: str | None = None,
    process_count: int | None = None,
    process_id: int | None = None,
) -> None:
    """Trains and measures; ends the program with an error line where it can't.

    Args:
        values: the configuration.
        workdir: the folder for everything; None is ``runs/NAME``.
        beside: work directories of finished runs, shown beside this one.
        quiet: no progress bar.
        dry_run: says what the run would be and take, and leaves nothing behind but
            cached images and programs.
        distributed: whether JAX is to find other processes.
        coordinator, process_count, process_id: see ``parallel.start_processes``.
    """

    def work() -> str | None:
        config = config_lib.parse(values.to_dict())
        tuning.use_onednn()
        if config.train.deterministic:
            tuning.use_deterministic()
        where = coordinator, process_count, process_id
        processes.check(distributed, *where)
        parallel.declare_cpu_devices(config.train.devices // (process_count or 1))
        if distributed or coordinator:
            parallel.start_processes(*where)
            process.end_with(parallel.Others())
        root = places.anywhere(workdir or f"runs/{config.name}", "--workdir")
        others = [places.run(place, "--beside") for place in beside]
        if dry_run:
            foretell(config, root)
            return None
        return run(config, root, beside=others, quiet=quiet)

    process.finish(work)


def run(
    config: config_lib.Config,
    root: stores.Place,
    *,
    beside: Sequence[stores.Place] = (),
    quiet: bool = False,
) -> str | None:
    """Trains to the end, measures the last state, and writes the report.

    Args:
        config: that of the run.
        root: the work directory.
        beside: finished runs to show beside this one.
        quiet: no progress bar.

    Returns:
        The name of the signal that ended it early, or None.
    """
    workdir_lib.check_beside(root, beside)
    card.check(config)
    config = workdir_lib.with_absolute_places(config)
    with contextlib.ExitStack() as held:
        (plan,) = _prepared([config], [root], held)
        describe(plan)
        trained = loop.train(plan, quiet=quiet)
        if trained.seconds_to_first_step is not None:
            say(f"first step after {trained.seconds_to_first_step:.1f} s")
        if trained.stopped_by is not None:
            say(
                f"{trained.stopped_by}: saved step {trained.step:,} of "
                f"{plan.total_steps:,}; the same command goes on from there"
            )
            return trained.stopped_by
        if parallel.is_primary():
            with claims.claimed(root, write=True, waiting=say):
                workdir_lib.note_command(plan.run, process.command_line())
        network = classifier.make(
            config, trained.state.variables, plan.class_names, step=trained.step
        )
        command.keep(
            plan.run,
            functools.partial(card.measure, network, None),
            Context(plan.layout.by_pmap(), resident=plan.resident, quiet=quiet),
        )
        if parallel.is_primary():
            _draw(plan, beside)
        return None


def train_seeds(
    configs: Sequence[config_lib.Config],
    roots: Sequence[stores.Place],
    *,
    quiet: bool = False,
) -> str | None:
    """Trains runs that differ in their seed together, as far as they stand at one step.

    They are measured by ``run``, each by itself; it also trains what is left here.

    Args:
        configs: those of the runs.
        roots: a work directory for each.
        quiet: no progress bar.

    Returns:
        The name of the signal that ended it early, or None.
    """
    for config in configs:
        card.check(config)
    with contextlib.ExitStack() as held:
        plans = _prepared(configs, roots, held)
        seeds.check(plans)
        steps = {plan_lib.saved_step(plan) for plan in plans}
        if len(steps) > 1:
            say("these seeds stand at different steps, and train one after the other")
            return None
        if steps == {plans[0].total_steps}:
            return None
        describe(plans[0])
        say(f"  seeds       {', '.join(str(c.seed) for c in configs)}, together")
        trained = loop.train_together(plans, quiet=quiet)
        return trained[0].stopped_by


def _prepared(
    configs: Sequence[config_lib.Config],
    roots: Sequence[stores.Place],
    held: contextlib.ExitStack,
    *,
    of_each: bool = False,
) -> list[plan_lib.Plan]:
    """Claims work directories while ``held`` is open, and plans their runs.

    They are folders that all processes see, or ``of_each`` process its own.

    What goes wrong on one process of several is an error on each.
    """

    def prepare() -> list[plan_lib.Plan]:
        for root in roots:
            claim = claims.claimed(root, write=parallel.is_primary())
            held.enter_context(claim)
        shared = roots[0] if parallel.are_several() and not of_each else None
        if isinstance(shared, stores.StorePath):
            shared = None  # JAX can't write programs there
        process.use_compile_cache(configs[0].data, shared)
        return [plan_lib.plan(*pair) for pair in zip(configs, roots, strict=True)]

    for config in configs:
        plan_lib.check_names(config)  # before a folder is made
    for root in () if of_each else roots:
        parallel.check_shared(root)
    return parallel.all_or_none(prepare)


def _draw(plan: plan_lib.Plan, beside: Sequence[stores.Place]) -> None:
    """Writes the examples and the page of a run that is measured."""
    shown = examples.example_images(plan, examples.EXAMPLES)
    write_examples(
        plan.run.examples, examples.examples(plan.config, *shown, plan.class_names)
    )
    page_lib.write(
        plan.run.report,
        [plan.run.root, *beside],
        facts={
            "Parameters": f"{plan_lib.parameter_count(plan):,}",
            "Devices": plan.layout.describe(),
        },
    )


def foretell(config: config_lib.Config, root: stores.Place) -> None:
    """Says what a run would be and take, from some seconds of it in another folder."""
    card.check(config)
    config = workdir_lib.with_absolute_places(config)
    with contextlib.ExitStack() as held:
        elsewhere = held.enter_context(tempfile.TemporaryDirectory())
        # A folder of each process's own, as nothing is kept.
        own = [pathlib.Path(elsewhere) / "run"]
        (plan,) = _prepared([config], own, held, of_each=True)
        describe(plan, root)
        found = forecast.measure(plan)
    say(
        f"  time        {duration(found.first + found.seconds)} at "
        f"{found.images_per_second:,.0f} images/s, the first step after "
        f"{found.first:.0f} s; then it is measured: {', '.join(config.eval.parts)}"
    )
    peak = "not known" if found.memory is None else f"{found.memory / 1e9:.1f} GB"
    images = f"{found.images / 1e6:,.0f} MB of images" if found.images else "streamed"
    say(f"  memory      {peak} at its peak so far; {images}")
    say(f"  disk        {found.disk / 1e6:,.0f} MB of checkpoints")


def describe(plan: plan_lib.Plan, root: stores.Place | None = None) -> None:
    """Says what a run resolved to: what isn't the default, devices, sizes, places."""
    config = plan.config
    usual = config_lib.flatten(config_lib.default())
    method = config.augment.method
    used = augment.get_method(method).fields
    for name, value in config_lib.flatten(config).items():
        if value != usual[name]:
            unused = name.startswith("augment.") and name not in used
            note = f", of no use to {method}" if unused else ""
            say(f"  {name} = {value!r}{note}")
    say(f"{config.name}, configuration {config_lib.config_hash(config)}")
    say(f"  devices     {plan.layout.describe()}")
    say(f"  machine     {machine()}")
    say(
        f"  network     {config.model.name}, "
        f"{plan_lib.parameter_count(plan):,} parameters"
    )
    say(
        f"  data        {plan.train_size:,} training images, "
        f"{len(plan.class_names)} classes"
    )
    if plan.mix.extra:
        say(
            f"              and {plan.mix.extra:,} extra images, "
            f"{float(plan.mix.share):.1%} of every batch"
        )
    say(
        f"  steps       {plan.total_steps:,} of {config.train.batch_size} images, "
        f"{plan.steps_per_call} a call"
    )
    say(f"  work        {(root or plan.run.root).absolute()}")
    say(f"  cache       {data.cache.folder(config.data.cache_dir)}")
