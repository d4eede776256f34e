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
from typing import Any

from apr_jax import settings
from apr_jax.errors import ConfigError
from apr_jax.gates import places
from apr_jax.settings import choice, incidental, place, setting, share

PARTS = ("clean", "corruption", "shift", "ood", "adversarial", "fourier")
EXTRA_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
# The ten of CIFAR-10-C-bar and the ten of ImageNet-C-bar; five are in both.
C_BAR_CIFAR = (
    "blue_noise_sample",
    "brownish_noise",
    "checkerboard_cutout",
    "inverse_sparkles",
    "pinch_and_twirl",
    "ripple",
    "circular_motion_blur",
    "lines",
    "sparkles",
    "transverse_chromatic_abberation",
)
C_BAR_IMAGENET = (
    "blue_noise_sample",
    "plasma_noise",
    "checkerboard_cutout",
    "cocentric_sine_waves",
    "single_frequency_greyscale",
    "brownish_noise",
    "caustic_refraction",
    "inverse_sparkles",
    "sparkles",
    "perlin_noise",
)
C_BAR = tuple(dict.fromkeys((*C_BAR_CIFAR, *C_BAR_IMAGENET)))
CORRUPTION_SETS = ("c", "extra", "c_bar")
STRENGTHS = ("cifar10", "cifar100", "imagenet")
_PROBES = ("heatmap", "bands", "phase")
_STEPS = (1, 2, 3, 4, 5)
_SIDE = 10_000  # pixels, at most
_CHANNELS = 3  # grey is repeated wherever images are read


@dataclasses.dataclass(frozen=True)
class Data:
    """The images and their splits; pixels are in [0, 1]."""

    source: str = choice(
        "kind of files", "tfds", "bundled", "folder", "arrays", "parquet"
    )
    name: str = setting("cifar10", 'TFDS name ("cifar10"), or a label for the set')
    data_dir: str = place(
        "", "of the source's files; none: its default", incidental=True, remote=True
    )
    cache_dir: str = place(
        "", "decoded images; none: $XDG_CACHE_HOME or ~/.cache", incidental=True
    )
    train_split: str = setting("train", "split to train on")
    test_split: str = setting("test", "split to measure on")
    shifted_splits: tuple[str, ...] = setting((), "further test splits")
    image_size: int = setting(32, "pixels, square", low=1, high=_SIDE)
    eval_resize: int = setting(
        0, "shorter side before the centre crop; 0: none", low=0, high=_SIDE
    )
    extra_dirs: tuple[str, ...] = place((), "more training images; see data.extra")
    extra_ratio: float = share(0.0, "of a batch that they are; 0: as of all images")
    streaming: bool = setting(False, "read from disk all the time, not once to memory")
    max_broken: int = incidental(100, "unreadable files skipped before it stops", low=0)
    shuffle_buffer: int = setting(16384, "examples; streaming only", low=1)
    mean: tuple[float, ...] = setting((0.4914, 0.4822, 0.4465), "of each channel")
    std: tuple[float, ...] = setting((0.2023, 0.1994, 0.2010), "the same", above=0)


