"""Error and calibration of a classifier on corrupted images.

    python -m apr_jax.evaluate.corruption RUN
    python -m apr_jax.evaluate.corruption RUN --source folder --corruption_dir DIR

measures fifteen corruptions in five severities. The images are made on the fly from
the test split ("generated"), or read: the official ``.npy`` folders of CIFAR-10-C and
CIFAR-100-C and the JPEG tree of ImageNet-C ("folder"), or ``cifar10_corrupted`` and
``imagenet2012_corrupted`` of TensorFlow Datasets ("tfds"). A stopped call goes on with
the first corruption and severity that has no record yet.
"""

import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import flags

from apr_jax import config as config_lib
from apr_jax import console, data, metrics, parallel
from apr_jax.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES
from apr_jax.errors import ConfigError
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate import command, corruption_sources
from apr_jax.runs import records
from apr_jax.runs.records import Record

JOB = "evaluate.corruption"
# The undisturbed images, beside "NAME/SEVERITY".
CLEAN = "clean"
# The mean over corruptions; of one severity, "mean/SEVERITY".
MEAN = "mean"
METRICS = ("error", "nll", "ece", "rms_calibration_error", "brier")
# Of each set; 75 sets need shorter intervals to compute than a single one.
_REPLICATES = 200
_IMAGENET_CLASSES = 1000


def measure(
    classifier: classifier_lib.Classifier,
    layout: parallel.Layout,
    *,
    resident: data.DataSet | None = None,
    done: Iterable[Record] = (),
    scratch: pathlib.Path | None = None,
    quiet: bool = False,
    corruptions: Sequence[str] = CORRUPTIONS,
    severities: Sequence[int] = SEVERITIES,
    source: str = "generated",
    corruption_dir: str = "",
    examples: int = 0,
    frost_dir: str = "",
    seed: int = 0,
) -> Iterator[Record]:
    """Measures a classifier on corrupted images, record by record.

    Args:
        classifier: what to measure; its configuration names the data.
        layout: the devices.
        resident: the test split, where it is in memory already.
        done: records of earlier calls; what is among them isn't measured again.
        scratch: not used; a set of one severity is soon measured anew.
        quiet: no progress bar.
        corruptions: names; of the fifteen or the four that are held out.
        severities: from 1 to 5.
        source: one of ``corruption_sources.SOURCES``.
        corruption_dir: for "folder": where the files are.
        examples: only the first so many of each set (of a JPEG tree, which is sorted
            by class, evenly spread ones); 0 takes all.
        frost_dir: for "generated": the photographs of frost; "" takes those of the
            installed package ``imagecorruptions``.
        seed: for "generated": of the corruptions.

    Yields:
        For each "NAME/SEVERITY", and for "clean" where the test split is at hand:
        error, NLL, ECE, RMS calibration error and Brier score, with 95 % intervals.
        Over all fifteen: their means of each severity ("mean/SEVERITY") and of all
        ("mean"); on ImageNet also "mce" and "relative_mce" in relation to AlexNet. Over
        N others, the mean of all ("mean of N"). The name of a mean over some
        severities ends with them ("mean, severities 1 3").

    Raises:
        ConfigError: a setting that isn't allowed.
        DataError: files are missing, or images or labels don't fit.
    """
    del scratch
    check_settings(
        corruptions,
        severities,
        source,
        corruption_dir=corruption_dir,
        examples=examples,
    )
    batch_size = classifier.config.eval.batch_size
    parallel.check_batch("eval.batch_size", batch_size, layout)
    done = tuple(done)
    sets = corruption_sources.open_source(
        source,
        classifier,
        layout,
        resident=resident,
        corruptions=corruptions,
        severities=severities,
        corruption_dir=corruption_dir,
        examples=examples,
        frost_dir=frost_dir,
        seed=seed,
    )
    where = _where(
        classifier,
        layout,
        source,
        corruption_sources.fingerprint(
            source,
            corruptions,
            severities,
            settings=classifier.config.data,
            corruption_dir=corruption_dir,
            frost_dir=frost_dir,
            seed=seed,
        ),
        examples,
    )
    found = _found(done, where)
    yield from records.hidden(done, found.values())
    splits = [f"{name}/{severity}" for name in corruptions for severity in severities]
    if sets.has_clean:
        splits.insert(0, CLEAN)
    missing = [s for s in splits if any((s, m) not in found for m in METRICS)]
    for record in _measured(classifier, layout, sets, missing, where, quiet):
        found[record.split, record.metric] = record
        yield record
    for record in _means(found, corruptions, severities, classifier, where):
        known = found.get((record.split, record.metric))
        if known is None or known.value != record.value:
            yield record


