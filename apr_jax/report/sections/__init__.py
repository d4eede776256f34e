"""Parts of the page, one for each kind of measurement; a module each.

A section draws from what a ``RunView`` holds, most from records alone. Its module has

- ``html(runs: Sequence[RunView]) -> str``: figures and tables, runs side by side; the
  empty string where no run has records of its job;
- ``answers(runs: Sequence[RunView]) -> list[answer.Row]``: for the table that the page
  begins with;
- ``table(runs: Sequence[RunView]) -> rich.table.Table | None``: for the terminal.
"""

import types

from apr_jax.report.sections import (
    adversarial,
    corruption,
    fourier,
    masking,
    ood,
    shift,
    transfer,
    watch,
)

# Job of the records -> the module that shows them, in the order of the page. Records
# of other jobs are in the table of numbers.
SECTIONS: dict[str, types.ModuleType] = {
    "evaluate.corruption": corruption,
    "evaluate.shift": shift,
    "evaluate.ood": ood,
    "evaluate.adversarial": adversarial,
    "evaluate.masking": masking,
    "evaluate.transfer": transfer,
    "evaluate.fourier": fourier,
    # No job has this name: it is drawn from the rows of ``watch.jsonl``.
    "watch": watch,
}
