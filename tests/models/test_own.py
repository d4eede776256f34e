"""Networks of a user's own file: built, trained and measured as the built-in ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import config as config_lib
from apr_jax import job, models
from apr_jax.errors import ConfigError
from apr_jax.models import flops
from apr_jax.runs import records
from tests import toy

SOURCE = """
import flax.linen as nn
import jax.numpy as jnp

class Net(nn.Module):
    classes: int
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images, deterministic):
        maps = nn.Conv(6, (3, 3))(images)
        maps = nn.BatchNorm(deterministic, axis_name=self.axis_name)(maps)
        maps = nn.Dropout(0.5)(nn.relu(maps), deterministic=deterministic)
        return nn.Dense(self.classes)(nn.relu(nn.Dense(5)(maps.mean((1, 2)))))

def create(num_classes, axis_name=None):
    return Net(num_classes, axis_name)

class Plain(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, images):
        return nn.Conv(self.classes, (3, 3))(images).mean((1, 2))

def plain(num_classes, dtype):
    return Plain(num_classes)

def wrong(num_classes):
    return nn.Conv(num_classes, (3, 3))

def nothing(num_classes):
    return len

def fixed():
    return Plain(3)
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


def test_features_are_what_the_last_layer_takes(file, key, rng):
    model = models.build(str(file), num_classes=4)
    images = rng.normal(size=(3, 8, 8, 3)).astype(np.float32)
    init = jax.jit(functools.partial(model.init, train=False))
    apply = jax.jit(model.apply, static_argnames=("train", "capture", "mutable"))
    variables = jax.device_get(init(key, images))
    logits, features = apply(variables, images, train=False, capture=True)
    assert features.shape == (3, 5)
    last = variables["params"]["inner"]["Dense_0"]
    np.testing.assert_allclose(
        features @ last["kernel"] + last["bias"][None], logits, rtol=1e-5, atol=1e-6
    )
    plain = apply(variables, images, train=False)
    np.testing.assert_allclose(plain, logits, rtol=1e-6, atol=1e-6)
    # In training there is dropout, and BatchNorm takes the batch's statistics.
    found, changed = apply(
        variables, images, train=True, mutable=("batch_stats",), rngs={"dropout": key}
    )
    assert not np.allclose(found, logits)
    assert toy.farthest(changed["batch_stats"], variables["batch_stats"]) > 0


def test_a_network_without_a_linear_layer_has_logits_for_features(file, key):
    model = models.build(f"{file}:plain", num_classes=4, dtype=jnp.bfloat16)
    images = jnp.ones((2, 8, 8, 3))
    variables = model.init(key, images, train=False)
    assert set(variables) == {"params"}
    logits, features = model.apply(variables, images, train=False, capture=True)
    np.testing.assert_array_equal(logits, features)
    kernel = variables["params"]["inner"]["Conv_0"]["kernel"]
    size = flops.parameters(f"{file}:plain", num_classes=4, size=8)
    assert size == kernel.size + 4


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        ("wrong", ValueError, r"mine_wrong gives \(3, 8, 8, 4\) for \[3, 8, 8, 3\]"),
        ("nothing", ValueError, "mine_nothing makes a builtin.*a module of Flax Linen"),
        ("fixed", ValueError, "mine_fixed must take num_classes"),
        ("none", ConfigError, r"has no function 'none'; it has Net, create, Plain"),
    ],
)
def test_what_is_no_network_is_said(file, function, error, message):
    def build():
        model = models.build(f"{file}:{function}", num_classes=4)
        images = jnp.zeros((3, 8, 8, 3))
        jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))

    with pytest.raises(error, match=message):
        build()


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"model.name is '.*gone.py', and .* isn't"):
        models.build(str(tmp_path / "gone.py"), num_classes=4)
    (tmp_path / "old.py").write_text(SOURCE)
    with pytest.raises(ValueError, match="takes no dtype"):
        models.build(f"{tmp_path / 'old.py'}", num_classes=4, dtype=jnp.bfloat16)


def test_the_name_of_the_file_alone_is_in_the_hash(tmp_path):
    one, other = (
        config_lib.parse({"model": {"name": f"{place}/mine.py:create"}})
        for place in ("a", "b")
    )
    assert config_lib.config_hash(one) == config_lib.config_hash(other)
    third = config_lib.parse({"model": {"name": "a/mine.py:plain"}})
    assert config_lib.config_hash(one) != config_lib.config_hash(third)


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_it_trains_with_recombination_and_is_measured(folder, file, tmp_path, devices):
    config = toy.config(
        folder,
        model__name=str(file),
        optim__epochs=1.0,
        train__devices=devices,
        augment__method="apr_p",
        eval__parts=("clean",),
    )
    assert job.run(config, tmp_path / "run", quiet=True) is None
    found = records.read(tmp_path / "run" / "results.jsonl")
    assert {r.metric for r in found} >= {"accuracy", "error", "ece"}
