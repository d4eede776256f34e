"""Configurations: every field is checked, and every message says what to do."""

import copy
import dataclasses
import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest
from absl import flags

from apr_jax import config as config_lib
from apr_jax import presets, settings
from apr_jax.errors import ConfigError

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Whoever changes a default changes what runs with the same hash compute: a new name for
# the field, or another way to say it, keeps old records apart from new ones.
DEFAULTS = {
    "name": "cifar10_wrn_aprsp",
    "seed": 0,
    "data.source": "tfds",
    "data.name": "cifar10",
    "data.data_dir": "",
    "data.cache_dir": "",
    "data.train_split": "train",
    "data.test_split": "test",
    "data.shifted_splits": (),
    "data.image_size": 32,
    "data.eval_resize": 0,
    "data.extra_dirs": (),
    "data.extra_ratio": 0.0,
    "data.streaming": False,
    "data.max_broken": 100,
    "data.shuffle_buffer": 16384,
    "data.workers": 0,
    "data.mean": (0.4914, 0.4822, 0.4465),
    "data.std": (0.2023, 0.1994, 0.201),
    "augment.method": "apr_sp",
    "augment.crop_pad": 4,
    "augment.crop_fill": 128,
    "augment.crop_edge": "fill",
    "augment.flip": True,
    "augment.flip_by": "coin",
    "augment.label_smoothing": 0.0,
    "augment.single_prob": 0.5,
    "augment.single_level": 3.0,
    "augment.single_ops": "base",
    "augment.single_overflow": "clip",
    "augment.pair_prob": 0.6,
    "augment.pair_per": "batch",
    "augment.pair_clip": False,
    "augment.pair_donors": "device",
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
    "model.name": "wrn_40_2",
    "model.dtype": "float32",
    "model.dropout": 0.0,
    "model.norm": "batch",
    "optim.name": "sgd",
    "optim.learning_rate": 0.1,
    "optim.momentum": 0.9,
    "optim.beta2": 0.999,
    "optim.nesterov": True,
    "optim.clip": 0.0,
    "optim.accumulate": 1,
    "optim.weight_decay": 0.0005,
    "optim.decay_on": "all",
    "optim.decay_per": "rate",
    "optim.norm_bias_rate": 1.0,
    "optim.epochs": 200.0,
    "optim.schedule": "multistep",
    "optim.milestones": (60.0, 120.0, 160.0, 190.0),
    "optim.gamma": 0.2,
    "optim.warmup_epochs": 0.0,
    "optim.peak": 0.5,
    "optim.start": 0.0,
    "optim.end": 0.0,
    "optim.average": "none",
    "optim.average_decay": 0.999,
    "optim.average_every": 1,
    "optim.average_power": 0.0,
    "train.batch_size": 128,
    "train.init_from": "",
    "train.sync_batch_norm": False,
    "train.devices": 0,
    "train.steps_per_call": 0,
    "train.deterministic": False,
    "train.mapping": "pmap",
    "train.log_every": 100,
    "train.wandb": "",
    "train.tensorboard": True,
    "train.watch": ("accuracy",),
    "train.watch_examples": 1000,
    "checkpoint.every_steps": 2000,
    "checkpoint.keep": 3,
    "eval.batch_size": 1000,
    "eval.parts": ("clean",),
    "eval.save_predictions": False,
    "eval.corruption.corruptions": (),
    "eval.corruption.sets": ("c",),
    "eval.corruption.severities": (1, 2, 3, 4, 5),
    "eval.corruption.source": "generated",
    "eval.corruption.dir": "",
    "eval.corruption.examples": 0,
    "eval.corruption.frost_dir": "",
    "eval.corruption.seed": 0,
    "eval.corruption.stored_as": "auto",
    "eval.corruption.jpeg": "pillow",
    "eval.shift.shift": (),
    "eval.shift.cue_conflict": "",
    "eval.shift.perturbations": "",
    "eval.shift.examples": 0,
    "eval.shift.fit": "resize",
    "eval.shift.tfds_dir": "",
    "augment.mix_depth": 3,
    "augment.noise_add": 0.5,
    "augment.noise_multiply": 0.5,
    "augment.noise_sparse": 0.65,
    "augment.mollify_beta": 2.0,
    "augment.mollify_noise_power": 1.0,
    "augment.mollify_blur_power": 1.0,
    "eval.ood.protocol": "own",
    "eval.ood.openood_dir": "",
    "eval.ood.gen_gamma": 0.1,
    "eval.ood.gen_top": 100,
    "eval.ood.vim_dims": 0,
    "eval.ood.fdbd_over": "deviation",
    "eval.ood.out": (),
    "eval.ood.near": (),
    "eval.ood.scores": (),
    "eval.ood.examples": 0,
    "eval.ood.fit_examples": 10000,
    "eval.ood.fit": "resize",
    "eval.ood.tfds_dir": "",
    "eval.ood.scores_file": "",
    "eval.ood.odin_temperature": 1000.0,
    "eval.ood.odin_epsilon": 0.0014,
    "eval.ood.react_quantile": 0.9,
    "eval.ood.dice_sparsity": 0.9,
    "eval.ood.ash_prune": 0.9,
    "eval.ood.scale_prune": 0.85,
    "eval.ood.knn_k": 50,
    "eval.ood.nnguide_k": 100,
    "eval.adversarial.attack": "standard",
    "eval.adversarial.linf": (8 / 255,),
    "eval.adversarial.l2": (),
    "eval.adversarial.l1": (),
    "eval.adversarial.examples": 1000,
    "eval.adversarial.steps": 100,
    "eval.adversarial.queries": 5000,
    "eval.adversarial.batch": 128,
    "eval.adversarial.seed": 0,
    "eval.adversarial.masking": False,
    "eval.adversarial.surrogate": (),
    "eval.fourier.parts": ("heatmap", "bands", "phase"),
    "eval.fourier.examples": 1000,
    "eval.fourier.norm": 0.0,
    "eval.fourier.extent": 0,
    "eval.fourier.radii": (),
}


