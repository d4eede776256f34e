"""What a network of a library wants to be given, and its module."""

import difflib
from collections.abc import Collection
from typing import Any, NamedTuple

from apr_jax.errors import ConfigError

# How images are resized here.
_HERE = "bilinear"


class Given(NamedTuple):
    """A network and its own preprocessing, as its library says it.

    Attributes:
        module: a ``torch.nn.Module`` in evaluation mode; images [B, 3, H, W].
        name: for records and pages.
        image_size: pixels of the square centre that is cut out.
        resize: pixels of the shorter side before that.
        mean, std: of each channel of pixels in [0, 1].
        classes: lists of names, each in the order of the logits, any of which data may
            have; empty where only their count is known.
        apart: what of it is done otherwise here, in words.
    """

    module: Any
    name: str
    image_size: int
    resize: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[tuple[str, ...], ...] = ()
    apart: tuple[str, ...] = ()

    def outputs(self) -> int:
        """How many logits it gives an image."""
        import torch

        with torch.no_grad():
            found = self.module(torch.zeros(1, 3, self.image_size, self.image_size))
        return int(getattr(found, "logits", found).shape[-1])

    def said(self) -> str:
        """The preprocessing in one line."""
        size = self.image_size
        text = f"the shorter side {self.resize}, the centre of {size}x{size}"
        numbers = [
            ", ".join(f"{x:.6g}" for x in part) for part in (self.mean, self.std)
        ]
        return "; ".join([text, f"mean {numbers[0]}", f"std {numbers[1]}", *self.apart])


def interpolated(name: str) -> tuple[str, ...]:
    """Words for a kind of interpolation that isn't the one here."""
    name = str(name).rpartition(".")[2].lower()
    return () if name == _HERE else (f"{_HERE} where theirs is {name}",)


def square(name: str, channels: int, height: int, width: int) -> int:
    """The side of a network's images.

    Raises:
        ConfigError: they aren't square, or have no three channels.
    """
    if channels != 3 or height != width:
        raise ConfigError(
            f"{name} takes images of {height}x{width} pixels and {channels} channels; "
            "they must be square and have 3"
        )
    return int(height)


def unknown(what: str, name: str, choices: Collection[str]) -> ConfigError:
    """An error for a name that isn't there, with those that are close to it."""
    close = difflib.get_close_matches(name, choices, n=5, cutoff=0.5)
    hint = f"; close to it are {', '.join(close)}" if close else ""
    return ConfigError(f"{what} has no network {name!r}{hint}")


def synsets(count: int) -> tuple[tuple[str, ...], ...]:
    """The synsets of ImageNet's classes where there are as many, from timm."""
    try:
        from timm.data import ImageNetInfo, infer_imagenet_subset
    except ImportError:
        return ()
    subset = infer_imagenet_subset({"num_classes": count})
    return (tuple(ImageNetInfo(subset).label_names()),) if subset else ()
