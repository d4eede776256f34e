"""FAB: the nearest misclassified image, by steps onto the linearised boundary.

Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary
attack", ICML 2020.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax.attacks import arguments, losses, norms
from apr_jax.attacks.core import (
    LogitsFn,
    Points,
    answers_wrong,
    fold_all,
    logits_of,
    look,
)
from apr_jax.attacks.hyperplanes import to_hyperplane
from apr_jax.attacks.rounds import Result, Stage, run_alone
from apr_jax.errors import ArgumentError

_START = 0xFAB0  # keeps the start's draws apart from those of the steps
_FAR = 1e10  # farther than any image
# Radii of random starts where eps is endless, as in the original.
_USUAL = {"linf": 0.3, "l2": 1.0, "l1": 5.0}
_TINY = 1e-12
_SHORTEST = 1e-8  # of the lengths whose ratio weighs the two projections


class FABState(NamedTuple):
    """The place of the search, and the nearest misclassified image so far."""

    points: Points
    iteration: jax.Array
    images: jax.Array
    adv: jax.Array
    distance: jax.Array  # of ``adv``; _FAR where there is none


@dataclasses.dataclass(frozen=True)
class FAB:
    """``steps`` towards the boundary, and back once it is crossed.

    ``alpha_max`` bounds the pull back to the image, ``eta`` is how far a step goes
    beyond the boundary, ``beta`` how much of the way is kept after crossing it.
    """

    norm: str
    targeted: bool
    steps: int
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    nearest: bool = False  # search on for the nearest after one within eps is found

    def init(self, points: Points) -> FABState:
        """Starts at the image, or within eps / 2 of it where ``noise`` is 1."""
        noise = norms.random_direction(
            fold_all(points.keys, _START), points.images, self.norm
        )
        eps = jnp.where(jnp.isinf(points.eps), _USUAL[self.norm], points.eps)
        reach = 0.5 * points.noise * eps
        start = points.images + norms.column(reach, noise) * noise
        return FABState(
            points=points,
            iteration=jnp.zeros(len(start), jnp.int32),
            images=jnp.clip(start, 0.0, 1.0),
            adv=jnp.array(points.images),
            distance=jnp.full(len(points.labels), _FAR, jnp.float32),
        )

    def step(self, logits_fn: LogitsFn, state: FABState) -> FABState:
        """Goes onto the boundary as it looks from here; keeps what is beyond it."""
        points, here = state.points, norms.flat(state.images)
        clean = norms.flat(points.images)
        key = jax.random.fold_in(points.keys[0], state.iteration[0])
        linearise = self._to_target if self.targeted else self._to_nearest
        value, normal = linearise(logits_fn, state, key)
        normal = norms.flat(normal)
        value_clean = value + (normal * (clean - here)).sum(1)
        both = lambda a, b: jnp.concatenate([a, b])
        change = to_hyperplane(
            both(here, clean),
            both(normal, normal),
            both(value, value_clean),
            self.norm,
        )
        lengths = jnp.maximum(norms.size(change, self.norm), _SHORTEST)
        (from_here, from_clean), (near, far) = (
            jnp.split(change, 2),
            jnp.split(lengths, 2),
        )
        alpha = jnp.minimum(near / (near + far), self.alpha_max)[:, None]
        moved = (here + self.eta * from_here) * (1.0 - alpha)
        moved += (clean + self.eta * from_clean) * alpha
        moved = jnp.clip(moved, 0.0, 1.0).reshape(state.images.shape)

        wrong = answers_wrong(logits_of(logits_fn, moved, key), points.labels)
        delta = moved - points.images
        distance = norms.size(delta, self.norm)
        # An image within eps stays, so that it doesn't matter when a chunk stops.
        nearer = wrong & (distance < state.distance) & ~self.done(state)
        return FABState(
            points=points,
            iteration=state.iteration + 1,
            images=norms.pick(wrong, points.images + self.beta * delta, moved),
            adv=norms.pick(nearer, moved, state.adv),
            distance=jnp.where(nearer, distance, state.distance),
        )

    def done(self, state: FABState) -> jax.Array:
        """Whether one within eps was found, unless the nearest is wanted."""
        return self._near(state) & (not self.nearest)

    def result(self, state: FABState) -> jax.Array:
        """The nearest misclassified image, or the clean one if that is beyond eps."""
        return norms.pick(self._near(state), state.adv, state.points.images)

    def _near(self, state: FABState) -> jax.Array:
        """Whether one was found, and within eps, which may be endless."""
        within = state.distance <= norms.radius(state.points.eps, self.norm)
        return within & (state.distance < _FAR)

    def _to_target(
        self, logits_fn: LogitsFn, state: FABState, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Lead [B] of the target over the label, and its gradient."""
        found = look(logits_fn, losses.target_lead, state.points, state.images, key)
        return found[:2]

    def _to_nearest(
        self, logits_fn: LogitsFn, state: FABState, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """The same for the class whose boundary seems nearest, among all."""
        labels = state.points.labels
        logits, pull = jax.vjp(
            lambda images: logits_of(logits_fn, images, key), state.images
        )
        classes = logits.shape[1]
        own = jax.nn.one_hot(labels, classes, dtype=logits.dtype)
        dual = {"linf": "l1", "l2": "l2", "l1": "linf"}[self.norm]

        def consider(
            best: tuple[jax.Array, jax.Array, jax.Array], number: jax.Array
        ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], None]:
            distance, lead, normal = best
            one = jnp.zeros_like(logits).at[:, number].set(1.0)
            (grad,) = pull(one - own)
            ahead = logits[:, number] - losses.logit_of(logits, labels)
            far = jnp.abs(ahead) / (norms.size(grad, dual) + _TINY)
            nearer = (far < distance) & (labels != number)
            return (
                jnp.where(nearer, far, distance),
                jnp.where(nearer, ahead, lead),
                norms.pick(nearer, grad, normal),
            ), None

        start = (jnp.full_like(logits[:, 0], jnp.inf), jnp.zeros_like(logits[:, 0]))
        # One class after the other: all gradients at once would be K times the batch.
        (_, lead, normal), _ = jax.lax.scan(
            consider, (*start, jnp.zeros_like(state.images)), jnp.arange(classes)
        )
        return lead, normal


