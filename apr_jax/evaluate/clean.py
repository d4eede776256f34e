"""Accuracy, calibration and likelihood of a classifier on undisturbed images.

    python -m apr_jax.evaluate.clean RUN
    python -m apr_jax.evaluate.clean WEIGHTS.pth --config configs/cifar.py --workdir OUT

measures a run, or a file of PyTorch weights, on the test split of its configuration
and on the shifted splits. It prints a table, appends one record for each number to
``results.jsonl`` in the work directory, and draws ``report.html`` there.
"""

import dataclasses
import functools
from typing import Any

from apr_jax import data, metrics, parallel
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate import command
from apr_jax.evaluate.context import Context
from apr_jax.evaluate.measurement import Measurement
from apr_jax.runs.records import Record

JOB = "evaluate.clean"


def measure(
    classifier: classifier_lib.Classifier,
    settings: None,
    context: Context,
) -> list[Record]:
    """Measures a classifier on its test split and the shifted ones.

    Args:
        classifier: the classifier; its configuration names the data.
        settings: not used; there are none.
        context: its surroundings; the measurement is short and always made anew.

    Returns:
        One record for each split and metric: accuracy, error, top-5 accuracy where
        there are more than five classes, NLL, ECE, RMS calibration error and Brier
        score, with 95 % intervals. The record of the ECE carries the reliability
        diagram. Examples without an answer are wrong, and left out of all from the NLL
        on.

    Raises:
        DataError: the data aren't there, or have other classes.
    """
    del settings
    config = classifier.config
    parallel.check_batch("eval.batch_size", config.eval.batch_size, context.layout)
    splits = (config.data.test_split, *config.data.shifted_splits)
    if context.resident is None and not config.data.streaming:
        resident = data.load(config.data, splits=splits)
        context = dataclasses.replace(context, resident=resident)
    job, records = Measurement(JOB, classifier, context), []
    for split in splits:
        collect = functools.partial(
            classifier_lib.collect_split, classifier, split, context
        )
        outputs = job.outputs(split, collect)
        found = metrics.summary(outputs.logits, outputs.labels, seed=config.seed)
        confusion = metrics.confusion(outputs.logits, outputs.labels)
        extra_of: dict[str, Any] = {"accuracy": {"confusion": confusion}}
        if "ece" in found:
            diagram = metrics.reliability_of(outputs.logits, outputs.labels)
            extra_of["ece"] = {"reliability": diagram.to_json()}
        if context.resident is None:
            size, digest = data.imagenet.num_examples(config.data, split), ""
        else:
            size = len(context.resident.splits[split].labels)
            digest = context.resident.digests.get(split, "")
        job.keep_answers(
            split, outputs.logits, outputs.labels, expected=size, images=digest
        )
        records += job.records(
            found, split, extra_of=extra_of, not_finite=outputs.not_finite
        )
    return records


if __name__ == "__main__":
    command.main(measure)
