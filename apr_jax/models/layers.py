"""The pieces that all networks share: convolution, BatchNorm, pooling, classifier.

Images and feature maps are `[N, H, W, C]`. Parameters and batch statistics are
float32 whatever the compute type.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from apr_jax.models import convolution
from apr_jax.target import by_platform

# He et al. 2015, eq. 15 ("backward" case): variance 2 / (kernel area * outputs).
he_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

# The module through which every network's last maps pass.
LAST_MAPS = "last_maps"


def torch_default(
    key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32
) -> jax.Array:
    """PyTorch's own start for kernels: uniform in +-1/sqrt(fan in).

    `shape` is a Flax kernel shape, outputs last; fan in is the product of the rest.
    """
    return torch_default_bias(math.prod(shape[:-1]))(key, tuple(shape), dtype)


def torch_default_bias(fan_in: int) -> nn.initializers.Initializer:
    """PyTorch's own start for a bias: uniform in +-1/sqrt(fan in) of its kernel."""
    bound = 1.0 / math.sqrt(fan_in)

    def init(key: Any, shape: Any, dtype: Any = jnp.float32, *_: Any) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def conv(
    features: int,
    kernel: int = 3,
    *,
    stride: int = 1,
    groups: int = 1,
    padding: int | None = None,
    bias: bool = False,
    init: nn.initializers.Initializer = he_fan_out,
    dtype: Any = jnp.float32,
    name: str | None = None,
) -> nn.Conv:
    """A square convolution padded as PyTorch pads: the same on all four sides.

    `padding=None` means (kernel - 1) / 2, which at stride 2 differs from "SAME".
    """
    pad = (kernel - 1) // 2 if padding is None else padding
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        feature_group_count=groups,
        use_bias=bias,
        kernel_init=init,
        dtype=dtype,
        conv_general_dilated=convolution.conv_general_dilated,
        name=name,
    )


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, with PyTorch's statistics.

    In training the batch's own mean and biased variance normalise, and the running
    ones (collection `batch_stats`, names `mean` and `var`) move towards the mean and
    the *unbiased* variance, n/(n-1), as in PyTorch; `flax.linen.BatchNorm` keeps the
    biased one. Statistics are float32 and over the devices of `axis_name`, if given.
    Without `use_scale` what is normalised is only shifted. Returns `dtype`.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: Any = jnp.float32
    axis_name: str | None = None
    use_scale: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        shape = (x.shape[-1],)
        scale = None
        if self.use_scale:
            scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        mean_of = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var_of = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        if train:
            mean, var, count = self._moments(x, mean_of.value)
            if not self.is_initializing():
                keep = self.momentum
                unbiased = var * (count / max(count - 1, 1))
                mean_of.value = keep * mean_of.value + (1 - keep) * mean
                var_of.value = keep * var_of.value + (1 - keep) * unbiased
        else:
            mean, var = mean_of.value, var_of.value
        factor = jax.lax.rsqrt(var + self.epsilon)
        if scale is not None:
            factor = scale * factor
        factor, mean, bias = (
            v.reshape((1,) * (x.ndim - 1) + shape) for v in (factor, mean, bias)
        )
        return ((x.astype(jnp.float32) - mean) * factor + bias).astype(self.dtype)

    def _moments(
        self, x: jax.Array, running_mean: jax.Array
    ) -> tuple[jax.Array, jax.Array, int]:
        """Mean and biased variance `[C]`, and the number of values they are over.

        One pass and one collective: the mean and the mean square of x - shift. The
        shift is the running mean, the same on every device and near enough to the
        batch's own for the subtraction of squares to keep its digits.
        """
        shift = jax.lax.stop_gradient(running_mean)
        axes = tuple(range(x.ndim - 1))
        d = x.astype(jnp.float32) - shift.reshape((1,) * len(axes) + shift.shape)
        moments = jnp.stack([jnp.mean(d, axes), jnp.mean(d * d, axes)])
        count = math.prod(x.shape[:-1])
        # Initialisation happens outside the mapped step, where the axis is unbound.
        if self.axis_name is not None and not self.is_initializing():
            moments = jax.lax.pmean(moments, self.axis_name)
            count *= jax.lax.psum(1, self.axis_name)
        var = jnp.maximum(moments[1] - jnp.square(moments[0]), 0.0)
        return moments[0] + shift, var, count