@dataclasses.dataclass(frozen=True)
class Augment:
    """The augmentation of training images; see ``apr_jax.augment``."""

    method: str = setting("apr_sp", 'name of augment.AUGMENTS; several joined by "+"')
    crop_pad: int = setting(
        4, "pixels a side before a random crop; 0: no crop", low=0, high=_SIDE
    )
    crop_fill: int = setting(128, "grey level of the padding", low=0, high=255)
    crop_edge: str = choice("padding: crop_fill, or mirrored pixels", "fill", "reflect")
    flip: bool = setting(True, "mirror half of the images")
    flip_by: str = choice(
        "which: by a coin, or each every other epoch", "coin", "epoch"
    )
    label_smoothing: float = share(0.0, "of each label, spread over all classes")
    single_prob: float = share(0.5, "APR-S: chance to recombine after one operation")
    single_level: float = setting(3.0, "APR-S: operations' strength", low=0.1, high=10)
    single_ops: str = choice("APR-S: operations", "base", "all")
    single_overflow: str = choice("APR-S: values outside of [0, 255]", "clip", "wrap")
    pair_prob: float = share(0.6, "APR-P: chance that half of a batch is recombined")
    pair_per: str = choice("APR-P: a coin for each", "batch", "image")
    pair_clip: bool = setting(False, "APR-P: clip to [0, 1]")
    pair_donors: str = choice("devices whose images are mixed in", "device", "global")
    pair_consistency: float = setting(
        0.0, "of the divergence between the answers on an image and on its pair", low=0
    )
    axes: tuple[int, ...] = choice("of the DFT", (-3, -2, -1), (-3, -2))
    heads_weight: float = share(0.5, "two heads: lambda of equation 7, the phase's")
    jsd_weight: float = setting(12.0, "of the Jensen-Shannon divergence", low=0)
    mix_alpha: float = setting(1.0, "mixup, CutMix: both parameters of Beta", low=1e-3)
    mix_prob: float = share(1.0, "mixup, CutMix: chance of blending a batch at all")
    cutout_size: int = setting(16, "pixels, side of the square", low=1)
    strengths: str = choice("set that the other methods' numbers are for", *STRENGTHS)


@dataclasses.dataclass(frozen=True)
class Adversary:
    """Adversarial training; see ``apr_jax.train.adversarial``."""

    attack: str = choice("kind", "none", "fgsm", "pgd")
    eps: float = share(8 / 255, "radius of the L-infinity ball, of pixels in [0, 1]")
    step_size: float = setting(10 / 255, "of pixels in [0, 1]", low=0)
    steps: int = setting(7, '"pgd" only', low=1)
    held_out: int = setting(0, "images kept out, attacked every epoch; 0: none", low=0)
    stop_drop: float = share(0.0, "fall of their accuracy that ends the run; 0: none")


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
    """The network; see ``apr_jax.models``."""

    name: str = setting("wrn_40_2", "name of apr_jax.models, or FILE.py:FUNCTION")
    dtype: str = choice("of the arithmetic, not of parameters", "float32", "bfloat16")
    dropout: float = setting(0.0, "wrn_D_K: share within a block", low=0, high=0.99)
    norm: str = choice("none: for wrn_D_K only", "batch", "none")


@dataclasses.dataclass(frozen=True)
class Optim:
    """Gradient descent and its learning rate; see ``apr_jax.train.optim``."""

    name: str = choice("of the optimiser", "sgd", "adamw")
    learning_rate: float = setting(0.1, "at its highest", low=0)
    momentum: float = share(0.9, "decay of the sum of gradients; adamw: beta1")
    beta2: float = setting(0.999, "adamw: decay of the squares", low=0, high=0.999999)
    nesterov: bool = setting(True, "sgd: look ahead by the momentum")
    clip: float = setting(0.0, "highest norm of the gradient; 0: none", low=0)
    accumulate: int = setting(1, "steps whose gradients are averaged to one", low=1)
    weight_decay: float = setting(5e-4, "of each parameter", low=0)
    decay_on: str = choice("BatchNorm's and biases, too, or weights", "all", "weights")
    decay_per: str = choice("unit of the rate, or step at the highest", "rate", "step")
    norm_bias_rate: float = setting(1.0, "factor for BatchNorm's biases", above=0)
    epochs: float = setting(200.0, "length of the run", above=0, high=1e6)
    schedule: str = choice("of the rate", "multistep", "constant", "cosine", "cyclic")
    milestones: tuple[float, ...] = setting(
        (60.0, 120.0, 160.0, 190.0), '"multistep": epochs where the rate is multiplied'
    )
    gamma: float = setting(0.2, '"multistep": by this', low=0)
    warmup_epochs: float = setting(0.0, 'linear from 0; not for "cyclic"', low=0)
    peak: float = share(0.5, '"cyclic": where the rate is highest, share of the run')
    start: float = share(0.0, '"cyclic": rate at the start, share of the highest')
    end: float = share(0.0, '"cyclic": rate at the end, share of the highest')
    average: str = choice("of the weights, to be measured", "none", "ema", "lookahead")
    average_decay: float = share(0.999, "what a step leaves of the average")
    average_every: int = setting(1, "steps between updates of the average", low=1)
    average_power: float = setting(
        0.0, "the decay is multiplied by this power of the share of the run", low=0
    )


