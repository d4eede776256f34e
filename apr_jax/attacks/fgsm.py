"""The fast gradient sign method (Goodfellow et al. 2015), with or without noise."""

import jax
import numpy as np

from apr_jax.attacks.core import LogitsFn
from apr_jax.attacks.pgd import PGD
from apr_jax.attacks.rounds import Result, Stage, run_alone


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
        chunk: images worked on at a time.

    Raises:
        TypeError: pixels are not floating point.
        ValueError: an unknown norm, or images or labels of another shape or range.
    """
    if norm == "l1":
        raise ValueError("unknown norm 'l1' for fgsm; choose from linf, l2")
    share = 1.0 if step_size is None else step_size / eps
    noise = "always" if random_start else "never"
    stage = Stage("fgsm", PGD(norm, "ce", 1, share), noise=noise)
    return run_alone(stage, key, logits_fn, images, labels, norm, eps, chunk)
