"""Signs of gradient masking: attacks fail, as gradients say nothing, not as none exist.

Athalye, Carlini and Wagner, "Obfuscated gradients give a false sense of security", ICML
2018, section 3.1, list how that shows; Carlini et al., "On evaluating adversarial
robustness", 2019, section 5, what to try. Here each attack begins at the clean images.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax.attacks import arguments, rounds
from apr_jax.attacks import surface as surface_lib
from apr_jax.attacks.apgd import APGD
from apr_jax.attacks.core import (
    Engine,
    LogitsFn,
    Points,
    answers_wrong,
    fold_all,
    logits_of,
)
from apr_jax.attacks.norms import pick, random_inside
from apr_jax.attacks.pgd import PGD
from apr_jax.attacks.square import Square
from apr_jax.gates import answers
from apr_jax.metrics.paired import mcnemar

NORMS = ("linf", "l2")  # single steps and PGD are for these
# Sign -> what of it would be suspicious.
SIGNS = {
    "black_box": "Square, without gradients, breaks more than PGD and APGD with them",
    "steps": "more steps don't lower it, though something lowers it",
    "unbounded": "with pixels free, points are left",
    "single_step": "one step breaks more than many",
    "random_search": "random points break what PGD and APGD leave",
    "gradients": "gradients of zero, or none",
    "loss_surface": "most of a few images lose as much by a random step as by one "
    "along the gradient",
}
_FEWER = 10  # a first PGD has so many times fewer steps
_LEVEL = 0.05  # chance of a difference between equals


@dataclasses.dataclass(frozen=True)
class Sign:
    """One sign of gradient masking.

    Attributes:
        name: of ``SIGNS``.
        excess: how far it points to masking, a share of the examples in [-1, 1]; above
            0 it does, by however little.
        measured: what it is the difference of, shares by their names.
        suspicious: whether it is more than chance.
        n: examples.
    """

    name: str
    excess: float
    measured: Mapping[str, float]
    suspicious: bool
    n: int


class RandomState(NamedTuple):
    """The draws so far."""

    points: Points
    iteration: jax.Array
    adv: jax.Array
    broken: jax.Array


@dataclasses.dataclass(frozen=True)
class RandomSearch:
    """Points drawn at random inside the ball until one is misclassified."""

    norm: str
    draws: int

    @property
    def steps(self) -> int:
        """One a draw."""
        return self.draws

    def init(self, points: Points) -> RandomState:
        """Begins with nothing drawn."""
        count = len(points.images)
        return RandomState(
            points=points,
            iteration=jnp.zeros(count, jnp.int32),
            adv=jnp.array(points.images),
            broken=jnp.zeros(count, bool),
        )

    def step(self, logits_fn: LogitsFn, state: RandomState) -> RandomState:
        """Draws a point for each example, and judges it."""
        points = state.points
        keys = jax.vmap(jax.random.fold_in)(points.keys, state.iteration)
        drawn = random_inside(keys, points.images, points.eps, self.norm)
        key = fold_all(keys, 1)[0]
        wrong = answers_wrong(logits_of(logits_fn, drawn, key), points.labels)
        return RandomState(
            points=points,
            iteration=state.iteration + 1,
            adv=pick(wrong & ~state.broken, drawn, state.adv),
            broken=state.broken | wrong,
        )

    def done(self, state: RandomState) -> jax.Array:
        """The first find is enough."""
        return state.broken

    def result(self, state: RandomState) -> jax.Array:
        """The first misclassified point, or the clean image."""
        return state.adv


def stages(norm: str, steps: int, queries: int) -> tuple[rounds.Stage, ...]:
    """Returns the attacks that the signs are read from, each of which begins anew."""
    few = max(steps // _FEWER, 1)
    pgd = PGD(norm, "ce", steps, 2.5 / steps)
    return (
        rounds.Stage("fgsm", PGD(norm, "ce", 1, 1.0), noise="never"),
        rounds.Stage("pgd-few", PGD(norm, "ce", few, 2.5 / few)),
        rounds.Stage("pgd", pgd),
        rounds.Stage("unbounded", pgd, noise="never"),
        rounds.Stage("apgd-ce", APGD(norm, "ce", steps)),
        rounds.Stage("random", RandomSearch(norm, queries)),
        rounds.Stage("square", Square(norm, queries)),
    )


def survivors(
    engine: Engine,
    key: jax.Array,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    norm: str,
    eps: float,
    steps: int,
    queries: int,
    before: Mapping[str, np.ndarray] | None = None,
    tick: Callable[[str, float], None] = lambda name, share: None,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields who withstands each attack by itself, bool [N], after each of them.

    Args:
        engine: runs chunks.
        key: one key.
        images: float32 [N, H, W, C] in [0, 1].
        labels: int32 [N].
        norm: "linf" or "l2".
        eps: radius of the ball.
        steps: of PGD and APGD.
        queries: of Square; as many random points are drawn.
        before: an earlier outcome, to go on from.
        tick: is called with an attack's name and the share of it that is done.

    Raises:
        ArgumentError: labels that the function has no class for.
    """
    logits = rounds.predict(engine, images)
    answers.labels(labels, count=len(images), classes=logits.shape[1])
    found = {"clean": ~answers_wrong(logits, labels), **(before or {})}
    free = 1.0 if norm == "linf" else math.sqrt(images[0].size)
    for stage in stages(norm, steps, queries):
        if stage.name not in found:
            radius = free if stage.name == "unbounded" else eps
            task = rounds.Task(key, images, labels, norm, radius, logits)
            found[stage.name], _ = rounds.run_stage(
                engine,
                stage,
                task,
                found["clean"],
                images,
                functools.partial(tick, stage.name),
            )
            yield dict(found)


