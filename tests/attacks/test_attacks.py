"""Attacks: inside the ball, the same however they are run, right where it is known."""

import functools
import itertools
import math
import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import attacks
from apr_jax.attacks import checks, core, norms, rounds, sequence, slots
from apr_jax.attacks.apgd import make_plan as make_apgd_plan
from apr_jax.attacks.square import (
    Square,
    SquareState,
    _signs,
    _split,
    _square,
    first_tiles,
    make_plan,
    pattern,
)

SIDE, CLASSES, COUNT = 8, 5, 22
EPS = {"linf": 0.03, "l2": 0.25, "l1": 2.0}
# Compiling is what takes time here: the rest of the combinations is marked slow.
QUICK = {("fgsm", "linf"), ("apgd-dlr", "l2"), ("apgd-ce", "l1"), ("square", "l1")}
SINGLE = [
    pytest.param(name, norm, marks=() if (name, norm) in QUICK else (pytest.mark.slow,))
    for name in attacks.ATTACKS
    for norm in attacks.NORMS
    if not (name in ("fgsm", "pgd") and norm == "l1")
    if name != "pma" or norm == "linf"
]


def make_net(seed, hidden=24, classes=CLASSES):
    """Weights of a network with one hidden layer."""
    rng = np.random.default_rng(seed)
    inputs = SIDE * SIDE * 3
    return {
        "in": jnp.asarray(rng.normal(0, 1.5 / math.sqrt(inputs), (inputs, hidden))),
        "out": jnp.asarray(rng.normal(0, 1 / math.sqrt(hidden), (hidden, classes))),
    }


def net(weights, images):
    x = images.reshape(len(images), -1) - 0.5
    return 10.0 * jnp.tanh(x @ weights["in"]) @ weights["out"]


def make_points(logits_fn, count=COUNT, low=0.0, high=1.0):
    """Images, and as labels what the function says of them, two excepted."""
    rng = np.random.default_rng(1)
    images = rng.uniform(low, high, (count, SIDE, SIDE, 3)).astype(np.float32)
    labels = np.asarray(logits_fn(jnp.asarray(images))).argmax(1).astype(np.int32)
    labels[:2] = (labels[:2] + 1) % CLASSES
    return images, labels


def run_single(name, norm, key, logits_fn, images, labels, *, chunk=12, eps=None):
    """One attack as it is called by itself, with few steps."""
    given = {"norm": norm, "eps": eps or EPS[norm], "chunk": chunk}
    function = {
        "fgsm": attacks.fgsm,
        "pgd": functools.partial(attacks.pgd, steps=5, restarts=2),
        "apgd-ce": functools.partial(attacks.apgd, steps=12, shrink=norm == "l1"),
        "apgd-dlr": functools.partial(attacks.apgd, loss="dlr", steps=12),
        "apgd-t": functools.partial(attacks.apgd, loss="dlr-targeted", steps=6),
        "fab": functools.partial(attacks.fab, steps=6, restarts=2),
        "fab-t": functools.partial(attacks.fab, targeted=True, steps=5),
        "square": functools.partial(attacks.square, queries=30),
        "pma": functools.partial(attacks.pma, steps=12),
    }[name]
    return function(key, logits_fn, images, labels, **given)


def check_result(result, logits_fn, images, labels, norm, eps):
    """What every result must be, whatever the attack."""
    found = result.images
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1
    sizes = rounds.distances(found, images, norm)
    assert sizes.max() <= eps + 1e-6
    answers = np.asarray(logits_fn(jnp.asarray(found))).argmax(1)
    np.testing.assert_array_equal(answers == labels, result.robust)
    standing = list(result.survived.values())
    for before, after in itertools.pairwise(standing):
        assert not (after & ~before).any()
    untouched = result.robust | ~result.survived["clean"]
    np.testing.assert_array_equal(found[untouched], images[untouched])


