"""Signs that an evaluation by AutoAttack can't be trusted, as warnings.

They are those of the original (Croce and Hein 2020, and its notes on flags).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from apr_jax.gates.answers import answer as answer_of

_SAME = 1e-4  # distance of two vectors of logits, each scaled to length 1
_ROUNDING = 1e-5
_SQUARE_WINS = 0.002  # share of the points that Square alone may break


class AttackWarning(UserWarning):
    """The robust accuracy that comes out may be too high."""


def check_function(answers: Sequence[np.ndarray], *, rand: bool) -> list[str]:
    """Returns what is odd about a function's answers to some images.

    Args:
        answers: logits [N, K], of each time it was asked.
        rand: whether randomness is expected.
    """
    found = []
    if not rand and _differ(answers):
        found.append(
            "the function answers the same images differently from call to call; use "
            'version="rand" for a stochastic defence'
        )
    first = answers[0]
    sums = np.abs(first.sum(1) - 1.0) < _ROUNDING
    if first.max() < 1 + _ROUNDING and first.min() > -_ROUNDING and sums.all():
        found.append(
            "the function seems to return probabilities; give the logits, whose "
            "gradients do not vanish"
        )
    if not np.isfinite(first).all():
        found.append(f"{np.sum(~np.isfinite(first))} logits are not finite")
    return found


def _differ(answers: Sequence[np.ndarray]) -> bool:
    # A class that is left out has -inf, alike each time.
    finite = [np.where(np.isfinite(a), a, 0.0) for a in answers]
    scaled = [a / (np.linalg.norm(a, axis=1, keepdims=True) + 1e-10) for a in finite]
    return any(
        np.linalg.norm(scaled[i] - scaled[j], axis=1).max() > _SAME
        or np.any(np.isfinite(answers[i]) != np.isfinite(answers[j]))
        or np.any(answer_of(answers[i]) != answer_of(answers[j]))
        for i in range(len(scaled))
        for j in range(i)
    )


def check_gradients(sizes: np.ndarray) -> list[str]:
    """Returns what is odd about gradients, given their sizes [N]; see ``Engine``."""
    zero, asked = int(np.sum(sizes == 0)), int(np.sum(np.isfinite(sizes)))
    found = []
    if zero:
        found.append(
            f"at {zero} of {asked} images the gradient is zero; attacks that follow "
            "it are blind there"
        )
    return found + check_finite(sizes)


def check_finite(sizes: np.ndarray) -> list[str]:
    """Returns at how many images gradients of some sizes [N] are not a number."""
    nan = int(np.sum(np.isnan(sizes)))
    if not nan:
        return []
    return [
        f"at {nan} of {len(sizes)} images the gradient is not a number; attacks that "
        "follow it can't break such points, which then count as robust"
    ]


def check_classes(classes: int, stages: Sequence[Any]) -> list[str]:
    """Returns which attacks, ``rounds.Stage``, need more classes than there are."""
    names = [stage.name for stage in stages]
    found = []
    if classes < 3 and {"apgd-dlr", "apgd-t"} & set(names):
        found.append(
            f"with {classes} classes there is no DLR loss, which needs 3; the plain "
            "margin takes its place"
        )
    elif classes < 4 and "apgd-t" in names:
        found.append(
            f"with {classes} classes there is no targeted DLR loss, which needs 4; "
            "the plain difference of two logits takes its place"
        )
    for stage in stages:
        if stage.targets > classes - 1:
            found.append(
                f"{stage.name} is made for {stage.targets} target classes; there are "
                f"{classes - 1}, each of which is tried"
            )
    return found


def check_square(before: np.ndarray, after: np.ndarray) -> list[str]:
    """Returns whether Square broke points that attacks with gradients left standing.

    Args:
        before: bool [N], which stood before it.
        after: bool [N], which stood after it.
    """
    gained = float(before.mean() - after.mean())
    if gained <= _SQUARE_WINS:
        return []
    return [
        "Square, which uses no gradients, lowered the robust accuracy by another "
        f"{100 * gained:.1f} points; the gradients may be masked, and the robust "
        "accuracy too high"
    ]
