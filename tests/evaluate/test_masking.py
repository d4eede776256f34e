"""Signs of gradient masking as records: of two networks, kept, and on the page."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import config as config_lib
from apr_jax import parallel
from apr_jax.attacks import masking as signs
from apr_jax.attacks import rounds
from apr_jax.evaluate import adversarial, masking
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate.context import Context
from apr_jax.report.run_view import RunView
from apr_jax.report.sections import masking as section
from tests import toy


def shades(scale, pixels):
    """The toy set's shades, told apart by the mean."""
    levels = (40 + 45 * jnp.arange(toy.CLASSES, dtype=jnp.float32)) / 255
    mean = pixels.mean((1, 2, 3))[:, None]
    return -scale * jnp.square(mean - levels[None])


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    toy.write_arrays(folder)
    config = toy.config(folder)
    return {
        name: classifier_lib.from_function(
            lambda pixels, scale=scale: shades(scale, pixels), config, "abcd", name=name
        )
        for name, scale in (("plain", 16.0), ("saturated", 1e7))
    }


def measured(network, **given):
    settings = {"attack": "fgsm", "steps": 8, "queries": 30, "examples": 24}
    settings |= {"linf": (0.1,), "masking": True}
    more = {name: given.pop(name) for name in ("done", "scratch") if name in given}
    context = Context(parallel.make_layout(1), quiet=True, **more)
    settings = config_lib.Adversarial(**(settings | given))
    records = adversarial.measure(network, settings, context)
    return list(records)


# Who of 24 withstands each attack: the first so many.
STANDING = {
    "plain": {"fgsm": 12, "pgd-few": 9, "pgd": 4, "unbounded": 0, "square": 11},
    "saturated": {"fgsm": 24, "pgd-few": 24, "pgd": 24, "unbounded": 22, "square": 8},
}


@pytest.fixture
def ran(monkeypatch):
    """The attacks that are run, of which none takes time."""
    names = []

    def run_stage(engine, stage, task, standing, adversarial, tick):
        name = "saturated" if task.logits.max() - task.logits.min() > 1e4 else "plain"
        names.append(stage.name)
        left = STANDING[name].get(stage.name, 24)
        return standing & (np.arange(len(standing)) < left), adversarial

    monkeypatch.setattr(rounds, "run_stage", run_stage)
    return names


def test_records_page_and_a_second_call(networks, ran, tmp_path):
    both = {name: measured(n, scratch=tmp_path) for name, n in networks.items()}
    found = {
        name: [r for r in records if r.job == masking.JOB]
        for name, records in both.items()
    }
    for name, records in found.items():
        by = {r.metric: r for r in records}
        around = ["loss_surface", "off_tangent", "ups_and_downs"]
        assert list(by) == [*signs.SIGNS, *around[1:], "suspicious_signs"]
        assert {by.pop(name).n for name in around[1:]} == {8}
        assert {(r.split, r.data) for r in records} == {("linf/0.1", "toy")}
        assert {r.n for r in by.values() if r.metric not in around} == {24}
        drawn = by["loss_surface"].extra["surface"]["images"]
        assert [np.shape(image["losses"]) for image in drawn] == [(17, 17)] * 3
        share = by["loss_surface"].extra["measured"]["random rises as much"]
        assert by["loss_surface"].value == share - 0.5
        assert "attack" not in by["steps"].extra["settings"]
        told = {m for m, r in by.items() if r.extra.get("suspicious")}
        masks = {"black_box", "steps", "unbounded", "gradients", "loss_surface"}
        assert told == (masks if name == "saturated" else set())
        assert by["suspicious_signs"].value == len(told)
        assert by["unbounded"].value == STANDING[name]["unbounded"] / 24

    runs = [RunView(name=name, records=records) for name, records in found.items()]
    page = section.html([*runs, RunView(name="none")])
    assert page.count("<strong>suspicious</strong>") == 5
    assert page.count("as it should be") == 9
    assert page.count('aria-label="Loss around ') == 6
    for wanted in ("toy, L∞ up to 0.1, n = 24", "Pixels free", "left 91.7 %"):
        assert wanted in page
    shown = section.table(runs)
    assert shown is not None
    assert shown.row_count == 8
    assert section.html([RunView(name="none")]) == ""
    assert section.table([RunView(name="none")]) is None
    assert section.answers(runs) == []

    # What is known is not measured again, nor are attacks that were kept.
    ran.clear()
    network, records = networks["plain"], both["plain"]
    assert measured(network, done=records) == []
    attacked = [r for r in records if r.job == adversarial.JOB]
    again = measured(network, done=attacked, scratch=tmp_path)
    assert [(r.metric, r.value) for r in again] == [
        (r.metric, r.value) for r in found["plain"]
    ]
    assert ran == []
    measured(network, done=records, scratch=tmp_path, queries=31)
    assert ran[1:] == [s.name for s in signs.stages("linf", 8, 31)]


@pytest.mark.slow
def test_verdicts_of_networks(networks):
    told = {
        name: {r.metric for r in measured(n) if r.extra.get("suspicious")}
        for name, n in networks.items()
    }
    assert told["plain"] == set()
    assert told["saturated"] >= {"black_box", "unbounded", "gradients", "loss_surface"}


def test_without_gradients_and_l1(networks, ran, capfd):
    blind = dataclasses.replace(networks["plain"], differentiable=False)
    records = measured(blind, attack="square", queries=2, examples=4)
    assert {r.job for r in records} == {adversarial.JOB}
    assert "no gradient that could be masked" in capfd.readouterr().err
    records = measured(
        networks["plain"], attack="square", queries=2, examples=4, linf=(), l1=(1.0,)
    )
    assert {r.job for r in records} == {adversarial.JOB}
    assert "are for linf and l2, not l1" in capfd.readouterr().err
