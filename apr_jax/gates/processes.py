"""The processes of a run as flags name them, checked before JAX loads."""

import re
import socket
import sys
import time

from apr_jax.errors import ConfigError

_ADDRESS = re.compile(r"(?:[\w.-]+|\[[0-9a-fA-F:.%]+\]):(\d{1,5})", re.ASCII)
# So long JAX waits for processes that come late, before it kills this one.
PATIENCE = 300.0


def check(
    distributed: bool, coordinator: str | None, count: int | None, number: int | None
) -> None:
    """Checks what a command line says of the processes of a run.

    Args:
        distributed: whether JAX is to find the others.
        coordinator: where they meet, HOST:PORT.
        count: how many there are.
        number: which this is, from 0.

    Raises:
        ConfigError: a value isn't allowed, or says nothing without another.
    """
    if coordinator is not None:
        found = _ADDRESS.fullmatch(coordinator)
        if not found or not 0 < int(found[1]) < 2**16:
            raise ConfigError(
                f"--coordinator is {coordinator!r}; it must be HOST:PORT of process 0, "
                f"with a port from 1 to {2**16 - 1}"
            )
        if not distributed and None in (count, number):
            lacking = "--processes" if count is None else "--process"
            raise ConfigError(
                f"--coordinator {coordinator} needs {lacking}: --processes is how many "
                "there are, --process which this is, from 0"
            )
    elif not distributed and (count, number) != (None, None):
        raise ConfigError(
            "--processes and --process say nothing alone: --coordinator HOST:PORT is "
            "where the processes meet"
        )
    if count is not None and count < 1:
        raise ConfigError(f"--processes is {count}; it must be at least 1")
    if number is not None and not 0 <= number < (count or number + 1):
        most = "0 or more" if count is None else f"from 0 to {count - 1}"
        raise ConfigError(f"--process is {number}; it must be {most}")


def wait_for(coordinator: str, patience: float = PATIENCE) -> None:
    """Waits until process 0 listens; JAX would end this one by a stack of C++.

    Args:
        coordinator: where it listens, HOST:PORT.
        patience: seconds.

    Raises:
        ConfigError: it doesn't within that time.
    """
    host, _, port = coordinator.rpartition(":")
    start, said = time.monotonic(), False
    while True:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=5):
                return
        except OSError as error:
            why = error
        if time.monotonic() - start > patience:
            raise ConfigError(
                f"--coordinator is {coordinator!r}, where no process 0 has answered "
                f"for {patience:.0f} s ({why}); start it, or name its host and port"
            )
        if not said:
            print(f"waiting for process 0 at {coordinator}", file=sys.stderr)
            said = True
        time.sleep(min(1.0, patience / 10))
