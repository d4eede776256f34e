"""OpenOOD v1.5's protocol: its sets, its conventions, and its choice of knobs.

- **Sets** are those of ``openood_sets``. With both of the benchmark's own lists the
  known images are the list's (9,000 of CIFAR's 10,000, 45,000 of ImageNet's 50,000);
  otherwise nine tenths of the test split, drawn by the seed.
- **Knobs** of a score are those with the highest AUROC of the other known images, a
  tenth, against the validation set of unknown ones; the first of equals, in OpenOOD's
  order. Without that set they are the settings'.
- **Full-spectrum**: known are the test images and all sets of the same classes on other
  images, together.

Source: the released ``openood.evaluation_api`` and ``configs/postprocessors``.
"""

import dataclasses
import itertools
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from apr_jax import config as config_lib
from apr_jax import console, metrics
from apr_jax.evaluate import ood_scores, ood_sets
from apr_jax.evaluate.measurement import Measurement
from apr_jax.evaluate.ood_inside import Inside
from apr_jax.evaluate.openood_sets import Found

NAME = "openood"
# Before the names of sets and means in the full spectrum.
FULL = "full_"
_PRUNED = (0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
# Score -> field of the settings -> values, the last field's changing last.
SWEEPS: dict[str, dict[str, tuple[Any, ...]]] = {
    "odin": {
        "odin_temperature": (1.0, 10.0, 100.0, 1000.0),
        "odin_epsilon": (0.0014, 0.0028),
    },
    "react": {"react_quantile": (0.85, 0.9, 0.95, 0.99)},
    "ash": {"ash_prune": _PRUNED},
    "ash_p": {"ash_prune": _PRUNED},
    "ash_b": {"ash_prune": _PRUNED},
    "scale": {"scale_prune": _PRUNED},
    "gen": {
        "gen_gamma": (0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0),
        "gen_top": (10, 50, 100, 200, 500, 1000),
    },
    "knn": {"knn_k": (50, 100, 200, 500, 1000)},
    "vim": {"vim_dims": (256, 1000)},
    "fdbd": {"fdbd_over": ("deviation", "norm")},
}
# One in so many known images is for choosing.
_HELD_OUT = 10


def candidates(
    score: str, *, classes: int = sys.maxsize, features: int = sys.maxsize
) -> list[dict[str, Any]]:
    """The knobs that a score is tried with, in OpenOOD's order.

    Args:
        score: a name of ``SWEEPS``.
        classes: of the network; GEN's numbers of classes from there on are one.
        features: of the network; ViM's subspace has fewer dimensions.
    """
    fields = dict(SWEEPS[score])
    if score == "gen":
        tops = fields["gen_top"]
        fields["gen_top"] = tops[: 1 + sum(top < classes for top in tops)]
    if score == "vim":
        fields["vim_dims"] = tuple(d for d in fields["vim_dims"] if d < features)
    turned = itertools.product(*reversed(fields.values()))
    return [dict(zip(reversed(fields), values, strict=True)) for values in turned]


def best(scored: Iterable[tuple[np.ndarray, np.ndarray]]) -> int:
    """The first pair of scores, of known and unknown images, of the highest AUROC."""
    areas = [metrics.ood_detection(known, out)["auroc"] for known, out in scored]
    return areas.index(max(areas))


class OpenoodInside(Inside):
    """The in-distribution side as OpenOOD has it."""

    convention = NAME

    def __init__(
        self, job: Measurement, settings: config_lib.Ood, found: Found
    ) -> None:
        """Takes the job, the settings of ``ood.measure``, and the sets there are."""
        super().__init__(job, settings)
        self._found = found
        sets = {**found.known, **found.val}
        self.common["protocol"] = {
            "name": "OpenOOD v1.5",
            **{name: out.fingerprint for name, out in sets.items()},
        }
        self._validation: ood_scores.Collected | None = None
        self._outside: dict[str, tuple[dict[str, np.ndarray], int]] = {}

    def of(self, out_set: ood_sets.OutSet) -> tuple[dict[str, np.ndarray], int]:
        """As ``Inside.of``, each set once."""
        if out_set.name not in self._outside:
            self._outside[out_set.name] = super().of(out_set)
        return self._outside[out_set.name]

    def knobs_of(self, score: str) -> dict[str, Any]:
        """The knobs that were chosen for a score, for its records."""
        chosen = self.chosen.get(score)
        if chosen is None:
            return {}
        return {"chosen": {field: getattr(chosen, field) for field in SWEEPS[score]}}

    def _known(self) -> ood_scores.Collected:
        if "odin" in self.asked and self._found.val:
            self._choose_odin()
        known, self._validation = self._parts(self._collector)
        return known

    def _parts(
        self, collector: ood_scores.Collector
    ) -> tuple[ood_scores.Collected, ood_scores.Collected]:
        """The known images for testing, and those for choosing."""
        if self._found.known:
            test, val = (self._found.known[name] for name in ("id", "id_val"))
            return labelled(collector, test), labelled(collector, val)
        split = self.classifier.config.data.test_split
        whole = self._split(split, self.settings.examples, collector)
        count = len(whole.labels)
        order = np.random.default_rng(self.classifier.config.seed).permutation(count)
        held_out = max(1, count // _HELD_OUT)
        cut = lambda rows: ood_scores.Collected(
            **{name: array[np.sort(rows)] for name, array in vars(whole).items()}
        )
        return cut(order[held_out:]), cut(order[:held_out])

    def _choose_odin(self) -> None:
        """ODIN's knobs, each of which takes a pass over the images."""
        (outside,) = self._found.val.values()
        tried, pairs = [], []
        for values in candidates("odin"):
            settings = dataclasses.replace(self.settings, **values)
            collector = ood_scores.Collector(
                self.classifier, self.context, settings, ("odin",)
            )
            _, known = self._parts(collector)
            pairs.append((known.odin, collector.out(outside).odin))
            tried.append(settings)
        chosen = tried[best(map(_as_numbers, pairs))]
        self.chosen["odin"] = chosen
        self._collector = ood_scores.Collector(
            self.classifier, self.context, chosen, self.asked
        )

    def _choose(self) -> None:
        names = [name for name in self.names if name in SWEEPS and name != "odin"]
        if self._found.val and names:
            (out_set,) = self._found.val.values()
            outside = self._collector.out(out_set)
            assert self._validation is not None
            for name in names:
                tried = [
                    dataclasses.replace(self.settings, **values)
                    for values in candidates(
                        name,
                        classes=outside.logits.shape[1],
                        features=outside.features.shape[1],
                    )
                ]
                if not tried:
                    continue
                pairs = [
                    (
                        self._scored_by(name, self._validation, settings)[name],
                        self._scored_by(name, outside, settings)[name],
                    )
                    for settings in tried
                ]
                self.chosen[name] = tried[best(map(_as_numbers, pairs))]
        self._say()

    def _say(self) -> None:
        if self.context.quiet:
            return
        if not self._found.val:
            console.say("without OpenOOD's validation set knobs are the settings'")
            return
        texts = [
            f"{name} {', '.join(f'{k} {v}' for k, v in values['chosen'].items())}"
            for name in self.chosen
            if (values := self.knobs_of(name))
        ]
        console.say(f"knobs chosen on OpenOOD's validation set: {'; '.join(texts)}")


class FullSpectrum:
    """The known images of a benchmark and the same classes on other images, as one."""

    convention = NAME

    def __init__(self, inside: OpenoodInside, shifted: Mapping[str, Any]) -> None:
        """Takes the side that it widens, and the sets ``Found.csid``."""
        self._inside, self._shifted = inside, shifted
        self.context, self.asked = inside.context, inside.asked
        marks = {name: out.fingerprint for name, out in shifted.items()}
        self.common = {**inside.common, "full_spectrum": marks}
        self.names: tuple[str, ...] = ()
        self.scores: dict[str, np.ndarray] = {}
        self.correct = np.zeros(0, bool)
        self.not_finite = 0

    def prepare(self) -> None:
        """Collects what isn't yet."""
        if self.names:
            return
        self._inside.prepare()
        parts, right = [self._inside.scores], [self._inside.correct]
        self.not_finite = self._inside.not_finite
        for out_set in self._shifted.values():
            scores, correct, bad = self._inside.known(out_set)
            parts.append(scores)
            right.append(correct)
            self.not_finite += bad
        self.names = self._inside.names
        self.scores = {
            name: np.concatenate([part[name] for part in parts]) for name in self.names
        }
        self.correct = np.concatenate(right)

    def of(self, out_set: ood_sets.OutSet) -> tuple[dict[str, np.ndarray], int]:
        """Every score of an out set, which is collected once for both spectra."""
        own = dataclasses.replace(out_set, name=out_set.name.removeprefix(FULL))
        return self._inside.of(own)

    def knobs_of(self, score: str) -> dict[str, Any]:
        """As those of the side that it widens."""
        return self._inside.knobs_of(score)


def labelled(
    collector: ood_scores.Collector, out_set: ood_sets.OutSet
) -> ood_scores.Collected:
    """Outputs for a set, with its labels."""
    found = collector.out(out_set)
    if out_set.labels is None:
        return found
    return dataclasses.replace(found, labels=out_set.labels)


def _as_numbers(pair: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Scores of known and unknown images, where those that are none count against."""
    known, out = (np.asarray(x, np.float64) for x in pair)
    return (
        np.where(np.isnan(known), -np.inf, known),
        np.where(np.isnan(out), np.inf, out),
    )
