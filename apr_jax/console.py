"""Words for the user on standard error: lines, and progress bars."""

import threading

import rich.console
import rich.progress

from apr_jax import parallel

_WIDTH = 110  # characters, of output that goes to a file
_WIDE = 100  # from so many characters on a bar is long and says how much time has gone
# Where there is no bar: seconds until the first line, and between two of them.
_FIRST_LINE, _NEXT_LINES = 5.0, 30.0


def _console() -> rich.console.Console:
    """Standard error; of a fixed width where it isn't a terminal."""
    console = rich.console.Console(stderr=True)
    return (
        console
        if console.is_terminal
        else rich.console.Console(stderr=True, width=_WIDTH)
    )


def make_bar(*columns: str, disable: bool = False) -> rich.progress.Progress:
    """Returns a progress bar on standard error; ``columns`` are rich's templates.

    Where it can't be redrawn (a file, or a terminal that calls itself dumb) a line now
    and then takes its place.
    """
    console = _console()
    if disable or not console.is_interactive:
        return _Lines(columns, disable)
    wide = console.width >= _WIDE
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(bar_width=20 if wide else 6),
        rich.progress.TaskProgressColumn(),
        *(rich.progress.TextColumn(c) for c in columns),
        *([rich.progress.TimeElapsedColumn()] if wide else []),
        rich.progress.TextColumn("left"),
        rich.progress.TimeRemainingColumn(),
        console=console,
        refresh_per_second=2,
    )


class _Lines(rich.progress.Progress):
    """Says in a line, now and then, how far the work is that isn't done yet."""

    def __init__(self, columns: tuple[str, ...], silent: bool) -> None:
        super().__init__(disable=True)
        self._templates, self._silent = columns, silent
        self._ended = threading.Event()
        self._teller = threading.Thread(target=self._tell, daemon=True)

    def start(self) -> None:
        if not self._silent:
            self._teller.start()

    def stop(self) -> None:
        self._ended.set()
        if self._teller.is_alive():
            self._teller.join()

    def _tell(self) -> None:
        seconds = _FIRST_LINE
        while not self._ended.wait(seconds):
            seconds = _NEXT_LINES
            for task in self.tasks:
                if not task.finished:
                    say(self._line(task))

    def _line(self, task: rich.progress.Task) -> str:
        said = [template.format(task=task) for template in self._templates]
        words = [task.description, f"{task.percentage:.0f} %", *filter(None, said)]
        if (left := task.time_remaining) is not None:
            words.append(f"{duration(left)} left")
        return ", ".join(words)


def duration(seconds: float) -> str:
    """A time in words: "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def say(text: str) -> None:
    """Prints a line for the user on standard error, from the first process only."""
    if parallel.is_primary():
        _console().print(text, markup=False, highlight=False, soft_wrap=True)
