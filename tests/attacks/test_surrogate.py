"""Examples of one network on another: all steps, on its gradients, in the ball."""

import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import attacks
from apr_jax.errors import ArgumentError

SHAPE = (3, 4, 3)


def way(a, b, c=0.0):
    """Two classes by the first two pixels' sum, as far as a and b say so."""

    def logits(images):
        score = a * (images[:, 0, 0, 0] - 0.5) + b * (images[:, 0, 1, 0] - 0.5) + c
        return jnp.stack([jnp.zeros_like(score), score], axis=1)

    return logits


@pytest.fixture
def images():
    found = np.full((2, *SHAPE), 0.5, np.float32)
    found[:, 0, 0, 0] = 0.52, 0.58  # right for the class 1
    return found


def test_the_surrogate_s_gradient_is_followed_to_the_end(key, images):
    """Both fall as far as the ball allows, whenever the surrogate is wrong."""
    labels = np.array([1, 1])
    run = lambda target, **more: attacks.transfer(
        key, target, images, labels, surrogate_fn=way(1.0, 0.0), eps=0.1, **more
    )
    for attack, steps in (("fgsm", 1), ("pgd", 5)):
        # Crossed at 0.5 by the surrogate, at 0.44 and at 0.41 by these networks.
        found = run(way(1.0, 0.0, 0.06), attack=attack, steps=steps)
        assert list(found.survived) == ["clean", f"transfer-{attack}"]
        np.testing.assert_array_equal(found.robust, [False, True])
        np.testing.assert_allclose(found.images[0, 0, 0, 0], 0.42, atol=1e-6)
        np.testing.assert_array_equal(found.images[1], images[1])
    # What the other network doesn't look at moves nothing that this one sees.
    assert run(way(0.0, 1.0, 0.01), attack="fgsm").robust.all()
    # The network that is measured needs no gradient.
    found = run(lambda x: jnp.sign(way(1.0, 0.0, 0.06)(x)), attack="fgsm")
    np.testing.assert_array_equal(found.robust, [False, True])


def test_what_is_refused(key, images):
    given = {"surrogate_fn": way(1.0, 0.0), "eps": 0.1}
    with pytest.raises(ArgumentError, match="unknown attack 'fab'"):
        attacks.transfer(key, way(1.0, 0.0), images, [1, 1], attack="fab", **given)
    with pytest.raises(ArgumentError, match="for transfer"):
        attacks.transfer(key, way(1.0, 0.0), images, [1, 1], norm="l1", **given)
    with pytest.raises(ArgumentError, match="labels"):  # of a third class
        attacks.transfer(key, lambda x: x[:, 0, 0], images, [1, 2], **given)
