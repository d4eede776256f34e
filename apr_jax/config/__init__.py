"""The settings of a run, each written once: default, range, choices and meaning.

``default()`` is the whole: the CIFAR recipe of the paper's code, SGD 0.1 with Nesterov
momentum, weight decay 5e-4 on all parameters, the rate multiplied by 0.2 at epochs 60,
120, 160 and 190 of 200, batches of 128 clean images. ``apr_jax.presets`` differs from
it; ``parse`` turns what differs (an ``ml_collections.ConfigDict``, or the
``config.json`` of a run) into a checked ``Config``.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from apr_jax import settings
from apr_jax.config.measuring import (
    C_BAR,
    C_BAR_CIFAR,
    C_BAR_IMAGENET,
    CORRUPTION_SETS,
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    PARTS,
    Adversarial,
    Corruption,
    Eval,
    Fourier,
    Ood,
    Shift,
)
from apr_jax.config.training import (
    STRENGTHS,
    Adversary,
    Augment,
    Checkpoint,
    Contrast,
    Data,
    Model,
    Optim,
    Train,
)
from apr_jax.errors import ConfigError
from apr_jax.gates import places
from apr_jax.settings import incidental, setting

__all__ = [
    "CORRUPTIONS",
    "CORRUPTION_SETS",
    "C_BAR",
    "C_BAR_CIFAR",
    "C_BAR_IMAGENET",
    "EXTRA_CORRUPTIONS",
    "PARTS",
    "STRENGTHS",
    "Adversarial",
    "Adversary",
    "Augment",
    "Checkpoint",
    "Config",
    "Contrast",
    "Corruption",
    "Data",
    "Eval",
    "Fourier",
    "Model",
    "Ood",
    "Optim",
    "Shift",
    "Train",
    "check",
    "config_hash",
    "default",
    "differences",
    "flatten",
    "identity",
    "parse",
    "to_dict",
]

_CHANNELS = 3  # grey is repeated wherever images are read


@dataclasses.dataclass(frozen=True)
class Config:
    """One run. Two runs with equal ``identity`` compute the same thing."""

    name: str = incidental("cifar10_wrn_aprsp", "of the run")
    seed: int = setting(0, "of all that is drawn", low=0, high=2**31 - 1)
    data: Data = field(default_factory=Data)
    augment: Augment = field(default_factory=Augment)
    adversary: Adversary = field(default_factory=Adversary)
    contrast: Contrast = field(default_factory=Contrast)
    model: Model = field(default_factory=Model)
    optim: Optim = field(default_factory=Optim)
    train: Train = field(default_factory=Train)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    eval: Eval = field(default_factory=Eval)


# Names of folders that say nothing of what is in them.
_SPLIT_NAMES = ("train", "training", "test", "val", "validation", "images")


def default() -> Config:
    """The settings where nothing else is said."""
    return Config()


def parse(values: Mapping[str, Any]) -> Config:
    """Makes a ``Config`` of nested mappings and checks it.

    Args:
        values: what differs from the defaults; see ``settings.build``.

    Raises:
        ConfigError: a key is unknown, or a value has the wrong type or isn't allowed.
            The message names the field, the value and the choices.
    """
    config = settings.build(default(), values)
    check(config)
    return config


def check(config: Config) -> None:
    """Raises ConfigError, naming the field, if a value isn't allowed."""
    settings.check(config)
    for name in ("mean", "std"):
        if (count := len(getattr(config.data, name))) != _CHANNELS:
            raise ConfigError(
                f"data.{name} has {count} values; give one for each of the {_CHANNELS} "
                "channels"
            )
    if config.data.source != "tfds":
        places.check(config.data.data_dir, "data.data_dir")
    if config.data.extra_ratio and not config.data.extra_dirs:
        raise ConfigError(
            f"data.extra_ratio is {config.data.extra_ratio!r}, but data.extra_dirs "
            "names no folder of extra images: give one, CLASS/IMAGE.jpg, or several"
        )
    if config.data.streaming and config.augment.flip_by == "epoch":
        raise ConfigError(
            "augment.flip_by is 'epoch', which needs training images in memory; with "
            "data.streaming choose 'coin'"
        )
    if config.optim.name == "adamw":
        for name in ("decay_per", "norm_bias_rate"):
            value, usual = getattr(config.optim, name), getattr(Optim(), name)
            if value != usual:
                raise ConfigError(
                    f"optim.{name} is {value!r}, which is for optim.name 'sgd'; "
                    f"'adamw' takes {usual!r}"
                )
        if config.optim.momentum == 1:
            raise ConfigError("optim.momentum is 1.0; 'adamw' takes less than 1")
    if config.optim.decay_per == "step" and not config.optim.learning_rate:
        raise ConfigError(
            "optim.decay_per is 'step', and optim.learning_rate is 0; a step at the "
            "highest rate needs one above 0"
        )
    if config.optim.warmup_epochs > config.optim.epochs:
        raise ConfigError(
            f"optim.warmup_epochs is {config.optim.warmup_epochs!r}, and optim.epochs "
            f"{config.optim.epochs!r}: the rate would never reach its highest"
        )
    if list(config.optim.milestones) != sorted(config.optim.milestones):
        raise ConfigError(
            f"optim.milestones is {config.optim.milestones!r}; "
            "the epochs must be in increasing order"
        )


def flatten(config: Config) -> dict[str, Any]:
    """Returns every value by dotted field name, in the order of declaration."""
    return {leaf.name: leaf.value for leaf in settings.leaves(config)}


def to_dict(config: Config) -> dict[str, Any]:
    """Returns nested plain dictionaries that ``parse`` accepts."""
    return dataclasses.asdict(config)


def identity(config: Config) -> dict[str, Any]:
    """Returns the fields that decide what is computed, by dotted name.

    Only where they differ from the defaults, so that a field that is added leaves the
    identity of a run, and its hash, as they were. Fields that say where and how fast
    are not among them, nor those of ``eval``: a run may go on with others.
    """
    return {
        name: _named(name, value)
        for name, value, _, about in settings.leaves(config)
        if value != about.default
        and not about.incidental
        and not name.startswith("eval.")
    }


def _named(field: str, value: Any) -> Any:
    """Returns what of a value is part of the identity: of paths, their names."""
    if field == "train.init_from" or (field == "model.name" and ".py" in value):
        return _name_of(value)
    if field != "data.extra_dirs":
        return value
    return tuple(_name_of(path) for path in value)


def _name_of(path: str) -> str:
    """Returns a path's last part, and the one before it if the last names a split."""
    *_, folder, last = ("", *path.rstrip("/").split("/"))
    split = last.removesuffix(".npz") in _SPLIT_NAMES
    return f"{folder}/{last}" if split and folder else last


def config_hash(config: Config) -> str:
    """Returns twelve hexadecimal digits that name what the run computes."""
    text = json.dumps(identity(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def differences(config: Config, other: Config) -> list[tuple[str, Any, Any]]:
    """Returns (field, value here, value there) wherever the identities differ."""
    usual = flatten(default())
    here, there = ({**usual, **identity(c)} for c in (config, other))
    return [(k, here[k], there[k]) for k in usual if here[k] != there[k]]
