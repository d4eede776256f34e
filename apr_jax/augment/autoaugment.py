"""AutoAugment: learned policies of two operations, and random ones.

Cubuk et al., "AutoAugment: Learning Augmentation Strategies from Data", CVPR 2019; the
policies are those of its appendix for CIFAR-10 and ImageNet.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax.augment import ops as ops_lib
from apr_jax.augment.apr_single import chunk_size, from_levels, to_levels
from apr_jax.augment.keys import per_image_keys
from apr_jax.augment.ops import POLICY_OPS
from apr_jax.augment.packed import pack, unpack
from apr_jax.gates.images import images_gate

# Operation, probability, magnitude from 0 to 9; twice.
Step = tuple[str, float, int]
Policy = tuple[tuple[Step, Step], ...]

CIFAR10: Policy = (
    (("invert", 0.1, 7), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.5, 8), ("equalize", 0.9, 2)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 5), ("equalize", 0.5, 1)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 7), ("autocontrast", 0.4, 8)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 3)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalize", 0.2, 8), ("equalize", 0.6, 4)),
    (("color", 0.9, 9), ("equalize", 0.6, 6)),
    (("autocontrast", 0.8, 4), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 3)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.9, 2), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 8), ("invert", 0.1, 3)),
    (("translate_y", 0.7, 9), ("autocontrast", 0.9, 1)),
)

IMAGENET: Policy = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 5)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 4), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 7)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 2)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 8), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("color", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 2)),
    (("equalize", 0.0, 7), ("equalize", 0.8, 8)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("color", 1.0, 2)),
    (("color", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 8)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 9)),
    (("color", 0.4, 0), ("equalize", 0.6, 3)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 5)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
)

POLICIES = {"cifar10": CIFAR10, "imagenet": IMAGENET}

# The search space has 11 probabilities and 10 magnitudes.
_PROBABILITIES, _MAGNITUDES = 11, 10


class Pairs(NamedTuple):
    """Two operations for each of N images.

    Attributes:
        op: int32 [2, N], places in `POLICY_OPS`; its length where there is none.
        level: float32 [2, N], AugMix's scale of 0 to 10.
        negate: bool [2, N], the direction.
    """

    op: jax.Array
    level: jax.Array
    negate: jax.Array


@images_gate("either", rounds=True)
def autoaugment(
    key: jax.Array,
    images: jax.Array,
    *,
    policy: str = "cifar10",
    ops: str = "all",
    chunk: int | str = "auto",
) -> jax.Array:
    """A random one of 25 learned sub-policies for each image.

    Each of its two operations is applied with its own probability and magnitude, in a
    random direction where it has one. The magnitudes mean what they mean in the
    authors' CIFAR code, from which AugMix took its operations: `apply_op` at level m.
    Departures: warps are bilinear where that code takes the nearest pixel, translations
    are int(m size / 30) instead of int(m) pixels, which is 9 of 32 either way, and
    ImageNet uses the same scales, a larger magnitude always being the stronger. Crop
    and flip come before it, and Cutout after it in the paper.

    Args:
        key: one key, or one per image [N].
        images: [N, H, W, C], C of 1 or 3: uint8, or floating point in [0, 1], which is
            rounded to 256 grey levels first.
        policy: one of `POLICIES`.
        ops: "base" leaves out color, contrast, brightness and sharpness, which are
            corruptions of the -C sets; "all" has them.
        chunk: as `apr_single`'s.

    Returns:
        [N, H, W, C] of the same type.

    Raises:
        ValueError: an unknown name, another shape, or a wrong number of keys.
    """
    pairs = draw_policy(key, images.shape[0], policy=policy, ops=ops)
    return _apply(images, pairs, chunk)


@images_gate("either", rounds=True)
def random_autoaugment(
    key: jax.Array,
    images: jax.Array,
    *,
    ops: str = "base",
    chunk: int | str = "auto",
) -> jax.Array:
    """Random sub-policies instead of learned ones, new ones for each image.

    AugMix compares with "random AutoAugment" on ImageNet-C without more detail. Here
    both operations, their probabilities (0, 0.1, ..., 1) and their magnitudes (0 to 9)
    are uniform over AutoAugment's search space, less the operations that AugMix leaves
    out there; "all" has every one of `POLICY_OPS`. Otherwise as `autoaugment`.
    """
    pairs = draw_random(key, images.shape[0], ops=ops)
    return _apply(images, pairs, chunk)


def draw_policy(key: jax.Array, count: int, *, policy: str, ops: str) -> Pairs:
    """The draws of `autoaugment`."""
    if policy not in POLICIES:
        raise ValueError(f"unknown policy {policy!r}, choose from {tuple(POLICIES)}")
    kept = ops_lib.op_set(ops)
    table = [[_numbers(step, kept) for step in pair] for pair in POLICIES[policy]]
    # [sub-policies, 2, operation and probability and magnitude]
    steps = jnp.asarray(np.array(table, np.float32))

    def draw(key: jax.Array) -> tuple[jax.Array, ...]:
        which_key, coin_key, sign_key = jax.random.split(key, 3)
        step = steps[jax.random.randint(which_key, (), 0, len(table))]
        used = jax.random.uniform(coin_key, (2,)) < step[:, 1]
        op = jnp.where(used, step[:, 0].astype(jnp.int32), len(POLICY_OPS))
        return op, step[:, 2], jax.random.bernoulli(sign_key, shape=(2,))

    return Pairs(*jax.vmap(draw, out_axes=1)(per_image_keys(key, count)))


def draw_random(key: jax.Array, count: int, *, ops: str) -> Pairs:
    """The draws of `random_autoaugment`."""
    # The four that "base" leaves out come last, and what AugMix left out after them.
    number = len(POLICY_OPS) if ops == "all" else len(ops_lib.op_set(ops))

    def draw(key: jax.Array) -> tuple[jax.Array, ...]:
        op_key, prob_key, coin_key, level_key, sign_key = jax.random.split(key, 5)
        tenths = jax.random.randint(prob_key, (2,), 0, _PROBABILITIES)
        coin = jax.random.uniform(coin_key, (2,)) * (_PROBABILITIES - 1)
        used = coin < tenths.astype(jnp.float32)
        op = jax.random.randint(op_key, (2,), 0, number)
        level = jax.random.randint(level_key, (2,), 0, _MAGNITUDES)
        return (
            jnp.where(used, op, len(POLICY_OPS)),
            level.astype(jnp.float32),
            jax.random.bernoulli(sign_key, shape=(2,)),
        )

    return Pairs(*jax.vmap(draw, out_axes=1)(per_image_keys(key, count)))


def _numbers(step: Step, kept: tuple[str, ...]) -> tuple[float, float, float]:
    name, prob, magnitude = step
    left_out = name in ops_lib.OPS and name not in kept
    return POLICY_OPS.index(name), 0.0 if left_out else prob, magnitude


def _apply(images: jax.Array, pairs: Pairs, chunk: int | str) -> jax.Array:
    levels = to_levels(images)
    _, height, width, channels = levels.shape
    words = ops_lib.apply_in_turn(
        pack(levels),
        pairs,
        names=POLICY_OPS,
        channels=channels,
        chunk=chunk_size(chunk, height, width),
    )
    return from_levels(unpack(words, channels), images.dtype)
