"""The robustness card: every measurement that the data at hand allow, on one page.

    python -m apr_jax.evaluate.card RUN [RUN ...]
    python -m apr_jax.evaluate.card RUN --parts clean,fourier --fourier.examples 500

measures each run in turn, by all parts if none are named, and draws one page with the
runs side by side. Flags stand instead of the runs' own ``eval``. What a run has been
measured on already is not measured again, so a stopped card goes on. What can't be
measured, as its data aren't there, is said and left out.
"""

import dataclasses
import functools
import pathlib
import shlex
import sys
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from absl import app, flags

from apr_jax import config as config_lib
from apr_jax import console, corruptions, data, parallel, process
from apr_jax.corruptions import frost_files
from apr_jax.data import tfds
from apr_jax.errors import ConfigError, DataError
from apr_jax.evaluate import (
    adversarial,
    clean,
    command,
    corruption,
    fourier,
    ood,
    ood_scores,
)
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.report import page as page_lib
from apr_jax.runs import workdir
from apr_jax.runs.records import Record
from apr_jax.settings import build, define_flags

# Out sets of CIFAR in the literature that TensorFlow Datasets has; the other CIFAR is
# near, as OpenOOD counts.
_USUAL_OUT_SETS = ("svhn_cropped", "cifar10", "cifar100")

_PARTS: dict[str, types.ModuleType] = {
    "clean": clean,
    "corruption": corruption,
    "ood": ood,
    "adversarial": adversarial,
    "fourier": fourier,
}


def measure(
    classifier: classifier_lib.Classifier,
    layout: parallel.Layout,
    *,
    resident: data.DataSet | None = None,
    done: Iterable[Record] = (),
    scratch: pathlib.Path | None = None,
    quiet: bool = False,
) -> Iterator[Record]:
    """Measures the parts that the classifier's configuration lists.

    Args:
        classifier: what to measure; ``eval`` of its configuration says how.
        layout: the devices.
        resident: the data, where they are in memory already.
        done: records of earlier calls; what they hold is not measured again, but
            for "clean", which is short.
        scratch: directory for the state of measurements under way.
        quiet: no progress bar.

    Yields:
        The records of the parts. A part that can't be measured is said and left out.
    """
    done = tuple(done)
    for part in classifier.config.eval.parts:
        try:
            yield from _PARTS[part].measure(
                classifier,
                layout,
                resident=resident,
                done=done,
                scratch=scratch,
                quiet=quiet,
                **_settings(part, classifier.config),
            )
        except (ConfigError, DataError) as why:
            console.say(f"{part} is left out: {why}")


def check(config: config_lib.Config) -> None:
    """Raises ConfigError if a part of the card can't be measured as ``eval`` says.

    That its data are there is seen when they are read.
    """
    parts, chosen = config.eval.parts, config.eval
    if "corruption" in parts:
        corruption.check_settings(
            chosen.corruption.corruptions or corruptions.CORRUPTIONS,
            chosen.corruption.severities,
            chosen.corruption.source,
            corruption_dir=chosen.corruption.dir,
        )
    if "ood" in parts:
        ood.check_settings(chosen.ood.out, chosen.ood.near, chosen.ood.scores)
    if "adversarial" in parts:
        own = chosen.adversarial
        radii = {"linf": own.linf, "l2": own.l2, "l1": own.l1}
        adversarial.check_settings(radii, own.attack)


def _settings(part: str, config: config_lib.Config) -> dict[str, Any]:
    """What a part's ``measure`` takes of the configuration.

    Raises:
        DataError: there are no data for it.
    """
    if part == "clean":
        return {}
    fields = dataclasses.asdict(getattr(config.eval, part))
    if part == "corruption":
        fields["corruption_dir"] = fields.pop("dir")
        fields["corruptions"] = _corruptions(config.eval.corruption)
    if part == "ood":
        names = [field.name for field in dataclasses.fields(ood_scores.Knobs)]
        knobs = ood_scores.Knobs(**{name: fields.pop(name) for name in names})
        fields |= {"knobs": knobs, **_out_sets(config)}
    return fields


