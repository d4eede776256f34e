"""Auto-PGD: projected gradient descent that finds its own step size.

Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of
diverse parameter-free attacks", ICML 2020; for l1, Croce and Hein, "Mind the box:
l1-APGD for sparse adversarial attacks on image classifiers", ICML 2021.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax.attacks import arguments, losses, norms
from apr_jax.attacks.core import Array, LogitsFn, Points, answers_wrong, fold_all, look
from apr_jax.attacks.rounds import Result, Stage, run_alone

_START = 0xA96D  # keeps the start's draws apart from those of the steps
_MOMENTUM = 0.25  # share of the move before in each move
# l1: how much sparser than the best point a step is, by what a check divides its
# length, and by what at most.
_SPARSER, _SHORTER, _SHORTEST = 1.5, 1.5, 10.0
_GROWING = 0.95  # l1: a best point sparser by this factor starts over with long steps
_FIRST_SHARE = 0.2  # l1: share of the pixels that the first steps change


class APGDState(NamedTuple):
    """The place of the search, its finds and how it is going."""

    points: Points
    iteration: jax.Array
    images: jax.Array  # to be looked at next
    previous: jax.Array  # the iterate before
    best: jax.Array  # the iterate of the highest loss, and its gradient
    best_grad: jax.Array
    best_loss: jax.Array
    last_loss: jax.Array
    rises: jax.Array  # steps since the last check that raised the loss
    checked_loss: jax.Array  # the highest loss at the last check
    halved: jax.Array  # whether the last check halved the step
    length: jax.Array  # of a step
    share: jax.Array  # l1: of the pixels that a step changes
    changed: jax.Array  # l1: pixels changed in the best iterate, at the last check
    adv: jax.Array  # the first misclassified iterate
    broken: jax.Array


class Plan(NamedTuple):
    """The plan of each step, fixed beforehand; NumPy arrays over the steps."""

    radius: Array  # in eps
    restart: Array  # a new phase begins at the best point of the one before
    first: Array  # first move of a phase: no momentum
    window: Array  # steps since the check before, where there is one; else 0
    final: Array  # in the last phase, whose radius is eps


@functools.cache
def make_plan(norm: str, iterations: int, shrink: bool) -> Plan:
    """Returns the plan of a search.

    Checks come after 0.22, then 0.03 less each time down to 0.06 of the iterations
    (equation 2 of the paper); for l1 every 0.04. ``shrink`` divides the search into
    phases at radius 3, 2 and 1 eps with 0.3, 0.3 and 0.4 of the iterations.
    """
    part = math.ceil(0.3 * iterations)
    phases = [(1.0, iterations)]
    if shrink:
        phases = [(3.0, part), (2.0, part), (1.0, iterations - 2 * part)]
    rows: list[tuple[float, bool, bool, int, bool]] = []
    for number, (radius, count) in enumerate(phases):
        final = number == len(phases) - 1
        if number:
            rows.append((radius, True, False, 0, final))
        window = max(int(0.22 * count), 1)
        if norm == "l1":
            window = max(int(0.04 * count), 1)
        since = 0
        for i in range(count):
            since += 1
            check = since == window
            rows.append((radius, False, i == 0, window if check else 0, final))
            if check:
                since = 0
                if norm != "l1":
                    shorter = window - max(int(0.03 * count), 1)
                    window = max(shorter, int(0.06 * count), 1)
    return Plan(*(np.array(column) for column in zip(*rows, strict=True)))


@dataclasses.dataclass(frozen=True)
class APGD:
    """``iterations`` steps that are halved where they stop raising the loss."""

    norm: str
    loss: str
    iterations: int
    rho: float = 0.75  # a check is passed if more than this share of steps rose
    eot: int = 1  # gradients averaged at each point, for stochastic functions
    shrink: bool = False  # begin with larger balls; see ``make_plan``

    @property
    def plan(self) -> Plan:
        """The plan of each step."""
        return make_plan(self.norm, self.iterations, self.shrink)

    @property
    def steps(self) -> int:
        """One gradient more than moves."""
        return len(self.plan.radius) + 1

    def init(self, points: Points) -> APGDState:
        """Starts on the ball's surface, or at the image where ``noise`` is 0."""
        radius = float(self.plan.radius[0]) * points.eps
        keys = fold_all(points.keys, _START)
        if self.norm == "l1":
            shape = points.images.shape[1:]
            noise = jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(
                keys
            )
        else:
            noise = norms.random_direction(keys, points.images, self.norm)
            noise *= norms.column(radius, noise)
        noise *= norms.column(points.noise, noise)
        start = norms.project(points.images + noise, points.images, radius, self.norm)
        low = jnp.full(len(start), -jnp.inf, jnp.float32)
        size = start[0].size
        share = jnp.full_like(low, _FIRST_SHARE)
        count = jnp.full_like(low, size)
        if self.shrink:
            count = _count(start - points.images)
            share = count / (_SPARSER * size)
        return APGDState(
            points=points,
            iteration=jnp.zeros(len(start), jnp.int32),
            images=start,
            previous=jnp.array(start),
            best=jnp.array(start),
            best_grad=jnp.zeros_like(start),
            best_loss=low,
            last_loss=jnp.full_like(low, jnp.inf),
            rises=jnp.zeros_like(low),
            checked_loss=jnp.array(low),
            halved=jnp.ones(len(start), bool),
            length=self._longest * radius,
            share=share,
            changed=count,
            adv=jnp.array(points.images),
            broken=jnp.zeros(len(start), bool),
        )

    def step(self, logits_fn: LogitsFn, state: APGDState) -> APGDState:
        """Looks at the iterate, at a check adapts the step, and moves."""
        points, images = state.points, state.images
        came, goes = self._rows(state.iteration - 1), self._rows(state.iteration)
        loss, grad, logits = self._look(logits_fn, images, points, state.iteration[0])
        wrong = answers_wrong(logits, points.labels) & came.final
        better = loss > state.best_loss
        if self.shrink:
            better |= came.restart
        state = state._replace(
            best=norms.pick(better, images, state.best),
            best_grad=norms.pick(better, grad, state.best_grad),
            best_loss=jnp.where(better, loss, state.best_loss),
            last_loss=loss,
            rises=state.rises + (loss > state.last_loss).astype(loss.dtype),
            # Where a chunk stops early changes nothing if the first one stays.
            adv=norms.pick(wrong & ~state.broken, images, state.adv),
            broken=state.broken | wrong,
        )
        if self.norm == "l1":
            state, back = self._adapt_sparsity(state, came)
        else:
            state, back = self._adapt_length(state, came)
        here = norms.pick(back, state.best, images)
        way = norms.pick(back, state.best_grad, grad)
        moved = self._move(state, here, way, goes)
        return state._replace(
            iteration=state.iteration + 1, images=moved, previous=here
        )

    def done(self, state: APGDState) -> jax.Array:
        """A point that is broken in the last phase stays broken."""
        return state.broken

    def result(self, state: APGDState) -> jax.Array:
        """The first misclassified iterate, or the clean image."""
        return state.adv

    @property
    def _longest(self) -> float:
        return 1.0 if self.norm == "l1" else 2.0

    def _look(
        self, logits_fn: LogitsFn, images: jax.Array, points: Points, number: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Loss [B], its gradient and the logits at some images."""
        loss_fn = losses.get_loss(self.loss)
        key = jax.random.fold_in(points.keys[0], number)
        if self.eot == 1:
            return look(logits_fn, loss_fn, points, images, key)

        def add(total: jax.Array, draw: jax.Array) -> tuple[jax.Array, tuple]:
            own_key = jax.random.fold_in(key, draw)
            loss, grad, logits = look(logits_fn, loss_fn, points, images, own_key)
            return total + grad, (loss, logits)

        # So many copies of a network in one program would take minutes to compile.
        total, (loss, logits) = jax.lax.scan(
            add, jnp.zeros_like(images), jnp.arange(self.eot)
        )
        return loss[-1], total / self.eot, logits[-1]

    def _rows(self, number: jax.Array) -> Plan:
        """The plan's rows [B] of some steps; before the first, one without a check."""
        row = jnp.clip(number, 0, len(self.plan.radius) - 1)
        plan = Plan(*(jnp.asarray(column)[row] for column in self.plan))
        some = number >= 0
        return plan._replace(
            window=jnp.where(some, plan.window, 0), restart=plan.restart & some
        )

    def _move(
        self, state: APGDState, here: jax.Array, grad: jax.Array, plan: Plan
    ) -> jax.Array:
        """The next iterate, from the gradient and the move before."""
        origin = state.points.images
        radius = self._radius(plan, state.points)
        length = norms.column(state.length, origin)
        if self.norm == "l1":
            ahead = here + length * _sparse_sign(grad, state.share)
            if self.shrink:
                ahead = norms.pick(plan.restart, state.best, ahead)
            return norms.project(ahead, origin, radius, self.norm)
        way = jnp.sign(grad) if self.norm == "linf" else norms.unit(grad, self.norm)
        ahead = norms.project(here + length * way, origin, radius, self.norm)
        weight = norms.column(jnp.where(plan.first, 0.0, _MOMENTUM), origin)
        moved = here + (1.0 - weight) * (ahead - here)
        moved += weight * (here - state.previous)
        return norms.project(moved, origin, radius, self.norm)

    def _radius(self, plan: Plan, points: Points) -> jax.Array:
        return plan.radius.astype(jnp.float32) * points.eps

    def _adapt_length(
        self, state: APGDState, plan: Plan
    ) -> tuple[APGDState, jax.Array]:
        """At a check halves steps that don't help; those go back to the best point."""
        check = plan.window > 0
        oscillates = state.rises <= self.rho * plan.window.astype(jnp.float32)
        stuck = ~state.halved & (state.checked_loss >= state.best_loss)
        halve = check & (oscillates | stuck)
        return state._replace(
            length=jnp.where(halve, 0.5 * state.length, state.length),
            rises=jnp.where(check, 0.0, state.rises),
            checked_loss=jnp.where(check, state.best_loss, state.checked_loss),
            halved=jnp.where(check, halve, state.halved),
        ), halve

    def _adapt_sparsity(
        self, state: APGDState, plan: Plan
    ) -> tuple[APGDState, jax.Array]:
        """At a check sets how many pixels steps change, and how long they are."""
        size = state.images[0].size
        longest = self._longest * self._radius(plan, state.points)
        count = _count(state.best - state.points.images)
        check = (plan.window > 0) | plan.restart
        sparser = check & (count / jnp.maximum(state.changed, 1.0) < _GROWING)
        shorter = jnp.maximum(state.length / _SHORTER, longest / _SHORTEST)
        length = jnp.where(sparser | plan.restart, longest, shorter)
        return state._replace(
            length=jnp.where(check, length, state.length),
            share=jnp.where(check, count / (_SPARSER * size), state.share),
            changed=jnp.where(check, count, state.changed),
        ), sparser & ~plan.restart


def _count(delta: jax.Array) -> jax.Array:
    """The number of each perturbation's values [B] that differ from 0."""
    return (norms.flat(delta) != 0).sum(1).astype(jnp.float32)


def _sparse_sign(grad: jax.Array, share: jax.Array) -> jax.Array:
    """Signs of the largest entries, a share [B] of them; l1 norm 1."""
    strength = norms.flat(jnp.abs(grad))
    size = strength.shape[1]
    place = jnp.clip((1.0 - share) * size, 0, size - 1).astype(jnp.int32)
    # Where it would be if they were sorted.
    least = norms.largest(lambda s: (strength < s[:, None]).sum(1) <= place, share)
    kept = (strength >= least[:, None]).reshape(grad.shape)
    return norms.unit(jnp.sign(jnp.where(kept, grad, 0.0)), "l1")


@arguments.gated("apgd", targeted=True)
def apgd(
    key: jax.Array,
    logits_fn: LogitsFn,
    images: jax.Array | np.ndarray,
    labels: jax.Array | np.ndarray,
    *,
    eps: float,
    norm: str = "linf",
    loss: str = "ce",
    steps: int = 100,
    restarts: int = 1,
    targets: int = 9,
    rho: float = 0.75,
    eot: int = 1,
    shrink: bool = False,
    chunk: int = 256,
) -> Result:
    """Attacks with Auto-PGD; survivors are in ``survived["apgd-" + loss]``.

    Args:
        key: one key.
        logits_fn: pixels [B, H, W, C] in [0, 1] -> logits [B, K]; see ``pgd``. One
            that draws at random takes a keyword ``key``.
        images: floating point [N, H, W, C] in [0, 1].
        labels: int [N].
        eps: radius of the ball.
        norm: a name of ``NORMS``.
        loss: "ce", "dlr", "margin", "probability-margin", or "dlr-targeted", which is
            tried with the ``targets`` likeliest other classes, one after the other.
        steps: of each restart.
        restarts: each attacks what is left.
        targets: see ``loss``.
        rho: share of steps that must raise the loss for the step to stay long.
        eot: gradients averaged at each point, for stochastic functions.
        shrink: "l1" only: begin with balls of 3 and 2 eps, as the l1 version of
            AutoAttack does.
        chunk: images worked on at a time, at most.

    Raises:
        TypeError: pixels are not floating point.
        ArgumentError: a setting under which nothing is done, an unknown name, or
            images, labels or logits of another shape or range.
    """
    stage = Stage(
        f"apgd-{loss}",
        APGD(norm, loss, steps, rho, eot, shrink),
        targets=targets if loss in losses.TARGETED else 0,
        restarts=restarts,
    )
    return run_alone(stage, key, logits_fn, images, labels, norm, eps, chunk)
