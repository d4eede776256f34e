"""Two images in one, and their labels by weight: Mixup and CutMix."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from apr_jax.augment.apr_pair import choose_partners
from apr_jax.augment.keys import draw_per, split_keys
from apr_jax.gates.images import images_gate


class Mixed(NamedTuple):
    """Mixed images and what the loss needs: w CE(y) + (1 - w) CE(y[partner]).

    Attributes:
        images: [N, H, W, C].
        partner: int [N], places in the batch, or in the donors if there were some.
        weight: float32 [N] in [0, 1], the share of the image's own label.
    """

    images: jax.Array
    partner: jax.Array
    weight: jax.Array


class Boxes(NamedTuple):
    """Rectangles: int32 [N] each, from first to last (exclusive), in the image."""

    top: jax.Array
    bottom: jax.Array
    left: jax.Array
    right: jax.Array


@images_gate("pixels")
def mixup(
    key: jax.Array,
    images: jax.Array,
    *,
    alpha: float = 1.0,
    per: str = "batch",
    donors: jax.Array | None = None,
    donor_index: jax.Array | None = None,
) -> Mixed:
    """w x + (1 - w) x' with w from Beta(alpha, alpha) (Zhang et al. 2018).

    Args:
        key: one key.
        images: floating point [N, H, W, C].
        alpha: of the Beta distribution, positive; 1 on CIFAR, 0.2 on ImageNet.
        per: "batch" draws one weight for all, as the authors do; "image" one for each.
        donors, donor_index: as `apr_pair`'s.

    Raises:
        TypeError: pixels are not floating point.
        ValueError: an unknown name, another shape, or alpha that isn't positive.
    """
    partner_key, weight_key = split_keys(key, 2)
    partners = choose_partners(partner_key, images, donors, donor_index)
    weight = draw_weights(weight_key, len(images), alpha=alpha, per=per)
    own = weight.astype(images.dtype)[:, None, None, None]
    mixed = own * images + (1 - own) * partners.images
    return Mixed(mixed, partners.order, weight)


@images_gate("pixels")
def cutmix(
    key: jax.Array,
    images: jax.Array,
    *,
    alpha: float = 1.0,
    per: str = "batch",
    donors: jax.Array | None = None,
    donor_index: jax.Array | None = None,
) -> Mixed:
    """A rectangle of each image from its partner (Yun et al. 2019).

    Its share of the area is 1 - w, w from Beta(alpha, alpha), before the border cuts
    it; the weight that is returned is one minus the share of the pixels replaced.
    Arguments and errors as `mixup`'s, where "batch" also means one rectangle for all;
    the authors' CIFAR runs mix half of the batches.
    """
    partner_key, weight_key, box_key = split_keys(key, 3)
    partners = choose_partners(partner_key, images, donors, donor_index)
    count, height, width, _ = images.shape
    weight = draw_weights(weight_key, count, alpha=alpha, per=per)
    boxes = draw_boxes(box_key, weight, height=height, width=width, per=per)
    rows, columns = jnp.arange(height)[None], jnp.arange(width)[None]
    in_rows = (rows >= boxes.top[:, None]) & (rows < boxes.bottom[:, None])
    in_columns = (columns >= boxes.left[:, None]) & (columns < boxes.right[:, None])
    mask = (in_rows[:, :, None] & in_columns[:, None, :])[..., None]
    area = (boxes.bottom - boxes.top) * (boxes.right - boxes.left)
    return Mixed(
        jnp.where(mask, partners.images, images),
        partners.order,
        1 - area.astype(jnp.float32) / (height * width),
    )


def draw_weights(key: jax.Array, count: int, *, alpha: float, per: str) -> jax.Array:
    """Weights from Beta(alpha, alpha): float32 [N], all the same for "batch"."""

    def draw(key: jax.Array) -> jax.Array:
        # X / (X + Y) of two Gamma variables; one call draws both.
        first, second = jax.random.loggamma(key, alpha, (2,))
        return jax.nn.sigmoid(first - second)

    return draw_per(draw, key, count, per)


def draw_boxes(
    key: jax.Array, weight: jax.Array, *, height: int, width: int, per: str
) -> Boxes:
    """Rectangles of share 1 - weight around any pixel, cut by the border."""
    sides = jnp.array([height, width])
    draw = lambda k: jax.random.randint(k, (2,), 0, sides)
    centre = draw_per(draw, key, len(weight), per)
    cut = jnp.sqrt(1 - weight)[:, None] * sides[None].astype(jnp.float32)
    half = jnp.floor(cut).astype(jnp.int32) // 2
    low = jnp.clip(centre - half, 0, sides[None])
    high = jnp.clip(centre + half, 0, sides[None])
    return Boxes(low[:, 0], high[:, 0], low[:, 1], high[:, 1])
