"""AutoAugment's policies against the published tables, and where strengths are applied.

Cubuk et al., CVPR 2019, tables 7 and 9 of the appendix: an operation, its probability
in tenths and its magnitude, twice a line.
"""

import importlib

import jax
import numpy as np
import pytest

from apr_jax import augment
from apr_jax.augment import ops

autoaugment = importlib.import_module("apr_jax.augment.autoaugment")

CIFAR10 = """
Invert 1 7 Contrast 2 6
Rotate 7 2 TranslateX 3 9
Sharpness 8 1 Sharpness 9 3
ShearY 5 8 TranslateY 7 9
AutoContrast 5 8 Equalize 9 2
ShearY 2 7 Posterize 3 7
Color 4 3 Brightness 6 7
Sharpness 3 9 Brightness 7 9
Equalize 6 5 Equalize 5 1
Contrast 6 7 Sharpness 6 5
Color 7 7 TranslateX 5 8
Equalize 3 7 AutoContrast 4 8
TranslateY 4 3 Sharpness 2 6
Brightness 9 6 Color 2 8
Solarize 5 2 Invert 0 3
Equalize 2 0 AutoContrast 6 0
Equalize 2 8 Equalize 6 4
Color 9 9 Equalize 6 6
AutoContrast 8 4 Solarize 2 8
Brightness 1 3 Color 7 0
Solarize 4 5 AutoContrast 9 3
TranslateY 9 9 TranslateY 7 9
AutoContrast 9 2 Solarize 8 3
Equalize 8 8 Invert 1 3
TranslateY 7 9 AutoContrast 9 1
"""
IMAGENET = """
Posterize 4 8 Rotate 6 9
Solarize 6 5 AutoContrast 6 5
Equalize 8 8 Equalize 6 3
Posterize 6 7 Posterize 6 6
Equalize 4 7 Solarize 2 4
Equalize 4 4 Rotate 8 8
Solarize 6 3 Equalize 6 7
Posterize 8 5 Equalize 10 2
Rotate 2 3 Solarize 6 8
Equalize 6 8 Posterize 4 6
Rotate 8 8 Color 4 0
Rotate 4 9 Equalize 6 2
Equalize 0 7 Equalize 8 8
Invert 6 4 Equalize 10 8
Color 6 4 Contrast 10 8
Rotate 8 8 Color 10 2
Color 8 8 Solarize 8 7
Sharpness 4 7 Invert 6 8
ShearX 6 5 Equalize 10 9
Color 4 0 Equalize 6 3
Equalize 4 7 Solarize 2 4
Solarize 6 5 AutoContrast 6 5
Invert 6 4 Equalize 10 8
Color 6 4 Contrast 10 8
Equalize 8 8 Equalize 6 3
"""
PUBLISHED = {"cifar10": CIFAR10, "imagenet": IMAGENET}
# AugMix's augmentations, and those that it leaves out for the -C sets (its code).
BASE = [
    "autocontrast",
    "equalize",
    "posterize",
    "rotate",
    "solarize",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
]
LEFT_OUT = ["color", "contrast", "brightness", "sharpness"]


def read(text):
    """[sub-policy, step] of (operation, probability, magnitude)."""
    lines = [line.split() for line in text.split("\n") if line]
    step = lambda name, tenths, magnitude: (
        name.lower().replace("translate", "translate_").replace("shear", "shear_"),
        int(tenths) / 10,
        int(magnitude),
    )
    return tuple((step(*line[:3]), step(*line[3:])) for line in lines)


@pytest.mark.parametrize("name", PUBLISHED)
def test_policies_are_the_published_ones(name):
    wanted = read(PUBLISHED[name])
    assert len(wanted) == 25
    assert autoaugment.POLICIES[name] == wanted
    assert autoaugment.POLICIES.keys() == PUBLISHED.keys()


@pytest.mark.parametrize(
    ("kept", "name"),
    [
        ("all", "imagenet"),
        ("base", "cifar10"),
        pytest.param("all", "cifar10", marks=pytest.mark.slow),
        pytest.param("base", "imagenet", marks=pytest.mark.slow),
    ],
)
def test_a_sub_policy_is_drawn_whole(name, kept, key):
    """Both steps of one line, each left out by its own coin alone, in both ways."""
    count = 4000
    pairs = jax.device_get(
        jax.jit(lambda key: autoaugment.draw_policy(key, count, policy=name, ops=kept))(
            key
        )
    )
    names = [*augment.ops.POLICY_OPS, ""]
    left_out = LEFT_OUT if kept == "base" else []
    chances = {}
    for first, second in read(PUBLISHED[name]):
        for a, b in np.ndindex(2, 2):
            one, two = (
                (op, p if taken else 1 - p, m)
                if op not in left_out
                else (op, 1 - taken, m)
                for (op, p, m), taken in ((first, a), (second, b))
            )
            found = one[0] if a else "", two[0] if b else "", one[2], two[2]
            chances[found] = chances.get(found, 0) + one[1] * two[1] / 25
    seen = {}
    for i in range(count):
        found = (
            *(names[op] for op in pairs.op[:, i]),
            *(round(float(level)) for level in pairs.level[:, i]),
        )
        seen[found] = seen.get(found, 0) + 1 / count
    assert seen.keys() <= {line for line, chance in chances.items() if chance > 0}
    far = {line: (seen.get(line, 0), chance) for line, chance in chances.items()}
    assert all(abs(a - b) < 0.012 for a, b in far.values()), far
    assert abs(pairs.negate.mean() - 0.5) < 0.03
    turned = pairs.negate.astype(float)
    assert abs(np.corrcoef(*turned)[0, 1]) < 0.06


def test_sets_of_operations_are_augmix_s():
    assert list(ops.OP_SETS["base"]) == BASE
    assert list(ops.OP_SETS["all"]) == BASE + LEFT_OUT
    assert set(augment.ops.POLICY_OPS) == {*BASE, *LEFT_OUT, "invert"}


def test_a_policy_is_chosen_by_size(key, monkeypatch):
    methods = importlib.import_module("apr_jax.augment.methods")
    chosen = []
    monkeypatch.setattr(
        methods, "autoaugment", lambda key, images, policy: chosen.append(policy)
    )
    for size in (32, 64, 65, 224):
        methods._autoaugment(key, np.zeros((1, size, 32, 3), np.uint8))
    assert chosen == ["cifar10", "cifar10", "imagenet", "imagenet"]
