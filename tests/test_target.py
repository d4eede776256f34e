"""The platform of a program: chosen by what it is for, whatever its host is."""

import collections
import functools
import pathlib
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import corruptions, models, spectral, target
from apr_jax.attacks import core
from apr_jax.augment.apr_single import apr_single
from apr_jax.errors import ArgumentError
from apr_jax.models.convolution import conv_general_dilated

ROOT = pathlib.Path(__file__).resolve().parents[1]
# A choice that is made stays as a branch of one alternative, and what another would
# have kept for its gradient as zeros; compilers dissolve both.
CHOOSING = {"broadcast_in_dim", "case", "constant", "return"}
LOWERED = {"cpu": "cpu", "gpu": "cuda", "tpu": "tpu"}


def floats(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def sloped(convolve, x, w, groups):
    """The gradients of a convolution."""
    value = lambda x, w: convolve(
        x,
        w,
        (1, 1),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    return jax.grad(lambda x, w: jnp.sum(value(x, w) ** 2), (0, 1))(x, w)


def classify(maps):
    """The last layers of a network, in bfloat16."""
    module = models.layers.classify
    knobs = {"num_classes": 2, "capture": False, "name": "last"}

    class Net(nn.Module):
        @nn.compact
        def __call__(self, maps):
            return module(maps, **knobs)

    own = Net()
    return own.init_with_output(jax.random.key(0), maps.astype(jnp.bfloat16))[0]


# Large enough that a CPU would take them in chunks.
LARGE = floats(6, 224, 224, 3)
PROGRAMS = {
    "recombine": (spectral.recombine, (LARGE, LARGE)),
    "recombine_within": (
        spectral.recombine_within,
        (floats(4, 8, 8, 3), jax.ShapeDtypeStruct((4,), jnp.int32)),
    ),
    "apr_single": (
        apr_single,
        (
            jax.eval_shape(lambda: jax.random.key(0)),
            jax.ShapeDtypeStruct((4, 8, 8, 3), jnp.uint8),
        ),
    ),
    "convolution": (
        functools.partial(sloped, conv_general_dilated, groups=1),
        (floats(4, 8, 8, 8), floats(3, 3, 8, 8)),
    ),
    "grouped convolution": (
        functools.partial(sloped, conv_general_dilated, groups=4),
        (floats(4, 8, 8, 8), floats(3, 3, 2, 8)),
    ),
    "classify": (classify, (floats(2, 4, 4, 8),)),
}


def operations(function, shapes, platform):
    """How often the program for a platform does what."""
    # Not the function itself, whose trace would be taken from the cache.
    fresh = lambda *args: function(*args)
    found = jax.export.export(jax.jit(fresh), platforms=[LOWERED[platform]])(*shapes)
    names = re.findall(r"stablehlo\.(\w+)", found.mlir_module())
    return collections.Counter(name for name in names if name not in CHOOSING)


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_a_cpu_exports_is_what_the_target_would_trace(name):
    function, shapes = PROGRAMS[name]
    found = {}
    for platform in ("cpu", "tpu"):
        found[platform] = operations(function, shapes, platform)
        with target.for_platform(platform):
            assert found[platform] == operations(function, shapes, platform), platform
    assert found["cpu"] != found["tpu"]
    assert not found["tpu"]["fft"]
    assert not found["tpu"]["while"]


@pytest.mark.parametrize(
    "name",
    [
        *("recombine_within", "grouped convolution"),
        pytest.param("apr_single", marks=pytest.mark.slow),
    ],
)
def test_the_result_on_this_host_is_that_of_its_platform(name, key, rng):
    function, shapes = PROGRAMS[name]
    args = [
        key
        if jnp.issubdtype(s.dtype, jax.dtypes.prng_key)
        else jnp.asarray(255 * rng.random(s.shape), s.dtype)
        for s in shapes
    ]
    by_itself = jax.jit(lambda *args: function(*args))(*args)
    with target.for_platform(jax.default_backend()):
        told = jax.jit(lambda *args: function(*args))(*args)
    jax.tree.map(np.testing.assert_array_equal, by_itself, told)


def test_a_function_for_each_platform():
    seen = []

    def marked(name, number):
        def run(x):
            seen.append(name)
            return x + number

        return run

    def run(x):
        return target.by_platform(
            x, cpu=marked("cpu", 1), tpu=marked("tpu", 2), default=marked("other", 3)
        )

    with target.for_platform("tpu"):
        assert run(0) == 2
    with target.for_platform("gpu"):
        assert run(0) == 3
    assert seen == ["tpu", "other"]
    jax.make_jaxpr(run)(0)
    assert sorted(seen[2:]) == ["cpu", "other", "tpu"]


def test_within_a_function_of_one_platform_no_other_is_traced():
    seen = []

    def inner(x):
        note = lambda name: lambda x: (seen.append((outer[-1], name)), x)[1]
        return target.by_platform(x, tpu=note("tpu"), default=note("default"))

    outer = []

    def named(name):
        return lambda x: (outer.append(name), inner(x))[1]

    run = lambda x: target.by_platform(x, cpu=named("cpu"), default=named("others"))
    jax.make_jaxpr(run)(0)
    assert sorted(seen) == [
        ("cpu", "default"),
        ("others", "default"),
        ("others", "tpu"),
    ]


def test_sizes_follow_the_target():
    assert target.target_platform() == jax.default_backend()
    sizes = {}
    for platform in target.PLATFORMS:
        with target.for_platform(platform):
            assert target.target_platform() == platform
            engine = core.Engine(lambda x: x, 64)
            sizes[platform] = (engine.sizes, corruptions.default_chunk(32))
    assert sizes["gpu"] == sizes["tpu"] != sizes["cpu"]


def test_jit_traces_anew_for_another_target():
    answer = jax.jit(
        lambda x: target.by_platform(x, cpu=lambda x: x + 1, default=lambda x: x - 1)
    )
    with target.for_platform("cpu"):
        assert answer(0) == 1
    with target.for_platform("tpu"):
        assert answer(0) == -1


def test_an_unknown_platform():
    with pytest.raises(ArgumentError, match="platform is 'cuda'; choose from"):
        target.for_platform("cuda")


def test_nothing_else_asks_for_the_host():
    for path in sorted((ROOT / "apr_jax").rglob("*.py")):
        if path.name != "target.py":
            assert "default_backend(" not in path.read_text(), path
