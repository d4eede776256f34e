"""The CPU's convolution against ``jax.lax``: values, gradients, layouts, fallbacks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from apr_jax import models, target, tuning
from apr_jax.models import convolution
from tests import toy

LAYOUT = ("NHWC", "HWIO", "NHWC")
LAX = lax.conv_general_dilated


@pytest.fixture(autouse=True)
def on_cpu():
    """The path under test is the CPU's; it must be right on any platform."""
    with target.for_platform("cpu"):
        yield


def inputs(rng, *, images=6, size=(8, 8), kernel=3, channels=(8, 16), groups=1):
    x = rng.normal(size=(images, *size, channels[0]))
    w = rng.normal(size=(kernel, kernel, channels[0] // groups, channels[1]))
    return jnp.asarray(x, jnp.float32), jnp.asarray(w, jnp.float32)


def bind(function, stride=1, pads=((1, 1), (1, 1)), groups=1):
    return functools.partial(
        function,
        window_strides=(stride, stride),
        padding=pads,
        dimension_numbers=LAYOUT,
        feature_group_count=groups,
    )


def value_and_gradients(function, x, w):
    """Output, and both gradients of a sum weighted differently everywhere."""

    @jax.jit
    def run(x, w):
        y, back = jax.vjp(function, x, w)
        weights = jnp.sin(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)
        return y, *back(weights.astype(y.dtype))

    return run(x, w)


def assert_same(got, expected, tolerance=1e-5):
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == other.dtype
        scale = np.abs(np.asarray(other, np.float32)).max()
        np.testing.assert_allclose(
            np.asarray(one, np.float32) / scale,
            np.asarray(other, np.float32) / scale,
            atol=tolerance,
        )


# Others of the kinds that are there without them.
MORE = [
    (3, 1, (7, 10), ((0, 0), (0, 0)), 1),
    (3, 2, (8, 8), ((1, 1), (1, 1)), 1),
    (1, 1, (5, 6), ((1, 1), (1, 1)), 1),
]
forms = pytest.mark.parametrize(
    ("kernel", "stride", "size", "pads", "groups"),
    [
        (3, 1, (8, 8), ((1, 1), (1, 1)), 1),
        (3, 2, (9, 7), ((1, 1), (1, 1)), 1),
        (3, 3, (11, 8), ((2, 0), (0, 1)), 1),
        (7, 2, (13, 12), ((3, 3), (3, 3)), 1),
        (1, 1, (5, 6), ((0, 0), (0, 0)), 1),
        (1, 2, (7, 8), ((0, 0), (0, 0)), 1),
        (3, 1, (6, 5), ((1, 1), (1, 1)), 4),
        (3, 2, (8, 7), ((1, 1), (1, 1)), 8),
        *(pytest.param(*form, marks=pytest.mark.slow) for form in MORE),
    ],
)


@forms
@pytest.mark.parametrize("cache", [1, 2**30])
def test_gradients_are_those_of_lax(
    rng, monkeypatch, kernel, stride, size, pads, groups, cache
):
    # A cache of one byte sums image by image, a huge one takes all at once.
    monkeypatch.setattr(convolution, "_CACHE_BYTES", cache)
    x, w = inputs(rng, size=size, kernel=kernel, groups=groups)
    ours = bind(convolution.conv_general_dilated, stride, pads, groups)
    assert_same(
        value_and_gradients(ours, x, w),
        value_and_gradients(bind(LAX, stride, pads, groups), x, w),
    )


@forms
@pytest.mark.parametrize(
    ("wide", "channels"),
    [
        (128, (8, 16)),
        pytest.param(1, (8, 24), marks=pytest.mark.slow),
        pytest.param(1, (16, 8), marks=pytest.mark.slow),
    ],
)
def test_gradients_by_products_are_those_of_lax(
    rng, monkeypatch, kernel, stride, size, pads, groups, wide, channels
):
    """In the form that oneDNN takes well, whoever multiplies."""
    monkeypatch.setattr(convolution, "_by_onednn", lambda _: True)
    monkeypatch.setattr(convolution, "_WIDE", wide)
    x, w = inputs(rng, size=size, kernel=kernel, channels=channels, groups=groups)
    ours = bind(convolution.conv_general_dilated, stride, pads, groups)
    exact = value_and_gradients(bind(LAX, stride, pads, groups), x, w)
    assert_same(value_and_gradients(ours, x, w), exact)
    got = value_and_gradients(ours, *(a.astype(jnp.bfloat16) for a in (x, w)))
    assert_same([a.astype(jnp.float32) for a in got], exact, tolerance=1e-2)


BY_ONEDNN = """
import os
from apr_jax import tuning
os.environ["XLA_FLAGS"] = tuning.onednn_flags()
import jax, jax.numpy as jnp, numpy as np
from apr_jax.models import convolution
from tests import toy
def gradients(x, w, dtype, convolve):
    def loss(x, w):
        y = convolve(x, w, (1, 1), ((1, 1),) * 2, None, None, ("NHWC", "HWIO", "NHWC"))
        return jnp.sum(y * jnp.cos(jnp.arange(y.size)).reshape(y.shape).astype(y.dtype))
    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(x.astype(dtype), w.astype(dtype))
    compiled = compiled.compile()
    found = compiled(x.astype(dtype), w.astype(dtype))
    return compiled.as_text(), [np.asarray(a, np.float32) for a in found]
for channels in ((128, 128), (16, 64)):
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (64, 8, 8, channels[0])).astype(jnp.bfloat16)
    w = jax.random.normal(keys[1], (3, 3, *channels)).astype(jnp.bfloat16)
    _, exact = gradients(x, w, jnp.float32, jax.lax.conv_general_dilated)
    for dtype, near in ((jnp.bfloat16, 8e-3), (jnp.float32, 1e-5)):
        text, got = gradients(x, w, dtype, convolution.conv_general_dilated)
        assert "__onednn$matmul" in text
        assert dtype == jnp.float32 or "__onednn$convolution" in text
        for one, other in zip(got, exact):
            np.testing.assert_allclose(one, other, atol=near * abs(other).max())
"""


@pytest.mark.slow
def test_onednn_agrees_with_float32(monkeypatch):
    monkeypatch.delenv("APR_JAX_ONEDNN")  # that all tests start with
    monkeypatch.delenv("XLA_FLAGS")
    if not tuning.onednn_flags():
        pytest.skip("needs a processor with bfloat16, and a JAX that gains from it")
    program = toy.start("-c", BY_ONEDNN)
    said, _ = program.communicate(timeout=120)
    assert program.returncode == 0, said


def test_groups_wider_and_narrower_than_a_block(rng):
    for channels, groups in (((80, 80), 2), ((96, 48), 24)):
        x, w = inputs(rng, size=(4, 4), images=2, channels=channels, groups=groups)
        ours = bind(convolution.conv_general_dilated, groups=groups)
        assert_same(
            value_and_gradients(ours, x, w),
            value_and_gradients(bind(LAX, groups=groups), x, w),
        )


def test_bfloat16_sums_in_float32(rng, monkeypatch):
    monkeypatch.setattr(convolution, "_CACHE_BYTES", 1)
    x, w = inputs(rng, images=64)
    exact = value_and_gradients(bind(LAX), x, w)
    narrow = [a.astype(jnp.bfloat16) for a in (x, w)]
    got = value_and_gradients(bind(convolution.conv_general_dilated), *narrow)
    assert {a.dtype for a in got} == {jnp.dtype("bfloat16")}
    assert_same([a.astype(jnp.float32) for a in got], exact, tolerance=6e-3)


def test_images_per_group_divide_the_batch():
    def per_group(count, side):
        image = jax.ShapeDtypeStruct((count, side, side, 64), jnp.float32)
        return convolution._images_per_group(image, image)

    assert per_group(256, 16) == 16
    assert per_group(250, 16) == 10
    assert per_group(7, 16) == 7
    assert per_group(8, 224) == 1


def equations(jaxpr):
    """All equations of a jaxpr, with those of the jaxprs inside them."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for part in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(part, "jaxpr", part)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def gradient_jaxpr(model, argnums):
    images = jax.ShapeDtypeStruct((64, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(
        lambda x: model.init(jax.random.key(0), x, train=False), images
    )

    def loss(variables, images):
        return model.apply(variables, images, train=False).sum()

    return jax.make_jaxpr(jax.grad(loss, argnums))(variables, images)


def test_networks_convolve_in_the_fast_layout_only():
    # In a loop XLA's CPU backend is some 6 times slower with any other, and groups
    # have no fast kernel anywhere.
    fast = lax.conv_dimension_numbers((1, 1, 1, 1), (1, 1, 1, 1), LAYOUT)
    model = models.build("resnext29_4x32", num_classes=10)
    convolutions = [
        e.params
        for e in equations(gradient_jaxpr(model, (0, 1)).jaxpr)
        if e.primitive.name == "conv_general_dilated"
    ]
    assert len(convolutions) > 100
    assert {p["dimension_numbers"] for p in convolutions} == {fast}
    assert {p["feature_group_count"] for p in convolutions} == {1}


def test_gradient_of_the_inputs_alone_leaves_the_kernels_out(rng):
    x, w = inputs(rng, images=64, size=(16, 16), channels=(32, 32))

    def loss(x, w):
        return (bind(convolution.conv_general_dilated)(x, w) ** 2).sum()

    def compiled(argnums):
        return jax.jit(jax.grad(loss, argnums)).lower(x, w).compile().as_text()

    assert " while(" in compiled((0, 1))
    assert " while(" not in compiled(0)


def test_in_a_loop_and_mapped(rng):
    x, w = inputs(rng)
    ours, theirs = bind(convolution.conv_general_dilated), bind(LAX)

    def descend(function, x, w):
        def body(w, _):
            grad = jax.grad(lambda w: jnp.square(function(x, w)).mean())(w)
            return w - 0.1 * grad, None

        return lax.scan(body, w, None, length=3)[0]

    @functools.partial(jax.jit, static_argnums=0)
    def each(function, x, w):
        return jax.vmap(lambda x: descend(function, x[None], w))(x)

    assert_same([each(ours, x, w)], [each(theirs, x, w)])


@pytest.mark.parametrize(
    "change",
    [
        {"padding": "SAME"},
        {"rhs_dilation": (2, 2)},
        {"lhs_dilation": (2, 1)},
        {"dimension_numbers": ("NWHC", "HWIO", "NHWC")},
        {"batch_group_count": 2},
        {"precision": lax.Precision.HIGHEST},
    ],
)
def test_other_forms_go_to_lax(rng, change):
    x, w = inputs(rng)
    options = {
        "window_strides": (1, 1),
        "padding": ((1, 1), (1, 1)),
        "dimension_numbers": LAYOUT,
        **change,
    }
    ours = functools.partial(convolution.conv_general_dilated, **options)
    assert "custom_vjp" not in str(jax.make_jaxpr(ours)(x, w))
    expected = jax.jit(functools.partial(LAX, **options))(x, w)
    np.testing.assert_array_equal(jax.jit(ours)(x, w), expected)


def test_an_accelerator_has_its_own_convolution(rng):
    x, w = inputs(rng)

    def text(function):
        return str(jax.make_jaxpr(bind(function))(x, w))

    assert "custom_vjp" in text(convolution.conv_general_dilated)
    with target.for_platform("gpu"):
        assert text(convolution.conv_general_dilated) == text(LAX)
