"""Amplitude-phase recombination in JAX: the functions that other code imports.

Everything else of the package (networks, training, evaluation) is imported by its own
module path.
"""

import apr_jax.process  # noqa: F401  Ctrl-C ends a program without a traceback
from apr_jax.augment import apr, apr_pair, apr_single
from apr_jax.spectral import recombine

__all__ = ["apr", "apr_pair", "apr_single", "recombine"]
