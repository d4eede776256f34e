"""Grad-CAM: where in an image a network finds what speaks for a class.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017. For every network of ``apr_jax.models``, on the maps that its
global mean is taken of.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from apr_jax import config as config_lib
from apr_jax.gates import answers
from apr_jax.models import layers
from apr_jax.pixels import normalise, to_pixels


class GradCam(NamedTuple):
    """The finds of ``grad_cam``.

    Attributes:
        heatmap: float32 [N, h, w], 0 or more, at the size of the last maps.
        logits: float32 [N, K].
        classes: int32 [N], what the maps are of.
    """

    heatmap: jax.Array
    logits: jax.Array
    classes: jax.Array


def grad_cam(
    model: nn.Module,
    variables: Any,
    images: jax.Array,
    classes: jax.Array | None = None,
) -> GradCam:
    """Grad-CAM of each image (equations 1 and 2 of Selvaraju et al. 2017).

    The heatmap is ReLU(sum_k a_k A_k), with A_k the network's last maps, after their
    activation, and a_k the mean over pixels of the derivative of the class's logit by
    A_k. Good under ``jit``.

    Args:
        model: a network of ``apr_jax.models``.
        variables: its parameters and batch statistics.
        images: normalised, [N, H, W, C].
        classes: int [N]; None takes what the network answers, which is -1 (and the map
            of NaN) where its logits are NaN.

    Raises:
        ArgumentError: classes that the network doesn't have.
        ValueError: the network does not end in ``models.layers.classify``.
    """
    shapes = jax.eval_shape(lambda: _forward(model, variables, images, None))
    (count, outputs), like = shapes[0].shape, shapes[1]
    if classes is not None:
        answers.labels(classes, name="classes", count=count, classes=outputs)
    logits, maps = _forward(model, variables, images, None)
    chosen = answers.answer(logits) if classes is None else jnp.asarray(classes)

    def score(perturbation: jax.Array) -> jax.Array:
        # Images do not meet in evaluation, so one sum has every image's derivative.
        out, _ = _forward(model, variables, images, perturbation)
        return jnp.sum(jnp.take_along_axis(out, chosen[:, None], axis=-1))

    slopes = jax.grad(score)(jnp.zeros(like.shape, like.dtype)).astype(jnp.float32)
    weights = slopes.mean((1, 2))
    weighted = jnp.einsum("nhwk,nk->nhw", maps.astype(jnp.float32), weights)
    return GradCam(nn.relu(weighted), logits, chosen.astype(jnp.int32))


def upsample(
    heatmaps: jax.Array, height: int, width: int, *, offset: int = 0
) -> jax.Array:
    """Heatmaps at the size of the image, bilinear: [N, h, w] -> [N, height, width].

    Each place of the map is laid over its share of the image; that strided convolutions
    look up to half a stride further up and left is left out, as is usual.

    Args:
        heatmaps: of ``grad_cam``.
        height, width: of the images.
        offset: rows and columns by which the maps are too far down and right, from
            ``map_offset`` of the network. Those moved out at the top and left have seen
            nothing but padding; what the maps do not reach at the other end is 0.
    """
    if offset:
        edges = ((0, 0), (0, offset), (0, offset))
        heatmaps = jnp.pad(heatmaps[:, offset:, offset:], edges)
    return jax.image.resize(heatmaps, (len(heatmaps), height, width), "bilinear")


def make_grad_cam(
    model: nn.Module, data: config_lib.Data
) -> Callable[[Any, jax.Array, jax.Array], tuple[jax.Array, GradCam]]:
    """Grad-CAM of pixels: a jitted ``(variables, images, classes) -> (maps, found)``.

    Images are uint8 or pixels in [0, 1], [N, H, W, C]; normalisation happens inside.
    Classes are int [N]. ``maps`` is float32 [N, H, W], ``found`` a ``GradCam``.
    """
    offset = getattr(model, "map_offset", 0)

    def run(
        variables: Any, images: jax.Array, classes: jax.Array
    ) -> tuple[jax.Array, GradCam]:
        inputs = normalise(to_pixels(images), data)
        found = grad_cam(model, variables, inputs, classes)
        height, width = images.shape[1:3]
        return upsample(found.heatmap, height, width, offset=offset), found

    return jax.jit(run)


def _forward(
    model: nn.Module, variables: Any, images: jax.Array, perturbation: Any
) -> tuple[jax.Array, jax.Array]:
    """Logits [N, K] in float32, and the last maps with the perturbation added."""
    if perturbation is not None:
        added = {layers.LAST_MAPS: {"maps": perturbation}}
        variables = {**variables, "perturbations": added}
    logits, state = model.apply(
        variables, images, train=False, mutable=["intermediates"]
    )
    kept = state.get("intermediates", {}).get(layers.LAST_MAPS)
    if kept is None:
        raise ValueError(
            f"{type(model).__name__} keeps no last maps; Grad-CAM is for networks that "
            "end in apr_jax.models.layers.classify"
        )
    return logits.astype(jnp.float32), kept["maps"][0]
