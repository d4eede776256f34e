"""Programs of evaluations: shared by networks of a kind, and by nothing else."""

import gc
import weakref

import jax
import numpy as np
import pytest

from apr_jax import data, models, network, parallel
from apr_jax.errors import ArgumentError
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate import programs
from apr_jax.evaluate.context import Context
from tests import toy

NAMES = ("a", "b", "c", "d")


@pytest.fixture(autouse=True)
def _tiny_model(monkeypatch):
    monkeypatch.setitem(models.MODELS, "tiny", toy.TinyNet)


@pytest.fixture
def images(rng):
    pixels = rng.integers(0, 256, (4, 8, 8, 3), np.uint8)
    return data.ArraySplit(pixels, np.arange(4, dtype=np.int32))


def made(folder, seed, **changes):
    """A network of the seed's weights."""
    config = toy.config(folder, **changes)
    model = network.make_model(config, num_classes=4)
    pixels = np.zeros((1, 8, 8, 3), np.float32)
    variables = model.init(jax.random.key(seed), pixels, train=False)
    return classifier_lib.make(config, variables, NAMES, name=f"seed {seed}")


def logits(found, images):
    collect = classifier_lib.make_collect(
        found, Context(parallel.make_layout(1), quiet=True)
    )
    return collect(data.eval_batches(images, 4), 4).logits


def test_networks_of_a_kind_share_programs_and_keep_their_weights(
    tmp_path, images, monkeypatch
):
    one, other = made(tmp_path, 1), made(tmp_path, 2, augment__method="apr_s")
    assert one.asked == other.asked
    first = logits(one, images)
    calls = []
    whole = toy.TinyNet.__call__
    counting = lambda self, *args, **more: calls.append(1) or whole(self, *args, **more)
    monkeypatch.setattr(toy.TinyNet, "__call__", counting)
    second = logits(other, images)
    assert not calls  # nothing was traced anew
    monkeypatch.undo()
    assert np.abs(first - second).max() > 1e-3
    for found, got in ((one, first), (other, second)):
        want, _ = found.predict(found.variables, images.images)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"data__mean": (0.1, 0.2, 0.3)},
        {"data__std": (0.1, 0.2, 0.3)},
        {"model__dtype": "bfloat16"},
        {"augment__method": "apr_sp_heads"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_other_networks_are_others(tmp_path, changes):
    assert made(tmp_path, 1).asked != made(tmp_path, 1, **changes).asked


def test_weights_of_the_two_heads_are_part_of_it(tmp_path):
    heads = {"augment__method": "apr_sp_heads"}
    asked = [
        made(tmp_path, 1, augment__heads_weight=weight, **heads).asked
        for weight in (0.3, 0.3, 0.4)
    ]
    assert asked[0] == asked[1] != asked[2]


def counted():
    """A maker of programs, and what it was asked."""
    calls = []

    @programs.once
    def make(asked, number):
        calls.append(number)
        return lambda: (asked, number)

    return make, calls


def test_equal_networks_and_arguments_make_one(tmp_path):
    make, calls = counted()
    one, other = made(tmp_path, 1).asked, made(tmp_path, 2).asked
    assert make(one, 1) is make(other, 1)
    assert make(one, 2) is not make(one, 1)
    assert calls == [1, 2]


def test_functions_have_their_own_that_go_with_them():
    make, calls = counted()

    def ask():
        weights = np.ones((2, 2))
        predict = lambda variables, images: (images @ weights, images)
        return programs.ask(predict, 2, "mine")

    one, other = ask(), ask()
    assert make(one, 1) is make(one, 1)
    assert make(one, 1) is not make(other, 1)
    assert calls == [1, 1]
    predict = weakref.ref(one.predict)
    del one
    gc.collect()
    assert predict() is None


def test_functions_that_answer_otherwise_are_named():
    asked = programs.ask(lambda variables, images: (images[:, :1], images), 2, "mine")
    with pytest.raises(ArgumentError, match="the logits of 'mine'"):
        asked({}, np.zeros((3, 2), np.float32))