@dataclasses.dataclass(frozen=True)
class Train:
    """The batches, the devices, and the words of a training."""

    batch_size: int = setting(128, "images a step, all devices, none added yet", low=1)
    init_from: str = place("", "run or file of weights to begin with; random if unset")
    sync_batch_norm: bool = setting(False, "statistics over all devices, not of each")
    devices: int = incidental(0, "0: all accelerators, or one device of a CPU", low=0)
    steps_per_call: int = incidental(0, "0: one on a CPU, else several", low=0)
    mapping: str = incidental(
        "pmap", "of a step over devices", choices=("pmap", "shard_map")
    )
    deterministic: bool = incidental(False, "a GPU repeats its bits, at some speed")
    log_every: int = incidental(
        100, "steps between points of the curve; fewer in a run too short", low=1
    )
    wandb: str = incidental("", "project of Weights & Biases; none: it is not used")
    tensorboard: bool = incidental(
        True, "events for TensorBoard, where it is installed"
    )
    watch: tuple[str, ...] = incidental(
        ("accuracy",), "names of train.watch.WATCHES, each epoch; (): none"
    )
    watch_examples: int = incidental(
        1000, "test images; 0: all, unless streamed", low=0
    )


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The saving of the state, which never blocks a step longer than a copy."""

    every_steps: int = incidental(2000, "between saved states", low=1)
    keep: int = incidental(3, "the newest so many stay", low=1)


@dataclasses.dataclass(frozen=True)
class Corruption:
    """Corrupted images; see ``apr_jax.evaluate.corruption``."""

    corruptions: tuple[str, ...] = setting(
        (),
        "none: those of sets",
        choices=(*CORRUPTIONS, *EXTRA_CORRUPTIONS, *C_BAR),
    )
    sets: tuple[str, ...] = setting(
        ("c",), "the fifteen, the four extra, C-bar's ten", choices=CORRUPTION_SETS
    )
    severities: tuple[int, ...] = setting(_STEPS, "how strong", choices=_STEPS)
    source: str = choice("made on the fly, or read", "generated", "folder", "tfds")
    dir: str = place("", '"folder": NAME.npy, or NAME/SEVERITY/CLASS/IMAGE.JPEG')
    examples: int = setting(0, "the first so many test images; 0: all", low=0)
    frost_dir: str = place("", "photographs of frost; none: of imagecorruptions")
    seed: int = setting(0, "of generated corruptions", low=0, high=2**31 - 1)
    stored_as: str = choice(
        "generated; auto: as the published files of that size", "auto", "jpeg", "array"
    )


@dataclasses.dataclass(frozen=True)
class Shift:
    """The same classes on images from elsewhere; see ``apr_jax.evaluate.shift``."""

    shift: tuple[str, ...] = place(
        (), "sets with labels, name=source:where", repeated=True
    )
    cue_conflict: str = place("", "folder SHAPE/SHAPE1-TEXTURE2.png; none: no such")
    examples: int = setting(0, "images of each set; 0: all", low=0)
    fit: str = choice("images of another size", "resize", "pad", "refuse")
    tfds_dir: str = place("", "TFDS sets; none: where the data are", remote=True)


@dataclasses.dataclass(frozen=True)
class Ood:
    """Images that a network never saw; see ``apr_jax.evaluate.ood``."""

    out: tuple[str, ...] = place(
        (),
        "sets, name=source:where; none: the usual ones that are there",
        repeated=True,
    )
    near: tuple[str, ...] = setting((), "names of those sets that are near")
    scores: tuple[str, ...] = setting((), "names of apr_jax.ood.SCORES; none: all")
    examples: int = setting(0, "images of each set; 0: all", low=0)
    fit_examples: int = setting(10_000, "training images to fit scores; 0: all", low=0)
    fit: str = choice("images of another size", "resize", "pad", "refuse")
    tfds_dir: str = place(
        "", "TFDS sets to detect; none: where the data are", remote=True
    )
    scores_file: str = place("", "an .npz of scores from elsewhere")
    odin_temperature: float = setting(1000.0, "of ODIN's softmax", low=1e-6)
    odin_epsilon: float = share(0.0014, "ODIN's step, of pixels in [0, 1]")
    react_quantile: float = setting(0.9, "where ReAct clips", low=0.001, high=1)
    dice_sparsity: float = setting(0.9, "weights that DICE drops", low=0, high=0.999)
    ash_prune: float = setting(0.9, "features that ASH drops", low=0, high=0.999)
    scale_prune: float = setting(0.85, "features not in SCALE's sum", low=0, high=0.999)
    knn_k: int = setting(50, "neighbours of KNN", low=1)
    nnguide_k: int = setting(100, "neighbours of NNGuide", low=1)


@dataclasses.dataclass(frozen=True)
class Adversarial:
    """Attacked images; see ``apr_jax.evaluate.adversarial``."""

    attack: str = setting(
        "standard",
        "standard, plus, rand, fgsm, pgd, apgd-ce, apgd-dlr, apgd-t, fab, fab-t or "
        "square",
    )
    linf: tuple[float, ...] = setting((8 / 255,), "radii, such as 8/255", above=0)
    l2: tuple[float, ...] = setting((), "radii, such as 0.25,0.5", above=0)
    l1: tuple[float, ...] = setting((), "radii, such as 12", above=0)
    examples: int = setting(1000, "the first so many test images; 0: all", low=0)
    steps: int = setting(100, "of each gradient attack", low=1)
    queries: int = setting(5000, "of Square, an image", low=1)
    batch: int = setting(128, "images at a time, on all devices", low=1)
    seed: int = setting(0, "of the attacks", low=0, high=2**31 - 1)


@dataclasses.dataclass(frozen=True)
class Fourier:
    """Errors by frequency; see ``apr_jax.evaluate.fourier``."""

    parts: tuple[str, ...] = setting(_PROBES, "what to measure", choices=_PROBES)
    examples: int = setting(1000, "test images; 0: all", low=0)
    norm: float = setting(0.0, "L2, of a wave; 0: 4 up to 64 pixels, else 15.7", low=0)
    extent: int = setting(0, "side of the map; 0: all up to 64 pixels, else 63", low=0)
    radii: tuple[float, ...] = setting((), "cut-offs; none: eighths of a side", above=0)


@dataclasses.dataclass(frozen=True)
class Eval:
    """The measurements of a finished network; see ``apr_jax.evaluate.card``."""

    batch_size: int = setting(1000, "images, over all devices", low=1)
    parts: tuple[str, ...] = setting(("clean",), "what is measured", choices=PARTS)
    save_predictions: bool = setting(False, "keep the answer to each image, too")
    corruption: Corruption = Corruption()
    shift: Shift = Shift()
    ood: Ood = Ood()
    adversarial: Adversarial = Adversarial()
    fourier: Fourier = Fourier()


@dataclasses.dataclass(frozen=True)
class Config:
    """One run. Two runs with equal ``identity`` compute the same thing."""

    name: str = incidental("cifar10_wrn_aprsp", "of the run")
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
