"""What all evaluations do around their measurement."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from apr_jax import config as config_lib
from apr_jax import console, data, parallel, process, tuning
from apr_jax import settings as settings_lib
from apr_jax.errors import DataError
from apr_jax.evaluate import bring as bring_lib
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate import weights
from apr_jax.evaluate.context import Context
from apr_jax.gates import stores
from apr_jax.runs import claims, records
from apr_jax.runs import workdir as workdir_lib
from apr_jax.runs.records import Record

# (classifier, settings, context) -> records as they come.
Measure = Callable[[classifier_lib.Classifier, Any, Context], Iterable[Record]]


def run(
    what: stores.Place | Mapping[str, Any],
    measure: Measure,
    settings: Any,
    *,
    values: Any = None,
    workdir: stores.Place | None = None,
    places: Mapping[str, Any] | None = None,
    keeping: Mapping[str, Any] | None = None,
    beside: Sequence[stores.Place] = (),
    devices: int = 0,
    quiet: bool = False,
) -> None:
    """Measures one classifier and draws its page.

    Args:
        what: a run, which is only read where ``workdir`` is another directory; a file
            of weights; or a network from elsewhere, the arguments of ``bring.bring``.
        measure: the evaluation.
        settings: its settings.
        values: configuration of a file of weights.
        workdir: where records and page go; if None a run's own directory, and
            ``runs/zoo/NAME`` of one of the zoo, which is only read.
        places: where the data are now, if they moved: fields of ``config.data``.
        keeping: fields of ``config.Eval`` instead of the configuration's own.
        beside: finished runs to show on the page.
        devices: how many to use; 0 as in training.
        quiet: no progress bar.

    Raises:
        ConfigError: something is no run, a value isn't allowed, the run was trained on
            other images, or ``workdir`` can't be written.
    """
    tuning.use_onednn()
    parallel.declare_cpu_devices(devices)
    brought, resident, elsewhere = None, None, False
    if isinstance(what, Mapping):
        brought = bring_lib.bring(**what, where=places, root=workdir)
        classifier, resident, root = brought
        workdir_lib.check_beside(root, beside)
    else:
        workdir = workdir or (
            workdir_lib.place_of_records(what) if what.is_dir() else None
        )
        workdir_lib.check_beside(workdir or what, beside)
        classifier, root = _open(what, values, workdir, places or {})
        elsewhere = root.resolve() != what.resolve()
    if keeping:
        own = settings_lib.build(classifier.config.eval, keeping, "eval.")
        changed = dataclasses.replace(classifier.config, eval=own)
        classifier = dataclasses.replace(classifier, config=changed)
    process.use_compile_cache(classifier.config.data)
    layout = parallel.make_layout(devices)
    primary = parallel.is_primary()
    place = workdir_lib.prepare(root, classifier.config, write=primary)
    if primary and brought is not None:
        brought.claim(place, classifier.config)
    elif primary and elsewhere:
        workdir_lib.claim(place, classifier.config, classifier.class_names)
    bound = functools.partial(measure, classifier, settings)
    keep(place, bound, Context(layout, resident, quiet=quiet))
    if primary:
        from apr_jax.report import page  # Matplotlib, which takes a while to load

        page.write(place.report, [root, *beside])


def keep(
    run: workdir_lib.RunDir,
    measure: Callable[[Context], Iterable[Record]],
    context: Context,
) -> None:
    """Measures, and writes each record to a work directory as soon as it is known.

    Args:
        run: the work directory; ``measure`` needn't make its records again.
        measure: bound to all but its context.
        context: to which the records and the state that the directory has are added.
    """
    primary = parallel.is_primary()
    with claims.claimed(run.root, write=primary, waiting=console.say):
        done = records.read(run.results) if run.results.exists() else []
        context = dataclasses.replace(
            context,
            done=tuple(done),
            predictions=run.predictions,
            scratch=run.scratch,
        )
        for number, record in enumerate(measure(context)):
            if primary:
                if number == 0:
                    workdir_lib.note_command(run, process.command_line())
                records.append(run.results, [record])


def check_images(root: stores.Place, config: config_lib.Config) -> None:
    """Raises ConfigError where a run would be measured on other images than its own.

    What isn't there is for the measurement to say, which may not need it.
    """
    try:
        tested = data.eval_fingerprint(config.data)
    except DataError:
        return
    workdir_lib.check_images(workdir_lib.RunDir(root), config, {"test": tested})


def _open(
    what: stores.Place,
    values: Any,
    workdir: stores.Place | None,
    places: Mapping[str, Any],
) -> tuple[classifier_lib.Classifier, stores.Place]:
    """Returns the classifier, and the directory its records go to."""
    workdir_lib.check_measured(what, workdir, configured=values is not None)
    if what.is_dir():
        classifier = classifier_lib.from_run(what, places)
        check_images(what, classifier.config)
        return classifier, workdir or what
    assert workdir is not None
    assert isinstance(what, pathlib.Path)
    config = config_lib.parse(values.to_dict())
    config = classifier_lib.at_places(config, places)
    return weights.from_weights(what, config), workdir
