"""Configurations: every field is checked, and every message says what to do."""

import copy
import importlib
import pathlib

import pytest

from apr_jax import config as config_lib
from apr_jax.errors import ConfigError
from configs import base, cifar, imagenet_resnet50_aprsp

CONFIGS = pathlib.Path(base.__file__).parent


@pytest.fixture
def values():
    return base.get_config().to_dict()


def changed(values, field, value):
    values = copy.deepcopy(values)
    *groups, last = field.split(".")
    part = values
    for group in groups:
        part = part[group]
    part[last] = value
    return values


def test_round_trip(values):
    config = config_lib.parse(values)
    assert config_lib.parse(config_lib.to_dict(config)) == config


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda p: p.stem)
def test_every_file_parses(path):
    config = importlib.import_module(f"configs.{path.stem}").get_config()
    assert config_lib.parse(config.to_dict()).name


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "optim.learning_rat",
            0.1,
            r"unknown field optim.learning_rat = 0.1; optim has",
        ),
        ("colour", 1, r"unknown field colour = 1; the configuration has name, seed"),
        ("optim.epochs", "ten", r"optim.epochs is 'ten' of type str; .* type float"),
        ("optim.nesterov", 1, r"optim.nesterov is 1 of type int; .* type bool"),
        ("train.batch_size", True, r"train.batch_size is True of type bool"),
        ("train.batch_size", 0, r"train.batch_size is 0; it must be at least 1"),
        ("augment.crop_fill", 300, r"augment.crop_fill is 300; .* from 0 to 255"),
        ("data.source", "web", r"data.source is 'web'; choose from 'bundled', 'tfds'"),
        ("augment.axes", (0, 1), r"augment.axes is \(0, 1\); choose from"),
        ("augment.axes", 3, r"augment.axes is 3; it must be a tuple of int"),
        ("optim.schedule", "step", r"optim.schedule is 'step'; choose from 'constant'"),
        ("data.std", (0.0, 1.0, 1.0), r"data.std is .*; each must be above 0"),
        ("data.std", (1.0,), r"data.mean has 3 values and data.std has 1"),
        ("optim.milestones", (2.0, 1.0), r"milestones .* must be in increasing order"),
        ("optim", 3, r"optim is 3; it must be a group of fields"),
    ],
)
def test_bad_values(values, field, value, message):
    with pytest.raises(ConfigError, match=message):
        config_lib.parse(changed(values, field, value))


def test_missing_field(values):
    del values["optim"]["epochs"]
    with pytest.raises(ConfigError, match=r"missing field optim.epochs"):
        config_lib.parse(values)


def test_identity_leaves_out_where_and_how_fast(values):
    config = config_lib.parse(values)
    elsewhere = config_lib.parse(changed(values, "data.cache_dir", "/tmp/elsewhere"))
    other = config_lib.parse(changed(values, "optim.epochs", 3))
    assert config_lib.config_hash(config) == config_lib.config_hash(elsewhere)
    assert config_lib.config_hash(config) != config_lib.config_hash(other)
    assert config_lib.differences(other, config) == [("optim.epochs", 3.0, 200.0)]


def test_cifar_argument():
    config = cifar.get_config("resnext29_4x32,apr_p,cifar100")
    assert config.model.name == "resnext29_4x32"
    assert config.augment.method == "apr_p"
    assert config.data.name == "cifar100"
    assert cifar.get_config("allconv").augment.method == "apr_sp"
    with pytest.raises(
        ValueError, match="unknown data set 'cifar11'; choose from cifar"
    ):
        cifar.get_config("wrn_40_2,apr_p,cifar11")


@pytest.mark.parametrize(
    ("name", "method", "ratio"),
    [
        ("apr_sp", "apr_sp", 0.0),
        ("stylized", "standard", 1 / 2),
        ("deepaugment+apr_sp", "apr_sp", 2 / 3),
        ("apr_s+stylized+deepaugment", "apr_s", 3 / 4),
    ],
)
def test_imagenet_argument(name, method, ratio):
    config = imagenet_resnet50_aprsp.get_config(name)
    assert config.name == f"imagenet_resnet50_{name}"
    assert config.augment.method == method
    assert config.data.extra_ratio == pytest.approx(ratio)
    if ratio:
        with pytest.raises(ConfigError, match=r"extra_dirs names no folder"):
            config_lib.parse(config.to_dict())
        config.data.extra_dirs = ("EDSR", "CAE")
    assert config_lib.parse(config.to_dict()).name == config.name


@pytest.mark.parametrize(
    ("dirs", "named"),
    [
        (("/data/EDSR", "CAE/", "more/x.npz"), ("EDSR", "CAE", "x.npz")),
        (("/a/SIN/train", "/b/EDSR/train/"), ("SIN/train", "EDSR/train")),
        (("SIN/train.npz", "/train", "train"), ("SIN/train.npz", "train", "train")),
    ],
)
def test_extra_images_are_known_by_name_wherever_they_are(values, dirs, named):
    values = changed(values, "data.extra_dirs", dirs)
    identity = config_lib.identity(config_lib.parse(values))
    assert identity["data.extra_dirs"] == named


def test_older_runs_lack_newer_fields_and_keep_their_hash(values, monkeypatch):
    before = config_lib.config_hash(config_lib.parse(values))
    monkeypatch.setitem(config_lib._CAME_LATER, "optim.gamma", 0.2)
    newer = config_lib.parse(values)
    assert "optim.gamma" not in config_lib.identity(newer)
    older = copy.deepcopy(values)
    del older["optim"]["gamma"]
    with pytest.raises(ConfigError, match=r"missing field optim\.gamma"):
        config_lib.parse(older)
    saved = config_lib.parse_saved(older)
    assert saved == newer
    assert config_lib.config_hash(saved) == config_lib.config_hash(newer) != before
    assert "gamma" not in older["optim"]
    other = config_lib.parse(changed(values, "optim.gamma", 0.5))
    assert config_lib.differences(other, saved) == [("optim.gamma", 0.5, 0.2)]
    assert config_lib.differences(saved, other) == [("optim.gamma", 0.2, 0.5)]
