"""Cutout, Patch Gaussian, Mixup and CutMix against NumPy from the same draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import augment
from apr_jax.augment import cutout_patch, mixup_cutmix

cutout = jax.jit(augment.cutout, static_argnames="size")
patch = {
    uniform: jax.jit(method, static_argnames=("size", "sigma", "random_size"))
    for uniform, method in (
        (False, augment.patch_gaussian),
        (True, augment.patch_uniform),
    )
}
mixing_methods = {
    name: jax.jit(getattr(augment, name), static_argnames=("alpha", "per"))
    for name in ("mixup", "cutmix")
}
draw_patches = jax.jit(
    cutout_patch.draw_patches,
    static_argnames=("shape", "size", "sigma", "random_size", "uniform"),
)


@pytest.fixture
def pixels(rng):
    return rng.random((6, 7, 10, 3), np.float32)


def square(image, centre, size):
    """The part of an image that a square covers, a view."""
    rows, columns = (
        slice(max(0, int(c) - size // 2), max(0, int(c) - size // 2 + size))
        for c in centre
    )
    return image[rows, columns]


@pytest.mark.parametrize(("size", "shape"), [(3, (7, 10)), (4, (8, 8)), (40, (7, 10))])
def test_cutout_blanks_a_square(rng, key, shape, size):
    images = rng.integers(1, 256, (20, *shape, 3), np.uint8)
    fill = (9, 8, 7)
    got = cutout(key, images, size=size, fill=fill)
    centres = cutout_patch.draw_centres(key, 20, height=shape[0], width=shape[1])
    want = images.copy()
    for image, centre in zip(want, np.asarray(centres), strict=True):
        square(image, centre, size)[:] = fill
    np.testing.assert_array_equal(got, want)
    assert got.dtype == np.uint8


def test_cutout_reaches_every_pixel_and_the_whole_square(key):
    images = jnp.ones((400, 9, 9, 1))
    zeros = np.asarray(cutout(key, images, size=3)) == 0
    assert zeros.sum((1, 2, 3)).max() == 9
    assert zeros.sum((1, 2, 3)).min() == 4
    assert zeros.any((0, 3)).all()


@pytest.mark.parametrize(
    ("random_size", "uniform"),
    [pytest.param(False, False, marks=pytest.mark.slow), (True, True)],
)
def test_patch_adds_noise_in_a_square(key, pixels, random_size, uniform):
    knobs = {"size": 5, "sigma": 0.7, "random_size": random_size}
    got = patch[uniform](key, pixels, **knobs)
    patches = draw_patches(key, pixels.shape, uniform=uniform, **knobs)
    want = pixels.astype(np.float64)
    for i, image in enumerate(want):
        centre, size = np.asarray(patches.centre[i]), int(patches.size[i])
        noise = float(patches.scale[i]) * np.asarray(patches.noise[i], np.float64)
        square(image, centre, size)[:] += square(noise, centre, size)
    np.testing.assert_allclose(got, np.clip(want, 0, 1), atol=1e-6)


@pytest.mark.slow
def test_patch_noise_has_the_scale_it_says(key):
    for uniform in (False, True):
        drawn = draw_patches(
            key, (200, 6, 6, 3), size=6, sigma=0.5, random_size=True, uniform=uniform
        )
        assert abs(np.std(drawn.noise) - 1) < 0.02
        assert abs(np.mean(drawn.scale) - 0.25) < 0.03
        assert set(np.unique(drawn.size)) == set(range(1, 7))


@pytest.mark.parametrize("per", ["batch", "image"])
def test_mixup_is_the_formula(key, pixels, per):
    mixed, partner, weight = mixing_methods["mixup"](key, pixels, alpha=0.4, per=per)
    w = np.asarray(weight, np.float64)[:, None, None, None]
    want = w * pixels + (1 - w) * pixels[np.asarray(partner)]
    np.testing.assert_allclose(mixed, want, atol=1e-6)
    assert sorted(np.asarray(partner)) == list(range(6))
    assert (len(np.unique(weight)) == 1) == (per == "batch")


@pytest.mark.parametrize("per", ["batch", "image"])
def test_cutmix_takes_a_rectangle_and_counts_its_pixels(pixels, per):
    seen = set()
    for number in range(12):
        # An image of its own level shows where each pixel comes from.
        levels = np.broadcast_to(
            np.arange(6, dtype=np.float32)[:, None, None, None], pixels.shape
        )
        mixed, partner, weight = map(
            np.asarray,
            mixing_methods["cutmix"](jax.random.key(number), levels, per=per),
        )
        for i, image in enumerate(mixed[..., 0]):
            assert set(np.unique(image)) <= {float(i), float(partner[i])}
            if partner[i] == i:
                continue
            taken = image == partner[i]
            assert abs(weight[i] - (1 - taken.mean())) < 1e-6
            rows, columns = taken.any(1), taken.any(0)
            # A rectangle is its rows times its columns, and those have no gaps.
            assert taken.sum() == rows.sum() * columns.sum()
            for line in (rows, columns):
                assert (np.diff(line.astype(int)) == 1).sum() <= 1
            seen.add(float(weight[i]))
    assert len(seen) > 5


def test_cutmix_boxes_are_the_papers(key):
    """Sides W sqrt(1 - w) around the centre, from the authors' formula in NumPy."""
    weight = jnp.array([0.0, 0.2, 0.5, 0.9, 1.0])
    boxes = mixup_cutmix.draw_boxes(key, weight, height=11, width=8, per="batch")
    centre = np.asarray(jax.random.randint(key, (2,), 0, jnp.array([11, 8])))
    for i, w in enumerate(np.asarray(weight, np.float32)):
        for axis, (low, high, side) in enumerate(
            [(boxes.top, boxes.bottom, 11), (boxes.left, boxes.right, 8)]
        ):
            cut = int(side * np.sqrt(np.float32(1) - w))
            assert low[i] == np.clip(centre[axis] - cut // 2, 0, side)
            assert high[i] == np.clip(centre[axis] + cut // 2, 0, side)


@pytest.mark.slow
def test_weights_are_beta_distributed(key):
    weights = np.asarray(mixup_cutmix.draw_weights(key, 4000, alpha=0.5, per="image"))
    # Mean 1/2 and variance 1 / (4 (2 alpha + 1)).
    assert abs(weights.mean() - 0.5) < 0.03
    assert abs(weights.var() - 0.125) < 0.01


def test_mixing_with_itself_and_with_another_pool(key, pixels):
    method = mixing_methods["cutmix"]
    pool = np.concatenate([pixels, np.zeros_like(pixels)])
    own = method(key, pixels, donors=pool, donor_index=np.arange(6))
    np.testing.assert_allclose(own.images, pixels, atol=1e-6)
    black = method(key, pixels, donors=pool, donor_index=6 + np.arange(6))
    assert np.sum(black.images) < pixels.sum()
    np.testing.assert_array_equal(black.partner, 6 + np.arange(6))


@pytest.mark.slow
def test_an_image_alone_is_treated_the_same(key, pixels):
    keys = augment.keys.per_image_keys(key, 6)
    together = patch[False](key, pixels, size=5, sigma=0.7, random_size=False)
    alone = patch[False](keys[2:3], pixels[2:3], size=5, sigma=0.7, random_size=False)
    np.testing.assert_array_equal(together[2:3], alone)


def test_wrong_arguments_are_named(key, pixels):
    with pytest.raises(ValueError, match=r"'pair'.*batch.*image"):
        augment.mixup(key, pixels, per="pair")
    with pytest.raises(ValueError, match="alpha is 0"):
        augment.cutmix(key, pixels, alpha=0.0)
    with pytest.raises(TypeError, match="uint8"):
        augment.mixup(key, jnp.zeros((2, 4, 4, 3), jnp.uint8))
    with pytest.raises(TypeError, match="uint8"):
        augment.patch_gaussian(key, jnp.zeros((2, 4, 4, 3), jnp.uint8))
    with pytest.raises(ValueError, match="size"):
        augment.cutout(key, pixels, size=0)
    with pytest.raises(ValueError, match=r"\[6\]"):
        augment.mixup(key, pixels, donor_index=jnp.arange(3))
    with pytest.raises(ValueError, match="donors"):
        augment.mixup(key, pixels, donors=pixels[:, :3])


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_partner_weight_and_place_are_drawn_apart(key, monkeypatch, name):
    keys = []
    for drawn in ("choose_partners", "draw_weights", "draw_boxes"):
        inner = getattr(mixup_cutmix, drawn)

        def note(key, *given, inner=inner, **more):
            keys.append(jax.random.key_data(key).tobytes())
            return inner(key, *given, **more)

        monkeypatch.setattr(mixup_cutmix, drawn, note)
    getattr(mixup_cutmix, name)(key, jnp.zeros((4, 8, 8, 3)))
    assert len(set(keys)) == len(keys) == {"mixup": 2, "cutmix": 3}[name]