@pytest.mark.parametrize(("name", "norm"), SINGLE)
def test_each_attack(name, norm, key):
    logits_fn = functools.partial(net, make_net(0))
    images, labels = make_points(logits_fn)
    result = run_single(name, norm, key, logits_fn, images, labels)
    check_result(result, logits_fn, images, labels, norm, EPS[norm])
    assert next(iter(result.survived)) == "clean"
    assert result.survived["clean"].sum() == COUNT - 2
    assert result.robust.sum() < COUNT - 2, "the attack breaks nothing"


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("fgsm", "linf"),
        ("apgd-ce", "l1"),
        pytest.param("apgd-dlr", "l2", marks=pytest.mark.slow),
        pytest.param("fab", "linf", marks=pytest.mark.slow),
        pytest.param("square", "l2", marks=pytest.mark.slow),
    ],
)
def test_the_chunk_changes_nothing(name, norm, key):
    logits_fn = functools.partial(net, make_net(0))
    images, labels = make_points(logits_fn)
    run = functools.partial(run_single, name, norm, key, logits_fn, images, labels)
    one, other = run(chunk=12), run(chunk=5)
    np.testing.assert_array_equal(one.robust, other.robust)
    # But for the rounding of matrix products, which depends on the size of the batch.
    np.testing.assert_allclose(one.images, other.images, atol=1e-5)
    again = run(chunk=5)
    np.testing.assert_array_equal(other.images, again.images)


def test_autoattack_compiles_once_for_all_weights_radii_and_rounds(key):
    weights = make_net(0)
    images, labels = make_points(functools.partial(net, weights))
    # Once each: predict, the check of gradients, a step of both APGD and of Square;
    # twice in a step of FAB.
    counted = chex.assert_max_traces(net, n=7)
    run = functools.partial(
        attacks.autoattack, key, norm="linf", steps=6, queries=20, chunk=6
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", attacks.AttackWarning)
        first = run(
            functools.partial(counted, weights), images, labels, eps=EPS["linf"]
        )
        other = functools.partial(counted, make_net(3))
        run(other, images, labels, eps=0.01)
    assert list(first.survived) == ["clean", "apgd-ce", "apgd-t", "fab-t", "square"]
    check_result(
        first, functools.partial(net, weights), images, labels, "linf", EPS["linf"]
    )
    with pytest.raises(AssertionError, match="is traced"):
        run(functools.partial(counted, weights), images[:5], labels[:5], eps=0.01)


@pytest.mark.slow
def test_a_sequence_goes_on_from_an_earlier_result(key):
    logits_fn = functools.partial(net, make_net(0))
    images, labels = make_points(logits_fn)
    engine = core.Engine(logits_fn, 11)
    stages = sequence.make_stages("standard", "l2", steps=6, queries=20)
    given = {"norm": "l2", "eps": EPS["l2"]}
    run = functools.partial(
        rounds.attack_in_turn, engine, stages, key, images, labels, **given
    )
    after = list(run())
    check_result(after[-1], logits_fn, images, labels, "l2", EPS["l2"])
    # Stopped after the second attack, and taken up again.
    on = list(run(before=after[2]))
    assert len(on) == 2
    np.testing.assert_array_equal(on[-1].images, after[-1].images)
    np.testing.assert_array_equal(on[-1].robust, after[-1].robust)


# --- Where the answer is known -------------------------------------------------------


def linear_problem(eps_share):
    """A linear function of two classes, images far from the box, and distances."""
    rng = np.random.default_rng(5)
    weights = rng.normal(size=(SIDE * SIDE * 3, 2)).astype(np.float32)
    images = rng.uniform(0.4, 0.6, (40, SIDE, SIDE, 3)).astype(np.float32)
    flat = images.reshape(40, -1)
    offset = -np.median(flat @ weights, axis=0).astype(np.float32)

    def logits_fn(x):
        return x.reshape(len(x), -1) @ weights + offset[None]

    logits = flat @ weights + offset
    labels = logits.argmax(1).astype(np.int32)
    margin = np.abs(logits[:, 0] - logits[:, 1])
    normal = weights[:, 0] - weights[:, 1]
    dual = {"linf": 1, "l2": 2, "l1": np.inf}
    distance = {n: margin / np.linalg.norm(normal, dual[n]) for n in dual}
    eps = {n: float(np.quantile(distance[n], eps_share)) for n in distance}
    return logits_fn, images, labels, distance, eps


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("fgsm", "linf"),
        ("pgd", "l2"),
        ("apgd-ce", "linf"),
        pytest.param("pgd", "linf", marks=pytest.mark.slow),
        pytest.param("apgd-ce", "l2", marks=pytest.mark.slow),
        pytest.param("fab", "linf", marks=pytest.mark.slow),
    ],
)
def test_a_linear_function_falls_exactly_within_reach(name, norm, key):
    logits_fn, images, labels, distance, eps = linear_problem(0.5)
    result = run_single(
        name, norm, key, logits_fn, images, labels, eps=eps[norm], chunk=40
    )
    clear = np.abs(distance[norm] / eps[norm] - 1) > 0.02
    assert clear.sum() > 30
    reachable = distance[norm] < eps[norm]
    np.testing.assert_array_equal(result.robust[clear], ~reachable[clear])


