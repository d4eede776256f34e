"""Detection of images that a classifier never saw, among those it was trained on.

    python -m apr_jax.evaluate.ood RUN --out svhn=tfds:svhn_cropped \\
        --out cifar100=tfds:cifar100 --out textures=folder:PATH --near cifar100

Every score of ``apr_jax.ood`` in one pass over each set. ``--scores_file FILE.npz``
measures scores from elsewhere: arrays ``SCORE/id`` and ``SCORE/SET`` for each out set
(without ``SCORE/``, one score), and ``correct`` for the open-set rate, if known.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from apr_jax import config as config_lib
from apr_jax import console, data, ood, parallel
from apr_jax import settings as settings_lib
from apr_jax.errors import ConfigError, DataError
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate import ood_records, ood_scores, ood_sets
from apr_jax.evaluate.context import Context
from apr_jax.evaluate.measurement import Measurement
from apr_jax.runs.records import Record

JOB = ood_records.JOB


def measure(
    classifier: classifier_lib.Classifier,
    settings: config_lib.Ood,
    context: Context,
) -> Iterator[Record]:
    """Measures detection of any number of out sets by every score.

    Args:
        classifier: the classifier; its test split is the in-distribution side.
        settings: the sets and the scores. Sets that aren't ``near`` are far. No
            ``scores`` are all that the classifier allows. Images of each set are
            drawn by the seed of the configuration; for ``out`` and ``fit`` see
            ``ood_sets``, for ``scores_file`` this module's documentation.
        context: its surroundings; outputs for the classifier's own data are kept.

    Yields:
        A record for each out set, score and metric, named "SCORE.METRIC" with the
        set as its split; then means over the near, far and all sets. The record of
        the AUROC carries the ROC curve and histograms. All metrics but those of the
        score "authors" are exact; see ``metrics.ood_detection``.

    Raises:
        ConfigError: a setting can't be used; the message names it and the choices.
        DataError: a set isn't there, is empty, or isn't what it should be.
    """
    sets = check(settings, classifier.config.data)
    if not sets and not settings.scores_file:
        raise ConfigError(
            "there is nothing to measure: give --out name=source:where, or "
            "--scores_file"
        )
    config = classifier.config
    parallel.check_batch("eval.batch_size", config.eval.batch_size, context.layout)
    file, near = settings.scores_file, set(settings.near)
    given = ood_records.read_scores(file) if file else None
    opened = [
        ood_sets.open_set(
            name,
            *where,
            config.data,
            examples=settings.examples,
            seed=config.seed,
            fit=settings.fit,
            tfds_dir=settings.tfds_dir,
        )
        for name, where in sets.items()
    ]
    job = Measurement(JOB, classifier, context)
    if opened:
        yield from _measure_sets(job, _Inside(job, settings), opened, near)
    if given is not None:
        yield from ood_records.measure_given(job, given, pathlib.Path(file), near)


# --- Measuring -----------------------------------------------------------------------


class _Inside:
    """The in-distribution side: collected when first needed."""

    def __init__(self, job: Measurement, settings: config_lib.Ood) -> None:
        """Takes the job and the settings of ``measure``."""
        self.classifier, self.context = job.classifier, job.context
        self.settings = settings
        turns = ood_scores.has_turns(job.classifier)
        if "csi" in settings.scores and not turns:
            raise ConfigError(
                "scores has 'csi', which is for networks that were trained by it"
            )
        # Not for others: it would be missing from all their records.
        without = set() if turns else {"csi"}
        if not job.classifier.differentiable:
            without.add("odin")
            text = f"odin: {job.classifier.name} has no gradient"
            if "odin" in settings.scores:
                raise ConfigError(f"scores can't be computed: {text}")
            if not settings.scores:
                console.say(f"left out: {text}")
        every = tuple(n for n in ood.SCORES if n not in without)
        self.asked = settings.scores or every
        self.common: dict[str, Any] = {
            "examples": settings.examples,
            "fit_examples": settings.fit_examples,
            "knobs": {name: getattr(settings, name) for name in ood_scores.KNOBS},
            "weights": classifier_lib.weights_digest(job.classifier),
        }
        self.names: tuple[str, ...] = ()
        self.scores: dict[str, np.ndarray] = {}
        self.correct = np.zeros(0, bool)
        self.not_finite = 0  # logits, of the test split
        self._fitted: ood.Fitted | None = None
        self._ready = False
        self._collector = ood_scores.Collector(
            job.classifier, job.context, settings, self.asked
        )

    def of(self, out_set: ood_sets.OutSet) -> tuple[dict[str, np.ndarray], int]:
        """Every score of an out set, and how many of its logits are not finite.

        Where a score is not a number, the example passes for a known one.
        """
        collected = self._collector.out(out_set)
        return self._score(collected, np.inf), collected.not_finite

    def prepare(self) -> None:
        """Collects the test split, and training images where a score needs them."""
        if self._ready:
            return
        config = self.classifier.config
        collected = self._split(config.data.test_split, self.settings.examples)
        self.correct, self.not_finite = collected.right, collected.not_finite
        layer = self.classifier.head or ood_scores.last_layer(
            self.classifier.variables, collected, config.augment
        )
        lacking = _lacking(collected, layer is not None)
        train = self._train(lacking)
        self.names = self._possible(lacking)
        weight, bias = layer or (None, None)
        if train is not None:
            train = train.answered()
            if not len(train.labels):
                raise DataError(
                    "no training image has finite logits and features, so there is "
                    "nothing to fit scores to"
                )
            self._fitted = ood.fit(
                train.features,
                train.logits,
                train.labels,
                weight=weight,
                bias=bias,
                react_quantile=self.settings.react_quantile,
                dice_sparsity=self.settings.dice_sparsity,
            )
        elif layer is not None:
            self._fitted = ood.Fitted(weight=weight, bias=bias)
        # Where a score is not a number, the example passes for an unknown one.
        self.scores = self._score(collected, -np.inf)
        self._ready = True

    def _score(
        self, collected: ood_scores.Collected, instead: float
    ) -> dict[str, np.ndarray]:
        """Every score of a set, with a number for those that are none."""
        found = ood_scores.scores_of(self.names, collected, self._fitted, self.settings)
        return {k: np.where(np.isnan(x), instead, x) for k, x in found.items()}

    def _split(self, split: str, examples: int) -> ood_scores.Collected:
        """Outputs for a split of the classifier's own data, or for a part of it."""
        described, resident = self.classifier.config.data, self.context.resident
        if described.streaming:
            resident = None
        elif resident is None or split not in resident.splits:
            resident = data.load(described, splits=[split])
        return self._collector.split(split, resident=resident, examples=examples)

    def _train(self, lacking: dict[str, str]) -> ood_scores.Collected | None:
        """Training images, where a score needs them; what isn't there is lacking."""
        possible = (n for n in self.asked if not set(lacking) & set(ood.NEEDS[n]))
        if not any("train" in ood.NEEDS[name] for name in possible):
            return None
        split = self.classifier.config.data.train_split
        try:
            return self._split(split, self.settings.fit_examples)
        except DataError as why:
            lacking["train"] = f"there are no training images ({why})"
            return None

    def _possible(self, lacking: Mapping[str, str]) -> tuple[str, ...]:
        """The scores that this classifier allows, of those that are asked for."""
        left_out = [n for n in self.asked if set(lacking) & set(ood.NEEDS[n])]
        if left_out:
            reasons = "; ".join(dict.fromkeys(lacking.values()))
            text = f"{', '.join(left_out)}: {reasons}"
            if self.settings.scores:
                raise ConfigError(f"scores can't be computed: {text}")
            console.say(f"left out: {text}")
        return tuple(name for name in self.asked if name not in left_out)


