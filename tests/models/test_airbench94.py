"""airbench94 against the same network of torch.nn, its whitening against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import config as config_lib
from apr_jax import models, network, presets
from apr_jax.models import airbench94, flops, torch_weights
from apr_jax.train import averaging, optim, step
from apr_jax.train.state import TrainState


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
            x = nn.functional.max_pool2d(self.conv1(x), 2)
            return gelu(self.norm2(self.conv2(gelu(self.norm1(x)))))

    def gelu(x):
        return x * torch.sigmoid(1.702 * x)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.whiten = nn.Conv2d(3, 24, 2)
            self.block1, self.block2 = Block(24, 64), Block(64, 256)
            self.block3 = Block(256, 256)
            self.fc = nn.Linear(256, classes, bias=False)

        def forward(self, x):
            x = gelu(self.whiten(x))
            x = self.block3(self.block2(self.block1(x)))
            return self.fc(nn.functional.max_pool2d(x, 3).mean((2, 3))) / 9

    return Net()


@pytest.mark.parametrize("size", [32, (53, 29)])
def test_it_is_the_network_of_torch(rng, size, torch):
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


def test_the_recipe_is_the_published_one(rng, torch):
    """Six steps of training, schedule to lookahead, by PyTorch's own optimiser."""
    torch.manual_seed(0)
    total, batch = 6, 16
    kilo = 1024 * (1 + 1 / (1 - 0.85))
    rate, decay = 11.5 / kilo, 0.0153 * batch / kilo
    net = theirs(torch, 10)
    net.whiten.weight.requires_grad_(False)
    config = presets.cifar10_fast("standard")
    config.model.dtype = "float32"
    config.augment.update(crop_pad=0, flip=False)
    config.optim.update(learning_rate=rate * batch, weight_decay=decay)
    config = config_lib.parse(config.to_dict())
    state = {k: v.detach().numpy().copy() for k, v in net.state_dict().items()}
    variables = dict(torch_weights.from_torch("airbench94", state))
    learnt = {name: variables[name] for name in ("params", "batch_stats")}
    schedule = optim.schedule(config.optim, total / config.optim.epochs)
    ours = optim.make_optimizer(config.optim, schedule)
    state = TrainState(
        jnp.int32(0),
        **learnt,
        opt_state=ours.init(learnt["params"]),
        constants=variables["constants"],
        average=learnt,
    )
    model = network.make_model(config, num_classes=10)
    update = averaging.make_update(config, total)
    run = jax.jit(step.make_train_step(model, ours, config, average=update))

    images = rng.integers(0, 256, (total, batch, 32, 32, 3), np.uint8)
    labels = rng.integers(0, 10, (total, batch))
    norms = [p for k, p in net.named_parameters() if "norm" in k]
    others = [p for k, p in net.named_parameters() if "norm" not in k]
    optimiser = torch.optim.SGD(
        [
            {"params": norms, "lr": 64 * rate, "weight_decay": decay / (64 * rate)},
            {
                "params": [p for p in others if p.requires_grad],
                "lr": rate,
                "weight_decay": decay / rate,
            },
        ],
        momentum=0.85,
        nesterov=True,
    )
    tops = [group["lr"] for group in optimiser.param_groups]
    loss_fn = torch.nn.CrossEntropyLoss(label_smoothing=0.2, reduction="sum")
    floats = {k: v for k, v in net.state_dict().items() if v.is_floating_point()}
    average = {k: v.clone() for k, v in floats.items()}
    for i in range(total):
        share = np.interp(i, [0, 0.23 * total, total], [0.2, 1, 0.07])
        for group, top in zip(optimiser.param_groups, tops, strict=True):
            group["lr"] = float(top * share)
        pixels = torch.tensor(images[i].transpose(0, 3, 1, 2) / 255)
        shape = (1, 3, 1, 1)
        mean = torch.tensor(config.data.mean).reshape(shape)
        inputs = (pixels - mean) / torch.tensor(config.data.std).reshape(shape)
        optimiser.zero_grad()
        loss = loss_fn(net(inputs.float()), torch.tensor(labels[i]))
        loss.backward()
        optimiser.step()
        state, metrics = run(
            state,
            images[i],
            jnp.asarray(labels[i]),
            jnp.arange(batch),
            jax.random.key(0),
        )
        assert metrics["loss"] == pytest.approx(loss.item() / batch, rel=1e-4)
        if (i + 1) % 5 == 0:
            kept = 0.95**5 * ((i + 1) / total) ** 3
            with torch.no_grad():
                for key, value in floats.items():
                    average[key].lerp_(value, 1 - kept)
                    value.copy_(average[key])
    arrays = {k: v.numpy() for k, v in average.items()}
    want = torch_weights.from_torch("airbench94", arrays)
    for name, tree in state.average.items():
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(
                a, b, atol=0.02 * np.std(b) + 1e-6, rtol=0.01
            ),
            tree,
            want[name],
        )
