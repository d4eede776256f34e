"""Random crop and mirror image, the augmentation that every method has."""

import jax
import jax.numpy as jnp

from apr_jax.augment.keys import image_coins, per_image_keys
from apr_jax.gates import numbers
from apr_jax.gates.images import images_gate

EDGES = ("fill", "reflect")


@images_gate("either", values="finite")
def random_crop(
    key: jax.Array,
    images: jax.Array,
    *,
    pad: int = 4,
    fill: float = 128,
    edge: str = "fill",
) -> jax.Array:
    """Each image shifted by up to `pad` pixels both ways: [N, H, W, C] -> same.

    The crop of H x W from the image with `pad` pixels more on every side, all offsets
    equally likely.

    Args:
        key: one key, or one per image [N], see `per_image_keys`.
        images: uint8, or floating point of any range.
        pad: 0 or more.
        fill: in the images' own units, 128 for the authors' uint8.
        edge: "fill" pads with `fill`, "reflect" with the image mirrored about its
            outermost pixels, which aren't repeated.

    Raises:
        ValueError: negative `pad`, an unknown `edge`, a `fill` that is no grey level of
            uint8 images, not four axes, or a wrong number of keys.
    """
    if edge not in EDGES:
        raise ValueError(f"unknown edge {edge!r}, choose from {EDGES}")
    numbers.grey_fill(fill, images.dtype)
    keys = per_image_keys(key, images.shape[0])
    sides = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    if edge == "reflect":
        padded = jnp.pad(images, sides, mode="reflect")
    else:
        padded = jnp.pad(images, sides, constant_values=fill)
    offsets = jax.vmap(lambda k: jax.random.randint(k, (2,), 0, 2 * pad + 1))(keys)

    def crop(image: jax.Array, offset: jax.Array) -> jax.Array:
        start = (offset[0], offset[1], 0)
        return jax.lax.dynamic_slice(image, start, images.shape[1:])

    return jax.vmap(crop)(padded, offsets)


@images_gate("either", values="finite")
def random_flip(
    key: jax.Array, images: jax.Array, *, prob: float | jax.Array = 0.5
) -> jax.Array:
    """Each image mirrored left to right with probability `prob`: [N, H, W, C] -> same.

    Key and errors as `random_crop`'s.
    """
    count = images.shape[0]
    coin = image_coins(per_image_keys(key, count), count, prob)
    return jnp.where(coin[:, None, None, None], images[:, :, ::-1], images)
