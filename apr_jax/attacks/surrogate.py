"""Transfer: adversarial examples of one network, tried on another.

Szegedy et al., "Intriguing properties of neural networks", ICLR 2014, saw that they
fool networks that they weren't made for; Papernot et al., "Transferability in machine
learning", 2016, attack by it where the network itself can't be seen. Every step is
taken, as images that have just crossed the one's boundary seldom cross the other's.
"""

import jax
import numpy as np

from apr_jax.attacks import arguments, rounds, slots
from apr_jax.attacks.core import Engine, LogitsFn, Points, answers_wrong
from apr_jax.attacks.pgd import PGD
from apr_jax.gates import answers, knobs

NORMS = ("linf", "l2")
ATTACKS = ("fgsm", "pgd")


def stages(norm: str, steps: int) -> tuple[rounds.Stage, ...]:
    """Returns the attacks that examples are made by, in the order of ``ATTACKS``."""
    one = PGD(norm, "ce", 1, 1.0, to_end=True)
    many = PGD(norm, "ce", steps, 2.5 / steps, to_end=True)
    return rounds.Stage("fgsm", one, noise="never"), rounds.Stage("pgd", many)


def craft(
    engine: Engine,
    stage: rounds.Stage,
    key: jax.Array,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    norm: str,
    eps: float,
) -> np.ndarray:
    """Returns the last images [N, H, W, C] of an attack, whatever they are taken for.

    Args:
        engine: runs chunks on the network that they are made on.
        stage: one of ``stages``.
        key: one key.
        images: float32 [N, H, W, C] in [0, 1].
        labels: int32 [N].
        norm: "linf" or "l2".
        eps: radius of the ball.
    """

    def points_of(places: np.ndarray, numbers: np.ndarray) -> Points:
        del numbers  # one round
        keys = rounds.keys_of(rounds.stage_key(key, stage), 0 * places, places)
        noise = np.full(len(places), stage.noise != "never", np.float32)
        radii = np.full(len(places), eps, np.float32)
        own = labels[places]
        return Points(keys, images[places], own, own, radii, noise)

    def judge(places: np.ndarray, found: np.ndarray) -> np.ndarray:
        far = rounds.distances(found, images[places], norm)
        return np.asarray(far <= eps + rounds.TOLERANCE)

    queue = slots.Queue(len(images), 1)
    slots.run(engine, stage.attack, queue, images, points_of, judge, lambda share: None)
    made = images.copy()
    for row, image in enumerate(queue.found):
        if image is not None:
            made[row] = image
    return made


@arguments.gated("transfer", choices=NORMS)
def transfer(
    key: jax.Array,
    logits_fn: LogitsFn,
    images: jax.Array | np.ndarray,
    labels: jax.Array | np.ndarray,
    *,
    surrogate_fn: LogitsFn,
    eps: float,
    norm: str = "linf",
    attack: str = "pgd",
    steps: int = 40,
    chunk: int = 256,
) -> rounds.Result:
    """Attacks a network by examples of another; ``survived["transfer-" + attack]``.

    Args:
        key: one key.
        logits_fn: the network that is measured, pixels [B, H, W, C] in [0, 1] ->
            logits [B, K]; see ``pgd``. It needs no gradient.
        images: floating point [N, H, W, C] in [0, 1].
        labels: int [N].
        surrogate_fn: the network that examples are made on, likewise.
        eps: radius of the ball.
        norm: "linf" or "l2".
        attack: "fgsm", one step from the image, or "pgd", from a random start, 2.5 eps
            / steps each.
        steps: of PGD.
        chunk: images worked on at a time, at most.

    Raises:
        TypeError: pixels are not floating point.
        ArgumentError: a setting under which nothing is done, an unknown name, or
            images, labels or logits of another shape or range.
    """
    knobs.one_of("attack", attack, ATTACKS)
    engine, clean, found = rounds.prepare(logits_fn, images, labels, chunk)
    other, _, _ = rounds.prepare(surrogate_fn, images, labels, chunk)
    stage = stages(norm, steps)[ATTACKS.index(attack)]
    classes = rounds.predict(other, clean[:1]).shape[1]
    answers.labels(found, count=len(clean), classes=classes)
    made = craft(other, stage, key, clean, found, norm=norm, eps=eps)
    logits, moved = rounds.predict(engine, clean), rounds.predict(engine, made, 1)
    answers.labels(found, count=len(clean), classes=logits.shape[1])
    right = ~answers_wrong(logits, found)
    stands = right & ~answers_wrong(moved, found)
    broken = (right & ~stands)[:, None, None, None]
    return rounds.Result(
        np.where(broken, made, clean),
        {"clean": right, f"transfer-{attack}": stands},
        answers.not_finite(logits),
    )
