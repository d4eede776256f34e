"""A program's start, its stop on a signal, and its failure."""

import logging
import os
import pathlib
import shlex
import signal
import sys
import types
from collections.abc import Callable

import absl.logging
import jax

from apr_jax import config as config_lib
from apr_jax import data
from apr_jax.errors import CheckpointError, UserError


def quiet_logs() -> None:
    """Shows warnings and worse; Orbax and matplotlib tell more than a user wants."""
    absl.logging.set_verbosity(absl.logging.WARNING)
    logging.getLogger().setLevel(logging.WARNING)


def finish(work: Callable[[], str | None]) -> None:
    """Runs ``work``; a mistake of the user becomes one line and exit status 2.

    Any other error keeps its traceback.
    ``work`` may return the name of the signal that ended it, which becomes the
    status that a shell expects.
    """
    quiet_logs()
    try:
        stopped_by = work()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        if isinstance(error, CheckpointError):
            # The threads of a save that failed may wait for minutes for what won't be.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(2)
        sys.exit(2)
    if stopped_by is not None:
        sys.exit(_exit_code(stopped_by))


def command_line() -> str:
    """The command that started this program, as a user can paste it into a shell."""
    main = sys.modules["__main__"]
    if (spec := getattr(main, "__spec__", None)) is not None:
        name = spec.name.removesuffix(".__main__")
        return shlex.join(["python", "-m", name, *sys.argv[1:]])
    program, here = pathlib.Path(sys.argv[0]), pathlib.Path.cwd()
    if program.is_absolute() and program.is_relative_to(here):
        program = program.relative_to(here)
    start = ["python"] if program.suffix == ".py" else []
    return shlex.join([*start, str(program), *sys.argv[1:]])


def use_compile_cache(settings: config_lib.Data) -> None:
    """Keeps compiled programs on disk, so that a second start needn't compile."""
    folder = data.cache.folder(settings.cache_dir) / "xla"
    jax.config.update("jax_compilation_cache_dir", os.fspath(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


class StopSignal:
    """Notes SIGTERM and SIGINT instead of dying of them.

    Within the context the first signal sets ``name``, for the loop to see after the
    call it is in; a second SIGINT raises KeyboardInterrupt as usual.
    """

    _SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.name: str | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignal":
        for number in self._SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: types.FrameType | None) -> None:
        if self.name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name


def _exit_code(name: str) -> int:
    """Returns the conventional exit status of a program that a signal ended."""
    return 128 + signal.Signals[name].value
