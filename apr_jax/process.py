"""A program's start, its stop on a signal, and its failure."""

import contextlib
import io
import logging
import os
import pathlib
import shlex
import signal
import sys
import threading
import time
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from apr_jax.errors import CheckpointError, UserError, words

if TYPE_CHECKING:
    # The package imports this module first of all, so it is to import little.
    from apr_jax import config as config_lib

# What asks a program to stop; there is no SIGHUP on Windows.
_STOPS = tuple(
    signal.Signals[name]
    for name in ("SIGTERM", "SIGINT", "SIGHUP")
    if hasattr(signal, name)
)
_leaving = threading.RLock()  # held by the thread that ends the program


def quiet_logs() -> None:
    """Shows warnings and worse, and of TensorFlow, TFDS and Orbax errors alone.

    They warn those who write programs with them, of what is deprecated or not done;
    what is wrong with the user's data they raise. Others use Python's own loggers.
    """
    import absl.logging  # here, as the arrays' part of the package does without

    absl.logging.set_verbosity(absl.logging.WARNING)
    logging.getLogger().setLevel(logging.WARNING)
    for name in ("absl", "tensorflow"):
        logging.getLogger(name).setLevel(logging.ERROR)


def finish(work: Callable[[], str | None]) -> None:
    """Runs ``work``; a mistake of the user becomes one line and exit status 2.

    Ctrl-C becomes a line and exit status 130: the first raises KeyboardInterrupt in
    ``work``, unless that catches SIGINT itself; a second leaves at once. A file that
    can't be read or written becomes a line, too; any other error keeps its traceback.
    ``work`` may return the name of the signal that ended it, which becomes the
    status that a shell expects.
    """
    quiet_logs()
    try:
        with _interruptible():
            stopped_by = work()
            _wait_for_others()
    except KeyboardInterrupt:
        _leave(_exit_code("SIGINT"), _INTERRUPTED)
    except BrokenPipeError:
        raise
    except (UserError, OSError) as error:
        print(f"error: {words(error)}", file=sys.stderr)
        # The threads of a save that failed may wait for minutes for what won't be, and
        # so may this process for others that it lets down.
        if isinstance(error, CheckpointError) or _others is not None:
            _leave(2)
        sys.exit(2)
    except Exception:
        if _others is None:
            raise
        if (told := _others.told()) is not None:
            _leave_after(*told)  # what failed was waiting for that process
        traceback.print_exc()
        _leave(1)
    if stopped_by is not None:
        sys.exit(_exit_code(stopped_by))


_INTERRUPTED = "stopped by Ctrl-C"


# --- Several processes ---------------------------------------------------------------


class Others(Protocol):
    """The other processes of a run; see ``parallel.Others``."""

    def tell(self, status: int) -> None:
        """Lets them know that this process ends before its time."""

    def told(self) -> tuple[int, int] | None:
        """Which of them has ended before its time, and its status; None: none has."""

    def wait(self) -> None:
        """Waits for the end of all, when this one's work is done."""


_others: Others | None = None
_follower: threading.Thread | None = None
_LOOKS = 0.5  # seconds between two looks at whether another process has ended
_OWN_WORDS = 2.0  # seconds in which a process that fails as well can say it itself


def end_with(others: Others) -> None:
    """From here on no process of several outlives another one's failure or stop.

    A stop of any of them, where nothing saves and leaves by itself as training does
    (see ``StopSignal``), ends it at once, and all the others within seconds: each says
    a line, and has the same status. Inside ``finish`` only.
    """
    global _others, _follower
    _others = others
    for number in _STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave_on_signal)
    _follower = threading.Thread(target=_follow, args=(others,), daemon=True)
    _follower.start()


def _wait_for_others() -> None:
    """Waits until they have done their work, too; nobody needs them after it."""
    global _others
    if _others is not None and _follower is not None:
        _others.wait()
        _others = None
        _follower.join()


def _leave_on_signal(number: int, _: object = None) -> NoReturn:
    name = signal.Signals(number).name
    words = _INTERRUPTED if name == "SIGINT" else f"stopped by {name}"
    _leave(_exit_code(name), words)


def _follow(others: Others) -> None:
    """Ends this process after another one that has ended before its time."""
    while (told := others.told()) is None:
        time.sleep(_LOOKS)
        if _others is None:
            return
    time.sleep(_OWN_WORDS)
    _leave_after(*told)


def _leave_after(number: int, status: int) -> NoReturn:
    why = f"was stopped ({status})" if status > 128 else "can't go on: see what it says"
    _leave(status, f"process {number} {why}; this one ends with it")