def test_apgd_in_the_l1_ball_reaches_what_a_linear_function_allows(key):
    logits_fn, images, labels, distance, eps = linear_problem(0.3)
    result = attacks.apgd(
        key, logits_fn, images, labels, norm="l1", eps=eps["l1"], steps=60, chunk=40
    )
    reachable = distance["l1"] < eps["l1"]
    assert not (~result.robust & ~reachable).any()
    near = distance["l1"] < 0.8 * eps["l1"]
    assert near.sum() > 5
    assert not result.robust[near].any()


@pytest.mark.parametrize(
    ("norm", "targeted"),
    [
        ("linf", False),
        ("l2", True),
        pytest.param("l2", False, marks=pytest.mark.slow),
        pytest.param("l1", False, marks=pytest.mark.slow),
        pytest.param("l1", True, marks=pytest.mark.slow),
    ],
)
def test_fab_finds_the_distance_to_a_plane(norm, targeted, key):
    logits_fn, images, labels, distance, _ = linear_problem(0.5)
    result = attacks.fab(
        key,
        logits_fn,
        images,
        labels,
        norm=norm,
        eps=math.inf,
        steps=25,
        targeted=targeted,
        targets=1,
        nearest=True,
    )
    assert not result.robust.any()
    found = rounds.distances(result.images, images, norm)
    clear = distance[norm] > 0.02 * distance[norm].max()  # rounding counts nearer by
    np.testing.assert_allclose(found[clear], distance[norm][clear], rtol=0.03)
    assert (found >= 0.999 * distance[norm])[clear].all()


def without_a_class(logits_fn):
    """The same function with one more class, whose logit is -inf."""

    def more(images):
        logits = logits_fn(images)
        gone = jnp.full((len(logits), 1), -jnp.inf)
        return jnp.concatenate([logits[:, :1], gone, logits[:, 1:]], axis=1)

    return more


@pytest.mark.parametrize(
    ("loss", "classes", "norm"),
    [
        ("dlr", 2, "linf"),
        pytest.param("dlr-targeted", 3, "linf", marks=pytest.mark.slow),
        pytest.param("dlr", 4, "l2", marks=pytest.mark.slow),
        pytest.param("dlr", 2, "l1", marks=pytest.mark.slow),
        pytest.param("margin", 3, "linf", marks=pytest.mark.slow),
        pytest.param("ce", 3, "linf", marks=pytest.mark.slow),
    ],
)
def test_a_class_that_is_left_out_hides_nothing(loss, classes, norm, key):
    logits_fn = functools.partial(net, make_net(0, classes=classes))
    rng = np.random.default_rng(1)
    images = rng.uniform(0, 1, (COUNT, SIDE, SIDE, 3)).astype(np.float32)
    labels = np.asarray(logits_fn(jnp.asarray(images))).argmax(1)
    run = functools.partial(
        attacks.apgd, key, norm=norm, eps=EPS[norm], loss=loss, steps=6, chunk=COUNT
    )
    plain = run(logits_fn, images, labels)
    more = run(without_a_class(logits_fn), images, labels + (labels > 0))
    assert plain.robust.sum() < COUNT - 4
    np.testing.assert_array_equal(more.robust, plain.robust)
    np.testing.assert_allclose(more.images, plain.images, atol=1e-6)
    assert more.not_finite == COUNT


def test_an_image_that_leaves_no_answer_is_broken(key):
    """NaN beyond a threshold that random squares reach and gradients don't see."""

    def logits_fn(x):
        total = x.mean((1, 2))
        gone = (total[:, :1] > 0.52) | (total[:, :1] < 0.48)
        return jnp.where(gone, jnp.nan, jnp.array([[5.0, 0.0, 0.0]]))

    images = np.full((3, SIDE, SIDE, 3), 0.5, np.float32)
    labels = np.zeros(3, np.int32)
    result = attacks.square(key, logits_fn, images, labels, eps=0.1, queries=40)
    assert result.survived["clean"].all()
    assert not result.robust.any()
    assert result.not_finite == 0


