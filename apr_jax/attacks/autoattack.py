"""AutoAttack: a fixed sequence of attacks that needs no tuning.

Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of
diverse parameter-free attacks", ICML 2020; for l1 as in Croce and Hein 2021.
"""

import warnings

import jax
import numpy as np

from apr_jax.attacks import arguments
from apr_jax.attacks.checks import AttackWarning
from apr_jax.attacks.core import LogitsFn
from apr_jax.attacks.rounds import Result, attack_in_turn, prepare
from apr_jax.attacks.sequence import concerns, examine, make_stages


@arguments.gated("autoattack")
def autoattack(
    key: jax.Array,
    logits_fn: LogitsFn,
    images: jax.Array | np.ndarray,
    labels: jax.Array | np.ndarray,
    *,
    norm: str,
    eps: float,
    version: str = "standard",
    steps: int = 100,
    queries: int = 5000,
    chunk: int = 256,
) -> Result:
    """Runs AutoAttack: each attack on the points that those before left standing.

    "standard" is APGD on the cross-entropy, APGD on the targeted DLR loss and FAB
    towards 9 classes each, and Square with 5000 queries; for "l1" APGD has 5 restarts
    and 5 targets and begins with larger balls. "plus" adds APGD on the DLR loss and
    untargeted FAB, with 5 restarts. "rand", for stochastic functions, averages 20
    gradients in APGD on both losses. "standard+pma" adds the probability margin attack,
    for "linf"; "pma+" is that and APGD on the targeted DLR loss.

    Args:
        key: one key.
        logits_fn: pixels [B, H, W, C] in [0, 1] -> logits [B, K], pure JAX code that
            treats each image by itself. A ``functools.partial`` over a model's
            variables takes other weights without compiling anew. One that draws at
            random takes a keyword ``key``.
        images: floating point [N, H, W, C] in [0, 1].
        labels: int [N].
        norm: "linf", "l2" or "l1".
        eps: radius of the ball.
        version: a name of ``VERSIONS``, or a single attack of ``ATTACKS``.
        steps: of each gradient attack. With fewer than 100 it isn't AutoAttack.
        queries: of Square. With fewer than 5000 it isn't AutoAttack.
        chunk: images at a time, at most; changes speed and memory, not results.

    Returns:
        The images, adversarial where a point was broken, and which points stood after
        each attack; ``result.robust`` is the last of them.

    Raises:
        TypeError: pixels are not floating point.
        ArgumentError: a setting under which nothing is done, an unknown name, or
            images, labels or logits of another shape or range.

    Warns:
        AttackWarning: the function is stochastic, returns probabilities or has zero
            gradients, there are too few classes, or Square broke what the attacks
            before it had left.
    """
    stages = make_stages(version, norm, steps=steps, queries=queries)
    engine, clean, answers = prepare(logits_fn, images, labels, chunk)
    _warn(examine(engine, stages, clean, answers, rand=version == "rand"))
    *_, result = attack_in_turn(engine, stages, key, clean, answers, norm=norm, eps=eps)
    _warn(concerns(result.survived))
    return result


def _warn(messages: list[str]) -> None:
    """Issues each message as an ``AttackWarning``."""
    for message in messages:
        warnings.warn(message, AttackWarning, stacklevel=4)
