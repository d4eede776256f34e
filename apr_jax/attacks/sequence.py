"""The attacks that AutoAttack is made of, and the signs that it can't be trusted.

Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of
diverse parameter-free attacks", ICML 2020; for l1 as in Croce and Hein 2021.
"""

from collections.abc import Mapping

import numpy as np

from apr_jax.attacks import arguments, checks
from apr_jax.attacks.apgd import APGD
from apr_jax.attacks.core import Engine
from apr_jax.attacks.fab import FAB
from apr_jax.attacks.pgd import PGD
from apr_jax.attacks.pma import PMA
from apr_jax.attacks.rounds import Stage, gradient_sizes, predict
from apr_jax.attacks.square import Square
from apr_jax.errors import ArgumentError
from apr_jax.gates import answers

_TARGETS = 9
_TARGETS_L1 = 5  # of the targeted APGD
_RESTARTS = 5  # of "plus", and of APGD on the cross-entropy for l1
_EOT = 20  # gradients averaged by "rand"
# How many images show what a function is like, and how often they are asked about, to
# see whether it answers the same.
_EXAMINED, _CALLS = 256, 5

VERSIONS: dict[str, tuple[str, ...]] = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
    # AutoAttack, then what may break what it left; and the paper's short ensemble.
    "standard+pma": ("apgd-ce", "apgd-t", "fab-t", "square", "pma"),
    "pma+": ("pma", "apgd-t"),
}
# Single attacks, which may stand in the place of a version.
ATTACKS = (
    *("fgsm", "pgd", "apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"),
    "pma",
)


@arguments.gated("a sequence of attacks")
def make_stages(
    version: str, norm: str, *, steps: int = 100, queries: int = 5000
) -> tuple[Stage, ...]:
    """Returns the attacks of a version, or a single attack, in their order.

    Args:
        version: a name of ``VERSIONS`` or ``ATTACKS``.
        norm: a name of ``norms.NORMS``.
        steps: of each gradient attack; AutoAttack's is 100.
        queries: of Square; AutoAttack's is 5000.

    Raises:
        ArgumentError: steps or queries below 1, an unknown name, "fgsm" or "pgd" with
            "l1", or "pma" with another norm than "linf", or a single step.
    """
    if version not in VERSIONS and version not in ATTACKS:
        raise ArgumentError(
            f"unknown version {version!r}; choose from {', '.join(VERSIONS)}, or one "
            f"attack of {', '.join(ATTACKS)}"
        )
    if version in ("fgsm", "pgd") and norm == "l1":
        raise ArgumentError(f"{version} is for linf and l2, not l1")
    names = VERSIONS.get(version, (version,))
    if "pma" in names and norm != "linf":
        raise ArgumentError(f"{version} is for linf, not {norm}")
    shrink = norm == "l1" and version not in ("plus", "rand")
    many = _RESTARTS if version == "plus" or shrink else 1
    eot = _EOT if version == "rand" else 1
    apgd = lambda loss: APGD(norm, loss, steps, eot=eot, shrink=shrink)
    stages = {
        "fgsm": Stage("fgsm", PGD(norm, "ce", 1, 1.0), noise="never"),
        "pgd": Stage("pgd", PGD(norm, "ce", steps, 2.5 / steps)),
        "apgd-ce": Stage("apgd-ce", apgd("ce"), restarts=many),
        "apgd-dlr": Stage("apgd-dlr", apgd("dlr"), restarts=many),
        "apgd-t": Stage(
            "apgd-t",
            apgd("dlr-targeted"),
            targets=_TARGETS_L1 if shrink else _TARGETS,
        ),
        "fab": Stage("fab", FAB(norm, False, steps), restarts=many, noise="again"),
        "fab-t": Stage(
            "fab-t", FAB(norm, True, steps), targets=_TARGETS, noise="again"
        ),
        "square": Stage("square", Square(norm, queries)),
    }
    if "pma" in names:
        stages["pma"] = Stage("pma", PMA(steps))
    return tuple(stages[name] for name in names)


def concerns(survived: Mapping[str, np.ndarray]) -> list[str]:
    """Returns whether Square broke what every attack before it had left."""
    names = list(survived)
    place = names.index("square") if "square" in names else 0
    if place < 2:
        return []
    return checks.check_square(survived[names[place - 1]], survived["square"])


def examine(
    engine: Engine,
    stages: tuple[Stage, ...],
    images: np.ndarray,
    labels: np.ndarray,
    *,
    rand: bool,
) -> list[str]:
    """Returns what is odd about a function, judged by the first images.

    Raises:
        ArgumentError: labels that the function has no class for.
    """
    count = min(_EXAMINED, len(images))
    logits = [predict(engine, images[:count], number) for number in range(_CALLS)]
    classes = logits[0].shape[1]
    answers.labels(labels, count=len(images), classes=classes)
    found = checks.check_function(logits, rand=rand)
    found += checks.check_classes(classes, stages)
    if any(stage.follows_gradients for stage in stages):
        sizes = gradient_sizes(engine, images[:count], labels[:count])
        found += checks.check_gradients(sizes)
    return found
