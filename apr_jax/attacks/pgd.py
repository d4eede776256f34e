"""Projected gradient descent (Madry et al. 2018), and its single step, FGSM.

FGSM is the fast gradient sign method (Goodfellow et al. 2015), with or without noise.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax.attacks import arguments, losses, norms
from apr_jax.attacks.core import LogitsFn, Points, answers_wrong, fold_all, look
from apr_jax.attacks.rounds import Result, Stage, run_alone

_START = 0x57A7  # keeps the start's draws apart from those of the steps


class PGDState(NamedTuple):
    """The place of the search, and its finds."""

    points: Points
    iteration: jax.Array
    images: jax.Array  # the current iterate
    adv: jax.Array  # the first misclassified one
    broken: jax.Array  # bool [B]


@dataclasses.dataclass(frozen=True)
class PGD:
    """``steps`` along the gradient, each ``step_share`` of eps long.

    The iterate moves along the gradient's sign for "linf", along the gradient for
    "l2"; after each step it is put back into the ball and the box. The first
    misclassified iterate is kept, not merely the last, unless it goes ``to_end``.
    """

    norm: str
    loss: str
    steps: int
    step_share: float
    to_end: bool = False  # all steps, whatever is answered: for another network

    def init(self, points: Points) -> PGDState:
        """Starts at the image, or at random in the ball where ``noise`` is 1."""
        start = norms.random_inside(
            fold_all(points.keys, _START), points.images, points.eps, self.norm
        )
        # Two buffers: a state is given away whole, and no buffer can go twice.
        return PGDState(
            points=points,
            iteration=jnp.zeros(len(start), jnp.int32),
            images=norms.pick(points.noise > 0, start, points.images),
            adv=jnp.array(points.images),
            broken=jnp.zeros(len(points.labels), bool),
        )

    def step(self, logits_fn: LogitsFn, state: PGDState) -> PGDState:
        """Judges the iterate, and moves it."""
        points = state.points
        key = jax.random.fold_in(points.keys[0], state.iteration[0])
        loss_fn = losses.get_loss(self.loss)
        _, grad, logits = look(logits_fn, loss_fn, points, state.images, key)
        wrong = answers_wrong(logits, points.labels)
        length = norms.column(points.eps * self.step_share, grad)
        way = norms.steepest(grad, self.norm)
        moved = norms.project(
            state.images + length * way, points.images, points.eps, self.norm
        )
        return PGDState(
            points=points,
            iteration=state.iteration + 1,
            images=moved,
            adv=norms.pick(wrong & ~state.broken, state.images, state.adv),
            broken=state.broken | wrong,
        )

    def done(self, state: PGDState) -> jax.Array:
        """A broken point stays broken."""
        return state.broken & (not self.to_end)

    def result(self, state: PGDState) -> jax.Array:
        """The first misclassified iterate; the last of all where there was none."""
        return norms.pick(self.done(state), state.adv, state.images)


@arguments.gated("pgd", choices=("linf", "l2"))
def pgd(
    key: jax.Array,
    logits_fn: LogitsFn,
    images: jax.Array | np.ndarray,
    labels: jax.Array | np.ndarray,
    *,
    eps: float,
    norm: str = "linf",
    steps: int = 40,
    step_size: float | None = None,
    restarts: int = 1,
    random_start: bool = True,
    loss: str = "ce",
    chunk: int = 256,
) -> Result:
    """Attacks with projected gradient descent; survivors are in ``survived["pgd"]``.

    Args:
        key: one key.
        logits_fn: pixels [B, H, W, C] in [0, 1] -> logits [B, K]; pure JAX code. A
            ``functools.partial`` over a model's variables takes other weights without
            compiling anew.
        images: floating point [N, H, W, C] in [0, 1].
        labels: int [N].
        eps: radius of the ball.
        norm: "linf" or "l2".
        steps: of each restart.
        step_size: length of a step, in pixels for "linf"; None is 2.5 eps / steps.
        restarts: each attacks what is left.
        random_start: start anywhere in the ball rather than at the image.
        loss: a name of ``losses.LOSSES`` that needs no target.
        chunk: images worked on at a time, at most.

    Raises:
        TypeError: pixels are not floating point.
        ArgumentError: a setting under which nothing is done, an unknown name, or
            images, labels or logits of another shape or range.
    """
    share = 2.5 / steps if step_size is None else step_size / eps
    noise = "always" if random_start else "never"
    stage = Stage("pgd", PGD(norm, loss, steps, share), restarts=restarts, noise=noise)
    return run_alone(stage, key, logits_fn, images, labels, norm, eps, chunk)


@arguments.gated("fgsm", choices=("linf", "l2"))
def fgsm(
    key: jax.Array,
    logits_fn: LogitsFn,
    images: jax.Array | np.ndarray,
    labels: jax.Array | np.ndarray,
    *,
    eps: float,
    norm: str = "linf",
    step_size: float | None = None,
    random_start: bool = False,
    chunk: int = 256,
) -> Result:
    """Attacks with one gradient step; survivors are in ``survived["fgsm"]``.

    Args:
        key: one key; used by the random start.
        logits_fn: pixels [B, H, W, C] in [0, 1] -> logits [B, K]; see ``pgd``.
        images: floating point [N, H, W, C] in [0, 1].
        labels: int [N].
        eps: radius of the ball.
        norm: "linf", or "l2" for a step along the gradient itself.
        step_size: length of the step; None is eps.
        random_start: start anywhere in the ball, as "fast" adversarial training does
            (Wong et al. 2020, with a step of 1.25 eps).
        chunk: images worked on at a time, at most.

    Raises:
        TypeError: pixels are not floating point.
        ArgumentError: a setting under which nothing is done, an unknown name, or
            images, labels or logits of another shape or range.
    """
    share = 1.0 if step_size is None else step_size / eps
    noise = "always" if random_start else "never"
    stage = Stage("fgsm", PGD(norm, "ce", 1, share), noise=noise)
    return run_alone(stage, key, logits_fn, images, labels, norm, eps, chunk)
