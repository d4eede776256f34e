"""Recipes of the doors in ``configs/``, field by field, as their sources have them.

Chen et al., ICCV 2021, section 5, and the released settings; for FGSM training Wong et
al., ICLR 2020; for the fast one Jordan, arXiv:2404.00498.
"""

import importlib.util
import pathlib

import pytest

from apr_jax import augment, presets
from apr_jax import config as config_lib

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"

# What every recipe for CIFAR has: SGD of 0.1 with Nesterov momentum of 0.9, weight
# decay of 5e-4 on all parameters, batches of 128, the rate times 0.2 at four epochs.
CIFAR = {
    "seed": 0,
    "data.image_size": 32,
    "data.mean": (0.4914, 0.4822, 0.4465),
    "data.std": (0.2023, 0.1994, 0.2010),
    "data.train_split": "train",
    "data.test_split": "test",
    "augment.crop_pad": 4,
    "augment.crop_fill": 128,
    "augment.flip": True,
    "augment.flip_by": "coin",
    "augment.label_smoothing": 0.0,
    "augment.single_prob": 0.5,
    "augment.single_level": 3.0,
    "augment.single_ops": "base",
    "augment.pair_prob": 0.6,
    "augment.pair_per": "batch",
    "augment.axes": (-3, -2, -1),
    "augment.pair_consistency": 0.0,
    "augment.heads_weight": 0.5,
    "augment.jsd_weight": 12.0,
    "augment.mix_alpha": 1.0,
    "augment.fact_alpha": 1.0,
    "augment.mix_prob": 1.0,
    "augment.cutout_size": 16,
    "augment.strengths": "cifar10",
    "adversary.attack": "none",
    "model.dtype": "float32",
    "model.norm": "batch",
    "model.dropout": 0.0,
    "optim.learning_rate": 0.1,
    "optim.momentum": 0.9,
    "optim.nesterov": True,
    "optim.weight_decay": 5e-4,
    "optim.epochs": 200.0,
    "optim.schedule": "multistep",
    "optim.milestones": (60.0, 120.0, 160.0, 190.0),
    "optim.gamma": 0.2,
    "optim.warmup_epochs": 0.0,
    "optim.average": "none",
    "train.batch_size": 128,
}
OF_CIFAR100 = {
    "data.name": "cifar100",
    "data.mean": (0.5071, 0.4865, 0.4409),
    "data.std": (0.2673, 0.2564, 0.2762),
    "augment.cutout_size": 8,
    "augment.strengths": "cifar100",
}
IMAGENET = CIFAR | {
    "data.name": "imagenet2012",
    "data.test_split": "validation",
    "data.image_size": 224,
    "data.eval_resize": 256,
    "data.streaming": True,
    "data.mean": (0.485, 0.456, 0.406),
    "data.std": (0.229, 0.224, 0.225),
    "augment.crop_pad": 0,
    "augment.pair_prob": 0.5,
    "augment.strengths": "imagenet",
    "model.name": "resnet50",
    "model.dtype": "bfloat16",
    "optim.nesterov": False,
    "optim.weight_decay": 1e-4,
    "optim.epochs": 100.0,
    "optim.milestones": (30.0, 60.0, 90.0),
    "optim.gamma": 0.1,
    "train.batch_size": 256,
}
# The highest rate, epochs, the chances of APR-P and of APR-S of the released settings.
FGSM = {
    "standard": (0.2, 30, 0, 0),
    "cutout": (0.2, 30, 0, 0),
    "apr_p": (0.22, 55, 0.16, 0),
    "apr_s": (0.23, 65, 0, 1.0),
    "apr_sp": (0.20, 90, 0.16, 0.90),
}


def of_fgsm(method):
    rate, epochs, pair, single = FGSM[method]
    return CIFAR | {
        "model.name": "preact_resnet18",
        "augment.method": method,
        "augment.crop_fill": 0,
        "augment.pair_prob": pair,
        "augment.single_prob": single,
        "data.std": (0.2471, 0.2435, 0.2616),
        "adversary.attack": "fgsm",
        "adversary.eps": 8 / 255,
        "adversary.step_size": 10 / 255,
        "optim.learning_rate": rate,
        "optim.epochs": epochs,
        "optim.schedule": "cyclic",
        "optim.peak": 0.5,
        "optim.start": 0.0,
        "optim.end": 0.0,
        "optim.nesterov": False,
        "eval.parts": ("clean", "adversarial"),
    }


def of_cifar(model, method, **more):
    return CIFAR | {"model.name": model, "augment.method": method} | more