@pytest.fixture
def values():
    return presets.base().to_dict()


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


def test_defaults_are_pinned():
    assert config_lib.flatten(config_lib.default()) == DEFAULTS
    assert config_lib.parse({}) == config_lib.default()
    assert config_lib.identity(config_lib.default()) == {}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs").glob("*.py")), ids=lambda p: p.stem
)
def test_every_file_parses(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    assert config_lib.parse(config.to_dict()).name


def test_files_are_read_from_any_folder(tmp_path):
    program = (
        "import sys; sys.argv[0] = 'launch.py'\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from absl import app\n"
        "import launch\n"
        "app.run(lambda argv: print(launch.train._CONFIG.value.optim.epochs))"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            program,
            f"--config={ROOT}/configs/quickstart.py:standard",
            "--config.optim.epochs=3.5",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "3.5", done.stderr


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
        ("data.source", "web", r"data.source is 'web'; choose from 'tfds', 'bundled'"),
        ("augment.axes", (0, 1), r"augment.axes is \(0, 1\); choose from"),
        ("augment.axes", 3, r"augment.axes is 3; it must be a tuple of int"),
        (
            "optim.schedule",
            "step",
            r"optim.schedule is 'step'; choose from 'multistep'",
        ),
        ("data.std", (0.0, 1.0, 1.0), r"data.std has 0.0; it must be above 0"),
        ("data.std", (1.0,), r"data.std has 1 values; give one for each of the 3"),
        ("data.mean", (0.5,), r"data.mean has 1 values; give one for each of the 3"),
        ("optim.milestones", (2.0, 1.0), r"milestones .* must be in increasing order"),
        ("optim", 3, r"optim is 3; it must be a group of fields"),
    ],
)
def test_bad_values(values, field, value, message):
    with pytest.raises(ConfigError, match=message):
        config_lib.parse(changed(values, field, value))


def test_identity_leaves_out_where_and_how_fast(values):
    config = config_lib.parse(values)
    elsewhere = config_lib.parse(changed(values, "data.cache_dir", "/tmp/elsewhere"))
    other = config_lib.parse(changed(values, "optim.epochs", 3))
    assert config_lib.config_hash(config) == config_lib.config_hash(elsewhere)
    assert config_lib.config_hash(config) != config_lib.config_hash(other)
    assert config_lib.differences(other, config) == [("optim.epochs", 3.0, 200.0)]


def test_cifar_argument():
    config = presets.cifar("resnext29_4x32,apr_p,cifar100")
    assert config.model.name == "resnext29_4x32"
    assert config.augment.method == "apr_p"
    assert config.data.name == "cifar100"
    assert presets.cifar("allconv").augment.method == "apr_sp"
    with pytest.raises(
        ValueError, match="unknown data set 'cifar11'; choose from cifar"
    ):
        presets.cifar("wrn_40_2,apr_p,cifar11")