def _corruptions(chosen: config_lib.Corruption) -> tuple[str, ...]:
    """The corruptions to measure: frost only where its photographs are."""
    names = chosen.corruptions or corruptions.CORRUPTIONS
    if "frost" in names and chosen.source == "generated":
        try:
            frost_files.load(chosen.frost_dir)
        except FileNotFoundError as why:
            console.say(f"frost is left out: {why}")
            names = tuple(name for name in names if name != "frost")
    return names


def _out_sets(config: config_lib.Config) -> dict[str, Any]:
    """The out sets to use: those listed, or the usual ones that are prepared."""
    chosen = config.eval.ood
    if chosen.out:
        return {"out": chosen.out, "near": chosen.near}
    settings, found = config.data, []
    if settings.source == "tfds" and not settings.streaming:
        found = [
            name
            for name in _USUAL_OUT_SETS
            if name != settings.name.partition(":")[0]
            and tfds.is_prepared(dataclasses.replace(settings, name=name))
        ]
    if not found:
        raise DataError(
            "eval.ood.out is empty, and of the usual sets "
            f"({', '.join(_USUAL_OUT_SETS)}) none is prepared in data.data_dir"
        )
    return {
        "out": [f"{name}=tfds:{name}" for name in found],
        "near": [name for name in found if name.startswith("cifar")],
    }


# --- The command ---------------------------------------------------------------------


def main() -> None:
    """Runs the card as a program."""
    target = flags.DEFINE_string(
        "page", None, "Where the page goes; report.html of the first run if unset."
    )
    devices = flags.DEFINE_integer("devices", 0, "How many; 0 as in training.")
    quiet = flags.DEFINE_bool("quiet", False, "No progress bar.")
    changes = define_flags(config_lib.Eval, defaults=False)

    def work(argv: Sequence[str]) -> None:
        if len(argv) < 2:
            raise app.UsageError("give one run directory or several")
        process.finish(
            lambda: run(
                [pathlib.Path(root) for root in argv[1:]],
                {"parts": config_lib.PARTS, **changes()},
                target=pathlib.Path(target.value) if target.value else None,
                devices=devices.value,
                quiet=quiet.value,
            )
        )

    app.run(work)


def run(
    roots: Sequence[pathlib.Path],
    changes: Mapping[str, Any],
    *,
    target: pathlib.Path | None = None,
    devices: int = 0,
    quiet: bool = False,
) -> None:
    """Measures runs and draws their page.

    Args:
        roots: work directories; records go to each one's own ``results.jsonl``.
        changes: nested mappings of ``config.Eval``, instead of the runs' own values.
        target: file of the page; the first run's report if None.
        devices: how many to use; 0 as in training.
        quiet: no progress bar.

    Raises:
        ConfigError: a directory is no run, or a value isn't allowed.
    """
    opened = [workdir.open_run(root) for root in roots]
    for _, config in opened:
        check(_changed(config, changes))
    parallel.declare_cpu_devices(devices)
    process.use_compile_cache(opened[0][1].data)
    layout = parallel.make_layout(devices)
    networks = []  # all of them first: one without checkpoint is better found now
    for root, (_, config) in zip(roots, opened, strict=True):
        config = _changed(config, changes)
        parallel.check_batch("eval.batch_size", config.eval.batch_size, layout)
        network = classifier_lib.from_run(root)
        networks.append(dataclasses.replace(network, config=config))
    try:
        for root, (place, _), network in zip(roots, opened, networks, strict=True):
            console.say(f"{root}, step {network.step:,}")
            command.keep(
                place, functools.partial(measure, network, layout, quiet=quiet)
            )
    finally:  # what was measured is shown, whatever happens
        if parallel.is_primary():
            page_lib.write(
                target or opened[0][0].report, roots, command=shlex.join(sys.argv)
            )


def _changed(
    config: config_lib.Config, changes: Mapping[str, Any]
) -> config_lib.Config:
    return dataclasses.replace(config, eval=build(config.eval, changes, "eval."))


if __name__ == "__main__":
    main()
