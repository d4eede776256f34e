"""A drop-in for `jax.lax.conv_general_dilated` whose gradients are fast on a CPU.

XLA's CPU backend has a fast convolution, but reaches it badly in some places, which
this module rewrites in terms it takes well. Elsewhere it changes nothing: on GPU and
TPU, and for any form but plain NHWC/HWIO, the call goes straight to `jax.lax`.

- Gradient of the kernel: XLA contracts the whole batch at once, streaming the output
  gradient from memory for every few values it computes. Here it is summed over groups
  of images that fit the cache.
- Grouped convolutions have no fast path at all: here groups are merged into dense
  blocks of 32 channels, zero off the diagonal.
- By oneDNN (`apr_jax.tuning.onednn_flags`) the gradient of the kernel is products of
  matrices, and that of a strided convolution's input isn't spread out by the
  convolution; XLA would hand neither over to oneDNN in a form that it is fast in.
- Inside `scan` and `while_loop` only convolutions in the canonical layout are fast;
  the gradients that JAX derives are not in it, these are.

On a CPU only reverse-mode differentiation is available (a custom VJP).
"""

import functools
import itertools
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from apr_jax.target import by_platform

_LAYOUT = ("NHWC", "HWIO", "NHWC")
# Measured: of 0.5 to 8 MiB about 2 (images and gradients together) is fastest, the
# size of a core's second-level cache.
_CACHE_BYTES = 2**21
# Narrower blocks leave vector lanes empty, wider ones multiply more zeros.
_BLOCK_CHANNELS = 32
# Copies of this many channels are fast as they are.
_WIDE = 128

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

    Same arguments, result and gradients. The platform is that which the program is
    lowered for, see `apr_jax.target`.
    """
    elsewhere = lambda lhs, rhs: lax.conv_general_dilated(
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
    plain = (
        lhs.ndim == 4
        and not isinstance(padding, str)
        and set(lhs_dilation or ()) <= {1}
        and set(rhs_dilation or ()) <= {1}
        and _is_nhwc(lhs.shape, rhs.shape, dimension_numbers)
        and all(value is None for value in options.values())
    )
    if not plain:
        return elsewhere(lhs, rhs)
    stride = (int(window_strides[0]), int(window_strides[1]))
    (top, bottom), (left, right) = padding
    pads = ((int(top), int(bottom)), (int(left), int(right)))

    def on_cpu(x: jax.Array, w: jax.Array) -> jax.Array:
        if feature_group_count == 1:
            return _conv(x, w, stride, pads)
        return _grouped(x, w, stride, pads, feature_group_count)

    return by_platform(lhs, rhs, cpu=on_cpu, default=elsewhere)


def _by_onednn(dtype: Any) -> bool:
    """Whether oneDNN multiplies in a type; see ``apr_jax.tuning.onednn_flags``."""
    given = "--xla_cpu_use_onednn=true" in os.environ.get("XLA_FLAGS", "")
    return given and dtype in (jnp.bfloat16, jnp.float32)


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
    if stride != (1, 1) and _by_onednn(g.dtype):
        # oneDNN takes no spread-out input, and multiplies zeros faster than XLA skips.
        inner = [(0, 0, 0), *((0, 0, s - 1) for s in stride), (0, 0, 0)]
        g = lax.pad(g, jnp.zeros((), g.dtype), inner)
        return _input_gradient(shape, w, g, (1, 1), pads)
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
    if _by_onednn(x.dtype):
        return _by_products(x, w, g, stride, pads)
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


def _by_products(
    x: jax.Array, w: jax.Array, g: jax.Array, stride: _Pair, pads: _Pads
) -> jax.Array:
    """The kernel's gradient as products of matrices, which oneDNN takes well.

    The contraction over images and places is long and both sides are narrow. So that
    they become wider without too many copies, the kernel's columns are laid beside one
    another in `x`, its rows in `g`: one product holds all taps. Where `x` is much the
    narrower, or is strided over, all taps are laid in `x`.
    """
    (rows, columns), (inputs, outputs) = w.shape[:2], w.shape[2:]
    if stride != (1, 1) or outputs > 2 * inputs:
        taps = _taps(x, (rows, columns), stride, pads)
        return _product(taps, g).reshape(w.shape).astype(w.dtype)
    wide = _taps(x, (1, columns), (1, 1), ((0, 0), pads[1]))
    before = rows - 1 - pads[0][0]
    after = x.shape[1] + rows - 1 - g.shape[1] - before
    high = _taps(g, (rows, 1), (1, 1), ((before, after), (0, 0)))
    product = _product(wide, high).reshape(columns, inputs, rows, outputs)
    return product[:, :, ::-1].transpose(2, 0, 1, 3).astype(w.dtype)


def _taps(x: jax.Array, kernel: _Pair, stride: _Pair, pads: _Pads) -> jax.Array:
    """`[N, H, W, C]` -> `[N, h, w, taps C]`: what each tap of a kernel sees."""
    channels, taps = x.shape[-1], kernel[0] * kernel[1]
    if taps > 1 and channels < _WIDE and x.dtype == jnp.bfloat16:
        # A convolution with ones and zeros copies faster than XLA's loops, where
        # multiplying costs next to nothing.
        ones = np.eye(taps * channels).reshape(*kernel, channels, taps * channels)
        copies = jnp.asarray(ones, x.dtype)
        return lax.conv_general_dilated(
            x, copies, stride, pads, dimension_numbers=_LAYOUT
        )
    around = [(0, 0, 0), *((*pad, 0) for pad in pads), (0, 0, 0)]
    x = lax.pad(x, jnp.zeros((), x.dtype), around)
    rows, columns = (
        _seen(size, k, s)
        for size, k, s in zip(x.shape[1:3], kernel, stride, strict=True)
    )
    parts = [x[:, i][:, :, j] for i, j in itertools.product(rows, columns)]
    return parts[0] if taps == 1 else jnp.concatenate(parts, -1)


def _seen(size: int, kernel: int, stride: int) -> list[slice]:
    """The places along an axis that each tap sees."""
    count = (size - kernel) // stride + 1
    return [slice(i, i + count * stride, stride) for i in range(kernel)]


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """The sum over images and places of the outer products of channels, in float32."""
    images = a.shape[0]
    groups = max(n for n in range(1, max(1, images // 32) + 1) if images % n == 0)
    a, b = (v.reshape(groups, -1, v.shape[-1]) for v in (a, b))
    product = lax.dot_general(a, b, (((1,), (1,)), ((0,), (0,))))
    return product.astype(jnp.float32).sum(0)


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
