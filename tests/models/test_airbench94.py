"""airbench94 against the same network of torch.nn, its whitening against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import models
from apr_jax.models import airbench94, flops, torch_weights


def theirs(torch, classes):
    """The network with the names of ours, of torch.nn alone."""
    nn = torch.nn

    class Norm(nn.BatchNorm2d):
        def __init__(self, width):
            super().__init__(width, eps=1e-12, momentum=0.4)
            del self.weight
            self.weight = None

    class Block(nn.Module):
        def __init__(self, inputs, width):
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
            self.norm1 = Norm(width)
            self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
            self.norm2 = Norm(width)

        def forward(self, x):
            gelu = nn.functional.gelu
            x = nn.functional.max_pool2d(self.conv1(x), 2)
            return gelu(self.norm2(self.conv2(gelu(self.norm1(x)))))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.whiten = nn.Conv2d(3, 24, 2)
            self.block1, self.block2 = Block(24, 64), Block(64, 256)
            self.block3 = Block(256, 256)
            self.fc = nn.Linear(256, classes, bias=False)

        def forward(self, x):
            x = nn.functional.gelu(self.whiten(x))
            x = self.block3(self.block2(self.block1(x)))
            return self.fc(nn.functional.max_pool2d(x, 3).mean((2, 3))) / 9

    return Net()


@pytest.mark.parametrize("size", [32, (53, 29)])
def test_it_is_the_network_of_torch(rng, size):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = theirs(torch, 7)
    net.whiten.requires_grad_(False)
    net.whiten.bias.requires_grad_(True)
    for block in (net.block1, net.block2, net.block3):
        for norm in (block.norm1, block.norm2):
            torch.nn.init.uniform_(norm.bias, -1, 1)
    # Copies: training changes the tensors in place.
    state = {k: v.detach().numpy().copy() for k, v in net.state_dict().items()}
    variables = torch_weights.from_torch("airbench94", state)
    learnt = sum(p.numel() for p in net.parameters() if p.requires_grad)
    assert sum(p.size for p in jax.tree.leaves(variables["params"])) == learnt
    shape = (3, *np.broadcast_to(size, 2), 3)
    images = rng.normal(size=shape).astype(np.float32)
    inputs = torch.tensor(images.transpose(0, 3, 1, 2))
    with torch.no_grad():
        trained = net(inputs).numpy()
        after = {k: v.numpy() for k, v in net.state_dict().items()}
        expected = net.eval()(inputs).numpy()
    model = models.build("airbench94", num_classes=7)
    run = jax.jit(lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]))
    logits, updates = run(variables, images)
    np.testing.assert_allclose(
        logits / trained.std(), trained / trained.std(), atol=1e-3
    )
    want = torch_weights.from_torch("airbench94", after)["batch_stats"]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
        updates["batch_stats"],
        want,
    )
    plain = jax.jit(lambda v, x: model.apply(v, x, train=False))
    logits = plain({**variables, **updates}, images)
    scale = expected.std()
    np.testing.assert_allclose(logits / scale, expected / scale, atol=1e-3)


def test_size_of_the_published_one():
    assert flops.parameters("airbench94", num_classes=10, size=32) == 1_971_352
    # 9.9 epochs of three passes; published as 3.6e14, all told.
    adds = flops.multiply_adds("airbench94", num_classes=10, size=32)
    assert 2 * 3 * adds * 9.9 * 50_000 == pytest.approx(3.6e14, rel=0.05)


def test_it_starts_as_the_identity(key):
    model = models.build("airbench94", num_classes=10)
    image = jnp.zeros((1, 32, 32, 3))
    variables = jax.jit(lambda k: model.init(k, image, train=False))(key)
    assert set(variables) == {"params", "batch_stats", "constants"}
    x = jax.random.normal(key, (2, 6, 5, 64))
    for block, inputs in (("block1", 24), ("block2", 64), ("block3", 256)):
        kernel = np.asarray(variables["params"][block]["conv1"]["kernel"])
        same = np.zeros((3, 3, inputs, inputs))
        same[1, 1] = np.eye(inputs)
        np.testing.assert_array_equal(kernel[..., :inputs], same)
        rest = kernel[..., inputs:]
        assert np.abs(rest).max(initial=0) <= (9 * inputs) ** -0.5
    kernel = variables["params"]["block1"]["conv2"]["kernel"]
    got = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(got, x, atol=1e-6)


def test_whitening_is_of_the_eigenvectors(rng):
    smooth = rng.normal(size=(7, 9, 6, 3)).cumsum(1).cumsum(2).astype(np.float32)
    epsilon = 0.3
    kernel = airbench94.whitening(smooth, epsilon=epsilon)
    assert kernel.shape == (2, 2, 3, 24)
    np.testing.assert_array_equal(kernel[..., 12:], -kernel[..., :12])
    patches = [
        image[i : i + 2, j : j + 2].reshape(-1)
        for image in smooth.astype(np.float64)
        for i in range(8)
        for j in range(5)
    ]
    # By the singular values of the patches, not by their moments.
    _, singular, right = np.linalg.svd(np.array(patches), full_matrices=False)
    values = singular**2 / len(patches)
    want = right.T / np.sqrt(values + epsilon)
    got = kernel[..., :12].reshape(12, 12)
    signs = np.sign((got * want).sum(0))
    np.testing.assert_allclose(got * signs, want, atol=1e-4 * np.abs(want).max())
    assert (got[np.abs(got).argmax(0), np.arange(12)] > 0).all()
    # What the layer gives is uncorrelated, of variance one but for epsilon.
    answers = np.array(patches) @ got
    moments = answers.T @ answers / len(patches)
    np.testing.assert_allclose(moments, np.diag(values / (values + epsilon)), atol=1e-4)


def test_whitening_goes_by_pieces(rng, monkeypatch):
    images = rng.normal(size=(11, 5, 4, 3)).astype(np.float32)
    whole = airbench94.whitening(images)
    monkeypatch.setattr(airbench94, "_CHUNK", 4)
    np.testing.assert_allclose(
        airbench94.whitening(images), whole, rtol=1e-4, atol=1e-5
    )


def test_bfloat16_is_near_float32(key):
    images = jax.random.normal(key, (8, 32, 32, 3))
    wide, narrow = (
        models.build("airbench94", num_classes=5, dtype=d)
        for d in (jnp.float32, jnp.bfloat16)
    )
    variables = jax.jit(lambda k: wide.init(k, images, train=False))(key)
    one = jax.jit(lambda v, x: wide.apply(v, x, train=False))(variables, images)
    two = jax.jit(lambda v, x: narrow.apply(v, x, train=False))(variables, images)
    assert two.dtype == jnp.float32
    assert 0 < jnp.abs(one - two).max() < 0.05 * jnp.abs(one).max()
