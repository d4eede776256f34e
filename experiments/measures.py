"""Measuring that the experiments share: examples, answers, numbers."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from apr_jax import console, data, metrics, parallel, spectral
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.gates import answers


def balanced(split: data.ArraySplit, count: int, *, seed: int = 0) -> data.ArraySplit:
    """``count`` examples of a split, equally many of each class as far as it goes.

    Drawn by the seed; in the order of the split. All of them if ``count`` is 0.
    """
    labels = np.asarray(split.labels)
    if count == 0 or count >= len(labels):
        return data.ArraySplit(np.asarray(split.images), labels)
    rng = np.random.default_rng([0xBA1, seed])
    order = rng.permutation(len(labels))
    # The rank of each example among those of its class decides who comes first.
    rank = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        mine = order[labels[order] == label]
        rank[mine] = np.arange(len(mine))
    chosen = np.sort(order[np.argsort(rank[order], kind="stable")][:count])
    return data.ArraySplit(np.asarray(split.images)[chosen], labels[chosen])


def logits_of(
    classifier: classifier_lib.Classifier,
    images: np.ndarray,
    labels: np.ndarray | None = None,
) -> classifier_lib.Outputs:
    """Logits, features and labels of images: uint8, or floats that count as pixels.

    Floats may leave [0, 1], as filtered images do.
    """
    layout = parallel.make_layout(classifier.config.train.devices)
    count = len(images)
    labels = np.zeros(count, np.int32) if labels is None else np.asarray(labels)
    batch = min(classifier.config.eval.batch_size, max(count, 1))
    batch = max(layout.count, batch - batch % layout.count)
    gather = parallel.make_gather(classifier.predict, layout)
    variables = parallel.replicate(classifier.variables, layout)
    found = []
    for start in range(0, count, batch):
        rows = images[start : start + batch]
        padded = np.zeros((batch, *images.shape[1:]), images.dtype)
        padded[: len(rows)] = rows
        both = gather(variables, parallel.split_batch(padded, layout))
        found.append([part[: len(rows)] for part in both])
    logits, features = (np.concatenate(part) for part in zip(*found, strict=True))
    outputs = classifier_lib.Outputs(logits, features, labels)
    if outputs.not_finite:
        console.say(
            f"{outputs.not_finite:,} of {logits.size:,} logits are not finite; such "
            "answers count as wrong"
        )
    return outputs


def told(logits: np.ndarray, names: Sequence[str]) -> tuple[str, float]:
    """The answer that logits [K] are, in words, and its confidence."""
    said = int(answers.answer(logits))
    if said == answers.NO_ANSWER:
        return "no answer", 0.0
    return names[said], float(special.softmax(logits)[said])


def in_parts(work: Callable[..., Any], *arrays: Any, at_once: int = 500) -> Any:
    """The arrays that a function makes of slices of others, joined on the host.

    Args:
        work: arrays -> arrays, in any structure, each with the images in front.
        arrays: what it is given slices of.
        at_once: images in a slice.
    """
    parts = [
        jax.tree.map(np.asarray, work(*(a[start : start + at_once] for a in arrays)))
        for start in range(0, len(arrays[0]), at_once)
    ]
    return jax.tree.map(lambda *each: np.concatenate(each), *parts)


def bands(images: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Low and high part of uint8 images, as unclipped pixels."""
    pixels = np.asarray(images, np.float32) / 255
    return in_parts(lambda x: spectral.split_bands(jnp.asarray(x), radius), pixels)


def number(value: float, n: int, *, unit: str = "1") -> metrics.Measured:
    """A number without an interval."""
    return metrics.Measured(float(value), None, None, unit, n)


def share(hits: np.ndarray) -> metrics.Measured:
    """The share of examples that hit, bool [N]."""
    return metrics.wilson(int(hits.sum()), len(hits))


def accuracy(
    network: classifier_lib.Classifier, images: np.ndarray, labels: np.ndarray
) -> metrics.Measured:
    """The share of images that a network gives the right labels."""
    outputs = logits_of(network, images, labels)
    return share(outputs.right)
