"""The published set-ups, each as what differs from ``apr_jax.config.default()``.

A preset is an ``ml_collections.ConfigDict``, which a command line may change further
and ``apr_jax.config.parse`` checks. The files of ``configs/`` are the doors to them.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_collections

from apr_jax.config import CORRUPTIONS, Data, default, to_dict

# Set -> mean and standard deviation of each channel over the training images.
STATISTICS = {
    "cifar10": (Data.mean, Data.std),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "svhn_cropped": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
}
# Method of FGSM training -> highest rate, epochs, chance of APR-P, chance of APR-S.
FGSM = {
    "standard": (0.2, 30.0, 0.0, 0.0),
    "cutout": (0.2, 30.0, 0.0, 0.0),
    "apr_p": (0.22, 55.0, 0.16, 0.0),
    "apr_s": (0.23, 65.0, 0.0, 1.0),
    "apr_sp": (0.20, 90.0, 0.16, 0.90),
}
# Images made of ImageNet's -> how many of each: in one other style, and by the two
# networks of DeepAugment.
EXTRA = {"stylized": 1, "deepaugment": 2}


def base(**changes: Any) -> ml_collections.ConfigDict:
    """The defaults, changed: ``base(seed=1, optim={"epochs": 3.0})``."""
    config = ml_collections.ConfigDict(to_dict(default()))
    config.update(changes)
    return config


def suit_method(config: ml_collections.ConfigDict, method: str, dataset: str) -> None:
    """Sets what the authors of other methods chose for small images."""
    if dataset == "cifar100":
        config.augment.update(cutout_size=8, strengths="cifar100")
    if "noisymix" in method.split("+"):
        # The noise in pixels is of normalised ones.
        config.data.update(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    if "cutmix" in method.split("+"):
        config.augment.mix_prob = 0.5


def cifar(choice: str = "wrn_40_2,apr_sp,cifar10") -> ml_collections.ConfigDict:
    """The recipe of the paper for one network, method and data set.

    Args:
        choice: "MODEL,METHOD,SET"; what is left out is wrn_40_2, apr_sp, cifar10.
    """
    given = [part.strip() for part in choice.split(",")]
    if len(given) > 3:
        raise ValueError(f"give MODEL,METHOD,SET after the colon, got {choice!r}")
    usual = ["wrn_40_2", "apr_sp", "cifar10"]
    model, method, dataset = given + usual[len(given) :]
    if dataset not in STATISTICS:
        listed = ", ".join(STATISTICS)
        raise ValueError(f"unknown data set {dataset!r}; choose from {listed}")
    mean, std = STATISTICS[dataset]
    config = base(
        name=f"{dataset}_{model}_{method}",
        model={"name": model},
        # A mirrored digit is another sign.
        augment={"method": method, "flip": dataset != "svhn_cropped"},
        data={"name": dataset, "mean": mean, "std": std},
    )
    suit_method(config, method, dataset)
    return config


def cifar10_fgsm(method: str = "apr_sp") -> ml_collections.ConfigDict:
    """FGSM adversarial training on CIFAR-10: the networks of the paper's Table 3.

    The recipe is that of Wong et al. ("Fast is better than free", ICLR 2020): one
    signed step of 10/255 from a random start in a ball of 8/255, a rate that rises to
    its highest and falls to 0 again, padding with black. Highest rate, epochs and the
    chances of APR are those of the paper's code; both halves of a batch are attacked.

    Args:
        method: a name of ``FGSM``.
    """
    if method not in FGSM:
        raise ValueError(f"unknown preset {method!r}; choose from {', '.join(FGSM)}")
    rate, epochs, pair, single = FGSM[method]
    config = cifar(f"preact_resnet18,{method},cifar10")
    config.name = f"cifar10_fgsm_{method}"
    config.data.std = (0.2471, 0.2435, 0.2616)
    config.augment.update(crop_fill=0, pair_prob=pair, single_prob=single)
    config.adversary.attack = "fgsm"
    config.optim.update(
        learning_rate=rate, epochs=epochs, schedule="cyclic", nesterov=False
    )
    config.eval.parts = ("clean", "adversarial")
    return config


def cifar10_small(method: str = "apr_sp") -> ml_collections.ConfigDict:
    """A small network and twelve epochs of CIFAR-10, for two processor cores."""
    config = cifar(f"wrn_10_1,{method}")
    config.name = f"cifar10_small_{method}"
    config.optim.update(epochs=12.0, schedule="cyclic", peak=0.3, learning_rate=0.2)
    config.checkpoint.every_steps = 500
    return config


def cifar10_fast(method: str = "apr_sp") -> ml_collections.ConfigDict:
    """Ten epochs of CIFAR-10 with the network and recipe of Jordan, arXiv:2404.00498.

    "94% on CIFAR-10 in 3.29 seconds", whose rates are for the sum of 1,024 losses. Of a
    batch the network sees up to so many images in a step, whatever the views of
    the method: with two, whose mean losses are added, it has 512 and half of the rate.

    Departures: those of the network (``apr_jax.models.airbench94``), and the order of
    APR-S and crop is that of all methods.

    Args:
        method: of ``apr_jax.augment.AUGMENTS``, or several joined by "+".
    """
    from apr_jax.augment import get_method  # here, as it loads JAX

    config = cifar(f"airbench94,{method}")
    about = get_method(method)
    batch = 1024 >> (about.views - 1).bit_length()
    seen = batch * about.views
    momentum = 0.85
    # Nesterov's steps are so many times the gradient, where that stays the same.
    steps = 1 + 1 / (1 - momentum)
    config.name = f"cifar10_fast_{method}"
    config.model.dtype = "bfloat16"
    config.data.std = (0.2470, 0.2435, 0.2616)
    suit_method(config, method, "cifar10")
    config.augment.update(
        crop_pad=2, crop_edge="reflect", flip_by="epoch", label_smoothing=0.2
    )
    config.optim.update(
        epochs=10.0,
        momentum=momentum,
        # The loss is the mean over the images, and over the views or their sum.
        learning_rate=11.5 / steps * (seen if about.mean else batch) / 1024,
        norm_bias_rate=64.0,
        weight_decay=0.0153 / steps * seen / 1024,
        decay_per="step",
        schedule="cyclic",
        peak=0.23,
        start=0.2,
        end=0.07,
        average="lookahead",
        average_decay=0.95,
        average_every=5,
        average_power=3.0,
    )
    config.train.update(batch_size=batch, log_every=20)
    config.checkpoint.every_steps = 200
    return config


def extra_ratio(*names: str) -> float:
    """Returns the share of sets of ``EXTRA`` in their union with ImageNet."""
    extra = sum(EXTRA[name] for name in names)
    return extra / (1 + extra)


def imagenet_resnet50(method: str = "apr_sp") -> ml_collections.ConfigDict:
    """ResNet-50 on ImageNet.

    Args:
        method: of ``apr_jax.augment.AUGMENTS``, of ``EXTRA``, or several joined by "+".
            What is mixed in of ``EXTRA`` alone is trained on without augmentation.
    """
    parts = method.split("+")
    config = base(
        name=f"imagenet_resnet50_{method}",
        data={
            "name": "imagenet2012",
            "test_split": "validation",
            "image_size": 224,
            "eval_resize": 256,
            "streaming": True,
            "extra_ratio": extra_ratio(*(part for part in parts if part in EXTRA)),
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
        },
        augment={
            "method": "+".join(p for p in parts if p not in EXTRA) or "standard",
            "crop_pad": 0,  # the input pipeline crops and resizes
            "pair_prob": 0.5,
            "strengths": "imagenet",
        },
        model={"name": "resnet50", "dtype": "bfloat16"},
        optim={
            "nesterov": False,
            "weight_decay": 1e-4,
            "epochs": 100.0,
            "milestones": (30.0, 60.0, 90.0),
            "gamma": 0.1,
        },
        train={"batch_size": 256},
        checkpoint={"every_steps": 5000},
        eval={"batch_size": 512},
    )
    if any(part.startswith("hybrid_augment") for part in parts):
        config.augment.pair_prob = 0.6
    if "mixup" in parts:
        config.augment.mix_alpha = 0.2
    return config


def quickstart(method: str = "apr_sp") -> ml_collections.ConfigDict:
    """Handwritten digits over photographs, offline, in minutes on two cores.

    In training the background tells the class most of the time; in the split
    "test_shifted" it doesn't. Corruptions are measured, too.
    """
    # Frost needs photographs from elsewhere.
    names = tuple(name for name in CORRUPTIONS if name != "frost")
    config = base(
        name=f"quickstart_{method}",
        data={
            "source": "bundled",
            "name": "bundled",
            "shifted_splits": ("test_shifted",),
            "mean": (0.5, 0.5, 0.5),
            "std": (0.25, 0.25, 0.25),
        },
        augment={"method": method, "flip": False},  # a mirrored digit is another sign
        model={"name": "wrn_10_1"},
        optim={"epochs": 2.5, "schedule": "cyclic", "peak": 0.3},
        train={"batch_size": 64, "log_every": 20},
        checkpoint={"every_steps": 100},
        eval={
            "parts": ("clean", "corruption"),
            "corruption": {"corruptions": names, "examples": 100},
        },
    )
    suit_method(config, method, "bundled")
    return config


class Preset(NamedTuple):
    """A configuration that has a name.

    Attributes:
        about: what it is, in a line.
        make: makes it, of what follows the name and a colon where ``choices`` is set.
        choices: what may follow.
    """

    about: str
    make: Callable[..., ml_collections.ConfigDict]
    choices: str = ""


def _of_paper(about: str, choice: str) -> Preset:
    return Preset(about, functools.partial(cifar, choice))


# As the files of configs/ are named, and in this order where they are listed.
PRESETS = {
    "quickstart": Preset("bundled digits, offline, minutes", quickstart, "METHOD"),
    "cifar10_small": Preset(
        "CIFAR-10 for two cores: WRN-10-1, 12 epochs", cifar10_small, "METHOD"
    ),
    "cifar10_fast": Preset(
        "CIFAR-10 in ten epochs, bfloat16 (Jordan, 2024)", cifar10_fast, "METHOD"
    ),
    "cifar10_wrn_standard": _of_paper(
        "WRN-40-2 on CIFAR-10, crop and flip only", "wrn_40_2,standard"
    ),
    "cifar10_wrn_aprp": _of_paper("WRN-40-2 on CIFAR-10, APR-P", "wrn_40_2,apr_p"),
    "cifar10_wrn_aprs": _of_paper("WRN-40-2 on CIFAR-10, APR-S", "wrn_40_2,apr_s"),
    "cifar10_wrn_aprsp": _of_paper("WRN-40-2 on CIFAR-10, APR-SP", "wrn_40_2,apr_sp"),
    "cifar100_wrn_aprsp": _of_paper(
        "WRN-40-2 on CIFAR-100, APR-SP", "wrn_40_2,apr_sp,cifar100"
    ),
    "cifar10_resnet18_aprsp": _of_paper(
        "ResNet-18 on CIFAR-10, APR-SP, for unknown images", "resnet18,apr_sp"
    ),
    "cifar": Preset("the paper's recipe for any network", cifar, "MODEL,METHOD,SET"),
    "cifar10_fgsm": Preset(
        f"FGSM, Table 3: {', '.join(FGSM)}",
        cifar10_fgsm,
        "METHOD",
    ),
    "imagenet_resnet50_aprsp": Preset(
        "ResNet-50 on ImageNet, 100 epochs, bfloat16", imagenet_resnet50, "METHOD"
    ),
}


def get(choice: str) -> ml_collections.ConfigDict:
    """Returns the configuration called "NAME" or "NAME:CHOICE".

    Raises:
        ValueError: there is none of that name, or it leaves nothing to choose.
    """
    name, _, rest = choice.partition(":")
    if name not in PRESETS:
        listed = ", ".join(PRESETS)
        raise ValueError(f"unknown configuration {name!r}; choose from {listed}")
    preset = PRESETS[name]
    if rest and not preset.choices:
        raise ValueError(f"nothing can follow the configuration {name}, got {rest!r}")
    return preset.make(rest) if rest else preset.make()
