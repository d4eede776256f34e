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

import numpy as np

from apr_jax import data, metrics, parallel
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate.context import Context
from apr_jax.evaluate.measurement import Measurement
from apr_jax.metrics import selective, temperature_scaling
from apr_jax.runs.records import Record

JOB = "evaluate.clean"
_CONFUSED = 100  # classes; of ImageNet's the matrix takes more room than all else


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
        score, AURC, and likelihood and calibration after temperature scaling, with 95 %
        intervals. The record of the ECE carries the reliability diagram, that of the
        temperature how its half of the examples was drawn. Examples without an answer
        are wrong, and left out of all from the NLL on but the AURC, which takes them
        for the least sure.

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
        extra_of: dict[str, Any] = {}
        if len(classifier.class_names) <= _CONFUSED:
            confusion = metrics.confusion(outputs.logits, outputs.labels)
            extra_of["accuracy"] = {"confusion": confusion}
        found["aurc"] = _aurc(outputs, config.seed)
        found |= temperature_scaling.scaled(
            outputs.logits, outputs.labels, seed=config.seed
        )
        if "temperature" in found:
            extra_of["temperature"] = {
                "fitted_on": f"a half of the examples, drawn by the seed {config.seed}",
                "measured_on": "the other half",
            }
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


def _aurc(outputs: classifier_lib.Outputs, seed: int) -> metrics.Measured:
    """The area under the risk-coverage curve of maximum softmax probabilities."""
    known = outputs.said >= 0
    sure = np.full(len(known), -1.0)  # no answer: the least sure
    scores = outputs.logits[known].astype(np.float64)
    if len(scores):
        scores -= scores.max(axis=1, keepdims=True)
        sure[known] = 1 / np.exp(scores).sum(axis=1)
    return selective.measured_aurc(sure, outputs.right, seed=seed)


if __name__ == "__main__":
    from apr_jax.cli import measure as command_line

    command_line.main("clean")
