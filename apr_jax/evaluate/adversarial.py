"""Accuracy of a classifier on images that are changed to mislead it.

    python -m apr_jax.evaluate.adversarial RUN --linf 2/255,8/255 --l2 0.5
    python -m apr_jax.evaluate.adversarial RUN --attack apgd-ce --examples 256
    python -m apr_jax.evaluate.adversarial RUN --masking

AutoAttack, or one attack, on the first examples of the test split, for each norm and
radius. The robust accuracy after each attack is a record as soon as it is known; the
images and the examples left standing are kept in the work directory after each
attack, so that a run that was stopped goes on from there. ``--masking`` measures the
signs of gradient masking at each radius, too, and ``--surrogate OTHER``, once or more
often, makes images on other networks, to try them on this one.
"""

import dataclasses
import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from apr_jax import config as config_lib
from apr_jax import console, fast_random, metrics, parallel
from apr_jax import settings as settings_lib
from apr_jax.attacks import rounds, sequence
from apr_jax.errors import ArgumentError, ConfigError
from apr_jax.evaluate import adversarial_state as state
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate import masking, transfer
from apr_jax.evaluate.adversarial_engine import DeviceEngine
from apr_jax.evaluate.context import Context
from apr_jax.evaluate.forecast import Forecast
from apr_jax.evaluate.measurement import Measurement
from apr_jax.gates import answers, knobs
from apr_jax.runs.records import Record

JOB = "evaluate.adversarial"

# Pixels; a sheet of larger images would make the records long.
_LARGEST_SHOWN = 64


