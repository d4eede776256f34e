"""The work directory of a run: what lies where, and whose it is."""

import contextlib
import datetime
import json
import os
import pathlib
from collections.abc import Iterable, Iterator

from apr_jax import config as config_lib
from apr_jax.errors import ConfigError
from apr_jax.runs import curves, epochs, files, jsonl


class RunDir:
    """The paths in a work directory.

    Attributes:
        root: the directory.
        config: the configuration, written when the run first starts.
        classes: the names of the classes, in the order of the labels.
        checkpoints: saved states.
        curve: loss, accuracy, rate and speed over the steps.
        watched: what ``train.watch`` names, over the epochs.
        results: one record for each number.
        commands: the commands that made them.
        examples: a few training images and what the augmentation makes of them.
        scratch: what evaluations keep while they are under way; made when first used.
        report: the page to look at.
    """

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.config = root / "config.json"
        self.classes = root / "classes.json"
        self.checkpoints = root / "checkpoints"
        self.curve = root / curves.FILE_NAME
        self.watched = root / epochs.FILE_NAME
        self.results = root / "results.jsonl"
        self.commands = root / "commands.jsonl"
        self.examples = root / "examples.npz"
        self.scratch = root / "scratch"
        self.report = root / "report.html"


@contextlib.contextmanager
def claimed(root: pathlib.Path, *, write: bool) -> Iterator[None]:
    """Keeps other processes of this machine from working in a directory.

    Args:
        root: the directory; made if it isn't there.
        write: whether this process writes files (the first of a run does); the others
            claim nothing.

    Raises:
        ConfigError: another process works there.
    """
    with contextlib.ExitStack() as held:
        if write:
            # Without locks, or where nothing can be written, there is no claim.
            with contextlib.suppress(ImportError, OSError):
                import fcntl

                root.mkdir(parents=True, exist_ok=True)
                file = held.enter_context(open(root / ".lock", "a"))
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise ConfigError(
                        f"another process is at work in {root}; wait for it, or use "
                        "another work directory"
                    ) from None
        yield


def prepare(root: pathlib.Path, config: config_lib.Config, *, write: bool) -> RunDir:
    """Makes a work directory ready for a run, or checks that it is this run's.

    Args:
        root: the directory; made if it isn't there.
        config: of the run that is about to start or to go on.
        write: whether this process writes files (the first of a run does).

    Raises:
        ConfigError: the directory can't be written, or holds a run of another
            configuration; the message names the fields that differ.
    """
    run = RunDir(root)
    if write:
        _check_writable(root)
    saved = read_config(run)
    if saved is None:
        if write:
            files.write_text(
                run.config, json.dumps(config_lib.to_dict(config), indent=2) + "\n"
            )
        return run
    changed = config_lib.differences(config, saved)
    if changed:
        listed = "; ".join(f"{k} is {new!r}, there {old!r}" for k, new, old in changed)
        raise ConfigError(
            f"the work directory {root} holds a run of another configuration: "
            f"{listed}. Use another --workdir, or the run's own values"
        )
    return run


def read_config(run: RunDir) -> config_lib.Config | None:
    """Returns the configuration that a run was started with; None if there is none."""
    if not run.config.exists():
        return None
    try:
        return config_lib.parse(json.loads(run.config.read_text()))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{run.config} is no JSON: {error}") from error


def open_run(root: pathlib.Path) -> tuple[RunDir, config_lib.Config]:
    """Returns a run that was started before.

    Raises:
        ConfigError: the directory isn't there, or holds no run.
    """
    run = RunDir(root)
    config = read_config(run) if root.is_dir() else None
    if config is None:
        raise ConfigError(
            f"{root} is not a run: it has no {run.config.name}. Give the --workdir "
            "that launch.py was started with"
        )
    return run, config


def write_class_names(run: RunDir, names: Iterable[str]) -> None:
    """Notes what the labels of a run mean."""
    files.write_text(run.classes, json.dumps(list(names)) + "\n")


def read_class_names(run: RunDir) -> tuple[str, ...]:
    """Returns what the labels of a run mean.

    Raises:
        ConfigError: the run has not read its data yet.
    """
    if not run.classes.exists():
        raise ConfigError(
            f"{run.root} has no {run.classes.name}; its training has not got that far"
        )
    return tuple(json.loads(run.classes.read_text()))


def note_command(run: RunDir, command: str) -> None:
    """Notes a command that trained or measured something."""
    if command:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        jsonl.append(run.commands, [{"command": command, "time": now}])


def read_commands(run: RunDir) -> list[str]:
    """The commands that were noted, each once, in the order of their last use."""
    if not run.commands.exists():
        return []
    found = [str(row.get("command", "")) for _, row in jsonl.read(run.commands)]
    return list(dict.fromkeys(reversed(found)))[::-1]


def _check_writable(root: pathlib.Path) -> None:
    probe = root / f".writable.{os.getpid()}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"workdir is {str(root)!r}, which can't be written: {error.strerror}"
        ) from error
