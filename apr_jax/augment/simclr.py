"""SimCLR's augmentations: crops of any size, shifted colours, grey images; and turns.

From Chen et al., ICML 2020, appendix A, with the numbers of its CIFAR experiments;
what contrastive methods show twice of every image. All take floating point pixels in
[0, 1] and one key, or one per image.
"""

import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax.augment.keys import image_coins, per_image_keys
from apr_jax.gates.images import images_gate

# Of red, green and blue in the brightness of a pixel (ITU-R BT.601).
LUMA = (0.299, 0.587, 0.114)
# Every order of four.
_ORDERS = np.array(list(itertools.permutations(range(4))), np.int32)
# Attempts at a crop that fits, before the middle of the image is taken.
_ATTEMPTS = 10


class Jitter(NamedTuple):
    """The draws of `color_jitter` for N images.

    Attributes:
        brightness, contrast, saturation: float32 [N], factors; 1 changes nothing.
        hue: float32 [N], share of the colour circle to turn by.
        order: int32 [N, 4], in which the four happen, as numbered above from 0.
    """

    brightness: jax.Array
    contrast: jax.Array
    saturation: jax.Array
    hue: jax.Array
    order: jax.Array


@images_gate("pixels")
def simclr(
    key: jax.Array,
    images: jax.Array,
    *,
    area: float = 0.08,
    strength: float = 0.5,
    jitter_prob: float = 0.8,
    grey_prob: float = 0.2,
) -> jax.Array:
    """A random crop at full size, its colours shifted: [N, H, W, C] -> same.

    The mirror image is left to `random_flip`.

    Args:
        key: one key, or one per image [N].
        images: floating point in [0, 1], C of 1 or 3.
        area: smallest share of the image that a crop has.
        strength: of the colours: factors within 0.8 `strength` of 1 and hues within
            0.2 `strength`; 0.5 on CIFAR, 1 on ImageNet.
        jitter_prob: share of the images whose colours are shifted.
        grey_prob: share of the images that become grey.
    """
    keys = jax.vmap(lambda k: jax.random.split(k, 3))(_keys(key, images))
    images = random_resized_crop(keys[:, 0], images, area=area)
    images = color_jitter(keys[:, 1], images, strength=strength, prob=jitter_prob)
    return random_grey(keys[:, 2], images, prob=grey_prob)


@images_gate("pixels")
def random_resized_crop(
    key: jax.Array, images: jax.Array, *, area: float = 0.08
) -> jax.Array:
    """A crop of random size and shape, stretched to the whole: [N, H, W, C] -> same.

    Its share of the area is uniform in [`area`, 1], its width over its height
    log-uniform in [3/4, 4/3] (Szegedy et al. 2015, section 6).

    Raises:
        TypeError: pixels are not floating point.
        ValueError: not four axes, a wrong number of keys, or `area` not in (0, 1].
    """
    keys = _keys(key, images)
    boxes = draw_boxes(keys, height=images.shape[1], width=images.shape[2], area=area)
    return resized_crop(images, boxes)