def _lacking(collected: ood_scores.Collected, has_layer: bool) -> dict[str, str]:
    """What a classifier doesn't give, of what scores need, and how that is said."""
    names = [] if has_layer else ["weights"]
    if collected.features.shape == collected.logits.shape and np.array_equal(
        collected.features, collected.logits
    ):
        names = ["features", "weights"]
    return dict.fromkeys(
        names, f"the classifier gives no {' or '.join(names)} of its own"
    )


def _measure_sets(
    job: Measurement,
    inside: _Inside,
    opened: Sequence[ood_sets.OutSet],
    near: set[str],
) -> Iterator[Record]:
    """Each set, then the means over groups of them."""
    table: dict[str, dict[str, Record]] = {}
    identity = []
    for out_set in opened:
        if out_set.note and not inside.context.quiet:
            console.say(f"{out_set.name}: {out_set.note}")
        marks = {
            "source": out_set.source,
            "fingerprint": out_set.fingerprint,
            "note": out_set.note,
        }
        identity.append([out_set.name, *marks.values()])
        job = dataclasses.replace(job, settings={**inside.common, **marks})
        found = job.found()
        rows = {m: r for (split, m), r in found.items() if split == out_set.name}
        if job.lacks_answers(out_set.name) or not _complete(rows, inside):
            inside.prepare()
            outside, bad = inside.of(out_set)
            job.keep_arrays(
                out_set.name,
                ood_records.as_file(
                    out_set.name, inside.scores, outside, inside.correct
                ),
            )
            rows = {}
            for score in inside.names:
                made = ood_records.records_of_score(
                    job,
                    out_set.name,
                    score,
                    inside.scores[score],
                    outside[score],
                    inside.correct,
                    near=near,
                    note=out_set.note,
                    not_finite=inside.not_finite + bad,
                )
                yield from made
                rows.update({record.metric: record for record in made})
        else:
            yield from job.hidden(rows.values())
        group = ood_records.group_of(out_set.name, near)
        for metric, record in rows.items():
            if record.extra["group"] != group:  # the numbers are the same
                extra = {**record.extra, "group": group}
                rows[metric] = dataclasses.replace(record, extra=extra)
                yield rows[metric]
        table[out_set.name] = rows
    job = dataclasses.replace(job, settings={**inside.common, "sets": identity})
    yield from ood_records.means(job, table, near)


