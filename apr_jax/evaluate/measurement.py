"""A measurement: the fields that its records share, and earlier records."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from apr_jax import config as config_lib
from apr_jax import console, metrics, parallel
from apr_jax.errors import DataError
from apr_jax.evaluate.classifier import Classifier, Outputs
from apr_jax.evaluate.context import Context
from apr_jax.gates import answers, stores
from apr_jax.runs import predictions, records
from apr_jax.runs.records import Record


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A job on a classifier.

    Attributes:
        job: the name of the records' job.
        classifier: the classifier that is measured.
        context: its surroundings.
        settings: everything that the numbers depend on, beside configuration and
            weights, as JSON values; None where nothing is.
        data: the name of the data in records; that of the configuration if unset.
        seed: of the records; that of the configuration if unset.
    """

    job: str
    classifier: Classifier
    context: Context
    settings: Mapping[str, Any] | None = None
    data: str = ""
    seed: int | None = None

    def found(self) -> dict[tuple[str, str], Record]:
        """(split, metric) -> the last record of these weights and settings."""
        finished = records.finished(
            self.context.done,
            job=self.job,
            config_hash=config_lib.config_hash(self.classifier.config),
            step=self.classifier.step,
            settings=self.settings or {},
        )
        return {
            (split, metric): record
            for (data, split, metric), record in finished.items()
            if data == self._data
        }

    def of_split(self, split: str) -> list[Record]:
        """Those of ``found`` that are of one split."""
        return [record for (place, _), record in self.found().items() if place == split]

    def hidden(self, found: Iterable[Record]) -> list[Record]:
        """The records to write again, as later ones hide them from the page."""
        return records.hidden(self.context.done, found)

    def records(
        self,
        measured: Mapping[str, metrics.Measured],
        split: str,
        *,
        extra_of: Mapping[str, Mapping[str, Any]] | None = None,
        not_finite: int = 0,
        **extra: Any,
    ) -> list[Record]:
        """Records of numbers by metric; ``extra`` goes to each, ``extra_of`` to one.

        Where logits behind the numbers were ``not_finite``, each record says how many.
        """
        config = self.classifier.config
        if not_finite:
            extra["not_finite"] = not_finite
        settings = {} if self.settings is None else {"settings": dict(self.settings)}
        if self.classifier.file:
            extra["weights_file"] = self.classifier.file
        return records.records_of(
            measured,
            job=self.job,
            data=self._data,
            split=split,
            step=self.classifier.step,
            config_hash=config_lib.config_hash(config),
            seed=config.seed if self.seed is None else self.seed,
            device=self.context.layout.describe(),
            extra={"classifier": self.classifier.name, **settings, **extra},
            extra_of=extra_of,
        )

    def outputs(self, split: str, collect: Callable[[], Outputs]) -> Outputs:
        """Outputs for a whole split of the classifier's own data, without features.

        They are collected where no earlier part of the same card did so.
        """
        owner, found = self.context.seen.get(split, (None, None))
        if owner is not self.classifier:
            found = collect()
            found = dataclasses.replace(found, features=found.features[:, :0])
            self.context.seen[split] = self.classifier, found
        known: Outputs = found
        return known

    def lacks_answers(self, split: str) -> bool:
        """Whether the answers to a split are asked for, and aren't kept yet."""
        if self._folder is None:
            return False
        wanted = self._about(split)
        path = wanted.path(self._folder)
        try:
            return not path.exists() or not predictions.read_about(path).alike(wanted)
        except DataError as error:
            console.say(f"{error}; its images are measured again")
            return True

    def keep_answers(
        self,
        split: str,
        logits: np.ndarray,
        labels: np.ndarray,
        *,
        said: np.ndarray | None = None,
        expected: int | None = None,
        images: str = "",
    ) -> None:
        """Keeps the answers to a split, if they are asked for.

        Not where the numbers of the examples aren't known: where some can't be read, or
        several processes read a stream.

        Args:
            split: as in the records.
            logits: [N, K], in the order of the split.
            labels: [N].
            said: int [N], what counts as the answers, if it isn't that of the logits.
            expected: examples of the split, if it isn't N.
            images: their fingerprint, as far as it is known.
        """
        if self._folder is None:
            return
        mixed = self.classifier.config.data.streaming and jax.process_count() > 1
        if mixed or expected not in (None, len(labels)):
            console.say(
                f"the answers to {split} are not kept: several processes read them, or "
                "some images can't be read, so it isn't known which is which"
            )
            return
        said = answers.answer(logits) if said is None else said
        with np.errstate(invalid="ignore", over="ignore"):  # of logits without answer
            shifted = logits - logits.max(axis=1, keepdims=True)
            confidence = 1 / np.exp(shifted.astype(np.float64)).sum(axis=1)
        confidence[said < 0] = np.nan
        small = np.int16 if logits.shape[1] < 2**15 else np.int32
        arrays = {
            "index": np.arange(len(labels), dtype=np.int32),
            "label": labels.astype(small),
            "predicted": said.astype(small),
            "confidence": confidence.astype(np.float32),
        }
        self.keep_arrays(split, arrays, images=images)

    def keep_arrays(
        self, split: str, arrays: Mapping[str, np.ndarray], *, images: str = ""
    ) -> None:
        """Keeps arrays as the answers to a split, if they are asked for."""
        if self._folder is not None and parallel.is_primary():
            predictions.write(self._folder, self._about(split, images), arrays)

    @property
    def _folder(self) -> stores.Place | None:
        """Where answers are kept, if they are asked for."""
        asked = self.classifier.config.eval.save_predictions
        return self.context.predictions if asked else None

    def _about(self, split: str, images: str = "") -> predictions.About:
        return predictions.About(
            job=self.job,
            data=self._data,
            split=split,
            config_hash=config_lib.config_hash(self.classifier.config),
            step=self.classifier.step,
            settings=self.settings,
            images=images,
        )

    @property
    def _data(self) -> str:
        return self.data or self.classifier.config.data.name
