"""Robust accuracy beside that of ``torchattacks``, on the same weights and images."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import attacks

pytestmark = pytest.mark.parity

COUNT, CLASSES, SIDE = 64, 6, 8
EPS = {"linf": 0.04, "l2": 0.35}


def logits_fn(weights, images):
    x = jax.lax.conv_general_dilated(
        images - 0.5,
        weights["conv"],
        (1, 1),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    x = jax.nn.relu(x)
    x = x.reshape(len(x), SIDE // 2, 2, SIDE // 2, 2, -1).mean((2, 4))
    return x.reshape(len(x), -1) @ weights["fc"]


@pytest.fixture(scope="module")
def problem(torch):
    """Weights, images, labels, and the network in PyTorch."""
    rng = np.random.default_rng(2)
    weights = {
        "conv": rng.normal(0, 0.5, (3, 3, 3, 8)).astype(np.float32),
        "fc": rng.normal(0, 0.8, (8 * (SIDE // 2) ** 2, CLASSES)).astype(np.float32),
    }
    images = rng.uniform(0, 1, (COUNT, SIDE, SIDE, 3)).astype(np.float32)
    labels = np.asarray(logits_fn(weights, jnp.asarray(images))).argmax(1)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            kernel = torch.tensor(weights["conv"].transpose(3, 2, 0, 1).copy())
            self.conv = torch.nn.Parameter(kernel)
            # Flattened, PyTorch's features have the channels first.
            fc = weights["fc"].reshape(SIDE // 2, SIDE // 2, 8, CLASSES)
            fc = fc.transpose(2, 0, 1, 3).reshape(-1, CLASSES)
            self.fc = torch.nn.Parameter(torch.tensor(fc.copy()))

        def forward(self, x):
            x = torch.relu(torch.nn.functional.conv2d(x - 0.5, self.conv, padding=1))
            x = torch.nn.functional.avg_pool2d(x, 2)
            return x.flatten(1) @ self.fc

    return weights, images, labels, Net().eval()


def theirs(network, name, norm):
    torchattacks = pytest.importorskip("torchattacks")
    eps = EPS[norm]
    given = {"norm": {"linf": "Linf", "l2": "L2"}[norm], "eps": eps}
    if name == "fgsm":
        return torchattacks.FGSM(network, eps=eps)
    if name == "pgd":
        pgd = torchattacks.PGD if norm == "linf" else torchattacks.PGDL2
        return pgd(network, eps=eps, alpha=eps / 4, steps=20)
    if name == "apgd-t":
        return torchattacks.APGDT(network, steps=20, n_classes=CLASSES, **given)
    if name.startswith("apgd"):
        return torchattacks.APGD(network, loss=name[5:], steps=20, **given)
    if name.startswith("fab"):
        return torchattacks.FAB(
            network,
            steps=20,
            n_classes=CLASSES,
            multi_targeted=name == "fab-t",
            **given,
        )
    return torchattacks.Square(network, n_queries=200, **given)


OURS = {
    "fgsm": attacks.fgsm,
    "pgd": functools.partial(attacks.pgd, steps=20),
    "apgd-ce": functools.partial(attacks.apgd, steps=20),
    "apgd-dlr": functools.partial(attacks.apgd, loss="dlr", steps=20),
    "apgd-t": functools.partial(attacks.apgd, loss="dlr-targeted", steps=20),
    "fab": functools.partial(attacks.fab, steps=20),
    "fab-t": functools.partial(attacks.fab, targeted=True, steps=20),
    "square": functools.partial(attacks.square, queries=200),
}


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", list(OURS))
@pytest.mark.filterwarnings("default")  # theirs uses what PyTorch has given up
def test_no_weaker_than_torchattacks(name, norm, problem, key, torch):
    if (name, norm) == ("fgsm", "l2"):
        pytest.skip("torchattacks has no FGSM for l2")
    weights, images, labels, network = problem
    torch.manual_seed(0)
    attack = theirs(network, name, norm)
    found = attack(
        torch.tensor(images.transpose(0, 3, 1, 2).copy()), torch.tensor(labels)
    )
    found = found.detach()
    with torch.no_grad():
        still = network(found).argmax(1).numpy() == labels
    delta = (found.numpy().transpose(0, 2, 3, 1) - images).reshape(COUNT, -1)
    order = {"linf": np.inf, "l2": 2}[norm]
    still |= np.linalg.norm(delta, order, axis=1) > EPS[norm] + 1e-4
    result = OURS[name](
        key,
        functools.partial(logits_fn, weights),
        images,
        labels,
        norm=norm,
        eps=EPS[norm],
        chunk=COUNT,
    )
    assert 0.02 < still.mean() < 0.98, "the comparison says nothing"
    # Square is luck; the others follow the same gradients.
    slack = 5 if name == "square" else 1
    assert result.robust.sum() <= still.sum() + slack