def _complete(rows: Mapping[str, Any], inside: _Inside) -> bool:
    """Whether earlier records hold every metric of every score that is possible."""
    metrics = ood_records.METRICS
    holds = lambda scores: all(f"{s}.{m}" in rows for s in scores for m in metrics)
    if not rows:
        return False
    if holds(inside.asked):
        return True
    # Perhaps not all that is asked for is possible; that takes the outputs to know.
    inside.prepare()
    return holds(inside.names)


# --- Settings ------------------------------------------------------------------------


def check(
    settings: config_lib.Ood, data: config_lib.Data
) -> dict[str, tuple[str, str]]:
    """The out sets' (source, where) by name.

    Raises:
        ConfigError: for settings of ``measure`` that can't be used.
    """
    del data
    settings_lib.check(settings)
    sets = ood_sets.parse(settings.out)
    for name in sets:
        if name in ood_records.GROUPS:
            raise ConfigError(
                f"out has a set called {name!r}, which is the name of a mean"
            )
    for name in settings.near:
        if sets and name not in sets:
            raise ConfigError(
                f"near names {name!r}, which is no out set; there are {', '.join(sets)}"
            )
    for name in settings.scores:
        if name not in ood.SCORES:
            raise ConfigError(
                f"scores has {name!r}; choose from {', '.join(ood.SCORES)}"
            )
    return sets


if __name__ == "__main__":
    from apr_jax.cli import measure as command_line

    command_line.main("ood")