def _blocks(x: jax.Array, side: int) -> jax.Array:
    """`[N, H, W, C]` as `[N, H/s, s, W/s, s, C]`; last rows and columns may go."""
    n, h, w, c = x.shape
    rows, columns = h // side, w // side
    cut = x[:, : rows * side, : columns * side]
    return cut.reshape(n, rows, side, columns, side, c)


def sigmoid_gelu(x: jax.Array) -> jax.Array:
    """x sigmoid(1.702 x), the quick form of GELU (Hendrycks and Gimpel 2016)."""
    return x * nn.sigmoid(1.702 * x)


def max_pool(x: jax.Array, side: int) -> jax.Array:
    """Largest of each block: cheaper to differentiate than a general window."""
    return _blocks(x, side).max((2, 4))


def max_pool_by_place(x: jax.Array, side: int) -> jax.Array:
    """`max_pool` of what XLA may compute twice, with another rounding.

    Its gradient goes to the first place of the maximum. That of `max_pool` goes to all
    that equal it, and where nothing does is 0 / 0.
    """
    blocks = _blocks(x, side)
    n, rows, _, columns, _, c = blocks.shape
    places = blocks.transpose(0, 1, 3, 2, 4, 5).reshape(n, rows, columns, side**2, c)
    chosen = jax.lax.stop_gradient(places).argmax(3, keepdims=True)
    number = jnp.arange(side**2).reshape(1, 1, 1, -1, 1)
    return jnp.where(number == chosen, places, 0).sum(3)


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """Largest of each 2x2 block."""
    return max_pool(x, 2)


def avg_pool_2x2(x: jax.Array) -> jax.Array:
    """Mean of each 2x2 block."""
    return _blocks(x, 2).mean((2, 4))


def blur_pool(x: jax.Array) -> jax.Array:
    """Blurs by the binomial kernel [1, 2, 1] / 4 both ways and keeps every second.

    Edges are mirrored, the edge pixel not repeated: [N, H, W, C] -> half the size,
    rounded up. "Triangle-3" of Zhang, ICML 2019. Slices and sums, which are as fast as
    a depthwise convolution on an accelerator and much faster on a CPU.
    """
    for axis in (1, 2):
        sides = [(0, 0)] * x.ndim
        sides[axis] = (1, 1)
        padded = jnp.pad(x, sides, mode="reflect")
        size = x.shape[axis]
        parts = [
            jax.lax.slice_in_dim(padded, start, start + size, 2, axis)
            for start in range(3)
        ]
        x = (parts[0] + 2 * parts[1] + parts[2]) / 4
    return x


def check_images(images: jax.Array, minimum: int, network: str) -> None:
    """Raises ValueError unless `images` is `[N, H, W, C]` with sides >= `minimum`."""
    if images.ndim != 4 or min(images.shape[1:3]) < minimum:
        raise ValueError(
            f"{network} takes images [N, H, W, C] with H and W of at least "
            f"{minimum}, got {list(images.shape)}"
        )


class LastMaps(nn.Module):
    """The maps that the global mean is taken of: passed on, and open to `grad_cam`.

    Adds the variable `perturbations/<name>/maps` where one is given, and puts the sum
    into `intermediates/<name>/maps` where that collection is mutable. Neither exists
    otherwise: it has no parameters and changes nothing. Not `nn.Module.perturb`,
    whose variable `init` would add to every network's.
    """

    @nn.compact
    def __call__(self, maps: jax.Array) -> jax.Array:
        if self.has_variable("perturbations", "maps"):
            maps = maps + self.get_variable("perturbations", "maps")
        self.sow("intermediates", "maps", maps)
        return maps


class StageEnd(nn.Module):
    """The features between two stages of a network, passed on as they are.

    A place where training may change them (``apr_jax.train.feature_mixing``); it has no
    parameters. The ends of a network are numbered from 1 on, by depth.

    Attributes:
        number: which one.
    """

    number: int

    def __call__(self, features: jax.Array) -> jax.Array:
        """The features themselves."""
        return features


