"""What every command of the project does around its work."""

import logging
import os
import sys
from collections.abc import Callable

import absl.logging
import jax

from apr_jax import config as config_lib
from apr_jax import data, interrupt
from apr_jax.checkpoint import CheckpointError
from apr_jax.progress import Diverged

# What the user can mend; anything else keeps its traceback.
USER_ERRORS = (config_lib.ConfigError, data.DataError, CheckpointError, Diverged)


def quiet_logs() -> None:
    """Shows warnings and worse; Orbax and matplotlib tell more than a user wants."""
    absl.logging.set_verbosity(absl.logging.WARNING)
    logging.getLogger().setLevel(logging.WARNING)


def finish(work: Callable[[], str | None]) -> None:
    """Runs ``work``; a mistake of the user becomes one line and exit status 2.

    ``work`` may return the name of the signal that ended it, which becomes the
    status that a shell expects.
    """
    quiet_logs()
    try:
        stopped_by = work()
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    if stopped_by is not None:
        sys.exit(interrupt.exit_code(stopped_by))


def use_compile_cache(settings: config_lib.Data) -> None:
    """Keeps compiled programs on disk, so that a second start needn't compile."""
    folder = data.cache.folder(settings.cache_dir) / "xla"
    jax.config.update("jax_compilation_cache_dir", os.fspath(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
