"""The work directory of a run: what lies where, and whose it is."""

import dataclasses
import datetime
import json
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from apr_jax import config as config_lib
from apr_jax import settings
from apr_jax.errors import ConfigError, DataError
from apr_jax.gates import code_files, places, stores
from apr_jax.runs import curves, epochs, files, jsonl


class RunDir:
    """The paths in a work directory.

    Attributes:
        root: the directory.
        config: the configuration, written when the plan of the run stands.
        facts: what the run was started with beside it: its images, its devices.
        classes: the names of the classes, in the order of the labels.
        checkpoints: saved states.
        weights: instead of them, in the zoo, what was trained.
        checksum: of the weights.
        curve: loss, accuracy, rate and speed over the steps.
        watched: what ``train.watch`` names, over the epochs.
        held_out: accuracies under attack on images that are held out.
        results: one record for each number; in the zoo compressed, and only read.
        commands: the commands that made them.
        wandb: its id at Weights & Biases.
        examples: a few training images and what the augmentation makes of them.
        predictions: the answers to single images, where they are asked for.
        scratch: what evaluations keep while they are under way; made when first used.
        report: the page to look at.
        card: the numbers of a card as one document.
    """

    def __init__(self, root: stores.Place) -> None:
        self.root = root
        self.config = root / "config.json"
        self.facts = root / "facts.json"
        self.classes = root / "classes.json"
        self.checkpoints = root / "checkpoints"
        self.weights = root / "weights.safetensors"
        self.checksum = root / "weights.json"
        self.curve = root / curves.FILE_NAME
        self.watched = root / epochs.FILE_NAME
        self.held_out = root / epochs.HELD_OUT
        self.wandb = root / "wandb.json"
        self.results = root / "results.jsonl"
        packed = root / f"results.jsonl{jsonl.PACKED}"
        if isinstance(root, pathlib.Path) and packed.exists():
            self.results = packed
        self.commands = root / "commands.jsonl"
        self.examples = root / "examples.npz"
        self.predictions = root / "predictions"
        self.scratch = root / "scratch"
        self.report = root / "report.html"
        self.card = root / "card.json"


