"""ResNet-18 and -34 for ImageNet against the same networks of torch.nn."""

import jax
import numpy as np
import pytest

from apr_jax import models
from apr_jax.models import flops, torch_weights

# Blocks of the four stages; parameters and multiply-adds that torchvision documents.
NETWORKS = {
    "resnet18_imagenet": ((2, 2, 2, 2), 11_689_512, 1.814),
    "resnet34_imagenet": ((3, 4, 6, 3), 21_797_672, 3.664),
}


def theirs(torch, sizes, classes):
    """The network with torchvision's names, of torch.nn alone."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, inputs, width, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            if stride != 1 or inputs != width:
                self.downsample = nn.Sequential(
                    nn.Conv2d(inputs, width, 1, stride, bias=False),
                    nn.BatchNorm2d(width),
                )

        def forward(self, x):
            y = torch.relu(self.bn1(self.conv1(x)))
            y = self.bn2(self.conv2(y))
            return torch.relu(y + getattr(self, "downsample", nn.Identity())(x))

    class ResNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(64)
            self.maxpool = nn.MaxPool2d(3, 2, 1)
            inputs = 64
            for stage, size in enumerate(sizes):
                width, blocks = 64 * 2**stage, []
                for i in range(size):
                    blocks.append(Block(inputs, width, 2 if stage and not i else 1))
                    inputs = width
                setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            self.fc = nn.Linear(inputs, classes)

        def forward(self, x):
            x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
            x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
            return self.fc(x.mean((2, 3)))

    return ResNet()


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_of_the_same_weights(rng, name, torch):
    torch.manual_seed(0)
    reference = theirs(torch, NETWORKS[name][0], classes=7).eval()
    for module in reference.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
    arrays = {k: v.numpy() for k, v in reference.state_dict().items()}
    variables = torch_weights.from_torch(name, arrays)
    # Sizes whose halves are odd show a wrong padding at once.
    images = rng.normal(size=(2, 75, 70, 3)).astype(np.float32)
    with torch.no_grad():
        wanted = reference(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()
    model = models.build(name, num_classes=7)
    logits = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, images)
    np.testing.assert_allclose(logits / wanted.std(), wanted / wanted.std(), atol=2e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_and_multiply_adds_are_torchvisions(name):
    _, parameters, billions = NETWORKS[name]
    size = {"num_classes": 1000, "size": 224}
    assert flops.parameters(name, **size) == parameters
    adds = flops.multiply_adds(name, **size)
    assert adds / 1e9 == pytest.approx(billions, abs=1e-3)
