"""APR on single images and on pairs, crop and flip, against NumPy and Pillow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import apr, apr_pair, apr_single, augment
from apr_jax.augment import OPS, keys
from apr_jax.augment import ops as ops_lib
from tests import oracle

single = jax.jit(
    apr_single, static_argnames=("ops", "axes", "overflow", "chunk", "backend")
)
pair = jax.jit(apr_pair, static_argnames=("prob", "per", "axes", "clip", "backend"))
both = jax.jit(apr, static_argnames=("ops", "per", "axes", "overflow", "clip"))
levels = jax.jit(
    augment.recombine_levels, static_argnames=("axes", "overflow", "backend")
)
crop = jax.jit(augment.random_crop, static_argnames=("pad", "fill", "edge"))
flip = jax.jit(augment.random_flip)


@pytest.fixture(scope="module")
def golden(shared):
    return np.load(shared / "golden" / "reference.npz")


@pytest.fixture(scope="module")
def photos():
    return oracle.photo_crops((24, 24), 40)


def close(got, want, *, share=0.999):
    """At most one grey level apart, and equal nearly everywhere."""
    away = np.abs(np.asarray(got, np.int32) - np.asarray(want, np.int32))
    away = np.minimum(away, 256 - away)
    assert away.max() <= 1
    assert (away == 0).mean() >= share


# -- single ----------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["rfft", "fft", "matmul"])
def test_recombined_levels_match_the_reference(golden, backend):
    x, x_aug = golden["apr_single_x"], golden["apr_single_x_aug"]
    for number, (a, p, name) in enumerate(
        [(x, x_aug, "amp_x_phase_aug"), (x_aug, x, "amp_aug_phase_x")], start=1
    ):
        exact = golden[f"apr_single_{name}"]
        clipped = np.clip(np.round(exact), 0, 255)
        close(levels(a, p, backend=backend), clipped)
        wrapped = golden[f"apr_single_wrap_{number}"]
        close(levels(a, p, backend=backend, overflow="wrap"), wrapped)


def by_hand(key, image, *, prob, level, names, overflow, axes):
    """APR-S with Pillow and NumPy from the same draws."""
    u = [float(x) for x in jax.random.uniform(key, (8,))]

    def operation(image, name, strength, turn):
        strength = 0.1 + strength * (level - 0.1)
        name = names[int(name * len(names))]
        return oracle.pillow_op(image, name, strength, turn < 0.5)

    once = operation(image, *u[:3])
    if u[6] >= prob:
        return once, False
    pair = (once, operation(once, *u[3:6]))
    mixed = oracle.recombine(*(pair[::-1] if u[7] < 0.5 else pair), axes=axes)
    if overflow == "wrap":
        return mixed.astype(np.int64) & 255, True
    return np.clip(np.round(mixed), 0, 255), True


@pytest.mark.parametrize(
    ("ops", "overflow", "size", "channels", "axes"),
    [
        ("base", "clip", (24, 24), 3, (-3, -2, -1)),
        ("all", "wrap", (15, 22), 1, (-3, -2)),
    ],
)
def test_single_is_pillow_and_the_formula(key, ops, overflow, size, channels, axes):
    images = oracle.photo_crops(size, 40)[..., :channels]
    got = single(key, images, ops=ops, overflow=overflow, axes=axes)
    assert got.dtype == jnp.uint8
    mixed_any, within = 0, []
    for i, image in enumerate(images):
        want, mixed = by_hand(
            jax.random.fold_in(key, i),
            image,
            prob=0.5,
            level=3.0,
            names=ops_lib.OP_SETS[ops],
            overflow=overflow,
            axes=axes,
        )
        away = np.abs(np.asarray(got[i], np.int32) - want)
        away = np.minimum(away, 256 - away)
        within.append((away <= 1).mean())
        # Where Pillow rounds otherwise before the mixing, it shows in the whole image.
        assert away.mean() < 1, (i, np.unique(away, return_counts=True))
        mixed_any += mixed
    assert np.mean(within) > 0.99
    assert np.median(within) == 1
    assert 8 <= mixed_any <= 32


def test_single_always_applies_one_operation(key, photos):
    once = np.asarray(single(key, photos, prob=0.0))
    # Weak operations leave an image as it is.
    assert (once != photos).any((1, 2, 3)).mean() > 0.6
    some = np.asarray(single(key, photos, prob=0.5))
    assert 0.25 < (some != once).any((1, 2, 3)).mean() < 0.75
    always = np.asarray(single(key, photos, prob=1.0))
    assert (always != once).any((1, 2, 3)).mean() > 0.6


def test_single_depends_on_its_own_key_and_image_alone(key, photos):
    per_image = jax.random.split(jax.random.fold_in(key, 1), 40)
    whole = np.asarray(single(per_image, photos))
    few = np.array([31, 4, 9, 0, 22, 17, 39, 1])
    close(single(per_image[few], photos[few], chunk="all"), whole[few])
    one_key = single(key, photos)
    folded = jax.vmap(jax.random.fold_in, (None, 0))(key, np.arange(40))
    close(single(folded, photos), one_key)
    assert (np.asarray(one_key) != whole).any()


def test_keys_of_either_kind():
    typed = jax.random.key(3)
    legacy = jax.random.PRNGKey(3)

    def data(key, count):
        return jax.random.key_data(keys.per_image_keys(key, count))

    np.testing.assert_array_equal(data(typed, 5), data(legacy, 5))
    np.testing.assert_array_equal(data(typed, 7)[:5], data(typed, 5))
    many = jax.random.split(typed, 4)
    np.testing.assert_array_equal(data(many, 4), jax.random.key_data(many))
    np.testing.assert_array_equal(data(jax.random.key_data(many), 4), data(many, 4))
    with pytest.raises(ValueError, match=r"one per image \(3\).*\(4,\)"):
        keys.per_image_keys(many, 3)


def test_single_returns_the_type_it_got(key, photos):
    pixels = jnp.asarray(photos / 255, jnp.bfloat16)
    got = single(key, pixels)
    assert got.dtype == jnp.bfloat16
    rounded = np.round(np.asarray(pixels, np.float32) * 255).astype(np.uint8)
    want = jnp.asarray(single(key, rounded) / 255, jnp.bfloat16)
    assert (np.asarray(got) == np.asarray(want)).mean() > 0.999


def test_single_under_the_transformations(key, photos):
    per_image = jax.random.split(key, 40)
    nested = (1, 2, 2, 10)

    def over_devices(keys, images):
        return jax.lax.scan(
            lambda _, x: (0, jax.vmap(apr_single)(*x)), 0, (keys, images)
        )[1]

    got = jax.pmap(over_devices)(
        per_image.reshape(nested), photos.reshape(*nested, 24, 24, 3)
    )
    close(got.reshape(photos.shape), single(per_image, photos))


def test_single_says_what_it_cannot_take(key, photos):
    with pytest.raises(TypeError, match="int32"):
        apr_single(key, photos.astype(np.int32))
    with pytest.raises(ValueError, match=r"'most'.*base.*all"):
        apr_single(key, photos, ops="most")
    with pytest.raises(ValueError, match=r"'saturate'.*clip.*wrap"):
        apr_single(key, photos, overflow="saturate")
    with pytest.raises(ValueError, match=r"'saturate'.*clip.*wrap"):
        augment.recombine_levels(photos, photos, overflow="saturate")
    with pytest.raises(TypeError, match="float64"):
        augment.recombine_levels(photos / 255, photos)
    with pytest.raises(ValueError, match=r"'few'"):
        apr_single(key, photos, chunk="few")
    with pytest.raises(ValueError, match=r"one per image \(40\).*\(39,\)"):
        apr_single(jax.random.split(key, 39), photos)
    with pytest.raises(ValueError, match=r"\(24, 24, 3\)"):
        apr_single(key, photos[0])


# -- pair ------------------------------------------------------------------------------


def test_pair_mixes_with_a_permutation(key, rng):
    images = rng.random((6, 8, 9, 3), np.float32)
    got = np.asarray(pair(key, images, prob=1.0))
    donors = [
        [j for j in range(6) if np.allclose(got[i], mixed(images, j, i), atol=1e-5)]
        for i in range(6)
    ]
    assert all(len(found) == 1 for found in donors)
    assert sorted(found[0] for found in donors) == list(range(6))


def mixed(images, donor, own):
    return oracle.recombine(images[donor], images[own])


def test_label_follows_the_phase(key):
    photos = oracle.photo_crops((24, 24), 4) / np.float32(255)
    got = np.asarray(pair(key, photos, prob=1.0, donor_index=np.array([1, 2, 3, 0])))

    def likeness(a, b):
        # Of edges and texture: brightness and colour belong to the amplitude.
        a, b = (image - oracle.low_pass(image, 3) for image in (a, b))
        return np.corrcoef(a.ravel(), b.ravel())[0, 1]

    for own in range(4):
        donor = (own + 1) % 4
        assert likeness(got[own], photos[own]) > likeness(got[own], photos[donor])


def test_pair_leaves_the_images_where_the_coin_says_no(rng):
    images = rng.random((4, 6, 6, 3), np.float32)
    many = jax.random.split(jax.random.key(7), 200)
    got = jax.jit(jax.vmap(lambda k: apr_pair(k, images)))(many)
    same = (np.asarray(got) == images).all((2, 3, 4))
    untouched = same.all(1)
    assert 0.28 < untouched.mean() < 0.52
    # An image that meets itself is only nearly the same; a coin for each is rare here.
    assert (same.any(1) == untouched).all()
    half = jax.jit(jax.vmap(lambda k: apr_pair(k, images, per="image", prob=0.3)))(many)
    kept = (np.asarray(half) == images).all((2, 3, 4))
    assert 0.62 < kept.mean() < 0.78
    assert 0 < kept.all(1).mean() < 0.5
    np.testing.assert_array_equal(pair(many[0], images, prob=0.0), images)


def test_pair_mixes_where_the_coin_says_yes(key, rng):
    images = rng.random((4, 6, 6, 3), np.float32)
    # A probability that is known to be 1 needs no coin; this one is not known.
    tossed = jax.jit(apr_pair)(key, images, prob=jnp.float32(1))
    np.testing.assert_allclose(tossed, pair(key, images, prob=1.0), atol=1e-6)


def test_pair_spends_nothing_where_the_coin_says_no(key):
    jaxpr = jax.make_jaxpr(apr_pair)(key, jnp.zeros((2, 4, 4, 3)))
    outside = {equation.primitive.name for equation in jaxpr.eqns}
    assert "cond" in outside
    assert "fft" not in outside


def test_pair_with_a_pool_of_donors(key, rng):
    images = rng.random((3, 6, 5, 3), np.float32)
    pool = rng.random((5, 6, 5, 3), np.float32)
    index = np.array([4, 0, 0])
    got = pair(key, images, prob=1.0, donors=pool, donor_index=index)
    np.testing.assert_allclose(got, oracle.recombine(pool[index], images), atol=1e-5)
    got = np.asarray(pair(key, images, prob=1.0, donors=pool))
    drawn = [
        j
        for i in range(3)
        for j in range(5)
        if np.allclose(got[i], oracle.recombine(pool[j], images[i]), atol=1e-5)
    ]
    assert len(set(drawn)) == 3


def test_pair_clips_on_request(key, rng):
    images = rng.integers(0, 2, (4, 8, 8, 3)).astype(np.float32)
    free = np.asarray(pair(key, images, prob=1.0))
    assert free.min() < 0
    clipped = pair(key, images, prob=1.0, clip=True)
    np.testing.assert_allclose(clipped, np.clip(free, 0, 1), atol=1e-6)


def test_pair_keeps_the_type_and_has_a_gradient(key, rng):
    images = rng.random((4, 6, 6, 3), np.float32)
    half = jax.ShapeDtypeStruct(images.shape, jnp.bfloat16)
    assert jax.eval_shape(apr_pair, key, half, prob=1.0).dtype == jnp.bfloat16

    def power(x):
        found = apr_pair(key, x, prob=1.0)
        return jnp.sum(found**2), found

    gradient, found = jax.jit(jax.grad(power, has_aux=True))(images)
    # The mixed images have the amplitudes of the batch, in another order.
    np.testing.assert_allclose(gradient, 2 * images, atol=1e-4)
    mapped = jax.pmap(lambda x: apr_pair(key, x, prob=1.0))(images[None])
    np.testing.assert_allclose(np.asarray(mapped)[0], found, atol=1e-5)


def test_pair_says_what_it_cannot_take(key, rng):
    images = rng.random((4, 6, 6, 3), np.float32)
    with pytest.raises(ValueError, match=r"'epoch'.*batch.*image"):
        apr_pair(key, images, per="epoch")
    with pytest.raises(TypeError, match=r"uint8.*/ 255"):
        apr_pair(key, np.zeros((4, 6, 6, 3), np.uint8))
    with pytest.raises(ValueError, match=r"N, H, W, C.*\(6, 6, 3\)"):
        apr_pair(key, images[0])
    with pytest.raises(
        ValueError, match=r"donors must be \[M, 6, 6, 3\].*\(4, 5, 6, 3\)"
    ):
        apr_pair(key, images, donors=images[:, :5])
    with pytest.raises(ValueError, match="4 images need as many donors, got 3"):
        apr_pair(key, images, donors=images[:3])
    with pytest.raises(
        ValueError, match=r"must be whole numbers \[4\], got int32 \[3\]"
    ):
        apr_pair(key, images, donor_index=np.arange(3))


# -- both, names -----------------------------------------------------------------------


def test_apr_is_single_then_pair(key, photos):
    single_key, pair_key = jax.random.split(key)
    alone = both(key, photos, pair_prob=0.0)
    assert alone.dtype == jnp.float32
    np.testing.assert_allclose(alone * 255, single(single_key, photos), atol=1e-3)
    want = pair(pair_key, alone, prob=1.0)
    np.testing.assert_allclose(both(key, photos, pair_prob=1.0), want, atol=1e-5)


def test_methods_have_names():
    got = {n: (m.single, m.pair, m.heads) for n, m in augment.AUGMENTS.items()}
    single, pair = augment.APR_S, augment.APR_P
    assert (
        got.items()
        >= {
            "standard": (None, None, 1),
            "apr_p": (None, pair, 1),
            "apr_s": (single, None, 1),
            "apr_sp": (single, pair, 1),
            "apr_p_heads": (None, pair, 2),
        }.items()
    )
    assert augment.get_method("apr_sp") is augment.AUGMENTS["apr_sp"]
    with pytest.raises(ValueError, match=r"'smear'.*standard.*apr_p.*apr_s.*apr_sp"):
        augment.get_method("smear")
    assert len(OPS) == 13


def test_methods_join(monkeypatch):
    assert augment.get_method("apr_s+apr_p") == augment.get_method("apr_sp")
    blend, fold, spot, line = (augment.Stage(len) for _ in range(4))
    for name, method in {
        "blend": augment.Method(mix=blend),
        "fold": augment.Method(mix=fold),
        "spot": augment.Method(after=(spot,)),
        "line": augment.Method(after=(line,)),
    }.items():
        monkeypatch.setitem(augment.AUGMENTS, name, method)
    joined = augment.get_method("line+apr_p+blend+spot")
    want = augment.Method(after=(line, spot), mix=blend, pair=augment.APR_P)
    assert joined == want
    with pytest.raises(ValueError, match="joins blend and fold, which exclude"):
        augment.get_method("blend+fold")
    with pytest.raises(ValueError, match=r"'line.spot.line' has line twice"):
        augment.get_method("line+spot+line")
    with pytest.raises(ValueError, match="joins apr_p_heads and augmix, which exc"):
        augment.get_method("augmix+apr_p_heads")
    with pytest.raises(ValueError, match="has two heads, which need APR-P"):
        augment.get_method("blend+apr_p_heads")
    with pytest.raises(ValueError, match=r"unknown method ''"):
        augment.get_method("apr_p+")


# -- crop and flip ---------------------------------------------------------------------


def test_crops_are_windows_of_the_padded_image(key, rng):
    images = rng.integers(0, 256, (60, 7, 9, 3), np.uint8)
    got = np.asarray(crop(key, images, pad=2))
    assert got.dtype == np.uint8
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=128)
    offsets = []
    for i in range(60):
        found = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if (padded[i, y : y + 7, x : x + 9] == got[i]).all()
        ]
        assert len(found) == 1
        offsets += found
    rows, columns = np.transpose(offsets)
    assert set(rows) == set(columns) == set(range(5))
    assert len(set(offsets)) > 15
    np.testing.assert_array_equal(crop(key, images, pad=0), images)


def test_crop_and_flip_depend_on_their_own_key_alone(key, rng):
    images = rng.integers(0, 256, (8, 6, 7, 3), np.uint8)
    per_image = jax.random.split(key, 8)
    for function in (crop, flip):
        whole = np.asarray(function(per_image, images))
        np.testing.assert_array_equal(
            function(per_image[::-1], images[::-1]), whole[::-1]
        )
        single_key = function(key, images)
        np.testing.assert_array_equal(
            function(keys.per_image_keys(key, 8), images), single_key
        )


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_crop_reflects_at_the_edge(key, rng, dtype):
    images = rng.integers(0, 256, (40, 5, 7, 3)).astype(dtype)
    got = np.asarray(crop(key, images, pad=2, edge="reflect"))
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    offsets = set()
    for image, wide in zip(got, padded, strict=True):
        found = [
            (i, j)
            for i in range(5)
            for j in range(5)
            if np.array_equal(image, wide[i : i + 5, j : j + 7])
        ]
        assert found
        offsets |= set(found)
    assert len(offsets) > 15


def test_flip_mirrors_half_of_the_images(key, rng):
    images = rng.random((200, 3, 4, 1), np.float32)
    got = np.asarray(flip(key, images))
    mirrored = (got == images[:, :, ::-1]).all((1, 2, 3))
    kept = (got == images).all((1, 2, 3))
    assert (mirrored ^ kept).all()
    assert 0.38 < mirrored.mean() < 0.62
    np.testing.assert_array_equal(flip(key, images, prob=0.0), images)


def test_crop_and_flip_say_what_they_cannot_take(key):
    with pytest.raises(ValueError, match="pad is -1"):
        augment.random_crop(key, jnp.zeros((1, 4, 4, 3)), pad=-1)
    with pytest.raises(ValueError, match=r"unknown edge 'wrap', choose from"):
        augment.random_crop(key, jnp.zeros((1, 4, 4, 3)), edge="wrap")
    with pytest.raises(ValueError, match=r"N, H, W, C.*\(4, 4, 3\)"):
        augment.random_flip(key, jnp.zeros((4, 4, 3)))
