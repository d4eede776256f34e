"""Networks written to files: the same logits, and what can't be written."""

import importlib.util
import json
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import models, presets, target
from apr_jax.errors import ArgumentError, ConfigError, DataError
from apr_jax.evaluate import export
from apr_jax.evaluate.classifier import Classifier
from apr_jax.foreign import exported, formats, lax_only
from apr_jax.models import layers, torch_weights
from tests.models.test_state_dicts import safetensors
from tests.models.test_torch_weights import plain_tensors

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
    image = np.zeros((1, SIZE, SIZE, 3), np.float32)
    weights = jax.jit(Net().init)(jax.random.key(0), image)
    return Classifier.from_linen(Net(), weights, **ABOUT)


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (7, SIZE, SIZE, 3), np.uint8)


def by_hand(network, levels):
    """The network's own logits of grey levels, normalised by NumPy."""
    pixels = (levels.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    return np.asarray(jax.jit(Net().apply)(network.variables, pixels))


@pytest.mark.parametrize("pixels", formats.PIXELS)
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
    pixels = np.float32(images[:3]) / 255
    own = lambda x: network.predict(network.variables, x)[0]
    slope = lambda f: jax.jit(jax.grad(lambda x: f(x)[:, 1].sum()))
    slopes = [slope(f)(pixels) for f in (own, read[0])]
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
    for batch in (0, 2):
        with pytest.raises(
            ArgumentError, match=r"isn't JAX .*Python \(pure_callback\)"
        ):
            export.export(asked, path, exported.Plan("stablehlo", batch=batch))
    with pytest.raises(ArgumentError, match=r"function has no gradient .*no --grad"):
        export.export(asked, path, exported.Plan("stablehlo", gradients=True))
    endless = lambda images: images.mean((1, 2)) / 0
    with pytest.raises(ArgumentError, match=r"12 of 12 logits .* are not finite"):
        exported.write(
            path, endless, image_size=8, plan=exported.Plan("stablehlo"), about={}
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "to", ["stablehlo", pytest.param("onnx", marks=needs_jax2onnx)]
)
def test_a_number_of_images_that_code_reads_as_an_integer(images, tmp_path, to):
    """It would be fixed in the trace; each image is mapped over instead."""
    weights = np.random.default_rng(0).normal(size=(SIZE * SIZE * 3, 5))

    @jax.jit
    def reading(images):
        return images.reshape(int(images.shape[0]), -1) @ weights.astype(np.float32)

    path = tmp_path / f"net.{to}"
    exported.write(path, reading, image_size=SIZE, plan=exported.Plan(to), about={})
    pixels = images.astype(np.float32) / 255
    for count in (1, 7):
        found = exported.load(path).logits(pixels[:count])
        wanted = pixels[:count].reshape(count, -1) @ weights
        np.testing.assert_allclose(found, wanted, atol=1e-4)


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
    for options, message in (
        ({"image_size": 8}, "--image_size is for --model"),
        ({"classes": 3}, "is a run and knows it: --classes"),
    ):
        with pytest.raises(ConfigError, match=message):
            export.run(tmp_path, out, **options)
    with pytest.raises(ConfigError, match=r"net\.pth is not there; give a run's"):
        export.run(tmp_path / "net.pth", out)
    with pytest.raises(ConfigError, match="weights is for timm:NAME"):
        export.run(spec, out, weights="net.pth")
    export.run(spec, out, classes=3, image_size=8)
    said = capsys.readouterr().err
    assert "net.stablehlo.json" in said
    assert "the same logits of 4 images: the largest difference is " in said
    assert exported.load(out).about["name"] == "mine"


def test_a_file_that_makes_a_classifier(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from apr_jax import Classifier\n"
        "def create():\n"
        "    return Classifier.from_function(lambda images: images.mean((1, 2)),\n"
        "        classes=3, image_size=8, mean=(0.5,), std=(0.25,))\n"
    )
    spec, out = str(tmp_path / "mine.py"), tmp_path / "net.stablehlo"
    for options, message in (
        ({"classes": 4}, "--classes is 4; .* tells 3 apart"),
        ({"classes": ("a", "b")}, "classes names 2"),
        ({"image_size": 8}, "knows its own"),
        ({"values": {}}, "--config is for a file of weights"),
    ):
        with pytest.raises(ConfigError, match=message):
            export.run(spec, out, **options)
    export.run(spec, out, classes=("r", "g", "b"))
    read = exported.load(out)
    assert read.about["classes"] == ["r", "g", "b"]
    blue = np.zeros((1, 8, 8, 3), np.float32) + np.float32([0, 0.5, 1])
    np.testing.assert_allclose(read.logits(blue), [[-2, 0, 2]], atol=1e-6)


def test_a_file_of_weights(tmp_path, rng):
    """Of a network here: no data are needed where the classes are said."""
    tensors = {
        name: rng.uniform(0.1, 0.5, array.shape).astype(np.float32)
        for name, array in plain_tensors("wrn_10_1", 3).items()
    }
    mu, sigma = np.float32([0.5, 0.4, 0.3]), np.float32([0.2, 0.25, 0.3])
    path, out = tmp_path / "net.safetensors", tmp_path / "net.stablehlo"
    path.write_bytes(safetensors(tensors | {"mu": mu, "sigma": sigma}))
    with pytest.raises(ConfigError, match="--config must name its network"):
        export.run(path, out)
    config = presets.get("quickstart")
    config.model.name, config.data.image_size = "wrn_10_1", SIZE
    with pytest.raises(ConfigError, match=r"has 3 outputs; .* 4 classes"):
        export.run(path, out, values=config, classes=4)
    export.run(path, out, values=config, classes=3)
    read = exported.load(out)
    np.testing.assert_allclose(read.about["normalisation"]["mean"], mu, rtol=1e-6)
    assert read.about["classes"] == ["0", "1", "2"]
    pixels = rng.random((2, SIZE, SIZE, 3), np.float32)
    model = models.build("wrn_10_1", num_classes=3)
    variables = torch_weights.from_torch("wrn_10_1", tensors)
    by_hand = jax.jit(lambda v, x: model.apply(v, x, train=False))
    wanted = by_hand(variables, (pixels - mu) / sigma)
    np.testing.assert_allclose(read.logits(pixels), wanted, rtol=1e-4)


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