def classify(
    maps: jax.Array,
    *,
    num_classes: int,
    capture: bool,
    name: str,
    zero_bias: bool = True,
    init: nn.initializers.Initializer = torch_default,
    use_bias: bool = True,
    pool: Callable[[jax.Array], jax.Array] = lambda maps: maps,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """Global mean and linear layer, in float32: logits `[N, num_classes]`.

    With `capture` also the features `[N, C]` that the linear layer sees, the mean of
    what `pool` makes of the maps. To be called from a network's compact `__call__`;
    `name` is the linear layer's.
    """
    maps = LastMaps(name=LAST_MAPS)(maps)
    if maps.dtype != jnp.float32:
        # JAX 0.12 on a CPU fuses the mean with all that comes before it, down to the
        # last convolution, and that program gives NaN in bfloat16.
        settled = jax.lax.optimization_barrier
        maps = by_platform(maps, cpu=settled, default=lambda maps: maps)
    features = pool(maps.astype(jnp.float32)).mean((1, 2))
    bias = (
        nn.initializers.zeros if zero_bias else torch_default_bias(features.shape[-1])
    )
    dense = nn.Dense(
        num_classes, use_bias=use_bias, kernel_init=init, bias_init=bias, name=name
    )
    logits = dense(features)
    return (logits, features) if capture else logits


class Part(nn.Module, kw_only=True):
    """A module made of convolutions and BatchNorm layers, all of one compute type.

    Attributes:
        dtype: the compute type.
        sync_axis: the mapped axis that BatchNorm averages over; None for none.
    """

    dtype: Any = jnp.float32
    sync_axis: str | None = None

    @nn.nowrap
    def convolve(
        self, name: str, x: jax.Array, features: int, kernel: int = 3, **knobs: Any
    ) -> jax.Array:
        """`x` through a convolution of its own; `knobs` as `conv`'s."""
        return conv(features, kernel, dtype=self.dtype, name=name, **knobs)(x)

    @nn.nowrap
    def batch_norm(
        self, name: str, x: jax.Array, train: bool, **knobs: Any
    ) -> jax.Array:
        """`x` through a BatchNorm of its own; `knobs` are its fields."""
        layer = BatchNorm(
            dtype=self.dtype, axis_name=self.sync_axis, name=name, **knobs
        )
        return layer(x, train=train)

    @nn.nowrap
    def part(self, kind: Callable[..., nn.Module], **fields: Any) -> Any:
        """A constructor of parts of this type and axis, which takes further fields."""
        return functools.partial(
            kind, dtype=self.dtype, sync_axis=self.sync_axis, **fields
        )


def run_stages(
    x: jax.Array,
    block: Callable[..., Callable[..., jax.Array]],
    sizes: Sequence[int],
    *,
    train: bool,
    prefix: str = "layer",
    width: int = 64,
) -> jax.Array:
    """`x` through the blocks of some stages, in order, and through the stages' ends.

    Stages have `width` features, twice as many and so on, and all but the first halve
    the size. `block` takes `features`, `stride` and `name`, which is PREFIX, stage,
    "_", place.
    """
    for stage, size in enumerate(sizes):
        for i in range(size):
            each = block(
                features=width * 2**stage,
                stride=2 if stage > 0 and i == 0 else 1,
                name=f"{prefix}{stage + 1}_{i}",
            )
            x = each(x, train=train)
        x = StageEnd(stage + 1)(x)
    return x


class Network(Part, kw_only=True):
    """A classifier of images: last maps, their global mean and a linear layer.

    A subclass says what the maps are, in `maps`.

    Attributes:
        num_classes: outputs of the linear layer.
        called: the network in messages.
        minimum_size: smallest height and width of images.
        made_for: pixels a side and classes of the data that it was made for.
        linear: the linear layer, as `classify` takes it.
    """

    num_classes: int
    called: ClassVar[str]
    minimum_size: ClassVar[int]
    made_for: ClassVar[tuple[int, int]] = (32, 10)
    linear: ClassVar[Mapping[str, Any]] = {"name": "fc"}

    @nn.nowrap
    def maps(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The last maps [N, h, w, C] of normalised images in the compute type."""
        raise NotImplementedError

    @nn.nowrap
    def constants_of(self, images: np.ndarray) -> Mapping[str, Any]:
        """The collection "constants", of a network that has it, for a training.

        Args:
            images: normalised, float32 [N, H, W, C], of the training split.
        """
        raise NotImplementedError

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool, capture: bool = False
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        """Logits `[N, num_classes]`, with `capture` features `[N, C]` beside them.

        Raises:
            ValueError: another shape than `[N, H, W, C]`, or images too small.
        """
        check_images(images, self.minimum_size, self.called)
        maps = self.maps(images.astype(self.dtype), train=train)
        return classify(
            maps, num_classes=self.num_classes, capture=capture, **self.linear
        )
