"""The robustness card: every measurement that the data at hand allow, on one page.

    python -m apr_jax.evaluate.card RUN [RUN ...]
    python -m apr_jax.evaluate.card RUN --parts clean,fourier --fourier.examples 500

measures each run in turn, by all parts if none are named, and draws one page with the
runs side by side. Flags stand instead of the runs' own ``eval``. Numbers that
a run has already are not measured again, so a stopped card goes on. A part that can't
be measured, as its data aren't there, is said and left out.
"""

import dataclasses
import functools
import logging
import pathlib
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from absl import app, flags

from apr_jax import config as config_lib
from apr_jax import console, parallel, process
from apr_jax.corruptions import frost_files
from apr_jax.data import tfds
from apr_jax.errors import DataError, UserError, words
from apr_jax.evaluate import adversarial, clean, command, corruption, fourier, ood
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate.context import Context
from apr_jax.gates import places as places_lib
from apr_jax.report import page as page_lib
from apr_jax.runs import files, workdir
from apr_jax.runs.records import Record
from apr_jax.settings import build, define_flags

_LOG = logging.getLogger(__name__)
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
    settings: None,
    context: Context,
) -> Iterator[Record]:
    """Measures the parts that the classifier's configuration lists.

    Args:
        classifier: the classifier; ``eval`` of its configuration says how.
        settings: not used.
        context: its surroundings; "clean", which is short, is measured anew, and what
            it saw the corruptions take from it.

    Yields:
        The records of the parts. A part that can't be measured is said and left out,
        with a traceback in the log where it isn't for a mistake of the user's.
    """
    del settings
    for part in classifier.config.eval.parts:
        try:
            settings = _settings(part, classifier.config)
            yield from _PARTS[part].measure(classifier, settings, context)
        except UserError as why:
            console.say(f"{part} is left out: {why}")
        except Exception as error:  # never takes the later parts with it
            if jax.process_count() > 1:  # which all processes measure together
                raise
            _LOG.warning("the part %s failed", part, exc_info=True)
            console.say(f"{part} is left out: {type(error).__name__}: {words(error)}")


def check(config: config_lib.Config) -> None:
    """Raises ConfigError if a part of the card can't be measured as ``eval`` says.

    Parts that aren't listed count, too: somebody wrote their settings. That the data
    are there is seen when they are read.
    """
    for part in _PARTS:
        if part != "clean":
            _PARTS[part].check(getattr(config.eval, part), config.data)


def _settings(part: str, config: config_lib.Config) -> Any:
    """The settings of a part, less all that can't be measured; "clean" has none.

    Raises:
        DataError: there are no data for it.
    """
    if part == "corruption":
        return _where_frost_is(config.eval.corruption)
    return _with_out_sets(config) if part == "ood" else getattr(config.eval, part, None)


def _where_frost_is(settings: config_lib.Corruption) -> config_lib.Corruption:
    """The same corruptions, but frost only where its photographs are."""
    names = corruption.names_of(settings)
    if "frost" in names and settings.source == "generated":
        try:
            frost_files.load(settings.frost_dir)
        except FileNotFoundError as why:
            console.say(f"frost is left out: {why}")
            names = tuple(name for name in names if name != "frost")
    return dataclasses.replace(settings, corruptions=names)


def _with_out_sets(config: config_lib.Config) -> config_lib.Ood:
    """The out sets that are listed, or the usual ones that are prepared."""
    settings, described = config.eval.ood, config.data
    if settings.out or settings.scores_file:
        return settings
    found = []
    if described.source == "tfds" and not described.streaming:
        found = [
            name
            for name in _USUAL_OUT_SETS
            if name != described.name.partition(":")[0]
            and tfds.is_prepared(dataclasses.replace(described, name=name))
        ]
    if not found:
        raise DataError(
            "eval.ood.out is empty, and of the usual sets "
            f"({', '.join(_USUAL_OUT_SETS)}) none is prepared in data.data_dir"
        )
    return dataclasses.replace(
        settings,
        out=tuple(f"{name}=tfds:{name}" for name in found),
        near=tuple(name for name in found if name.startswith("cifar")),
    )


# --- The command ---------------------------------------------------------------------


def main() -> None:
    """Runs the card as a program."""
    target = flags.DEFINE_string(
        "page", None, "Where the page goes; report.html of the first run if unset."
    )
    devices = flags.DEFINE_integer("devices", 0, "How many; 0 as in training.")
    quiet = flags.DEFINE_bool("quiet", False, "No progress bar.")
    places = command.define_places()
    changes = define_flags(config_lib.Eval, defaults=False)

    def work(argv: Sequence[str]) -> None:
        if len(argv) < 2:
            raise app.UsageError("give one run directory or several")
        process.finish(
            lambda: run(
                [places_lib.local(root, "the run") for root in argv[1:]],
                {"parts": config_lib.PARTS, **changes()},
                target=(
                    places_lib.local(target.value, "--page") if target.value else None
                ),
                places=places(),
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
    places: Mapping[str, Any] | None = None,
    devices: int = 0,
    quiet: bool = False,
) -> None:
    """Measures runs and draws their page.

    Args:
        roots: work directories; records go to each one's own ``results.jsonl``. One
            that is named twice is measured once.
        changes: nested mappings of ``config.Eval``, instead of the runs' own values.
        target: file of the page; the first run's report if None.
        places: where the runs' data are now, if they moved; as ``from_run``'s.
        devices: how many to use; 0 as in training.
        quiet: no progress bar.

    Raises:
        ConfigError: a directory is no run, a value isn't allowed, or the page can't be
            written.
    """
    opened = []
    roots = list({root.resolve(): root for root in reversed(roots)}.values())[::-1]
    for root in roots:
        place, config = workdir.open_run(root)
        config = classifier_lib.at_places(config, places or {})
        own = build(config.eval, changes, "eval.")
        opened.append((place, dataclasses.replace(config, eval=own)))
        check(opened[-1][1])
    process.use_onednn()
    parallel.declare_cpu_devices(devices)
    process.use_compile_cache(opened[0][1].data)
    layout = parallel.make_layout(devices)
    if target is not None and parallel.is_primary():
        files.check_target(target, "--page")
    networks = []  # all of them first: one without checkpoint is better found now
    for root, (_, config) in zip(roots, opened, strict=True):
        parallel.check_batch("eval.batch_size", config.eval.batch_size, layout)
        command.check_images(root, config)
        if parallel.is_primary():
            workdir.check_writable(root)
        network = classifier_lib.from_run(root)
        networks.append(dataclasses.replace(network, config=config))
    try:
        for root, (place, _), network in zip(roots, opened, networks, strict=True):
            console.say(f"{root}, step {network.step:,}")
            context = Context(layout, quiet=quiet)
            command.keep(place, functools.partial(measure, network, None), context)
    finally:  # all that was measured is shown, whatever happens
        if parallel.is_primary():
            page_lib.write(target or opened[0][0].report, roots)


if __name__ == "__main__":
    main()
