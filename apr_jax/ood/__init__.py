"""Scores that tell in-distribution from out-of-distribution examples.

`SCORES[name](logits, features, fitted) -> [N]`, higher = more in-distribution, for all
but `OF_IMAGES`: `odin(logits_fn, images)` and `csi(shift_logits_fn, images)`. `NEEDS`
says what each one uses, `fit` makes `fitted` from the outputs of training images.
"""

from collections.abc import Callable
from typing import Any

from apr_jax.ood.csi import csi
from apr_jax.ood.fitting import Fitted, fit
from apr_jax.ood.odin import odin, perturb
from apr_jax.ood.scores import (
    ASH_VARIANTS,
    ash,
    dice,
    energy,
    entropy,
    gen,
    knn,
    mahalanobis,
    max_logit,
    msp,
    react,
    relative_mahalanobis,
    vim,
)

__all__ = [
    "ASH_VARIANTS",
    "NEEDS",
    "OF_IMAGES",
    "SCORES",
    "Fitted",
    "csi",
    "fit",
    "get_score",
    "odin",
    "perturb",
]

SCORES: dict[str, Callable[..., Any]] = {
    "msp": msp,
    "max_logit": max_logit,
    "energy": energy,
    "entropy": entropy,
    "gen": gen,
    "odin": odin,
    "react": react,
    "dice": dice,
    "ash": ash,
    "mahalanobis": mahalanobis,
    "relative_mahalanobis": relative_mahalanobis,
    "knn": knn,
    "vim": vim,
    # The authors' code scores by maximum logit, and counts ties in a way of its own:
    # `metrics.ood_detection(..., convention="authors")`.
    "authors": max_logit,
    "csi": csi,
}
# Those that are functions of images rather than of what is known of them.
OF_IMAGES = ("odin", "csi")

# What a score uses: "logits", "features", "weights" of the last layer, "train", the
# outputs of training images, "images" and a function from them to logits, or the logits
# of each of an image's "turns", which only networks trained by CSI have.
NEEDS: dict[str, tuple[str, ...]] = {
    "msp": ("logits",),
    "max_logit": ("logits",),
    "energy": ("logits",),
    "entropy": ("logits",),
    "gen": ("logits",),
    "odin": ("images",),
    "react": ("features", "weights", "train"),
    "dice": ("features", "weights", "train"),
    "ash": ("features", "weights"),
    "mahalanobis": ("features", "train"),
    "relative_mahalanobis": ("features", "train"),
    "knn": ("features", "train"),
    "vim": ("logits", "features", "weights", "train"),
    "authors": ("logits",),
    "csi": ("images", "turns"),
}


def get_score(name: str) -> Callable[..., Any]:
    """The score of a name.

    Raises:
        ValueError: for an unknown name; the message lists the known ones.
    """
    if name not in SCORES:
        raise ValueError(f"unknown score {name!r}; choose from {', '.join(SCORES)}")
    return SCORES[name]
