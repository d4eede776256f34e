"""Detection of images that a classifier never saw, among those it was trained on.

    python -m apr_jax.evaluate.ood RUN --out svhn=tfds:svhn_cropped \\
        --out cifar100=tfds:cifar100 --out textures=folder:PATH --near cifar100

Every score of ``apr_jax.ood`` in one pass over each set. ``--scores_file FILE.npz``
measures scores from elsewhere: arrays ``SCORE/id`` and ``SCORE/SET`` for each out set
(without ``SCORE/``, one score), and ``correct`` for the open-set rate, if known.
``--protocol openood`` has OpenOOD's sets and conventions in place of all that; see
``apr_jax.evaluate.openood``.
"""

import dataclasses
import pathlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from apr_jax import config as config_lib
from apr_jax import console, parallel
from apr_jax import settings as settings_lib
from apr_jax.errors import ConfigError
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate import ood_records, ood_sets, openood, openood_sets
from apr_jax.evaluate.context import Context
from apr_jax.evaluate.measurement import Measurement
from apr_jax.evaluate.ood_inside import Inside
from apr_jax.runs.records import Record

JOB = ood_records.JOB


def measure(
    classifier: classifier_lib.Classifier,
    settings: config_lib.Ood,
    context: Context,
) -> Iterator[Record]:
    """Measures detection of any number of out sets by every score.

    Args:
        classifier: the classifier; its test split is the in-distribution side.
        settings: the sets and the scores. Sets that aren't ``near`` are far. No
            ``scores`` are all that the classifier allows. Images of each set are
            drawn by the seed of the configuration; for ``out`` and ``fit`` see
            ``ood_sets``, for ``scores_file`` this module's documentation, for
            ``protocol`` "openood" ``openood``.
        context: its surroundings; outputs for the classifier's own data are kept.

    Yields:
        A record for each out set, score and metric, named "SCORE.METRIC" with the
        set as its split; then means over the near, far and all sets. The record of
        the AUROC carries the ROC curve and histograms. All metrics but those of the
        score "authors" and of a protocol are exact; see ``metrics.ood_detection``.

    Raises:
        ConfigError: a setting can't be used; the message names it and the choices.
        DataError: a set isn't there, is empty, or isn't what it should be.
    """
    sets = check(settings, classifier.config.data)
    if settings.protocol == openood.NAME:
        yield from _measure_openood(classifier, settings, context)
        return
    if not sets and not settings.scores_file:
        raise ConfigError(
            "there is nothing to measure: give --out name=source:where, or "
            "--scores_file"
        )
    config = classifier.config
    parallel.check_batch("eval.batch_size", config.eval.batch_size, context.layout)
    file, near = settings.scores_file, set(settings.near)
    given = ood_records.read_scores(file) if file else None
    opened = [
        ood_sets.open_set(
            name,
            *where,
            config.data,
            examples=settings.examples,
            seed=config.seed,
            fit=settings.fit,
            tfds_dir=settings.tfds_dir,
        )
        for name, where in sets.items()
    ]
    job = Measurement(JOB, classifier, context)
    if opened:
        yield from _measure_sets(job, Inside(job, settings), opened, near)
    if given is not None:
        yield from ood_records.measure_given(job, given, pathlib.Path(file), near)


# --- Measuring -----------------------------------------------------------------------


def _measure_openood(
    classifier: classifier_lib.Classifier,
    settings: config_lib.Ood,
    context: Context,
) -> Iterator[Record]:
    """OpenOOD's benchmark, and its full spectrum where there are such images."""
    config = classifier.config
    parallel.check_batch("eval.batch_size", config.eval.batch_size, context.layout)
    found = openood_sets.find(settings, config)
    job = Measurement(JOB, classifier, context)
    inside = openood.OpenoodInside(job, settings, found)
    opened = [*found.near.values(), *found.far.values()]
    yield from _measure_sets(job, inside, opened, set(found.near))
    if not found.csid:
        return
    full = openood.FullSpectrum(inside, found.csid)
    again = [dataclasses.replace(x, name=openood.FULL + x.name) for x in opened]
    near = {openood.FULL + name for name in found.near}
    yield from _measure_sets(job, full, again, near, prefix=openood.FULL)


