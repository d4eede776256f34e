"""``train.init_from``: a run that begins with trained weights."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from apr_jax import models
from apr_jax.errors import ConfigError
from apr_jax.models import torch_weights
from apr_jax.train import init_from, loop
from apr_jax.train import plan as plan_lib
from apr_jax.train.seeds import Lanes
from tests import toy
from tests.train.test_loop import PLAIN

pytestmark = pytest.mark.usefixtures("_tiny_model")
NAMES = tuple("0123")


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """A finished run, and its last state."""
    root = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "tiny", toy.TinyNet)
        config = toy.config(folder, optim__epochs=1.0, **PLAIN)
        found = loop.train(plan_lib.plan(config, root), quiet=True)
    return root, found.state


def config_of(folder, place, **changes):
    changes = PLAIN | changes
    return toy.config(folder, optim__epochs=1.0, train__init_from=str(place), **changes)


def begun(config, names=NAMES):
    """The first state of a run of other classes."""
    plan = plan_lib.plan(config, pathlib.Path(config.data.cache_dir) / "unused")
    plan = dataclasses.replace(plan, class_names=names)
    model = models.build("tiny", num_classes=len(names))
    start = plan_lib.initial_state(dataclasses.replace(plan, model=model))
    return start, init_from.begin(config, start, names)


def same(one, other):
    return jax.tree.all(jax.tree.map(np.array_equal, one, other))


def test_a_run_begins_with_the_weights_of_another(folder, trained, tmp_path, capsys):
    root, state = trained
    config = config_of(folder, root, optim__average="ema")
    plan = plan_lib.plan(config, tmp_path / "run")
    lanes = Lanes([plan])
    (start,) = lanes.states
    for saved in lanes.saved:
        saved.close()
    assert int(start.step) == 0
    assert same(start.params, state.params)
    assert same(start.batch_stats, state.batch_stats)
    assert same(start.average["params"], state.params)
    assert "begins with the weights of" in capsys.readouterr().err
    loop.train(plan, quiet=True)
    # It goes on from its own checkpoint, even if those weights are no longer there.
    capsys.readouterr()
    away = dataclasses.replace(
        config, train=dataclasses.replace(config.train, init_from="gone/run")
    )
    again = plan_lib.plan(away, tmp_path / "run")
    assert plan_lib.saved_step(again) == again.total_steps
    assert loop.train(again, quiet=True).step == again.total_steps
    assert "begins with" not in capsys.readouterr().err


def test_other_classes_begin_with_another_last_layer(folder, trained, capsys):
    root, state = trained
    for names in (tuple("abcde"), tuple("1023")):
        start, found = begun(config_of(folder, root), names)
        assert same(found.params["Dense_0"], start.params["Dense_0"])
        assert same(found.params["Conv_0"], state.params["Conv_0"])
        assert "begins anew: Dense_0" in capsys.readouterr().err
    _, found = begun(config_of(folder, root))
    assert same(found.params, state.params)


def test_layers_beside_the_network_begin_anew(folder, trained):
    root, state = trained
    config = config_of(folder, root, augment__method="afa")
    _, found = begun(config)
    norm = state.batch_stats["BatchNorm_0"]
    assert same(found.batch_stats["auxiliary"]["BatchNorm_0"], norm)


def test_weights_of_a_file(folder, trained, tmp_path, monkeypatch):
    _, state = trained
    file = tmp_path / "weights.safetensors"
    file.touch()
    config = config_of(folder, file)
    loaded = torch_weights.Loaded(
        {"params": state.params, "batch_stats": state.batch_stats}, None, None, 4, ()
    )
    seen = []

    def load(name, path):
        seen.append((name, path))
        return loaded

    monkeypatch.setattr(torch_weights, "load_file", load)
    _, found = begun(config)
    assert seen == [("tiny", file)]
    assert same(found.params, state.params)
    assert same(found.batch_stats, state.batch_stats)
    loaded = loaded._replace(mean=(0.5,), std=(0.25,))
    with pytest.raises(ConfigError, match=r"trained with data.mean \(0.5,\).*this run"):
        begun(config)

    def fail(name, path):
        raise ValueError("not the weights of tiny; missing: fc.bias")

    monkeypatch.setattr(torch_weights, "load_file", fail)
    with pytest.raises(ConfigError, match=r"init_from: .* not the weights of tiny"):
        begun(config)


def test_what_can_not_be_begun_with_is_said_first(folder, trained, tmp_path):
    root, _ = trained
    for place, message in (
        (tmp_path / "none", "isn't there; give a run's directory or a file"),
        (tmp_path, "is not a run"),
    ):
        with pytest.raises(ConfigError, match=message):
            plan_lib.plan(config_of(folder, place), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"init_from is .*, a tiny; model.name is 'w"):
        plan_lib.plan(config_of(folder, root, model__name="wrn_10_1"), tmp_path / "run")


def test_weights_of_another_shape_are_refused(folder, trained):
    root, _ = trained
    config = config_of(folder, root)
    start, _ = begun(config)
    kernel = start.params["Conv_0"]["kernel"]
    wide = start.params | {"Conv_0": {"kernel": np.concatenate([kernel] * 2, -1)}}
    with pytest.raises(ConfigError, match=r"1 of them are not in both.*Conv_0/kernel"):
        init_from.begin(config, start.replace(params=wide), NAMES)


NETWORK = """
import flax.linen as nn


class Net(nn.Module):
    classes: int
    width: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(self.width, name="hidden")(x.mean((1, 2))))
        return nn.Dense(self.classes, name="head")(x)


def make(num_classes):
    return Net(num_classes, WIDTH)
"""


def test_of_a_network_of_ones_own_the_last_layer_alone_begins_anew(
    folder, tmp_path, capsys
):
    def config(width, **changes):
        file = tmp_path / str(width) / "net.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(NETWORK.replace("WIDTH", str(width)))
        given = PLAIN | {"model__name": f"{file}:make"} | changes
        return toy.config(folder, optim__epochs=1.0, **given)

    root = tmp_path / "run"
    first = loop.train(plan_lib.plan(config(16), root), quiet=True).state
    again = config(16, train__init_from=str(root))
    plan = plan_lib.plan(again, tmp_path / "unused")
    five = dataclasses.replace(plan, class_names=tuple("abcde"))
    model = models.build(again.model.name, num_classes=5)
    start = plan_lib.initial_state(dataclasses.replace(five, model=model))
    found = init_from.begin(again, start, five.class_names).params["inner"]
    assert same(found["hidden"], first.params["inner"]["hidden"])
    assert same(found["head"], start.params["inner"]["head"])
    assert "begins anew: inner/head\n" in capsys.readouterr().err
    wide = config(32, train__init_from=str(root))
    start = plan_lib.initial_state(plan_lib.plan(wide, tmp_path / "wide"))
    with pytest.raises(ConfigError, match=r"of them are not in both.*hidden"):
        init_from.begin(wide, start, NAMES)
