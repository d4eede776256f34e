"""Experiments run on a toy set, in this process."""

import pathlib
from types import ModuleType
from typing import Any
from unittest import mock

from apr_jax.runs import records as records_lib
from apr_jax.runs.records import Record
from experiments import lab as lab_lib


def run(
    module: ModuleType,
    images: pathlib.Path,
    out: pathlib.Path,
    /,
    *arguments: str,
    work: pathlib.Path,
    size: int = 8,
    **knobs: Any,
) -> list[Record]:
    """Runs an experiment with other knobs and returns the records it has made so far.

    Args:
        module: of the experiment.
        images: folder of ``toy.write_arrays``.
        out: folder for records and pictures.
        arguments: more of the command line.
        work: folder for networks and sets.
        size: of the images.
        knobs: instead of those of the small size.
    """
    small = {**module.SIZES["small"], **knobs}
    with mock.patch.object(module, "SIZES", {"small": small}):
        lab_lib.main(
            module.__name__,
            [
                f"--set=arrays:{images}",
                f"--image_size={size}",
                f"--out={out}",
                f"--work={work}",
                f"--cache_dir={work / 'cache'}",
                "--quiet",
                *arguments,
            ],
        )
    return records_lib.latest(records_lib.read(out / "records.jsonl"))