SMALL = {
    "optim.epochs": 12.0,
    "optim.schedule": "cyclic",
    "optim.peak": 0.3,
    "optim.learning_rate": 0.2,
}
FAST = {
    "model.name": "airbench94",
    "model.dtype": "bfloat16",
    "data.std": (0.2470, 0.2435, 0.2616),
    "augment.crop_pad": 2,
    "augment.crop_edge": "reflect",
    "augment.flip_by": "epoch",
    "augment.label_smoothing": 0.2,
    "optim.epochs": 10.0,
    "optim.momentum": 0.85,
    # 11.5 for 1,024 images, over 1 + 1 / (1 - 0.85); of two views, 512 images.
    "optim.learning_rate": 11.5 / (1 + 1 / 0.15) / 2,
    "optim.weight_decay": 0.0153 / (1 + 1 / 0.15),
    "optim.decay_per": "step",
    "optim.norm_bias_rate": 64.0,
    "optim.schedule": "cyclic",
    "optim.peak": 0.23,
    "optim.start": 0.2,
    "optim.end": 0.07,
    "optim.average": "lookahead",
    "optim.average_decay": 0.95,
    "optim.average_every": 5,
    "optim.average_power": 3.0,
    "train.batch_size": 512,
}
QUICK = {
    "data.source": "bundled",
    "data.mean": (0.5, 0.5, 0.5),
    "data.std": (0.25, 0.25, 0.25),
    "data.shifted_splits": ("test_shifted",),
    "augment.flip": False,
    "optim.epochs": 2.5,
    "train.batch_size": 64,
    "optim.schedule": "cyclic",
    "optim.peak": 0.3,
}
RECIPES = {
    ("cifar", "resnext29_4x32,apr_s,cifar100"): of_cifar(
        "resnext29_4x32", "apr_s", **OF_CIFAR100
    ),
    ("cifar", "allconv,cutmix,svhn_cropped"): of_cifar(
        "allconv",
        "cutmix",
        **{
            "data.name": "svhn_cropped",
            "data.mean": (0.4377, 0.4438, 0.4728),
            "data.std": (0.1980, 0.2010, 0.1970),
            "augment.flip": False,
            "augment.mix_prob": 0.5,
        },
    ),
    ("cifar10_wrn_standard",): of_cifar("wrn_40_2", "standard"),
    ("cifar10_wrn_aprp",): of_cifar("wrn_40_2", "apr_p"),
    ("cifar10_wrn_aprs",): of_cifar("wrn_40_2", "apr_s"),
    ("cifar10_wrn_aprsp",): of_cifar("wrn_40_2", "apr_sp"),
    ("cifar10_resnet18_aprsp",): of_cifar("resnet18", "apr_sp"),
    ("cifar100_wrn_aprsp",): of_cifar("wrn_40_2", "apr_sp", **OF_CIFAR100),
    ("cifar10_small", "apr_p"): of_cifar("wrn_10_1", "apr_p", **SMALL),
    ("cifar10_fast",): of_cifar("airbench94", "apr_sp", **FAST),
    ("quickstart", "standard"): of_cifar("wrn_10_1", "standard", **QUICK),
    ("imagenet_resnet50_aprsp",): IMAGENET | {"augment.method": "apr_sp"},
    ("imagenet_resnet50_aprsp", "hybrid_augment_pp"): IMAGENET
    | {"augment.method": "hybrid_augment_pp", "augment.pair_prob": 0.6},
    ("imagenet_resnet50_aprsp", "mixup"): IMAGENET
    | {"augment.method": "mixup", "augment.mix_alpha": 0.2},
    **{("cifar10_fgsm", method): of_fgsm(method) for method in FGSM},
}


def opened(name):
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config


@pytest.mark.parametrize("recipe", RECIPES, ids="-".join)
def test_recipes_are_the_published_ones(recipe):
    door, *choice = recipe
    found = config_lib.flatten(config_lib.parse(opened(door)(*choice).to_dict()))
    for field, value in RECIPES[recipe].items():
        near = pytest.approx(value) if isinstance(value, float) else value
        assert found[field] == near, field


def test_every_door_has_its_recipe_here():
    assert {recipe[0] for recipe in RECIPES} == {p.stem for p in CONFIGS.glob("*.py")}
    assert presets.FGSM.keys() == FGSM.keys()
    # What a recipe doesn't name is incidental, or of no use to it, and as the default.
    usual = config_lib.flatten(config_lib.default())
    for recipe, wanted in RECIPES.items():
        door, *choice = recipe
        config = config_lib.parse(opened(door)(*choice).to_dict())
        for field in config_lib.identity(config):
            assert field in wanted or field == "data.name", f"{recipe}: {field}"
        assert wanted.keys() <= usual.keys()


def test_the_quickstart_measures_all_corruptions_but_frost():
    measured = presets.quickstart().eval.corruption
    names = """gaussian_noise shot_noise impulse_noise defocus_blur glass_blur
    motion_blur zoom_blur snow fog brightness contrast elastic_transform pixelate
    jpeg_compression"""
    assert list(measured.corruptions) == names.split()
    assert measured.examples == 100
    assert tuple(presets.quickstart().eval.parts) == ("clean", "corruption")


def test_one_view_has_a_coin_for_each_image_and_twice_the_batch():
    both, one = (presets.cifar10_fast(f"apr_sp{end}") for end in ("", "+one_view"))
    assert augment.get_method(one.augment.method).pair.per == "image"
    assert (both.train.batch_size, one.train.batch_size) == (512, 1024)
    assert one.optim.learning_rate == 2 * both.optim.learning_rate
    assert one.optim.weight_decay == both.optim.weight_decay


@pytest.mark.parametrize("make", [presets.cifar10_fast, presets.quickstart])
def test_recipes_suit_their_method(make):
    found = make("noisymix")
    assert found.data.mean == found.data.std == (0.5, 0.5, 0.5)
    assert make("cutmix").augment.mix_prob == 0.5
