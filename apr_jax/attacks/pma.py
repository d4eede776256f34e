"""Probability margin attack: sign steps that climb probabilities, not logits.

Xie et al., "Towards million-scale adversarial robustness evaluation with stronger
individual attacks", CVPR 2025; steps and phases as in the authors' code (OpenTAI,
``taiadv``), which are those of margin decomposition (Ma et al., "Imbalanced gradients",
2020) with probabilities in the place of logits.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax.attacks import arguments, losses, norms
from apr_jax.attacks.core import LogitsFn, Points, answers_wrong, fold_all, look
from apr_jax.attacks.rounds import Result, Stage, run_alone
from apr_jax.errors import ArgumentError

NORM = "linf"  # the only one of paper and code
_START = 0x9A01  # keeps the starts' draws apart from those of the steps
_RUNS = 2  # by the label's probability first, and by the other one's


class PMAState(NamedTuple):
    """The place of the search, and its finds."""

    points: Points
    iteration: jax.Array
    images: jax.Array  # the current iterate
    adv: jax.Array  # the first misclassified one
    broken: jax.Array  # bool [B]


@dataclasses.dataclass(frozen=True)
class PMA:
    """Two runs of ``iterations`` steps, each from a random point of the ball.

    A run begins with a step that raises the label's probability. Then the first one
    lowers it, the second one raises the largest other one, and from the middle on both
    climb the margin of the two. Steps are along the gradient's sign; they fall from
    2 eps to 0 by half a cosine, and again from the middle on.
    """

    iterations: int

    def __post_init__(self) -> None:
        """Refuses a run that would never climb."""
        if self.iterations < 2:
            raise ArgumentError(f"steps is {self.iterations}; pma takes 2 or more")

    @property
    def steps(self) -> int:
        """Each run looks at one point more than it makes moves."""
        return _RUNS * (self.iterations + 1)

    def init(self, points: Points) -> PMAState:
        """Starts at random in the ball."""
        return PMAState(
            points=points,
            iteration=jnp.zeros(len(points.labels), jnp.int32),
            images=self._start(points, 0),
            adv=jnp.array(points.images),
            broken=jnp.zeros(len(points.labels), bool),
        )

    def step(self, logits_fn: LogitsFn, state: PMAState) -> PMAState:
        """Judges the iterate, and moves it, or begins the second run."""
        points = state.points
        run = state.iteration // (self.iterations + 1)
        number = state.iteration % (self.iterations + 1)
        key = jax.random.fold_in(points.keys[0], state.iteration[0])
        other, label = self._weights(run, number)

        def climbed(
            logits: jax.Array, labels: jax.Array, targets: jax.Array
        ) -> jax.Array:
            largest, own = losses.probabilities(logits, labels)
            return other * largest + label * own

        _, grad, logits = look(logits_fn, climbed, points, state.images, key)
        wrong = answers_wrong(logits, points.labels)
        length = norms.column(points.eps * self._share(number), grad)
        moved = norms.project(
            state.images + length * jnp.sign(grad), points.images, points.eps, NORM
        )
        last = number == self.iterations
        return PMAState(
            points=points,
            iteration=state.iteration + 1,
            images=norms.pick(last, self._start(points, 1), moved),
            adv=norms.pick(wrong & ~state.broken, state.images, state.adv),
            broken=state.broken | wrong,
        )

    def done(self, state: PMAState) -> jax.Array:
        """A broken point stays broken."""
        return state.broken

    def result(self, state: PMAState) -> jax.Array:
        """The first misclassified iterate, or the clean image."""
        return state.adv

    def _start(self, points: Points, run: int) -> jax.Array:
        keys = fold_all(points.keys, _START + run)
        return norms.random_inside(keys, points.images, points.eps, NORM)

    def _weights(
        self, run: jax.Array, number: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Those of the largest other probability and of the label's, at a step [B]."""
        first, late = number == 0, 2 * number >= self.iterations
        other = jnp.where(first, 0.0, jnp.where(late | (run > 0), 1.0, 0.0))
        label = jnp.where(first, 1.0, jnp.where(late | (run == 0), -1.0, 0.0))
        return other, label

    def _share(self, number: jax.Array) -> jax.Array:
        """The length of a step [B], in eps."""
        half = self.iterations / 2
        since = jnp.where(number > half, number - half, number) - 1.0
        return 1.0 + jnp.cos(jnp.pi * since / half)


@arguments.gated("pma", choices=(NORM,))
def pma(
    key: jax.Array,
    logits_fn: LogitsFn,
    images: jax.Array | np.ndarray,
    labels: jax.Array | np.ndarray,
    *,
    eps: float,
    norm: str = NORM,
    steps: int = 100,
    restarts: int = 1,
    chunk: int = 256,
) -> Result:
    """Attacks by the margin of probabilities; survivors are in ``survived["pma"]``.

    Args:
        key: one key.
        logits_fn: pixels [B, H, W, C] in [0, 1] -> logits [B, K]; see ``pgd``.
        images: floating point [N, H, W, C] in [0, 1].
        labels: int [N].
        eps: radius of the ball.
        norm: "linf", for which it was made.
        steps: of each of a restart's two runs; 2 or more.
        restarts: each attacks what is left.
        chunk: images worked on at a time, at most.

    Raises:
        TypeError: pixels are not floating point.
        ArgumentError: a setting under which nothing is done, an unknown name, or
            images, labels or logits of another shape or range.
    """
    stage = Stage("pma", PMA(steps), restarts=restarts)
    return run_alone(stage, key, logits_fn, images, labels, norm, eps, chunk)
