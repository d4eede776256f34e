"""TrivialAugment: one operation for each image, of any strength.

Müller and Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation",
ICCV 2021, algorithm 1, with the operations and ranges that they call "wide".
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from apr_jax.augment.apr_single import chunk_size, from_levels, to_levels
from apr_jax.augment.keys import per_image_keys
from apr_jax.augment.ops import apply_ops, op_set
from apr_jax.augment.packed import pack, unpack
from apr_jax.gates.images import images_gate

# The strengths of an operation, from none to the most.
STRENGTHS = 31


@images_gate("either", rounds=True)
def trivialaugment(
    key: jax.Array,
    images: jax.Array,
    *,
    ops: str = "all",
    chunk: int | str = "auto",
) -> jax.Array:
    """One operation for each image, drawn with its strength and direction.

    Each operation, none at all being one of them, is as likely as any other, and so is
    each of 31 strengths. The most of each: rotation by 135 degrees, shear of 0.99,
    translation by 32 pixels, 2 bits kept by posterize, every level inverted by
    solarize, and color, contrast, brightness and sharpness of 1 +- 0.99. These are the
    strengths of torchvision's ``TrivialAugmentWide``, which the authors recommend;
    their own code spreads the last four evenly from 0.01 to 2. Departures: rotation is
    by whole degrees, as in the authors' code but not torchvision's, and warps are
    bilinear where both take the nearest pixel. Crop and flip come before it, and Cutout
    after it in the paper's experiments on CIFAR.

    Args:
        key: one key, or one per image [N].
        images: [N, H, W, C], C of 1 or 3: uint8, or floating point in [0, 1], which is
            rounded to 256 grey levels first.
        ops: "base" leaves out color, contrast, brightness and sharpness, which are
            corruptions of the -C sets; "all" has them.
        chunk: as `apr_single`'s.

    Returns:
        [N, H, W, C] of the same type.

    Raises:
        ValueError: an unknown name, another shape, or a wrong number of keys.
    """
    names = op_set(ops)
    levels = to_levels(images)
    count, height, width, channels = levels.shape
    op, step, negate = draw_operations(key, count, ops=ops)
    table = jnp.asarray(_augmix_levels(names, height, width), jnp.float32)
    words = apply_ops(
        pack(levels),
        op,
        table[negate.astype(jnp.int32), op, step],
        negate,
        names=names,
        channels=channels,
        chunk=chunk_size(chunk, height, width),
    )
    return from_levels(unpack(words, channels), images.dtype)


def draw_operations(
    key: jax.Array, count: int, *, ops: str
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The operation, strength and direction that `trivialaugment` draws.

    Returns:
        int32 [N], places in the set of operations, its length standing for none; int32
        [N] from 0 to `STRENGTHS` - 1; bool [N], whether the direction is turned.
    """
    number = len(op_set(ops)) + 1

    def draw(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        op_key, step_key, sign_key = jax.random.split(key, 3)
        return (
            jax.random.randint(op_key, (), 0, number),
            jax.random.randint(step_key, (), 0, STRENGTHS),
            jax.random.bernoulli(sign_key),
        )

    return jax.vmap(draw)(per_image_keys(key, count))


def _augmix_levels(
    names: tuple[str, ...], height: int, width: int
) -> npt.NDArray[np.float64]:
    """Strengths on the scale of `apply_ops`: [2, operations and none, `STRENGTHS`].

    The first axis is the direction. The scale is AugMix's, of which this goes beyond
    both ends. What `apply_ops` cuts to whole numbers lies half way between two of them.
    """
    steps, most = np.arange(STRENGTHS), STRENGTHS - 1
    pixels = 32 * steps // most + 0.5
    both_ways = {
        "rotate": (135 * steps // most + 0.5) / 3,
        "shear_x": 0.99 * steps / most / 0.03,
        "shear_y": 0.99 * steps / most / 0.03,
        "translate_x": pixels * 30 / width,
        "translate_y": pixels * 30 / height,
        # From 8 bits to 2, where level 0 keeps 4; thresholds from 255 to 0.
        "posterize": (np.round(6 * steps / most) - 4 + 0.5) / 0.4,
        "solarize": (1 + 255 * steps // most + 0.5) / 25.6,
    }
    table = np.zeros((2, len(names) + 1, STRENGTHS))
    for place, name in enumerate(names):
        if name in both_ways:
            table[:, place] = both_ways[name]
        for direction, sign in enumerate((1, -1)):
            if name in ("color", "contrast", "brightness", "sharpness"):
                factor = 1 + sign * 0.99 * steps / most
                table[direction, place] = (factor - 0.1) / 0.18
    return table