def signs(
    survived: Mapping[str, np.ndarray], sizes: np.ndarray, *, steps: int
) -> tuple[Sign, ...]:
    """Returns the signs of attacks and gradients, in the order of ``SIGNS``.

    A difference of two attacks is suspicious where McNemar's exact test says that
    equals differ so at most in one of twenty cases. One point that only random draws
    break, that stands with pixels free, or that has no gradient, is suspicious alone.

    Args:
        survived: of ``survivors``, all of them.
        sizes: float [N], of the gradients of the cross-entropy at the clean images.
        steps: of PGD.
    """
    n, clean = len(sizes), survived["clean"]
    share = lambda who: float(np.mean(who))
    pgd, few, fgsm = (survived[name] for name in ("pgd", "pgd-few", "fgsm"))
    square, free = survived["square"], survived["unbounded"]
    gradients = pgd & survived["apgd-ce"]
    alone = gradients & ~survived["random"]
    lowest = functools.reduce(
        np.logical_and, (survived[s] for s in survived if s != "unbounded")
    )
    # Gradients that cannot show the way: flat to the last bit, or not numbers.
    zero, none = clean & (sizes == 0), clean & ~np.isfinite(sizes)
    grown = share(pgd) >= share(few) and _clear(few, lowest)
    return (
        Sign(
            "black_box",
            share(gradients) - share(square),
            {"with gradients": share(gradients), "Square": share(square)},
            _clear(gradients, square),
            n,
        ),
        Sign(
            "steps",
            share(pgd) - share(few),
            {
                _steps(max(steps // _FEWER, 1)): share(few),
                _steps(steps): share(pgd),
                "all attacks": share(lowest),
            },
            grown or _clear(pgd, few),
            n,
        ),
        Sign("unbounded", share(free), {"left": share(free)}, bool(free.any()), n),
        Sign(
            "single_step",
            share(pgd) - share(fgsm),
            {"FGSM": share(fgsm), "PGD": share(pgd)},
            _clear(pgd, fgsm),
            n,
        ),
        Sign(
            "random_search",
            share(alone),
            {"random": share(survived["random"]), "only random breaks": share(alone)},
            bool(alone.any()),
            n,
        ),
        Sign(
            "gradients",
            share(zero | none),
            {"zero": share(zero), "not finite": share(none)},
            bool((zero | none).any()),
            n,
        ),
    )


def of_surface(surface: surface_lib.Surface) -> tuple[Sign, ...]:
    """The sign of the loss around some images, with means over them; none of none."""
    if not len(surface.rows):
        return ()
    along, aside = surface.rises.T
    share = float(np.mean(aside >= along))
    measured = {
        "random rises as much": share,
        "off the tangent": float(surface.off_tangent.mean()),
        "ups and downs": float(surface.ups_and_downs.mean()),
    }
    return (Sign("loss_surface", share - 0.5, measured, share > 0.5, len(along)),)


def _steps(count: int) -> str:
    return f"{count} step" if count == 1 else f"{count} steps"


def _clear(stands: np.ndarray, other: np.ndarray) -> bool:
    """Whether more points, bool [N] each, stand in the first, beyond chance."""
    won, lost = int((stands & ~other).sum()), int((other & ~stands).sum())
    return won > lost and mcnemar(won, lost) < _LEVEL


@arguments.gated("gradient_masking", choices=NORMS)
def gradient_masking(
    key: jax.Array,
    logits_fn: LogitsFn,
    images: jax.Array | np.ndarray,
    labels: jax.Array | np.ndarray,
    *,
    eps: float,
    norm: str = "linf",
    steps: int = 100,
    queries: int = 5000,
    chunk: int = 256,
) -> tuple[Sign, ...]:
    """Measures the signs of gradient masking; none of them proves that there is none.

    Args:
        key: one key.
        logits_fn: pixels [B, H, W, C] in [0, 1] -> logits [B, K]; see ``pgd``.
        images: floating point [N, H, W, C] in [0, 1].
        labels: int [N].
        eps: radius of the ball.
        norm: "linf" or "l2".
        steps: of PGD and APGD; a first PGD has a tenth of them.
        queries: of Square; as many random points are drawn.
        chunk: images worked on at a time, at most.

    Raises:
        TypeError: pixels are not floating point.
        ArgumentError: a setting under which nothing is done, an unknown name, or
            images, labels or logits of another shape or range.
    """
    engine, clean, found = rounds.prepare(logits_fn, images, labels, chunk)
    *_, survived = survivors(
        engine, key, clean, found, norm=norm, eps=eps, steps=steps, queries=queries
    )
    sizes = rounds.gradient_sizes(engine, clean, found, "ce")
    around = surface_lib.measure(engine, key, clean, found, norm=norm, eps=eps)
    return (*signs(survived, sizes, steps=steps), *of_surface(around))
