"""What a measurement will take, said before it has taken it.

In images that a network answers: a part of a card asks for so many, its images times
its passes; the clean images say how many a second there are. What is said is "at most"
where attacks may end sooner, as an image that fell is not attacked again.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from apr_jax import config as config_lib
from apr_jax import console, ood
from apr_jax.attacks import masking, rounds, surface, surrogate
from apr_jax.errors import UserError
from apr_jax.evaluate import (
    adversarial,
    corruption,
    forecast,
    fourier,
    fourier_probe,
    openood,
    openood_sets,
)
from apr_jax.evaluate.classifier import Classifier

_BRIEF = 10.0  # seconds


class Work(NamedTuple):
    """What a part of a card asks of the network.

    Attributes:
        answers: images, a gradient counted as ``forecast.GRADIENT`` of them.
        how: images and passes, in words.
        most: whether it may end sooner.
    """

    answers: int
    how: str
    most: bool = False


def plan(
    classifier: Classifier, settings: Mapping[str, Any], size: int
) -> dict[str, Work]:
    """What the parts of a card ask of a network, by their names.

    Args:
        classifier: the network.
        settings: of each part, those that ``measure`` takes; "clean" is left out, and
            a part that can't be measured as they say.
        size: images of the test split.
    """
    found = {}
    for part, own in settings.items():
        if part in _PARTS:
            with contextlib.suppress(UserError):  # it is said when the part is measured
                found[part] = _PARTS[part](classifier, own, size)
    return found


def say(works: Mapping[str, Work], speed: float | None) -> None:
    """Says what parts ask for, and what they may take at ``speed`` images a second.

    Nothing where all of them take no more than a few seconds.
    """
    asked = sum(work.answers for work in works.values())
    if not asked or (speed and asked < _BRIEF * speed):
        return
    console.say("to measure, where it isn't measured yet:")
    for part, work in works.items():
        took = ""
        if speed:
            most = " at most" if work.most else ""
            took = f": about {console.duration(work.answers / speed)}{most}"
        console.say(f"  {part}, {work.how}{took}")
    if speed:
        console.say(
            f"at {speed:,.0f} images/s, as the clean ones went; a gradient counts as "
            f"{forecast.GRADIENT} images; making images and compiling come on top"
        )


def _corruption(
    classifier: Classifier, settings: config_lib.Corruption, size: int
) -> Work:
    names = corruption.names_of(settings, classifier.config.data)
    sets = len(names) * len(settings.severities)
    count = _some(settings.examples, size)
    return Work(sets * count, f"{sets} sets of {count:,} images")


def _ood(classifier: Classifier, settings: config_lib.Ood, size: int) -> Work:
    sets, count = len(settings.out), _some(settings.examples, size)
    if settings.protocol == openood.NAME:
        benchmark = openood_sets.benchmark_of(classifier.config.data)
        sets = len(openood_sets.BENCHMARKS[benchmark])
    asked = settings.scores or tuple(ood.SCORES)
    each, how = 1, ""
    if classifier.differentiable and "odin" in asked:
        each, how = 2 + forecast.GRADIENT, ", and ODIN's gradients"
    fit = settings.fit_examples
    answers = (1 + sets) * count * each + fit
    return Work(
        answers,
        f"{1 + sets} sets of about {count:,} images{how}, and {fit:,} to fit scores",
    )


def _fourier(classifier: Classifier, settings: config_lib.Fourier, size: int) -> Work:
    data = classifier.config.data
    settings = fourier.check(settings, data)
    count = _some(settings.examples, size)
    passes = 0
    if "heatmap" in settings.parts:
        side = data.image_size
        passes += len(fourier_probe.unique_waves(side, side, settings.extent)[0])
    if "bands" in settings.parts:
        passes += 2 * len(settings.radii)
    if "phase" in settings.parts:
        passes += 1
    return Work(passes * count, f"{count:,} images, {passes:,} times")


def _adversarial(
    classifier: Classifier, settings: config_lib.Adversarial, size: int
) -> Work:
    if not classifier.differentiable:
        settings = dataclasses.replace(settings, attack="square")
    threats = adversarial.check(settings, classifier.config.data)
    count, classes = _some(settings.examples, size), len(classifier.class_names)
    stages = [stage for threat in threats for stage in threat.stages]
    around = 0
    if settings.masking and classifier.differentiable:
        for norm in (t.norm for t in threats if t.norm in masking.NORMS):
            stages += masking.stages(norm, settings.steps, settings.queries)
            around += min(count, surface.EXAMPLES) * len(surface.OFFSETS) ** 2
    for norm in (t.norm for t in threats if t.norm in surrogate.NORMS):
        stages += len(settings.surrogate) * surrogate.stages(norm, settings.steps)
    gradients = sum(_passes(s, classes) for s in stages if s.follows_gradients)
    queries = sum(_passes(s, classes) for s in stages if not s.follows_gradients)
    how = [f"{gradients:,} gradients"] if gradients else []
    how += [f"{queries:,} answers"] if queries else []
    how[-1] += " of each"
    how += [f"{around:,} around some"] if around else []
    return Work(
        count * (forecast.GRADIENT * gradients + queries) + around,
        f"{count:,} images, up to {' and '.join(how)}",
        most=True,
    )


_PARTS: dict[str, Callable[..., Work]] = {
    "corruption": _corruption,
    "ood": _ood,
    "adversarial": _adversarial,
    "fourier": _fourier,
}


def _some(examples: int, size: int) -> int:
    return min(examples, size) if examples else size


def _passes(stage: rounds.Stage, classes: int) -> int:
    """How often an attack asks about an image that withstands it."""
    return forecast.steps(stage, classes) * getattr(stage.attack, "eot", 1)
