"""Words for the user on standard error: lines, and progress bars."""

import sys

import rich.console
import rich.progress

from apr_jax import parallel

_WIDTH = 110  # characters, of output that goes to a file


def _console() -> rich.console.Console:
    """Standard error; wide enough for the bar where it isn't a terminal."""
    return rich.console.Console(
        stderr=True, width=None if sys.stderr.isatty() else _WIDTH
    )


def make_bar(*columns: str, disable: bool = False) -> rich.progress.Progress:
    """Returns a progress bar on standard error; ``columns`` are rich's templates."""
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(bar_width=20),
        rich.progress.TaskProgressColumn(),
        *(rich.progress.TextColumn(c) for c in columns),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TextColumn("left"),
        rich.progress.TimeRemainingColumn(),
        console=_console(),
        refresh_per_second=2,
        disable=disable,
    )


def say(text: str) -> None:
    """Prints a line for the user on standard error, from the first process only."""
    if parallel.is_primary():
        _console().print(text, markup=False, highlight=False, soft_wrap=True)
