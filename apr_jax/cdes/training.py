"""Kernels of several sets of images, trained in one program."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from apr_jax.cdes.filters import Kernels, convolve, init_kernels
from apr_jax.cdes.images import density, double_peak
from apr_jax.pixels import to_pixels

WAYS = ("vmap", "map")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The training of kernels; the values are the published ones."""

    filters: int = 16  # between the two convolutions
    kernel_size: int = 7  # odd
    epochs: int = 20
    batch_size: int = 100
    learning_rate: float = 0.01
    step_epochs: int = 5  # the rate is multiplied by gamma every so many
    gamma: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    noise: float = 0.1  # uniform noise up to this share of an image's mean


def losses(
    kernels: Kernels, images: jax.Array, target: jax.Array, *, form: str = "fft"
) -> jax.Array:
    """Mean squared errors of the density and of the pixels, float32 [2].

    Their sum is what is minimised.

    Args:
        kernels: of one set.
        images: pixels [B, H, W, C], noise included.
        target: density to reach, [bands].
        form: see ``convolve``.
    """
    made = convolve(kernels, images, form=form)
    missed = density(made) - target[None]
    return jnp.stack([jnp.mean(missed**2), jnp.mean((made - images) ** 2)])


def add_noise(key: jax.Array, images: jax.Array, share: float) -> jax.Array:
    """Adds uniform noise from 0 to ``share`` times each image's mean."""
    mean = images.mean((-3, -2, -1), keepdims=True)
    return images + share * mean * jax.random.uniform(key, images.shape)


def optimiser(recipe: Recipe, steps_per_epoch: int) -> optax.GradientTransformation:
    """SGD with momentum, weight decay and a rate that falls in steps."""
    every = recipe.step_epochs * steps_per_epoch
    return optax.chain(
        optax.add_decayed_weights(recipe.weight_decay),
        optax.sgd(
            lambda step: recipe.learning_rate * recipe.gamma ** (step // every),
            momentum=recipe.momentum,
        ),
    )


def make_gradient(
    target: np.ndarray, recipe: Recipe, *, form: str = "fft"
) -> Callable[..., Any]:
    """Returns ``(kernels, images, key) -> (gradients, losses [2])`` of one set.

    Images are uint8 or pixels, [B, H, W, C]; the noise is drawn by the key.
    """

    def gradient(
        kernels: Kernels, images: jax.Array, key: jax.Array
    ) -> tuple[Kernels, jax.Array]:
        pixels = add_noise(key, to_pixels(images), recipe.noise)

        def loss(kernels: Kernels) -> tuple[jax.Array, jax.Array]:
            parts = losses(kernels, pixels, jnp.asarray(target, jnp.float32), form=form)
            return parts.sum(), parts

        return jax.grad(loss, has_aux=True)(kernels)

    return gradient


def over_sets(function: Callable[..., Any], way: str) -> Callable[..., Any]:
    """Maps a function over the leading axis of all its arguments; see ``train``."""
    if way not in WAYS:
        raise ValueError(f"unknown way {way!r}, choose from {WAYS}")
    if way == "vmap":
        return jax.vmap(function)
    return lambda *every: jax.lax.map(lambda own: function(*own), every)


def train(
    key: jax.Array,
    images: jax.Array,
    *,
    recipe: Recipe,
    form: str = "fft",
    way: str = "vmap",
    follow: Callable[[int, np.ndarray], None] = lambda *_: None,
) -> tuple[Kernels, np.ndarray]:
    """Trains the kernels of several sets of images in one program.

    Args:
        key: of the initial kernels, the order of the images and the noise.
        images: uint8 [S, N, H, W, C], a set for each of the S kernels. Each epoch has
            every image once but for those that don't fill a batch.
        recipe: how.
        form: see ``convolve``.
        way: the sets side by side ("vmap"), or one after the other inside the same
            program ("map"), which keeps what a processor works on in its caches.
        follow: called after every epoch with its number, from 1, and the losses of
            that epoch, [S, 2].

    Returns:
        Kernels with a leading axis of S, and mean losses by epoch, float64
        [epochs, S, 2]: of the density and of the pixels.

    Raises:
        ValueError: unknown ``form`` or ``way``.
    """
    sets, count, height, width, channels = images.shape
    batch = min(recipe.batch_size, count)
    steps = count // batch
    init_key, order_key, noise_key = jax.random.split(key, 3)
    init = lambda k: init_kernels(
        k, channels, filters=recipe.filters, size=recipe.kernel_size
    )
    kernels = jax.jit(jax.vmap(init))(jax.random.split(init_key, sets))
    bands = jax.eval_shape(density, jnp.zeros((height, width, channels))).shape[-1]
    target = double_peak(bands)
    gradient = over_sets(make_gradient(target, recipe, form=form), way)
    chain = optimiser(recipe, steps)

    @jax.jit
    def step(
        kernels: Kernels, state: Any, images: jax.Array, chosen: jax.Array, key: Any
    ) -> tuple[Kernels, Any, jax.Array]:
        rows = jax.vmap(lambda own, at: own[at])(images, chosen)
        grads, parts = gradient(kernels, rows, jax.random.split(key, sets))
        updates, state = chain.update(grads, state, kernels)
        return optax.apply_updates(kernels, updates), state, parts  # type: ignore

    @jax.jit
    def order(epoch: jax.Array) -> jax.Array:
        keys = jax.random.split(jax.random.fold_in(order_key, epoch), sets)
        return jax.vmap(lambda k: jax.random.permutation(k, count))(keys)

    state, images, history = chain.init(kernels), jnp.asarray(images), []
    # A loop of Python: on a CPU the "conv" form would be slow inside a scan.
    for epoch in range(recipe.epochs):
        chosen, found = order(epoch), []
        for i in range(steps):
            own_key = jax.random.fold_in(noise_key, epoch * steps + i)
            rows = chosen[:, i * batch : (i + 1) * batch]
            kernels, state, parts = step(kernels, state, images, rows, own_key)
            found.append(parts)
        history.append(np.mean([np.float64(parts) for parts in found], axis=0))
        follow(epoch + 1, history[-1])
    return kernels, np.stack(history)
