"""A measurement: the fields that its records share, and earlier records."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from apr_jax import config as config_lib
from apr_jax import metrics
from apr_jax.evaluate.classifier import Classifier
from apr_jax.evaluate.context import Context
from apr_jax.runs import records
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

    @property
    def _data(self) -> str:
        return self.data or self.classifier.config.data.name
