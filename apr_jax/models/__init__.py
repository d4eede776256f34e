"""Image classifiers in Flax Linen, by name.

`build(name, num_classes=10)` gives a module;
`module.apply(variables, normalised_images, train=False, capture=False)` gives float32
logits `[N, num_classes]`, with `capture` also the penultimate features `[N, C]`. In
training pass `mutable=["batch_stats"]` and, for `allconv`, `rngs={"dropout": key}`.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from apr_jax.gates import code_files, knobs
from apr_jax.models import own
from apr_jax.models.airbench94 import Airbench94
from apr_jax.models.allconv import AllConv
from apr_jax.models.densenet import DenseNet
from apr_jax.models.layers import Network, StageEnd
from apr_jax.models.preact_resnet import PreActResNet18, PreActResNet50
from apr_jax.models.resnet import ResNet18, ResNet50, ResNet50CIFAR
from apr_jax.models.resnet_imagenet import ResNet18ImageNet, ResNet34ImageNet
from apr_jax.models.resnext import ResNeXt29
from apr_jax.models.wide_resnet import WideResNet

__all__ = [
    "MODELS",
    "Network",
    "StageEnd",
    "build",
    "check_image_size",
    "minimum_size",
    "variable_shapes",
]

MODELS: dict[str, Callable[..., Network]] = {
    "airbench94": Airbench94,
    "allconv": AllConv,
    "densenet_bc_100_12": functools.partial(DenseNet, depth=100, bottleneck=True),
    "densenet_40_12": functools.partial(DenseNet, depth=40, bottleneck=False),
    "wrn_40_2": functools.partial(WideResNet, depth=40, width=2),
    "resnext29_32x4": functools.partial(ResNeXt29, cardinality=32, base_width=4),
    "resnext29_4x32": functools.partial(ResNeXt29, cardinality=4, base_width=32),
    "resnet18": ResNet18,
    "resnet18_128": functools.partial(ResNet18, width=128),
    "preact_resnet18": PreActResNet18,
    "preact_resnet18_activated": functools.partial(PreActResNet18, activated=True),
    "preact_resnet18_bare": functools.partial(PreActResNet18, last_norm=False),
    "resnet50_cifar": ResNet50CIFAR,
    "preact_resnet50": PreActResNet50,
    "preact_resnet50_bare": functools.partial(PreActResNet50, last_norm=False),
    "resnet18_imagenet": ResNet18ImageNet,
    "resnet34_imagenet": ResNet34ImageNet,
    "resnet50": ResNet50,
    "resnet50_blur": functools.partial(ResNet50, blur=True),
}


def build(
    name: str,
    *,
    num_classes: int,
    dtype: Any = jnp.float32,
    sync_axis: str | None = None,
    dropout: float = 0.0,
    norm: str = "batch",
) -> Network:
    """The network called `name`: one of `MODELS`, or `wrn_D_K` with D = 6n + 4.

    Or it is a user's own, of `FILE.py:FUNCTION`; see `apr_jax.models.own`.
    `dtype` is the compute type (float32 or bfloat16); parameters, statistics and
    logits stay float32. With `sync_axis` BatchNorm averages over that mapped axis.
    `dropout` in its blocks and `norm` "none" are for `wrn_D_K` only. Raises ValueError
    on an unknown name (listing the choices), `num_classes` < 1, a type that is not
    floating, a `dropout` outside [0, 1), or a network that has no such variant.
    """
    factory = _factory(name)
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"dtype must be a floating type, got {dtype!r}")
    knobs.one_of("norm", norm, ("batch", "none"))
    knobs.real("dropout", dropout, low=0, below=1)
    variant: dict[str, Any] = {}
    if dropout or norm != "batch":
        if getattr(factory, "func", None) is not WideResNet:
            raise ValueError(
                f"dropout {dropout} and norm {norm!r} are for wrn_D_K only; {name!r} "
                "has neither dropout in its blocks nor a form without BatchNorm"
            )
        variant = {"dropout": dropout, "norm": norm}
    network: Network = factory(
        num_classes=num_classes,
        dtype=jnp.dtype(dtype),
        sync_axis=sync_axis,
        **variant,
    )
    return network


def minimum_size(name: str) -> int:
    """Smallest height and width in pixels that the network `name` can take."""
    return build(name, num_classes=1).minimum_size


def variable_shapes(model: nn.Module, size: int) -> Any:
    """The variables of a network for images of `size` pixels, as shapes and types."""
    image = jnp.zeros((1, size, size, 3))
    return jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))


def check_image_size(
    name: str, height: int, width: int, *, field: str = "image size"
) -> None:
    """Raises ValueError, naming `field`, where `name` can't take such images."""
    smallest = minimum_size(name)
    if min(height, width) < smallest:
        raise ValueError(
            f"{field} {height}x{width} is too small for {name}: height and width "
            f"must be at least {smallest} pixels"
        )


def _factory(name: str) -> Callable[..., Any]:
    if name in MODELS:
        return MODELS[name]
    if code_files.named(name):
        return own.factory(name)
    wide_ones = "wrn_D_K (depth D = 6n + 4, width K)"
    choices = ", ".join([*MODELS, wide_ones, "FILE.py:FUNCTION"])
    wide = re.fullmatch(r"wrn_([1-9]\d*)_([1-9]\d*)", name)
    if wide is None:
        raise ValueError(f"unknown model {name!r}; choose one of: {choices}")
    if len(wide[1]) > 3 or len(wide[2]) > 5:
        raise ValueError(
            f"model {name[:40]!r}: depths must be below 1,000, widths below 100,000"
        )
    depth, width = int(wide[1]), int(wide[2])
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(
            f"model {name!r}: the depth must be 6n + 4 (10, 16, 22, 28, 34, 40, ...), "
            f"got {depth}"
        )
    return functools.partial(WideResNet, depth=depth, width=width)