ALONE = {
    "fgsm": (attacks.fgsm, {}),
    "pgd": (attacks.pgd, {"steps": 2}),
    "apgd": (attacks.apgd, {"steps": 2}),
    "fab": (attacks.fab, {"steps": 2}),
}


@pytest.mark.parametrize(
    "name",
    [
        *("fgsm", "fab"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("pgd", "apgd")),
    ],
)
def test_gradients_that_are_not_finite_are_told_by_count(key, name):
    """Finite logits, whose root has no slope at black: 0 / 0."""

    def logits_fn(x):
        root = jnp.sqrt(x.sum((1, 2)) ** 2)
        return jnp.concatenate([root, -root[:, :1]], 1) + jnp.array([[9.0, 0, 0, 0]])

    attack, knobs = ALONE[name]
    images = np.full((5, SIDE, SIDE, 3), 0.5, np.float32)
    images[1:4] = 0
    labels = np.zeros(5, np.int32)
    message = r"at 3 of 5 images the gradient is not a number"
    with pytest.warns(checks.AttackWarning, match=message) as found:
        result = attack(key, logits_fn, images, labels, eps=1e-4, **knobs)
    assert len(found) == 1
    assert result.survived["clean"].all()
    # Where gradients are finite nothing is said, and tests take warnings for errors.
    images[1:4] = 0.25
    assert attack(key, logits_fn, images, labels, eps=1e-4, **knobs).robust.all()


def test_checks_of_the_step_come_as_the_paper_says():
    window = make_apgd_plan("linf", 100, False).window
    assert list(np.flatnonzero(window) + 1) == [22, 41, 57, 70, 80, 87, 93, 99]
    plan = make_apgd_plan("l1", 100, True)
    assert len(plan.radius) == 102  # two phases begin with a look at their start
    assert [plan.radius[i] for i in (0, 30, 61, 101)] == [3.0, 2.0, 1.0, 1.0]
    assert plan.restart.sum() == 2
    assert plan.final.sum() == 41


def test_squares_shrink_as_the_paper_says():
    plan = make_plan("linf", 5000, 0.8, False, (32, 32))
    share = lambda at: round(math.sqrt(0.8 / at) * 32)
    sides = {0: share(1), 10: share(1), 11: share(2), 51: share(4), 4500: share(128)}
    assert {at: int(plan.side[at]) for at in sides} == sides
    fitted = make_plan("linf", 500, 0.8, True, (32, 32))
    assert fitted.side[499] == share(512)
    assert set(make_plan("l2", 5000, 0.8, False, (32, 32)).side % 2) == {1}
    # The share is one of all pixels, as far as a square can cover it.
    wide = make_plan("linf", 5000, 0.8, False, (32, 96))
    assert (wide.side[0], wide.side[4500]) == (
        32,
        round(math.sqrt(0.8 / 128 * 32 * 96)),
    )


