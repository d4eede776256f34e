"""The loss around images, of functions whose loss is known in closed form."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import attacks
from apr_jax.attacks import masking, surface

SHAPE = (3, 2, 1)
SIZE = int(np.prod(SHAPE))
EPS = 0.25


def lost(weights, hole, images):
    """Logits whose cross-entropy of class 0 is log(1 + exp(t)), t of a plane.

    NaN where the weighted sum of the pixels less a half is above ``hole``.
    """
    t = (images.reshape(len(images), -1) - 0.5) @ weights
    t = jnp.where(t > hole, jnp.nan, t - 1)
    return jnp.stack([jnp.zeros(len(images)), t], axis=1)


def found_of(key, weights, labels, hole=np.inf, norm="linf"):
    """The surface around three grey images."""
    function = functools.partial(lost, *map(jnp.float32, (weights, hole)))
    images = np.full((3, *SHAPE), 0.5, np.float32)
    return attacks.loss_surface(
        key, function, images, np.array(labels), eps=EPS, norm=norm
    )


def directions(key, weights, norm):
    """The gradient's direction, and the one that was drawn for the first image."""
    along = np.sign(weights)
    if norm == "l2":
        along = weights / np.linalg.norm(weights)
    own = surface.rounds.keys_of(key, np.zeros(1, np.int32), np.zeros(1, np.int32))
    drawn = surface._aside(own, np.zeros((1, *SHAPE), np.float32), norm)
    return along, drawn.ravel().astype(np.float64)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_of_a_softplus_of_a_plane(key, norm):
    weights = np.random.default_rng(0).normal(size=SIZE)
    found = found_of(key, weights, [0, 1, 0], norm=norm)
    assert found.rows.tolist() == [0, 2]  # the second is answered wrong
    along, aside = directions(key, weights, norm)
    a, b = EPS * weights @ along, EPS * weights @ aside
    steps = surface.OFFSETS
    t = a * steps[:, None] + b * steps[None] - 1  # no pixel leaves [0, 1]
    np.testing.assert_allclose(found.losses[0], np.log1p(np.exp(t)), rtol=1e-5)
    slope = 1 / (1 + np.exp(1))
    tangent = np.log1p(np.exp(-1)) + slope * (t + 1)
    np.testing.assert_allclose(found.tangents[0], tangent, rtol=1e-5)
    rises = np.log1p(np.exp([a - 1, b - 1])) - np.log1p(np.exp(-1))
    np.testing.assert_allclose(found.rises[0], rises, rtol=1e-4)
    # Every line is monotone, as its argument is; two directions differ by the image.
    np.testing.assert_allclose(found.ups_and_downs, 0, atol=1e-5)
    change = np.abs(np.log1p(np.exp(t)) - np.log1p(np.exp(-1))).max()
    off = np.abs(np.log1p(np.exp(t)) - tangent).max() / change
    assert found.off_tangent[0] == pytest.approx(off, rel=1e-4)
    (sign,) = masking.of_surface(found)
    assert (sign.n, sign.suspicious, sign.excess) == (2, False, -0.5)


def made(losses, tangents):
    """A surface of one image."""
    shape = np.broadcast_shapes(losses.shape, (17, 17))
    both = (np.broadcast_to(x, shape)[None] for x in (losses, tangents))
    return surface.Surface(np.zeros(1, int), *both)


def test_numbers_of_planes_valleys_and_steps():
    x = surface.OFFSETS[:, None]
    plane = made(2 + 3 * x, 2 + 3 * x)
    assert (plane.off_tangent, plane.ups_and_downs) == (0, 0)
    np.testing.assert_allclose(plane.rises, [[3, 0]])
    # A parabola: as long a way down as up; its tangent is flat.
    valley = made(x**2, 0 * x)
    assert (valley.off_tangent, valley.ups_and_downs) == (1, 1)
    # A tangent that foretells twice what comes; and one of the other sign.
    assert made(x, 2 * x).off_tangent == 0.5
    assert made(x, -x).off_tangent == 2
    # From place to place up and down: sixteen times through the range.
    jagged = made(np.arange(17)[:, None] % 2, 0 * x)
    assert jagged.ups_and_downs == 15
    flat = made(0 * x, 0 * x)
    assert (flat.off_tangent, flat.ups_and_downs) == (0, 0)
    (sign,) = masking.of_surface(flat)
    assert sign.suspicious  # the gradient leads nowhere, as chance does
    (sign,) = masking.of_surface(made(x.T + 0 * x, 0 * x))
    assert (sign.suspicious, sign.excess) == (True, 0.5)
    assert sign.measured == {
        "random rises as much": 1,
        "off the tangent": 1,
        "ups and downs": 0,
    }


def test_what_is_not_finite_or_wrong_is_left_out(key):
    found = found_of(key, np.ones(SIZE), [0, 1, 0], hole=0.4)
    assert found.losses.shape == (0, 17, 17)
    assert found.not_finite > 0
    assert masking.of_surface(found) == ()
    assert not len(found_of(key, np.ones(SIZE), [1, 1, 1]).rows)
