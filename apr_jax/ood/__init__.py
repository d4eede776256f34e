"""Scores that tell in-distribution from out-of-distribution examples.

`SCORES[name](logits, features, fitted) -> [N]`, higher = more in-distribution, for all
but `OF_IMAGES`: `odin(logits_fn, images)` and `csi(shift_logits_fn, images)`. `TABLE`
says what each one uses, `fit` makes `fitted` from the outputs of training images.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from apr_jax.gates import knobs
from apr_jax.ood.csi import csi
from apr_jax.ood.fdbd import fdbd
from apr_jax.ood.fitting import Fitted, fit
from apr_jax.ood.odin import odin, perturb
from apr_jax.ood.scores import (
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
from apr_jax.ood.shaping import ASH_VARIANTS, ash, ash_b, ash_p, scale
from apr_jax.ood.stored import nnguide, she

__all__ = [
    "ASH_VARIANTS",
    "LABELS",
    "NEEDS",
    "OF_IMAGES",
    "SCORES",
    "TABLE",
    "Fitted",
    "Score",
    "csi",
    "fit",
    "get_score",
    "odin",
    "perturb",
]


class Score(NamedTuple):
    """A score as it is chosen by its name.

    Attributes:
        function: of logits, features and `fitted`, or of a function and images.
        label: its name for readers.
        needs: "logits", "features", "weights" of the last layer, "train", the outputs
            of training images, "images" and a function from them to logits, or the
            logits of each of an image's "turns", which only networks trained by CSI
            have.
    """

    function: Callable[..., Any]
    label: str
    needs: tuple[str, ...]


_AUTHORS = "Maximum logit, as the authors of APR count"
_CSI = "CSI, logits averaged over four turns"
_HEAD = ("features", "weights")
TABLE = {
    "msp": Score(msp, "Maximum softmax probability", ("logits",)),
    "max_logit": Score(max_logit, "Maximum logit", ("logits",)),
    "energy": Score(energy, "Energy", ("logits",)),
    "entropy": Score(entropy, "Entropy", ("logits",)),
    "gen": Score(gen, "GEN", ("logits",)),
    "odin": Score(odin, "ODIN", ("images",)),
    "react": Score(react, "ReAct", (*_HEAD, "train")),
    "dice": Score(dice, "DICE", (*_HEAD, "train")),
    "ash": Score(ash, "ASH", _HEAD),
    "ash_p": Score(ash_p, "ASH-P", _HEAD),
    "ash_b": Score(ash_b, "ASH-B", _HEAD),
    "scale": Score(scale, "SCALE", _HEAD),
    "mahalanobis": Score(mahalanobis, "Mahalanobis", ("features", "train")),
    "relative_mahalanobis": Score(
        relative_mahalanobis, "Relative Mahalanobis", ("features", "train")
    ),
    "knn": Score(knn, "Nearest neighbours", ("features", "train")),
    "vim": Score(vim, "ViM", ("logits", *_HEAD, "train")),
    "fdbd": Score(fdbd, "fDBD", ("logits", *_HEAD, "train")),
    "she": Score(she, "SHE", ("logits", "features", "train")),
    "nnguide": Score(nnguide, "NNGuide", ("logits", "features", "train")),
    # The authors' code scores by maximum logit, and counts ties in a way of its own:
    # `metrics.ood_detection(..., convention="authors")`.
    "authors": Score(max_logit, _AUTHORS, ("logits",)),
    "csi": Score(csi, _CSI, ("images", "turns")),
}
SCORES = {name: score.function for name, score in TABLE.items()}
LABELS = {name: score.label for name, score in TABLE.items()}
NEEDS = {name: score.needs for name, score in TABLE.items()}
# Those that are functions of images rather than of what is known of them.
OF_IMAGES = tuple(name for name, needs in NEEDS.items() if "images" in needs)


def get_score(name: str) -> Callable[..., Any]:
    """The score of a name.

    Raises:
        ArgumentError: for an unknown name; the message lists the known ones.
    """
    return SCORES[knobs.one_of("score", name, SCORES)]
