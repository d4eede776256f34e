"""Adversarial attacks on pixels in [0, 1]: from FGSM to AutoAttack and PMA.

All are called as ``attack(key, logits_fn, images, labels, *, eps, norm, ...)`` and
return a ``Result``. Normalisation belongs into ``logits_fn``. ``gradient_masking``
takes the same and says whether their numbers are to be trusted.
"""

from apr_jax.attacks.apgd import apgd
from apr_jax.attacks.autoattack import autoattack
from apr_jax.attacks.checks import AttackWarning
from apr_jax.attacks.fab import fab
from apr_jax.attacks.masking import Sign, gradient_masking
from apr_jax.attacks.norms import NORMS
from apr_jax.attacks.pgd import fgsm, pgd
from apr_jax.attacks.pma import pma
from apr_jax.attacks.rounds import Result
from apr_jax.attacks.sequence import ATTACKS, VERSIONS
from apr_jax.attacks.square import square
from apr_jax.attacks.surface import Surface, loss_surface
from apr_jax.attacks.surrogate import transfer

__all__ = [
    "ATTACKS",
    "NORMS",
    "VERSIONS",
    "AttackWarning",
    "Result",
    "Sign",
    "Surface",
    "apgd",
    "autoattack",
    "fab",
    "fgsm",
    "gradient_masking",
    "loss_surface",
    "pgd",
    "pma",
    "square",
    "transfer",
]