def draw_boxes(keys: jax.Array, *, height: int, width: int, area: float) -> jax.Array:
    """Crops of `random_resized_crop`: keys [N] -> int32 [N, 4].

    Top, left, height and width in pixels, always within the image. Sizes are drawn
    until they fit, ten times at most; then the middle is taken, as large as its shape
    allows.
    """
    widest = math.log(4 / 3)
    ratio = min(max(width / height, 3 / 4), 4 / 3)
    spare = round(min(height, width / ratio)), round(min(width, height * ratio))
    bounds = jnp.array([height, width])

    def draw(key: jax.Array) -> jax.Array:
        area_key, shape_key, place_key = jax.random.split(key, 3)
        share = jax.random.uniform(area_key, (_ATTEMPTS,), minval=area)
        shape = jax.random.uniform(
            shape_key, (_ATTEMPTS,), minval=-widest, maxval=widest
        )
        root = jnp.sqrt(share * (height * width))
        sizes = jnp.stack(
            [
                jnp.round(root * jnp.exp(-shape / 2)),
                jnp.round(root * jnp.exp(shape / 2)),
            ],
            axis=1,
        ).astype(jnp.int32)
        fits = jnp.all((sizes > 0) & (sizes <= bounds[None]), axis=1)
        size = jnp.where(jnp.any(fits), sizes[jnp.argmax(fits)], jnp.array(spare))
        anywhere = jax.random.randint(place_key, (2,), 0, bounds - size + 1)
        place = jnp.where(jnp.any(fits), anywhere, (bounds - size) // 2)
        return jnp.concatenate([place, size])

    return jax.vmap(draw)(keys)


def resized_crop(images: jax.Array, boxes: jax.Array) -> jax.Array:
    """Each image's box stretched to the whole image, bilinear: [N, H, W, C] -> same.

    Pixels have their centres at the half; outside the box its border is repeated. So
    Pillow resizes a crop to a larger size.

    Args:
        images: floating point.
        boxes: [N, 4], top, left, height and width in pixels.
    """
    # Two products with bands of at most two weights a row: no indexing.
    rows = _stretch(boxes[:, 0], boxes[:, 2], images.shape[1])
    columns = _stretch(boxes[:, 1], boxes[:, 3], images.shape[2])
    return jnp.einsum(
        "nyh,nhwc,nxw->nyxc",
        rows.astype(images.dtype),
        images,
        columns.astype(images.dtype),
        precision=jax.lax.Precision.HIGHEST,
    )


def _stretch(first: jax.Array, size: jax.Array, side: int) -> jax.Array:
    """Weights [N, side, side] of the old pixels (last axis) in the new ones."""
    first, size = (x.astype(jnp.float32)[:, None] for x in (first, size))
    places = jnp.arange(side, dtype=jnp.float32)
    at = first + jnp.clip((places[None] + 0.5) * size / side - 0.5, 0, size - 1)
    return jnp.maximum(0, 1 - jnp.abs(at[..., None] - places[None, None]))


@images_gate("pixels")
def color_jitter(
    key: jax.Array, images: jax.Array, *, strength: float = 0.5, prob: float = 0.8
) -> jax.Array:
    """Brightness, contrast, saturation and hue shifted, in random order.

    [N, H, W, C] -> same, C of 1 or 3; `strength` and `prob` as `simclr`'s.

    Raises:
        TypeError: pixels are not floating point.
        ValueError: not four axes, neither 1 nor 3 channels, or a wrong number of keys.
    """
    keys = jax.vmap(lambda k: jax.random.split(k))(_keys(key, images))
    coin = image_coins(keys[:, 0], len(images), prob)
    shifted = apply_jitter(images, draw_jitter(keys[:, 1], strength=strength))
    return jnp.where(coin[:, None, None, None], shifted, images)


def draw_jitter(keys: jax.Array, *, strength: float) -> Jitter:
    """The draws of `color_jitter` for the images of keys [N]."""
    spread = 0.8 * strength

    def draw(key: jax.Array) -> Jitter:
        factor_key, hue_key, order_key = jax.random.split(key, 3)
        brightness, contrast, saturation = jax.random.uniform(
            factor_key, (3,), minval=jnp.maximum(0.0, 1 - spread), maxval=1 + spread
        )
        hue = jax.random.uniform(hue_key, minval=-0.2 * strength, maxval=0.2 * strength)
        order = jnp.asarray(_ORDERS)[jax.random.randint(order_key, (), 0, len(_ORDERS))]
        return Jitter(brightness, contrast, saturation, hue, order)

    return jax.vmap(draw)(keys)


def apply_jitter(images: jax.Array, jitter: Jitter) -> jax.Array:
    """Each image's colours shifted as drawn; clipped to [0, 1] after each of the four.

    Brightness multiplies, contrast draws away from the mean brightness of the image,
    saturation from the pixel's own, hue turns the colour circle of HSV.
    """
    spread = lambda factor: factor[:, None, None, None]
    # The hue is the only one that is much work, so it is turned once for all orders.
    place_of_hue = jnp.argmax(jitter.order == 3, axis=1)

    def drawn(images: jax.Array, place: int) -> jax.Array:
        now = spread(jitter.order[:, place])
        grey = luma(images)
        middle = jnp.mean(grey, axis=(1, 2, 3), keepdims=True)
        # The colour to draw away from: black, the mean, or the pixel without colour.
        base = jnp.where(now == 0, 0.0, jnp.where(now == 1, middle, grey))
        factor = jnp.where(
            now == 0,
            spread(jitter.brightness),
            jnp.where(now == 1, spread(jitter.contrast), spread(jitter.saturation)),
        )
        return jnp.clip(base + factor * (images - base), 0, 1)

    for place in range(3):
        before = spread(place < place_of_hue)
        images = jnp.where(before, drawn(images, place), images)
    images = turn_hue(images, jitter.hue)
    for place in range(1, 4):
        after = spread(place > place_of_hue)
        images = jnp.where(after, drawn(images, place), images)
    return images


def luma(images: jax.Array) -> jax.Array:
    """Brightness of each pixel: [..., C] -> [..., 1], C of 1 or 3."""
    if images.shape[-1] == 1:
        return images
    red, green, blue = (w * images[..., i, None] for i, w in enumerate(LUMA))
    return red + green + blue


def turn_hue(images: jax.Array, turn: jax.Array) -> jax.Array:
    """The hue in HSV turned by shares [N] of the circle; [N, H, W, C] in [0, 1].

    Value and saturation stay. Images of one channel have no hue.
    """
    if images.shape[-1] == 1:
        return images
    high = jnp.max(images, axis=-1)
    chroma = high - jnp.min(images, axis=-1)
    red, green, blue = (images[..., i] for i in range(3))
    unit = jnp.where(chroma > 0, chroma, 1.0)
    # In sixths of the circle, from red by green to blue. Which is largest is asked in
    # such a way that rounding decides only where both answers are the same.
    reddest = (red >= green) & (red >= blue)
    hue = jnp.where(
        reddest,
        (green - blue) / unit,
        jnp.where(green >= blue, 2 + (blue - red) / unit, 4 + (red - green) / unit),
    )
    hue = hue + 6 * turn[:, None, None]
    # How far each primary is from its corner of the hexagon.
    share = [jnp.mod(hue + n, 6) for n in (5, 3, 1)]
    low = [jnp.clip(jnp.minimum(k, 4 - k), 0, 1) for k in share]
    return jnp.stack([high - chroma * part for part in low], axis=-1)


@images_gate("pixels")
def random_grey(key: jax.Array, images: jax.Array, *, prob: float = 0.2) -> jax.Array:
    """A share of the images without colour: [N, H, W, C] -> same, C of 1 or 3.

    Raises:
        TypeError: pixels are not floating point.
        ValueError: not four axes, neither 1 nor 3 channels, or a wrong number of keys.
    """
    coin = image_coins(_keys(key, images), len(images), prob)
    return jnp.where(coin[:, None, None, None], luma(images), images)


@images_gate("either", values="finite", rank=None)
def quarter_turns(images: jax.Array, turns: int) -> jax.Array:
    """Images turned by `turns` times 90 degrees against the clock: [..., S, S, C].

    Raises:
        ValueError: images are not square.
    """
    if images.shape[-3] != images.shape[-2]:
        raise ValueError(f"images must be square to be turned, got {images.shape}")
    return jnp.rot90(images, turns, axes=(-3, -2))


def _keys(key: jax.Array, images: jax.Array) -> jax.Array:
    if images.shape[-1] not in (1, 3):
        raise ValueError(
            f"images must be [N, H, W, C] with C of 1 or 3, got {images.shape}"
        )
    return per_image_keys(key, images.shape[0])