def length_of(values, norm, axes=None):
    if norm == "l1":
        return np.abs(values).sum(axes)
    return np.sqrt(np.square(values).sum(axes))


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize("side", [1, 3, 4, 7])
def test_the_bump_is_the_sum_of_its_rectangles(side, norm):
    """Equation 2, rectangle by rectangle; for l1 steeper, as AutoAttack has it."""
    power = -4 if norm == "l1" else -2

    def bump(height, width):
        out = np.zeros((height, width))
        for k in range(max(height, width) // 2 + 1):
            top, left = max(height // 2 - k, 0), max(width // 2 - k, 0)
            rows, columns = height // 2 + k + 1, width // 2 + k + 1
            out[top:rows, left:columns] += (k + 1.0) ** power
        return out / length_of(out, norm) if out.size else out

    upper = side // 2
    wanted = np.concatenate([bump(upper, side), -bump(side - upper, side)])
    wanted /= length_of(wanted, norm)
    np.testing.assert_allclose(pattern(side, norm), wanted, rtol=1e-12)


def test_the_first_perturbation_of_square_fills_the_ball(key):
    keys = jax.random.split(key, 3)
    delta = jax.jit(first_tiles, static_argnums=(1, 2))(keys, (32, 32, 3), "l2")
    assert delta.shape == (3, 32, 32, 3)
    # Five tiles of 6 pixels along each side, a margin of one around them.
    assert float(jnp.abs(delta[:, 0]).max()) == 0
    blocks = np.asarray(delta)[:, 1:31, 1:31].reshape(3, 5, 6, 5, 6, 3)
    np.testing.assert_allclose(np.square(blocks).sum((2, 4)), 1.0, rtol=1e-5)


@pytest.mark.parametrize("norm", ["l2", pytest.param("l1", marks=pytest.mark.slow)])
def test_square_spends_its_budget_as_autoattack(key, norm):
    """A proposal against the arithmetic of AutoAttack's code, written out in NumPy."""
    rng = np.random.default_rng(4)
    # Far from the ends of the range, so that clipping changes nothing.
    images = rng.uniform(0.4, 0.6, (2, 9, 9, 3)).astype(np.float32)
    delta = rng.normal(size=images.shape)
    # Less than the ball holds in one image, so that there is a budget left.
    eps, lengths = 0.5, np.array([0.3, 0.5])[:, None, None, None]
    delta *= lengths / length_of(delta, norm, (1, 2, 3))[:, None, None, None]
    labels = jnp.zeros(2, jnp.int32)
    points = core.Points(
        images=jnp.asarray(images),
        labels=labels,
        targets=labels - 1,
        eps=jnp.full(2, eps),
        noise=jnp.zeros(2),
        keys=jax.random.split(key, 2),
    )
    moved = jnp.asarray(images + delta, jnp.float32)
    state = SquareState(points, jnp.zeros(2, int), moved, moved, jnp.ones(2))
    attack, side = Square(norm, 10), 3
    shapes = jnp.asarray([pattern(side, norm)] * 2, jnp.float32)
    sides = jnp.full(2, side)
    got = np.asarray(attack._shift(points.keys, state, sides, shapes))

    to_keys, from_keys, sign_keys, turn_keys = _split(points.keys, 4)
    places = [
        np.asarray(_square(keys, moved, sides)[0]) for keys in (to_keys, from_keys)
    ]
    signs = np.asarray(_signs(sign_keys, (1, 1, 3)))
    for n in range(2):
        (row, column), (other_row, other_column) = (
            np.argwhere(place[n, :, :, 0])[0] for place in places
        )
        to = np.s_[row : row + side, column : column + side]
        other = np.s_[other_row : other_row + side, other_column : other_column + side]
        bump = pattern(side, norm)
        bump = bump.T if jax.random.bernoulli(turn_keys[n]) else bump
        old = delta[n][to]
        new = bump[:, :, None] * signs[n]
        new = new + old / length_of(old, norm, (0, 1))
        new /= length_of(new, norm, (0, 1))  # channel by channel
        in_squares = np.zeros((9, 9, 1))
        in_squares[to] = in_squares[other] = 1
        # What is left is of all channels together, what is freed of each.
        freed = length_of(delta[n] * in_squares, norm, (0, 1))
        if norm == "l2":
            left = max(eps**2 - np.square(delta[n]).sum(), 0)
            length = np.sqrt(left / 3 + freed**2)
        else:
            left = max(eps - np.abs(delta[n]).sum(), 0)
            length = (left / 3 + freed) * 3
        wanted = delta[n].copy()
        wanted[other] = 0
        wanted[to] = new * length
        if norm == "l2":
            wanted = images[n] + wanted * eps / length_of(wanted, norm)
        else:
            pair = (jnp.float32(x)[None] for x in (images[n] + wanted, images[n]))
            wanted = norms.project(*pair, jnp.full(1, eps), norm)[0]
        np.testing.assert_allclose(got[n], wanted, atol=2e-6)


# --- Signs of trouble ----------------------------------------------------------------


def caught(key, logits_fn, images, labels, version="fgsm", **given):
    """The warnings of an evaluation, and its result."""
    given = {"norm": "linf", "eps": EPS["linf"], "steps": 3, "queries": 3} | given
    with pytest.warns(attacks.AttackWarning) as found:
        result = attacks.autoattack(
            key, logits_fn, images, labels, version=version, **given
        )
    return " | ".join(str(w.message) for w in found), result


def test_a_stochastic_function_is_noticed(key):
    weights = make_net(0)

    def noisy(images, *, key):
        return net(weights, images) + jax.random.normal(key, (len(images), CLASSES))

    images, labels = make_points(functools.partial(net, weights))
    said, _ = caught(key, noisy, images, labels)
    assert "differently from call to call" in said
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        given = {"norm": "linf", "eps": EPS["linf"], "steps": 2, "chunk": 8}
        result = attacks.autoattack(key, noisy, images, labels, version="rand", **given)
    assert list(result.survived) == ["clean", "apgd-ce", "apgd-dlr"]
    assert rounds.distances(result.images, images, "linf").max() <= EPS["linf"] + 1e-6


def test_probabilities_are_noticed(key):
    weights = make_net(0)
    images, labels = make_points(functools.partial(net, weights))
    said, _ = caught(key, lambda x: jax.nn.softmax(net(weights, x)), images, labels)
    assert "seems to return probabilities" in said


def test_masked_gradients_are_noticed_and_square_gets_through(key):
    weights = make_net(0)

    def stepped(images):
        return net(weights, jnp.round(images * 50) / 50)

    images, labels = make_points(stepped)
    said, _ = caught(key, stepped, images, labels)
    assert f"at {COUNT - 2} of {COUNT - 2} images the gradient is zero" in said
    blind = sequence.make_stages("fgsm", "linf")
    stages = blind + sequence.make_stages("square", "linf", queries=300)
    *_, result = rounds.attack_in_turn(
        core.Engine(stepped, COUNT), stages, key, images, labels, norm="linf", eps=0.05
    )
    check_result(result, stepped, images, labels, "linf", 0.05)
    (said,) = sequence.concerns(result.survived)
    assert "Square, which uses no gradients, lowered" in said


@pytest.mark.parametrize(
    ("classes", "wanted"),
    [(2, "no DLR loss"), (3, "no targeted DLR loss"), (5, "there are 4")],
)
def test_too_few_classes_are_noticed(classes, wanted):
    stages = sequence.make_stages("standard", "linf")
    said = checks.check_classes(classes, stages)
    assert wanted in " | ".join(said)
    assert not checks.check_classes(10, stages)


def test_two_classes_are_attacked_all_the_same(key):
    logits_fn, images, labels, distance, eps = linear_problem(0.5)
    given = {"norm": "l2", "eps": eps["l2"], "steps": 12, "chunk": 40}
    with pytest.warns(attacks.AttackWarning, match="no DLR loss"):
        result = attacks.autoattack(
            key, logits_fn, images, labels, version="apgd-dlr", **given
        )
    clear = np.abs(distance["l2"] / eps["l2"] - 1) > 0.02
    np.testing.assert_array_equal(
        result.robust[clear], (distance["l2"] > eps["l2"])[clear]
    )


# --- Refusals ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"norm": "l3"}, ValueError, "unknown norm 'l3'; choose from linf, l2, l1"),
        ({"version": "best"}, ValueError, "unknown version 'best'; choose from stand"),
        ({"version": "pgd", "norm": "l1"}, ValueError, "pgd is for linf and l2"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8)}, TypeError, "for uint8 pass"),
        ({"images": np.full((2, 8, 8, 3), 1.5)}, ValueError, r"must lie in \[0, 1\]"),
        ({"labels": np.zeros(3)}, ValueError, r"labels must be integers \[2\]"),
    ],
)
def test_what_is_refused(changes, error, message, key):
    given = {
        "images": np.zeros((2, 8, 8, 3), np.float32),
        "labels": np.zeros(2, np.int32),
        "norm": "linf",
        "eps": 0.1,
    } | changes
    images, labels = given.pop("images"), given.pop("labels")
    with pytest.raises(error, match=message):
        attacks.autoattack(key, lambda x: x, images, labels, **given)


