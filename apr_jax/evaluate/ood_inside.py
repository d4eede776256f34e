"""The in-distribution side of detection: outputs, fitted facts, scores."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from apr_jax import config as config_lib
from apr_jax import console, data, ood
from apr_jax.errors import ConfigError, DataError
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate import ood_scores, ood_sets
from apr_jax.evaluate.measurement import Measurement
from apr_jax.ood.fitting import virtual_logit


class Inside:
    """The in-distribution side: collected when first needed."""

    convention = "exact"

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
            "knobs": ood_scores.knobs_of(settings),
            "weights": classifier_lib.weights_digest(job.classifier),
        }
        self.names: tuple[str, ...] = ()
        self.scores: dict[str, np.ndarray] = {}
        self.correct = np.zeros(0, bool)
        self.not_finite = 0  # logits, of the test split
        # What a score is computed by, where that isn't the settings'.
        self.chosen: dict[str, config_lib.Ood] = {}
        self._fitted: ood.Fitted | None = None
        self._fit: ood_scores.Collected | None = None  # what scores are fitted to
        self._refitted: dict[tuple[str, float], ood.Fitted] = {}  # by other knobs
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

    def known(
        self, out_set: ood_sets.OutSet
    ) -> tuple[dict[str, np.ndarray], np.ndarray, int]:
        """Scores of known classes on other images; which are right; bad logits."""
        collected = self._collector.out(out_set)
        right = np.zeros(len(collected.labels), bool)
        if out_set.labels is not None:
            right = collected.said == out_set.labels
        return self._score(collected, -np.inf), right, collected.not_finite

    def knobs_of(self, score: str) -> dict[str, Any]:
        """What the records of a score say of its knobs, beside the settings."""
        del score
        return {}

    def prepare(self) -> None:
        """Collects the test split, and training images where a score needs them."""
        if self._ready:
            return
        config = self.classifier.config
        collected = self._known()
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
            self._fit = train
            self._fitted = ood.fit(
                train.features,
                train.logits,
                train.labels,
                weight=weight,
                bias=bias,
                react_quantile=self.settings.react_quantile,
                dice_sparsity=self.settings.dice_sparsity,
                vim_dims=self.settings.vim_dims or None,
            )
        elif layer is not None:
            self._fitted = ood.Fitted(weight=weight, bias=bias)
        self._choose()
        # Where a score is not a number, the example passes for an unknown one.
        self.scores = self._score(collected, -np.inf)
        self._ready = True

    def _known(self) -> ood_scores.Collected:
        """Outputs for the images that are to be told from unknown ones."""
        split = self.classifier.config.data.test_split
        return self._split(split, self.settings.examples)

    def _choose(self) -> None:
        """Chooses the knobs of scores, where something says how."""

    def _score(
        self, collected: ood_scores.Collected, instead: float
    ) -> dict[str, np.ndarray]:
        """Every score of a set, with a number for those that are none."""
        usual = [name for name in self.names if name not in self.chosen]
        found = ood_scores.scores_of(usual, collected, self._fitted, self.settings)
        for name, settings in self.chosen.items():
            found |= self._scored_by(name, collected, settings)
        numbers = {k: np.where(np.isnan(x), instead, x) for k, x in found.items()}
        return {name: numbers[name] for name in self.names}

    def _scored_by(
        self, name: str, collected: ood_scores.Collected, settings: config_lib.Ood
    ) -> dict[str, np.ndarray]:
        """One score of a set by the knobs of some settings."""
        fitted = self._fitted_by(name, settings)
        return ood_scores.scores_of([name], collected, fitted, settings)

    def _fitted_by(self, name: str, settings: config_lib.Ood) -> ood.Fitted | None:
        """What a score is fitted with where the settings are others; fitted once."""
        fitted, fit = self._fitted, self._fit
        knobs = {"react": settings.react_quantile, "vim": settings.vim_dims}
        if fitted is None or fit is None or name not in knobs:
            return fitted
        key = name, knobs[name]
        if key not in self._refitted:
            found = _react(fit, settings)
            if name == "vim":
                found = _vim(fit, fitted, settings)
            self._refitted[key] = dataclasses.replace(
                fitted, **{k: np.float32(v) for k, v in found.items()}
            )
        return self._refitted[key]

    def _split(
        self,
        split: str,
        examples: int,
        collector: ood_scores.Collector | None = None,
    ) -> ood_scores.Collected:
        """Outputs for a split of the classifier's own data, or for a part of it."""
        collector = collector or self._collector
        described, resident = self.classifier.config.data, self.context.resident
        if described.streaming:
            resident = None
        elif resident is None or split not in resident.splits:
            resident = data.load(described, splits=[split])
        return collector.split(split, resident=resident, examples=examples)

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


def _react(fit: ood_scores.Collected, settings: config_lib.Ood) -> Mapping[str, Any]:
    """Where ReAct cuts off."""
    return {"react_limit": np.quantile(fit.features, settings.react_quantile)}


def _vim(
    fit: ood_scores.Collected, fitted: ood.Fitted, settings: config_lib.Ood
) -> Mapping[str, Any]:
    """The subspace and the scale of ViM."""
    return virtual_logit(
        fit.features.astype(np.float64),
        fit.logits.astype(np.float64),
        np.asarray(fitted.weight, np.float64),
        np.asarray(fitted.bias, np.float64),
        settings.vim_dims or None,
    )


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
