"""PyTorch modules and ONNX files: their own logits and gradients, by torchax.

The environment is of ``requirements-torchax.txt``; elsewhere what needs it is skipped.
"""

import importlib.util
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import attacks
from apr_jax.evaluate.classifier import Classifier

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore"),  # of other people's packages, as they load
]
needs_torchax = pytest.mark.skipif(
    importlib.util.find_spec("torchax") is None,
    reason="needs torchax: an environment of requirements-torchax.txt",
)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
ABOUT = {"classes": 5, "image_size": 12, "mean": MEAN, "std": STD, "name": "net"}


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="needs PyTorch")


@pytest.fixture
def module(torch):
    torch.manual_seed(0)
    nn = torch.nn
    made = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, groups=2), nn.Sigmoid()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 5)),
    )
    for _ in range(3):
        made(torch.randn(8, 3, 12, 12))
    return made.eval()


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (6, 12, 12, 3), np.uint8)


def logits_of(torch, module, pixels):
    """PyTorch's own logits of pixels [N, H, W, 3], a tensor."""
    inputs = (pixels - torch.tensor(MEAN)) / torch.tensor(STD)
    return module(inputs.permute(0, 3, 1, 2))


def check_logits(torch, module, made, images):
    pixels = torch.tensor(images / np.float32(255))
    with torch.no_grad():
        wanted = logits_of(torch, module, pixels).numpy()
    logits, features = jax.jit(made.predict)(made.variables, images)
    np.testing.assert_allclose(logits, wanted, atol=1e-5)
    return np.asarray(features), wanted


def check_gradients(torch, module, made, images):
    pixels = torch.tensor(images / np.float32(255), requires_grad=True)
    (logits_of(torch, module, pixels) ** 2).sum().backward()
    loss = lambda x: jnp.sum(made.predict(made.variables, x)[0] ** 2)
    mine = jax.jit(jax.grad(loss))(images / np.float32(255))
    np.testing.assert_allclose(mine, pixels.grad.numpy(), rtol=1e-4, atol=1e-5)


@needs_torchax
def test_logits_gradients_and_features_are_those_of_pytorch(torch, module, images):
    made = Classifier.from_torch(module, **ABOUT)
    features, wanted = check_logits(torch, module, made, images)
    check_gradients(torch, module, made, images)
    weight, bias = made.head
    last = module[-1]
    np.testing.assert_allclose(weight, last.weight.detach().numpy().T, atol=1e-6)
    np.testing.assert_allclose(bias, last.bias.detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(features @ weight + bias, wanted, atol=1e-5)


@needs_torchax
def test_other_modules_and_their_own_outputs(torch, images):
    class Attentive(torch.nn.Module):
        """Tokens, attention, and an output as transformers have."""

        def __init__(self):
            super().__init__()
            self.patches = torch.nn.Conv2d(3, 8, 4, 4)
            self.layer = torch.nn.TransformerEncoderLayer(
                8, 2, 16, batch_first=True, norm_first=True
            )
            self.head = torch.nn.Linear(8, 5)

        def forward(self, x):
            tokens = self.layer(self.patches(x).flatten(2).transpose(1, 2))
            found = self.head(tokens.mean(1))
            return type("Output", (), {"logits": found})()

    module = Attentive().eval()
    made = Classifier.from_torch(module, **ABOUT)
    inner = lambda x: module(x).logits
    features, _ = check_logits(torch, inner, made, images)
    assert features.shape == (6, 8)


@needs_torchax
def test_the_same_points_stand_under_an_attack(torch, module, images, key):
    """FGSM by hand in PyTorch, and here on what torchax made of the module."""
    pixels = torch.tensor(images / np.float32(255), requires_grad=True)
    with torch.no_grad():  # answers that differ from image to image
        module[-1].bias -= logits_of(torch, module, pixels).mean(0)
    made = Classifier.from_torch(module, **ABOUT)
    first = logits_of(torch, module, pixels)
    labels = first.argmax(1)
    torch.nn.functional.cross_entropy(first, labels, reduction="sum").backward()
    moved = (pixels + 0.3 * pixels.grad.sign()).clamp(0, 1)
    standing = logits_of(torch, module, moved).argmax(1) == labels
    result = attacks.fgsm(
        key,
        lambda x: made.predict(made.variables, x)[0],
        images / np.float32(255),
        labels.numpy(),
        eps=0.3,
        norm="linf",
    )
    np.testing.assert_array_equal(result.survived["fgsm"], standing.numpy())
    broken = ~standing.numpy()
    assert broken.any()  # what stands is given back as it was
    gaps = np.abs(result.images - moved.detach().numpy())[broken]
    assert np.mean(gaps < 1e-6) > 0.99  # but for gradients that are zero, rounded


def test_pytorch_itself_computes_without_gradients(torch, module, images, capsys):
    made = Classifier.from_torch(module, on_host=True, **ABOUT)
    check_logits(torch, module, made, images)
    assert not made.differentiable
    assert "net has no gradient" in capsys.readouterr().err


def test_what_is_no_module_or_still_learns(torch, module):
    module[8].train()
    with pytest.raises(ValueError, match=r"part '8' is in training mode.*eval\(\)"):
        Classifier.from_torch(module, **ABOUT)
    with pytest.raises(ValueError, match="it is in training mode"):
        Classifier.from_torch(module.train(), **ABOUT)
    with pytest.raises(ValueError, match=r"no torch\.nn\.Module"):
        Classifier.from_torch(lambda x: x, **ABOUT)


@pytest.mark.skipif(
    importlib.util.find_spec("torchax") is not None, reason="torchax is installed"
)
def test_without_torchax_it_is_said_what_to_do(torch, module):
    with pytest.raises(ValueError, match=r"needs torchax.*on_host=True"):
        Classifier.from_torch(module, **ABOUT)


def onnx_of(torch, module):
    onnx = pytest.importorskip("onnx", reason="needs onnx")
    file = io.BytesIO()
    torch.onnx.export(
        module,
        (torch.zeros(2, 3, 12, 12),),
        file,
        dynamo=False,
        dynamic_axes={"x": {0: "n"}},
        input_names=["x"],
    )
    return onnx.load_from_string(file.getvalue())


@needs_torchax
def test_onnx(torch, module, images, tmp_path):
    pytest.importorskip("onnx2torch", reason="needs onnx2torch")
    model = onnx_of(torch, module)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    for given in (model, str(tmp_path / "net.onnx")):
        made = Classifier.from_onnx(given, **ABOUT)
        features, _ = check_logits(torch, module, made, images)
    assert features.shape == (6, 16)
    check_gradients(torch, module, made, images)
    with pytest.raises(ValueError, match="isn't there"):
        Classifier.from_onnx(tmp_path / "none.onnx", **ABOUT)


def test_onnxruntime(torch, module, images):
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    made = Classifier.from_onnx(onnx_of(torch, module), on_host=True, **ABOUT)
    check_logits(torch, module, made, images)
    assert not made.differentiable
