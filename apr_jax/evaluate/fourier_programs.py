"""What networks answer on images whose frequencies were changed, as programs."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from apr_jax import fast_random, parallel, spectral
from apr_jax.evaluate import programs
from apr_jax.gates import answers
from apr_jax.pixels import to_pixels

# Keeps the draws of signs apart from others of the same seed.
_SIGN_STREAM = 0x519


def _look(
    asked: programs.Asked, variables: Any, images: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Answers [B], and how many of each image's logits are not finite [B]."""
    logits, _ = asked(variables, images)
    return answers.answer(logits), answers.not_finite_each(logits)


def _count(
    asked: programs.Asked,
    variables: Any,
    images: jax.Array,
    labels: jax.Array,
    mask: jax.Array,
) -> jax.Array:
    """[2]: images that are not recognised, and their logits that are not finite."""
    said, bad = _look(asked, variables, images)
    return jnp.stack([jnp.sum((said != labels) & mask), jnp.sum(bad * mask)])


@programs.once
def looker(asked: programs.Asked, layout: parallel.Layout) -> Callable[..., Any]:
    """(variables, images) -> ``_look``."""
    return parallel.make_gather(functools.partial(_look, asked), layout)


@programs.once
def pair_looker(
    asked: programs.Asked, layout: parallel.Layout, axes: tuple[int, ...]
) -> Callable[..., Any]:
    """(variables, (phases, amplitudes)) -> ``_look`` at what joins them."""

    def answer(variables: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
        images, amplitudes = (to_pixels(x) for x in batch)
        mixed = spectral.recombine(amplitudes, images, axes=axes)
        return _look(asked, variables, mixed)

    return parallel.make_gather(answer, layout)


@programs.once
def parts_counter(asked: programs.Asked, layout: parallel.Layout) -> Callable[..., Any]:
    """(variables, (batch, mask)) -> ``_count`` of low and of high parts, [2, 2]."""

    def count(variables: Any, batch: Any) -> jax.Array:
        (images, labels, mask, _), keep = batch
        pixels = to_pixels(images)
        spectrum = jnp.fft.rfft2(pixels, axes=(1, 2))
        kept = spectrum * keep[None, :, :, None]
        low = jnp.fft.irfft2(kept, pixels.shape[1:3], axes=(1, 2))
        counts = [
            _count(asked, variables, x, labels, mask) for x in (low, pixels - low)
        ]
        return jnp.stack(counts)

    return parallel.make_gather(count, layout)


@programs.once
def wave_counter(
    asked: programs.Asked,
    layout: parallel.Layout,
    norm: float,
    seed: int,
    in_program: bool,
) -> Callable[..., Any]:
    """(variables, (batch, waves)) -> ``_count`` under each of the waves, [W, 2]."""

    def count(variables: Any, batch: Any) -> jax.Array:
        (images, labels, mask, numbers), waves = batch
        pixels = to_pixels(images)
        height, width, channels = pixels.shape[1:]

        def under(wave: jax.Array) -> jax.Array:
            basis = spectral.fourier_basis(height, width, wave[0], wave[1])
            key = jax.random.fold_in(fast_random.key_of(seed), _SIGN_STREAM)
            key = jax.random.fold_in(key, wave[0] * width + wave[1])
            # A sign belongs to its wave and image, whatever batches and devices.
            keys = jax.vmap(lambda n: jax.random.fold_in(key, n))(numbers)
            draw = lambda k: jax.random.rademacher(k, (channels,), jnp.float32)
            signs = jax.vmap(draw)(keys)[:, None, None, :]
            noise = norm * signs * basis[None, :, :, None]
            moved = jnp.clip(pixels + noise, 0.0, 1.0)
            return _count(asked, variables, moved, labels, mask)

        # On a CPU convolutions lose their fast kernels inside a loop.
        return jax.lax.map(under, waves) if in_program else under(waves[0])[None]

    return parallel.make_gather(count, layout)
