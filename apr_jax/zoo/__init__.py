"""Trained networks that come with the package, each with its card.

    from apr_jax import zoo
    classifier = zoo.load("cifar10_airbench94_apr_sp")
    logits, features = classifier.predict(classifier.variables, images)

``apr-jax zoo`` lists them; ``apr-jax card zoo:NAME`` shows what was measured, and
measures anew what it is asked for (``--parts clean``), on images that are there.
Wherever a run is named, one of them can be: ``--config.train.init_from=zoo:NAME``
begins with its weights. Nothing is downloaded.
"""

import dataclasses
from typing import TYPE_CHECKING

from apr_jax import config as config_lib
from apr_jax.gates import places
from apr_jax.runs import records as records_lib
from apr_jax.runs import workdir

if TYPE_CHECKING:
    from apr_jax.evaluate.classifier import Classifier

__all__ = ["About", "about", "load", "names"]


@dataclasses.dataclass(frozen=True)
class About:
    """What is known of a network.

    Attributes:
        name: in the zoo.
        config: what it was trained by, and on; without places of files.
        class_names: in the order of its logits.
        records: its card, the newest of each number.
    """

    name: str
    config: config_lib.Config
    class_names: tuple[str, ...]
    records: tuple[records_lib.Record, ...]

    def number(self, job: str, split: str, metric: str) -> float | None:
        """A number of its card, such as ("evaluate.clean", "test", "error")."""
        for record in self.records:
            if (record.job, record.split, record.metric) == (job, split, metric):
                return record.value
        return None


def names() -> tuple[str, ...]:
    """The names of the networks, sorted."""
    return places.zoo_names()


def about(name: str) -> About:
    """What is known of a network, without loading it.

    Raises:
        ConfigError: there is none of this name; the message lists them.
    """
    run, config = workdir.open_run(places.zoo(places.ZOO + name, "the network"))
    records = records_lib.latest(records_lib.read(run.results))
    return About(name, config, workdir.read_class_names(run), tuple(records))


def load(name: str) -> "Classifier":
    """A network of the zoo, ready to classify and to be measured.

    Returns:
        An ``apr_jax.Classifier``. Its ``predict(variables, images)`` takes uint8 images
        or pixels in [0, 1], [B, H, W, C], and gives logits [B, K] and features [B, F].

    Raises:
        ConfigError: there is none of this name; the message lists them.
        DataError: its weights haven't their checksum.
    """
    from apr_jax.evaluate import classifier  # JAX, which takes a while to load

    return classifier.from_run(places.zoo(places.ZOO + name, "the network"))
