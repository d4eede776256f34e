"""Accuracy where images come from elsewhere: natural shifts of the same classes.

    python -m apr_jax.evaluate.shift RUN --shift cifar10_1=tfds:cifar10_1 \\
        --shift cinic=arrays:cinic10_imagenet.npz
    python -m apr_jax.evaluate.shift --model FILE.py:create --data imagenet2012 \\
        --shift a=tfds:imagenet_a --shift r=tfds:imagenet_r --shift own=folder:PATH

Of a set that has some of the classes only, such as ImageNet-A's 200, only these may be
answered, and the clean images beside it are theirs, as its authors count.
``--cue_conflict FOLDER`` measures whether shape or texture is answered, and
``--perturbations FOLDER`` how often answers flip along slowly perturbed frames.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from apr_jax import config as config_lib
from apr_jax import console, data, metrics, parallel
from apr_jax import settings as settings_lib
from apr_jax.errors import ConfigError, DataError
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate import cue_conflict, ood_sets, perturbations, shift_sets
from apr_jax.evaluate.context import Context
from apr_jax.evaluate.measurement import Measurement
from apr_jax.gates import answers
from apr_jax.runs.records import Record

JOB = "evaluate.shift"


class Fit(NamedTuple):
    """A line through published accuracies: what a clean one predicts on a set."""

    slope: float
    intercept: float
    source: str


_RECHT = "Recht et al., Do ImageNet Classifiers Generalize to ImageNet?, ICML 2019"
# Name of the set, or TFDS's name -> the published line.
FITS = {
    "cifar10_1": Fit(1.69, -0.727, f"{_RECHT}: CIFAR-10.1"),
    "imagenet_v2": Fit(1.11, -0.202, f"{_RECHT}: ImageNet-V2, matched frequency"),
}


def measure(
    classifier: classifier_lib.Classifier,
    settings: config_lib.Shift,
    context: Context,
) -> Iterator[Record]:
    """Measures a classifier on sets of its classes from elsewhere.

    Args:
        classifier: the classifier.
        settings: the sets; see ``shift_sets``.
        context: its surroundings; of a set under way nothing is kept.

    Yields:
        For each set, by its name as the split: the numbers of ``metrics.summary``;
        where the clean test split is at hand its "clean_accuracy" on the same classes,
        and the "gap", clean less shifted accuracy; and where a line through published
        accuracies is known (``FITS``) the "effective_robustness", the accuracy less
        what that line predicts of the clean one (Taori et al., "Measuring Robustness
        to Natural Distribution Shifts in Image Classification", NeurIPS 2020). Records
        say which line, and of how many classes. Of cue conflicts those of
        ``cue_conflict.measured``, of perturbed sequences those of
        ``perturbations.measured``.

    Raises:
        ConfigError: a setting can't be used, or there is no set.
        DataError: a set isn't there, is empty, or has other classes.
    """
    sets = check(settings, classifier.config.data)
    if not sets and not settings.cue_conflict and not settings.perturbations:
        raise ConfigError(
            "there is nothing to measure: give --shift name=source:where, such as "
            "cifar10_1=tfds:cifar10_1, --cue_conflict FOLDER or --perturbations FOLDER"
        )
    config = classifier.config
    parallel.check_batch("eval.batch_size", config.eval.batch_size, context.layout)
    opened = [
        shift_sets.open_set(
            name,
            *where,
            config.data,
            classifier.class_names,
            settings,
            seed=config.seed,
        )
        for name, where in sets.items()
    ]
    weights = classifier_lib.weights_digest(classifier)
    for shifted in opened:
        marks = {
            "source": shifted.source,
            "fingerprint": shifted.fingerprint,
            "note": shifted.note,
            "examples": settings.examples,
            "weights": weights,
        }
        job = Measurement(JOB, classifier, context, marks)
        found = {m: r for (split, m), r in job.found().items() if split == shifted.name}
        # It is the last one of a set.
        if "accuracy" in found and not job.lacks_answers(shifted.name):
            yield from job.hidden(found.values())
        else:
            yield from _measured(job, shifted)
    if settings.cue_conflict:
        yield from _shape_or_texture(classifier, settings, context, weights)
    if settings.perturbations:
        facts = {"examples": settings.examples, "weights": weights}

        def job_of(mark: str) -> Measurement:
            own = {"fingerprint": mark, **facts}
            return Measurement(JOB, classifier, context, own)

        yield from perturbations.measured(job_of, settings)


def _shape_or_texture(
    classifier: classifier_lib.Classifier,
    settings: config_lib.Shift,
    context: Context,
    weights: str,
) -> Iterator[Record]:
    """The records of cue conflicts; see ``cue_conflict``."""
    marks = {
        "fingerprint": cue_conflict.fingerprint(settings),
        "fit": settings.fit,
        "weights": weights,
    }
    job = Measurement(JOB, classifier, context, marks)
    found = [r for (split, _), r in job.found().items() if split == cue_conflict.SPLIT]
    if found:
        yield from job.hidden(found)
    else:
        yield from cue_conflict.measured(job, settings)


def _measured(job: Measurement, shifted: shift_sets.ShiftSet) -> list[Record]:
    """The records of one set, its accuracy last."""
    classifier, context = job.classifier, job.context
    classes, every = shifted.classes, len(classifier.class_names)
    if shifted.note and not context.quiet:
        console.say(f"{shifted.name}: {shifted.note}")
    if len(classes) < 2:
        raise DataError(f"shift {shifted.name!r} has one class alone; give two or more")
    rows = context.rows(classifier.config.eval.batch_size, shifted.size)
    batches = classifier_lib.share(
        shifted.batches(rows), parallel.local_rows(rows, context.layout)
    )
    collect = classifier_lib.make_collect(classifier, context, features=False)
    outputs = collect(batches, shifted.size, what=shifted.name)
    logits, labels = of_classes(outputs, classes)
    said = answers.answer(logits)
    said = np.where(said < 0, answers.NO_ANSWER, classes[said])
    job.keep_answers(shifted.name, logits, classes[labels], said=said)
    numbers = metrics.summary(logits, labels, seed=classifier.config.seed)
    own = numbers.pop("accuracy")
    about = {"classes": len(classes), "of": every}
    extra_of = {}
    clean = _clean_accuracy(job, classes)
    if clean is not None:
        numbers["clean_accuracy"] = clean
        numbers["gap"] = difference(clean, own)
        fit = FITS.get(shifted.name) or FITS.get(_tfds_name(shifted.source))
        if fit is not None:
            numbers["effective_robustness"] = beyond(fit, clean, own)
            extra_of["effective_robustness"] = fit._asdict()
    numbers["accuracy"] = own
    return job.records(
        numbers,
        shifted.name,
        extra_of=extra_of,
        not_finite=outputs.not_finite,
        **about,
    )


def of_classes(
    outputs: classifier_lib.Outputs, classes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Logits [M, C] and labels [M] in [0, C) of the examples of some classes alone."""
    mine = np.isin(outputs.labels, classes)
    return outputs.logits[mine][:, classes], np.searchsorted(
        classes, outputs.labels[mine]
    )


def difference(clean: metrics.Measured, shifted: metrics.Measured) -> metrics.Measured:
    """Clean less shifted accuracy; the interval is Newcombe's (1998) of both."""
    lost = beyond(Fit(1.0, 0.0, ""), shifted, clean)
    return dataclasses.replace(lost, n=shifted.n)


def beyond(
    fit: Fit, clean: metrics.Measured, shifted: metrics.Measured
) -> metrics.Measured:
    """Shifted accuracy less what a line says of the clean one, by Newcombe's method."""
    value = shifted.value - (fit.slope * clean.value + fit.intercept)
    below, above = (
        np.hypot(near or 0, fit.slope * (far or 0))
        for near, far in (
            (_down(shifted), _up(clean)),
            (_up(shifted), _down(clean)),
        )
    )
    low, high = float(value - below), float(value + above)
    return metrics.Measured(value, low, high, "fraction", shifted.n)


def _down(number: metrics.Measured) -> float:
    return number.value - (number.value if number.low is None else number.low)


def _up(number: metrics.Measured) -> float:
    return (number.value if number.high is None else number.high) - number.value


def _clean_accuracy(job: Measurement, classes: np.ndarray) -> metrics.Measured | None:
    """On the test images of some classes; None where they aren't at hand."""
    classifier, context = job.classifier, job.context
    described, split = classifier.config.data, classifier.config.data.test_split
    try:
        if context.resident is None and not described.streaming:
            resident = data.load(described, splits=(split,))
            context = dataclasses.replace(context, resident=resident)
        collect = functools.partial(
            classifier_lib.collect_split, classifier, split, context
        )
        outputs = job.outputs(split, collect)
    except DataError as why:
        console.say(f"no clean accuracy beside shifted ones: {why}")
        return None
    logits, labels = of_classes(outputs, classes)
    if not len(labels):
        return None
    return metrics.summary(logits, labels, replicates=1)["accuracy"]


def _tfds_name(source: str) -> str:
    """TFDS's name of a set, without configuration, version and split; else ""."""
    kind, _, where = source.partition(":")
    return where.partition("/")[0].partition(":")[0] if kind == "tfds" else ""


def check(
    settings: config_lib.Shift, described: config_lib.Data
) -> dict[str, tuple[str, str]]:
    """The sets' (source, where) by name.

    Raises:
        ConfigError: for settings of ``measure`` that can't be used.
    """
    settings_lib.check(settings)
    sets = ood_sets.parse(settings.shift, "shift")
    for name in sets:
        taken = (described.test_split, *described.shifted_splits, cue_conflict.SPLIT)
        if name in taken or name.startswith(f"{perturbations.SPLIT}/"):
            raise ConfigError(
                f"shift has a set called {name!r}, which is a split of the data, the "
                "cue conflicts or a perturbation"
            )
    return sets


if __name__ == "__main__":
    from apr_jax.cli import measure as command_line

    command_line.main("shift")
