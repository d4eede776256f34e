"""Adversarial images of a surrogate network, tried on the network that is measured."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from apr_jax import console, fast_random, metrics
from apr_jax.attacks import rounds, surrogate
from apr_jax.errors import ConfigError
from apr_jax.evaluate import adversarial_state as state
from apr_jax.evaluate import bring
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate.adversarial_engine import DeviceEngine
from apr_jax.evaluate.measurement import Measurement
from apr_jax.gates import answers, places
from apr_jax.runs.records import Record

JOB = "evaluate.transfer"
_DIGITS = 6  # of the weights' digest in names, where two networks are called alike


def opened(
    spec: str,
    classifier: classifier_lib.Classifier,
    images: np.ndarray,
    labels: np.ndarray,
) -> classifier_lib.Classifier:
    """The surrogate that a setting names.

    Args:
        spec: a run's directory, or what ``bring.bring`` takes as a model.
        classifier: the network that is measured.
        images: float32 [N, H, W, C], multiples of 1/255.
        labels: int32 [N].

    Raises:
        ConfigError: it tells other classes apart, takes images of another size, or has
            no gradient.
        UserError: it can't be opened.
    """
    path, names = places.run(spec, "surrogate"), classifier.class_names
    if path.is_dir():
        found = classifier_lib.from_run(path)
        found = dataclasses.replace(found, name=path.resolve().name)  # as on pages
    else:
        pixels = np.round(255 * images).astype(np.uint8)
        found = bring.bring(spec, (pixels, labels), classes=names).classifier
    if found.class_names != names:
        raise ConfigError(
            f"surrogate is {spec!r}, which tells {len(found.class_names)} classes "
            f"apart, {found.class_names[0]!r} first; they must be the network's "
            f"{len(names)}, {names[0]!r} first"
        )
    size = found.config.data.image_size
    if size != images.shape[1]:
        raise ConfigError(
            f"surrogate is {spec!r}, which takes images of {size} pixels; these have "
            f"{images.shape[1]}"
        )
    if not found.differentiable:
        raise ConfigError(f"surrogate is {spec!r}, which has no gradient to follow")
    return found


def measured(
    job: Measurement,
    engine: DeviceEngine,
    other: classifier_lib.Classifier,
    balls: Sequence[tuple[str, float]],
    images: np.ndarray,
    labels: np.ndarray,
) -> Iterator[Record]:
    """Measures a network on images that were made on another.

    Args:
        job: the measurement, whose settings have "steps" and "seed".
        engine: answers for the network.
        other: the surrogate.
        balls: norms and radii; "l1" is left out, and that is said.
        images: float32 [N, H, W, C] in [0, 1].
        labels: int32 [N].

    Yields:
        For each ball, as split "linf/0.03137/NAME-DIGEST" of the surrogate's name and
        weights, so that every surrogate's numbers stay: "clean_accuracy" of the
        network and "surrogate_accuracy"; for FGSM and PGD to their last step
        "surrogate_NAME" and "transfer_NAME", what both have right of the images made on
        the surrogate; and "transfer_accuracy", of the network under both. Wilson's
        intervals. Their settings name the surrogate, the records the network.
    """
    assert job.settings is not None
    wide, dtype = classifier_lib.in_float32(other)
    digest = classifier_lib.weights_digest(other)
    about = {
        "surrogate": other.name,
        "surrogate_weights": digest,
        "surrogate_step": other.step,
        **({"surrogate_dtype": "float32"} if dtype else {}),
    }
    given = {**job.settings, **about}
    job = dataclasses.replace(job, settings=given)
    maker = DeviceEngine(wide, job.context.layout, engine.chunk)
    for norm, eps in balls:
        split = f"{state.ball(norm, eps)}/{other.name}-{digest[:_DIGITS]}"
        found = job.of_split(split)
        if norm not in surrogate.NORMS:
            console.say(f"images of a surrogate are for linf and l2, not {norm}")
        elif any(record.metric == "transfer_accuracy" for record in found):
            yield from job.hidden(found)
        else:
            yield from _in_ball(job, engine, maker, norm, eps, split, images, labels)


def _in_ball(
    job: Measurement,
    engine: DeviceEngine,
    maker: DeviceEngine,
    norm: str,
    eps: float,
    split: str,
    images: np.ndarray,
    labels: np.ndarray,
) -> list[Record]:
    """The records of one ball."""
    assert job.settings is not None
    assert job.seed is not None
    bad = 0

    def right(asked: DeviceEngine, shown: np.ndarray) -> np.ndarray:
        nonlocal bad
        logits = rounds.predict(asked, shown)
        bad += answers.not_finite(logits)
        found: np.ndarray = answers.answer(logits) == labels
        return found

    share = lambda who: metrics.wilson(int(who.sum()), len(who))
    stands = right(engine, images)
    numbers = {
        "clean_accuracy": share(stands),
        "surrogate_accuracy": share(right(maker, images)),
    }
    key = fast_random.key_of(job.seed)
    for stage in surrogate.stages(norm, job.settings["steps"]):
        made = surrogate.craft(maker, stage, key, images, labels, norm=norm, eps=eps)
        own, moved = right(maker, made), right(engine, made)
        numbers[f"surrogate_{stage.name}"] = share(own)
        numbers[f"transfer_{stage.name}"] = share(moved)
        stands &= moved
    numbers["transfer_accuracy"] = share(stands)
    kept = numbers["transfer_accuracy"].value
    console.say(
        f"{split}: {100 * kept:.2f} % of {len(labels):,} stay right on images made on "
        f"{job.settings['surrogate']}"
    )
    return job.records(numbers, split, not_finite=bad, norm=norm, eps=eps)
