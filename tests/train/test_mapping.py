"""Steps mapped over devices by pmap and over a mesh: the same bits, either way."""

import jax
import numpy as np
import pytest

from apr_jax import parallel
from apr_jax.errors import ConfigError
from apr_jax.parallel import by_mesh
from apr_jax.runs import checkpoint, jsonl
from apr_jax.train import loop
from apr_jax.train import plan as plan_lib
from tests import toy

pytestmark = pytest.mark.usefixtures("_tiny_model")
SAID = ("step", "accuracy", "loss", "bands")


def run(folder, workdir, *, mapping, until=None, **changes):
    settings = toy.config(folder, train__mapping=mapping, **changes)
    plan = plan_lib.plan(settings, workdir)
    assert (plan.layout.mesh is None) == (mapping == "pmap")
    return loop.train(plan, until=until, quiet=True)


def watched(workdir):
    rows = [row for _, row in jsonl.read(workdir / "watch.jsonl")]
    return [{name: row.get(name) for name in SAID} for row in rows]


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_run_has_the_same_bits_and_goes_on_either_way(folder, tmp_path, devices):
    changes = {
        "augment__method": "apr_p",
        "augment__crop_pad": 0,
        "optim__epochs": 2.0,
        "train__devices": devices,
        "train__steps_per_call": 4,
        "train__watch": ("accuracy", "bands"),
    }
    states = {}
    for name, turns in {
        "pmap": ("pmap",),
        "mesh": ("shard_map",),
        "both": ("pmap", "shard_map", "pmap"),
    }.items():
        for until, mapping in zip((4, 8, None), turns, strict=False):
            last = None if mapping is turns[-1] and len(turns) == 1 else until
            done = run(folder, tmp_path / name, mapping=mapping, until=last, **changes)
        assert done.step == 12
        states[name] = checkpoint.digest(done.state)
    assert states["mesh"] == states["pmap"]
    assert states["both"] == states["pmap"]
    assert watched(tmp_path / "mesh") == watched(tmp_path / "pmap") != []


def test_what_lies_on_a_mesh(key):
    layout = parallel.make_layout(2, "shard_map")
    tree = {"a": np.arange(6.0).reshape(2, 3), "key": key}
    copied = parallel.replicate(tree, layout)
    assert copied["a"].shape == (2, 3)  # no axis of devices
    assert {s.data.shape for s in copied["a"].addressable_shards} == {(2, 3)}
    np.testing.assert_array_equal(parallel.first_copy(copied["a"]), tree["a"])
    data_of = jax.random.key_data
    np.testing.assert_array_equal(data_of(copied["key"]), data_of(key))
    rows = parallel.split_batch(np.arange(12).reshape(3, 4), layout, axis=1)
    shards = sorted(rows.addressable_shards, key=lambda s: s.device.id)
    assert [s.data.tolist() for s in shards] == [
        [[0, 1], [4, 5], [8, 9]],
        [[2, 3], [6, 7], [10, 11]],
    ]
    total = parallel.map_devices(
        lambda own, rows, number: jax.lax.psum(
            own["a"].sum() + rows.sum() + number, "devices"
        ),
        layout,
        same=True,
    )
    got = total({"a": copied["a"]}, rows, np.array([100, 200]))
    assert by_mesh.is_same(got)
    assert parallel.first_copy(got) == 2 * 15 + 66 + 300


def test_gathered_from_a_mesh_in_order():
    layout = parallel.make_layout(4, "shard_map")
    gather = parallel.make_gather(lambda scale, rows: scale * rows, layout)
    scale = parallel.replicate(np.float32(2), layout)
    rows = np.arange(8, dtype=np.float32)
    got = gather(scale, parallel.split_batch(rows, layout))
    np.testing.assert_array_equal(got, 2 * rows)
    assert parallel.make_agreement(layout)(7) == 7


def test_an_unknown_mapping(folder):
    with pytest.raises(ConfigError, match="mapping is 'xmap'; choose"):
        toy.config(folder, train__mapping="xmap")