def prepare(root: stores.Place, config: config_lib.Config, *, write: bool) -> RunDir:
    """Checks that a work directory is free, or this run's; ``claim`` makes it so.

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
        check_writable(root)
    saved = read_config(run)
    changed = [] if saved is None else config_lib.differences(config, saved)
    if changed and not _is_empty(run):
        listed = "; ".join(f"{k} is {new!r}, there {old!r}" for k, new, old in changed)
        raise ConfigError(
            f"the work directory {root} holds a run of another configuration: "
            f"{listed}. Use another --workdir, or the run's own values"
        )
    return run


def claim(
    run: RunDir,
    config: config_lib.Config,
    class_names: Iterable[str],
    *,
    images: Mapping[str, str] | None = None,
    devices: int = 0,
) -> int:
    """Makes a work directory that of a run, once its plan stands.

    Args:
        run: from ``prepare``.
        config: of the run; the places in it are kept as absolute paths, so that they
            are found from any directory.
        class_names: what its labels mean.
        images: their fingerprints, as ``check_images`` takes them, if it trains.
        devices: how many it trains on.

    Returns:
        The number of devices that it was trained on before, 0 if it wasn't.

    Raises:
        ConfigError: it was trained on other images before.
    """
    saved, wanted = read_config(run), with_absolute_places(config)
    other = saved is None or bool(config_lib.differences(config, saved))
    if other:
        for stale in (run.facts, run.watched, run.held_out):
            stale.unlink(missing_ok=True)
    before = check_images(run, config, images or {})
    values = config_lib.to_dict(wanted)
    if saved is None or other or (images and config_lib.to_dict(saved) != values):
        files.write_text(run.config, json.dumps(values, indent=2) + "\n")
    write_class_names(run, class_names)
    if images:
        facts = {**images, "devices": devices}
        files.write_text(run.facts, json.dumps(facts) + "\n")
    return before


def check_images(
    run: RunDir, config: config_lib.Config, images: Mapping[str, str]
) -> int:
    """Checks that a run sees the images that it was started with.

    Where nothing was trained yet, or by a version that kept no fingerprints, they may
    be any.

    Args:
        run: the run's directory.
        config: says which images they are now.
        images: fingerprints, "data" of all that it trains on, "test" of those it is
            measured on.

    Returns:
        The number of devices that it was trained on, 0 if it isn't known.

    Raises:
        ConfigError: they are others.
    """
    if not images or not run.facts.exists() or _is_empty(run):
        return 0
    with files.reading(run.facts):
        facts = files.read_json(run.facts)
        devices = int(facts["devices"])
    for name, digest in images.items():
        if facts.get(name, digest) != digest:
            own, what = config.data, "measured"
            advice = "use another directory"
            if "data" in facts:
                what, advice = "trained", "train in another --workdir"
            raise ConfigError(
                f"the run in {run.root} was {what} on other images: the fingerprint "
                f"of data.name {own.name!r} in data.data_dir {own.data_dir!r} is "
                f"{digest[:12]}, there {facts[name][:12]}. Give its own "
                f"data_dir, or {advice}"
            )
    return devices


def with_absolute_places(config: config_lib.Config) -> config_lib.Config:
    """The same configuration, whose files and folders are found from any directory."""

    def change(leaf: settings.Leaf) -> Any:
        if leaf.name == "model.name" and code_files.named(leaf.value):
            return _absolute(leaf.value)
        if not leaf.about.place:
            return leaf.value
        if isinstance(leaf.value, str):
            return _absolute(leaf.value)
        return tuple(map(_absolute, leaf.value))

    found = settings.mapped(config, change)
    if config_lib.differences(config, found):  # in how the hash names extra folders
        own = dataclasses.replace(found.data, extra_dirs=config.data.extra_dirs)
        found = dataclasses.replace(found, data=own)
    return found


def _absolute(place: str) -> str:
    """An absolute path, also of a set NAME=SOURCE:PATH; anything else as it is."""
    before, path = "", place
    if found := re.fullmatch("([^=]*=(?:folder|arrays|parquet):)(.+)", place):
        before, path = found.groups()
    kept = path.startswith(places.ZOO) or "://" in path
    if not path or kept or (not before and "=" in path):
        return place
    return before + str(places.local(path, "the place").absolute())


def _is_empty(run: RunDir) -> bool:
    """Whether nothing was trained or measured in a work directory."""
    kept = [p for p in (run.curve, run.results) if p.exists() and p.stat().st_size]
    return not kept and not any(run.checkpoints.glob("*[0-9]*"))


def read_config(run: RunDir) -> config_lib.Config | None:
    """Returns the configuration that a run was started with; None if there is none."""
    if not run.config.exists():
        return None
    return config_lib.parse(_as_now(files.read_json(run.config)))


def _as_now(values: Any) -> Any:
    """Settings of a run as they are written now: once there was one surrogate."""
    try:
        attacked = values["eval"]["adversarial"]
        one = attacked["surrogate"]
    except (KeyError, TypeError):
        return values
    if isinstance(one, str):
        attacked["surrogate"] = [one] if one else []
    return values


def open_run(root: stores.Place) -> tuple[RunDir, config_lib.Config]:
    """Returns a run that was started before.

    Raises:
        ConfigError: the directory isn't there, or holds no run.
    """
    run = RunDir(root)
    config = read_config(run) if root.is_dir() else None
    if config is None:
        raise ConfigError(
            f"{root} is not a run: it has no {run.config.name}. Give the --workdir "
            "that the training was started with"
        )
    return run, config


def place_of_records(root: stores.Place) -> stores.Place:
    """Where records of a run go unless it is said: into it; ``runs/zoo`` has the zoo's.

    What comes with a package is only read.
    """
    return pathlib.Path("runs") / "zoo" / root.name if is_reduced(root) else root


def is_reduced(root: stores.Place) -> bool:
    """Whether a run is reduced to its weights and its card, as those of the zoo."""
    return RunDir(root).weights.exists()


def check_beside(root: stores.Place, beside: Iterable[stores.Place]) -> None:
    """Checks runs that a page is to show beside another one.

    Raises:
        ConfigError: one isn't there, holds no run, or is the run itself.
    """
    for other in beside:
        if other.resolve() == root.resolve():
            raise ConfigError(f"--beside names {other}, which is the run itself")
        open_run(other)


def check_network(what: stores.Place) -> None:
    """Checks the place of a trained network: a run's directory, or a file of weights.

    Raises:
        ConfigError: it isn't there, or the directory is no run.
    """
    if what.is_dir():
        run, _ = open_run(what)
        read_class_names(run)
    elif not what.exists():
        raise ConfigError(
            f"{what} is not there; give a run's directory or a file of weights"
        )


def check_measured(
    what: stores.Place, root: stores.Place | None, *, configured: bool
) -> None:
    """Checks what is to be measured.

    Args:
        what: as ``check_network`` takes it.
        root: where records go; None: into the run.
        configured: whether a configuration came with it.

    Raises:
        ConfigError: it isn't there or no run, or a configuration or a place for the
            records is missing or one too many.
    """
    if isinstance(what, stores.StorePath) and not what.is_dir():
        raise ConfigError(
            f"{what} is no run's directory; weights must be a file of this machine"
        )
    if what.is_dir() and configured:
        raise ConfigError(
            f"{what} is a run and has a configuration; --config is for a file of "
            "weights. Where its data are now is said by --data_dir and --cache_dir"
        )
    check_network(what)
    if not what.is_dir() and (not configured or root is None):
        raise ConfigError(
            f"{what} is a file of weights: --config must name its network and data, "
            "and --workdir where the records go"
        )


def write_class_names(run: RunDir, names: Iterable[str]) -> None:
    """Notes what the labels of a run mean."""
    files.write_text(run.classes, json.dumps(list(names)) + "\n")


def read_class_names(run: RunDir) -> tuple[str, ...]:
    """Returns what the labels of a run mean.

    Raises:
        ConfigError: the run has not read its data yet.
        DataError: the file isn't as it was written.
    """
    if not run.classes.exists():
        raise ConfigError(
            f"{run.root} has no {run.classes.name}; its training has not got that far"
        )
    names = files.read_json(run.classes)
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise DataError(f"can't read {run.classes}: it is no list of names")
    return tuple(names)


def note_command(run: RunDir, command: str) -> None:
    """Notes a command that trained or measured something, once where it did both."""
    if command and read_commands(run)[-1:] != [command]:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        jsonl.append(run.commands, [{"command": command, "time": now}])


def read_commands(run: RunDir) -> list[str]:
    """The commands that were noted, each once, in the order of their last use."""
    if not run.commands.exists():
        return []
    found = [str(row.get("command", "")) for _, row in jsonl.read(run.commands)]
    return list(dict.fromkeys(reversed(found)))[::-1]


def check_writable(root: stores.Place) -> None:
    """Raises ConfigError unless files can be made in a work directory."""
    probe, why = root / f".writable.{os.getpid()}", ""
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink(missing_ok=True)
    except OSError as error:
        why = str(error.strerror)
    inside = [path for path in vars(RunDir(root)).values() if path != root]
    if isinstance(root, stores.StorePath):
        inside = []  # a store has no folders that a file could be in the way of
    for path in [] if why else inside:  # its own name may have a point, as in "v1.2"
        folder = path.suffix == ""
        if path.exists() and path.is_dir() != folder:
            why = f"{path.name} in it is {'no' if folder else 'a'} folder"
    if why:
        raise ConfigError(
            f"workdir is {str(root)!r}, which can't be written: {why}. --workdir names "
            "another one"
        )
