"""Functions of pixels, as attacks take them: whatever ``functools.partial`` binds."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import attacks
from apr_jax.attacks import core


class Net(nn.Module):
    scale: float = 1.0

    @nn.compact
    def __call__(self, x, train=False):
        assert isinstance(train, bool)
        return nn.Dense(3)(self.scale * x.mean((1, 2)))


MODULE = Net()
VARIABLES = MODULE.init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))


def switched(variables, train, pixels):
    return MODULE.apply(variables, pixels, train=train)


def of_module(module, variables, pixels):
    return module.apply(variables, pixels)


def mixed(train, variables, name, pixels, *, key=None):
    assert (train, name, key) == (True, "net", None)
    return MODULE.apply(variables, pixels)


BOUND = {
    "variables and a switch": functools.partial(switched, VARIABLES, False),
    "a module and variables": functools.partial(of_module, MODULE, VARIABLES),
    "a switch by name": functools.partial(MODULE.apply, VARIABLES, train=False),
    "twice": functools.partial(functools.partial(switched, VARIABLES), False),
    "all kinds": functools.partial(mixed, True, VARIABLES, "net", key=None),
}


def attacked(function):
    """The images that an attack finds."""
    images = np.random.default_rng(0).random((4, 4, 4, 3)).astype(np.float32)
    labels = np.array([0, 1, 2, 0])
    key, given = jax.random.key(0), {"norm": "linf", "eps": 0.1, "steps": 2}
    return attacks.pgd(key, function, images, labels, **given).images


@pytest.fixture(scope="module")
def wanted():
    return attacked(lambda pixels: MODULE.apply(VARIABLES, pixels))


@pytest.mark.parametrize("name", BOUND)
def test_what_a_function_binds(wanted, name):
    np.testing.assert_array_equal(attacked(BOUND[name]), wanted)
    found = core.as_argument(BOUND[name])
    assert not core.is_stochastic(found)
    # Variables are an argument of the program; the rest is the program's.
    assert len(jax.tree.leaves(found)) == len(jax.tree.leaves(VARIABLES))
    again = core.as_argument(functools.partial(BOUND[name]))
    assert jax.tree.structure(again) == jax.tree.structure(found)


# --- Numbers and keys of any kind ----------------------------------------------------


def of_a_net(pixels):
    return MODULE.apply(VARIABLES, pixels)


def points():
    images = np.random.default_rng(0).random((4, 4, 4, 3)).astype(np.float32)
    return images, np.argmax(of_a_net(images), 1)


def test_numbers_of_jax_and_numpy_are_numbers():
    key, given = jax.random.key(0), {"norm": "linf", "eps": 0.1, "steps": 2}
    wanted = attacks.pgd(key, of_a_net, *points(), step_size=0.05, **given)
    given = {"norm": "linf", "eps": jnp.float32(0.1), "steps": np.int64(2)}
    step_size = jnp.float32(0.05)
    found = attacks.pgd(key, of_a_net, *points(), step_size=step_size, **given)
    np.testing.assert_allclose(found.images, wanted.images, atol=1e-6)


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_what_is_drawn_does_not_depend_on_the_batch(impl):
    """Nor whether a key is typed; those of rbg draw alike in a batch by themselves."""
    given = {"norm": "linf", "eps": 0.5, "queries": 6}
    key = jax.random.key(0, impl=impl)
    whole = attacks.square(key, of_a_net, *points(), **given)
    parts = attacks.square(key, of_a_net, *points(), chunk=1, **given)
    np.testing.assert_array_equal(whole.images, parts.images)
    raw = attacks.square(jax.random.key_data(key), of_a_net, *points(), **given)
    if impl == "rbg":  # of which raw keys are taken to be
        np.testing.assert_array_equal(whole.images, raw.images)
    start = whole.images - points()[0]
    assert len(np.unique(start.reshape(4, -1), axis=0)) > 1


@pytest.mark.parametrize("norm", ["l1", "linf"])
def test_the_same_with_x64(norm):
    key, given = jax.random.key(0), {"norm": norm, "eps": 0.2, "steps": 2}
    wanted = attacks.apgd(key, of_a_net, *points(), **given)
    with jax.enable_x64(True):
        found = attacks.apgd(key, of_a_net, *points(), **given)
    np.testing.assert_allclose(found.images, wanted.images, atol=1e-6)
