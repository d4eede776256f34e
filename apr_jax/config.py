"""What a run can be told: frozen dataclasses, with units, ranges and checks.

The dataclasses hold no defaults. Every value is written once, in
``configs/base.py``; other configurations are differences from it. ``parse`` turns
a nested mapping (an ``ml_collections.ConfigDict``, or the ``config.json`` of a
run) into a checked ``Config``.
"""

import copy
import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from apr_jax.errors import ConfigError

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Data:
    """Where images come from."""

    source: str  # one of SOURCES
    name: str  # TFDS name ("cifar10"), or a label for the set
    data_dir: str  # folder of the source's files; "" is the source's own default
    cache_dir: str  # decoded images; "" is $XDG_CACHE_HOME/apr_jax, or ~/.cache
    train_split: str
    test_split: str
    shifted_splits: tuple[str, ...]  # further test splits, reported beside the first
    image_size: int  # pixels, square
    eval_resize: int  # pixels of the shorter side before the centre crop; 0: none
    extra_dirs: tuple[str, ...]  # further training images; see apr_jax.data.extra
    extra_ratio: float  # share of a batch that they are; 0: as many as there are
    streaming: bool  # read from disk all the time, instead of once into memory
    max_broken: int  # unreadable image files skipped before the run stops
    shuffle_buffer: int  # examples; streaming only
    mean: tuple[float, ...]  # per channel, of pixels in [0, 1]
    std: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Augment:
    """What happens to a training image; see ``apr_jax.augment``."""

    method: str  # a name of apr_jax.augment.AUGMENTS, or several joined by "+"
    crop_pad: int  # pixels on each side before the random crop; 0: no crop
    crop_fill: int  # grey level of the padding, 0 to 255
    flip: bool  # mirror half of the images
    single_prob: float  # APR-S: chance of recombining, after the first operation
    single_level: float  # APR-S: strength of the operations, above 0.1 up to 10
    single_ops: str  # one of OPS
    single_overflow: str  # one of OVERFLOWS
    pair_prob: float  # APR-P: chance that the second half of a batch is recombined
    pair_per: str  # one of PAIR_PER: a coin for each batch or for each image
    pair_clip: bool  # APR-P: clip to [0, 1]
    pair_donors: str  # one of DONORS: what is mixed in is from this device, or all
    axes: tuple[int, ...]  # of the DFT: (-3, -2, -1) or (-3, -2)
    heads_weight: float  # two heads: lambda of equation 7, the share of the phase
    jsd_weight: float  # of the Jensen-Shannon divergence
    mix_alpha: float  # mixup, CutMix: both parameters of the Beta distribution
    mix_prob: float  # of blending a batch at all
    cutout_size: int  # pixels, side of the square
    strengths: str  # one of STRENGTHS: for which set the other methods' numbers are


@dataclasses.dataclass(frozen=True)
class Adversary:
    """Adversarial training; see ``apr_jax.train.adversarial``."""

    attack: str  # one of ADVERSARIES
    eps: float  # radius of the L-infinity ball, of pixels in [0, 1]
    step_size: float  # of pixels in [0, 1]
    steps: int  # "pgd" only
    held_out: int  # training images kept out and attacked every epoch; 0: none
    stop_drop: float  # their accuracy falling by more than this ends it; 0: never


@dataclasses.dataclass(frozen=True)
class Contrast:
    """Contrastive methods, supclr and csi; see ``apr_jax.train.contrastive``."""

    temperature: float  # of the likeness of projections
    width: int  # of the projections
    crop_area: float  # smallest share of an image that a crop has
    linear_share: float  # of the run, at its end: the linear layer learns alone
    linear_rate: float  # learning rate then, at first


@dataclasses.dataclass(frozen=True)
class Model:
    """Which network; see ``apr_jax.models``."""

    name: str
    dtype: str  # one of DTYPES: the type of the arithmetic; parameters are float32
    dropout: float  # wrn_D_K: share dropped between the convolutions of a block
    norm: str  # one of NORMS; "none" for wrn_D_K only


