"""Seeds that train together: the same as alone, resumed, and refused."""

import dataclasses
import os
import signal

import jax
import numpy as np
import pytest

from apr_jax.errors import CheckpointError, ConfigError
from apr_jax.runs import curves
from apr_jax.train import dispatch, loop
from apr_jax.train import plan as plan_lib
from apr_jax.train import seeds as seeds_lib
from tests import toy
from tests.train.test_loop import PLAIN, USUAL

pytestmark = pytest.mark.usefixtures("_tiny_model")


def plans(folder, root, seeds=(0, 3), **changes):
    return [
        plan_lib.plan(
            toy.config(folder, seed=seed, name=f"toy{seed}", **changes),
            root / str(seed),
        )
        for seed in seeds
    ]


def assert_close(one, other):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4), one, other
    )


@pytest.mark.parametrize(
    ("devices", "method"),
    [pytest.param(1, "apr_sp", marks=pytest.mark.slow), (2, "apr_p")],
)
def test_each_lane_is_the_run_alone(folder, tmp_path, devices, method):
    fields = {"train__devices": devices, "augment__method": method, **USUAL}
    lanes = loop.train_together(plans(folder, tmp_path / "a", **fields), quiet=True)
    for plan, lane in zip(plans(folder, tmp_path / "b", **fields), lanes, strict=True):
        alone = loop.train(plan, quiet=True)
        assert lane.step == alone.step == 24
        assert_close(lane.state.params, alone.state.params)
        assert_close(lane.state.batch_stats, alone.state.batch_stats)
        name = str(plan.config.seed)
        rows = [curves.read_curve(tmp_path / p / name) for p in ("a", "b")]
        assert (
            [r.step for r in rows[0]]
            == [r.step for r in rows[1]]
            == [5, 10, 15, 20, 24]
        )
        for one, other in zip(*rows, strict=True):
            assert one.loss == pytest.approx(other.loss, rel=1e-3)
    # Seeds are told apart.
    assert toy.farthest(lanes[0].state.params, lanes[1].state.params) > 0.01


@pytest.mark.slow
def test_resumed_together_and_alone(folder, tmp_path):
    fields = {"augment__method": "standard"}
    whole = loop.train_together(plans(folder, tmp_path / "whole", **fields), quiet=True)
    for until in (4, 11, None):
        parts = loop.train_together(
            plans(folder, tmp_path / "parts", **fields), until=until, quiet=True
        )
    jax.tree.map(
        np.testing.assert_array_equal,
        [part.state for part in parts],
        [one.state for one in whole],
    )
    half = plans(folder, tmp_path / "half", **fields)
    loop.train_together(half, until=11, quiet=True)
    assert_close(loop.train(half[1], quiet=True).state.params, whole[1].state.params)
    with pytest.raises(CheckpointError, match=r"toy0 at 11, toy3 at 24"):
        loop.train_together(plans(folder, tmp_path / "half", **fields), quiet=True)


def test_a_signal_saves_all(folder, tmp_path, monkeypatch):
    indices_of, calls = dispatch.indices_of, []

    def killed(plan, step, count):
        calls.append(step)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return indices_of(plan, step, count)

    monkeypatch.setattr(dispatch, "indices_of", killed)
    fields = PLAIN
    stopped = loop.train_together(plans(folder, tmp_path, **fields), quiet=True)
    assert {s.stopped_by for s in stopped} == {"SIGTERM"}
    monkeypatch.setattr(dispatch, "indices_of", indices_of)
    again = loop.train_together(plans(folder, tmp_path, **fields), quiet=True)
    assert [a.step for a in again] == [24, 24]


def test_what_does_not_fit_is_refused(folder, tmp_path):
    good = plans(folder, tmp_path)
    other = plans(folder, tmp_path / "x", seeds=(1,), optim__epochs=2.0)
    with pytest.raises(ConfigError, match=r"optim\.epochs is 4\.0 in 'toy0' an"):
        seeds_lib.check([good[0], *other])
    with pytest.raises(ConfigError, match="directories of their own"):
        seeds_lib.check([good[0], good[0]])
    with pytest.raises(ConfigError, match=r"data\.streaming is True"):
        seeds_lib.check([dataclasses.replace(good[0], resident=None)])
    watched = plans(folder, tmp_path / "w", train__watch=("bands",))
    with pytest.raises(ConfigError, match=r"'toy0' has one of them"):
        seeds_lib.check(watched)
