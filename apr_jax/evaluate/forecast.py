"""How fast a network answers, and how long a sequence of attacks will go on.

Of attacks the most that they may take is estimated: an image that fell is not attacked
again, and which will fall isn't known.
"""

import math
import time
from collections.abc import Callable, MutableMapping, Sequence

from apr_jax import console
from apr_jax.attacks import rounds

# A gradient costs about so many answers: forward, and backward to the pixels.
GRADIENT = 3
# Seconds of steps before the whole is estimated, and of a whole worth to be said.
_SEEN, _WORTH = 5.0, 60.0
_BRIEF = 20.0  # seconds that a single batch may take to be measured again


class Stopwatch:
    """How many images a second a loop over batches answers, but for its first one.

    Args:
        speeds: where that is noted, as "images/s"; not if None, or noted before.
    """

    def __init__(self, speeds: MutableMapping[str, float] | None) -> None:
        self._speeds = None if speeds and "images/s" in speeds else speeds
        self._began, self._images, self._took = time.monotonic(), -1, 0.0

    @property
    def wanted(self) -> bool:
        """Whether there was one batch only, that took little time."""
        return self._speeds is not None and not self._images and self._took < _BRIEF

    def note(self, images: int) -> None:
        """Notes that a batch of so many images is done."""
        if self._speeds is None:
            return
        now = time.monotonic()
        if self._images < 0:  # the first, which was compiled
            self._images, self._took, self._began = 0, now - self._began, now
            return
        self._images += images
        self._speeds["images/s"] = self._images / max(now - self._began, 1e-9)


def steps(stage: rounds.Stage, classes: int) -> int:
    """The steps of an attack for an image that withstands all its rounds."""
    return stage.attack.steps * len(list(stage.rounds(classes)))


def cost(stage: rounds.Stage) -> int:
    """What a step of an attack costs an image, in answers of the network."""
    each = GRADIENT if stage.follows_gradients else 1
    return each * int(getattr(stage.attack, "eot", 1))


class Forecast:
    """What is left of a sequence of attacks, said once it is known.

    That is after its first steps, less those that were compiled, and again where half
    of it or less is left because images fell.
    """

    def __init__(
        self,
        what: str,
        stages: Sequence[rounds.Stage],
        classes: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes the sequence's name and attacks, and how many classes there are."""
        self._what, self._clock = what, clock
        self._costs = {s.name: steps(s, classes) * cost(s) for s in stages}
        self._each = {s.name: cost(s) for s in stages}
        self._name, self._standing, self._share = "", 0, 0.0
        self._calls, self._since, self._done, self._pending = 0, 0.0, 0, 0
        self._said = math.inf  # seconds, the last time

    @property
    def total(self) -> int:
        """Answers for an image that withstands everything."""
        return sum(self._costs.values())

    def begin(self, name: str, standing: int) -> None:
        """From now on it is an attack on so many images."""
        self._name, self._standing, self._share = name, standing, 0.0
        self._calls = 0

    def place(self, name: str, share: float) -> float:
        """How far of ``total`` a share of an attack is; kept as the present one."""
        self._share = share
        names = list(self._costs)
        before = sum(self._costs[n] for n in names[: names.index(name)])
        return before + share * self._costs[name]

    def work(self, amount: int) -> None:
        """Notes that ``amount`` steps of one image each begin; may say what is left.

        All that began before them is done.
        """
        now = self._clock()
        self._calls += 1
        if self._calls <= 2:  # the first compiles
            self._since, self._done, self._pending = now, 0, amount
            return
        self._done, self._pending = self._done + self._pending, amount
        seconds = now - self._since
        if seconds < _SEEN or not self._name:
            return
        rate = self._done * self._each[self._name] / seconds
        left = (self.total - self.place(self._name, self._share)) * self._standing
        expected = left / rate
        if expected > _WORTH and expected < self._said / 2:
            self._said = expected
            console.say(
                f"{self._what} on {self._standing:,} images: about "
                f"{console.duration(expected)} at most from now on"
            )
