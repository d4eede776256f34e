"""Smoothing and roughness of kernels, against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax.models import kernels

smooth, roughness = jax.jit(kernels.smooth), jax.jit(kernels.roughness)


@pytest.mark.parametrize("size", [(3, 3), (2, 5)])
def test_smooth_mixes_with_the_neighbours(rng, size):
    w = rng.normal(size=(*size, 2, 4)).astype(np.float32)
    want = np.empty_like(w)
    for i in range(size[0]):
        for j in range(size[1]):
            near = [
                w[k, m]
                for k in range(max(i - 1, 0), min(i + 2, size[0]))
                for m in range(max(j - 1, 0), min(j + 2, size[1]))
                if (k, m) != (i, j)
            ]
            want[i, j] = 0.7 * w[i, j] + 0.3 * np.mean(near, axis=0)
    got = smooth(w, 0.3)
    np.testing.assert_allclose(got, want, atol=1e-5)
    np.testing.assert_array_equal(smooth(w, 0.0), w)
    constant = np.full_like(w, 0.5)
    np.testing.assert_allclose(smooth(constant, 0.9), constant, atol=1e-6)
    before, after = (np.asarray(roughness(x)) for x in (w, got))
    assert after.mean() < before.mean()
    steps = [np.diff(w, axis=axis).reshape(-1, 2, 4) for axis in (0, 1)]
    power = 2 * np.mean(w**2, axis=(0, 1))
    by_hand = np.mean(np.concatenate(steps) ** 2, axis=0) / power
    np.testing.assert_allclose(before, by_hand, rtol=1e-5)


def test_roughness_of_known_kernels(rng):
    noise = rng.normal(size=(40, 40, 1, 3)).astype(np.float32)
    np.testing.assert_allclose(roughness(noise), 1, atol=0.15)
    board = np.indices((4, 5)).sum(0) % 2 * 2.0 - 1
    got = roughness(board[:, :, None, None].astype(np.float32))
    np.testing.assert_allclose(got, 2)
    assert float(roughness(np.ones((4, 5, 1, 1), np.float32)).item()) == 0
    with pytest.raises(ValueError, match="more than one tap"):
        kernels.smooth(jnp.ones((1, 1, 3, 3)), 0.1)
