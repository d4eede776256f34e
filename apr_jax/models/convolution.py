"""A drop-in for `jax.lax.conv_general_dilated` whose gradients are fast on a CPU.

XLA's CPU backend has a fast convolution, but reaches it badly in three places, which
this module rewrites in terms it takes well. Elsewhere it changes nothing: on GPU and
TPU, and for any form but plain NHWC/HWIO, the call goes straight to `jax.lax`.

- Gradient of the kernel: XLA contracts the whole batch at once, streaming the output
  gradient from memory for every few values it computes. Here it is summed over groups
  of images that fit the cache.
- Grouped convolutions have no fast path at all: here groups are merged into dense
  blocks of 32 channels, zero off the diagonal.
- Inside `scan` and `while_loop` only convolutions in the canonical layout are fast;
  the gradients that JAX derives are not in it, these are.

On a CPU only reverse-mode differentiation is available (a custom VJP).
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

_LAYOUT = ("NHWC", "HWIO", "NHWC")
# Measured: of 0.5 to 8 MiB about 2 (images and gradients together) is fastest, the
# size of a core's second-level cache.
_CACHE_BYTES = 2**21
# Narrower blocks leave vector lanes empty, wider ones multiply more zeros.
_BLOCK_CHANNELS = 32

_Pads = tuple[tuple[int, int], tuple[int, int]]
_Pair = tuple[int, int]


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: Any,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    **options: Any,
) -> jax.Array:
    """`jax.lax.conv_general_dilated`, for `flax.linen.Conv(conv_general_dilated=...)`.

    Same arguments, result and gradients. The platform is that of
    `jax.default_backend()` when the call is traced.
    """
    plain = (
        jax.default_backend() == "cpu"
        and lhs.ndim == 4
        and not isinstance(padding, str)
        and set(lhs_dilation or ()) <= {1}
        and set(rhs_dilation or ()) <= {1}
        and _is_nhwc(lhs.shape, rhs.shape, dimension_numbers)
        and all(value is None for value in options.values())
    )
    if not plain:
        return lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            dimension_numbers,
            feature_group_count,
            **options,
        )
    stride = (int(window_strides[0]), int(window_strides[1]))
    (top, bottom), (left, right) = padding
    pads = ((int(top), int(bottom)), (int(left), int(right)))
    if feature_group_count == 1:
        return _conv(lhs, rhs, stride, pads)
    return _grouped(lhs, rhs, stride, pads, feature_group_count)


def _is_nhwc(lhs: Sequence[int], rhs: Sequence[int], numbers: Any) -> bool:
    given = lax.conv_dimension_numbers(tuple(lhs), tuple(rhs), numbers)
    return given == lax.conv_dimension_numbers(tuple(lhs), tuple(rhs), _LAYOUT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x: jax.Array, w: jax.Array, stride: _Pair, pads: _Pads) -> jax.Array:
    return lax.conv_general_dilated(x, w, stride, pads, dimension_numbers=_LAYOUT)


def _forward(
    x: jax.Array, w: jax.Array, stride: _Pair, pads: _Pads
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _conv(x, w, stride, pads), (x, w)


def _backward(
    stride: _Pair, pads: _Pads, saved: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, w = saved
    return (
        _input_gradient(x.shape, w, g, stride, pads),
        _kernel_gradient(x, w, g, stride, pads),
    )


_conv.defvjp(_forward, _backward)


def _input_gradient(
    shape: Sequence[int], w: jax.Array, g: jax.Array, stride: _Pair, pads: _Pads
) -> jax.Array:
    """Convolution of the spread-out `g` with the flipped kernel, layout canonical."""
    flipped = jnp.flip(w, (0, 1)).swapaxes(2, 3)
    around = []
    for axis in (0, 1):
        before = pads[axis][0]
        reach = (g.shape[axis + 1] - 1) * stride[axis]
        around.append(
            (w.shape[axis] - 1 - before, shape[axis + 1] - 1 - reach + before)
        )
    return lax.conv_general_dilated(
        g, flipped, (1, 1), around, lhs_dilation=stride, dimension_numbers=_LAYOUT
    )


def _kernel_gradient(
    x: jax.Array, w: jax.Array, g: jax.Array, stride: _Pair, pads: _Pads
) -> jax.Array:
    """Sum over images and positions of input patch times output gradient, as `w`."""
    kernel = w.shape[:2]
    sums = jnp.promote_types(w.dtype, jnp.float32)
    if kernel == (1, 1) and pads == ((0, 0), (0, 0)):
        product = lax.dot_general(
            x[:, :: stride[0], :: stride[1]].reshape(-1, x.shape[-1]),
            g.reshape(-1, g.shape[-1]),
            (((0,), (0,)), ((), ())),
            preferred_element_type=sums,
        )
        return product.reshape(w.shape).astype(w.dtype)
    around = []
    for axis in (0, 1):
        before = pads[axis][0]
        reach = (g.shape[axis + 1] - 1) * stride[axis]
        around.append((before, kernel[axis] + reach - x.shape[axis + 1] - before))

    def gradient(x: jax.Array, g: jax.Array) -> jax.Array:
        # Channels take the place of the batch, the batch that of the channels.
        return lax.conv_general_dilated(
            x.transpose(3, 1, 2, 0),
            g.transpose(1, 2, 0, 3),
            (1, 1),
            around,
            rhs_dilation=stride,
            dimension_numbers=_LAYOUT,
            preferred_element_type=sums,
        )

    size = _images_per_group(x, g)
    if size == x.shape[0]:
        total = gradient(x, g)
    else:
        groups = [a.reshape(-1, size, *a.shape[1:]) for a in (x, g)]
        start = jnp.zeros((w.shape[2], *kernel, w.shape[3]), sums)
        total, _ = lax.scan(
            lambda total, pair: (total + gradient(*pair), None), start, tuple(groups)
        )
    return total.transpose(1, 2, 0, 3).astype(w.dtype)


def _images_per_group(x: jax.Array, g: jax.Array) -> int:
    """Largest divisor of the batch whose images and gradients fit the cache."""
    count = x.shape[0]
    per_image = (x.size * x.dtype.itemsize + g.size * g.dtype.itemsize) // count
    fits = max(1, _CACHE_BYTES // per_image)
    return max(n for n in range(1, min(count, fits) + 1) if count % n == 0)


def _grouped(
    x: jax.Array, w: jax.Array, stride: _Pair, pads: _Pads, groups: int
) -> jax.Array:
    """Grouped convolution as dense ones over blocks of several groups each."""
    inner, outer = w.shape[2], w.shape[3] // groups
    fits = max(1, _BLOCK_CHANNELS // max(inner, outer))
    merged = max(n for n in range(1, min(groups, fits) + 1) if groups % n == 0)
    blocks = groups // merged
    kernels = w.reshape(*w.shape[:3], blocks, merged, outer)
    diagonal = jnp.eye(merged, dtype=w.dtype)
    kernels = jnp.einsum("hwibmo,nm->bhwnimo", kernels, diagonal)
    kernels = kernels.reshape(blocks, *w.shape[:2], merged * inner, merged * outer)
    outputs = [
        _conv(part, kernel, stride, pads)
        for part, kernel in zip(jnp.split(x, blocks, -1), kernels, strict=True)
    ]
    return jnp.concatenate(outputs, -1)
