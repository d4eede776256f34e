"""From one batch to a data set: chunks, restarts, targets, and what is left standing.

Every round attacks the points that no round before has broken, always from the clean
image. What is drawn for an example depends on its number, the attack and the round, not
on its batch.
"""

import dataclasses
import functools
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from apr_jax.attacks import arguments, checks, norms, slots
from apr_jax.attacks.core import Attack, Engine, LogitsFn, Points, answers_wrong
from apr_jax.gates import answers as gate

# So much farther than eps a perturbation may be by rounding alone; what is farther
# doesn't count.
TOLERANCE = 1e-6
# Names of the attacks that ask for answers alone.
_GRADIENT_FREE = ("square", "random")


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of an attack.

    Attributes:
        images: float32 [N, H, W, C], misclassified and within the ball and [0, 1]
            where a point was broken; elsewhere the clean image.
        survived: name -> bool [N], the points still standing after it. The first is
            "clean": those that are classified correctly to begin with.
        not_finite: how many of the clean images' logits are NaN or infinite. An
            example without an answer is never correct.
    """

    images: np.ndarray
    survived: dict[str, np.ndarray]
    not_finite: int = 0

    @property
    def robust(self) -> np.ndarray:
        """The points, bool [N], that withstood everything."""
        return list(self.survived.values())[-1]


@dataclasses.dataclass(frozen=True)
class Stage:
    """An attack as part of a sequence.

    Attributes:
        name: as in ``Result.survived``.
        attack: what to run.
        targets: so many classes are tried, the likeliest first; 0: untargeted.
        restarts: of each target.
        noise: "always", "never", or "again": start at random from the second time.
    """

    name: str
    attack: Attack
    targets: int = 0
    restarts: int = 1
    noise: str = "always"

    @property
    def follows_gradients(self) -> bool:
        """Whether it is blind where there is no gradient."""
        return self.name not in _GRADIENT_FREE

    def rounds(self, classes: int) -> Iterator[tuple[int, float]]:
        """Yields (rank of the target among the logits, noise); rank 0: no target."""
        last = min(self.targets, classes - 1)
        ranks = range(1, last + 1) if self.targets else (0,)
        for rank in ranks:
            for restart in range(self.restarts):
                yield rank, float(self.noise == "always" or self._again(restart))

    def _again(self, restart: int) -> bool:
        return self.noise == "again" and restart > 0


def predict(engine: Engine, images: np.ndarray, number: int = 0) -> np.ndarray:
    """Returns logits [N, K] of images [N, H, W, C], a chunk at a time.

    ``number`` tells random draws apart.
    """
    parts = []
    for rows, count in chunks(engine, len(images)):
        parts.append(engine.logits(images[rows], number)[:count])
    return np.concatenate(parts)


def gradient_sizes(
    engine: Engine, images: np.ndarray, labels: np.ndarray, loss: str = "dlr"
) -> np.ndarray:
    """Returns the l1 norms [N] of a loss's gradients at some images."""
    return _of_chunks(engine.gradient_sizes, engine, images, labels, loss)


def gradients(
    engine: Engine, images: np.ndarray, labels: np.ndarray, loss: str = "ce"
) -> np.ndarray:
    """Returns a loss's gradients [N, H, W, C] at some images."""
    return _of_chunks(engine.gradients, engine, images, labels, loss)


def _of_chunks(
    look: Callable[..., np.ndarray],
    engine: Engine,
    images: np.ndarray,
    labels: np.ndarray,
    loss: str,
) -> np.ndarray:
    parts = [
        look(images[rows], labels[rows], loss)[:count]
        for rows, count in chunks(engine, len(images))
    ]
    return np.concatenate(parts)