@dataclasses.dataclass(frozen=True)
class Optim:
    """Gradient descent and its learning rate; see ``apr_jax.train.optim``."""

    learning_rate: float  # at its highest
    momentum: float
    nesterov: bool
    weight_decay: float  # on every parameter, biases and BatchNorm's included
    epochs: float
    schedule: str  # one of SCHEDULES
    milestones: tuple[float, ...]  # "multistep": epochs where the rate is multiplied
    gamma: float  # "multistep": by this
    warmup_epochs: float  # linear from 0; not for "cyclic"
    peak: float  # "cyclic": where the highest rate is, as a share of the run


@dataclasses.dataclass(frozen=True)
class Train:
    """How the work is done."""

    batch_size: int  # images a step, over all devices, before any are added
    sync_batch_norm: bool  # statistics over all devices rather than each its own
    devices: int  # 0: all accelerators, or one device where there is only a CPU
    steps_per_call: int  # 0: one on a CPU, several on an accelerator
    log_every: int  # steps between points of the curve
    tensorboard: bool  # also write TensorBoard events, where it is installed
    watch: tuple[str, ...]  # names of apr_jax.train.watch.WATCHES, measured every epoch
    watch_examples: int  # test images for it; 0: all, unless data.streaming


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """When the state is saved. Saving never blocks a step longer than a copy."""

    every_steps: int
    keep: int  # the newest so many stay


@dataclasses.dataclass(frozen=True)
class Eval:
    """How a finished network is measured; see ``apr_jax.evaluate.card``."""

    batch_size: int  # images, over all devices
    parts: tuple[str, ...]  # of PARTS: what launch.py measures when it has trained
    corruptions: tuple[str, ...]  # names; none: the fifteen
    corruption_examples: int  # the first so many test images; 0: all
    corruption_source: str  # one of CORRUPTION_SOURCES
    corruption_dir: str  # "folder": NAME.npy files, or a tree of JPEGs
    frost_dir: str  # photographs of frost; "": those of the package imagecorruptions
    out_sets: tuple[str, ...]  # name=source:where; none: the usual ones that are there
    near_sets: tuple[str, ...]  # names of those out sets that are near
    ood_examples: int  # images of each set; 0: all
    attack: str  # see apr_jax.evaluate.adversarial
    linf: tuple[float, ...]  # radii, of pixels in [0, 1]
    l2: tuple[float, ...]  # radii
    attack_examples: int  # the first so many test images; 0: all
    fourier_examples: int  # test images; 0: all


@dataclasses.dataclass(frozen=True)
class Config:
    """One run. Two runs with equal ``identity`` compute the same thing."""

    name: str
    seed: int
    data: Data
    augment: Augment
    adversary: Adversary
    contrast: Contrast
    model: Model
    optim: Optim
    train: Train
    checkpoint: Checkpoint
    eval: Eval


SOURCES = ("bundled", "tfds", "folder", "arrays")
OPS = ("base", "all")
OVERFLOWS = ("clip", "wrap")
PAIR_PER = ("batch", "image")
DONORS = ("device", "global")
ADVERSARIES = ("none", "fgsm", "pgd")
NORMS = ("batch", "none")
DTYPES = ("float32", "bfloat16")
SCHEDULES = ("constant", "multistep", "cosine", "cyclic")
PARTS = ("clean", "corruption", "ood", "adversarial", "fourier")
CORRUPTION_SOURCES = ("generated", "folder", "tfds")
AXES = ((-3, -2, -1), (-3, -2))
STRENGTHS = ("cifar10", "cifar100", "imagenet")

_CHOICES: dict[str, tuple[Any, ...]] = {
    "data.source": SOURCES,
    "augment.single_ops": OPS,
    "augment.single_overflow": OVERFLOWS,
    "augment.pair_per": PAIR_PER,
    "augment.pair_donors": DONORS,
    "augment.axes": AXES,
    "augment.strengths": STRENGTHS,
    "adversary.attack": ADVERSARIES,
    "model.dtype": DTYPES,
    "model.norm": NORMS,
    "eval.corruption_source": CORRUPTION_SOURCES,
    "optim.schedule": SCHEDULES,
}