def check_settings(
    corruptions: Sequence[str],
    severities: Sequence[int] = SEVERITIES,
    source: str = "generated",
    *,
    corruption_dir: str = "",
    examples: int = 0,
) -> None:
    """Raises ConfigError for a setting of ``measure`` that isn't allowed."""
    choices = (*CORRUPTIONS, *EXTRA_CORRUPTIONS)
    for name in corruptions:
        if name not in choices:
            raise ConfigError(
                f"corruptions has {name!r}; choose from {', '.join(choices)}"
            )
    for severity in severities:
        if severity not in SEVERITIES:
            raise ConfigError(f"severities has {severity!r}; choose from {SEVERITIES}")
    for field, values in (("corruptions", corruptions), ("severities", severities)):
        if not values or len(set(values)) < len(values):
            raise ConfigError(f"{field} is {list(values)}; give one or more, each once")
    if source not in corruption_sources.SOURCES:
        raise ConfigError(
            f"source is {source!r}; choose from {corruption_sources.SOURCES}"
        )
    if (source == "folder") != bool(corruption_dir):
        raise ConfigError(
            f"corruption_dir is {corruption_dir!r} and source {source!r}; source "
            "'folder' needs it, no other takes it"
        )
    if examples < 0:
        raise ConfigError(f"examples is {examples}; it must be 0 or more")


def _where(
    classifier: classifier_lib.Classifier,
    layout: parallel.Layout,
    source: str,
    files: Mapping[str, Any],
    examples: int,
) -> dict[str, Any]:
    """What all records have in common."""
    settings: dict[str, Any] = {"source": source, "examples": examples, **files}
    settings["weights"] = classifier_lib.weights_digest(classifier)
    config = classifier.config
    return {
        "job": JOB,
        "data": _label(config, source),
        "step": classifier.step,
        "config_hash": config_lib.config_hash(config),
        "seed": config.seed,
        "device": layout.describe(),
        "extra": {"classifier": classifier.name, "settings": settings},
    }


def _found(
    done: Iterable[Record], where: Mapping[str, Any]
) -> dict[tuple[str, str], Record]:
    """(split, metric) -> what was measured by earlier calls with these settings."""
    finished = records.finished(
        done,
        job=JOB,
        config_hash=where["config_hash"],
        step=where["step"],
        settings=where["extra"]["settings"],
    )
    return {
        (split, metric): record
        for (name, split, metric), record in finished.items()
        if name == where["data"]
    }


def _label(config: config_lib.Config, source: str) -> str:
    """What records call the data: published files and generated ones differ."""
    name = (config.data.name or config.data.source).partition("_corrupted")[0]
    return f"{name}-c generated" if source == "generated" else f"{name}-c"


def _measured(
    classifier: classifier_lib.Classifier,
    layout: parallel.Layout,
    sets: corruption_sources.Source,
    splits: Sequence[str],
    where: Mapping[str, Any],
    quiet: bool,
) -> Iterator[Record]:
    """Measures split by split, with one compiled program for all."""
    if not splits:
        return
    predict = _predictor(classifier, layout)
    quiet = quiet or not parallel.is_primary()
    with console.make_bar("{task.fields[said]}", disable=quiet) as bar:
        task = bar.add_task("corruptions", total=len(splits), said="")
        for split in splits:
            bar.update(task, said=split)
            logits, labels = predict(sets, split)
            if missing := sets.size(split) - len(labels):
                console.say(f"{missing} images of {split} can't be read")
            numbers = metrics.summary(
                logits, labels, seed=classifier.config.seed, replicates=_REPLICATES
            )
            kept = {name: numbers[name] for name in METRICS}
            yield from records.records_of(kept, split=split, **where)
            bar.update(task, advance=1)


def _predictor(
    classifier: classifier_lib.Classifier, layout: parallel.Layout
) -> Callable[[corruption_sources.Source, str], tuple[np.ndarray, np.ndarray]]:
    """Returns a function of (source, split) to logits and labels, in order."""

    def run(variables: Any, batch: data.Batch) -> Any:
        logits, _ = classifier.predict(variables, jnp.asarray(batch.image))
        return logits, batch.label, batch.mask

    gather = parallel.make_gather(run, layout)
    variables = parallel.replicate(classifier.variables, layout)

    def predict(
        sets: corruption_sources.Source, split: str
    ) -> tuple[np.ndarray, np.ndarray]:
        parts = []
        for batch in sets.batches(split):
            shared = parallel.split_batch(data.Batch(*map(np.asarray, batch)), layout)
            logits, labels, mask = gather(variables, shared)
            parts.append((logits[mask], labels[mask]))
        logits, labels = map(np.concatenate, zip(*parts, strict=True))
        expected, settings = sets.size(split), classifier.config.data
        most = settings.max_broken if settings.streaming else 0
        if not 0 <= expected - len(labels) <= most:
            raise RuntimeError(
                f"{split} has {expected} examples, but {len(labels)} were evaluated"
            )
        return logits, labels

    return predict


