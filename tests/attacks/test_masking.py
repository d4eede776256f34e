"""Signs of gradient masking: of networks that mask, of one that doesn't, of counts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import attacks
from apr_jax.attacks import core, masking
from apr_jax.errors import ArgumentError

SHAPE = (4, 4, 3)
SIZE = int(np.prod(SHAPE))


def net(weights, scale, levels, images):
    """Three classes by smooth functions of the pixels, of some levels if not 0."""
    rounded = jnp.round(levels * images) / jnp.maximum(levels, 1)
    pixels = jnp.where(levels > 0, rounded, images)
    x = pixels.reshape(len(images), -1) - 0.5
    return scale * jnp.tanh(x @ weights)


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    weights = jnp.asarray(rng.normal(0, 0.4, (SIZE, 3)), jnp.float32)
    images = rng.uniform(0, 1, (72, *SHAPE)).astype(np.float32)
    labels = np.asarray(net(weights, 8.0, 0.0, images)).argmax(1)
    return weights, images, labels


@pytest.mark.parametrize(
    ("scale", "levels", "suspicious"),
    [
        (8.0, 0.0, set()),
        # A softmax of 0 and 1 to the last bit, and pixels that are rounded.
        (1e4, 0.0, {"black_box", "steps", "unbounded", "gradients"}),
        (8.0, 8.0, {"black_box", "unbounded", "gradients"}),
    ],
)
def test_verdicts_differ(problem, key, scale, levels, suspicious):
    weights, images, labels = problem
    numbers = (jnp.float32(scale), jnp.float32(levels))
    found = attacks.gradient_masking(
        key,
        functools.partial(net, weights, *numbers),
        images,
        labels,
        eps=0.07,
        steps=20,
        queries=60,
    )
    assert [sign.name for sign in found] == list(masking.SIGNS)
    by_name = {sign.name: sign for sign in found}
    told = {name for name, sign in by_name.items() if sign.suspicious}
    left, square = by_name["black_box"].measured.values()
    if not suspicious:
        assert told == set()
        assert 0 < left <= square < 1
        assert by_name["unbounded"].excess == 0
        assert by_name["gradients"].measured == {"zero": 0, "not finite": 0}
    else:
        assert told >= suspicious
        assert left > square
        assert by_name["unbounded"].excess > 0.5
        assert by_name["gradients"].measured["zero"] > 0.5


# Who withstands what, of 20 points: the first so many, or those given.
CALM = {
    "clean": 18,
    "fgsm": 12,
    "pgd-few": 10,
    "pgd": 6,
    "unbounded": 0,
    "apgd-ce": 5,
    "random": 17,
    "square": 9,
}


@pytest.mark.parametrize(
    ("changes", "suspicious"),
    [
        ({}, set()),
        ({"square": 0, "pgd": 7, "apgd-ce": 6}, {"black_box"}),
        # Five fewer may be chance, and so may four more.
        ({"square": 0}, set()),
        ({"pgd-few": 6, "pgd": 6, "apgd-ce": 6, "square": 1}, set()),
        ({"pgd-few": 6, "pgd": 6, "apgd-ce": 6, "square": 0}, {"black_box", "steps"}),
        ({"pgd-few": 4, "pgd": 10, "apgd-ce": 4}, {"steps"}),
        ({"unbounded": 1}, {"unbounded"}),
        ({"fgsm": 0, "pgd-few": 0}, {"single_step", "steps"}),
        ({"random": 4}, {"random_search"}),
    ],
)
def test_what_is_suspicious(changes, suspicious):
    survived = {name: np.arange(20) < n for name, n in (CALM | changes).items()}
    found = masking.signs(survived, np.ones(20), steps=30)
    assert {sign.name for sign in found if sign.suspicious} == suspicious
    assert {sign.n for sign in found} == {20}


def test_gradients_count_where_the_answer_is_right():
    survived = {name: np.arange(20) < n for name, n in CALM.items()}
    sizes = np.ones(20)
    sizes[18:] = 0.0, np.inf  # of wrong answers
    *_, sign = masking.signs(survived, sizes, steps=30)
    assert (sign.name, sign.excess, sign.suspicious) == ("gradients", 0, False)
    sizes[[0, 1, 2]] = 0.0, np.nan, np.inf
    *_, sign = masking.signs(survived, sizes, steps=30)
    assert sign.measured == {"zero": 1 / 20, "not finite": 2 / 20}
    assert sign.excess == 3 / 20
    assert sign.suspicious


def test_random_search_draws_anew_inside_the_ball():
    count, eps = 3, 0.2
    points = core.Points(
        keys=jax.random.split(jax.random.key(1), count),
        images=jnp.full((count, *SHAPE), 0.5),
        labels=jnp.zeros(count, jnp.int32),
        targets=jnp.zeros(count, jnp.int32),
        eps=jnp.full(count, eps),
        noise=jnp.ones(count),
    )
    attack = masking.RandomSearch("linf", 5)
    seen = []

    def spy(images):
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), images, ordered=True)
        return jnp.stack([images[:, 0, 0, 0], jnp.full(count, 0.55)], axis=1)

    state, step = attack.init(points), jax.jit(functools.partial(attack.step, spy))
    for _ in range(attack.steps):
        state = step(state)
    jax.effects_barrier()
    sizes = np.abs(np.stack(seen) - 0.5)
    assert np.max(sizes) <= eps + 1e-6
    assert np.max(sizes) > 0.9 * eps
    assert len({x.tobytes() for draw in seen for x in draw}) == 5 * count
    # Wrong where the second logit is larger: the first such draw is kept.
    for i in range(count):
        wrong = [x[i] for x in seen if x[i, 0, 0, 0] < 0.55]
        assert bool(state.broken[i]) == bool(wrong)
        np.testing.assert_allclose(attack.result(state)[i], wrong[0], atol=1e-6)


def test_l1_is_refused(problem, key):
    _, images, labels = problem
    with pytest.raises(ArgumentError, match=r"l1.* for gradient_masking"):
        attacks.gradient_masking(
            key, lambda x: x[:, 0, 0], images, labels, eps=1.0, norm="l1"
        )
