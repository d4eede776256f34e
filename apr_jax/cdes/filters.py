"""Two stacked convolutions without an activation: one filter, however computed."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import fft

from apr_jax.cdes.images import restructure
from apr_jax.pixels import to_pixels

Kernels = dict[str, jax.Array]  # "first" [k, k, C, F], "second" [k, k, F, C]

FORMS = ("fft", "conv")


def init_kernels(
    key: jax.Array, channels: int, *, filters: int = 16, size: int = 7
) -> Kernels:
    """Kernels before training: uniform within 1 / sqrt(inputs of an output).

    Args:
        key: draws them.
        channels: of the images.
        filters: between the two convolutions.
        size: of the kernels, odd.
    """
    shapes = {
        "first": (size, size, channels, filters),
        "second": (size, size, filters, channels),
    }
    keys = jax.random.split(key, len(shapes))
    return {
        name: jax.random.uniform(k, shape, minval=-1, maxval=1)
        / np.sqrt(np.prod(shape[:-1]))
        for k, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def convolve(kernels: Kernels, images: jax.Array, *, form: str = "fft") -> jax.Array:
    """Both convolutions, one after the other: [B, H, W, C] -> same, float32.

    The image is padded with zeros once, so far that nothing is cut off between the
    two; then, without an activation, they are one filter. "fft" computes it in
    frequency space, "conv" as two convolutions: the same function, with the same
    gradients. The description doesn't say how the borders were padded.

    Raises:
        ValueError: unknown ``form``.
    """
    if form not in FORMS:
        raise ValueError(f"unknown form {form!r}, choose from {FORMS}")
    images = images.astype(jnp.float32)
    if form == "fft":
        return _filter(kernels, images)
    border = kernels["first"].shape[0] - 1
    images = jnp.pad(images, ((0, 0), (border, border), (border, border), (0, 0)))
    for name in ("first", "second"):
        images = jax.lax.conv_general_dilated(
            images,
            kernels[name],
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
    return images


def _filter(kernels: Kernels, images: jax.Array) -> jax.Array:
    """Both convolutions as one product in frequency space."""
    height, width, channels = images.shape[-3:]
    border = kernels["first"].shape[0] - 1
    # Pixels that wrap around the end meet the zeros before the image.
    shape = tuple(fft.next_fast_len(n + border, real=True) for n in (height, width))
    after = (shape[0] - height - border, shape[1] - width - border)
    space = ((0, 0), (0, 0), (border, after[0]), (border, after[1]))
    padded = jnp.pad(jnp.moveaxis(images, -1, 1), space)
    spectrum = jnp.fft.rfft2(padded)  # [B, C, ...]
    response = _response(kernels, shape)  # [C, C, ...]
    rows = [
        sum(
            spectrum[:, i] * jnp.broadcast_to(response[i, o], spectrum[:, i].shape)
            for i in range(channels)
        )
        for o in range(channels)
    ]
    filtered = jnp.fft.irfft2(jnp.stack(rows, axis=1), shape)
    return jnp.moveaxis(filtered[..., :height, :width], 1, -1)


def _response(kernels: Kernels, shape: tuple[int, ...]) -> jax.Array:
    """The response of both convolutions: complex [C, C, H, W / 2 + 1]."""
    # Networks correlate: hence the conjugate. The DFT of a few taps is a product.
    waves = [
        np.exp(2j * np.pi * np.outer(np.arange(count), np.arange(taps)) / full)
        for count, full, taps in (
            (shape[0], shape[0], kernels["first"].shape[0]),
            (shape[1] // 2 + 1, shape[1], kernels["first"].shape[1]),
        )
    ]
    rows, columns = (jnp.asarray(wave, jnp.complex64) for wave in waves)
    first, second = (
        jnp.einsum(
            "ya,abij,xb->yxij", rows, kernels[name], columns, precision="highest"
        )
        for name in ("first", "second")
    )
    return jnp.einsum("yxif,yxfo->ioyx", first, second, precision="highest")


def remake(kernels: Kernels, images: jax.Array, *, form: str = "fft") -> jax.Array:
    """New images of one set of kernels.

    Args:
        kernels: of one set.
        images: uint8 or pixels, [B, H, W, C].
        form: see ``convolve``.

    Returns:
        float32 pixels [B, H, W, C]: see ``restructure``.
    """
    pixels = to_pixels(images)
    return restructure(pixels, convolve(kernels, pixels, form=form))