@arguments.gated("fab", endless=True)
def fab(
    key: jax.Array,
    logits_fn: LogitsFn,
    images: jax.Array | np.ndarray,
    labels: jax.Array | np.ndarray,
    *,
    eps: float,
    norm: str = "linf",
    targeted: bool = False,
    targets: int = 9,
    steps: int = 100,
    restarts: int = 1,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
    nearest: bool = False,
    chunk: int = 256,
) -> Result:
    """Attacks with FAB; survivors are in ``survived["fab"]``, or "fab-t" if targeted.

    Args:
        key: one key.
        logits_fn: pixels [B, H, W, C] in [0, 1] -> logits [B, K]; see ``pgd``.
        images: floating point [N, H, W, C] in [0, 1].
        labels: int [N].
        eps: what is farther away counts as robust; with ``math.inf`` nothing does,
            and ``nearest`` gives the nearest misclassified images.
        norm: a name of ``NORMS``.
        targeted: try the ``targets`` likeliest other classes one after the other,
            rather than whichever seems nearest in each step.
        targets: see ``targeted``.
        steps: of each restart.
        restarts: each attacks what is left, from the second time with a random start.
        alpha_max: bound of the pull back to the image.
        eta: how far a step goes, where 1 ends on the boundary.
        beta: share of the perturbation that is kept once it succeeded.
        nearest: go on looking after an image within eps was found; for one round
            alone (one start, at most one target), as each attacks what is left only.
        chunk: images worked on at a time, at most.

    Raises:
        TypeError: pixels are not floating point.
        ArgumentError: a setting under which nothing is done, an unknown name, or
            images, labels or logits of another shape or range.
    """
    rounds = restarts * (targets if targeted else 1)
    if nearest and rounds > 1:
        raise ArgumentError(
            f"nearest is True, which goes on in one round alone, and there are {rounds}"
            ": give restarts=1, and targeted=False or targets=1"
        )
    stage = Stage(
        "fab-t" if targeted else "fab",
        FAB(norm, targeted, steps, alpha_max, eta, beta, nearest),
        targets=targets if targeted else 0,
        restarts=restarts,
        noise="again",
    )
    return run_alone(stage, key, logits_fn, images, labels, norm, eps, chunk)
