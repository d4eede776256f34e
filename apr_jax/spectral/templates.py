"""The phase as contrasts between regions: equations (3) and (4) of the APR paper."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from apr_jax.gates.images import images_gate
from apr_jax.spectral.inputs import as_real, wave_turns


class Templates(NamedTuple):
    """Four non-negative templates of a coefficient, float32 [H, W] each.

    Attributes:
        real_plus, real_minus: max(cos t, 0) and max(-cos t, 0).
        imaginary_plus, imaginary_minus: max(sin t, 0) and max(-sin t, 0).
    """

    real_plus: jax.Array
    real_minus: jax.Array
    imaginary_plus: jax.Array
    imaginary_minus: jax.Array


def contrast_templates(
    height: int, width: int, u: int | jax.Array, v: int | jax.Array
) -> Templates:
    """The templates of the Fourier coefficient (u, v): equation (3).

    With t(n, m) = -2 pi (u n / H + v m / W). Rows n and columns m count from 0, as in
    every FFT; the paper counts from 1, which turns each phase by a constant.

    Args:
        height, width: H and W of the image, which need not be square.
        u, v: row and column of the unshifted spectrum, any integers (taken modulo H
            and W), traced ones too.
    """
    angle = (-2 * jnp.pi * wave_turns(height, width, u, v)).astype(jnp.float32)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    rectified = (jnp.maximum(x, 0.0) for x in (cos, -cos, sin, -sin))
    return Templates(*rectified)


@images_gate("pixels", values="any", rank=None, single=False)
def template_sums(
    images: jax.Array, u: int | jax.Array, v: int | jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """The sum that each template of (u, v) has of each channel: of x times T.

    Args:
        images: floating point [..., H, W, C].
        u, v: as for ``contrast_templates``.

    Returns:
        Four of float32 [..., C], in the order of ``Templates``.

    Raises:
        TypeError, ValueError: as ``recombine`` does.
    """
    pixels = as_real(images)[0].astype(jnp.float32)
    height, width = pixels.shape[-3:-1]
    found = (
        jnp.einsum("...hwc,hw->...c", pixels, t, precision=jax.lax.Precision.HIGHEST)
        for t in contrast_templates(height, width, u, v)
    )
    one, two, three, four = found
    return one, two, three, four


@images_gate("pixels", values="any", rank=None, single=False)
def template_phase(
    images: jax.Array, u: int | jax.Array, v: int | jax.Array
) -> jax.Array:
    """Phase of the coefficient (u, v) from the four contrasts: equation (4).

    The phase of the two-dimensional DFT of each channel, in [-pi, pi]. The paper writes
    arctan of a quotient; that loses the quadrant, which is the signs that the templates
    are said to carry, and puts every phase into (-pi/2, pi/2). This takes arctan2 of
    the two contrasts.

    Args, errors: as for ``template_sums``. Returns float32 [..., C].
    """
    real_plus, real_minus, imaginary_plus, imaginary_minus = template_sums(images, u, v)
    return jnp.arctan2(imaginary_plus - imaginary_minus, real_plus - real_minus)
