"""What measurements will take: counted as they count, estimated by a clock of ours."""

import dataclasses

import numpy as np
import pytest

from apr_jax import config as config_lib
from apr_jax import data, parallel
from apr_jax.attacks import sequence
from apr_jax.evaluate import card, cost, forecast
from apr_jax.evaluate.classifier import Classifier
from apr_jax.evaluate.context import Context

EVAL = {
    "corruption": config_lib.Corruption(severities=(1, 5), examples=30),
    "ood": config_lib.Ood(out=("a=arrays:a.npy",), scores=("msp",), fit_examples=7),
    "adversarial": config_lib.Adversarial(attack="apgd-ce", steps=20, examples=10),
    "fourier": config_lib.Fourier(examples=40, radii=(1.0, 2.0)),
}


@pytest.fixture(scope="module")
def network():
    shades = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    return Classifier.from_function(
        lambda images: images.mean((1, 2)) @ shades, classes=4, image_size=8
    )


def test_a_plan_counts_images_times_passes(network):
    found = cost.plan(network, {"clean": None, **EVAL}, 50)
    assert list(found) == list(EVAL)
    assert found["corruption"][:2] == (15 * 2 * 30, "30 sets of 30 images")
    assert found["ood"].answers == 2 * 50 + 7
    # 8 x 8 frequencies, a pair of opposite ones once: 4 are their own opposite.
    assert found["fourier"].answers == 40 * ((64 - 4) // 2 + 4 + 2 * 2 + 1)
    assert found["adversarial"].answers == 10 * 3 * 21
    assert found["adversarial"].most
    whole = config_lib.Adversarial(linf=(0.1, 0.2))
    (work,) = cost.plan(network, {"adversarial": whole}, 9).values()
    # 4 classes have 3 targets.
    assert work.answers == 2 * 9 * (3 * (101 + 3 * 101 + 3 * fab_steps()) + 5001)
    blind = dataclasses.replace(network, differentiable=False)
    (work,) = cost.plan(blind, {"adversarial": whole}, 9).values()
    assert work.answers == 2 * 9 * 5001
    odd = config_lib.Adversarial(attack="fgsm", linf=(), l1=(1.0,))
    assert cost.plan(network, {"adversarial": odd}, 9) == {}


def fab_steps():
    (stage,) = sequence.make_stages("fab", "linf")
    return stage.attack.steps


def test_what_it_says(network, capsys):
    works = cost.plan(network, EVAL, 50)
    cost.say(works, 20.0)
    said = capsys.readouterr().err
    assert "  corruption, 30 sets of 30 images: about 45 s\n" in said
    assert (
        "  adversarial, 10 images, up to 21 gradients of each: about 32 s at most"
        in said
    )
    assert "at 20 images/s, as the clean ones went" in said
    cost.say(works, None)
    assert "about" not in capsys.readouterr().err.replace("about 50 images", "")
    cost.say({}, 10.0)
    cost.say(works, 1e9)
    assert capsys.readouterr().err == ""


def test_speed_leaves_out_what_was_compiled(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    speeds = {}
    watch = forecast.Stopwatch(speeds)
    for seconds in (9.0, 2.0, 3.0):
        now[0] += seconds
        watch.note(50)
        assert watch.wanted == (seconds == 9.0)
    assert speeds == {"images/s": 100 / 5}
    forecast.Stopwatch(speeds).note(1)
    assert not forecast.Stopwatch(None).wanted


def test_attacks_are_timed_from_their_second_steps_on(capsys):
    stages = sequence.make_stages("standard", "linf", steps=10, queries=30)
    now = [0.0]
    ahead = forecast.Forecast("linf/0.1", stages, 3, clock=lambda: now[0])
    ahead.begin("apgd-ce", 100)
    costs = [3 * stages[k].attack.steps * rounds for k, rounds in enumerate((1, 2, 2))]
    assert ahead.total == sum(costs) + 31
    for seconds in (50.0, 1.0, 2.0, 3.0):  # the first two are compiled, and begin
        now[0] += seconds
        ahead.work(20)
    # Between the second and the fourth: 40 steps in 5 s, 3 answers each.
    expected = ahead.total * 100 / (40 * 3 / 5)
    words = f"linf/0.1 on 100 images: about {expected / 60:.0f} min at most from now on"
    assert words in capsys.readouterr().err
    ahead.work(20)
    assert capsys.readouterr().err == ""
    assert ahead.place("apgd-t", 0.5) == costs[0] + costs[1] / 2
    ahead.begin("apgd-t", 20)  # a fifth stands: it is said anew
    for _ in range(5):
        now[0] += 2.0
        ahead.work(8)
    assert "linf/0.1 on 20 images: about" in capsys.readouterr().err


def test_a_card_says_its_plan_after_the_clean_images(network, rng, capsys, monkeypatch):
    monkeypatch.setattr(cost, "_BRIEF", 0.0)
    images = rng.integers(0, 256, (50, 8, 8, 3), np.uint8)
    split = data.ArraySplit(images, np.arange(50, dtype=np.int32) % 4)
    resident = data.DataSet("toy", network.class_names, {"test": split}, "")
    config = dataclasses.replace(
        network.config,
        eval=config_lib.Eval(
            parts=("clean", "fourier", "ood"),
            fourier=config_lib.Fourier(parts=("bands",), radii=(2.0,), examples=20),
        ),
    )
    context = Context(parallel.make_layout(1), resident, quiet=True)
    own = dataclasses.replace(network, config=config)
    jobs = [record.job for record in card.measure(own, None, context)]
    assert {"evaluate.clean", "evaluate.fourier"} == set(jobs)
    said = capsys.readouterr().err
    assert "  ood, " not in said  # no out set is there
    assert "  fourier, 20 images, 2 times: about " in said
    assert "images/s, as the clean ones went" in said