def measure(
    classifier: classifier_lib.Classifier,
    settings: config_lib.Adversarial,
    context: Context,
) -> Iterator[Record]:
    """Attacks a classifier at each radius of each norm.

    Args:
        classifier: the classifier; its configuration names the data.
        settings: the attacks and their radii. ``examples`` are the first ones of the
            test split; ``batch`` changes no result.
        context: its surroundings; images and the examples left standing are kept after
            each attack.

    Yields:
        For each norm and radius, as split "linf/0.03137" and so on: "clean_accuracy",
        "after_NAME" for each attack (share of all examples that it and those before
        it left standing) and "robust_accuracy", with Wilson intervals; then
        "largest_perturbation", "nan_count", "lowest_pixel" and "highest_pixel" of the
        images. The record of the robust accuracy carries warnings, and for small
        images a sheet of them. Then, if they are asked for, those of
        ``masking.measured`` and of ``transfer.measured``.

    Raises:
        ConfigError: a setting isn't allowed; the message names it.
        DataError: the data aren't there, or have fewer examples.
    """
    layout = context.layout
    settings = _possible(classifier, settings)
    parallel.check_batch("batch", settings.batch, layout)
    threats = check(settings, classifier.config.data)
    images, labels = state.load(classifier, settings.examples, context.resident)
    others = [
        transfer.opened(spec, classifier, images, labels)
        for spec in dict.fromkeys(settings.surrogate)
    ]
    chunk = min(settings.batch, -(-len(labels) // layout.count) * layout.count)
    wide, dtype = classifier_lib.in_float32(classifier)
    recorded = {
        "attack": settings.attack,
        "examples": len(labels),
        "steps": settings.steps,
        "queries": settings.queries,
        "seed": settings.seed,
        "weights": classifier_lib.weights_digest(classifier),
        **dtype,
    }
    job = Measurement(JOB, classifier, context, recorded, seed=settings.seed)
    engine = DeviceEngine(wide, layout, chunk)
    yield from _attacked(job, engine, threats, images, labels)
    own = {name: value for name, value in recorded.items() if name != "attack"}
    balls = sorted({(t.norm, t.eps) for t in threats})
    if settings.masking and classifier.differentiable:
        signs = dataclasses.replace(job, job=masking.JOB, settings=own)
        yield from masking.measured(signs, engine, balls, images, labels)
    elif settings.masking:
        console.say(f"{classifier.name} has no gradient that could be masked")
    del own["queries"]
    job = dataclasses.replace(job, job=transfer.JOB, settings=own)
    for other in others:
        yield from transfer.measured(job, engine, other, balls, images, labels)


def _attacked(
    job: Measurement,
    engine: DeviceEngine,
    threats: Sequence["_Threat"],
    images: np.ndarray,
    labels: np.ndarray,
) -> Iterator[Record]:
    """The records of all balls that have none yet."""
    assert job.settings is not None
    assert job.seed is not None
    known, splits = job.found(), {threat.split for threat in threats}
    yield from job.hidden(r for (split, _), r in known.items() if split in splits)
    left = [
        t
        for t in threats
        if (t.split, "robust_accuracy") not in known or job.lacks_answers(t.split)
    ]
    if not left:
        return
    rand = job.settings["attack"] == "rand"
    warned = sequence.examine(engine, left[0].stages, images, labels, rand=rand)
    for message in warned:
        console.say(f"Warning: {message}")
    attacker = _Attacker(job, engine, images, labels, job.seed, warned)
    for threat in left:
        largest = max(t.eps for t in threats if t.norm == threat.norm)
        for record in attacker.run(threat, sheet=threat.eps == largest):
            if (record.split, record.metric) not in known:
                yield record


def _possible(
    classifier: classifier_lib.Classifier, settings: config_lib.Adversarial
) -> config_lib.Adversarial:
    """The settings, less the attacks that follow gradients where there are none.

    Raises:
        ConfigError: none is left.
    """
    if classifier.differentiable or settings.attack == "square":
        return settings
    if "square" not in sequence.VERSIONS.get(settings.attack, ()):
        raise ConfigError(
            f"attack is {settings.attack!r}, which follows gradients, and "
            f"{classifier.name} has none; choose 'square'"
        )
    console.say(f"{classifier.name} has no gradient: of its attacks only Square is run")
    return dataclasses.replace(settings, attack="square")


class _Threat(NamedTuple):
    """A ball, and the attacks within it."""

    norm: str
    eps: float
    split: str  # of its records
    stages: tuple[rounds.Stage, ...]


@dataclasses.dataclass(frozen=True)
class _Attacker:
    """Everything that is the same for every radius."""

    job: Measurement
    engine: DeviceEngine
    images: np.ndarray
    labels: np.ndarray
    seed: int
    warned: list[str]

    def run(self, threat: _Threat, *, sheet: bool) -> Iterator[Record]:
        """Yields the records of one norm and radius."""
        images, labels, split = self.images, self.labels, threat.split
        path = self.job.context.kept(
            f"adversarial/{{}}/{split.replace('/', '_')}.npz",
            lambda: [
                self.job.settings,  # with a digest of the weights
                config_lib.config_hash(self.job.classifier.config),
                self.job.classifier.step,
                labels.tolist(),
            ],
            alone=False,
        )
        result, seconds = state.restore(path, images, labels)
        sent = 0
        started = time.monotonic()
        ahead = Forecast(split, threat.stages, len(self.job.classifier.class_names))
        if not self.job.context.quiet:
            self.engine.watch = ahead.work
        with self.job.context.bar() as bar:
            task = bar.add_task(split, total=ahead.total)

            def tick(name: str, share: float) -> None:
                place = ahead.place(name, share)
                bar.update(task, completed=place, description=f"{split} {name}")

            if result is not None:
                self._next(ahead, threat, result)

            in_turn = rounds.attack_in_turn(
                self.engine,
                threat.stages,
                fast_random.key_of(self.seed),
                images,
                labels,
                norm=threat.norm,
                eps=threat.eps,
                before=result,
                tick=tick,
            )
            for result in in_turn:
                seconds.append(time.monotonic() - started)
                started = time.monotonic()
                state.save(path, result, labels, seconds)
                self._next(ahead, threat, result)
                yield from self._after(result, threat, seconds, sent)
                sent = len(result.survived)
        assert result is not None, "there is at least one stage"
        yield from self._after(result, threat, seconds, sent)
        yield from self._final(result, threat, sheet)

    def _next(self, ahead: Forecast, threat: _Threat, result: rounds.Result) -> None:
        """Tells the forecast which attack comes next, and on how many images."""
        left = [s.name for s in threat.stages if s.name not in result.survived]
        if left:
            ahead.begin(left[0], int(result.robust.sum()))

    def _after(
        self,
        result: rounds.Result,
        threat: _Threat,
        seconds: Sequence[float],
        sent: int,
    ) -> Iterator[Record]:
        """Yields the records of the attacks from the ``sent``-th on."""
        every = enumerate(result.survived.items())
        for number, (name, standing) in itertools.islice(every, sent, None):
            metric = "clean_accuracy" if name == "clean" else f"after_{name}"
            measured = {metric: metrics.wilson(int(standing.sum()), len(standing))}
            more = {"order": number, "seconds": round(seconds[number], 2)}
            more["not_finite"] = result.not_finite
            yield from self._records(measured, threat, more)

    def _final(
        self, result: rounds.Result, threat: _Threat, sheet: bool
    ) -> Iterator[Record]:
        """Yields the worst case over all attacks, and facts on the images."""
        count, found = len(self.labels), result.images
        sizes = rounds.distances(found, self.images, threat.norm)
        robust = metrics.wilson(int(result.robust.sum()), count)
        number = lambda value: metrics.Measured(float(value), None, None, "1", count)
        facts = {
            "largest_perturbation": number(np.nanmax(sizes)),
            "nan_count": number(np.isnan(found).sum()),
            "lowest_pixel": number(np.nanmin(found)),
            "highest_pixel": number(np.nanmax(found)),
        }
        concerns = sequence.concerns(result.survived)
        logits = rounds.predict(self.engine, found)
        self._keep(result, logits, threat.split)
        more: dict[str, Any] = {
            "warnings": [*self.warned, *concerns],
            "not_finite": result.not_finite + answers.not_finite(logits),
        }
        if sheet and found.shape[1] <= _LARGEST_SHOWN:
            names = self.job.classifier.class_names
            said = answers.answer(logits)
            more["sheet"] = state.sheet(result, self.images, self.labels, said, names)
        # Last, as a radius with this record counts as finished.
        bad = {"not_finite": more["not_finite"]}
        yield from self._records(facts, threat, bad)
        yield from self._records({"robust_accuracy": robust}, threat, more)
        for message in concerns:
            console.say(f"Warning: {message}")
        console.say(
            f"{threat.split}: robust accuracy {100 * robust.value:.2f} % of {count:,}; "
            f"largest perturbation {np.nanmax(sizes):.6f}, {np.isnan(found).sum()} "
            f"NaN, pixels from {np.nanmin(found):.4f} to {np.nanmax(found):.4f}"
        )

    def _keep(self, result: rounds.Result, logits: np.ndarray, split: str) -> None:
        """Keeps the answers to the images found, right where all attacks left them."""
        said = answers.answer(logits)
        said = np.where(said == self.labels, answers.NO_ANSWER, said)
        said = np.where(result.robust, self.labels, said)
        self.job.keep_answers(split, logits, self.labels, said=said)

    def _records(
        self,
        measured: dict[str, metrics.Measured],
        threat: _Threat,
        more: dict[str, Any],
    ) -> list[Record]:
        return self.job.records(
            measured, threat.split, norm=threat.norm, eps=threat.eps, **more
        )


def check(settings: config_lib.Adversarial, data: config_lib.Data) -> list[_Threat]:
    """The ball of each radius, and the attacks within it.

    Raises:
        ConfigError: for settings of ``measure`` that aren't allowed.
    """
    del data
    settings_lib.check(settings)
    found = []
    for norm in ("linf", "l2", "l1"):
        for eps in getattr(settings, norm):
            try:
                knobs.radius(eps, norm, name=norm)
            except ArgumentError as error:
                raise ConfigError(str(error)) from error
            try:
                stages = sequence.make_stages(
                    settings.attack,
                    norm,
                    steps=settings.steps,
                    queries=settings.queries,
                )
            except ValueError as error:
                raise ConfigError(f"attack is {settings.attack!r}: {error}") from error
            split = state.ball(norm, eps)
            if settings.attack != "standard":
                split += f"/{settings.attack}"
            found.append(_Threat(norm, float(eps), split, stages))
    splits = [threat.split for threat in found]
    if not found or len(set(splits)) < len(splits):
        raise ConfigError(
            f"linf, l2 and l1 name the radii {', '.join(splits) or '(none)'}; give at "
            "least one, and each once"
        )
    return found


if __name__ == "__main__":
    from apr_jax.cli import measure as command_line

    command_line.main("adversarial")
