"""The settings of data, augmentation, network and training."""

import dataclasses

from apr_jax.settings import choice, incidental, place, setting, share

STRENGTHS = ("cifar10", "cifar100", "imagenet")
_SIDE = 10_000  # pixels, at most


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
    workers: int = incidental(
        0, "processes for folders and ArrayRecord; 0: threads", low=0, high=1024
    )
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
    mix_alpha: float = setting(1.0, "of the blending weights' Beta(a, a)", low=1e-3)
    fact_alpha: float = setting(
        1.0, "amplitude_mix: of the amplitudes' shares' Beta(a, a)", low=1e-3
    )
    mix_prob: float = share(1.0, "mixup, CutMix: chance of blending a batch at all")
    mix_depth: int = setting(
        3, "noisymix: blends at one of the first stages' ends, or pixels (0)", low=0
    )
    noise_add: float = setting(0.5, "noisymix: of additive noise in features", low=0)
    noise_multiply: float = setting(0.5, "noisymix: of multiplicative noise", low=0)
    noise_sparse: float = share(0.65, "noisymix: of the numbers, without noise")
    mollify_beta: float = setting(
        2.0, "mollify: times of Beta(1, b); the larger, the weaker", low=0.01
    )
    mollify_noise_power: float = setting(
        1.0, "mollify: of what a noised image's label loses", above=0
    )
    mollify_blur_power: float = setting(1.0, "the same of a blurred image's", above=0)
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
