"""Networks of other libraries: their own answers, and what is refused."""

import dataclasses
import sys
import types
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from apr_jax import parallel
from apr_jax.config import Adversarial, Ood
from apr_jax.errors import ConfigError
from apr_jax.evaluate import adversarial, classifier, elsewhere, ood
from apr_jax.evaluate.classifier import Classifier
from apr_jax.evaluate.context import Context
from apr_jax.foreign import pytorch
from apr_jax.foreign.network import Network

SIZE, CLASSES = 8, 5
ABOUT = {"classes": CLASSES, "image_size": SIZE}


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (6, SIZE, SIZE, 3), np.uint8)


@pytest.fixture
def matrix(rng):
    return rng.normal(size=(3, CLASSES)).astype(np.float32)


class Linen(nn.Module):
    """BatchNorm, dropout and two linear layers, of which the second is the head."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(4, (3, 3))(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x)).mean((1, 2))
        x = nn.relu(nn.Dense(7)(x))
        return nn.Dense(CLASSES)(nn.Dropout(0.5, deterministic=not train)(x))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(4, CLASSES, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.conv(x))).mean((1, 2))
        return self.head(self.dropout(x))


def of_linen(pixels):
    module = Linen()
    variables = jax.jit(partial(module.init, train=False))(jax.random.key(0), pixels)
    made = Classifier.from_linen(module, variables, **ABOUT)
    wanted = jax.jit(partial(module.apply, train=False))(variables, pixels)
    return made, wanted, (7, CLASSES)


def of_nnx(pixels):
    module = Nnx(nnx.Rngs(0))
    made = Classifier.from_nnx(module, **ABOUT)
    assert not module.dropout.deterministic  # the module itself stays as it is
    module.eval()
    return made, module(pixels), (4, CLASSES)


def of_equinox(pixels):
    eqx = pytest.importorskip("equinox")

    class Net(eqx.Module):
        conv: eqx.nn.Conv2d
        norm: eqx.nn.BatchNorm
        dropout: eqx.nn.Dropout
        head: eqx.nn.Linear

        def __init__(self, key):
            self.conv = eqx.nn.Conv2d(3, 4, 3, key=key)
            self.norm = eqx.nn.BatchNorm(4, "batch", mode="batch")
            self.dropout = eqx.nn.Dropout(0.5)
            self.head = eqx.nn.Linear(4, CLASSES, key=key)

        def __call__(self, image, state, key):
            x, state = self.norm(self.conv(image), state)
            x = jax.nn.relu(x).mean((1, 2))
            return self.head(self.dropout(x, key=key)), state

    module, state = eqx.nn.make_with_state(Net)(jax.random.key(0))
    quiet = eqx.nn.inference_mode(module)
    one = lambda image: quiet(image.transpose(2, 0, 1), state, None)[0]
    wanted = jax.jit(jax.vmap(one, axis_name="batch"))(pixels)
    return Classifier.from_equinox(module, state, **ABOUT), wanted, (4, CLASSES)


def of_function(pixels):
    weights = np.float32(np.random.default_rng(1).normal(size=(3, CLASSES)))
    apply = lambda weights, x: x.mean((1, 2)) @ weights
    made = Classifier.from_function(apply, weights, **ABOUT)
    return made, apply(weights, pixels), (3, CLASSES)


@pytest.mark.parametrize("make", [of_function, of_linen, of_nnx, of_equinox])
def test_answers_are_the_network_s_own_and_its_last_layer_is_found(images, make):
    pixels = images / np.float32(255)
    made, wanted, shape = make(pixels)
    logits, features = jax.jit(made.predict)(made.variables, images)
    np.testing.assert_allclose(logits, wanted, atol=1e-5)
    weight, bias = made.head
    assert weight.shape == shape
    again = np.asarray(features) @ weight + bias
    np.testing.assert_allclose(again, wanted, atol=1e-5)
    assert made.differentiable
    assert jax.tree.leaves(made.variables)


def test_keras(images, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")  # read when it is first imported
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "jax":
        pytest.skip("Keras has another backend in this process")
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((SIZE, SIZE, 3)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.GlobalAveragePooling2D(),
            layers.Dense(CLASSES),
        ]
    )
    made = Classifier.from_keras(model, range=(0, 255), **ABOUT)
    logits, features = made.predict(made.variables, images)
    with jax.numpy_rank_promotion("allow"):
        wanted = model(images.astype(np.float32), training=False)
    np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-4)
    assert features.shape == (6, 4)


@pytest.mark.parametrize(
    ("about", "inputs"),
    [
        ({}, lambda grey: grey / 255),
        ({"range": (0, 255)}, lambda grey: grey),
        ({"range": (-1, 1)}, lambda grey: grey / 127.5 - 1),
        (
            {"mean": (0.5, 0.4, 0.3), "std": (0.2,)},
            lambda grey: (grey / 255 - np.array([0.5, 0.4, 0.3])) / 0.2,
        ),
        (
            {"range": (0, 255), "mean": (120,), "std": (60, 50, 40)},
            lambda grey: (grey - 120) / np.array([60, 50, 40]),
        ),
    ],
)
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_a_network_gets_the_numbers_that_it_wants(
    images, matrix, about, inputs, layout
):
    axes = (1, 2) if layout == "NHWC" else (2, 3)
    made = Classifier.from_function(
        lambda x: x.mean(axes) @ matrix, layout=layout, **ABOUT, **about
    )
    logits, _ = made.predict({}, images)
    wanted = inputs(images.astype(np.float64)).mean((1, 2)) @ matrix
    np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-4)


def test_features_that_a_function_gives_are_taken(images, matrix):
    def function(x):
        features = jnp.tanh(x.mean((1, 2)))
        return features @ matrix + 1, features

    made = Classifier.from_function(function, **ABOUT)
    pixels = images / np.float32(255)
    np.testing.assert_allclose(
        made.predict({}, images)[1], np.tanh(pixels.mean((1, 2))), atol=1e-6
    )
    np.testing.assert_allclose(made.head[0], matrix, rtol=1e-6)
    np.testing.assert_allclose(made.head[1], np.ones(CLASSES), atol=1e-5)


def test_a_head_times_a_number(matrix):
    """As ONNX writes it, alpha * A B + beta * C."""
    made = Classifier.from_function(
        lambda x: jnp.float32(0.5) * (x.mean((1, 2)) @ matrix) + 2 * jnp.ones(CLASSES),
        **ABOUT,
    )
    np.testing.assert_allclose(made.head[0], matrix / 2, rtol=1e-6)
    np.testing.assert_allclose(made.head[1], 2 * np.ones(CLASSES), atol=1e-5)


def test_no_head_where_logits_are_no_linear_layer_of_anything(images, matrix):
    made = Classifier.from_function(lambda x: jnp.sin(x.mean((1, 2)) @ matrix), **ABOUT)
    logits, features = made.predict({}, images)
    assert made.head is None
    np.testing.assert_array_equal(logits, features)


def test_probabilities_become_logits(images, matrix):
    logits = lambda x: x.mean((1, 2)) @ matrix
    made = Classifier.from_function(
        lambda x: jax.nn.softmax(logits(x)), outputs="probabilities", **ABOUT
    )
    wanted = jax.nn.log_softmax(logits(images / np.float32(255)))
    np.testing.assert_allclose(made.predict({}, images)[0], wanted, atol=1e-5)


def noisy(x):
    means = np.asarray(x).mean((1, 2, 3))[:, None]
    return means + np.random.default_rng().normal(size=(len(x), CLASSES))


def dropped(x):
    keep = jax.random.bernoulli(jax.random.key(0), 0.5, (len(x), CLASSES))
    return x.mean((1, 2)) @ jnp.ones((3, CLASSES)) * keep


def centred(x):
    flat = x.reshape(len(x), -1)[:, :CLASSES]
    return flat - flat.mean(0)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: x.reshape(len(x), -1)[:, :7], "are for 7 classes, not 5"),
        (lambda x: x.mean((1, 2, 3)), r"must be \[4, 5\], not \[4\]"),
        (lambda x: x.reshape(4, -1)[:, :5], r"must be \[3, 5\], not \[4, 5\]"),
        (lambda x: {"logits": x}, "must be one array|gives 1 arrays"),
        (lambda x: x.logits, "can't be called with images float32.*AttributeError"),
        (lambda x: jnp.log(-x.reshape(len(x), -1)[:, :5]), "of 20 of .* not finite"),
        (lambda x: jax.nn.softmax(x.reshape(len(x), -1)[:, :5]), "gives probabilities"),
        (noisy, "the second time, .* dropout"),
        (dropped, "copies of one image differently, .* dropout"),
        (centred, "beside other images, .* BatchNorm"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(function, said):
    with pytest.raises(ValueError, match=said) as caught:
        Classifier.from_function(function, name="net", **ABOUT)
    assert "\n" not in str(caught.value)
    assert "'net'" in str(caught.value)


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"range": (255, 0)}, r"range is \(255, 0\)"),
        ({"mean": (1, 2)}, "mean has 2 values"),
        ({"std": (0, 1, 1)}, "std is .* above 0"),
        ({"classes": "abcde"}, "name of each"),
        ({"classes": list("aabcd")}, "name of each"),
        ({"outputs": "logit"}, "outputs"),
        ({"layout": "CHW"}, "layout"),
        ({"image_size": 32.0}, r"image_size is 32\.0; it must be a whole number"),
        ({"image_size": (32, 32)}, r"image_size is \(32, 32\)"),
        ({"classes": 0}, "classes is 0"),
        ({"mean": 0.5}, r"mean is 0\.5; give a number for each"),
        ({"range": 255}, "range is 255"),
        ({"outputs": "probabilities"}, "outputs is 'probabilities', but those of"),
    ],
)
def test_what_is_said_of_a_network_is_checked(matrix, about, said):
    with pytest.raises(ValueError, match=said):
        Classifier.from_function(
            lambda x: x.mean((1, 2)) @ matrix, **{**ABOUT, **about}
        )


def test_of_onnx_the_first_output_is_logits_and_the_second_no_features(
    images, matrix, monkeypatch
):
    """Many networks give their probabilities beside."""

    class Module:
        def eval(self):
            return self

    def both(variables, inputs):
        logits = inputs.mean((2, 3)) @ matrix
        return [logits, jax.nn.softmax(logits)]

    fake = types.SimpleNamespace(convert=lambda model: Module())
    monkeypatch.setitem(sys.modules, "onnx", types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, "onnx2torch", fake)
    monkeypatch.setattr(
        pytorch, "of_torch", lambda module, layout: Network(both, {}, layout)
    )
    made = Classifier.from_onnx(object(), **ABOUT)
    logits, features = made.predict({}, images)
    wanted = (images / 255).mean((1, 2)) @ matrix
    np.testing.assert_allclose(logits, wanted, atol=1e-5)
    assert features.shape == (len(images), 3)  # what the last layer takes


def test_numpys_numbers_of_classes_are_numbers(matrix):
    about = {**ABOUT, "classes": np.int64(CLASSES)}
    made = Classifier.from_function(lambda x: x.mean((1, 2)) @ matrix, **about)
    assert made.class_names == tuple(map(str, range(CLASSES)))
    for word in ("classes", "image_size"):
        less = {k: v for k, v in ABOUT.items() if k != word}
        with pytest.raises(ValueError, match=f"{word} is missing"):
            Classifier.from_function(lambda x: x.mean((1, 2)) @ matrix, **less)


def test_functions_of_coarse_answers_are_told_apart(matrix):
    """Services that give a class alone, all called alike."""

    def digest(sign):
        def service(x):
            classes = (sign * x.mean((1, 2)) @ matrix).argmax(1)
            return 9 * jax.nn.one_hot(classes, CLASSES)

        made = Classifier.from_function(service, name="service", **ABOUT)
        return classifier.weights_digest(made)

    assert digest(1) == digest(1) != digest(-1)


def test_a_function_that_is_no_jax_code(images, matrix, capsys, tmp_path):
    called = []

    def function(x):
        called.append(np.shape(x))
        return np.tanh(np.asarray(x).mean((1, 2)) @ matrix)

    made = Classifier.from_function(function, name="remote", **ABOUT)
    assert "remote has no gradient" in capsys.readouterr().err
    assert not made.differentiable
    logits, _ = jax.jit(made.predict)({}, images)
    wanted = np.tanh((images / 255).mean((1, 2)) @ matrix)
    np.testing.assert_allclose(logits, wanted, atol=1e-5)
    assert (6, SIZE, SIZE, 3) in called

    labels = np.arange(6) % CLASSES
    np.savez(tmp_path / "test.npz", images=images, labels=labels)
    (tmp_path / "class_names.txt").write_text("\n".join("01234"))
    np.save(tmp_path / "noise.npy", images[::-1])
    described = dataclasses.replace(
        made.config.data, source="arrays", name="x", data_dir=str(tmp_path)
    )
    config = dataclasses.replace(made.config, data=described)
    made = dataclasses.replace(made, config=config)
    context = Context(parallel.make_layout(1), quiet=True)
    settings = Adversarial(examples=6, queries=20)
    found = list(adversarial.measure(made, settings, context))
    assert {r.metric for r in found} >= {"after_square", "robust_accuracy"}
    assert not any("apgd" in r.metric for r in found)
    assert "only Square is run" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="'pgd', which follows gradients"):
        list(adversarial.measure(made, Adversarial(attack="pgd"), context))

    outside = (f"noise=arrays:{tmp_path}/noise.npy",)
    found = list(ood.measure(made, Ood(out=outside), context))
    scores = {record.metric.partition(".")[0] for record in found}
    assert scores == {"msp", "max_logit", "energy", "entropy", "gen", "authors"}
    said = capsys.readouterr().err
    assert "left out: odin: remote has no gradient" in said
    assert "left out: react, dice, ash" in said


def test_scores_without_training_images(images, tmp_path, capsys):
    made = of_linen(images / np.float32(255))[0]
    np.savez(tmp_path / "test.npz", images=images, labels=np.arange(6) % CLASSES)
    (tmp_path / "class_names.txt").write_text("\n".join("01234"))
    np.save(tmp_path / "noise.npy", images[::-1])
    described = dataclasses.replace(
        made.config.data, source="arrays", name="x", data_dir=str(tmp_path)
    )
    config = dataclasses.replace(made.config, data=described)
    made = dataclasses.replace(made, config=config)
    context = Context(parallel.make_layout(1), quiet=True)
    outside = (f"noise=arrays:{tmp_path}/noise.npy",)
    found = list(ood.measure(made, Ood(out=outside), context))
    scores = {record.metric.partition(".")[0] for record in found}
    assert {"ash", "odin"} <= scores  # of the last layer, and of gradients
    assert not {"knn", "vim", "mahalanobis"} & scores
    assert "there are no training images" in capsys.readouterr().err


def module_of_torch():
    """What looks like one: PyTorch isn't here."""
    base = type("Module", (), {"__module__": "torch.nn.modules.module"})
    return type("Sequential", (base,), {"__call__": lambda self, x: x})()


def test_modules_of_other_libraries_are_told_their_door():
    for module, door in (
        (Linen(), "from_linen"),
        (Nnx(nnx.Rngs(0)), "from_nnx"),
        (module_of_torch(), "from_torch"),
    ):
        with pytest.raises(
            ConfigError, match=rf"open it by apr_jax\.Classifier\.{door}"
        ):
            elsewhere.opened(module)
    assert elsewhere.opened(lambda x: x).network is not None