def test_unknown_loss_and_norm_of_single_attacks(key):
    images, labels = np.zeros((2, 8, 8, 3), np.float32), np.zeros(2, np.int32)
    with pytest.raises(ValueError, match="unknown loss 'cw'; choose from ce, dlr"):
        attacks.apgd(key, lambda x: x, images, labels, eps=0.1, loss="cw")
    with pytest.raises(ValueError, match="unknown norm 'l1' for pgd"):
        attacks.pgd(key, lambda x: x, images, labels, eps=0.1, norm="l1")
    with pytest.raises(ValueError, match="shrink is for the l1 norm"):
        attacks.apgd(key, lambda x: x, images, labels, eps=0.1, shrink=True)
    with pytest.raises(ValueError, match="unknown norm"):
        norms.check_norm("l0")


def test_what_a_function_binds_beside_arrays_stays_out_of_the_program(key):
    def switched(weights, pixels, *, train, name):
        assert train is False  # a traced value would be neither
        assert name == "net"
        return net(weights, pixels)

    plain = functools.partial(net, make_net(0))
    images, labels = make_points(plain)
    bound = functools.partial(switched, make_net(0), train=False, name="net")
    one = attacks.fgsm(key, bound, images, labels, eps=0.1)
    other = attacks.fgsm(key, plain, images, labels, eps=0.1)
    np.testing.assert_array_equal(one.robust, other.robust)


