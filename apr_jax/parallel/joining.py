"""How the processes of a run find each other, and hear of an end before its time."""

import contextlib
import os
import time
from typing import Any

import jax

from apr_jax.errors import ConfigError
from apr_jax.gates import processes

# What JAX needs to know of a job of Slurm, beside its number.
_OF_SLURM = ("SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")


def start_processes(
    coordinator: str | None = None,
    process_count: int | None = None,
    process_id: int | None = None,
) -> None:
    """Joins the processes of a run; a TPU pod and Slurm need no arguments.

    JAX's own notice of preemption is off: it takes SIGTERM for itself and compares step
    numbers for equality, which steps taken many at a time pass by. ``make_agreement``
    is in its place.

    Args:
        coordinator: "host:port" of the first process.
        process_count: how many there are.
        process_id: which one this is, from 0.

    Raises:
        ConfigError: they aren't found, process 0 can't listen, or doesn't answer.
    """
    if coordinator and process_id:
        processes.wait_for(coordinator)
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(coordinator, process_count, process_id)
    except ValueError as error:
        lacking = [name for name in _OF_SLURM if name not in os.environ]
        slurm = "SLURM_JOB_ID" in os.environ and lacking
        why = f"{', '.join(lacking)} not set: start it by srun" if slurm else str(error)
        raise ConfigError(
            f"--distributed finds no other processes here ({why}); elsewhere give "
            "--coordinator HOST:PORT, --processes and --process"
        ) from error
    except jax.errors.JaxRuntimeError as error:
        raise ConfigError(
            f"--coordinator is {coordinator!r}, where process 0 can't start: "
            f"{str(error).splitlines()[0]}. Is the port another program's?"
        ) from error


class Others:
    """The other processes of a run, which hear of an end before its time."""

    _KEY = "apr_jax/ended"
    # Seconds that the first process, by which all hear of it, stays for their sake.
    _STAYS = 4.0

    def __init__(self) -> None:
        # JAX has no public name for the store that its processes share.
        from jax._src import distributed

        self._store: Any = distributed.global_state.client
        self._number = jax.process_index()

    def tell(self, status: int) -> None:
        """Lets them know that this process ends, with this status."""
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # another was quicker
            self._store.key_value_set(self._KEY, f"{self._number} {status}")
        if self._number == 0:
            time.sleep(self._STAYS)

    def told(self) -> tuple[int, int] | None:
        """Which one ends, and its status; None: none does, as far as is known."""
        try:
            words = self._store.key_value_try_get(self._KEY)
        except jax.errors.JaxRuntimeError:
            return None
        number, status = words.split()
        return int(number), int(status)

    def wait(self) -> None:
        """Waits until the work of all is done."""
        jax.distributed.shutdown()
