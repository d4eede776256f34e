"""Error and calibration of a classifier on corrupted images.

    python -m apr_jax.evaluate.corruption RUN
    python -m apr_jax.evaluate.corruption RUN --source folder --dir DIR

measures fifteen corruptions in five severities; with ``--sets c,c_bar,extra`` the ten
of C-bar and the four that are held out, too, each set with a mean of its own. The
images are made on the fly from the test split ("generated"), or read: the official
``.npy`` folders of CIFAR-10-C, CIFAR-100-C and CIFAR-10-C-bar and the JPEG trees of
ImageNet-C and ImageNet-C-bar ("folder"), or ``cifar10_corrupted`` and
``imagenet2012_corrupted`` of TensorFlow Datasets ("tfds"). A stopped call goes on with
the first corruption and severity that has no record yet.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from apr_jax import config as config_lib
from apr_jax import corruptions as corruptions_lib
from apr_jax import metrics, parallel
from apr_jax import settings as settings_lib
from apr_jax.corruptions import CORRUPTIONS, SEVERITIES
from apr_jax.data import corrupted
from apr_jax.errors import ConfigError
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate import corruption_sources
from apr_jax.evaluate.context import Context
from apr_jax.evaluate.measurement import Measurement
from apr_jax.runs.records import Record

JOB = "evaluate.corruption"
# The undisturbed images, beside "NAME/SEVERITY".
CLEAN = "clean"
# The mean over the fifteen corruptions; of one severity, "mean/SEVERITY". That over
# another set is called "mean SET".
MEAN = "mean"
METRICS = ("error", "nll", "ece", "rms_calibration_error", "brier")
# Bootstrap replicates of each set: 75 sets need to be quicker than a single one.
_REPLICATES = 200
_IMAGENET_CLASSES = 1000


def measure(
    classifier: classifier_lib.Classifier,
    settings: config_lib.Corruption,
    context: Context,
) -> Iterator[Record]:
    """Measures a classifier on corrupted images, record by record.

    Args:
        classifier: the classifier; its configuration names the data.
        settings: which images. Of a JPEG tree, which is sorted by class, fewer
            ``examples`` are evenly spread ones.
        context: its surroundings; of a set under way nothing is kept.

    Yields:
        For each "NAME/SEVERITY", and for "clean" where the test split is at hand:
        error, NLL, ECE, RMS calibration error and Brier score, with 95 % intervals.
        Over all fifteen: their means of each severity ("mean/SEVERITY") and of all
        ("mean"); on ImageNet also "mce" and "relative_mce" in relation to AlexNet. Over
        all of another set the same by its name ("mean c_bar/SEVERITY", "mean extra").
        Over N that are no whole set, the mean of all ("mean of N"). The name of a mean
        over some severities ends with them ("mean, severities 1 3").

    Raises:
        ConfigError: a setting that isn't allowed.
        DataError: files are missing, or images or labels don't fit.
    """
    check(settings, classifier.config.data)
    config = classifier.config
    parallel.check_batch("eval.batch_size", config.eval.batch_size, context.layout)
    names, severities = names_of(settings, config.data), settings.severities
    sets = corruption_sources.open_source(settings, names, classifier, context)
    job = Measurement(
        JOB,
        classifier,
        context,
        {
            "source": settings.source,
            "examples": settings.examples,
            **corruption_sources.fingerprint(settings, names, config.data),
            "weights": classifier_lib.weights_digest(classifier),
        },
        data=_label(config.data, settings),
    )
    found = job.found()
    yield from job.hidden(found.values())
    splits = [f"{name}/{severity}" for name in names for severity in severities]
    if sets.has_clean:
        splits.insert(0, CLEAN)
    lacking = [s for s in splits if job.lacks_answers(s)]
    missing = [s for s in splits if s in lacking or not _complete(s, found)]
    for record in _measured(job, sets, missing):
        found[record.split, record.metric] = record
        yield record
    for record in _means(job, found, names, severities):
        known = found.get((record.split, record.metric))
        if known is None or known.value != record.value:
            yield record


def _complete(split: str, found: Mapping[tuple[str, str], Record]) -> bool:
    """Whether a split was measured; without answers, there is its error alone."""
    error = found.get((split, "error"))
    if error is None:
        return False
    return "not_finite" in error.extra or all((split, m) in found for m in METRICS)


def names_of(settings: config_lib.Corruption, data: config_lib.Data) -> tuple[str, ...]:
    """The corruptions to measure: those that are named, or all of the sets."""
    return corrupted.chosen(settings, data.image_size)


def check(settings: config_lib.Corruption, data: config_lib.Data) -> None:
    """Raises ConfigError for settings of ``measure`` that aren't allowed."""
    settings_lib.check(settings)
    names = names_of(settings, data)
    if settings.jpeg != "pillow" and not corruption_sources.compresses(
        settings, names, data
    ):
        raise ConfigError(
            f"jpeg is {settings.jpeg!r}, but nothing is compressed here: it is for "
            "source 'generated' with jpeg_compression, or stored_as 'jpeg'"
        )
    severities = settings.severities
    if not severities or len(set(severities)) < len(severities):
        raise ConfigError(
            f"severities is {list(severities)}; give one or more, each once"
        )
    source, folder = settings.source, settings.dir
    if (source == "folder") != bool(folder):
        raise ConfigError(
            f"dir is {folder!r} and source {source!r}; source "
            "'folder' needs it, no other takes it"
        )


def _label(data: config_lib.Data, settings: config_lib.Corruption) -> str:
    """The name of the data in records: published files and generated ones differ."""
    name = (data.name or data.source).partition("_corrupted")[0]
    if settings.source != "generated":
        return f"{name}-c"
    codec = "" if settings.jpeg == "pillow" else f", JPEG by {settings.jpeg}"
    return f"{name}-c generated{codec}"


