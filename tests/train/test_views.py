"""What the network sees: the same on any number of devices, and as the methods say."""

import dataclasses
import functools
import inspect
import operator

import jax
import numpy as np
import pytest

from apr_jax import augment
from apr_jax import config as config_lib
from apr_jax.train import views
from apr_jax.train.image_pairs import Donors
from apr_jax.train.single_image import run_stage
from tests import toy

COUNT = 8


@pytest.fixture
def batch(rng):
    images = rng.integers(0, 256, (COUNT, 8, 8, 3), np.uint8)
    return images, rng.permutation(COUNT), np.arange(COUNT)


def configured(tmp_path, method, **changes):
    config = toy.config(tmp_path, augment__method=method, augment__crop_pad=0)
    return dataclasses.replace(
        config, augment=dataclasses.replace(config.augment, flip=False, **changes)
    )


def seen(config, batch, seed=0, axis_name=None):
    image_key, batch_key = jax.random.split(jax.random.key(seed))
    see = functools.partial(views.make_views, axis_name=axis_name)
    return see(image_key, batch_key, *batch, config)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("apr_p", {"pair_per": "image"}),
        ("hybrid_augment_pp", {"pair_per": "image"}),
        pytest.param(
            *("hybrid_augment_pp", {"pair_per": "batch", "pair_prob": 1.0}),
            marks=pytest.mark.slow,
        ),
        pytest.param("amplitude_mix", {}, marks=pytest.mark.slow),
        pytest.param("afa", {}, marks=pytest.mark.slow),
        pytest.param("apr_p_noised", {}, marks=pytest.mark.slow),
        pytest.param("apr_noise", {}, marks=pytest.mark.slow),
        ("mixup", {}),
        pytest.param("cutmix", {}, marks=pytest.mark.slow),
    ],
)
def test_views_are_the_same_on_any_number_of_devices(tmp_path, batch, method, changes):
    config = configured(tmp_path, method, pair_donors="global", **changes)
    whole = jax.jit(lambda batch: seen(config, batch))(batch)
    parts = [each.reshape(2, COUNT // 2, *each.shape[1:]) for each in batch]
    mapped = jax.jit(
        jax.vmap(lambda *part: seen(config, part, axis_name="d"), axis_name="d")
    )(*parts)
    count = len(whole.labels)
    for one, many in zip(whole[:4], mapped[:4], strict=True):
        # [devices, V * B / devices or V, B / devices, ...] -> [V, B, ...]
        many = many.reshape(2, count, COUNT // 2, *many.shape[3 - (many.ndim > 3) :])
        many = np.moveaxis(np.asarray(many), 0, 1).reshape(count, COUNT, -1)
        np.testing.assert_allclose(
            np.asarray(one).reshape(count, COUNT, -1), many, atol=1e-5
        )


def test_waves_differ_between_devices(tmp_path, batch):
    config = configured(tmp_path, "afa")
    same = [np.broadcast_to(x[:4], (2, *x[:4].shape)) for x in batch[:2]]
    positions = batch[2].reshape(2, 4)
    see = lambda *part: seen(config, part, axis_name="d").pixels
    mapped = np.asarray(jax.jit(jax.vmap(see, axis_name="d"))(*same, positions))
    assert np.abs(mapped[0, 4:] - mapped[1, 4:]).max() > 0.05


def test_blending_is_left_out_by_chance(tmp_path, batch):
    changed = 0
    see = jax.jit(
        lambda seed, batch: seen(
            configured(tmp_path, "cutmix", mix_prob=0.5), batch, seed
        )
    )
    for seed in range(16):
        found = see(seed, batch)
        plain = np.allclose(found.pixels, np.float32(batch[0]) / 255)
        assert plain == bool((found.weight == 1).all()) or not plain
        if plain:
            np.testing.assert_array_equal(found.others, found.labels)
        changed += not plain
    assert 3 <= changed <= 13


@pytest.mark.parametrize("method", ["apr_p", "apr_p_noised"])
def test_one_view_has_the_pair_in_place_of_the_image(tmp_path, batch, method):
    """Bit for bit the second view of the method itself, with its labels."""
    changes = {"pair_per": "image", "pair_prob": 0.5}
    name = f"{method}+{augment.ONE_VIEW}"
    both, alone = (
        jax.jit(lambda batch, config=config: seen(config, batch)[:4])(batch)
        for config in (configured(tmp_path, m, **changes) for m in (method, name))
    )
    for of_both, of_one in zip(both, alone, strict=True):
        np.testing.assert_array_equal(of_one, of_both[len(of_both) // 2 :])
    assert augment.get_method(name).views == 1


@pytest.mark.parametrize(
    ("method", "match"),
    [
        ("apr_s", "has no second view that could take"),
        ("one_view", "unknown method 'one_view'"),
        ("cutmix+apr_p", "needs its first view"),
        ("augmix+apr_p", "needs its first view"),
        ("afa", "needs its first view"),
        ("apr_p+one_view", "says 'one_view' twice"),
    ],
)
def test_one_view_needs_a_pair_and_nothing_of_the_first(method, match):
    with pytest.raises(ValueError, match=match):
        augment.get_method(f"{method}+{augment.ONE_VIEW}")


def test_an_auxiliary_view_is_of_the_clean_images(tmp_path, batch):
    def views_of(method, **changes):
        config = configured(tmp_path, method, **changes)
        pixels = jax.jit(lambda batch: seen(config, batch).pixels)(batch)
        return np.asarray(pixels).reshape(2, COUNT, 8, 8, 3)

    first, second = views_of("cutout+afa", cutout_size=8)
    np.testing.assert_allclose(second, views_of("afa")[1], atol=1e-6)
    assert np.abs(first - np.float32(batch[0]) / 255).max() > 0.1


def stages():
    for method in augment.AUGMENTS.values():
        found = (method.single, *method.after, method.mix, method.pair)
        found += (method.features, method.last)
        yield from (stage for stage in found if stage is not None)


def test_strengths_are_arguments():
    for stage in stages():
        assert stage.strengths.keys() <= set(config_lib.STRENGTHS)
        given = inspect.signature(stage.function).parameters.keys()
        for knobs in stage.strengths.values():
            assert knobs.keys() <= given
            assert not knobs.keys() & stage.knobs.keys()


def test_waves_are_stronger_on_imagenet(tmp_path, batch):
    def change(strengths):
        config = configured(tmp_path, "fourier_basis_noise", strengths=strengths)
        pixels = jax.jit(lambda batch: seen(config, batch).pixels)(batch)
        first, second = np.split(np.asarray(pixels), 2)
        return np.abs(second - first).mean()

    assert change("imagenet") > 1.3 * change("cifar10") > 0


# A method for each of the stages.
SINGLES = {m.single: n for n, m in reversed(augment.AUGMENTS.items()) if m.single}


@pytest.mark.parametrize("name", SINGLES.values())
def test_singles_give_levels(tmp_path, batch, name):
    config = configured(tmp_path, name, strengths="imagenet", single_prob=1.0)
    stage = augment.get_method(name).single
    keys = jax.random.split(jax.random.key(0), COUNT)
    found = jax.eval_shape(lambda *x: run_stage(stage, *x, config), keys, batch[0])
    assert (found.shape, found.dtype) == (batch[0].shape, np.uint8)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name != "apr_s"))
        for name in SINGLES.values()
    ],
)
def test_singles_keep_levels(tmp_path, batch, name):
    config = configured(tmp_path, name, strengths="imagenet", single_prob=1.0)
    run = jax.jit(lambda batch: seen(config, batch).pixels[:COUNT])
    levels = 255 * np.asarray(run(batch))
    np.testing.assert_allclose(levels, levels.round(), atol=1e-3)
    assert np.abs(levels - np.float32(batch[0])).max() > 5


def test_knobs_are_arguments_and_fields(tmp_path):
    config = toy.config(tmp_path)
    for stage in stages():
        given = inspect.signature(stage.function).parameters.keys()
        assert stage.knobs.keys() <= given
        for field in stage.knobs.values():
            operator.attrgetter(field)(config)
        assert set(stage.takes) <= set(Donors._fields)
        assert stage.per in ("", "batch", "image")
    for method in augment.AUGMENTS.values():
        for stage in (method.mix, method.pair):
            if stage:
                given = inspect.signature(stage.function).parameters.keys()
                assert set(stage.takes) <= given


def test_stages_are_given_what_their_settings_say():
    """Every knob of every stage, by its argument's name and its field's value."""
    wanted = {
        ("apr_single", "prob"): "augment.single_prob",
        ("apr_single", "level"): "augment.single_level",
        ("apr_single", "ops"): "augment.single_ops",
        ("apr_single", "axes"): "augment.axes",
        ("apr_single", "overflow"): "augment.single_overflow",
        ("apr_pair", "clip"): "augment.pair_clip",
        ("apr_pair", "prob"): "augment.pair_prob",
        ("apr_pair", "per"): "augment.pair_per",
        ("apr_pair", "axes"): "augment.axes",
        ("cutout", "size"): "augment.cutout_size",
        # Zero after normalisation, as the original fills.
        ("cutout", "fill"): "data.mean",
        ("mixup", "alpha"): "augment.mix_alpha",
        ("cutmix", "alpha"): "augment.mix_alpha",
        ("noisy_mixup", "alpha"): "augment.mix_alpha",
        ("noisy_mixup", "add"): "augment.noise_add",
        ("noisy_mixup", "multiply"): "augment.noise_multiply",
        ("noisy_mixup", "sparse"): "augment.noise_sparse",
        ("mollify", "beta"): "augment.mollify_beta",
        ("mollify", "noise_power"): "augment.mollify_noise_power",
        ("mollify", "blur_power"): "augment.mollify_blur_power",
        ("mollify", "mean"): "data.mean",
        ("mollify", "std"): "data.std",
        ("simclr", "area"): "contrast.crop_area",
        ("hybrid_augment", "clip"): "augment.pair_clip",
        ("hybrid_augment", "prob"): "augment.pair_prob",
        ("hybrid_augment", "per"): "augment.pair_per",
        ("low_amplitude_swap", "clip"): "augment.pair_clip",
        ("amplitude_mix", "alpha"): "augment.fact_alpha",
        ("apr_noise", "prob"): "augment.pair_prob",
        ("apr_waves", "prob"): "augment.pair_prob",
    }
    found = {}
    for stage in stages():
        function = getattr(stage.function, "func", stage.function)
        name = getattr(function, "__name__", "")
        found |= {(name, knob): field for knob, field in stage.knobs.items()}
    assert {place: found.get(place) for place in wanted} == wanted
