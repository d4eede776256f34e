"""Attacks on many points in a batch of fixed shape: who is done leaves at once.

A batch has slots. Each holds a point in one round (a restart, or a target) of an attack
and counts its own steps; when a point is broken, or its steps are over, the next one
takes its slot. So few sizes of batches are compiled, and few slots run empty.

A CPU works on several batches side by side, each in a lane, which is a thread; what
comes out does not depend on which lane was first.
"""

import dataclasses
import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any, NamedTuple

import jax
import numpy as np

from apr_jax.attacks.core import Attack, Engine, Points

_NOBODY = -1


class _Find(NamedTuple):
    """The image that a round ended with, to be judged."""

    place: int
    number: int
    image: np.ndarray


class Queue:
    """Which round of which point is next; and what the rounds found.

    A point goes through its rounds in their order until one breaks it. Where nothing
    else waits, a later round begins before an earlier one has ended; what it finds
    counts if the earlier ones find nothing, as if they had run one after the other.

    Attributes:
        rounds: of each point.
        found: by place, the image of the first round that broke the point, or None.
    """

    def __init__(self, count: int, rounds: int) -> None:
        """Takes how many points there are."""
        self.rounds = rounds
        self.found: list[np.ndarray | None] = [None] * count
        self._begun = np.zeros(count, int)
        self._ended = np.zeros(count, int)
        self._held = np.zeros(count, int)  # rounds whose find isn't judged yet
        self._limit = np.full(count, rounds)  # the first round that broke it

    @property
    def broken(self) -> np.ndarray:
        """The points, bool [N], that a round broke."""
        return self._limit < self.rounds

    @property
    def share(self) -> float:
        """The share of all rounds that need not run any more."""
        over = np.where(self.broken, self.rounds, self._ended)
        return float(over.sum()) / max(over.size * self.rounds, 1)

    def take(self, count: int) -> np.ndarray:
        """Returns up to ``count`` places of points, and the round of each, [2, M]."""
        open_ = np.flatnonzero((self._begun < self._limit) & (self._held == 0))
        taken: list[np.ndarray] = []
        while count > 0 and len(open_):
            begun = self._begun[open_]
            early = begun - self._ended[open_]
            chosen = open_[np.lexsort((open_, begun, early))[:count]]
            taken.append(np.stack([chosen, self._begun[chosen]]))
            self._begun[chosen] += 1
            count -= len(chosen)
            open_ = open_[self._begun[open_] < self._limit[open_]]
        return np.concatenate([np.zeros((2, 0), int), *taken], axis=1)

    def needless(self, places: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Whether an earlier round has broken the point meanwhile."""
        return numbers > self._limit[places]

    def hold(self, place: int) -> None:
        """Begins no round of a point until what was found is settled."""
        self._held[place] += 1

    def settle(self, place: int, number: int, image: np.ndarray | None) -> None:
        """Notes what a held round came to."""
        self._held[place] -= 1
        self._ended[place] += 1
        if image is not None and number < self._limit[place]:
            self._limit[place], self.found[place] = number, image


def run(
    engine: Engine,
    attack: Attack,
    queue: Queue,
    clean: np.ndarray,
    points_of: Callable[[np.ndarray, np.ndarray], Points],
    judge: Callable[[np.ndarray, np.ndarray], np.ndarray],
    tick: Callable[[float], None],
) -> None:
    """Attacks all that waits in a queue, which then holds the outcome.

    Args:
        engine: runs batches.
        attack: what to run.
        queue: points and their rounds.
        clean: their images [N, H, W, C], classified correctly.
        points_of: (places, rounds) -> the points of a batch.
        judge: (places, images) -> which images count as adversarial, bool.
        tick: is called with the share that is done.
    """
    waiting = len(queue.found) * queue.rounds
    lanes = engine.lanes(clean, waiting)
    if lanes > 1 and not _traced_alike_in_threads():
        lanes = 1
    size = engine.slots(waiting, lanes)
    programs = engine.programs(attack)
    lane = _Lane(
        engine, attack.steps, programs, size, queue, clean, points_of, judge, tick
    )
    with futures.ThreadPoolExecutor(lanes) as pool:
        others = [pool.submit(lane, first=False) for _ in range(lanes - 1)]
        lane(first=True)
    for other in others:
        other.result()


def _traced_alike_in_threads() -> bool:
    """Whether a thread would compile the programs of this one.

    Contexts such as ``jax.default_matmul_precision`` hold for one thread alone.
    """
    traces = []

    @jax.jit
    def program(x: jax.Array) -> jax.Array:
        traces.append(x)
        return x

    program.trace(0.0)
    thread = threading.Thread(target=program.trace, args=(0.0,))
    thread.start()
    thread.join()
    return len(traces) == 1


@dataclasses.dataclass(frozen=True)
class _Lane:
    """Takes points from a queue into a batch and attacks them, until none waits.

    Threads may call the same one side by side: each has a batch of its own.

    Attributes:
        steps: of the attack.
        programs: of the attack, by ``Engine.programs``.
        size: of a batch.
        shared: held while the queue is asked or told.
        compiled: whether the first, in the caller's thread, has taken a step; the
            others wait for its programs.
        failed: whether a lane ended with an error; then the others end, too.
    """

    engine: Engine
    steps: int
    programs: tuple[Callable[..., Any], ...]
    size: int
    queue: Queue
    clean: np.ndarray
    points_of: Callable[[np.ndarray, np.ndarray], Points]
    judge: Callable[[np.ndarray, np.ndarray], np.ndarray]
    tick: Callable[[float], None]
    shared: threading.Lock = dataclasses.field(default_factory=threading.Lock)
    compiled: threading.Event = dataclasses.field(default_factory=threading.Event)
    failed: threading.Event = dataclasses.field(default_factory=threading.Event)

    def __call__(self, *, first: bool) -> None:
        """Goes through batches until nothing waits, or another lane failed."""
        try:
            if not first:
                self.compiled.wait()
            self._attack()
        except BaseException:
            self.failed.set()
            raise
        finally:
            self.compiled.set()

    def _attack(self) -> None:
        queue, size, clean = self.queue, self.size, self.clean
        start, merge, advance, done, result = self.programs
        who, number = np.full(size, _NOBODY), np.zeros(size, int)
        age = np.zeros(size, int)
        finds: list[_Find] = []
        state = None
        while not self.failed.is_set():
            free = np.flatnonzero(who == _NOBODY)
            with self.shared:
                taken = queue.take(len(free))
            scarce = not taken.size and 2 * len(free) >= size
            if finds and (scarce or len(finds) >= size):
                more = self._settle(finds, len(free) - taken.shape[1])
                taken, finds = np.concatenate([taken, more], 1), []
            slots = free[: taken.shape[1]]
            (who[slots], number[slots]), age[slots] = taken, 0
            busy = who != _NOBODY
            if not busy.any():
                return
            count = min(self.engine.stride, self.steps - int(age[busy].max()))
            if taken.size:
                places = np.maximum(who, 0)
                new = start(self.engine.put(self.points_of(places, number)))
                fresh = np.isin(np.arange(size), slots)
                state = new if state is None else merge(state, new, fresh)
            state = advance(state, count)
            age[busy] += count
            over = busy & (np.asarray(done(state)) | (age >= self.steps))
            self.compiled.set()
            with self.shared:
                needless = queue.needless(who, number)
            over |= busy & needless
            if not over.any():
                continue
            images = np.asarray(result(state))
            for slot in np.flatnonzero(over):
                find = _Find(int(who[slot]), int(number[slot]), images[slot].copy())
                # What an attack left alone is known to be classified correctly.
                same = np.array_equal(find.image, clean[find.place])
                with self.shared:
                    queue.hold(find.place)
                    if needless[slot] or same:
                        queue.settle(find.place, find.number, None)
                    else:
                        finds.append(find)
            who[over] = _NOBODY
            with self.shared:
                self.tick(queue.share)

    def _settle(self, finds: list[_Find], count: int) -> np.ndarray:
        """Judges finds, tells the queue, and takes up to ``count`` points more."""
        places = np.array([find.place for find in finds])
        good = self.judge(places, np.stack([find.image for find in finds]))
        with self.shared:
            for find, adversarial in zip(finds, good, strict=True):
                image = find.image if adversarial else None
                self.queue.settle(find.place, find.number, image)
            return self.queue.take(count)