def _means(
    found: Mapping[tuple[str, str], Record],
    corruptions: Sequence[str],
    severities: Sequence[int],
    classifier: classifier_lib.Classifier,
    where: Mapping[str, Any],
) -> Iterator[Record]:
    """Means over the fifteen, or over those measured where that isn't all of them."""
    chosen = sorted(severities)
    value = lambda name, severity, metric: found[f"{name}/{severity}", metric]
    count = value(corruptions[0], chosen[0], "error").n
    whole = set(CORRUPTIONS) <= set(corruptions)
    members = CORRUPTIONS if whole else tuple(corruptions)
    extra = {**where["extra"], "severities": chosen, "corruptions": list(members)}
    # A mean over fewer severities is another number and has another name.
    some = "" if chosen == list(SEVERITIES) else severities_name(chosen)
    where = {**where, "extra": extra}

    def mean(metric: str, over: Sequence[int]) -> metrics.Measured:
        parts = [value(c, s, metric) for c in members for s in over]
        average = float(np.mean([part.value for part in parts]))
        return metrics.Measured(
            average, None, None, parts[0].unit, sum(part.n for part in parts)
        )

    if not whole:
        numbers = {metric: mean(metric, chosen) for metric in METRICS}
        yield from records.records_of(
            numbers, split=f"{MEAN} of {len(members)}{some}", **where
        )
        return
    for severity in chosen:
        numbers = {metric: mean(metric, [severity]) for metric in METRICS}
        yield from records.records_of(numbers, split=f"{MEAN}/{severity}", **where)
    errors = {c: [value(c, s, "error").value for s in chosen] for c in CORRUPTIONS}
    total = count * len(CORRUPTIONS) * len(chosen)
    numbers = {metric: mean(metric, chosen) for metric in METRICS}
    plain = metrics.mean_corruption_error(errors, baseline=None)
    numbers["error"] = metrics.Measured(plain, None, None, "fraction", total)
    # AlexNet's constants are means over all five severities of ImageNet-C.
    is_imagenet = len(classifier.class_names) == _IMAGENET_CLASSES
    if is_imagenet and chosen == list(SEVERITIES):
        mce = metrics.mean_corruption_error(errors)
        numbers["mce"] = metrics.Measured(mce, None, None, "fraction", total)
        if (CLEAN, "error") in found:
            relative = metrics.relative_mean_corruption_error(
                errors, found[CLEAN, "error"].value
            )
            numbers["relative_mce"] = metrics.Measured(
                relative, None, None, "fraction", total
            )
    yield from records.records_of(numbers, split=f"{MEAN}{some}", **where)


def severities_name(severities: Sequence[int]) -> str:
    """What the name of a mean over some of the severities ends with."""
    return f", severities {' '.join(map(str, severities))}"


def settings() -> Callable[[], dict[str, Any]]:
    """Defines the flags; what it returns gives their values to ``measure``."""
    names = flags.DEFINE_list("corruptions", list(CORRUPTIONS), "Names.")
    severities = flags.DEFINE_list(
        "severities", [str(s) for s in SEVERITIES], "From 1 to 5."
    )
    source = flags.DEFINE_enum(
        "source",
        "generated",
        corruption_sources.SOURCES,
        "Where corrupted images come from: made on the fly, files, or TFDS.",
    )
    folder = flags.DEFINE_string(
        "corruption_dir",
        "",
        "For --source folder: a folder of NAME.npy and labels.npy, or of "
        "NAME/SEVERITY/CLASS/IMAGE.JPEG.",
    )
    examples = flags.DEFINE_integer("examples", 0, "The first so many; 0 is all.")
    frost = flags.DEFINE_string(
        "frost_dir",
        "",
        "The photographs of frost; from the package imagecorruptions if unset.",
    )
    seed = flags.DEFINE_integer("corruption_seed", 0, "Of generated corruptions.")

    def values() -> dict[str, Any]:
        if strange := [s for s in severities.value if not s.isdigit()]:
            raise ConfigError(
                f"severities has {strange[0]!r}; choose from {SEVERITIES}"
            )
        return {
            "corruptions": tuple(names.value),
            "severities": tuple(int(s) for s in severities.value),
            "source": source.value,
            "corruption_dir": folder.value,
            "examples": examples.value,
            "frost_dir": frost.value,
            "seed": seed.value,
        }

    return values


if __name__ == "__main__":
    command.main(measure, settings)
