"""PyTorch state dictionaries: names of torchvision, wrappers, files and messages."""

import jax
import numpy as np
import pytest

from apr_jax import models
from apr_jax.models import torch_weights
from tests.models.test_models import golden_state_dict


def resnet50(torch, classes):
    """ResNet-50 with torchvision's names, of torch.nn alone."""
    nn = torch.nn

    class Bottleneck(nn.Module):
        def __init__(self, inputs, width, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(4 * width)
            self.downsample = None
            if stride != 1 or inputs != 4 * width:
                self.downsample = nn.Sequential(
                    nn.Conv2d(inputs, 4 * width, 1, stride, bias=False),
                    nn.BatchNorm2d(4 * width),
                )

        def forward(self, x):
            shortcut = x if self.downsample is None else self.downsample(x)
            x = torch.relu(self.bn1(self.conv1(x)))
            x = torch.relu(self.bn2(self.conv2(x)))
            return torch.relu(shortcut + self.bn3(self.conv3(x)))

    class ResNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(64)
            self.maxpool = nn.MaxPool2d(3, 2, 1)
            inputs = 64
            for stage, (blocks, width) in enumerate(
                ((3, 64), (4, 128), (6, 256), (3, 512)), 1
            ):
                layers = []
                for block in range(blocks):
                    stride = 2 if block == 0 and stage > 1 else 1
                    layers.append(Bottleneck(inputs, width, stride))
                    inputs = 4 * width
                setattr(self, f"layer{stage}", nn.Sequential(*layers))
            self.fc = nn.Linear(inputs, classes)

        def forward(self, x):
            x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
            for stage in (1, 2, 3, 4):
                x = getattr(self, f"layer{stage}")(x)
            return self.fc(x.mean((2, 3)))

    return ResNet()


def test_resnet50_of_torchvision(rng):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    theirs = resnet50(torch, 1000).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
    arrays = {k: v.numpy() for k, v in theirs.state_dict().items()}
    variables = torch_weights.from_torch("resnet50", arrays)
    assert sum(p.size for p in jax.tree.leaves(variables["params"])) == 25_557_032
    # Sizes whose halves are odd show a wrong padding at once.
    images = rng.normal(size=(2, 75, 70, 3)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()
    model = models.build("resnet50", num_classes=1000)
    logits = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, images)
    np.testing.assert_allclose(
        logits / expected.std(), expected / expected.std(), atol=2e-4
    )


@pytest.fixture
def tensors(shared):
    golden = np.load(shared / "golden" / "reference.npz")
    return golden_state_dict(golden, "resnet18")


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_wrappers_prefixes_and_counters(tensors):
    plain = torch_weights.from_torch("resnet18", tensors)
    parallel = {f"module.{k}": v for k, v in tensors.items()}
    parallel["module.bn1.num_batches_tracked"] = np.asarray(7)
    same(torch_weights.from_torch("resnet18", {"state_dict": parallel}), plain)
    same(torch_weights.from_torch("resnet18", {"net": tensors, "epoch": 3}), plain)


def test_a_real_file(tensors, tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.pth"
    torch.save({k: torch.tensor(v) for k, v in tensors.items()}, path)
    same(
        torch_weights.load_torch_file("resnet18", path),
        torch_weights.from_torch("resnet18", tensors),
    )


def test_messages_name_the_tensors(tensors):
    names = list(tensors)
    kernel, norm = names[0], next(n for n in names if n.endswith("running_mean"))
    changed = dict(tensors)
    changed[kernel] = tensors[kernel][:, :2]
    del changed[norm]
    changed["strange.weight"] = np.zeros(3)
    with pytest.raises(ValueError, match="not the weights of resnet18") as caught:
        torch_weights.from_torch("resnet18", changed)
    for name in (kernel, norm, "strange.weight"):
        assert name in str(caught.value)


def test_another_network(tensors):
    with pytest.raises(ValueError, match="not the weights of wrn_40_2"):
        torch_weights.from_torch("wrn_40_2", tensors)
