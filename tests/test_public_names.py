"""The names that other code builds on: where they are, and how they are called."""

import importlib
import importlib.util
import inspect
import pathlib
import re
import subprocess
import sys
import typing

import jax.numpy as jnp
import numpy as np
import pytest

import apr_jax
from apr_jax import attacks, corruptions, metrics, models, ood

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Whoever changes a row here breaks other people's calls: say so in CHANGELOG.md.
SIGNATURES = {
    "apr_jax.recombine": (
        "(amplitude_from, phase_from, *, axes=(-3, -2, -1), backend='auto')"
    ),
    "apr_jax.apr_pair": (
        "(key, images, *, prob=0.6, per='batch', axes=(-3, -2, -1), clip=False, "
        "noise=0.0, donors=None, donor_index=None, backend='auto')"
    ),
    "apr_jax.apr_single": (
        "(key, images, *, prob=0.5, level=3.0, ops='base', axes=(-3, -2, -1), "
        "overflow='clip', chunk='auto', backend='auto')"
    ),
    "apr_jax.apr": (
        "(key, images, *, single_prob=0.5, pair_prob=0.6, level=3.0, ops='base', "
        "per='batch', axes=(-3, -2, -1), overflow='clip', clip=False, backend='auto')"
    ),
    "apr_jax.spectral.amplitude": "(images, *, axes=(-3, -2, -1))",
    "apr_jax.spectral.phase": "(images, *, axes=(-3, -2, -1))",
    "apr_jax.spectral.radial_mask": "(height, width, radius)",
    "apr_jax.spectral.split_bands": "(images, radius)",
    "apr_jax.spectral.fourier_basis": "(height, width, i, j)",
    "apr_jax.spectral.azimuthal_profile": (
        "(images, *, channels='luma', log=True, normalise=True)"
    ),
    "apr_jax.models.build": (
        "(name, *, num_classes, dtype=jnp.float32, sync_axis=None, dropout=0.0, "
        "norm='batch')"
    ),
    "apr_jax.models.torch_weights.from_torch": "(name, state_dict)",
    "apr_jax.models.torch_weights.load_torch_file": "(name, path)",
    "apr_jax.models.torch_weights.load": "(name, state_dict)",
    "apr_jax.models.torch_weights.load_file": "(name, path)",
    "apr_jax.corruptions.corrupt": (
        "(key, images, name, severity, *, indices=None, frost=None, chunk=None, "
        "stored_as='array', jpeg='pillow')"
    ),
    "apr_jax.attacks.fgsm": (
        "(key, logits_fn, images, labels, *, eps, norm='linf', step_size=None, "
        "random_start=False, chunk=256)"
    ),
    "apr_jax.attacks.pgd": (
        "(key, logits_fn, images, labels, *, eps, norm='linf', steps=40, "
        "step_size=None, restarts=1, random_start=True, loss='ce', chunk=256)"
    ),
    "apr_jax.attacks.apgd": (
        "(key, logits_fn, images, labels, *, eps, norm='linf', loss='ce', steps=100, "
        "restarts=1, targets=9, rho=0.75, eot=1, shrink=False, chunk=256)"
    ),
    "apr_jax.attacks.fab": (
        "(key, logits_fn, images, labels, *, eps, norm='linf', targeted=False, "
        "targets=9, steps=100, restarts=1, alpha_max=0.1, eta=1.05, beta=0.9, "
        "nearest=False, chunk=256)"
    ),
    "apr_jax.attacks.square": (
        "(key, logits_fn, images, labels, *, eps, norm='linf', queries=5000, "
        "restarts=1, p_init=0.8, rescale=True, chunk=256)"
    ),
    "apr_jax.attacks.pma": (
        "(key, logits_fn, images, labels, *, eps, norm='linf', steps=100, restarts=1, "
        "chunk=256)"
    ),
    "apr_jax.attacks.transfer": (
        "(key, logits_fn, images, labels, *, surrogate_fn, eps, norm='linf', "
        "attack='pgd', steps=40, chunk=256)"
    ),
    "apr_jax.attacks.gradient_masking": (
        "(key, logits_fn, images, labels, *, eps, norm='linf', steps=100, "
        "queries=5000, chunk=256)"
    ),
    "apr_jax.attacks.loss_surface": (
        "(key, logits_fn, images, labels, *, eps, norm='linf', chunk=256)"
    ),
    "apr_jax.attacks.autoattack": (
        "(key, logits_fn, images, labels, *, norm, eps, version='standard', "
        "steps=100, queries=5000, chunk=256)"
    ),
    "apr_jax.zoo.about": "(name)",
    "apr_jax.zoo.load": "(name)",
    "apr_jax.zoo.names": "()",
    "apr_jax.robustness_card": (
        "(model, *, data, out, parts=('clean', 'corruption', 'shift', 'ood', "
        "'adversarial', 'fourier'), classes=None, image_size=0, weights=None, "
        "trust_remote_code=False, devices=0, quiet=False, **settings)"
    ),
    "apr_jax.Classifier.from_function": (
        "(function, variables=None, *, layout='NHWC', **about)"
    ),
    "apr_jax.Classifier.from_linen": "(module, variables, arguments=None, **about)",
    "apr_jax.Classifier.from_nnx": "(module, arguments=None, **about)",
    "apr_jax.Classifier.from_equinox": (
        "(module, state=None, arguments=None, *, layout='NCHW', **about)"
    ),
    "apr_jax.Classifier.from_keras": "(model, **about)",
    "apr_jax.Classifier.from_torch": (
        "(module, *, on_host=False, layout='NCHW', **about)"
    ),
    "apr_jax.Classifier.from_onnx": (
        "(model, *, on_host=False, layout='NCHW', **about)"
    ),
    "apr_jax.ood.get_score": "(name)",
    "apr_jax.metrics.ood_detection": "(id_scores, ood_scores, *, convention='exact')",
    "apr_jax.metrics.oscr": "(id_scores, correct, ood_scores, *, convention='exact')",
    "apr_jax.metrics.mean_corruption_error": (
        "(errors, *, baseline=metrics.ALEXNET_ERROR)"
    ),
    "apr_jax.metrics.flips": "(logits, *, noise)",
    "apr_jax.metrics.top5_distance": "(logits, *, noise)",
    "apr_jax.metrics.mean_flip_rate": "(flip_probabilities, *, baseline)",
    "apr_jax.metrics.ece": "(confidence, correct, *, bins=15)",
    "apr_jax.metrics.rms_calibration_error": (
        "(confidence, correct, *, bin_size=100, convention='exact')"
    ),
    "apr_jax.metrics.brier": "(probabilities, labels)",
}
# The members of apr_jax.ood.SCORES.
SCORES = {
    "msp": "(logits, features=None, fitted=None)",
    "max_logit": "(logits, features=None, fitted=None)",
    "energy": "(logits, features=None, fitted=None, *, temperature=1.0)",
    "entropy": "(logits, features=None, fitted=None)",
    "gen": "(logits, features=None, fitted=None, *, gamma=0.1, top=100)",
    "odin": "(logits_fn, images, *, temperature=1000.0, epsilon=0.0014)",
    "react": "(logits, features, fitted)",
    "dice": "(logits, features, fitted)",
    "ash": "(logits, features, fitted, *, prune=0.9, variant='s')",
    "mahalanobis": "(logits, features, fitted)",
    "relative_mahalanobis": "(logits, features, fitted)",
    "knn": "(logits, features, fitted, *, k=50)",
    "vim": "(logits, features, fitted)",
    "authors": "(logits, features=None, fitted=None)",
    "csi": "(shift_logits, images)",
}
MODELS = (
    "allconv densenet_bc_100_12 densenet_40_12 wrn_40_2 resnext29_32x4 "
    "resnext29_4x32 resnet18 preact_resnet18 resnet50 resnet50_blur resnet18_128 "
    "preact_resnet18_activated preact_resnet18_bare "
    "resnet50_cifar preact_resnet50 preact_resnet50_bare"
)
CORRUPTIONS = (
    "gaussian_noise shot_noise impulse_noise defocus_blur glass_blur motion_blur "
    "zoom_blur snow frost fog brightness contrast elastic_transform pixelate "
    "jpeg_compression"
)
EXTRA_CORRUPTIONS = "speckle_noise gaussian_blur spatter saturate"
C_BAR_CIFAR = (
    "blue_noise_sample brownish_noise checkerboard_cutout inverse_sparkles "
    "pinch_and_twirl ripple circular_motion_blur lines sparkles "
    "transverse_chromatic_abberation"
)
C_BAR_IMAGENET = (
    "blue_noise_sample plasma_noise checkerboard_cutout cocentric_sine_waves "
    "single_frequency_greyscale brownish_noise caustic_refraction inverse_sparkles "
    "sparkles perlin_noise"
)
DETECTION = (
    "auroc aupr_in aupr_out fpr95_id_positive fpr95_ood_positive tnr_at_tpr95 "
    "detection_accuracy"
)