def leave_on_interrupt() -> None:
    """From here on Ctrl-C ends the program with one line and status 130, at once."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _leave_at_once)


def is_program() -> bool:
    """Whether this process was started as a program of the project."""
    given = sys.orig_argv
    if "-m" in given[:-1]:
        module = given[given.index("-m") + 1]
        return module.split(".")[0] in ("apr_jax", "experiments")
    if _is_command():
        return True
    root = pathlib.Path(__file__).resolve().parents[1]
    return pathlib.Path(sys.argv[0]).resolve() == root / "launch.py"


def _is_command() -> bool:
    """Whether this process was started as ``apr-jax``."""
    return [pathlib.Path(word).stem for word in sys.orig_argv[1:2]] == ["apr-jax"]


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Within it Ctrl-C raises KeyboardInterrupt; a further one leaves at once.

    A thread waits for that one, as Python's own handlers run only when the main thread
    returns from what it calls, and compiling a program can take minutes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    watcher = threading.Thread(target=_watch, args=(reading,), daemon=True)
    watcher.start()
    pipe_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        signal.set_wakeup_fd(pipe_before)
        os.write(writing, b"\0")
        watcher.join()
        os.close(reading)
        os.close(writing)


def _watch(reading: int) -> None:
    """Leaves at a SIGINT after another stop; reads their numbers up to a 0."""
    stopping = False
    while (number := os.read(reading, 1)[0]) != 0:
        if number in _STOPS and signal.getsignal(number) is _leave_on_signal:
            _leave_on_signal(number)
        if stopping and number == signal.SIGINT:
            _leave_at_once()
        stopping |= number in _STOPS


def _leave_at_once(*_: object) -> NoReturn:
    with _leaving:
        # The terminal's cursor, which a progress bar has hidden; below the bar.
        shown = "\x1b[?25h\n" if sys.stderr and sys.stderr.isatty() else ""
        os.write(2, f"{shown}{_INTERRUPTED}\n".encode())
        _part(_exit_code("SIGINT"))
        os._exit(_exit_code("SIGINT"))


def _leave(status: int, line: str = "") -> NoReturn:
    """Ends the program with what it printed, without waiting for its threads."""
    with _leaving:
        with contextlib.suppress(OSError):
            if line:
                print(line, file=sys.stderr)
            sys.stdout.flush()
            sys.stderr.flush()
        _part(status)
        os._exit(status)


def _part(status: int) -> None:
    if _others is not None:
        _others.tell(status)


def command_line() -> str:
    """The command that started this program, as a user can paste it into a shell."""
    if _is_command():
        return shlex.join(["apr-jax", *sys.orig_argv[2:]])
    main = sys.modules["__main__"]
    if (spec := getattr(main, "__spec__", None)) is not None:
        name = spec.name.removesuffix(".__main__")
        return shlex.join(["python", "-m", name, *sys.argv[1:]])
    program, here = pathlib.Path(sys.argv[0]), pathlib.Path.cwd()
    if program.is_absolute() and program.is_relative_to(here):
        program = program.relative_to(here)
    start = ["python"] if program.suffix == ".py" else []
    return shlex.join([*start, str(program), *sys.argv[1:]])


def use_compile_cache(
    settings: "config_lib.Data", shared: pathlib.Path | None = None
) -> None:
    """Keeps compiled programs on disk, so that a second start needn't compile.

    In the cache's folder, unless ``JAX_COMPILATION_CACHE_DIR`` names another.

    Args:
        settings: name the cache.
        shared: a folder that all processes see, of several. JAX writes programs from
            the first process alone: the others would find none in caches of their own.
    """
    import jax

    from apr_jax import data

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        own = data.cache.folder(settings.cache_dir) if shared is None else shared
        folder = own / data.cache.PROGRAMS
        jax.config.update("jax_compilation_cache_dir", os.fspath(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    # XLA can't write programs in which oneDNN multiplies; they are compiled anew.
    message = "Error writing persistent compilation cache entry.*bad_alloc"
    warnings.filterwarnings("ignore", message)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


class StopSignal:
    """Notes SIGTERM, SIGINT and SIGHUP instead of dying of them.

    Within the context the first signal sets ``number``, for the loop to see after the
    call it is in; a second SIGINT raises KeyboardInterrupt as usual. A SIGHUP that was
    ignored before, as ``nohup`` does, still is.
    """

    def __init__(self) -> None:
        self.number = 0  # of the signal; 0: there was none
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignal":
        for number in _STOPS:
            if number.name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN:
                continue
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: types.FrameType | None) -> None:
        if self.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number


def signal_name(number: int) -> str | None:
    """Name of a signal, such as "SIGTERM"; None for 0."""
    return signal.Signals(number).name if number else None


def _exit_code(name: str) -> int:
    """Returns the conventional exit status of a program that a signal ended."""
    return 128 + signal.Signals[name].value


def say_anything() -> None:
    """Has standard output replace characters that its encoding lacks.

    A table that a terminal or a file of another encoding can't show comes at the end of
    all work. Standard error does so by itself.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def end_with_its_reader() -> None:
    """Has a program whose reader left, as ``| head`` does, end quietly."""
    shown = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if not isinstance(error, BrokenPipeError):
            shown(kind, error, trace)
            return
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what is flushed at the end

    sys.excepthook = hook


if is_program():
    say_anything()
    end_with_its_reader()
    # The imports of a program take seconds before its main function runs.
    leave_on_interrupt()
