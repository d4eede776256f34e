"""Networks: golden logits and counts, statistics, types and messages."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import models
from apr_jax.models import flops, layers, torch_weights
from apr_jax.models.layers import BatchNorm

GOLDEN = [
    "wrn_40_2",
    "resnet18",
    "preact_resnet18",
    "allconv",
    "resnext29_4x32",
    pytest.param("densenet_40_12", marks=pytest.mark.slow),
    pytest.param("resnext29_32x4", marks=pytest.mark.slow),
    pytest.param("densenet_bc_100_12", marks=pytest.mark.slow),
]

# Those whose layers another network has, too.
LIKE_ANOTHER = {
    *("densenet_bc_100_12", "preact_resnet18_activated", "preact_resnet18_bare"),
    *("preact_resnet50", "preact_resnet50_bare", "resnet18_128", "resnet34_imagenet"),
    *("resnet50_blur", "resnext29_32x4"),
}


def golden_state_dict(golden, name):
    """The weights that the reference logits were made with, drawn anew."""
    tensors = {}
    for i, entry in enumerate(golden[f"model_{name}_state_dict"]):
        key, shape_text = str(entry).split("|")
        shape = tuple(int(s) for s in re.findall(r"\d+", shape_text))
        rng = np.random.default_rng([1, i])
        scale = key.endswith("weight") and len(shape) == 1
        if key.endswith("running_var") or scale:
            value = rng.uniform(0.5, 1.5, shape)
        elif key.endswith(("running_mean", "bias")):
            value = 0.1 * rng.standard_normal(shape)
        else:
            value = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        tensors[key] = value.astype(np.float32)
    return tensors


@pytest.mark.parametrize("name", GOLDEN)
def test_logits_and_counts_are_the_references(shared, name):
    golden = np.load(shared / "golden" / "reference.npz")
    variables = torch_weights.from_torch(name, golden_state_dict(golden, name))
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert count == int(golden[f"model_{name}_params"])
    model = models.build(name, num_classes=10)
    images = (golden["model_images"] - 0.5) / 0.25
    logits, features = jax.jit(
        lambda v, x: model.apply(v, x, train=False, capture=True)
    )(variables, images)
    expected = golden[f"model_{name}_logits"]
    np.testing.assert_allclose(
        logits / expected.std(), expected / expected.std(), atol=1e-4
    )
    assert features.ndim == 2
    assert features.shape[0] == 4


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[pytest.mark.slow] if n in LIKE_ANOTHER else [])
        for n in models.MODELS
    ],
)
def test_shapes_types_and_features(name):
    model = models.build(name, num_classes=7, dtype=jnp.bfloat16)
    size = model.made_for[0]
    image = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)

    def run(key, x):
        outputs, variables = model.init_with_output(key, x, train=False, capture=True)
        trained, updates = model.apply(
            variables,
            x,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        return variables, outputs, trained, updates

    variables, (logits, features), trained, updates = jax.eval_shape(
        run, jax.random.key(0), image
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert logits.shape == trained.shape == (2, 7)
    assert logits.dtype == trained.dtype == jnp.float32
    assert features.shape[0] == 2
    assert jax.tree.structure(updates["batch_stats"]) == jax.tree.structure(
        variables["batch_stats"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("size", [8, 32])
def test_bfloat16_is_near_float32(key, size):
    images = jax.random.normal(key, (20, size, size, 3))
    wide, narrow = (
        models.build("wrn_10_1", num_classes=5, dtype=d)
        for d in (jnp.float32, jnp.bfloat16)
    )
    variables = jax.jit(lambda k: wide.init(k, images, train=False))(key)
    one = jax.jit(lambda v, x: wide.apply(v, x, train=False))(variables, images)
    two = jax.jit(lambda v, x: narrow.apply(v, x, train=False))(variables, images)
    assert two.dtype == jnp.float32
    assert 0 < jnp.abs(one - two).max() < 0.1 * jnp.abs(one).max()


class End(nn.Module):
    """The last block of a network and what follows it."""

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        x = x.astype(self.dtype)
        norm = lambda x: nn.relu(BatchNorm(dtype=self.dtype)(x, train=False))
        x = x + layers.conv(64, dtype=self.dtype)(norm(x))
        return layers.classify(norm(x), num_classes=5, capture=False, name="fc")


def test_the_last_mean_in_bfloat16(key):
    """JAX 0.12 on a CPU has given NaN for some of its values."""
    maps = jax.random.normal(key, (20, 8, 8, 64))
    variables = jax.jit(End(jnp.float32).init)(key, maps)
    wide, narrow = (
        jax.jit(End(dtype).apply)(variables, maps)
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    assert jnp.abs(wide - narrow).max() < 0.05 * jnp.abs(wide).max()


@pytest.mark.parametrize("shape", [(6, 5, 4, 3), (1, 3, 3, 2)])
def test_batch_norm_is_pytorchs(rng, shape, torch):
    theirs = torch.nn.BatchNorm2d(shape[-1])
    ours = BatchNorm()
    images = (rng.normal(size=(3, *shape)) * 3 + 10).astype(np.float32)
    variables = ours.init(jax.random.key(0), images[0], train=False)
    step = jax.jit(lambda v, x: ours.apply(v, x, train=True, mutable=["batch_stats"]))
    for batch in images:
        expected = theirs(torch.tensor(batch.transpose(0, 3, 1, 2)))
        got, updates = step(variables, batch)
        variables = {**variables, **updates}
        np.testing.assert_allclose(
            got, expected.detach().numpy().transpose(0, 2, 3, 1), atol=2e-4
        )
    stats = variables["batch_stats"]
    np.testing.assert_allclose(stats["mean"], theirs.running_mean.numpy(), rtol=1e-5)
    np.testing.assert_allclose(stats["var"], theirs.running_var.numpy(), rtol=1e-4)


def test_multiply_adds():
    # Counted by hand for WRN-10-1 at 8 px: stem, three blocks, shortcuts, classifier.
    stem = 64 * 27 * 16
    first = 2 * 64 * 9 * 16 * 16
    second = 16 * 32 * (9 * 16 + 9 * 32 + 16)
    third = 4 * 64 * (9 * 32 + 9 * 64 + 32)
    by_hand = stem + first + second + third + 64 * 10
    assert flops.multiply_adds("wrn_10_1", num_classes=10, size=8) == by_hand
    # The figure that torchvision gives for its ResNet-50.
    count = flops.multiply_adds("resnet50", num_classes=1000, size=224)
    assert count / 1e9 == pytest.approx(4.089, abs=1e-3)
    assert flops.parameters("resnet50", num_classes=1000, size=224) == 25_557_032


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19", r"unknown model 'resnet19'; choose one of: .*allconv, .*wrn_D_K"),
        ("wrn_41_2", r"model 'wrn_41_2': the depth must be 6n \+ 4"),
        ("wrn_4_2", r"the depth must be 6n \+ 4"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(ValueError, match=message):
        models.build(name, num_classes=10)


def test_bad_classes_type_and_size():
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        models.build("wrn_10_1", num_classes=0)
    with pytest.raises(ValueError, match="dtype must be a floating type"):
        models.build("wrn_10_1", num_classes=2, dtype=jnp.int32)
    smallest = models.minimum_size("allconv")
    with pytest.raises(ValueError, match=f"must be at least {smallest} pixels"):
        models.check_image_size("allconv", smallest - 1, 64)
    models.check_image_size("allconv", smallest, smallest)


def test_train_must_be_said(key):
    model = models.build("wrn_10_1", num_classes=3)
    with pytest.raises(TypeError, match="train"):
        model.init(key, jnp.zeros((1, 8, 8, 3)))


@pytest.mark.parametrize("size", [(8, 9), (5, 4)])
def test_blur_pool_is_a_strided_binomial_filter(rng, size):
    from scipy import ndimage

    x = rng.normal(size=(2, *size, 3)).astype(np.float32)
    kernel = np.array([1, 2, 1]) / 4
    want = x
    for axis in (1, 2):
        want = ndimage.convolve1d(want, kernel, axis=axis, mode="mirror")
    got = jax.jit(layers.blur_pool)(x)
    np.testing.assert_allclose(got, want[:, ::2, ::2], atol=1e-6)


@pytest.mark.parametrize("side", [2, 3])
def test_pooling_by_place(rng, side):
    x = rng.integers(0, 4, (2, 7, 8, 3)).astype(np.float32)  # with equal maxima
    got = jax.jit(layers.max_pool_by_place, static_argnums=1)(x, side)
    plain = jax.jit(layers.max_pool, static_argnums=1)(x, side)
    np.testing.assert_array_equal(got, plain)
    weight = rng.normal(size=got.shape).astype(np.float32)

    @jax.jit
    @jax.grad
    def slope(x):
        return (layers.max_pool_by_place(x, side) * weight).sum()

    want = np.zeros_like(x)
    for n, i, j, c in np.ndindex(*got.shape):
        block = x[n, i * side : (i + 1) * side, j * side : (j + 1) * side, c]
        row, column = np.unravel_index(block.argmax(), block.shape)
        want[n, i * side + row, j * side + column, c] = weight[n, i, j, c]
    np.testing.assert_array_equal(slope(x), want)


def test_max_blur_pool_has_the_same_weights_and_shifts_less():
    plain, blurred = (
        models.build(name, num_classes=10) for name in ("resnet50", "resnet50_blur")
    )
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    shapes = [
        jax.eval_shape(lambda x, m=m: m.init(jax.random.key(0), x, train=False), image)
        for m in (plain, blurred)
    ]
    assert shapes[0] == shapes[1]
    # A pooled wave at the highest frequency: only blurring removes its alias.
    wave = np.tile(np.array([0.0, 1.0], np.float32), 16)[None, None, :, None]
    wave = np.broadcast_to(wave, (1, 32, 32, 1))
    shifted = np.roll(wave, 1, axis=2)
    strided = np.abs(wave[:, ::2, ::2] - shifted[:, ::2, ::2]).max()
    pool = jax.jit(layers.blur_pool)
    inner = np.asarray(pool(wave)) - pool(shifted)
    assert strided == 1
    assert np.abs(inner[:, :, 1:-1]).max() < 1e-6


def test_wide_resnets_without_batch_norm_and_with_dropout(key):
    images = np.float32(np.random.default_rng(0).normal(size=(2, 8, 8, 3)))
    plain, dropping = (
        models.build("wrn_10_1", num_classes=3, norm="none", dropout=rate)
        for rate in (0.0, 0.5)
    )
    variables = jax.jit(lambda k: plain.init(k, images, train=False))(key)
    assert set(variables) == {"params"}
    names = jax.tree_util.tree_leaves_with_path(variables)
    assert not [path for path, _ in names if "bn" in jax.tree_util.keystr(path)]
    # A block by hand: without statistics an image doesn't depend on its neighbours.
    apply = jax.jit(plain.apply, static_argnames="train")
    both = apply(variables, images, train=True)
    other = np.stack([images[0], np.full_like(images[0], 0.5)])
    one = np.asarray(apply(variables, other, train=True))
    np.testing.assert_allclose(one[0], np.asarray(both)[0], atol=1e-5)
    drop = jax.jit(dropping.apply, static_argnames="train")
    quiet = drop(variables, images, train=False)
    np.testing.assert_allclose(quiet, both, atol=1e-5)
    noisy = [
        drop(variables, images, train=True, rngs={"dropout": k})
        for k in jax.random.split(key, 2)
    ]
    assert np.abs(np.subtract(*noisy)).max() > 1e-3
    with pytest.raises(ValueError, match=r"norm 'none' are for wrn_D_K only; 'resnet"):
        models.build("resnet18", num_classes=3, norm="none")


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"norm": "nonee"}, "norm is 'nonee'|unknown norm 'nonee'"),
        ({"dropout": -0.5}, "dropout is -0.5"),
        ({"dropout": float("nan")}, "dropout is nan"),
        ({"dropout": 1.0}, r"dropout is 1\.0"),
    ],
)
def test_variants_that_are_none_are_refused(given, match):
    with pytest.raises(ValueError, match=match):
        models.build("wrn_10_1", num_classes=10, **given)
