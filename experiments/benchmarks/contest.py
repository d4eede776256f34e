"""Contests of benchmarks: child processes that time themselves, turn by turn."""

import argparse
import importlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from experiments.benchmarks import common


class Contestant:
    """A child process that times itself, killed where it is silent for too long.

    Attributes:
        name: of the contestant.
        process: which ends where its input does.
        first: its answer when it had compiled.
        answers: those of its turns.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        patience: float,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Starts the process and waits until it has compiled.

        Args:
            name: of the contestant.
            command: which runs ``answer``.
            patience: seconds that compiling, or a turn, may take.
            environment: variables beside those of this process.
        """
        self.name, self._patience = name, patience
        self.process = subprocess.Popen(
            command,
            cwd=common.ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.first = self._read()
        self.answers: list[dict[str, Any]] = []

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        # Devices that wait for each other in a collective may do so for ever.
        watchdog = threading.Timer(self._patience, self.process.kill)
        watchdog.start()
        line = self.process.stdout.readline()
        watchdog.cancel()
        if not line:
            sys.exit(f"{self.name} ended with status {self.process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def turn(self, task: Any = None) -> None:
        """Has the child do a task."""
        print(json.dumps(task), file=self.process.stdin, flush=True)
        self.answers.append(self._read())

    @property
    def seconds(self) -> list[float]:
        """The seconds of its turns."""
        return [answer["seconds"] for answer in self.answers]

    def ratio(self, other: "Contestant") -> float:
        """The other one's time over its own, the median over the turns."""
        pairs = zip(self.seconds, other.seconds, strict=True)
        return statistics.median(theirs / own for own, theirs in pairs)


def compare(
    children: Iterable[tuple[str, str, str]],
    command: Sequence[str],
    tasks: Iterable[Any],
    *,
    environment: Mapping[str, str] = types.MappingProxyType({}),
    environments: Mapping[str, Mapping[str, str]] = types.MappingProxyType({}),
    **options: Any,
) -> list[Contestant]:
    """Starts contestants, one after the other, and lets them take turns.

    Compiling takes memory and cores, so it is done one at a time.

    Args:
        children: name, Python and kind of each.
        command: module that all run with ``--child KIND`` before this program's own
            arguments, and what else they are told.
        tasks: one for each round.
        environment: variables of all, beside those of this process.
        environments: kind -> further ones.
        options: of ``Contestant``.
    """
    contestants = [
        Contestant(
            name,
            [python, "-m", *command, "--child", kind, *sys.argv[1:]],
            environment={**environment, **environments.get(kind, {})},
            **options,
        )
        for name, python, kind in children
    ]
    for task in tasks:
        for contestant in contestants:
            contestant.turn(task)
    for contestant in contestants:
        contestant.process.communicate()  # lets it end
    return contestants


def compared(
    experiment: str,
    contestants: Sequence[Contestant],
    measured: Callable[[Contestant], Mapping[str, Any]],
    **settings: Any,
) -> list[dict[str, Any]]:
    """A record of each contestant.

    Args:
        experiment: name of the benchmark.
        contestants: the last one is PyTorch, which the others are compared with.
        measured: contestant -> the benchmark's own numbers.
        settings: that they had in common.
    """
    return [
        common.stamped(
            experiment=experiment,
            contestant=contestant.name,
            version=contestant.first["version"],
            **settings,
            **measured(contestant),
            ratio_to_pytorch=contestant.ratio(contestants[-1]),
        )
        for contestant in contestants
    ]


def children_parser(
    doc: str | None, *, model: str, rounds: int, patience: float
) -> argparse.ArgumentParser:
    """The flags of a benchmark by ``compare``, with these defaults."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--model", default=model, help="wrn_D_K, airbench94")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument(
        "--patience",
        type=float,
        default=patience,
        help="seconds that compiling or a turn may take",
    )
    parser.add_argument("--torch_python", default=sys.executable)
    parser.add_argument("--out", type=pathlib.Path, help="append records here")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser


def answer(kind: str, turn: Callable[[Any], Mapping[str, Any]], **about: Any) -> None:
    """The child's side: says that it is ready, then answers every task.

    Args:
        kind: "torch", or any other for JAX.
        turn: task -> answer.
        about: more to say once.
    """
    name, module = ("PyTorch", "torch") if kind == "torch" else ("JAX", "jax")
    version = f"{name} {importlib.import_module(module).__version__}"
    if name == "JAX" and "--xla_cpu_use_onednn=true" in os.environ.get("XLA_FLAGS", ""):
        version += ", oneDNN"
    print(json.dumps({"version": version, **about}), flush=True)
    for line in sys.stdin:
        print(json.dumps(turn(json.loads(line))), flush=True)