# The options that each command has at least. The card takes many runs and writes into
# each, so it has a page in place of a work directory.
MEASURES = "config workdir beside devices quiet model data classes"
COMMANDS = {
    "launch.py": "config workdir beside quiet "
    "coordinator processes process distributed dry_run print_config",
    "apr_jax.evaluate.clean": MEASURES,
    "apr_jax.evaluate.corruption": MEASURES,
    "apr_jax.evaluate.shift": f"{MEASURES} shift perturbations",
    "apr_jax.evaluate.ood": f"{MEASURES} out",
    "apr_jax.evaluate.adversarial": f"{MEASURES} linf l2 masking surrogate",
    "apr_jax.evaluate.fourier": MEASURES,
    "apr_jax.evaluate.card": "parts page devices quiet workdir model data classes "
    "ood.out adversarial.linf "
    "adversarial.l2 adversarial.examples fourier.examples corruption.frost_dir "
    "corruption.source corruption.dir",
}

# Defaults whose own text is long, or differs between versions of JAX.
_NAMED = (
    (jnp.float32, "jnp.float32"),
    (metrics.ALEXNET_ERROR, "metrics.ALEXNET_ERROR"),
)


class _Text(str):
    """A text that shows itself without quotes."""

    __slots__ = ()

    def __repr__(self):
        return str(self)


