"""Every public function with x64, and on a mesh of Explicit axes: the same numbers."""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from apr_jax.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, corrupt
from tests.gates.test_images import BOTH, call, images_of, kinds_taken

ROOT = pathlib.Path(__file__).resolve().parents[2]
COUNT = 4


def photographs():
    rng = np.random.default_rng(3)
    return [rng.integers(0, 256, (200, 300, 3), dtype=np.uint8)]


def calls():
    """Name -> (images, function of them), of all functions and corruptions."""
    found = {}
    for name, function in BOTH.items():
        for dtype in kinds_taken(function):
            label = f"{name} {np.dtype(dtype)}"
            found[label] = images_of(dtype, COUNT), lambda x, f=function: call(f, x)
    large = np.kron(images_of(np.uint8, COUNT), np.ones((1, 3, 3, 1), np.uint8))
    for name in (*CORRUPTIONS, *EXTRA_CORRUPTIONS):
        found[name] = (
            large,
            lambda x, n=name: corrupt(jax.random.key(0), x, n, 3, frost=photographs()),
        )
    return found


def results():
    """What all of them give, as NumPy arrays by name and place."""
    found = {}
    for name, (images, function) in calls().items():
        for place, leaf in enumerate(jax.tree.leaves(jax.jit(function)(images))):
            found[f"{name} {place}"] = np.asarray(leaf)
    return found


def assert_same(got, wanted, name):
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape), name
    np.testing.assert_allclose(
        got.astype(np.float64), wanted.astype(np.float64), atol=2e-5, err_msg=name
    )


@pytest.mark.slow
def test_with_x64(tmp_path):
    program = (
        "import sys, numpy as np\n"
        "from tests.gates.test_elsewhere import results\n"
        "np.savez(sys.argv[1], **results())"
    )
    out = tmp_path / "x64.npz"
    subprocess.run(
        [sys.executable, "-c", program, str(out)],
        cwd=ROOT,
        env={**os.environ, "JAX_ENABLE_X64": "1"},
        check=True,
    )
    wanted = results()
    with np.load(out) as found:
        assert set(found) == set(wanted)
        for name in found:
            assert_same(found[name], wanted[name], name)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(BOTH) + list(CORRUPTIONS + EXTRA_CORRUPTIONS))
def test_on_an_explicit_mesh(name):
    mesh = jax.make_mesh((2,), ("x",), axis_types=(AxisType.Explicit,))
    for label, (images, function) in calls().items():
        if label.split(" ")[0] != name:
            continue
        spread = jax.device_put(images, NamedSharding(mesh, PartitionSpec("x")))
        found = jax.tree.leaves(jax.jit(function)(spread))
        wanted = jax.tree.leaves(jax.jit(function)(images))
        for got, alone in zip(found, wanted, strict=True):
            assert jax.typeof(got).sharding.spec[0] == "x"
            assert_same(np.asarray(got), np.asarray(alone), label)
