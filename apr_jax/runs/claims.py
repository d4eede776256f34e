"""Whose a work directory is while something works in it."""

import contextlib
import logging
import pathlib
from collections.abc import Callable, Iterator

from apr_jax.errors import ConfigError
from apr_jax.gates import stores
from apr_jax.runs import leases

_LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def claimed(
    root: stores.Place, *, write: bool, waiting: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Keeps other processes of this machine from working in a directory.

    One may train there, and one measure: measurements take turns. In a store this holds
    for the processes of all machines (``leases``).

    Args:
        root: the directory; made if it isn't there.
        write: whether this process writes files (the first of a run does); the others
            claim nothing.
        waiting: for one that measures, and waits for its turn: told that it does.

    Raises:
        ConfigError: another process trains there, or a store lets nothing be written.
    """
    name = ".lock.measure" if waiting else ".lock"
    busy = f"another process measures {root}; this one waits for it"
    with contextlib.ExitStack() as held:
        if write and isinstance(root, stores.StorePath):
            say = waiting or _LOG.warning
            while True:
                try:
                    held.enter_context(leases.holding(root, name, say))
                    break
                except leases.Taken:
                    if not waiting:
                        raise _at_work(root) from None
                    waiting(busy)
                except OSError as error:
                    raise ConfigError(
                        f"workdir is {str(root)!r}, which can't be written: "
                        f"{error.strerror}. --workdir names another one"
                    ) from error
        elif write and isinstance(root, pathlib.Path):
            # Without locks, or where nothing can be written, there is no claim.
            with contextlib.suppress(ImportError, OSError):
                import fcntl

                root.mkdir(parents=True, exist_ok=True)
                file = held.enter_context(open(root / name, "a"))
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if not waiting:
                        raise _at_work(root) from None
                    waiting(busy)
                    fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _at_work(root: stores.Place) -> ConfigError:
    return ConfigError(
        f"another process is at work in {root}; wait for it, or use another work "
        "directory"
    )
