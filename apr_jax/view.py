"""What the page knows about a run: plain data, read from its work directory."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from apr_jax.curves import CurveRow
from apr_jax.results import Record
from apr_jax.sheet import Examples


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunView:
    """What the page knows about one run; everything but the name may be missing.

    Attributes:
        name: as the page calls the run.
        config: nested, as in ``config.json``.
        records: numbers; of several of the same thing the last is shown. A record's
            ``extra`` may hold a reliability diagram (``"reliability"``, from
            ``Reliability.to_json``) and counts of label by prediction
            (``"confusion"``, [C, C]), which are drawn.
        curve: rows of ``metrics.jsonl``.
        watched: rows of ``watch.jsonl``.
        class_names: C names.
        examples: augmented training images.
        command: what to type to run it again.
        facts: more lines of the summary, such as the number of parameters.
    """

    name: str
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    records: Sequence[Record] = ()
    curve: Sequence[CurveRow] = ()
    watched: Sequence[Mapping[str, Any]] = ()
    class_names: Sequence[str] = ()
    examples: Examples | None = None
    command: str = ""
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
