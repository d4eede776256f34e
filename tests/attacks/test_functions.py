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
