"""Attacks on a PyTorch module by torchax, beside ``torchattacks`` on the module."""

import functools
import importlib.util

import jax
import numpy as np
import pytest

from apr_jax import attacks
from apr_jax.evaluate.classifier import Classifier

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore"),  # of other people's packages
    pytest.mark.skipif(
        any(importlib.util.find_spec(p) is None for p in ("torchax", "torchattacks")),
        reason="needs torchax and torchattacks",
    ),
]
COUNT, SIDE, CLASSES, EPS, STEPS = 64, 12, 5, 0.005, 8


@pytest.fixture(scope="module")
def problem(torch):
    """A module, its classifier here, images in [0, 1] and the answers as labels."""
    torch.manual_seed(0)
    nn = torch.nn
    module = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(64, CLASSES)),
    )
    module(torch.rand(64, 3, SIDE, SIDE))
    module.eval()
    images = np.random.default_rng(0).random((COUNT, SIDE, SIDE, 3), np.float32)
    with torch.no_grad():
        logits = module(pixels_of(torch, images))
        module[-1].bias -= logits.mean(0)  # answers that differ from image to image
        labels = module(pixels_of(torch, images)).argmax(1).numpy()
    made = Classifier.from_torch(module, classes=CLASSES, image_size=SIDE)
    return module, made, images, labels


def pixels_of(torch, images):
    return torch.tensor(images.transpose(0, 3, 1, 2).copy())


def standing(torch, module, attack, images, labels):
    """The points that stand under an attack of theirs, bool [N]."""
    found = attack(pixels_of(torch, images), torch.tensor(labels)).detach()
    far = (found - pixels_of(torch, images)).abs().amax((1, 2, 3)) > EPS + 1e-5
    with torch.no_grad():
        still = module(found).argmax(1).numpy() == labels
    return still | far.numpy()


def survivors(made, attack, images, labels):
    predict = functools.partial(lambda v, x: made.predict(v, x)[0], made.variables)
    options = {"eps": EPS, "norm": "linf", "chunk": COUNT}
    return attack(jax.random.key(0), predict, images, labels, **options).robust


def test_the_same_points_stand_where_nothing_is_drawn(problem, torch):
    module, made, images, labels = problem
    torchattacks = pytest.importorskip("torchattacks")
    theirs = torchattacks.FGSM(module, eps=EPS)
    wanted = standing(torch, module, theirs, images, labels)
    assert 0.1 < wanted.mean() < 0.9
    mine = survivors(made, attacks.fgsm, images, labels)
    np.testing.assert_array_equal(mine, wanted)

    step = EPS / 4
    theirs = torchattacks.PGD(
        module, eps=EPS, alpha=step, steps=STEPS, random_start=False
    )
    wanted = standing(torch, module, theirs, images, labels)
    assert 0.1 < wanted.mean() < 0.9
    attack = functools.partial(
        attacks.pgd, steps=STEPS, step_size=step, random_start=False
    )
    mine = survivors(made, attack, images, labels)
    # Here a point falls at any step, theirs at the last one.
    assert not (mine & ~wanted).any()
    assert (mine != wanted).sum() <= 1


@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_as_many_points_stand_where_starts_are_drawn(problem, torch, loss):
    module, made, images, labels = problem
    torchattacks = pytest.importorskip("torchattacks")
    torch.manual_seed(0)
    theirs = torchattacks.APGD(module, norm="Linf", eps=EPS, steps=20, loss=loss)
    wanted = standing(torch, module, theirs, images, labels)
    assert 0.1 < wanted.mean() < 0.9
    attack = functools.partial(attacks.apgd, steps=20, loss=loss)
    mine = survivors(made, attack, images, labels)
    assert (mine != wanted).sum() <= 1
