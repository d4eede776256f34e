"""The surroundings of a measurement: devices, data at hand, what is done already."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

import jax

from apr_jax import console, data, parallel
from apr_jax.gates import stores
from apr_jax.runs.records import Record


@dataclasses.dataclass(frozen=True)
class Context:
    """Everything that a measurement is given beside classifier and settings.

    Attributes:
        layout: the devices.
        resident: the classifier's own data, where they are in memory already.
        done: records of earlier calls, which aren't measured again.
        predictions: directory for the answers to single images; None keeps none.
        seen: outputs for whole splits of the classifier's own data, by split, which
            one part of a card has and another needs.
        scratch: directory for the state of measurements under way, from which a
            stopped call goes on; None keeps none.
        quiet: no progress bar.
        speed: images a second that the network answers, by "images/s", for those who
            plan with it; None where nobody does.
    """

    layout: parallel.Layout
    resident: data.DataSet | None = None
    done: Sequence[Record] = ()
    predictions: stores.Place | None = None
    seen: MutableMapping[str, Any] = dataclasses.field(default_factory=dict)
    scratch: stores.Place | None = None
    quiet: bool = False
    speed: MutableMapping[str, float] | None = None

    def bar(self, *columns: str) -> contextlib.AbstractContextManager[Any]:
        """A progress bar, as ``console.make_bar``; shown by the first process."""
        return console.make_bar(
            *columns, disable=self.quiet or not parallel.is_primary()
        )

    def rows(self, batch_size: int, count: int) -> int:
        """Of a batch for ``count`` images: no more than they need, all devices busy."""
        each = self.layout.count
        return min(batch_size, -(-count // each) * each)

    def kept(
        self, name: str, identity: Callable[[], Any], *, alone: bool = True
    ) -> stores.Place | None:
        """File for state under way, None where it isn't kept.

        Args:
            name: of the file below ``scratch``, with "{}" for sixteen digits.
            identity: gives everything that the state depends on, as JSON values;
                called where it is kept.
            alone: of one process only: reading a file must not part processes that
                work together.
        """
        if self.scratch is None or (alone and jax.process_count() > 1):
            return None
        text = json.dumps(identity(), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return self.scratch / name.format(digest)
