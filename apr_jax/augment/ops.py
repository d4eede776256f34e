"""The AugMix operations that APR-S draws from, each as Pillow computes it.

Grouped in families, each one computation for all its operations, so that a batch costs
a few passes and no branch per image.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from apr_jax.augment import ops_geometric, ops_tonal
from apr_jax.augment.packed import Chunk, OnCpu, pack, unpack, update_rows
from apr_jax.gates import numbers
from apr_jax.gates.images import images_gate

OPS = (
    "autocontrast",
    "equalize",
    "posterize",
    "rotate",
    "solarize",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "color",
    "contrast",
    "brightness",
    "sharpness",
)
# The last four overlap with corruptions of the -C sets and are left out beside them.
OP_SETS = {"base": OPS[:9], "all": OPS}
# AutoAugment's, of which AugMix left one out.
POLICY_OPS = (*OPS, "invert")

# Of a chunk on a CPU: smaller ones waste time starting work, larger ones on images that
# don't need it.
_CHUNK_PIXELS = 16_384


def op_set(ops: str) -> tuple[str, ...]:
    """The names in "base" (nine) or "all" (thirteen).

    Raises:
        ValueError: another name.
    """
    if ops not in OP_SETS:
        raise ValueError(f"unknown ops {ops!r}, choose from {tuple(OP_SETS)}")
    return OP_SETS[ops]


def default_chunk(height: int, width: int) -> Chunk:
    """Chunk of `packed.update_rows`: a CPU gains by computing only what is needed."""
    return OnCpu(max(1, _CHUNK_PIXELS // (height * width)))


@images_gate("levels", rules={"level": numbers.each_between(0, 10)})
def apply_op(
    images: jax.Array,
    name: str,
    level: float | jax.Array,
    *,
    negate: bool | jax.Array = False,
) -> jax.Array:
    """One operation on every image: uint8 [N, H, W, C] -> same, C of 1 or 3.

    Args:
        name: one of `POLICY_OPS`.
        level: strength in [0, 10], AugMix's scale; a number or one per image [N].
        negate: turns the direction of rotation, shear and translation; likewise.

    Raises:
        TypeError: pixels are not uint8.
        ValueError: unknown name, or another shape.
    """
    if name not in POLICY_OPS:
        raise ValueError(f"unknown operation {name!r}, choose from {POLICY_OPS}")
    count, _, _, channels = images.shape
    words = apply_ops(
        pack(images),
        jnp.full(count, POLICY_OPS.index(name)),
        jnp.broadcast_to(jnp.asarray(level, jnp.float32), (count,)),
        jnp.broadcast_to(jnp.asarray(negate), (count,)),
        names=POLICY_OPS,
        channels=channels,
    )
    return unpack(words, channels)


def apply_ops(
    words: jax.Array,
    op: jax.Array,
    level: jax.Array,
    negate: jax.Array,
    *,
    names: tuple[str, ...],
    channels: int,
    chunk: Chunk = None,
) -> jax.Array:
    """Each image's own operation.

    Args:
        words: packed uint32 [N, H, W].
        op: int [N]; an image with a number past the end of `names` stays as it is.
        level, negate: float and bool [N].
        names: what the numbers in `op` stand for, one of `OP_SETS` or `POLICY_OPS`.
        chunk: as `packed.update_rows`'s.
    """
    _, height, width = words.shape

    # Outside the functions: inside, sines would be fused into the work per pixel.
    matrices = ops_geometric.affine_matrices(
        names, op, level, negate, height=height, width=width
    )

    def equalize(words: jax.Array, *_: jax.Array) -> jax.Array:
        tables = ops_tonal.equalize_tables(words, channels=channels)
        return ops_tonal.apply_tables(words, tables)

    def of_each(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        return lambda words, _, op, level: function(
            names, op, level, words, channels=channels
        )

    families: dict[Callable[..., jax.Array], tuple[str, ...]] = {
        lambda words, matrices, *_: ops_geometric.warp(
            words, matrices, channels=channels
        ): ops_geometric.GEOMETRIC,
        lambda words, *_: ops_tonal.autocontrast(words, channels=channels): (
            "autocontrast",
        ),
        equalize: ("equalize",),
        of_each(ops_tonal.point): ops_tonal.POINT,
    }
    if ops_tonal.BLEND[0] in names:
        families[of_each(ops_tonal.blend)] = ops_tonal.BLEND
    kinds = np.full(len(names) + 1, len(families))
    for family, members in enumerate(families.values()):
        kinds[[names.index(name) for name in members if name in names]] = family
    kind = jnp.asarray(kinds)[jnp.minimum(op, len(names))]
    return update_rows(kind, list(families), words, matrices, op, level, chunk=chunk)


def apply_in_turn(
    words: jax.Array, steps: Sequence[jax.Array], **knobs: Any
) -> jax.Array:
    """Several operations on each image, one after the other.

    Args:
        words: packed uint32 [N, H, W].
        steps: `op`, `level` and `negate` of `apply_ops`, [D, N] each.
        knobs: as its others.
    """
    # A loop, not unrolled: the operations are compiled once.
    step = lambda words, step: (apply_ops(words, *step, **knobs), None)
    return jax.lax.scan(step, words, tuple(steps))[0]