def _measured(
    job: Measurement, sets: corruption_sources.Source, splits: Sequence[str]
) -> Iterator[Record]:
    """Measures split by split, with one compiled program for all."""
    if not splits:
        return
    config = job.classifier.config
    silent = dataclasses.replace(job.context, quiet=True)
    collect = classifier_lib.make_collect(job.classifier, silent, features=False)
    max_broken = config.data.max_broken if config.data.streaming else 0
    with job.context.bar("{task.fields[said]}") as bar:
        task = bar.add_task("corruptions", total=len(splits), said="")
        for split in splits:
            bar.update(task, said=split)

            def run(split: str = split) -> classifier_lib.Outputs:
                batches = sets.batches(split)  # first; some know their size only then
                size = sets.size(split)
                return collect(batches, size, max_broken=max_broken, what=split)

            whole = split == CLEAN and sets.has_all_clean
            outputs = job.outputs(config.data.test_split, run) if whole else run()
            job.keep_answers(
                split, outputs.logits, outputs.labels, expected=sets.size(split)
            )
            numbers = metrics.summary(
                outputs.logits, outputs.labels, seed=config.seed, replicates=_REPLICATES
            )
            yield from job.records(
                {name: numbers[name] for name in METRICS if name in numbers},
                split,
                not_finite=outputs.not_finite,
            )
            bar.update(task, advance=1)


def _means(
    job: Measurement,
    found: Mapping[tuple[str, str], Record],
    corruptions: Sequence[str],
    severities: Sequence[int],
) -> Iterator[Record]:
    """Means over each set that was measured whole, and over what else there is."""
    shape = (job.classifier.config.data.image_size,) * 2
    rest = list(corruptions)
    for name in config_lib.CORRUPTION_SETS:
        members = corruptions_lib.names_of([name], shape)
        if set(members) <= set(corruptions):
            label = MEAN if name == "c" else f"{MEAN} {name}"
            yield from _means_of_set(job, found, label, members, severities)
            rest = [c for c in rest if c not in members]
    if rest and not set(CORRUPTIONS) <= set(corruptions):
        label = f"{MEAN} of {len(rest)}"
        yield from _mean_over(job, found, label, rest, severities)


def _means_of_set(
    job: Measurement,
    found: Mapping[tuple[str, str], Record],
    label: str,
    members: Sequence[str],
    severities: Sequence[int],
) -> Iterator[Record]:
    """The means of a whole set, of each severity and of all."""
    chosen = sorted(severities)
    for severity in chosen:
        numbers = _averages(found, members, [severity])
        extra = _extra(found, members, chosen)
        yield from job.records(numbers, f"{label}/{severity}", **extra)
    more: dict[str, metrics.Measured] = {}
    # AlexNet's constants are means over all five severities of ImageNet-C.
    of_imagenet = len(job.classifier.class_names) == _IMAGENET_CLASSES
    if label == MEAN and of_imagenet and chosen == list(SEVERITIES):
        errors = {
            c: [found[f"{c}/{s}", "error"].value for s in chosen] for c in members
        }
        sums = {"mce": metrics.mean_corruption_error(errors)}
        if (CLEAN, "error") in found:
            sums["relative_mce"] = metrics.relative_mean_corruption_error(
                errors, found[CLEAN, "error"].value
            )
        total = sum(found[f"{c}/{s}", "error"].n for c in members for s in chosen)
        more = {
            name: metrics.Measured(value, None, None, "fraction", total)
            for name, value in sums.items()
        }
    yield from _mean_over(job, found, label, members, severities, more)


def _mean_over(
    job: Measurement,
    found: Mapping[tuple[str, str], Record],
    label: str,
    members: Sequence[str],
    severities: Sequence[int],
    more: Mapping[str, metrics.Measured] | None = None,
) -> list[Record]:
    """The mean over corruptions and severities, and ``more`` numbers beside it."""
    chosen = sorted(severities)
    # A mean over fewer severities is another number and has another name.
    every = chosen == list(SEVERITIES)
    some = "" if every else f", severities {' '.join(map(str, chosen))}"
    numbers = {**_averages(found, members, chosen), **(more or {})}
    extra = _extra(found, members, chosen)
    return job.records(numbers, f"{label}{some}", **extra)


def _averages(
    found: Mapping[tuple[str, str], Record],
    members: Sequence[str],
    over: Sequence[int],
) -> dict[str, metrics.Measured]:
    """The mean of each metric that all sets have."""
    made = {}
    for metric in METRICS:
        sets = [(f"{c}/{s}", metric) for c in members for s in over]
        if not all(key in found for key in sets):
            continue  # some have no answers, so no likelihood
        parts = [found[key] for key in sets]
        average = float(np.mean([part.value for part in parts]))
        count = sum(part.n for part in parts)
        made[metric] = metrics.Measured(average, None, None, parts[0].unit, count)
    return made


def _extra(
    found: Mapping[tuple[str, str], Record],
    members: Sequence[str],
    chosen: Sequence[int],
) -> dict[str, Any]:
    """What the records of a mean say of it."""
    extra: dict[str, Any] = {"severities": [*chosen], "corruptions": [*members]}
    bad = sum(
        found[f"{c}/{s}", "error"].extra.get("not_finite", 0)
        for c in members
        for s in chosen
    )
    return {**extra, "not_finite": bad} if bad else extra


if __name__ == "__main__":
    from apr_jax.cli import measure as command_line

    command_line.main("corruption")
