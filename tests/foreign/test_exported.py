"""Networks written to files: the same logits, and what can't be written."""

import importlib.util
import json
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import target
from apr_jax.cli import export
from apr_jax.errors import ArgumentError, ConfigError, DataError
from apr_jax.evaluate.classifier import Classifier
from apr_jax.foreign import exported, lax_only
from apr_jax.models import layers

SIZE, MEAN, STD = 8, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
ABOUT = {"classes": list("abcde"), "image_size": SIZE, "mean": MEAN, "std": STD}
needs_jax2onnx = pytest.mark.skipif(
    importlib.util.find_spec("jax2onnx") is None
    or importlib.util.find_spec("onnxruntime") is None,
    reason="needs jax2onnx and onnxruntime: the extra onnx",
)


class Net(nn.Module):
    """Pooled twice, with calls inside: what converters stumble over."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (3, 3))(x))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        x = nn.silu(nn.avg_pool(x, (2, 2), (1, 1)))
        return nn.Dense(5)(x.mean((1, 2)))


@pytest.fixture(scope="module")
def network():
    weights = Net().init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))
    return Classifier.from_linen(Net(), weights, **ABOUT)


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (7, SIZE, SIZE, 3), np.uint8)


def by_hand(network, levels):
    """The network's own logits of grey levels, normalised by NumPy."""
    pixels = (levels.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    return np.asarray(Net().apply(network.variables, pixels))


@pytest.mark.parametrize("pixels", exported.PIXELS)
@pytest.mark.parametrize(
    "to", ["stablehlo", pytest.param("onnx", marks=needs_jax2onnx)]
)
def test_the_same_logits_of_any_number(network, images, tmp_path, to, pixels):
    path = tmp_path / "made" / f"net.{to}"
    found = export.export(network, path, exported.Plan(to, pixels))
    assert found.images == 4
    assert found.difference < 1e-5 < found.largest
    read = exported.load(path)
    given = images if pixels == "uint8" else images.astype(np.float32) / 255
    for count in (1, 7):
        wanted = by_hand(network, images[:count])
        np.testing.assert_allclose(read.logits(given[:count]), wanted, atol=1e-5)
    about = read.about
    assert about["classes"] == ABOUT["classes"]
    assert about["normalisation"]["inside"]
    np.testing.assert_allclose(about["normalisation"]["mean"], MEAN)
    assert (about["format"], about["pixels"], about["batch"]) == (to, pixels, "any")
    assert about["checked"]["largest_difference"] == found.difference


def test_gradients_of_what_was_loaded(network, images, tmp_path):
    path = tmp_path / "net.stablehlo"
    export.export(network, path, exported.Plan("stablehlo", gradients=True))
    read = exported.load(path)
    pixels = jnp.asarray(images[:3], jnp.float32) / 255
    own = lambda x: network.predict(network.variables, x)[0]
    slopes = [jax.grad(lambda x, f=f: f(x)[:, 1].sum())(pixels) for f in (own, read[0])]
    np.testing.assert_allclose(slopes[1], slopes[0], atol=1e-6)


def test_it_is_for_other_platforms_too(network, tmp_path):
    path = tmp_path / "net.stablehlo"
    export.export(network, path, exported.Plan("stablehlo", batch=2))
    found = jax.export.deserialize(bytearray(path.read_bytes()))
    assert found.platforms == ("cpu", "cuda", "tpu")
    assert found.in_avals[0].shape == (2, SIZE, SIZE, 3)
    assert exported.load(path).about["batch"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "hlo"}, "'hlo'"),
        ({"to": "onnx", "pixels": "int8"}, "'int8'"),
        ({"to": "onnx", "batch": -1}, "batch is -1"),
        ({"to": "onnx", "gradients": True}, "ONNX has none"),
        ({"to": "stablehlo", "gradients": True, "pixels": "uint8"}, "not grey levels"),
    ],
)
def test_plans_that_can_not_be(options, message):
    with pytest.raises(ArgumentError, match=message):
        exported.Plan(**options)


