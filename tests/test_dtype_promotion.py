"""The core under JAX's strict promotion of types, as some programs set it."""

import functools
import inspect
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import attacks, augment, corruptions, metrics, ood, spectral
from apr_jax.attacks import core
from apr_jax.train import views
from tests import toy

RNG = np.random.default_rng(0)
LEVELS = RNG.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
PIXELS = jnp.asarray(LEVELS[:, :8, :8] / 255, jnp.float32)
LABELS = jnp.arange(4)
WEIGHT = jnp.asarray(RNG.normal(size=(192, 4)), jnp.float32)
# Frost needs photographs from elsewhere.
NAMES = {
    *(*corruptions.CORRUPTIONS, *corruptions.EXTRA_CORRUPTIONS, *corruptions.C_BAR)
} - {"frost"}


@pytest.fixture(autouse=True)
def _strict() -> Iterator[None]:
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.mark.parametrize("method", sorted(augment.AUGMENTS))
def test_methods(method, tmp_path, key):
    config = toy.config(tmp_path, augment__method=method, augment__crop_pad=1)
    see = functools.partial(views.make_views, config=config, axis_name=None)
    seen = jax.eval_shape(see, key, key, jnp.asarray(LEVELS), LABELS, LABELS)
    assert seen.pixels.dtype == jnp.float32


def of_images():
    """The functions of a key and images alone."""
    for name in sorted(augment.__all__):
        function = getattr(augment, name)
        if not inspect.isfunction(function):
            continue
        known = inspect.signature(function).parameters
        needed = [k for k, p in known.items() if p.default is inspect.Parameter.empty]
        if needed == ["key", "images"]:
            yield name


@pytest.mark.parametrize("name", list(of_images()))
def test_augmentations(name, key):
    images = jnp.asarray(LEVELS / 255, jnp.float32)
    first, *_ = jax.tree.leaves(jax.eval_shape(getattr(augment, name), key, images))
    assert first.shape == images.shape


@pytest.mark.parametrize("name", sorted(NAMES))
def test_corruptions(name, key):
    corrupt = lambda: corruptions.corrupt(key, LEVELS, name, 3)
    assert jax.eval_shape(corrupt).dtype == jnp.uint8


SPECTRAL = {
    "amplitude": lambda: spectral.amplitude(PIXELS),
    "azimuthal_profile": lambda: spectral.azimuthal_profile(PIXELS),
    "contrast_templates": lambda: spectral.contrast_templates(8, 8, 1, 2),
    "fourier_basis": lambda: spectral.fourier_basis(8, 8, 1, 2),
    "keep_bands": lambda: spectral.keep_bands(
        PIXELS, amplitude="low", phase="full", edges=(2.0, 4.0)
    ),
    "phase": lambda: spectral.phase(PIXELS),
    "recombine_within": lambda: spectral.recombine_within(PIXELS, LABELS[::-1]),
    "split_bands": lambda: spectral.split_bands(PIXELS, 3.0),
    "square_mask": lambda: spectral.square_mask(8, 8, 2),
    "stretch": lambda: spectral.stretch(PIXELS),
    "template_phase": lambda: spectral.template_phase(PIXELS, 1, 2),
} | {
    f"recombine by {backend}": functools.partial(
        spectral.recombine, PIXELS[:2], PIXELS[2:], backend=backend
    )
    for backend in spectral.BACKENDS
}


@pytest.mark.parametrize("name", SPECTRAL)
def test_spectral(name):
    jax.eval_shape(SPECTRAL[name])


OTHERS = [("pgd", "l2"), ("apgd", "linf"), ("fab", "l2"), ("square", "linf")]


@pytest.mark.parametrize(
    ("attack", "norm"),
    [
        *(("pgd", "linf"), ("apgd", "l1"), ("fab", "linf"), ("square", "l2")),
        *(("apgd", "l2"), ("fab", "l1"), ("square", "l1")),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in OTHERS),
    ],
)
def test_attacks(attack, norm, key, monkeypatch):
    knobs = {"queries": 2} if attack == "square" else {"steps": 2}

    def traced(attack, logits_fn, state):
        """The state, after a trace of what compiles for long: that has its types."""
        step = functools.partial(attack.step, logits_fn)
        after = jax.tree.leaves(jax.eval_shape(step, state))
        assert [x.dtype for x in after] == [x.dtype for x in jax.tree.leaves(state)]
        return state

    monkeypatch.setattr(core, "_step", traced)
    found = getattr(attacks, attack)(
        *(key, lambda pixels: pixels.reshape(len(pixels), -1) @ WEIGHT, PIXELS, LABELS),
        **{"norm": norm, "eps": 0.1, **knobs},
    )
    assert found.images.dtype == jnp.float32


def test_scores_and_metrics():
    features = jnp.abs(PIXELS.reshape(4, -1)[:, :10])
    logits = PIXELS.reshape(4, -1) @ WEIGHT
    head = {"weight": WEIGHT[:10], "bias": jnp.zeros(4)}
    fitted = ood.fit(features, features @ WEIGHT[:10], LABELS, **head)
    for name, score in ood.SCORES.items():
        if name not in ("odin", "csi", "authors"):
            knobs = {"k": 2} if name == "knn" else {}
            scores = functools.partial(score, **knobs)
            assert jax.eval_shape(scores, logits, features, fitted).shape == (4,)
    metrics.summary(logits, LABELS, replicates=5)
    metrics.reliability_of(logits, LABELS)
    metrics.ood_detection(logits[:, 0], logits[:, 1])
