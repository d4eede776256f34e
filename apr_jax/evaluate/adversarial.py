"""Accuracy of a classifier on images that are changed to mislead it.

    python -m apr_jax.evaluate.adversarial RUN --linf 2/255,8/255 --l2 0.5
    python -m apr_jax.evaluate.adversarial RUN --attack apgd-ce --examples 256

AutoAttack, or one attack, on the first examples of the test split, for each norm and
radius. The robust accuracy after each attack is a record as soon as it is known; the
images and what is left standing are kept in the work directory after each attack, so
that a run that was stopped goes on from there.
"""

import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from apr_jax import attacks, console, data, metrics, parallel
from apr_jax import config as config_lib
from apr_jax.attacks import rounds, sequence
from apr_jax.errors import ConfigError
from apr_jax.evaluate import adversarial_state as state
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate import command
from apr_jax.evaluate.adversarial_engine import DeviceEngine
from apr_jax.runs import records
from apr_jax.runs.records import Record

JOB = "evaluate.adversarial"

# Pixels; a sheet of larger images would make the records long.
_LARGEST_SHOWN = 64


def measure(
    classifier: classifier_lib.Classifier,
    layout: parallel.Layout,
    *,
    attack: str = "standard",
    linf: Sequence[float] = (8 / 255,),
    l2: Sequence[float] = (),
    l1: Sequence[float] = (),
    examples: int = 1000,
    steps: int = 100,
    queries: int = 5000,
    batch: int = 128,
    seed: int = 0,
    resident: data.DataSet | None = None,
    done: Iterable[Record] = (),
    scratch: pathlib.Path | None = None,
    quiet: bool = False,
) -> Iterator[Record]:
    """Attacks a classifier at each radius of each norm.

    Args:
        classifier: what to attack; its configuration names the data.
        layout: the devices.
        attack: "standard", "plus" or "rand" of AutoAttack, or a single attack.
        linf, l2, l1: radii, of pixels in [0, 1].
        examples: the first so many of the test split; 0 is all of them.
        steps: of each gradient attack; AutoAttack's is 100.
        queries: of Square; AutoAttack's is 5000.
        batch: images attacked at a time, over all devices; changes no result.
        seed: of the attacks.
        resident: the images, where they are in memory already.
        done: records of earlier calls; what they have isn't measured again.
        scratch: directory for the images and what is left standing, after each
            attack; they are found again there.
        quiet: no progress bar.

    Yields:
        For each norm and radius, as split "linf/0.03137" and so on: "clean_accuracy",
        "after_NAME" for each attack (share of all examples that it and those before
        it left standing) and "robust_accuracy", with Wilson intervals; then
        "largest_perturbation", "nan_count", "lowest_pixel" and "highest_pixel" of the
        images. The record of the robust accuracy carries warnings, and for small
        images a sheet of them.

    Raises:
        ConfigError: a setting isn't allowed; the message names it.
        DataError: the data aren't there, or have fewer examples.
    """
    parallel.check_batch("batch", batch, layout)
    threats = check_settings({"linf": linf, "l2": l2, "l1": l1}, attack, steps, queries)
    images, labels = state.load(classifier, examples, resident)
    chunk = min(batch, -(-len(labels) // layout.count) * layout.count)
    settings = {
        "attack": attack,
        "examples": len(labels),
        "steps": steps,
        "queries": queries,
        "seed": seed,
        "weights": classifier_lib.weights_digest(classifier),
    }
    wide = classifier_lib.in_float32(classifier)
    if wide is not classifier:
        # What was attacked in the network's own type isn't taken for this.
        settings["dtype"] = "float32"
    done = tuple(done)
    known = records.finished(
        done,
        job=JOB,
        config_hash=config_lib.config_hash(classifier.config),
        step=classifier.step,
        settings=settings,
    )
    name = classifier.config.data.name
    here = {(name, threat.split) for threat in threats}
    again = [r for r in known.values() if (r.data, r.split) in here]
    yield from records.hidden(done, again)
    left = [t for t in threats if (name, t.split, "robust_accuracy") not in known]
    if not left:
        return
    engine = DeviceEngine(wide, layout, chunk)
    warned = sequence.examine(
        engine, left[0].stages, images, labels, rand=attack == "rand"
    )
    for message in warned:
        console.say(f"Warning: {message}")
    job = _Job(classifier, layout, settings, images, labels, scratch, warned, quiet)
    for threat in left:
        largest = max(t.eps for t in threats if t.norm == threat.norm)
        for record in job.run(engine, threat, sheet=threat.eps == largest):
            if (record.data, record.split, record.metric) not in known:
                yield record


class _Threat(NamedTuple):
    """A ball, and the attacks within it."""

    norm: str
    eps: float
    split: str  # of its records
    stages: tuple[rounds.Stage, ...]


class _Job:
    """What is the same for every radius."""

    def __init__(
        self,
        classifier: classifier_lib.Classifier,
        layout: parallel.Layout,
        settings: dict[str, Any],
        images: np.ndarray,
        labels: np.ndarray,
        scratch: pathlib.Path | None,
        warned: list[str],
        quiet: bool,
    ) -> None:
        self._classifier = classifier
        self._layout = layout
        self._settings = settings
        self._images = images
        self._labels = labels
        self._warned = warned
        self._quiet = quiet or not parallel.is_primary()
        self._folder = None
        if scratch is not None:
            name = state.digest(classifier, settings, labels)
            self._folder = scratch / "adversarial" / name

    def run(
        self,
        engine: DeviceEngine,
        threat: _Threat,
        *,
        sheet: bool,
    ) -> Iterator[Record]:
        """Yields the records of one norm and radius."""
        images, labels = self._images, self._labels
        norm, eps, split, stages = threat
        path = None
        if self._folder is not None:
            path = self._folder / f"{split.replace('/', '_')}.npz"
        result, seconds = state.restore(path, images, labels)
        sent = 0
        started = time.monotonic()
        with console.make_bar(disable=self._quiet) as bar:
            task = bar.add_task(split, total=len(stages))

            def tick(name: str, share: float) -> None:
                place = [stage.name for stage in stages].index(name)
                bar.update(task, completed=place + share, description=f"{split} {name}")

            key = jax.random.key(self._settings["seed"])
            in_turn = rounds.attack_in_turn(
                engine,
                stages,
                key,
                images,
                labels,
                norm=norm,
                eps=eps,
                before=result,
                tick=tick,
            )
            for result in in_turn:
                seconds.append(time.monotonic() - started)
                started = time.monotonic()
                state.save(path, result, labels, seconds)
                yield from self._after(result, threat, seconds, sent)
                sent = len(result.survived)
        assert result is not None, "there is at least one stage"
        yield from self._after(result, threat, seconds, sent)
        yield from self._final(engine, result, threat, sheet)

    def _after(
        self,
        result: rounds.Result,
        threat: _Threat,
        seconds: Sequence[float],
        sent: int,
    ) -> Iterator[Record]:
        """Yields the records of the attacks from the ``sent``-th on."""
        for number, (name, standing) in enumerate(result.survived.items()):
            if number < sent:
                continue
            metric = "clean_accuracy" if name == "clean" else f"after_{name}"
            measured = {metric: metrics.wilson(int(standing.sum()), len(standing))}
            more = {"order": number, "seconds": round(seconds[number], 2)}
            yield from self._records(measured, threat, more)

    def _final(
        self,
        engine: DeviceEngine,
        result: rounds.Result,
        threat: _Threat,
        sheet: bool,
    ) -> Iterator[Record]:
        """Yields the worst case over all attacks, and what the images are like."""
        count, found = len(self._labels), result.images
        sizes = rounds.distances(found, self._images, threat.norm)
        robust = metrics.wilson(int(result.robust.sum()), count)
        number = lambda value: metrics.Measured(float(value), None, None, "1", count)
        facts = {
            "largest_perturbation": number(np.nanmax(sizes)),
            "nan_count": number(np.isnan(found).sum()),
            "lowest_pixel": number(np.nanmin(found)),
            "highest_pixel": number(np.nanmax(found)),
        }
        concerns = sequence.concerns(result.survived)
        more: dict[str, Any] = {"warnings": [*self._warned, *concerns]}
        if sheet and found.shape[1] <= _LARGEST_SHOWN:
            answers = rounds.predict(engine, found).argmax(1)
            names = self._classifier.class_names
            more["sheet"] = state.sheet(
                result, self._images, self._labels, answers, names
            )
        # Last, as what has this record counts as finished.
        yield from self._records(facts, threat, {})
        yield from self._records({"robust_accuracy": robust}, threat, more)
        for message in concerns:
            console.say(f"Warning: {message}")
        console.say(
            f"{threat.split}: robust accuracy {100 * robust.value:.2f} % of {count:,}; "
            f"largest perturbation {np.nanmax(sizes):.6f}, {np.isnan(found).sum()} "
            f"NaN, pixels from {np.nanmin(found):.4f} to {np.nanmax(found):.4f}"
        )

    def _records(
        self,
        measured: dict[str, metrics.Measured],
        threat: _Threat,
        more: dict[str, Any],
    ) -> list[Record]:
        config = self._classifier.config
        return records.records_of(
            measured,
            job=JOB,
            data=config.data.name,
            split=threat.split,
            step=self._classifier.step,
            config_hash=config_lib.config_hash(config),
            seed=self._settings["seed"],
            device=self._layout.describe(),
            extra={
                "classifier": self._classifier.name,
                "settings": self._settings,
                "norm": threat.norm,
                "eps": threat.eps,
                **more,
            },
        )


def check_settings(
    radii: Mapping[str, Sequence[float]],
    attack: str,
    steps: int = 100,
    queries: int = 5000,
) -> list[_Threat]:
    """Takes settings of ``measure``; returns what to do at each radius.

    Args:
        radii: norm -> radii.
        attack, steps, queries: as in ``measure``.

    Raises:
        ConfigError: for one that isn't allowed.
    """
    for field, value in (("steps", steps), ("queries", queries)):
        if value < 1:
            raise ConfigError(f"{field} is {value}; it must be at least 1")
    found = []
    for norm, values in radii.items():
        for eps in values:
            if not 0 < eps < float("inf"):
                raise ConfigError(
                    f"{norm} is {eps}; a radius must be above 0, of pixels in [0, 1]"
                )
            if norm == "linf" and eps > 1:
                raise ConfigError(
                    f"linf is {eps}, but pixels are in [0, 1]; give 8/255, not 8"
                )
            try:
                stages = sequence.make_stages(
                    attack, norm, steps=steps, queries=queries
                )
            except ValueError as error:
                raise ConfigError(f"attack is {attack!r}: {error}") from error
            split = f"{norm}/{eps:.6g}"
            if attack != "standard":
                split += f"/{attack}"
            found.append(_Threat(norm, float(eps), split, stages))
    splits = [threat.split for threat in found]
    if not found or len(set(splits)) < len(splits):
        raise ConfigError(
            f"linf, l2 and l1 name the radii {', '.join(splits) or '(none)'}; give at "
            "least one, and each once"
        )
    return found


def parse_radii(texts: Iterable[str]) -> tuple[float, ...]:
    """Returns radii of texts such as "8/255" or "0.5".

    Raises:
        ConfigError: a text is no number.
    """
    found = []
    for text in texts:
        try:
            above, slash, below = text.partition("/")
            found.append(float(above) / (float(below) if slash else 1.0))
        except (ValueError, ZeroDivisionError) as error:
            raise ConfigError(
                f"{text!r} is no radius; give a number such as 0.5 or 8/255"
            ) from error
    return tuple(found)


def _flags() -> Callable[[], dict[str, Any]]:
    """Defines this program's flags; what it returns reads them."""
    choices = ", ".join((*attacks.VERSIONS, *attacks.ATTACKS))
    attack = flags.DEFINE_string("attack", "standard", f"One of {choices}.")
    radii = {
        "linf": flags.DEFINE_list("linf", ["8/255"], "Radii; --linf= for none."),
        "l2": flags.DEFINE_list("l2", [], "Radii, such as 0.25,0.5."),
        "l1": flags.DEFINE_list("l1", [], "Radii, such as 12."),
    }
    numbers = {
        "examples": flags.DEFINE_integer(
            "examples", 1000, "The first so many; 0: all."
        ),
        "steps": flags.DEFINE_integer("steps", 100, "Of each gradient attack."),
        "queries": flags.DEFINE_integer("queries", 5000, "Of Square, an image."),
        "batch": flags.DEFINE_integer(
            "batch", 128, "Images at a time, on all devices."
        ),
        "seed": flags.DEFINE_integer("attack_seed", 0, "Of the attacks."),
    }

    def values() -> dict[str, Any]:
        found: dict[str, Any] = {name: flag.value for name, flag in numbers.items()}
        for norm, flag in radii.items():
            found[norm] = parse_radii(flag.value)
        return {"attack": attack.value, **found}

    return values


if __name__ == "__main__":
    command.main(measure, _flags)