def _measure_sets(
    job: Measurement,
    inside: Inside | openood.FullSpectrum,
    opened: Sequence[ood_sets.OutSet],
    near: set[str],
    prefix: str = "",
) -> Iterator[Record]:
    """Each set, then the means over groups of them, whose names have the prefix."""
    table: dict[str, dict[str, Record]] = {}
    identity = []
    for out_set in opened:
        if out_set.note and not (inside.context.quiet or prefix):
            console.say(f"{out_set.name}: {out_set.note}")
        marks = {
            "source": out_set.source,
            "fingerprint": out_set.fingerprint,
            "note": out_set.note,
        }
        identity.append([out_set.name, *marks.values()])
        job = dataclasses.replace(job, settings={**inside.common, **marks})
        found = job.found()
        rows = {m: r for (split, m), r in found.items() if split == out_set.name}
        if job.lacks_answers(out_set.name) or not _complete(rows, inside):
            inside.prepare()
            outside, bad = inside.of(out_set)
            job.keep_arrays(
                out_set.name,
                ood_records.as_file(
                    out_set.name, inside.scores, outside, inside.correct
                ),
            )
            rows = {}
            for score in inside.names:
                made = ood_records.records_of_score(
                    job,
                    out_set.name,
                    score,
                    inside.scores[score],
                    outside[score],
                    inside.correct,
                    near=near,
                    note=out_set.note,
                    not_finite=inside.not_finite + bad,
                    convention=inside.convention,
                    extra=inside.knobs_of(score),
                )
                yield from made
                rows.update({record.metric: record for record in made})
        else:
            yield from job.hidden(rows.values())
        group = ood_records.group_of(out_set.name, near)
        for metric, record in rows.items():
            if record.extra["group"] != group:  # the numbers are the same
                extra = {**record.extra, "group": group}
                rows[metric] = dataclasses.replace(record, extra=extra)
                yield rows[metric]
        table[out_set.name] = rows
    job = dataclasses.replace(job, settings={**inside.common, "sets": identity})
    yield from ood_records.means(job, table, near, prefix)


def _complete(rows: Mapping[str, Any], inside: Inside | openood.FullSpectrum) -> bool:
    """Whether earlier records hold every metric of every score that is possible."""
    metrics = ood_records.METRICS
    holds = lambda scores: all(f"{s}.{m}" in rows for s in scores for m in metrics)
    if not rows:
        return False
    if holds(inside.asked):
        return True
    # Perhaps not all that is asked for is possible; that takes the outputs to know.
    inside.prepare()
    return holds(inside.names)


# --- Settings ------------------------------------------------------------------------


def check(
    settings: config_lib.Ood, data: config_lib.Data
) -> dict[str, tuple[str, str]]:
    """The out sets' (source, where) by name.

    Raises:
        ConfigError: for settings of ``measure`` that can't be used.
    """
    settings_lib.check(settings)
    sets = ood_sets.parse(settings.out)
    if settings.protocol == openood.NAME:
        _check_openood(settings, data, sets)
    for name in sets:
        if name in ood_records.GROUPS:
            raise ConfigError(
                f"out has a set called {name!r}, which is the name of a mean"
            )
    for name in settings.near:
        if sets and name not in sets:
            raise ConfigError(
                f"near names {name!r}, which is no out set; there are {', '.join(sets)}"
            )
    return sets


def _check_openood(
    settings: config_lib.Ood, data: config_lib.Data, sets: Collection[str]
) -> None:
    members = openood_sets.BENCHMARKS[openood_sets.benchmark_of(data)]
    for name in sets:
        if name not in members:
            raise ConfigError(
                f"out has {name!r}, which OpenOOD doesn't; it has {', '.join(members)}"
            )
        if members[name].group in ("csid", "id_test", "id_val"):
            raise ConfigError(
                f"out has {name!r}, whose labels only OpenOOD's list has: name the "
                "folder of lists and images by openood_dir"
            )
    for field in ("near", "scores_file"):
        if getattr(settings, field):
            raise ConfigError(
                f"{field} is {getattr(settings, field)!r}; with protocol 'openood' "
                "leave it out"
            )


if __name__ == "__main__":
    from apr_jax.cli import measure as command_line

    command_line.main("ood")
