"""Networks of PyTorch by name, written to files: what PyTorch itself answers."""

import importlib.util

import jax
import numpy as np
import pytest

from apr_jax.errors import ConfigError
from apr_jax.evaluate import export
from apr_jax.foreign import exported

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore"),  # of other people's packages, as they load
    pytest.mark.skipif(
        any(importlib.util.find_spec(p) is None for p in ("torchax", "timm")),
        reason="needs torchax and timm: an environment of requirements-torchax.txt",
    ),
]
needs_jax2onnx = pytest.mark.skipif(
    importlib.util.find_spec("jax2onnx") is None,
    reason="needs jax2onnx: the extra onnx",
)
SIZE = 160  # of timm's networks for its own tests


@pytest.fixture(scope="module", params=["test_resnet", "test_vit"])
def module(request, tmp_path_factory):
    """A network of timm for three classes, its name, and a file of its weights.

    The transformer's code takes the number of images for a Python integer.
    """
    torch = pytest.importorskip("torch")
    import timm

    torch.manual_seed(0)
    made = timm.create_model(request.param, num_classes=3).eval()
    for part in made.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 2)
    file = tmp_path_factory.mktemp("weights") / "three.pth"
    torch.save({"state_dict": made.state_dict()}, file)
    return made, f"timm:{request.param}", file


def normalised(made, pixels):
    """Pixels in [0, 1] as timm says that the network takes them."""
    import timm
    import torch

    told = timm.data.resolve_data_config({}, model=made)
    return (pixels - torch.tensor(told["mean"])) / torch.tensor(told["std"])


def asked(made, levels):
    """The logits that PyTorch gives grey levels."""
    import torch

    pixels = normalised(made, torch.tensor(levels / np.float32(255)))
    with torch.no_grad():
        return made(pixels.permute(0, 3, 1, 2)).numpy()


@pytest.mark.parametrize(
    ("to", "pixels"),
    [
        ("stablehlo", "float32"),
        pytest.param("onnx", "uint8", marks=needs_jax2onnx),
    ],
)
def test_what_pytorch_answers(module, rng, tmp_path, to, pixels):
    made, name, weights = module
    out = tmp_path / f"net.{to}"
    export.run(name, out, weights=str(weights), classes=("a", "b", "c"), pixels=pixels)
    levels = rng.integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    read = exported.load(out)
    given = levels if pixels == "uint8" else levels.astype(np.float32) / 255
    wanted = asked(made, levels)
    for count in (1, 3):
        found = np.asarray(read.logits(given[:count]))
        np.testing.assert_allclose(found, wanted[:count], atol=1e-4 * wanted.std())
    about = read.about
    assert about["classes"] == ["a", "b", "c"]
    assert (about["batch"], about["image_size"]) == ("any", SIZE)
    assert about["name"] == f"{name.partition(':')[2]}_three"


def test_gradients_of_what_pytorch_computes(module, rng, tmp_path):
    import torch

    made, name, weights = module
    out = tmp_path / "net.stablehlo"
    export.run(name, out, weights=str(weights), gradients=True)
    levels = rng.integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    pixels = torch.tensor(levels / np.float32(255), requires_grad=True)
    made(normalised(made, pixels).permute(0, 3, 1, 2))[:, 1].sum().backward()
    wanted = pixels.grad.numpy()
    total = lambda x: exported.load(out).logits(x)[:, 1].sum()
    found = jax.grad(total)(levels.astype(np.float32) / 255)
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
    with pytest.raises(ConfigError, match=r"--classes is 4; .* tells 3 apart"):
        export.run(name, out, weights=str(weights), classes=4)