def signature_of(function):
    """The text of a signature, without annotations."""
    empty = inspect.Parameter.empty
    signature = inspect.signature(function)
    parameters = []
    for parameter in signature.parameters.values():
        default = parameter.default
        for value, text in _NAMED:
            if default is value:
                default = _Text(text)
        parameters.append(parameter.replace(annotation=empty, default=default))
    return str(signature.replace(parameters=parameters, return_annotation=empty))


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_name_is_where_it_was_and_called_as_it_was(name):
    owner, _, attribute = name.rpartition(".")
    if owner == "apr_jax.Classifier":
        found = apr_jax.Classifier
    else:
        found = importlib.import_module(owner)
    assert signature_of(getattr(found, attribute)) == SIGNATURES[name]


def test_scores_are_called_as_they_were():
    assert set(SCORES) <= set(ood.SCORES)
    assert {name: signature_of(ood.SCORES[name]) for name in SCORES} == SCORES
    assert all(ood.get_score(name) is ood.SCORES[name] for name in SCORES)


def test_networks_are_called_as_they_were():
    assert set(MODELS.split()) <= set(models.MODELS)
    for name in (*MODELS.split(), "wrn_16_4"):
        network = models.build(name, num_classes=10)
        called = signature_of(type(network).__call__)
        assert called == "(self, images, *, train, capture=False)", name


def test_corruptions_keep_names_and_order():
    # The order numbers the draws: another one would change corrupted images.
    for names, expected in (
        (corruptions.CORRUPTIONS, CORRUPTIONS.split()),
        (corruptions.EXTRA_CORRUPTIONS, EXTRA_CORRUPTIONS.split()),
        (corruptions.C_BAR_CIFAR, C_BAR_CIFAR.split()),
        (corruptions.C_BAR_IMAGENET, C_BAR_IMAGENET.split()),
        (
            corruptions.C_BAR,
            [*dict.fromkeys((C_BAR_CIFAR + " " + C_BAR_IMAGENET).split())],
        ),
    ):
        assert list(names[: len(expected)]) == expected


def test_attacks_return_images_and_survivors(key):
    for name in ("fgsm", "pgd", "apgd", "fab", "square", "pma", "autoattack"):
        hints = typing.get_type_hints(getattr(attacks, name))
        assert hints["return"] is attacks.Result, name
    images = np.full((2, 4, 4, 3), 0.5, np.float32)
    result = attacks.fgsm(
        key, lambda x: x[:, 0, 0], images, np.array([0, 1]), eps=0.1, norm="linf"
    )
    assert result.images.shape == images.shape
    assert list(result.survived) == ["clean", "fgsm"]
    assert all(v.shape == (2,) and v.dtype == bool for v in result.survived.values())


def test_ood_detection_returns_what_it_did(rng):
    found = metrics.ood_detection(rng.normal(size=20) + 1, rng.normal(size=20))
    assert set(DETECTION.split()) <= set(found)


@pytest.mark.parametrize(
    "command",
    [
        # Each of the others takes seconds to import.
        pytest.param(c, marks=() if c == "launch.py" else pytest.mark.slow)
        for c in COMMANDS
    ],
)
def test_a_command_keeps_its_options(command):
    started = [command] if command.endswith(".py") else ["-m", command]
    helped = subprocess.run(
        [sys.executable, *started, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    options = re.findall(r"^ +--(?:\[no\])?([\w.]+)", helped.stdout, re.MULTILINE)
    assert set(COMMANDS[command].split()) <= set(options), helped.stderr


def test_commands_are_modules():
    for command in COMMANDS:
        if command.endswith(".py"):
            assert (ROOT / command).exists()
        else:
            assert importlib.util.find_spec(command), command
