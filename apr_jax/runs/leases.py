"""Claims to a folder in a store, where there are no locks.

A claim is an object ``NAME-1``, put where there is none, which its holder puts again
every ``BEAT`` seconds. Where it stays the same for ``STALE`` seconds its holder is
gone, and whoever then puts ``NAME-2`` first holds the folder. A holder that slept
meanwhile sees the higher number, and writes nothing more.
"""

import contextlib
import json
import os
import pathlib
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from apr_jax.errors import CheckpointError
from apr_jax.gates import stores

BEAT, STALE = 10.0, 45.0  # seconds

_held: "list[_Lease]" = []


class Taken(Exception):
    """Another process holds the folder."""


def check(place: stores.StorePath) -> None:
    """Checks, before something is written, that no claim of this process is lost.

    Raises:
        CheckpointError: another process has taken over a folder around ``place``.
    """
    for lease in list(_held):
        if place.is_relative_to(lease.root):
            lease.check()


@contextlib.contextmanager
def holding(
    root: stores.StorePath, name: str, say: Callable[[str], None]
) -> Iterator[None]:
    """Holds a folder under a name.

    Args:
        root: the folder.
        name: of the claim; claims of different names don't meet.
        say: told where it takes a while to see whether another process still works.

    Raises:
        Taken: one does.
    """
    lease = _Lease(root, name, say)
    _held.append(lease)
    try:
        yield
    finally:
        _held.remove(lease)
        lease.release()


class _Lease:
    """A claim that is held, and the thread that says so."""

    def __init__(
        self, root: stores.StorePath, name: str, say: Callable[[str], None]
    ) -> None:
        self.root, self._name = root, name
        self._about = {**_whereabouts(), "id": secrets.token_hex(8)}
        self._number = self._taken(say)
        self._beats, self._seen = 0, time.monotonic()
        self._lock, self._lost = threading.Lock(), False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises CheckpointError if another process has taken over the folder."""
        if time.monotonic() - self._seen > 2 * BEAT:
            self._look()  # it was asleep, or the store is out of reach
        if self._lost:
            raise CheckpointError(
                f"another process has taken over {self.root}, as this one gave no sign "
                f"of life for {STALE:.0f} s; it writes nothing more there"
            )

    def release(self) -> None:
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # it is stale soon
            for number in self._numbers():
                if number <= self._number and not self._lost:
                    self._path(number).unlink(missing_ok=True)

    def _taken(self, say: Callable[[str], None]) -> int:
        """Takes the folder, and returns the number of the claim."""
        while True:
            numbers = self._numbers()
            last = max(numbers, default=0)
            before = self._read(last) if last else None
            if last and not self._is_stale(last, before, say):
                raise Taken
            if not self._path(last + 1).write_new(self._words(0)):
                continue
            if self._is_met(last, before):
                self._path(last + 1).unlink(missing_ok=True)
                raise Taken
            for number in numbers:
                self._path(number).unlink(missing_ok=True)
            return last + 1

    def _is_met(self, last: int, before: Any) -> bool:
        """Whether somebody else has put a claim since the ``last`` one was read.

        Who finds it released counts on from it, and who lists the folder a moment
        later begins anew: neither's number keeps the other's from being put.
        """
        if any(number > last + 1 for number in self._numbers()):
            return True
        now = self._read(last) if last else None
        return now is not None and now != before

    def _is_stale(self, number: int, before: Any, say: Callable[[str], None]) -> bool:
        """Whether the holder of a claim, which said that, is gone; waits to know it."""
        if before is None or _is_over(before):
            return True
        said, deadline = False, time.monotonic() + STALE
        while time.monotonic() < deadline:
            time.sleep(min(1.0, BEAT / 4))
            now = self._read(number)
            if now is None:
                return True
            if now != before:
                return False
            if not said and time.monotonic() > deadline - STALE + 2 * BEAT:
                say(f"looking whether another process still works in {self.root}")
                said = True
        return True

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            with contextlib.suppress(OSError):  # whoever writes next is told
                self._look()
            if self._lost:
                return

    def _look(self) -> None:
        """Looks whether this claim is still there and the last; puts it again."""
        with self._lock:
            own = self._read(self._number)
            gone = own is None or own["id"] != self._about["id"]
            if gone or max(self._numbers()) > self._number:
                self._lost = True
                return
            self._beats += 1
            self._path(self._number).write_bytes(self._words(self._beats))
            self._seen = time.monotonic()

    def _numbers(self) -> list[int]:
        found = (
            re.fullmatch(rf"{re.escape(self._name)}-(\d+)", path.name)
            for path in self.root.iterdir()
        )
        return sorted(int(match[1]) for match in found if match)

    def _path(self, number: int) -> stores.StorePath:
        return self.root / f"{self._name}-{number}"

    def _words(self, beats: int) -> bytes:
        return json.dumps({**self._about, "beats": beats}).encode()

    def _read(self, number: int) -> Any:
        """What a claim says; None if it is no longer there."""
        try:
            return json.loads(self._path(number).read_bytes())
        except FileNotFoundError:
            return None


def _whereabouts() -> dict[str, Any]:
    """This process, as others of the same machine can look for it."""
    machine = ""
    with contextlib.suppress(OSError):  # where there is no Linux
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        machine = f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return {"host": socket.gethostname(), "machine": machine, "process": os.getpid()}


def _is_over(about: Any) -> bool:
    """Whether a process of this machine has ended; of another it isn't known."""
    machine = _whereabouts()["machine"]
    if not machine or about.get("machine") != machine:
        return False
    return not pathlib.Path(f"/proc/{about['process']}").exists()
