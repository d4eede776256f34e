"""Convolutional density enhancement: images given the high frequencies of one's choice.

Two stacked convolutions without an activation, 3 -> 16 -> 3 channels of 7 x 7, learn to
bring the spectral density of images close to a target with two peaks while the images
stay what they are. The new image keeps the low frequencies of the old one and takes the
high ones of the convolved. With kernels for each class (SCR) the high frequencies tell
the class, with the same kernels for all (WCR) they do not.

Source: Lin, Gao and Sang, IJCAI 2022, and the published recipe. Images are
[..., H, W, C], pixels in [0, 1].
"""

from apr_jax.cdes.filters import FORMS, Kernels, convolve, init_kernels, remake
from apr_jax.cdes.images import (
    density,
    double_peak,
    foreign_low,
    restructure,
    ring_mask,
)
from apr_jax.cdes.training import (
    WAYS,
    Recipe,
    add_noise,
    losses,
    make_gradient,
    optimiser,
    over_sets,
    train,
)

__all__ = [
    "FORMS",
    "WAYS",
    "Kernels",
    "Recipe",
    "add_noise",
    "convolve",
    "density",
    "double_peak",
    "foreign_low",
    "init_kernels",
    "losses",
    "make_gradient",
    "optimiser",
    "over_sets",
    "remake",
    "restructure",
    "ring_mask",
    "train",
]