# Field -> (lowest, highest) allowed; None is no bound.
_RANGES: dict[str, tuple[float | None, float | None]] = {
    "seed": (0, 2**31 - 1),
    "data.image_size": (1, None),
    "data.eval_resize": (0, None),
    "data.extra_ratio": (0, 1),
    "data.max_broken": (0, None),
    "data.shuffle_buffer": (1, None),
    "augment.crop_pad": (0, None),
    "augment.crop_fill": (0, 255),
    "augment.single_prob": (0, 1),
    "augment.single_level": (0.1, 10),
    "augment.pair_prob": (0, 1),
    "augment.heads_weight": (0, 1),
    "augment.jsd_weight": (0, None),
    "augment.mix_alpha": (1e-3, None),
    "augment.mix_prob": (0, 1),
    "augment.cutout_size": (1, None),
    "adversary.eps": (0, 1),
    "adversary.step_size": (0, None),
    "adversary.steps": (1, None),
    "adversary.held_out": (0, None),
    "adversary.stop_drop": (0, 1),
    "contrast.temperature": (1e-3, None),
    "contrast.width": (1, None),
    "contrast.crop_area": (0.01, 1),
    "contrast.linear_share": (0, 0.9),
    "contrast.linear_rate": (0, None),
    "model.dropout": (0, 0.99),
    "optim.learning_rate": (0, None),
    "optim.momentum": (0, 1),
    "optim.weight_decay": (0, None),
    "optim.epochs": (0, None),
    "optim.gamma": (0, None),
    "optim.warmup_epochs": (0, None),
    "optim.peak": (0, 1),
    "train.batch_size": (1, None),
    "train.devices": (0, None),
    "train.steps_per_call": (0, None),
    "train.log_every": (1, None),
    "train.watch_examples": (0, None),
    "checkpoint.every_steps": (1, None),
    "checkpoint.keep": (1, None),
    "eval.batch_size": (1, None),
    "eval.corruption_examples": (0, None),
    "eval.ood_examples": (0, None),
    "eval.attack_examples": (0, None),
    "eval.fourier_examples": (0, None),
}

# Fields that say where and how fast, not what is computed: a run may be taken up
# again with other values of them. So it may with others of the group ``eval``.
_INCIDENTAL = (
    "name",
    "data.data_dir",
    "data.cache_dir",
    "data.max_broken",
    "train.devices",
    "train.steps_per_call",
    "train.log_every",
    "train.tensorboard",
    "train.watch",
    "train.watch_examples",
    "checkpoint.every_steps",
    "checkpoint.keep",
)

# Names of folders that say nothing of what is in them.
_SPLIT_NAMES = ("train", "training", "test", "val", "validation", "images")

# Fields that came later -> the value with which a run computes what it did before
# there was such a field. So the configuration and the hash of an older run stay good.
_CAME_LATER: dict[str, Any] = {
    "data.extra_dirs": (),
    "data.extra_ratio": 0.0,
    "augment.heads_weight": 0.5,
    "augment.jsd_weight": 12.0,
    "augment.mix_alpha": 1.0,
    "augment.mix_prob": 1.0,
    "augment.cutout_size": 16,
    "augment.strengths": "cifar10",
    "eval.corruption_source": "generated",
    "eval.corruption_dir": "",
    "model.dropout": 0.0,
    "model.norm": "batch",
    "adversary.attack": "none",
    "adversary.eps": 8 / 255,
    "adversary.step_size": 10 / 255,
    "adversary.steps": 7,
    "adversary.held_out": 0,
    "adversary.stop_drop": 0.0,
    "contrast.temperature": 0.5,
    "contrast.width": 128,
    "contrast.crop_area": 0.08,
    "contrast.linear_share": 0.125,
    "contrast.linear_rate": 0.1,
    "train.watch": (),
    "train.watch_examples": 1000,
}


def parse(values: Mapping[str, Any]) -> Config:
    """Makes a ``Config`` of nested mappings and checks it.

    Args:
        values: one entry for each field of ``Config``; those of its parts are
            mappings themselves. Lists become tuples, integers become floats where
            a float is wanted; nothing else is converted.

    Raises:
        ConfigError: a key is unknown or missing, or a value has the wrong type or
            isn't allowed. The message names the field, the value and the choices.
    """
    config = _build(Config, values, prefix="")
    check(config)
    return config


def parse_saved(values: Mapping[str, Any]) -> Config:
    """Makes a ``Config`` of what an older run saved, which may lack newer fields.

    Raises:
        ConfigError: as ``parse``.
    """
    complete = copy.deepcopy(dict(values))
    for field, value in _CAME_LATER.items():
        *groups, name = field.split(".")
        place = complete
        for group in groups:
            place = place.setdefault(group, {})
        place.setdefault(name, value)
    return parse(complete)


