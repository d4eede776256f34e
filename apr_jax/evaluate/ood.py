"""How well a classifier tells what it was trained on from what it never saw.

    python -m apr_jax.evaluate.ood RUN --out svhn=tfds:svhn_cropped \\
        --out cifar100=tfds:cifar100 --out textures=folder:PATH --near cifar100

Every score of ``apr_jax.ood`` in one pass over each set. ``--scores_file FILE.npz``
measures scores from elsewhere: arrays ``SCORE/id`` and ``SCORE/SET`` for each out set
(without ``SCORE/``, one score), and ``correct`` for the open-set rate, if known.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from apr_jax import console, data, ood, parallel
from apr_jax.errors import ConfigError
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate import command, ood_records, ood_scores, ood_sets
from apr_jax.runs import records
from apr_jax.runs.records import Record

JOB = ood_records.JOB


def measure(
    classifier: classifier_lib.Classifier,
    layout: parallel.Layout,
    *,
    out: Sequence[str] = (),
    near: Sequence[str] = (),
    scores: Sequence[str] = (),
    examples: int = 0,
    fit_examples: int = 10_000,
    fit: str = "resize",
    tfds_dir: str = "",
    scores_file: str = "",
    knobs: ood_scores.Knobs | None = None,
    resident: data.DataSet | None = None,
    done: Iterable[Record] = (),
    scratch: pathlib.Path | None = None,
    quiet: bool = False,
) -> Iterator[Record]:
    """Measures detection of any number of out sets by every score.

    Args:
        classifier: what to measure; its test split is the in-distribution side.
        layout: the devices.
        out: sets, each ``name=source:where``; see ``out_sets``.
        near: names of those that are near; the others are far.
        scores: names of ``ood.SCORES``; empty is every one that the classifier
            allows.
        examples: images of each set, drawn by the seed; 0 is all.
        fit_examples: training images that scores are fitted on; 0 is all.
        fit: what becomes of images of another size: a name of ``out_sets.FITS``.
        tfds_dir: where TFDS out sets are, if not where the classifier's data are.
        scores_file: scores from elsewhere; the module's documentation has its form.
        knobs: of the scores.
        resident: the classifier's own data, where they are in memory already.
        done: records of earlier calls; what they hold is not measured again.
        scratch: keeps what was collected of the classifier's own data.
        quiet: no progress bar.

    Yields:
        A record for each out set, score and metric, named "SCORE.METRIC" with the
        set as its split; then means over the near, far and all sets. The record of
        the AUROC carries the ROC curve and histograms. All metrics but those of the
        score "authors" are exact; see ``metrics.ood_detection``.

    Raises:
        ConfigError: a setting can't be used; the message names it and the choices.
        DataError: a set isn't there, is empty, or isn't what it should be.
    """
    knobs = knobs or ood_scores.Knobs()
    sets = check_settings(
        out, near, scores, examples=examples, fit_examples=fit_examples, knobs=knobs
    )
    if not sets and not scores_file:
        raise ConfigError(
            "there is nothing to measure: give --out name=source:where, or "
            "--scores_file"
        )
    parallel.check_batch("eval.batch_size", classifier.config.eval.batch_size, layout)
    given = ood_records.read_scores(scores_file) if scores_file else None
    config = classifier.config
    opened = [
        ood_sets.open_set(
            name,
            *where,
            config.data,
            examples=examples,
            seed=config.seed,
            fit=fit,
            tfds_dir=tfds_dir,
        )
        for name, where in sets.items()
    ]
    job = ood_records.Job(classifier, layout, tuple(done), set(near))
    if opened:
        inside = _Inside(
            classifier,
            tuple(scores),
            knobs,
            examples=examples,
            fit_examples=fit_examples,
            resident=resident,
        )
        inside.make_collector(layout, scratch=scratch, quiet=quiet)
        yield from _measure_sets(job, inside, opened)
    if given is not None:
        yield from ood_records.measure_given(job, given, pathlib.Path(scores_file))


# --- Measuring -----------------------------------------------------------------------


class _Inside:
    """The in-distribution side: collected when first needed."""

    def __init__(
        self,
        classifier: classifier_lib.Classifier,
        scores: tuple[str, ...],
        knobs: ood_scores.Knobs,
        *,
        examples: int,
        fit_examples: int,
        resident: data.DataSet | None,
    ) -> None:
        """Takes the settings of ``measure``."""
        self.classifier = classifier
        turns = ood_scores.has_turns(classifier)
        if "csi" in scores and not turns:
            raise ConfigError(
                "scores has 'csi', which is for networks that were trained by it"
            )
        # Not for others: it would be missing from all their records.
        self.asked = scores or tuple(n for n in ood.SCORES if turns or n != "csi")
        self.knobs = knobs
        self.common: dict[str, Any] = {
            "examples": examples,
            "fit_examples": fit_examples,
            "knobs": dataclasses.asdict(knobs),
            "weights": classifier_lib.weights_digest(classifier),
        }
        self.names: tuple[str, ...] = ()
        self.scores: dict[str, np.ndarray] = {}
        self.correct = np.zeros(0, bool)
        self._explicit = bool(scores)
        self._resident = resident
        self._fitted: ood.Fitted | None = None
        self._ready = False

    def make_collector(
        self, layout: parallel.Layout, *, scratch: pathlib.Path | None, quiet: bool
    ) -> None:
        """Says on which devices to collect, and whether to say what happens."""
        self.quiet = quiet
        self._collector = ood_scores.Collector(
            self.classifier,
            layout,
            knobs=self.knobs,
            asked=self.asked,
            scratch=scratch,
            quiet=quiet,
        )

    def of(self, out_set: ood_sets.OutSet) -> dict[str, np.ndarray]:
        """Every score of an out set."""
        return self._score(self._collector.out(out_set))

    def prepare(self) -> None:
        """Collects the test split, and training images where a score needs them."""
        if self._ready:
            return
        config, seed = self.classifier.config, self.classifier.config.seed
        split = config.data.test_split
        collected = self._collector.split(
            split,
            resident=self._loaded(split),
            examples=self.common["examples"],
            seed=seed,
        )
        self.correct = collected.logits.argmax(axis=1) == collected.labels
        layer = ood_scores.last_layer(
            self.classifier.variables, collected, config.augment
        )
        self.names = self._possible(collected, layer is not None)
        weight, bias = layer or (None, None)
        if any("train" in ood.NEEDS[name] for name in self.names):
            train = self._collector.split(
                config.data.train_split,
                resident=self._loaded(config.data.train_split),
                examples=self.common["fit_examples"],
                seed=seed,
            )
            self._fitted = ood.fit(
                train.features,
                train.logits,
                train.labels,
                weight=weight,
                bias=bias,
                react_quantile=self.knobs.react_quantile,
                dice_sparsity=self.knobs.dice_sparsity,
            )
        elif layer is not None:
            self._fitted = ood.Fitted(weight=weight, bias=bias)
        self.scores = self._score(collected)
        self._ready = True

    def _score(self, collected: ood_scores.Collected) -> dict[str, np.ndarray]:
        """Every score of a set."""
        return ood_scores.scores_of(self.names, collected, self._fitted, self.knobs)

    def _loaded(self, split: str) -> data.DataSet | None:
        settings = self.classifier.config.data
        if settings.streaming:
            return None
        if self._resident is not None and split in self._resident.splits:
            return self._resident
        return data.load(settings, splits=[split])

    def _possible(
        self, collected: ood_scores.Collected, has_layer: bool
    ) -> tuple[str, ...]:
        """The scores that this classifier allows, of those that are asked for."""
        lacking = set() if has_layer else {"weights"}
        if collected.features.shape == collected.logits.shape and np.array_equal(
            collected.features, collected.logits
        ):
            lacking = {"weights", "features"}
        left_out = [n for n in self.asked if lacking & set(ood.NEEDS[n])]
        if left_out:
            what = " or ".join(sorted(lacking))
            text = f"{', '.join(left_out)}: the classifier gives no {what} of its own"
            if self._explicit:
                raise ConfigError(f"scores can't be computed: {text}")
            console.say(f"left out: {text}")
        return tuple(name for name in self.asked if name not in left_out)


def _measure_sets(
    job: ood_records.Job, inside: _Inside, opened: Sequence[ood_sets.OutSet]
) -> Iterator[Record]:
    """Each set, then the means over groups of them."""
    table: dict[str, dict[str, Record]] = {}
    identity = []
    for out_set in opened:
        if out_set.note and not inside.quiet:
            console.say(f"{out_set.name}: {out_set.note}")
        settings = {
            **inside.common,
            "source": out_set.source,
            "fingerprint": out_set.fingerprint,
            "note": out_set.note,
        }
        identity.append(
            [out_set.name, out_set.source, out_set.fingerprint, out_set.note]
        )
        found = job.found(settings)
        rows = {m: r for (split, m), r in found.items() if split == out_set.name}
        if not _complete(rows, inside):
            inside.prepare()
            outside = inside.of(out_set)
            rows = {}
            for score in inside.names:
                made = ood_records.records_of_score(
                    job,
                    out_set.name,
                    score,
                    inside.scores[score],
                    outside[score],
                    inside.correct,
                    settings,
                    out_set.note,
                )
                yield from made
                rows.update({record.metric: record for record in made})
        else:
            yield from records.hidden(job.done, rows.values())
        group = job.group(out_set.name)
        for metric, record in rows.items():
            if record.extra["group"] != group:  # the numbers are the same
                extra = {**record.extra, "group": group}
                rows[metric] = dataclasses.replace(record, extra=extra)
                yield rows[metric]
        table[out_set.name] = rows
    settings = {**inside.common, "sets": identity, "near": sorted(job.near)}
    yield from ood_records.means(job, table, settings)


def _complete(rows: Mapping[str, Any], inside: _Inside) -> bool:
    """Whether earlier records hold every metric of every score that is possible."""
    if not rows:
        return False
    wanted = [
        f"{score}.{metric}" for score in inside.asked for metric in ood_records.METRICS
    ]
    if all(metric in rows for metric in wanted):
        return True
    # Perhaps not all that is asked for is possible; that takes the outputs to know.
    inside.prepare()
    return all(
        f"{s}.{metric}" in rows for s in inside.names for metric in ood_records.METRICS
    )


# --- Settings ------------------------------------------------------------------------


def check_settings(
    out: Sequence[str],
    near: Sequence[str] = (),
    scores: Sequence[str] = (),
    *,
    examples: int = 0,
    fit_examples: int = 0,
    knobs: ood_scores.Knobs | None = None,
) -> dict[str, tuple[str, str]]:
    """Takes settings of ``measure``; returns the sets' (source, where) by name.

    Raises:
        ConfigError: for one that can't be used.
    """
    knobs = knobs or ood_scores.Knobs()
    sets = ood_sets.parse(out)
    for name in sets:
        if name in ood_records.GROUPS:
            raise ConfigError(
                f"out has a set called {name!r}, which is the name of a mean"
            )
    for name in near:
        if sets and name not in sets:
            raise ConfigError(
                f"near names {name!r}, which is no out set; there are {', '.join(sets)}"
            )
    for name in scores:
        if name not in ood.SCORES:
            raise ConfigError(
                f"scores has {name!r}; choose from {', '.join(ood.SCORES)}"
            )
    bounds = {
        "examples": (examples, 0, None),
        "fit_examples": (fit_examples, 0, None),
        "knn_k": (knobs.knn_k, 1, None),
        "odin_epsilon": (knobs.odin_epsilon, 0, 1),
        "ash_prune": (knobs.ash_prune, 0, 0.999),
        "dice_sparsity": (knobs.dice_sparsity, 0, 0.999),
        "react_quantile": (knobs.react_quantile, 0.001, 1),
        "odin_temperature": (knobs.odin_temperature, 1e-6, None),
    }
    for field, (value, low, high) in bounds.items():
        if value < low or (high is not None and value > high):
            span = f"at least {low}" if high is None else f"from {low} to {high}"
            raise ConfigError(f"{field} is {value!r}; it must be {span}")
    return sets


def _settings() -> Callable[[], dict[str, Any]]:
    """Defines the flags of this evaluation."""
    plain = {
        "out": flags.DEFINE_multi_string(
            "out", [], "name=source:where; tfds, folder or arrays. Several allowed."
        ),
        "near": flags.DEFINE_list("near", [], "Names of the near sets."),
        "scores": flags.DEFINE_list("scores", [], "Of apr_jax.ood; all if unset."),
        "examples": flags.DEFINE_integer("examples", 0, "Images a set; 0 is all."),
        "fit_examples": flags.DEFINE_integer(
            "fit_examples", 10_000, "Training images for scores that need them; 0: all."
        ),
        "fit": flags.DEFINE_enum(
            "fit", "resize", list(ood_sets.FITS), "Images of another size."
        ),
        "tfds_dir": flags.DEFINE_string("tfds_dir", "", "Where TFDS out sets are."),
        "scores_file": flags.DEFINE_string(
            "scores_file", "", "An .npz of scores from elsewhere."
        ),
    }
    knobs: dict[str, Any] = {}
    for name, default in dataclasses.asdict(ood_scores.Knobs()).items():
        define: Any = (
            flags.DEFINE_integer if isinstance(default, int) else flags.DEFINE_float
        )
        knobs[name] = define(name, default, "As in apr_jax.ood.")

    def values() -> dict[str, Any]:
        chosen = {name: flag.value for name, flag in knobs.items()}
        return {
            **{name: flag.value for name, flag in plain.items()},
            "knobs": ood_scores.Knobs(**chosen),
        }

    return values


if __name__ == "__main__":
    command.main(measure, _settings)