def chunks(engine: Engine, count: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yields the row numbers of each chunk, the last filled up by repeats, and how
    many of them are real."""
    for start in range(0, count, engine.chunk):
        rows = np.arange(start, min(start + engine.chunk, count))
        missing = engine.rows(len(rows)) - len(rows)
        yield np.pad(rows, (0, missing), mode="edge"), len(rows)


def distances(images: np.ndarray, clean: np.ndarray, norm: str) -> np.ndarray:
    """Returns the exact norms [N] of perturbations, in float64."""
    delta = images.astype(np.float64) - clean.astype(np.float64)
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    return np.linalg.norm(delta.reshape(len(delta), -1), order, axis=1)


class Task(NamedTuple):
    """The points that attacks are run on, and the ball.

    Attributes:
        key: of the whole evaluation.
        images: clean, float32 [N, H, W, C].
        labels: int32 [N].
        norm: the norm that measures perturbations.
        eps: radius.
        logits: of the clean images, [N, K]; they rank the targets.
    """

    key: jax.Array
    images: np.ndarray
    labels: np.ndarray
    norm: str
    eps: float
    logits: np.ndarray


def run_stage(
    engine: Engine,
    stage: Stage,
    task: Task,
    standing: np.ndarray,
    adversarial: np.ndarray,
    tick: Callable[[float], None] = lambda share: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Attacks the points that still stand.

    Args:
        engine: runs a chunk.
        stage: what to run.
        task: what to run it on.
        standing: bool [N].
        adversarial: float32 [N, H, W, C], the images so far.
        tick: is called with the share of the stage that is done, in [0, 1].

    Returns:
        ``standing`` and ``adversarial``, anew.

    Raises:
        ArgumentError: an unknown norm.
    """
    norms.check_norm(task.norm)
    left = np.flatnonzero(standing)
    images, labels = task.images[left], task.labels[left]
    own_key = stage_key(task.key, stage)
    order = np.argsort(-task.logits, axis=1, kind="stable").astype(np.int32)
    ranks, noises = np.array(list(stage.rounds(order.shape[1])), np.float32).T
    ranks = ranks.astype(int)

    def points_of(places: np.ndarray, numbers: np.ndarray) -> Points:
        rows = left[places]
        return Points(
            keys=keys_of(own_key, numbers.astype(np.int32), rows.astype(np.int32)),
            images=images[places],
            labels=labels[places],
            targets=order[rows, ranks[numbers]],
            eps=np.full(len(rows), task.eps, np.float32),
            noise=noises[numbers],
        )

    def judge(places: np.ndarray, found: np.ndarray) -> np.ndarray:
        # From outside: what counts is the answer to the image itself.
        broken = answers_wrong(predict(engine, found, 1), labels[places])
        far = distances(found, images[places], task.norm)
        return broken & (far <= task.eps + TOLERANCE)

    queue = slots.Queue(len(left), len(ranks))
    if len(left):
        slots.run(engine, stage.attack, queue, images, points_of, judge, tick)
    standing, adversarial = standing.copy(), adversarial.copy()
    for row, image in zip(left, queue.found, strict=True):
        if image is not None:
            standing[row], adversarial[row] = False, image
    tick(1.0)
    return standing, adversarial


def attack_in_turn(
    engine: Engine,
    stages: tuple[Stage, ...],
    key: jax.Array,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    norm: str,
    eps: float,
    before: Result | None = None,
    tick: Callable[[str, float], None] = lambda name, share: None,
) -> Iterator[Result]:
    """Yields the result after each attack; each works on the points still standing.

    Args:
        engine: runs chunks.
        stages: from ``sequence.make_stages``.
        key: one key.
        images: float32 [N, H, W, C] in [0, 1].
        labels: int32 [N].
        norm: a name of ``norms.NORMS``.
        eps: radius of the ball.
        before: an earlier result to go on from; what it has isn't run again.
        tick: is called with an attack's name and the share of it that is done.

    Raises:
        ArgumentError: labels that the function has no class for.
    """
    logits = predict(engine, images)
    gate.labels(labels, count=len(images), classes=logits.shape[1])
    bad = gate.not_finite(logits)
    task = Task(key, images, labels, norm, eps, logits)
    survived = {"clean": ~answers_wrong(logits, labels)}
    adversarial = images
    if before is not None:
        survived, adversarial = dict(before.survived), before.images
    else:
        yield Result(adversarial, dict(survived), bad)
    for stage in stages:
        if stage.name in survived:
            continue
        standing = list(survived.values())[-1]
        survived[stage.name], adversarial = run_stage(
            engine,
            stage,
            task,
            standing,
            adversarial,
            functools.partial(tick, stage.name),
        )
        yield Result(adversarial, dict(survived), bad)


def stage_key(key: jax.Array, stage: Stage) -> jax.Array:
    """Returns a key for an attack by its name, so that it draws alike everywhere."""
    return jax.random.fold_in(key, zlib.crc32(stage.name.encode()))


@jax.jit
def keys_of(key: jax.Array, numbers: jax.Array, rows: jax.Array) -> jax.Array:
    """Returns the key [B] of each example's round, by the numbers of both."""
    fold = jax.vmap(jax.random.fold_in, (None, 0))
    return jax.vmap(jax.random.fold_in)(fold(key, numbers), rows)


def prepare(
    logits_fn: LogitsFn,
    images: jax.Array | np.ndarray,
    labels: jax.Array | np.ndarray,
    chunk: int,
) -> tuple[Engine, np.ndarray, np.ndarray]:
    """Returns an engine, and images and labels as it takes them, checked."""
    clean, answers = arguments.images_and_labels(images, labels)
    return Engine(logits_fn, min(chunk, len(clean))), clean, answers


def run_alone(
    stage: Stage,
    key: jax.Array,
    logits_fn: LogitsFn,
    images: jax.Array | np.ndarray,
    labels: jax.Array | np.ndarray,
    norm: str,
    eps: float,
    chunk: int,
) -> Result:
    """Runs one attack on every point that is classified correctly.

    Raises:
        TypeError: pixels are not floating point.
        ArgumentError: images, labels or logits of another shape or range, or an
            unknown norm.

    Warns:
        AttackWarning: at some of the points that are left, of one chunk, the gradient
            is not a number.
    """
    norms.check_norm(norm)
    engine, clean, answers = prepare(logits_fn, images, labels, chunk)
    *_, result = attack_in_turn(
        engine, (stage,), key, clean, answers, norm=norm, eps=eps
    )
    left = np.flatnonzero(result.robust)[: engine.chunk]
    if len(left) and stage.follows_gradients:
        sizes = gradient_sizes(engine, clean[left], answers[left])
        for message in checks.check_finite(sizes):
            warnings.warn(message, checks.AttackWarning, stacklevel=5)
    return result
