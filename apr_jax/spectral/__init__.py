"""Fourier amplitude and phase of images, and what is built from them.

Images are [..., H, W, C] throughout. Integer pixels are refused: a transform of grey
levels has no integer result, so the caller decides on the range first.
"""

from apr_jax.spectral.analysis import (
    amplitude,
    azimuthal_profile,
    filter_bands,
    fourier_basis,
    phase,
    radial_mask,
    split_bands,
    square_mask,
)
from apr_jax.spectral.inputs import AXES
from apr_jax.spectral.recombination import (
    BACKENDS,
    choose_backend,
    recombine,
    recombine_channels,
    recombine_within,
)
from apr_jax.spectral.surgery import BANDS, band_mask, keep_bands, stretch
from apr_jax.spectral.templates import (
    Templates,
    contrast_templates,
    template_phase,
    template_sums,
)

__all__ = [
    "AXES",
    "BACKENDS",
    "BANDS",
    "Templates",
    "amplitude",
    "azimuthal_profile",
    "band_mask",
    "choose_backend",
    "contrast_templates",
    "filter_bands",
    "fourier_basis",
    "keep_bands",
    "phase",
    "radial_mask",
    "recombine",
    "recombine_channels",
    "recombine_within",
    "split_bands",
    "square_mask",
    "stretch",
    "template_phase",
    "template_sums",
]
