"""Attacks on many points in a batch of fixed shape: who is done leaves at once.

A batch has slots. Each holds a point in one round (a restart, or a target) of an attack
and counts its own steps; when a point is broken, or its steps are over, the next one
takes its slot. So few sizes of batches are compiled, and few slots run empty.
"""

from collections.abc import Callable
from typing import NamedTuple

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
    size = engine.slots(len(queue.found) * queue.rounds)
    start, merge, advance, done, result = engine.programs(attack)
    who, number = np.full(size, _NOBODY), np.zeros(size, int)
    age = np.zeros(size, int)
    finds: list[_Find] = []
    state = None
    while True:
        free = np.flatnonzero(who == _NOBODY)
        taken = queue.take(len(free))
        scarce = not taken.size and 2 * len(free) >= size
        if finds and (scarce or len(finds) >= engine.chunk):
            finds = _settle(queue, finds, judge)
            taken = np.concatenate([taken, queue.take(len(free) - taken.shape[1])], 1)
        if taken.size:
            slots = free[: taken.shape[1]]
            (who[slots], number[slots]), age[slots] = taken, 0
            new = start(engine.put(points_of(np.maximum(who, 0), number)))
            fresh = np.isin(np.arange(size), slots)
            state = new if state is None else merge(state, new, fresh)
        busy = who != _NOBODY
        if not busy.any():
            return
        count = min(engine.stride, attack.steps - int(age[busy].max()))
        state = advance(state, count)
        age[busy] += count
        over = busy & (np.asarray(done(state)) | (age >= attack.steps))
        needless = queue.needless(who, number)
        over |= busy & needless
        images = np.asarray(result(state)) if over.any() else clean
        for slot in np.flatnonzero(over):
            find = _Find(int(who[slot]), int(number[slot]), images[slot].copy())
            queue.hold(find.place)
            # What an attack left alone is known to be classified correctly.
            if needless[slot] or np.array_equal(find.image, clean[find.place]):
                queue.settle(find.place, find.number, None)
            else:
                finds.append(find)
        who[over] = _NOBODY
        if over.any():
            tick(queue.share)


def _settle(
    queue: Queue,
    finds: list[_Find],
    judge: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> list[_Find]:
    """Judges some finds and tells the queue; returns those that are left: none."""
    places = np.array([find.place for find in finds])
    good = judge(places, np.stack([find.image for find in finds]))
    for find, adversarial in zip(finds, good, strict=True):
        queue.settle(find.place, find.number, find.image if adversarial else None)
    return []