def test_what_can_not_be_written(network, tmp_path):
    def service(images):
        return np.asarray(images).mean((1, 2)) @ np.eye(3, 5)

    path = tmp_path / "net.stablehlo"
    asked = Classifier.from_function(service, classes=5, image_size=SIZE)
    with pytest.raises(ArgumentError, match="can't be written as stablehlo"):
        export.export(asked, path, exported.Plan("stablehlo"))
    fixed = lambda images: jnp.ones((int(images.shape[0]), 5))
    with pytest.raises(ArgumentError, match="with a fixed number of images"):
        exported.write(
            path, fixed, image_size=8, plan=exported.Plan("stablehlo"), about={}
        )
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_answers_otherwise_never_takes_its_place(tmp_path, monkeypatch):
    path = tmp_path / "net.stablehlo"
    read = exported._read
    monkeypatch.setattr(
        exported, "_read", lambda *a: lambda x: np.asarray(read(*a)(x)) * 1.01
    )
    with pytest.raises(ArgumentError, match="gives other logits, by up to"):
        exported.write(
            path,
            lambda images: images.mean((1, 2)),
            image_size=8,
            plan=exported.Plan("stablehlo"),
            about={},
        )
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    path.with_name("net.stablehlo.json").write_text(json.dumps({"format": "stablehlo"}))
    path.write_bytes(b"none")
    with pytest.raises(DataError, match=r"can't read .*net.stablehlo"):
        exported.load(path)


def test_without_the_packages_it_is_said_what_to_do(network, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(ConfigError, match=r"needs jax2onnx.*apr_jax\[onnx\]"):
        export.export(network, tmp_path / "net.onnx", exported.Plan("onnx"))


def test_the_command(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(
        "def create():\n    return lambda images: images.mean((1, 2))\n"
    )
    spec, out = str(tmp_path / "mine.py"), tmp_path / "net.stablehlo"
    with pytest.raises(ConfigError, match="say --classes and --image_size"):
        export.run(spec, out)
    with pytest.raises(ConfigError, match=r"say --to, one of .*end the name with"):
        export.run(spec, tmp_path / "net", classes="3", image_size=8)
    with pytest.raises(ConfigError, match="are for --model"):
        export.run(tmp_path, out, classes="3")
    export.run(spec, out, classes="3", image_size=8)
    said = capsys.readouterr().err
    assert "net.stablehlo.json" in said
    assert "the same logits of 4 images: the largest difference is " in said
    assert exported.load(out).about["name"] == "mine"


def test_operations_alone(rng):
    """Windows over three axes at most, no calls, the same numbers as Flax's."""
    maps = rng.normal(size=(2, 9, 8, 3)).astype(np.float32)

    def function(x):
        x = jax.jit(nn.relu)(x)
        top = nn.max_pool(x, (3, 2), (2, 1), ((1, 1), (0, 1)))
        return jax.checkpoint(lambda y: nn.avg_pool(y, (2, 2)) + 1)(top)

    shape = jax.ShapeDtypeStruct((*jax.export.symbolic_shape("b"), 9, 8, 3), np.float32)
    made = lax_only.rewritten(function, shape)
    program = jax.make_jaxpr(made)(shape)
    names = [equation.primitive.name for equation in program.eqns]
    assert not {"jit", "pjit", "custom_jvp_call", "checkpoint"} & set(names)
    assert names.count("reduce_window_max") == names.count("reduce_window_sum") == 1
    for equation in program.eqns:
        if equation.primitive.name.startswith("reduce_window"):
            assert equation.invars[0].aval.ndim <= 3
    fixed = lax_only.rewritten(function, jax.ShapeDtypeStruct(maps.shape, np.float32))
    np.testing.assert_allclose(fixed(maps), function(maps), atol=1e-6)


def test_no_platform_is_left_to_choose():
    """It is traced for an accelerator: without the paths of this machine's CPU."""
    rows = jnp.arange(2.0, dtype=jnp.float32)

    def function(x):
        return target.by_platform(x, cpu=lambda x: x + 1, default=lambda x: x + rows)

    made = lax_only.rewritten(function, jax.ShapeDtypeStruct((2,), np.float32))
    np.testing.assert_array_equal(made(np.zeros(2, np.float32)), [0, 1])
    program = str(jax.make_jaxpr(made)(np.zeros(2, np.float32)))
    assert "cond" not in program
    assert "platform_index" not in program


@needs_jax2onnx
def test_groups_of_channels_as_onnx(tmp_path):
    """A CPU computes them by kernels of blocks, which are products of many axes."""

    class Grouped(layers.Part):
        @nn.compact
        def __call__(self, x):
            x = self.convolve("in", x, 8)
            return self.convolve("out", x, 8, groups=4).mean((1, 2))

    weights = Grouped().init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))
    found = exported.write(
        tmp_path / "net.onnx",
        lambda images: Grouped().apply(weights, images),
        image_size=SIZE,
        plan=exported.Plan("onnx"),
        about={},
    )
    assert found.difference < 1e-5
