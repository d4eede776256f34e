"""The runs that a table lacks: not yet measured as it asks, and their cost."""

import contextlib
import json
import pathlib
import statistics
from collections.abc import Iterable, Sequence

from apr_jax import config as config_lib
from apr_jax import data, parallel
from apr_jax.console import say
from apr_jax.runs import curves, workdir
from experiments.tables import catalogue, page, plan


def mark(number: str, root: pathlib.Path) -> pathlib.Path:
    """The file that says with which settings a run was measured for a table."""
    return root / f"table{number}.json"


def asked(config: config_lib.Config) -> str:
    """The way in which a run is to be measured, as text."""
    values = config_lib.flatten(config)
    fields = {k: v for k, v in values.items() if k.startswith("eval.")}
    return json.dumps(fields, indent=2) + "\n"


def measured(number: str, config: config_lib.Config, root: pathlib.Path) -> bool:
    """Whether a run has been measured to the end, as it is asked for."""
    table = catalogue.TABLES[number]
    there = workdir.read_config(workdir.RunDir(root)) if root.exists() else None
    if there is None or config_lib.differences(config, there):
        return False  # of another configuration: the run itself says what differs
    before = mark(number, root)
    if not before.exists() or before.read_text() != asked(config):
        return False  # what stays the same is taken up from its records
    found = page.records(root, config)
    parts = {f"evaluate.{part}" for part in config.eval.parts}
    # The mean comes last: a measurement that was stopped has none.
    whole = parts == {"evaluate.clean"} or table.mean in table.cells(found)
    return whole and parts <= {r.job for r in found}


def say_cost(missing: Sequence[plan.Run], root: pathlib.Path) -> None:
    """Says how many runs are missing, and how long their training will take."""
    if not missing:
        say("nothing is missing")
        return
    speeds = speed_of(p for p in root.glob("*") if p.is_dir())
    sizes: dict[str, tuple[int, int]] = {}
    total, hours, unknown = 0.0, 0.0, set()
    # A run is measured when it has been trained.
    trained = {run.name for run in missing if page.records(root / run.name)}
    for run in missing:
        if run.name in trained:
            continue
        settings = run.settings
        if settings.data.name not in sizes:
            found = data.describe(config_lib.parse(settings.to_dict()).data)
            sizes[settings.data.name] = (found.train_size, len(found.class_names))
        size, classes = sizes[settings.data.name]
        total += run.multiply_adds(size, classes)
        seen = settings.optim.epochs * size * plan.passes(settings)
        if settings.model.name in speeds:
            hours += seen / speeds[settings.model.name] / 3600
        else:
            unknown.add(settings.model.name)
    say(
        f"{len(missing)} runs are missing: {total / 1e15:,.2f} peta multiply-adds of "
        f"training, on {parallel.make_layout(0).describe()}"
        + (f"; {len(trained)} have been trained and lack numbers" if trained else "")
    )
    if unknown:
        say(
            f"  how long {', '.join(sorted(unknown))} will take is known when a first "
            "run has trained for a while; the progress bar says it at once"
        )
    if hours:
        say(f"  about {hours:.1f} hours by the speed of the runs that are there")


def speed_of(roots: Iterable[pathlib.Path]) -> dict[str, float]:
    """Network -> passes a second of one image, of runs that were trained here before.

    As ``plan.passes`` counts them.
    """
    found: dict[str, list[float]] = {}
    for root in roots:
        run = workdir.RunDir(root)
        config = workdir.read_config(run)
        if config is None or not run.curve.exists():
            continue
        rows = curves.read_curve(run.curve)
        speeds = [row.images_per_second for row in rows if row.images_per_second > 0]
        if not speeds:
            continue
        with contextlib.suppress(ValueError):  # a method that is no longer there
            median = statistics.median_high(speeds) * plan.passes(config)
            found.setdefault(config.model.name, []).append(median)
    return {name: sum(each) / len(each) for name, each in found.items()}