def test_a_key_that_is_bound_already_draws_nothing():
    def noisy(pixels, *, key):
        return pixels + jax.random.normal(key)

    assert core.is_stochastic(core.as_argument(noisy))
    assert not core.is_stochastic(functools.partial(noisy, key=jax.random.key(0)))


def test_gradients_that_are_no_numbers_are_noticed():
    found = checks.check_gradients(np.array([1.0, np.nan, np.inf, 2.0]))
    assert len(found) == 1
    assert "at 1 of 4 images the gradient is not a number" in found[0]


def test_sizes_of_batches_fit_the_machine():
    on_cpu = functools.partial(core.sizes, accelerated=False, cores=2)
    assert on_cpu(256) == (32, 24, 16, 12, 8)
    assert on_cpu(22) == (22, 17, 11)
    assert on_cpu(12, 3) == (12,)
    assert on_cpu(120, 3) == (96, 72, 48, 36, 24)
    assert on_cpu(256, cores=8)[::2] == (128, 64, 32, 16, 8)
    assert core.sizes(63, accelerated=True) == (63,)
    assert core.sizes(128, accelerated=True) == (128, 16)
    assert core.sizes(132, 3, accelerated=True) == (132, 18)
    engine = core.Engine(lambda pixels: pixels.sum((1, 2)), 64)
    engine.sizes = on_cpu(64)
    assert [engine.rows(n) for n in (1, 32)] == [32, 32]
    # Many small batches cost more than a large one, but less than one half empty.
    assert [engine.slots(n) for n in (5, 9, 21, 40, 216)] == [8, 12, 24, 24, 32]
    engine.sizes, engine.accelerated = (64, 8), True
    assert [engine.rows(n) for n in (8, 9)] == [8, 64]
    *_, (rows, count) = rounds.chunks(engine, 67)
    np.testing.assert_array_equal(rows, [64, 65, *[66] * 6])
    assert count == 3


# --- The queue -----------------------------------------------------------------------


def test_points_go_through_their_rounds_in_order():
    queue = slots.Queue(3, 2)
    np.testing.assert_array_equal(queue.take(2), [[0, 1], [0, 0]])
    # The third's first round waits no longer than anybody's second.
    np.testing.assert_array_equal(queue.take(3), [[2, 0, 1], [0, 1, 1]])
    image = np.ones((2, 2, 3), np.float32)
    for place, number, found in ((0, 1, image), (0, 0, None), (1, 0, 2 * image)):
        queue.hold(place)
        queue.settle(place, number, found)
    # The first fell in its second round, the second in its first.
    np.testing.assert_array_equal(queue.broken, [True, True, False])
    assert queue.needless(np.array([1, 1]), np.array([0, 1])).tolist() == [False, True]
    queue.hold(1)
    queue.settle(1, 1, 3 * image)  # too late
    assert queue.found[1] is not None
    assert queue.found[1].max() == 2
    queue.hold(2)
    assert queue.take(5).size == 0, "who is held begins nothing"
    queue.settle(2, 0, None)
    np.testing.assert_array_equal(queue.take(5), [[2], [1]])


@pytest.mark.parametrize(
    "name", ["apgd-t", pytest.param("pgd", marks=pytest.mark.slow)]
)
def test_batches_change_nothing(name, key, monkeypatch):
    """One after the other, or all that fit at once and later rounds ahead of time."""
    logits_fn = functools.partial(net, make_net(0))
    images, labels = make_points(logits_fn)
    run = functools.partial(run_single, name, "l2", key, logits_fn, images, labels)
    one = run(chunk=1, eps=0.15)
    for stride in (1, 7):
        monkeypatch.setattr(core, "_STRIDE_CPU", stride)
        many = run(chunk=32, eps=0.15)
        np.testing.assert_array_equal(one.robust, many.robust)
        np.testing.assert_allclose(one.images, many.images, atol=1e-5)
    assert 2 < one.robust.sum() < COUNT - 4
