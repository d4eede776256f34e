"""What a run can be told, each setting once: default, range, choices and meaning.

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
from typing import Any

from apr_jax import settings
from apr_jax.errors import ConfigError
from apr_jax.settings import setting

PARTS = ("clean", "corruption", "ood", "adversarial", "fourier")
STRENGTHS = ("cifar10", "cifar100", "imagenet")


@dataclasses.dataclass(frozen=True)
class Data:
    """Where images come from."""

    source: str = setting(
        "tfds", "kind of files", choices=("bundled", "tfds", "folder", "arrays")
    )
    name: str = setting("cifar10", 'TFDS name ("cifar10"), or a label for the set')
    data_dir: str = setting(
        "", "folder of the source's files; none: the source's own", incidental=True
    )
    cache_dir: str = setting(
        "",
        "decoded images; none: $XDG_CACHE_HOME/apr_jax, or ~/.cache",
        incidental=True,
    )
    train_split: str = setting("train", "split to train on")
    test_split: str = setting("test", "split to measure on")
    shifted_splits: tuple[str, ...] = setting(
        (), "further test splits, reported beside the first"
    )
    image_size: int = setting(32, "pixels, square", low=1)
    eval_resize: int = setting(
        0, "pixels of the shorter side before the centre crop; 0: none", low=0
    )
    extra_dirs: tuple[str, ...] = setting(
        (), "further training images; see apr_jax.data.extra"
    )
    extra_ratio: float = setting(
        0.0, "share of a batch that they are; 0: that of all images", low=0, high=1
    )
    streaming: bool = setting(False, "read from disk all the time, not once to memory")
    max_broken: int = setting(
        100, "unreadable files skipped before the run stops", low=0, incidental=True
    )
    shuffle_buffer: int = setting(16384, "examples; streaming only", low=1)
    mean: tuple[float, ...] = setting(
        (0.4914, 0.4822, 0.4465), "per channel, of pixels in [0, 1]"
    )
    std: tuple[float, ...] = setting((0.2023, 0.1994, 0.2010), "of the same", above=0)


@dataclasses.dataclass(frozen=True)
class Augment:
    """What happens to a training image; see ``apr_jax.augment``."""

    method: str = setting("apr_sp", 'name of augment.AUGMENTS; several joined by "+"')
    crop_pad: int = setting(4, "pixels a side before a random crop; 0: no crop", low=0)
    crop_fill: int = setting(128, "grey level of the padding", low=0, high=255)
    flip: bool = setting(True, "mirror half of the images")
    single_prob: float = setting(
        0.5, "APR-S: chance of recombining, after the first operation", low=0, high=1
    )
    single_level: float = setting(
        3.0, "APR-S: strength of the operations", low=0.1, high=10
    )
    single_ops: str = setting("base", "APR-S: operations", choices=("base", "all"))
    single_overflow: str = setting(
        "clip", "APR-S: what leaves the range of pixels", choices=("clip", "wrap")
    )
    pair_prob: float = setting(
        0.6, "APR-P: chance that half of a batch is recombined", low=0, high=1
    )
    pair_per: str = setting(
        "batch", "a coin for each batch or image", choices=("batch", "image")
    )
    pair_clip: bool = setting(False, "APR-P: clip to [0, 1]")
    pair_donors: str = setting(
        "device",
        "what is mixed in is from this device, or all",
        choices=("device", "global"),
    )
    axes: tuple[int, ...] = setting(
        (-3, -2, -1), "of the DFT", choices=((-3, -2, -1), (-3, -2))
    )
    heads_weight: float = setting(
        0.5, "two heads: lambda of equation 7, share of the phase", low=0, high=1
    )
    jsd_weight: float = setting(12.0, "of the Jensen-Shannon divergence", low=0)
    mix_alpha: float = setting(
        1.0, "mixup, CutMix: both parameters of the Beta distribution", low=1e-3
    )
    mix_prob: float = setting(1.0, "of blending a batch at all", low=0, high=1)
    cutout_size: int = setting(16, "pixels, side of the square", low=1)
    strengths: str = setting(
        "cifar10", "set that other methods' numbers are for", choices=STRENGTHS
    )


@dataclasses.dataclass(frozen=True)
class Adversary:
    """Adversarial training; see ``apr_jax.train.adversarial``."""

    attack: str = setting("none", "kind", choices=("none", "fgsm", "pgd"))
    eps: float = setting(
        8 / 255, "radius, L-infinity, of pixels in [0, 1]", low=0, high=1
    )
    step_size: float = setting(10 / 255, "of pixels in [0, 1]", low=0)
    steps: int = setting(7, '"pgd" only', low=1)
    held_out: int = setting(
        0, "training images kept out and attacked every epoch; 0: none", low=0
    )
    stop_drop: float = setting(
        0.0, "a larger fall of their accuracy ends the run; 0: none", low=0, high=1
    )


@dataclasses.dataclass(frozen=True)
class Contrast:
    """Contrastive methods, supclr and csi; see ``apr_jax.train.contrastive``."""

    temperature: float = setting(0.5, "of the likeness of projections", low=1e-3)
    width: int = setting(128, "of the projections", low=1)
    crop_area: float = setting(0.08, "smallest share of an image", low=0.01, high=1)
    linear_share: float = setting(
        0.125, "of the run, at its end: the linear layer learns alone", low=0, high=0.9
    )
    linear_rate: float = setting(0.1, "learning rate then, at first", low=0)


@dataclasses.dataclass(frozen=True)
class Model:
    """Which network; see ``apr_jax.models``."""

    name: str = setting("wrn_40_2", "name that apr_jax.models knows")
    dtype: str = setting(
        "float32",
        "of the arithmetic; parameters are float32",
        choices=("float32", "bfloat16"),
    )
    dropout: float = setting(
        0.0, "wrn_D_K: share dropped within a block", low=0, high=0.99
    )
    norm: str = setting("batch", "none: for wrn_D_K only", choices=("batch", "none"))


@dataclasses.dataclass(frozen=True)
class Optim:
    """Gradient descent and its learning rate; see ``apr_jax.train.optim``."""

    learning_rate: float = setting(0.1, "at its highest", low=0)
    momentum: float = setting(0.9, "of the gradients", low=0, high=1)
    nesterov: bool = setting(True, "look ahead by the momentum")
    weight_decay: float = setting(5e-4, "on all parameters, BatchNorm's too", low=0)
    epochs: float = setting(200.0, "length of the run", low=0)
    schedule: str = setting(
        "multistep",
        "of the learning rate",
        choices=("constant", "multistep", "cosine", "cyclic"),
    )
    milestones: tuple[float, ...] = setting(
        (60.0, 120.0, 160.0, 190.0), '"multistep": epochs where the rate is multiplied'
    )
    gamma: float = setting(0.2, '"multistep": by this', low=0)
    warmup_epochs: float = setting(0.0, 'linear from 0; not for "cyclic"', low=0)
    peak: float = setting(
        0.5, '"cyclic": where the rate is highest, share of the run', low=0, high=1
    )


@dataclasses.dataclass(frozen=True)
class Train:
    """How the work is done."""

    batch_size: int = setting(128, "images a step, all devices, none added yet", low=1)
    sync_batch_norm: bool = setting(False, "statistics over all devices, not each")
    devices: int = setting(
        0, "0: accelerators, or one where there is only a CPU", low=0, incidental=True
    )
    steps_per_call: int = setting(
        0, "0: one on a CPU, several on an accelerator", low=0, incidental=True
    )
    log_every: int = setting(
        100, "steps between points of the curve", low=1, incidental=True
    )
    tensorboard: bool = setting(
        True, "also write TensorBoard events, where it is installed", incidental=True
    )
    watch: tuple[str, ...] = setting(
        (), "names of train.watch.WATCHES, measured every epoch", incidental=True
    )
    watch_examples: int = setting(
        1000, "test images for it; 0: all, unless streaming", low=0, incidental=True
    )


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """When the state is saved. Saving never blocks a step longer than a copy."""

    every_steps: int = setting(2000, "between saved states", low=1, incidental=True)
    keep: int = setting(3, "the newest so many stay", low=1, incidental=True)


@dataclasses.dataclass(frozen=True)
class Corruption:
    """Corrupted images; see ``apr_jax.evaluate.corruption``."""

    corruptions: tuple[str, ...] = setting((), "names; none: the fifteen")
    severities: tuple[int, ...] = setting(
        (1, 2, 3, 4, 5), "how strong", choices=(1, 2, 3, 4, 5)
    )
    source: str = setting(
        "generated",
        "corrupted images are made on the fly, files, or of TFDS",
        choices=("generated", "folder", "tfds"),
    )
    dir: str = setting(
        "", '"folder": NAME.npy and labels.npy, or NAME/SEVERITY/CLASS/IMAGE.JPEG'
    )
    examples: int = setting(0, "the first so many test images; 0: all", low=0)
    frost_dir: str = setting(
        "", "photographs of frost; none: those of the package imagecorruptions"
    )
    seed: int = setting(0, "of generated corruptions")


@dataclasses.dataclass(frozen=True)
class Ood:
    """Images that a network never saw; see ``apr_jax.evaluate.ood``."""

    out: tuple[str, ...] = setting(
        (),
        "sets, name=source:where, of tfds, folder or arrays; none: the usual there are",
        repeated=True,
    )
    near: tuple[str, ...] = setting((), "names of those sets that are near")
    scores: tuple[str, ...] = setting((), "names of apr_jax.ood.SCORES; none: all")
    examples: int = setting(0, "images of each set; 0: all", low=0)
    fit_examples: int = setting(
        10_000, "training images for scores that need them; 0: all", low=0
    )
    fit: str = setting(
        "resize",
        "what becomes of images of another size",
        choices=("resize", "pad", "refuse"),
    )
    tfds_dir: str = setting("", "TFDS sets to detect; none: where the data are")
    scores_file: str = setting("", "an .npz of scores from elsewhere")
    odin_temperature: float = setting(1000.0, "of ODIN's softmax", low=1e-6)
    odin_epsilon: float = setting(0.0014, "of ODIN's step in pixels", low=0, high=1)
    react_quantile: float = setting(
        0.9, "of training features, where ReAct clips", low=0.001, high=1
    )
    dice_sparsity: float = setting(
        0.9, "share of weights that DICE drops", low=0, high=0.999
    )
    ash_prune: float = setting(
        0.9, "share of features that ASH drops", low=0, high=0.999
    )
    knn_k: int = setting(50, "neighbours of KNN", low=1)


@dataclasses.dataclass(frozen=True)
class Adversarial:
    """Attacked images; see ``apr_jax.evaluate.adversarial``."""

    attack: str = setting(
        "standard", '"standard", "plus" or "rand" of AutoAttack, or a single attack'
    )
    linf: tuple[float, ...] = setting((8 / 255,), "radii, of pixels in [0, 1]; 8/255")
    l2: tuple[float, ...] = setting((), "radii, such as 0.25,0.5")
    l1: tuple[float, ...] = setting((), "radii, such as 12")
    examples: int = setting(1000, "the first so many test images; 0: all", low=0)
    steps: int = setting(100, "of each gradient attack", low=1)
    queries: int = setting(5000, "of Square, an image", low=1)
    batch: int = setting(128, "images at a time, on all devices", low=1)
    seed: int = setting(0, "of the attacks")


@dataclasses.dataclass(frozen=True)
class Fourier:
    """Errors by frequency; see ``apr_jax.evaluate.fourier``."""

    parts: tuple[str, ...] = setting(
        ("heatmap", "bands", "phase"),
        "what to measure",
        choices=("heatmap", "bands", "phase"),
    )
    examples: int = setting(1000, "test images; 0: all", low=0)
    norm: float = setting(
        0.0, "L2 norm of a wave; 0: 4 up to 64 pixels, 15.7 beyond", low=0
    )
    extent: int = setting(
        0, "side of the heatmap; 0: all up to 64 pixels, 63 beyond", low=0
    )
    radii: tuple[float, ...] = setting(
        (), "of the filters; none: eighths of the side", above=0
    )


@dataclasses.dataclass(frozen=True)
class Eval:
    """How a finished network is measured; see ``apr_jax.evaluate.card``."""

    batch_size: int = setting(1000, "images, over all devices", low=1)
    parts: tuple[str, ...] = setting(("clean",), "what is measured", choices=PARTS)
    corruption: Corruption = Corruption()
    ood: Ood = Ood()
    adversarial: Adversarial = Adversarial()
    fourier: Fourier = Fourier()


@dataclasses.dataclass(frozen=True)
class Config:
    """One run. Two runs with equal ``identity`` compute the same thing."""

    name: str = setting("cifar10_wrn_aprsp", "of the work directory", incidental=True)
    seed: int = setting(0, "of all that is drawn", low=0, high=2**31 - 1)
    data: Data = Data()
    augment: Augment = Augment()
    adversary: Adversary = Adversary()
    contrast: Contrast = Contrast()
    model: Model = Model()
    optim: Optim = Optim()
    train: Train = Train()
    checkpoint: Checkpoint = Checkpoint()
    eval: Eval = Eval()


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


def flatten(config: Config) -> dict[str, Any]:
    """Returns every value by dotted field name, in the order of declaration."""
    return {name: value for name, value, _ in settings.leaves(config)}


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
        for name, value, field in settings.leaves(config)
        if not field.metadata["incidental"]
        and not name.startswith("eval.")
        and value != field.default
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
    usual = flatten(default())
    here, there = ({**usual, **identity(c)} for c in (config, other))
    return [(k, here[k], there[k]) for k in usual if here[k] != there[k]]
