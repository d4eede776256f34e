"""Weights of RobustBench's own modules in the networks here: the same logits."""

import pathlib
import re
import warnings

import jax
import numpy as np
import pytest

from apr_jax import models
from apr_jax.models import torch_weights
from tests.stand_in import stand_in

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]
# The board's entries, by RobustBench's names or makers, -> the network here. Those of
# other boards and other depths have the same code.
ARCHITECTURES = {
    "cifar10:Hendrycks2020AugMix_WRN": "wrn_40_2",
    "cifar10:Hendrycks2020AugMix_ResNeXt": "resnext29_4x32",
    "cifar10:Kireev2021Effectiveness_RLAT": "preact_resnet18_activated",
    "cifar10:Modas2021PRIMEResNet18": "resnet18",
    "cifar100:Hendrycks2020AugMix_WRN": "wrn_40_2",
    "cifar100:Addepalli2021Towards_PARN18": "preact_resnet18_activated",
    "wide:16-4": "wrn_16_4",
    "wide:16-1,sub_block1": "wrn_16_1",
    "wide:16-1,no bias": "wrn_16_1",
    "preact:raw": "preact_resnet18",
    "preact:bare": "preact_resnet18_bare",
}
LARGE = {
    "cifar10:Diffenderfer2021Winning_LRR": "resnet18_128",
    "cifar10:Standard": "wrn_28_10",
    "cifar10:Addepalli2021Towards_WRN34": "wrn_34_10",
    "cifar10:Addepalli2022Efficient_WRN_34_10": "wrn_34_10",
    "wide:28-4": "wrn_28_4",
    "resnet:ResNet50": "resnet50_cifar",
    "preact50:bare": "preact_resnet50_bare",
    "net:Engstrom2019RobustnessNet": "resnet50_cifar",
    "net:Augustin2020AdversarialNet": "resnet50_cifar",
    "preact50:last norm": "preact_resnet50",
}


@pytest.fixture(scope="module")
def zoo():
    """RobustBench's own modules."""
    pytest.importorskip("torch", reason="needs PyTorch")
    with warnings.catch_warnings(), stand_in("torchvision"):
        warnings.simplefilter("ignore")
        pytest.importorskip(
            "robustbench", reason="needs robustbench: pip install --no-deps robustbench"
        )
        from robustbench.model_zoo import cifar10, model_dicts
        from robustbench.model_zoo.architectures import resnet, wide_resnet
        from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel

    class Bottleneck(resnet.PreActBottleneck):
        """Theirs, which isn't told what it always does, as their network tells it."""

        def __init__(self, *sizes, out_shortcut):
            super().__init__(*sizes)

    def made(name):
        where, _, what = name.partition(":")
        if where in ("resnet", "net"):  # of other boards
            return getattr(resnet if where == "resnet" else cifar10, what)()
        if where == "preact50":
            last = what == "last norm"
            return resnet.PreActResNet(Bottleneck, [3, 4, 6, 3], bn_before_fc=last)
        if where == "wide":
            size, _, option = what.partition(",")
            depth, width = map(int, size.split("-"))
            options = {
                "sub_block1": {"sub_block1": True},
                "no bias": {"bias_last": False},
            }
            return wide_resnet.WideResNet(
                depth=depth, widen_factor=width, **options.get(option, {})
            )
        if where == "preact":
            raw = what == "raw"
            sizes = [2, 2, 2, 2]
            return resnet.PreActResNet(resnet.PreActBlock, sizes, bn_before_fc=raw)
        board = model_dicts[BenchmarkDataset(where)]
        return board[ThreatModel.corruptions][what]["model"]()

    return made


def shaken(torch, module):
    """Random statistics, scales and biases, none at its start."""
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(part.weight, 0.5, 1.5)
            torch.nn.init.normal_(part.bias, 0, 0.2)
    return module.eval()


@pytest.mark.parametrize(
    "entry",
    [
        *ARCHITECTURES,
        *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE),
    ],
)
def test_logits_are_those_of_the_module(zoo, torch, rng, entry):
    torch.manual_seed(0)
    theirs = shaken(torch, zoo(entry))
    name = (ARCHITECTURES | LARGE)[entry]
    loaded = torch_weights.load(name, {"state_dict": theirs.state_dict()})
    pixels = rng.random((3, 32, 32, 3), np.float32)
    with torch.no_grad():
        wanted = theirs(torch.tensor(pixels.transpose(0, 3, 1, 2))).numpy()
    buffers = dict(theirs.named_buffers())
    assert (loaded.mean is None) == ("mu" not in buffers)  # theirs is in the module
    if loaded.mean is not None:
        pixels = (pixels - np.float32(loaded.mean)) / np.float32(loaded.std)
    model = models.build(name, num_classes=loaded.outputs)
    logits = jax.jit(lambda v, x: model.apply(v, x, train=False))(
        loaded.variables, pixels
    )
    spread = wanted.std()
    np.testing.assert_allclose(logits / spread, wanted / spread, atol=1e-5)


def test_a_shortcut_of_another_kind_gives_other_logits(zoo, torch, rng):
    """What names and shapes can't tell, so the network must be named rightly."""
    theirs = shaken(torch, zoo("preact:raw"))
    pixels = rng.random((2, 32, 32, 3), np.float32)
    found = []
    for name in ("preact_resnet18", "preact_resnet18_activated"):
        variables = torch_weights.from_torch(name, theirs.state_dict())
        model = models.build(name, num_classes=10)
        found.append(np.asarray(model.apply(variables, pixels, train=False)))
    assert np.abs(found[0] - found[1]).max() > 0.01 * found[0].std()
    with pytest.raises(ValueError, match=r"missing: bn\..*preact_resnet18_bare"):
        torch_weights.from_torch("preact_resnet18", zoo("preact:bare").state_dict())


def test_the_page_has_all_entries_of_the_package(zoo):
    from robustbench.model_zoo import model_dicts
    from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel

    page = (ROOT / "docs" / "robustbench.md").read_text()
    titles = {"CIFAR-10": "cifar10", "CIFAR-100": "cifar100", "ImageNet": "imagenet"}
    for title, board in titles.items():
        part = page.partition(f"## {title}\n")[2].partition("## ")[0]
        rows = re.findall(r"^\| (\w+) \| [\d.,]+ M \| (\S+) \| ", part, re.M)
        listed = model_dicts[BenchmarkDataset(board)][ThreatModel.corruptions]
        assert [name for name, _ in rows] == list(listed)
        for name, ours in rows:
            tested = (ARCHITECTURES | LARGE).get(f"{board}:{name}")
            assert tested is None or ours == f"`{tested}`", name
