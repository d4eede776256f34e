"""The probability margin attack, step by step, against its rule in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import attacks
from apr_jax.attacks import core, losses, sequence
from apr_jax.attacks.pma import PMA
from apr_jax.errors import ArgumentError

COUNT, SHAPE, EPS = 4, (4, 5, 3), 0.3
STEPS = 7  # its middle lies between two steps


def wavy(weights, images):
    """Logits of four classes that wave along the way, so that signs change."""
    x = images.reshape(len(images), -1)
    return jnp.sin(2 * x @ weights) * jnp.array([[1.0, 2.0, 3.0, 2.0]]) + x @ weights


@pytest.fixture(scope="module")
def given():
    rng = np.random.default_rng(2)
    weights = np.float32(rng.normal(0, 0.3, (int(np.prod(SHAPE)), 4)))
    images = np.float32(rng.uniform(0, 1, (COUNT, *SHAPE)))
    labels = np.arange(COUNT, dtype=np.int32)
    points = core.Points(
        keys=jax.random.split(jax.random.key(5), COUNT),
        images=images,
        labels=labels,
        targets=labels,
        eps=np.full(COUNT, EPS, np.float32),
        noise=np.ones(COUNT, np.float32),
    )

    w, scale = np.float64(weights), np.array([1.0, 2.0, 3.0, 2.0])

    def slopes(images):
        """Gradients of the label's probability and of the largest other one; float64.

        Of p_k it is p_k (z_k' - sum of p_j z_j').
        """
        x = images.reshape(COUNT, -1) @ w
        z = np.sin(2 * x) * scale + x
        inner = 2 * np.cos(2 * x) * scale + 1
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        each = inner[:, :, None] * w.T  # of each logit
        grads = p[:, :, None] * (each - (p[:, :, None] * each).sum(1, keepdims=True))
        rows = np.arange(COUNT)
        other = np.where(np.eye(4, dtype=bool), -1, p).argmax(1)
        found = (grads[rows, rows], grads[rows, other])
        return *(g.reshape(COUNT, *SHAPE) for g in found), z.argmax(1) != rows

    return functools.partial(wavy, weights), points, slopes


def length(i, half):
    since = i - half - 1 if i > half else i - 1
    return 2 * EPS * 0.5 * (1 + np.cos(since / half * np.pi))


def way(own, other, i, run, half):
    if i < 1:
        return own
    if i < half:
        return -own if run == 0 else other
    return other - own


# Rules that differ in one thing.
WRONG = {
    "first step down": lambda own, other, i, run, half: way(
        own, other, max(i, 1), run, half
    ),
    "the margin throughout": lambda own, other, i, run, half: other - own,
    "both runs alike": lambda own, other, i, run, half: way(own, other, i, 0, half),
}
LENGTHS = {
    "always 2 eps / 4": lambda i, half: EPS / 2,
    "one cosine": lambda i, half: EPS * (1 + np.cos(i / (2 * half) * np.pi)),
    "from 0 on": lambda i, half: length(i + 1, half),
}


def walk(slopes, points, starts, way=way, length=length):
    """All iterates of both runs, [2 (STEPS + 1), COUNT, ...], and who was wrong."""
    origin, found, wrong = np.float64(points.images), [], []
    half = STEPS / 2
    for run, start in enumerate(starts):
        here = np.float64(start)
        for i in range(STEPS + 1):
            found.append(here)
            own, other, missed = slopes(here)
            wrong.append(missed)
            step = np.sign(way(own, other, i, run, half))
            here = here + length(i, half) * step
            here = np.clip(np.clip(here, origin - EPS, origin + EPS), 0, 1)
    return np.stack(found), np.stack(wrong)


def test_step_by_step(given):
    function, points, slopes = given
    attack = PMA(STEPS)
    state = jax.jit(attack.init)(points)
    step = jax.jit(functools.partial(attack.step, function))
    seen = []
    for _ in range(attack.steps):
        seen.append(np.asarray(state.images))
        state = step(state)
    starts = seen[0], seen[STEPS + 1]
    for start in starts:  # anywhere in the ball, each its own
        away = np.abs(start - points.images)
        assert 0.9 * EPS < away.max() <= EPS + 1e-6
        assert len({x.tobytes() for x in start}) == COUNT
    assert np.abs(starts[0] - starts[1]).max() > EPS / 2
    wanted, wrong = walk(slopes, points, starts)
    np.testing.assert_allclose(np.stack(seen), wanted, atol=2e-5)
    assert wrong.any()
    broken, result = np.asarray(state.broken), np.asarray(attack.result(state))
    for i in range(COUNT):
        first = np.flatnonzero(wrong[:, i])
        assert broken[i] == bool(len(first))
        kept = wanted[first[0], i] if len(first) else points.images[i]
        np.testing.assert_allclose(result[i], kept, atol=2e-5)
    # On this function every other rule goes elsewhere.
    for rule in WRONG.values():
        assert np.abs(walk(slopes, points, starts, rule)[0] - wanted).max() > 0.05
    for rule in LENGTHS.values():
        other, _ = walk(slopes, points, starts, length=rule)
        assert np.abs(other - wanted).max() > 0.05


def test_probability_margin():
    logits = np.array([[1.0, 3.0, 2.0], [0.0, -200.0, 5.0]], np.float32)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    margin = jax.jit(losses.get_loss("probability-margin"))
    found = margin(logits, np.array([1, 0]), np.array([0, 0]))
    np.testing.assert_allclose(found, [p[0, 2] - p[0, 1], p[1, 2] - p[1, 0]], rtol=1e-6)


def test_a_sure_answer_keeps_the_gradient_of_its_own_logit():
    """Where its probability is 1 to the last bit of a float32."""
    logits = np.array([[20.0, 0.0, -1.0, -3.0]], np.float32)
    assert np.asarray(jax.nn.softmax(logits))[0, 0] == 1

    def margin(x):
        loss = losses.get_loss("probability-margin")
        return loss(x, jnp.array([0]), jnp.array([0])).sum()

    found = np.asarray(jax.jit(jax.grad(margin))(logits))[0]
    z = logits[0].astype(np.float64)
    p = np.exp(z) / np.exp(z).sum()
    # Of p_1 less p_0: p_i (1 if i is j) less p_i p_j for each.
    wanted = p[1] * (np.eye(4)[1] - p) - p[0] * (np.eye(4)[0] - p)
    wanted[0] = -p[0] * p[1] - p[0] * p[1:].sum()
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_in_its_place(given):
    function, points, _ = given
    images, labels = points.images, np.asarray(jax.jit(function)(points.images))
    result = attacks.pma(
        jax.random.key(0), function, images, labels.argmax(1), eps=EPS, steps=4
    )
    assert list(result.survived) == ["clean", "pma"]
    assert result.survived["clean"].all()
    assert not result.robust.all()
    names = [s.name for s in sequence.make_stages("standard+pma", "linf")]
    assert names == [*sequence.VERSIONS["standard"], "pma"]
    names = [s.name for s in sequence.make_stages("pma+", "linf", steps=9)]
    assert names == ["pma", "apgd-t"]
    (stage,) = sequence.make_stages("pma", "linf", steps=9)
    assert stage.attack == PMA(9)
    assert sequence.make_stages("standard", "linf", steps=1)
    for version in ("pma", "standard+pma", "pma+"):
        with pytest.raises(ArgumentError, match="is for linf, not l2"):
            sequence.make_stages(version, "l2")
    with pytest.raises(ArgumentError, match="steps is 1; pma takes 2 or more"):
        sequence.make_stages("pma", "linf", steps=1)
    with pytest.raises(ArgumentError, match="for pma"):
        attacks.pma(jax.random.key(0), function, images, [0] * 4, eps=1.0, norm="l2")