@pytest.mark.parametrize(
    ("method", "batch", "rate", "decay"),
    [
        ("standard", 1024, 1.5, 1.0),
        ("apr_sp", 512, 0.75, 1.0),  # the losses of two views are added
        ("afa", 512, 1.5, 1.0),  # or averaged
        ("augmix", 256, 0.375, 0.75),  # one of three views has a cross-entropy
        ("csi", 128, 0.1875, 1.0),
    ],
)
def test_fast_argument(method, batch, rate, decay):
    config = presets.cifar10_fast(method)
    optim = config_lib.parse(config.to_dict()).optim
    assert (config.name, config.train.batch_size) == (f"cifar10_fast_{method}", batch)
    # 11.5 for 1,024 images, over 1 + 1 / (1 - 0.85).
    assert optim.learning_rate == pytest.approx(rate)
    assert optim.weight_decay == pytest.approx(decay * 0.0153 / (1 + 1 / 0.15))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data": {"streaming": True}, "augment": {"flip_by": "epoch"}},
            r"flip_by is 'epoch', which needs training images in memory",
        ),
        (
            {"optim": {"name": "adamw", "norm_bias_rate": 64.0}},
            r"optim.norm_bias_rate is 64.0, which is for optim.name 'sgd'",
        ),
        (
            {"optim": {"name": "adamw", "decay_per": "step"}},
            r"optim.decay_per is 'step', which is for optim.name 'sgd'",
        ),
        (
            {"optim": {"name": "adamw", "momentum": 1.0}},
            r"optim.momentum is 1.0; 'adamw' takes less",
        ),
        (
            {"optim": {"decay_per": "step", "learning_rate": 0}},
            r"decay_per is 'step', and optim.learning_rate is 0",
        ),
    ],
)
def test_what_does_not_go_together(changes, message):
    with pytest.raises(ConfigError, match=message):
        config_lib.parse(changes)


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
    config = presets.imagenet_resnet50(name)
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


@dataclasses.dataclass(frozen=True)
class _Inner:
    radii: tuple[float, ...] = settings.setting((0.5,), "of balls", above=0)
    counts: tuple[int, ...] = settings.setting((), "how many", low=1)
    kind: str = settings.setting("a", "which", choices=("a", "b"))


@dataclasses.dataclass(frozen=True)
class _Outer:
    ratio: float = settings.setting(0.25, "of all", low=0, high=1, incidental=True)
    names: tuple[str, ...] = settings.setting((), "what", repeated=True)
    inner: _Inner = _Inner()


def test_a_new_field_changes_no_hash(monkeypatch):
    changes = {"optim": {"epochs": 3}, "augment": {"flip": False}}
    before = config_lib.config_hash(config_lib.parse(changes))

    @dataclasses.dataclass(frozen=True)
    class Newer(config_lib.Config):
        inner: _Inner = _Inner()

    monkeypatch.setattr(config_lib, "default", Newer)
    # What an older run saved holds no such field.
    assert config_lib.config_hash(config_lib.parse(changes)) == before
    saved = config_lib.to_dict(config_lib.parse(changes | {"inner": {"kind": "b"}}))
    other = config_lib.parse(json.loads(json.dumps(saved)))
    assert config_lib.config_hash(other) != before
    found = config_lib.differences(other, config_lib.parse(changes))
    assert found == [("inner.kind", "b", "a")]


@pytest.fixture
def parse_flags(monkeypatch):
    monkeypatch.setattr(flags, "FLAGS", flags.FlagValues())
    for name in ("string", "list", "float", "integer", "multi_string", "enum"):
        define = getattr(flags, f"DEFINE_{name}")
        monkeypatch.setattr(
            flags,
            f"DEFINE_{name}",
            lambda *a, define=define, **k: define(*a, **k, flag_values=flags.FLAGS),
        )

    def parse(given, *, arguments):
        flags.FLAGS(["program", *arguments])
        return given()

    return parse


def test_flags_give_what_the_command_line_says(parse_flags):
    given = settings.define_flags(_Outer)
    assert flags.FLAGS["inner.radii"].help == "Of balls."
    assert flags.FLAGS["inner.kind"].default == "a"
    arguments = ["--inner.radii=8/255,2", "--names=a,b", "--names=c"]
    found = parse_flags(given, arguments=[*arguments, "--inner.counts="])
    assert found == {
        "names": ("a,b", "c"),
        "inner": {"radii": (8 / 255, 2.0), "counts": ()},
    }
    built = settings.build(_Outer(ratio=0.75), found)
    assert built == _Outer(0.75, ("a,b", "c"), _Inner((8 / 255, 2.0), ()))


def test_flags_of_what_is_changed_have_no_default(parse_flags):
    given = settings.define_flags(_Inner, defaults=False, only=("radii", "kind"))
    assert flags.FLAGS["radii"].default is None
    assert set(flags.FLAGS) == {"radii", "kind"}
    assert parse_flags(given, arguments=[]) == {}
    with pytest.raises(ConfigError, match=r"radii has 'x'; it must be a number such"):
        parse_flags(given, arguments=["--radii=x"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ratio": 2}, r"ratio is 2.0; it must be from 0 to 1"),
        ({"inner": {"radii": [0.5, 0.0]}}, r"inner.radii has 0.0; it must be above 0"),
        ({"inner": {"counts": [1, 0]}}, r"inner.counts has 0; it must be at least 1"),
        ({"inner": {"kind": "c"}}, r"inner.kind is 'c'; choose from 'a', 'b'"),
        ({"inner": {"size": 1}}, r"unknown field inner.size = 1; inner has radii, cou"),
    ],
)
def test_settings_are_checked(values, message):
    with pytest.raises(ConfigError, match=message):
        settings.build(_Outer(), values)
