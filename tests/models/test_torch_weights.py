"""PyTorch state dictionaries: names of torchvision, wrappers, files and messages."""

import functools
import re

import jax
import numpy as np
import pytest

from apr_jax import models
from apr_jax.models import torch_weights
from tests.models.test_models import golden_state_dict


def resnet50(torch, classes, blurs=False):
    """ResNet-50 with torchvision's names, or with MaxBlurPool and its names.

    Of torch.nn alone.
    """
    nn = torch.nn

    class Blur(nn.Module):
        def __init__(self, channels):
            super().__init__()
            row = torch.tensor([1.0, 2.0, 1.0]) / 4
            kernel = torch.outer(row, row).repeat(channels, 1, 1, 1)
            self.register_buffer("filt", kernel)

        def forward(self, x):
            padded = nn.functional.pad(x, (1, 1, 1, 1), "reflect")
            return nn.functional.conv2d(padded, self.filt, stride=2, groups=len(x[0]))

    def behind_blur(channels, stride, *layers):
        blurred = [Blur(channels)] if blurs and stride == 2 else []
        return nn.Sequential(*blurred, *layers)

    class Bottleneck(nn.Module):
        def __init__(self, inputs, width, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            step = 1 if blurs else stride
            self.conv2 = nn.Conv2d(width, width, 3, step, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
            if blurs and stride == 2:
                self.conv3 = behind_blur(width, stride, self.conv3)
            self.bn3 = nn.BatchNorm2d(4 * width)
            self.downsample = None
            if stride != 1 or inputs != 4 * width:
                self.downsample = behind_blur(
                    inputs,
                    stride,
                    nn.Conv2d(inputs, 4 * width, 1, step, bias=False),
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
            if blurs:
                self.maxpool = nn.Sequential(nn.MaxPool2d(2, 1), Blur(64))
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


@pytest.mark.parametrize("name", ["resnet50", "resnet50_blur"])
def test_resnet50_of_torchvision_and_of_max_blur_pool(rng, name, torch):
    torch.manual_seed(0)
    theirs = resnet50(torch, 1000, blurs=name == "resnet50_blur").eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
    arrays = {k: v.numpy() for k, v in theirs.state_dict().items()}
    variables = torch_weights.from_torch(name, arrays)
    assert sum(p.size for p in jax.tree.leaves(variables["params"])) == 25_557_032
    # Sizes whose halves are odd show a wrong padding at once.
    images = rng.normal(size=(2, 75, 70, 3)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()
    model = models.build(name, num_classes=1000)
    logits = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, images)
    np.testing.assert_allclose(
        logits / expected.std(), expected / expected.std(), atol=2e-4
    )


@functools.cache
def template(name, classes):
    return torch_weights._template(name, num_classes=classes)


def plain_tensors(name, classes=3):
    """Tensors of a network by their PyTorch names, all zero."""
    return {
        torch_weights._torch_name(path): np.zeros(
            torch_weights._torch_shape(shape, path[-1]), np.float32
        )
        for path, shape in template(name, classes).items()
    }


def blurred_tensors(kernel=(1, 2, 1)):
    """Those of ResNet-50 with MaxBlurPool, as its own code names them."""
    found = {}
    for key, tensor in plain_tensors("resnet50").items():
        stage, _, rest = key.partition(".")
        if stage in ("layer2", "layer3", "layer4") and rest.startswith("0."):
            key = key.replace("0.conv3.", "0.conv3.1.")
            key = key.replace("downsample.1.", "downsample.2.")
            key = key.replace("downsample.0.", "downsample.1.")
        found[key] = tensor
    row = np.array(kernel) / sum(kernel)
    for key in torch_weights._BLURS:
        found[key] = np.broadcast_to(np.outer(row, row), (8, 1, len(row), len(row)))
    return found


def test_max_blur_pool_is_told_by_its_kernels():
    variables = torch_weights.from_torch("resnet50_blur", blurred_tensors())
    plain = torch_weights.from_torch("resnet50", plain_tensors("resnet50"))
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, plain)
    # timm's resnetblur50 has the names of ResNet-50, and computes something else.
    with pytest.raises(ValueError, match=r"no blur's kernel.*timm's resnetblur50.*3x3"):
        torch_weights.from_torch("resnet50_blur", plain_tensors("resnet50"))
    with pytest.raises(ValueError, match=r"maxpool.1.filt is a kernel of \[4, 4\]"):
        torch_weights.from_torch("resnet50_blur", blurred_tensors((1, 3, 3, 1)))
    with pytest.raises(ValueError, match=r"kernels of blurs.*resnet50_blur"):
        torch_weights.from_torch("resnet50", blurred_tensors())
    fewer = blurred_tensors()
    del fewer["layer3.0.downsample.0.filt"]
    with pytest.raises(ValueError, match="blurs missing: layer3"):
        torch_weights.from_torch("resnet50_blur", fewer)


def test_files_that_say_they_are_another_network():
    tensors = plain_tensors("resnet18_imagenet")
    for said in ("resnetblur18", "resnetaa18", "ResNet18d", "resnet34"):
        with pytest.raises(ValueError, match=f"imagenet: the file says it is '{said}'"):
            torch_weights.load("resnet18_imagenet", {"arch": said, "net": tensors})
    right = {"arch": "resnet18.a1_in1k", "state_dict": tensors}
    assert torch_weights.from_torch("resnet18_imagenet", right)


NORMALISATIONS = [
    ("mu", "sigma", ""),
    ("normalize.mean", "normalize.std", "model."),
    ("module.0.mean", "module.0.std", "module.1."),
    ("normalizer.new_mean", "normalizer.new_std", "model.module."),
]


@pytest.mark.parametrize(("mean", "std", "prefix"), NORMALISATIONS)
def test_a_normalisation_among_the_tensors(mean, std, prefix):
    plain = plain_tensors("wrn_10_1")
    given = {prefix + key: tensor for key, tensor in plain.items()}
    shape = (1, 3, 1, 1)
    given[mean] = np.array([0.4914, 0.4822, 0.4465], np.float32).reshape(shape)
    given[std] = np.array([0.2471, 0.2435, 0.2616], np.float32).reshape(shape)
    loaded = torch_weights.load("wrn_10_1", {"state_dict": given})
    assert loaded.mean == (0.4914, 0.4822, 0.4465)
    assert loaded.std == (0.2471, 0.2435, 0.2616)
    same(loaded.variables, torch_weights.from_torch("wrn_10_1", plain))
    # Beside the tensors, as arrays or numbers.
    beside = {"net": plain, "mean": given[mean], "std": list(given[std].ravel())}
    assert torch_weights.load("wrn_10_1", beside)[1:] == loaded[1:]
    # Never ignored: who asks for the variables alone is told.
    with pytest.raises(ValueError, match=r"of their own, mean \(0.4914, .*load_file"):
        torch_weights.from_torch("wrn_10_1", given)
    grey = {**given, mean: 255 * given[mean]}
    with pytest.raises(ValueError, match=r"they must be of pixels in \[0, 1\]"):
        torch_weights.load("wrn_10_1", grey)
    del given[std]
    with pytest.raises(ValueError, match="has one mean and one standard deviation"):
        torch_weights.load("wrn_10_1", given)


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


def test_a_real_file(tensors, tmp_path, torch):
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


def renamed(tensors, **other):
    """Tensors whose names have other parts."""
    return {
        ".".join(other.get(part, part) for part in key.split(".")): tensor
        for key, tensor in tensors.items()
    }


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("wrn_10_1", {"conv_shortcut": "convShortcut"}),
        ("resnet18", {"shortcut": "downsample", "linear": "fc"}),
    ],
)
def test_parts_that_other_code_calls_differently(rng, name, other):
    plain = {k: rng.normal(size=v.shape) for k, v in plain_tensors(name).items()}
    given = renamed(plain, **other)
    assert given.keys() != plain.keys()
    same(torch_weights.from_torch(name, given), torch_weights.from_torch(name, plain))
    (first, second), *_ = ((k, r) for k, r in zip(plain, given, strict=True) if k != r)
    with pytest.raises(ValueError, match=f"two tensors are {re.escape(first)}"):
        torch_weights.from_torch(name, {**given, first: given[second]})


def test_a_wide_network_of_trades_code():
    plain = plain_tensors("wrn_10_1")
    wanted = torch_weights.from_torch("wrn_10_1", plain)
    unused = {"sub_block1.layer.0.conv1.weight": np.ones((16, 16, 3, 3))}
    same(torch_weights.from_torch("wrn_10_1", plain | unused), wanted)
    del plain["fc.bias"]
    same(torch_weights.from_torch("wrn_10_1", plain), wanted)
    with pytest.raises(ValueError, match=r"unexpected: sub_block1"):
        torch_weights.from_torch("resnet18", plain_tensors("resnet18") | unused)


def test_a_pre_activation_network_without_its_last_norm():
    bare = plain_tensors("preact_resnet18_bare")
    assert not any(key.startswith("bn.") for key in bare)
    with pytest.raises(ValueError, match=r"missing: bn\..*preact_resnet18_bare"):
        torch_weights.from_torch("preact_resnet18", bare)
    torch_weights.from_torch("preact_resnet18_bare", bare)
