"""Trains a network as a configuration says, measures it, and draws a page.

    python launch.py --config configs/quickstart.py --workdir runs/quickstart
    python launch.py --config configs/cifar.py:resnet18,apr_p,cifar100
    python launch.py --config configs/cifar10_wrn_aprsp.py --config.optim.epochs=100

The same command again goes on where it stopped. Results are in the work directory:
``results.jsonl``, ``metrics.jsonl``, ``report.html``, ``checkpoints/``.
"""

import logging

from absl import app, flags
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Configuration file; change values with --config.GROUP.FIELD=VALUE."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where everything goes; runs/NAME of the configuration if unset."
)
_BESIDE = flags.DEFINE_list(
    "beside", [], "Work directories of finished runs to show beside this one."
)
_QUIET = flags.DEFINE_bool("quiet", False, "No progress bar.")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of the first of several processes."
)
_PROCESSES = flags.DEFINE_integer("processes", None, "How many processes there are.")
_PROCESS = flags.DEFINE_integer("process", None, "Which process this is, from 0.")
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Find the other processes (TPU pod, Slurm) by themselves."
)


def main(argv: list[str]) -> None:
    """Hands the flags to the job."""
    logging.getLogger().setLevel(logging.WARNING)
    # Imported here, so that --help and a wrong flag answer at once.
    from apr_jax import job

    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    job.main(
        _CONFIG.value,
        workdir=_WORKDIR.value,
        beside=_BESIDE.value,
        quiet=_QUIET.value,
        distributed=_DISTRIBUTED.value or _COORDINATOR.value is not None,
        coordinator=_COORDINATOR.value,
        process_count=_PROCESSES.value,
        process_id=_PROCESS.value,
    )


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
