"""Grad-CAM against PyTorch and against CAM, and its place on the image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import models
from apr_jax.models import grad_cam, layers, torch_weights
from tests import toy

# Networks that take long to trace, beside others of their kind.
DEEP = {
    "densenet_bc_100_12",
    *("densenet_40_12", "resnet50_blur", "resnext29_32x4", "resnet34_imagenet"),
    *("resnet50_cifar", "resnet50", "wrn_40_2", "resnet18_128"),
    *("preact_resnet50", "preact_resnet50_bare"),
    *("preact_resnet18_activated", "preact_resnet18_bare"),
}

run = jax.jit(grad_cam.grad_cam, static_argnums=0)


def state_dict(name, rng, *, num_classes):
    """Random tensors with the names and layout of the PyTorch network."""
    tensors = {}
    wanted = torch_weights._template(name, num_classes=num_classes)
    for path, shape in wanted.items():
        key = torch_weights._torch_name(path)
        if key.endswith("running_var") or path[-1] == "scale":
            value = rng.uniform(0.5, 1.5, shape)
        elif path[-1] == "kernel":
            shape = torch_weights._torch_shape(shape, "kernel")
            value = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        else:
            value = 0.1 * rng.standard_normal(shape)
        tensors[key] = value.astype(np.float32)
    return tensors


class Torch:
    """Networks of torch.nn.functional alone, up to their last maps."""

    def __init__(self, torch, tensors):
        self.f = torch.nn.functional
        self.w = {k: torch.tensor(v) for k, v in tensors.items()}
        self.cat = lambda parts: torch.cat(parts, 1)
        self.gelu = lambda x: x * torch.sigmoid(1.702 * x)

    def conv(self, x, name, stride=1):
        kernel = self.w[f"{name}.weight"]
        pad = kernel.shape[-1] // 2
        return self.f.conv2d(
            x, kernel, self.w.get(f"{name}.bias"), stride=stride, padding=pad
        )

    def norm(self, x, name):
        leaves = ("running_mean", "running_var", "weight", "bias")
        return self.f.batch_norm(x, *(self.w[f"{name}.{leaf}"] for leaf in leaves))

    def active(self, x, name):
        return self.f.relu(self.norm(x, name))

    def wrn_10_1(self, x):
        x = self.conv(x, "conv1")
        for i, stride in enumerate((1, 2, 2), 1):
            at = f"block{i}.layer.0"
            y = self.active(x, f"{at}.bn1")
            wider = f"{at}.conv_shortcut.weight" in self.w
            x = self.conv(y, f"{at}.conv_shortcut", stride) if wider else x
            y = self.active(self.conv(y, f"{at}.conv1", stride), f"{at}.bn2")
            x = x + self.conv(y, f"{at}.conv2")
        return self.active(x, "bn1")

    def resnet18(self, x):
        x = self.active(self.conv(x, "conv1"), "bn1")
        for i in range(1, 5):
            for j in range(2):
                at, stride = f"layer{i}.{j}", 2 if i > 1 and j == 0 else 1
                y = self.active(self.conv(x, f"{at}.conv1", stride), f"{at}.bn1")
                y = self.norm(self.conv(y, f"{at}.conv2"), f"{at}.bn2")
                if stride == 2:
                    x = self.conv(x, f"{at}.shortcut.0", stride)
                    x = self.norm(x, f"{at}.shortcut.1")
                x = self.f.relu(x + y)
        return x

    def allconv(self, x):
        for index in (0, 3, 6, 11, 14, 17, 22, 25, 28):
            at = f"features.{index}"
            # The released network pads 1x1 kernels, and not the last 3x3 one.
            pad = {22: 0}.get(index, 1)
            bias = self.w[f"{at}.bias"]
            x = self.f.conv2d(x, self.w[f"{at}.weight"], bias, padding=pad)
            x = self.gelu(self.norm(x, f"features.{index + 1}"))
            if index in (6, 17):
                x = self.f.max_pool2d(x, 2)
        return x[:, :, :-2, :-2]

    def densenet_40_12(self, x):
        x = self.conv(x, "conv1")
        for block in (1, 2, 3):
            for i in range(12):
                at = f"dense{block}.{i}"
                y = self.conv(self.active(x, f"{at}.bn1"), f"{at}.conv1")
                x = self.cat([x, y])
            if block < 3:
                at = f"trans{block}"
                x = self.conv(self.active(x, f"{at}.bn1"), f"{at}.conv1")
                x = self.f.avg_pool2d(x, 2)
        return self.active(x, "bn1")


@pytest.mark.parametrize(
    ("name", "height", "width"),
    [
        ("wrn_10_1", 9, 12),
        ("allconv", 16, 13),
        ("resnet18", 16, 11),
        pytest.param("densenet_40_12", 9, 8, marks=pytest.mark.slow),
    ],
)
def test_grad_cam_is_pytorchs(rng, name, height, width, torch):
    tensors = state_dict(name, rng, num_classes=5)
    images = rng.normal(size=(3, height, width, 3)).astype(np.float32)
    classes = np.array([4, 0, 2])
    theirs = Torch(torch, tensors)
    maps = getattr(theirs, name)(torch.tensor(images.transpose(0, 3, 1, 2)))
    maps.requires_grad_()
    maps.retain_grad()
    head = next(h for h in ("fc", "linear", "classifier") if f"{h}.bias" in tensors)
    logits = theirs.f.linear(
        maps.mean((2, 3)), theirs.w[f"{head}.weight"], theirs.w[f"{head}.bias"]
    )
    logits[torch.arange(3), torch.tensor(classes)].sum().backward()
    weights = maps.grad.mean((2, 3), keepdim=True)
    expected = theirs.f.relu((weights * maps).sum(1)).detach().numpy()

    variables = torch_weights.from_torch(name, tensors)
    found = run(models.build(name, num_classes=5), variables, images, classes)
    scale = expected.max()
    assert (expected > 0.1 * scale).any()
    assert found.heatmap.shape == expected.shape
    np.testing.assert_allclose(found.heatmap / scale, expected / scale, atol=1e-4)
    theirs_logits = logits.detach().numpy()
    spread = theirs_logits.std()
    np.testing.assert_allclose(found.logits / spread, theirs_logits / spread, atol=1e-4)


@pytest.fixture(scope="module")
def small():
    rng = np.random.default_rng(3)
    tensors = state_dict("wrn_10_1", rng, num_classes=4)
    variables = torch_weights.from_torch("wrn_10_1", tensors)
    return models.build("wrn_10_1", num_classes=4), variables


def test_it_is_cam_where_a_linear_layer_follows_the_mean(small, rng):
    model, variables = small
    images = rng.normal(size=(5, 11, 8, 3)).astype(np.float32)
    found = run(model, variables, images)
    answers = np.asarray(found.logits).argmax(1)
    np.testing.assert_array_equal(found.classes, answers)
    plain = jax.jit(lambda v, x: model.apply(v, x, train=False))
    np.testing.assert_array_equal(found.logits, plain(variables, images))

    forward = jax.jit(
        lambda v, x: model.apply(v, x, train=False, mutable=["intermediates"])
    )
    _, kept = forward(variables, images)
    (maps,) = kept["intermediates"][layers.LAST_MAPS]["maps"]
    kernel = np.asarray(variables["params"]["fc"]["kernel"])[:, answers]
    cam = np.maximum(np.einsum("nhwk,kn->nhw", maps, kernel), 0)
    places = maps.shape[1] * maps.shape[2]
    assert cam.max() > 0
    np.testing.assert_allclose(found.heatmap * places, cam, atol=1e-5 * cam.max())


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[pytest.mark.slow] if n in DEEP else [])
        for n in (*models.MODELS, "wrn_16_2")
    ],
)
def test_every_network_has_it(name):
    model = models.build(name, num_classes=7)
    size = max(32, 2 * model.minimum_size)
    image = jnp.zeros((2, size, size, 3))
    variables = jax.eval_shape(
        lambda: model.init(jax.random.key(0), image, train=False)
    )
    assert set(variables) - {"constants"} == {"params", "batch_stats"}
    found = jax.eval_shape(lambda v: grad_cam.grad_cam(model, v, image), variables)
    side = found.heatmap.shape[1]
    assert found.heatmap.shape == (2, side, side)
    assert size // side in (4, 8, 32)
    assert found.heatmap.dtype == jnp.float32


def test_other_networks_are_refused(key):
    model = toy.TinyNet(num_classes=3)
    images = jnp.zeros((1, 8, 8, 3))
    init = lambda: model.init(key, images, train=False)
    variables = jax.eval_shape(init)
    explain = lambda v: grad_cam.grad_cam(model, v, images)
    with pytest.raises(ValueError, match="TinyNet keeps no last maps"):
        jax.eval_shape(explain, variables)


def test_pixels_of_either_type_give_maps_of_the_image(small, rng, tmp_path):
    model, variables = small
    data = toy.config(tmp_path).data
    images = rng.integers(0, 256, (3, 10, 9, 3), np.uint8)
    classes = np.array([0, 3, 1])
    explain = grad_cam.make_grad_cam(model, data)
    maps, found = explain(variables, images, classes)
    again, _ = explain(variables, np.float32(images) / 255, classes)
    np.testing.assert_allclose(maps, again, atol=1e-5 * np.max(maps))
    assert maps.shape == (3, 10, 9)
    inputs = (np.float32(images) / 255 - np.float32(data.mean)) / np.float32(data.std)
    direct = run(model, variables, inputs, classes)
    np.testing.assert_allclose(
        found.heatmap, direct.heatmap, atol=1e-4 * np.max(direct.heatmap)
    )


def test_upsample_puts_places_where_they_were():
    heatmap = np.zeros((1, 4, 4), np.float32)
    heatmap[0, 2, 1] = 1
    grown = np.asarray(grad_cam.upsample(heatmap, 32, 16))[0]
    rows, columns = np.nonzero(grown == grown.max())
    assert (rows.mean(), columns.mean()) == (19.5, 5.5)
    shifted = np.asarray(grad_cam.upsample(heatmap, 32, 16, offset=1))[0]
    np.testing.assert_allclose(shifted[4:20, 2:8], grown[12:28, 6:12], atol=1e-6)
    assert not shifted[24:].any()


@pytest.mark.slow
def test_allconv_looks_where_its_offset_says(rng, tmp_path):
    """A bright spot moves the maps at the place that the offset gives."""
    model = models.build("allconv", num_classes=3)
    tensors = state_dict("allconv", rng, num_classes=3)
    variables = torch_weights.from_torch("allconv", tensors)
    forward = jax.jit(
        lambda v, x: model.apply(v, x, train=False, mutable=["intermediates"])[1]
    )
    maps_of = lambda x: forward(variables, x)["intermediates"][layers.LAST_MAPS]["maps"]
    images = np.zeros((1, 48, 48, 3), np.float32)
    spot = images.copy()
    spot[:, 24:28, 16:20] = 0.2
    change = np.abs(maps_of(spot)[0] - maps_of(images)[0]).sum((0, 3))
    # Places are 4 pixels, so the spot is place (6, 4) of an image without the offset.
    rows, columns = np.indices(change.shape)
    centre = [(change * i).sum() / change.sum() for i in (rows, columns)]
    np.testing.assert_allclose(centre, [6 + 1, 4 + 1], atol=0.6)