def check(config: Config) -> None:
    """Raises ConfigError, naming the field, if a value isn't allowed."""
    values = dict(flatten(config))
    for field, choices in _CHOICES.items():
        if values[field] not in choices:
            listed = ", ".join(map(repr, choices))
            raise ConfigError(f"{field} is {values[field]!r}; choose from {listed}")
    for field, (low, high) in _RANGES.items():
        value = values[field]
        if (low is not None and value < low) or (high is not None and value > high):
            bounds = f"at least {low}" if high is None else f"from {low} to {high}"
            raise ConfigError(f"{field} is {value!r}; it must be {bounds}")
    for part in config.eval.parts:
        if part not in PARTS:
            listed = ", ".join(PARTS)
            raise ConfigError(f"eval.parts has {part!r}; choose from {listed}")
    if any(s <= 0 for s in config.data.std):
        raise ConfigError(f"data.std is {config.data.std!r}; each must be above 0")
    if len(config.data.mean) != len(config.data.std):
        raise ConfigError(
            f"data.mean has {len(config.data.mean)} values and data.std has "
            f"{len(config.data.std)}; give one for each channel"
        )
    if config.data.extra_ratio and not config.data.extra_dirs:
        raise ConfigError(
            f"data.extra_ratio is {config.data.extra_ratio!r}, but data.extra_dirs "
            "names no folder of extra images: give one, CLASS/IMAGE.jpg, or several"
        )
    if list(config.optim.milestones) != sorted(config.optim.milestones):
        raise ConfigError(
            f"optim.milestones is {config.optim.milestones!r}; "
            "the epochs must be in increasing order"
        )


def flatten(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted field name, value) in the order of declaration."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from flatten(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value


def to_dict(config: Config) -> dict[str, Any]:
    """Returns nested plain dictionaries that ``parse`` accepts."""
    return dataclasses.asdict(config)


def identity(config: Config) -> dict[str, Any]:
    """Returns the fields that decide what is computed, by dotted name.

    Fields that came later are left out where they change nothing.
    """
    return {
        k: _named(k, v)
        for k, v in flatten(config)
        if k not in _INCIDENTAL
        and not k.startswith("eval.")
        and not (k in _CAME_LATER and v == _CAME_LATER[k])
    }


def _named(field: str, value: Any) -> Any:
    """Returns what of a value is part of the identity: of paths, their names."""
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
    here, there = identity(config), identity(other)
    value = lambda values, k: values.get(k, _CAME_LATER.get(k))
    return [
        (k, value(here, k), value(there, k))
        for k in {**here, **there}
        if value(here, k) != value(there, k)
    ]


def _build(cls: type[T], values: Any, prefix: str) -> T:
    """Makes one dataclass of a mapping, checking names and types."""
    where = prefix.rstrip(".") or "the configuration"
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} is {values!r}; it must be a group of fields")
    hints = typing.get_type_hints(cls)
    unknown = [k for k in values if k not in hints]
    if unknown:
        raise ConfigError(
            f"unknown field {prefix}{unknown[0]} = {values[unknown[0]]!r}; "
            f"{where} has {', '.join(hints)}"
        )
    missing = [k for k in hints if k not in values]
    if missing:
        raise ConfigError(
            f"missing field {prefix}{missing[0]}; every value of {where} must be set"
        )
    built = {
        name: _build(hint, values[name], f"{prefix}{name}.")
        if isinstance(hint, type) and dataclasses.is_dataclass(hint)
        else _convert(hint, values[name], f"{prefix}{name}")
        for name, hint in hints.items()
    }
    return cls(**built)


def _convert(hint: Any, value: Any, field: str) -> Any:
    """Returns ``value`` as the hinted type, or raises ConfigError."""
    if isinstance(hint, types.GenericAlias):  # tuple[X, ...]
        (item, _) = typing.get_args(hint)
        if not isinstance(value, list | tuple):
            raise ConfigError(
                f"{field} is {value!r}; it must be a tuple of {item.__name__}"
            )
        return tuple(_convert(item, v, field) for v in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, hint) and not (hint is not bool and isinstance(value, bool)):
        return value
    raise ConfigError(
        f"{field} is {value!r} of type {type(value).__name__}; "
        f"it must be of type {hint.__name__}"
    )
