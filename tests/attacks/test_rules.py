"""Rules of the attacks, step by step, against the same in NumPy.

Functions are such that another rule gives other numbers: curved, so that steps help and
don't, and seen at images where the ball, the box or a tie decides.
"""

import functools
import importlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import attacks
from apr_jax.attacks import checks, core, norms, rounds, sequence
from apr_jax.attacks.apgd import APGD, make_plan
from apr_jax.attacks.fab import FAB
from apr_jax.attacks.hyperplanes import to_hyperplane
from apr_jax.attacks.pgd import PGD
from apr_jax.attacks.square import Square, SquareState, _square

COUNT, SHAPE = 3, (4, 5, 3)
SIZE = int(np.prod(SHAPE))


def wavy(weights, images):
    """Logits of three classes that wave along the way, so that steps overshoot."""
    x = images.reshape(len(images), -1)
    return jnp.sin(x @ weights * 2.0) * jnp.array([[1.0, 2.0, 3.0]]) + x @ weights


@pytest.fixture
def function(rng):
    weights = rng.normal(size=(SIZE, 3)).astype(np.float32)
    return jax.tree_util.Partial(wavy, weights)


def points_of(rng, *, noise, eps=0.3, labels=(0, 1, 2)):
    images = rng.uniform(0, 1, (COUNT, *SHAPE)).astype(np.float32)
    labels = np.asarray(labels, np.int32)
    return core.Points(
        keys=jax.random.split(jax.random.key(5), COUNT),
        images=images,
        labels=labels,
        targets=(labels + 1) % 3,
        eps=np.full(COUNT, eps, np.float32),
        noise=np.full(COUNT, noise, np.float32),
    )


@jax.jit
def slope_at(images, function, labels):
    def loss(x):
        logits = function(x)
        own = jnp.take_along_axis(logits, labels[:, None], 1)[:, 0]
        each = jax.nn.logsumexp(logits, axis=1) - own
        return each.sum(), (each, logits.argmax(1) != labels)

    return jax.grad(loss, has_aux=True)(images)


def slope(function, points, images):
    """Cross-entropies, their gradients, and whether the answer is wrong; float64."""
    grad, (each, wrong) = slope_at(np.float32(images), function, points.labels)
    return np.float64(each), np.float64(grad), np.asarray(wrong)


def unit(x):
    return x / np.sqrt(np.square(x).sum((1, 2, 3), keepdims=True))


def into(moved, origin, eps, norm):
    delta = moved - origin
    if norm == "linf":
        delta = np.clip(delta, -eps, eps)
    else:
        length = np.sqrt(np.square(delta).sum((1, 2, 3), keepdims=True))
        delta = delta * np.minimum(1, eps / np.maximum(length, 1e-12))
    return np.clip(origin + delta, 0, 1)


# --- PGD -----------------------------------------------------------------------------


@pytest.mark.parametrize(("norm", "noise"), [("linf", 1.0), ("l2", 0.0)])
def test_pgd_step_by_step(function, rng, norm, noise):
    points = points_of(rng, noise=noise)
    attack = PGD(norm, "ce", 5, 0.4)
    state = jax.jit(attack.init)(points)
    origin = np.float64(points.images)
    away = np.float64(state.images) - origin
    size = {
        "linf": np.abs(away).max((1, 2, 3)),
        "l2": np.sqrt((away**2).sum((1, 2, 3))),
    }
    assert (size[norm] <= 0.3 + 1e-6).all()
    assert (size[norm] > 0.01).all() == bool(noise)
    if noise:  # each its own
        assert abs(np.corrcoef(away[0].ravel(), away[1].ravel())[0, 1]) < 0.5
    step = jax.jit(functools.partial(attack.step, function))
    here, first = np.float64(state.images), [None] * COUNT
    for _ in range(5):
        _, grad, wrong = slope(function, points, here)
        for i in np.flatnonzero(wrong):
            first[i] = here[i] if first[i] is None else first[i]
        way = np.sign(grad) if norm == "linf" else unit(grad)
        here = into(here + 0.4 * 0.3 * way, origin, 0.3, norm)
        state = step(state)
        np.testing.assert_allclose(state.images, here, atol=2e-5)
        here = np.float64(state.images)
    result, broken = np.asarray(attack.result(state)), np.asarray(state.broken)
    for i, found in enumerate(first):
        assert broken[i] == (found is not None)
        wanted = here[i] if found is None else found
        np.testing.assert_allclose(result[i], wanted, atol=2e-5)


def test_a_random_start_is_taken_by_default_and_anew_each_time():
    """A function that only answers wrongly off the image, and has no slope."""

    def trap(x):
        off = jnp.abs(x - 0.5).max((1, 2, 3)) > 1e-4
        return jnp.where(off[:, None], jnp.array([[0.0, 1]]), jnp.array([[1.0, 0]]))

    images, labels = np.full((4, *SHAPE), 0.5, np.float32), np.zeros(4, np.int32)
    run = functools.partial(attacks.pgd, jax.random.key(0), trap, images, labels)
    found = run(eps=0.1, steps=1)
    assert not found.robust.any()
    assert run(eps=0.1, steps=1, random_start=False).robust.all()
    assert len({x.tobytes() for x in found.images}) == 4


def test_lengths_of_steps_are_what_they_are_by_default(monkeypatch):
    pgd_lib = importlib.import_module("apr_jax.attacks.pgd")  # hidden by its function
    seen = []
    monkeypatch.setattr(pgd_lib, "run_alone", lambda stage, *_: seen.append(stage))
    given = (jax.random.key(0), lambda x: x, np.zeros((1, *SHAPE), np.float32), [0])
    attacks.pgd(*given, eps=0.2, steps=20)
    attacks.pgd(*given, eps=0.2, steps=20, step_size=0.05, restarts=3)
    attacks.fgsm(*given, eps=0.2)
    attacks.fgsm(*given, eps=0.2, step_size=0.25, random_start=True)
    shares = [stage.attack.step_share for stage in seen]
    assert shares == pytest.approx([2.5 / 20, 0.25, 1.0, 1.25])
    assert [stage.attack.steps for stage in seen] == [20, 20, 1, 1]
    assert [stage.noise for stage in seen] == ["always", "always", "never", "always"]
    assert [stage.restarts for stage in seen] == [1, 3, 1, 1]


# --- Auto-PGD ------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_apgd_step_by_step(function, rng, norm):
    """Algorithm 1 of Croce and Hein 2020, with its checks, for 24 steps."""
    points = points_of(rng, noise=1.0, eps=0.25)
    attack = APGD(norm, "ce", 24)
    state = jax.jit(attack.init)(points)
    origin, here = np.float64(points.images), np.float64(state.images)
    step = jax.jit(functools.partial(attack.step, function))
    checks = []  # w_0 = 0, w_1 = 0.22 N, each part 0.03 N shorter, 0.06 least
    part = int(0.22 * 24)
    while sum(checks) + part <= 24:
        checks.append(part)
        part = max(part - max(int(0.03 * 24), 1), int(0.06 * 24), 1)
    places = {int(p): c for p, c in zip(np.cumsum(checks), checks, strict=True)}
    length = np.full(COUNT, 2 * 0.25)
    best, best_grad = here.copy(), None
    best_loss, last, at_check = (np.full(COUNT, x) for x in (-np.inf, np.inf, -np.inf))
    rises, halved, before = np.zeros(COUNT), np.ones(COUNT, bool), here.copy()
    turned = 0
    for k in range(25):
        loss, grad, _ = slope(function, points, here)
        best_grad = grad.copy() if best_grad is None else best_grad
        better = loss > best_loss
        best[better], best_grad[better] = here[better], grad[better]
        best_loss = np.where(better, loss, best_loss)
        rises += loss > last
        last = loss
        way, at = grad.copy(), here.copy()
        if window := places.get(k):
            halve = (rises <= 0.75 * window) | (~halved & (at_check >= best_loss))
            length = np.where(halve, length / 2, length)
            at[halve], way[halve] = best[halve], best_grad[halve]
            rises, at_check, halved = np.zeros(COUNT), best_loss.copy(), halve
            turned += halve.sum()
        way = np.sign(way) if norm == "linf" else unit(way)
        ahead = into(at + length[:, None, None, None] * way, origin, 0.25, norm)
        old = 0.25 if k else 0.0
        moved = at + (1 - old) * (ahead - at) + old * (at - before)
        before, here = at, into(moved, origin, 0.25, norm)
        state = step(state)
        if k == 24:
            break
        np.testing.assert_allclose(state.images, here, atol=5e-5, err_msg=str(k))
        np.testing.assert_allclose(state.length, length, rtol=1e-6)
        here = np.float64(state.images)
    assert 3 < turned < COUNT * len(checks), "both outcomes of a check must occur"
    np.testing.assert_allclose(state.best_loss, best_loss, rtol=1e-3)


# Steps that rose of 4, whether it was halved before, the best loss then and now.
CHECKS = [
    (2, True, 1.0, 2.0, True),
    (3, True, 1.0, 2.0, True),  # exactly rho: not more than it
    (4, True, 1.0, 2.0, False),
    (4, True, 2.0, 2.0, False),  # halved before: gets another chance
    (4, False, 2.0, 2.0, True),  # no gain, and not halved before
    (4, False, 1.999, 2.0, False),
    (0, False, 2.0, 2.0, True),
]


@pytest.mark.parametrize("window", [0, 4])
def test_steps_are_halved_where_they_do_not_help(window):
    rises, halved, then, now, wanted = (np.array(c) for c in zip(*CHECKS, strict=True))
    count = len(CHECKS)
    images = np.zeros((count, 2, 2, 1), np.float32)
    zeros = np.zeros(count, np.float32)
    points = core.Points(
        jax.random.split(jax.random.key(0), count),
        images,
        zeros.astype(np.int32),
        zeros.astype(np.int32),
        zeros + 0.5,
        zeros,
    )
    attack = APGD("linf", "ce", 10)
    state = jax.jit(attack.init)(points)._replace(
        rises=rises.astype(np.float32),
        halved=halved,
        checked_loss=then.astype(np.float32),
        best_loss=now.astype(np.float32),
        length=zeros + 0.8,
    )
    row = jax.tree.map(lambda x: np.full(count, x[0]), make_plan("linf", 10, False))
    after, back = jax.jit(attack._adapt_length)(
        state, row._replace(window=np.full(count, window))
    )
    wanted = wanted & (window > 0)
    np.testing.assert_array_equal(back, wanted)
    np.testing.assert_allclose(after.length, np.where(wanted, 0.4, 0.8))
    if window:
        np.testing.assert_array_equal(after.rises, 0)
        np.testing.assert_allclose(after.checked_loss, now)
        np.testing.assert_array_equal(after.halved, wanted)
    else:
        np.testing.assert_array_equal(after.halved, halved)
        np.testing.assert_allclose(after.rises, rises)


def test_sparse_steps_follow_l1_apgd():
    """Section 4 of Croce and Hein 2021: sparsity k / 1.5, lengths eps to eps / 10."""
    count = 4
    images = np.full((count, 4, 5, 1), 0.5, np.float32)
    zeros = np.zeros(count, np.float32)
    keys = jax.random.split(jax.random.key(0), count)
    labels = zeros.astype(np.int32)
    points = core.Points(keys, images, labels, labels, zeros + 2, zeros)
    attack = APGD("l1", "ce", 100)
    state = jax.jit(attack.init)(points)
    np.testing.assert_allclose(state.share, 0.2)
    np.testing.assert_allclose(state.length, 2.0)
    changed = np.zeros((count, 20), np.float32)
    for row, number in enumerate((10, 18, 19, 20)):
        changed[row, :number] = 0.1
    state = state._replace(
        best=images + changed.reshape(images.shape),
        length=np.array([2, 2, 2, 0.25], np.float32),
    )
    row = jax.tree.map(lambda x: np.full(count, x[0]), make_plan("l1", 100, False))
    row = row._replace(window=np.full(count, 4))
    after, back = jax.jit(attack._adapt_sparsity)(state, row)
    np.testing.assert_array_equal(back, [True, True, False, False])  # below 0.95 of 20
    np.testing.assert_allclose(after.length, [2, 2, 2 / 1.5, 0.2], rtol=1e-6)
    np.testing.assert_allclose(after.share, np.array([10, 18, 19, 20]) / 1.5 / 20)
    np.testing.assert_array_equal(after.changed, [10, 18, 19, 20])


def test_random_gradients_are_averaged_over_so_many(function, rng):
    calls = 7
    noise = lambda key, x: jax.random.normal(key, x.shape)
    pull = lambda images, key: (images * noise(key, images)).sum((1, 2, 3))

    def logits_fn(images, *, key):
        return jnp.stack([jnp.zeros(len(images)), pull(images, key)], 1)

    points = points_of(rng, noise=0.0, labels=(0, 0, 0))
    sizes = []
    for eot in (1, calls):
        attack = APGD("l2", "margin", 3, eot=eot)
        look = jax.jit(functools.partial(attack._look, logits_fn))
        _, grad, _ = look(points.images, points, jnp.int32(0))
        sizes.append(float(jnp.square(grad).mean()))
    assert sizes[0] == pytest.approx(1, rel=0.35)
    assert sizes[1] == pytest.approx(1 / calls, rel=0.35)


# --- FAB -----------------------------------------------------------------------------


@pytest.mark.parametrize(("norm", "targeted"), [("linf", True), ("l2", False)])
def test_fab_step_by_step(rng, norm, targeted):
    """Algorithm 1 of Croce and Hein 2020 on planes, with its steps back."""
    weights = rng.normal(size=(SIZE, 3))
    function = lambda x: x.reshape(len(x), -1) @ weights.astype(np.float32)
    points = points_of(rng, noise=1.0, eps=0.1)
    labels = function(points.images).argmax(1).astype(np.int32)
    points = points._replace(labels=labels, targets=(labels + 1) % 3)
    attack = FAB(norm, targeted, 4, alpha_max=0.2, eta=1.1, beta=0.7, nearest=True)
    state = jax.jit(attack.init)(points)
    nearest = jax.jit(to_hyperplane, static_argnums=3)
    clean = np.float64(points.images).reshape(COUNT, -1)
    order = {"linf": np.inf, "l2": 2}[norm]
    start = np.float64(state.images).reshape(COUNT, -1)
    far = np.linalg.norm(start - clean, order, axis=1)
    assert (far <= 0.05 + 1e-6).all()
    assert (far > 0.02).all()
    here = start
    step = jax.jit(functools.partial(attack.step, function))
    dual = {"linf": 1, "l2": 2}[norm]
    back = 0
    for _ in range(4):
        logits = here @ weights
        moved = np.empty_like(here)
        for i, label in enumerate(labels):
            others = [k for k in range(3) if k != label]
            distance = [
                abs(logits[i, k] - logits[i, label])
                / np.linalg.norm(weights[:, k] - weights[:, label], dual)
                for k in others
            ]
            chosen = (label + 1) % 3 if targeted else others[int(np.argmin(distance))]
            normal = weights[:, chosen] - weights[:, label]
            onto = lambda x, normal=normal: np.asarray(
                nearest(
                    *(np.float32(a) for a in (x[None], normal[None], [x @ normal])),
                    norm,
                )
            )[0]
            from_here, from_clean = onto(here[i]), onto(clean[i])
            near, away = (np.linalg.norm(c, order) for c in (from_here, from_clean))
            alpha = min(max(near, 1e-8) / (max(near, 1e-8) + away), 0.2)
            moved[i] = (1 - alpha) * (here[i] + 1.1 * from_here)
            moved[i] += alpha * (clean[i] + 1.1 * from_clean)
        moved = np.clip(moved, 0, 1)
        wrong = (moved @ weights).argmax(1) != labels
        back += wrong.sum()
        here = np.where(wrong[:, None], clean + 0.7 * (moved - clean), moved)
        state = step(state)
        np.testing.assert_allclose(
            np.asarray(state.images).reshape(COUNT, -1), here, atol=2e-4
        )
        here = np.float64(state.images).reshape(COUNT, -1)
    assert back, "some step must have crossed the boundary"


# --- Square --------------------------------------------------------------------------


def test_square_keeps_what_lowers_the_margin_alone(rng):
    points = points_of(rng, noise=0.0, eps=0.1, labels=(0, 0, 0))
    attack = Square("linf", 100)
    # The margin is ten times the mean pixel.
    logits_fn = lambda x: jnp.stack([10 * x.mean((1, 2, 3)), jnp.zeros(len(x))], 1)
    state = jax.jit(attack.init)(points)
    delta = np.asarray(state.images - points.images)
    stripes = np.clip(np.float64(points.images) + 0.1 * np.sign(delta[:, :1]), 0, 1)
    np.testing.assert_allclose(
        state.images, stripes, atol=1e-6
    )  # the same down a column
    higher = points.images * 0.5 + 0.1
    # Lower, higher by a little, higher.
    proposal = np.stack([higher[0] - 0.05, higher[1] + 1e-5, higher[2] + 0.05])
    margin = 10 * higher.mean((1, 2, 3))
    state = SquareState(points, np.zeros(3, np.int32), higher, proposal, margin)
    step = jax.jit(functools.partial(attack.step, logits_fn))
    after = step(state)
    taken = (np.asarray(after.images) == proposal).all((1, 2, 3)).tolist()
    assert taken == [True, False, False]
    wanted = [margin[0] - 0.5, margin[1], margin[2]]
    np.testing.assert_allclose(after.margin, wanted, rtol=1e-5)
    gone = state._replace(margin=np.array([-0.1, 0.0, 1e-3], np.float32))
    assert attack.done(gone).tolist() == [True, False, False]
    kept = step(gone._replace(proposal=np.zeros_like(higher)))
    np.testing.assert_array_equal(np.asarray(kept.images)[0], higher[0])


def test_squares_flip_two_radii_somewhere(rng):
    points = points_of(rng, noise=0.0, eps=0.1)
    points = points._replace(images=np.full((COUNT, *SHAPE), 0.5, np.float32))
    low = points.images - 0.1
    ones = np.ones(3, np.float32)
    state = SquareState(points, np.zeros(3, np.int32), low, low, ones)
    keys = jax.random.split(jax.random.key(1), COUNT)
    flip = jax.jit(Square("linf", 10)._flip)
    got = np.asarray(flip(keys, state, np.full(3, 2, np.int32)))
    for image in got:
        for channel in range(3):  # up by 0.2 in the square, or down, and so back
            levels = image[..., channel]
            changed = levels > 0.45
            assert changed.sum() in (0, 4)
            np.testing.assert_allclose(levels[changed], 0.6, atol=1e-6)
            np.testing.assert_allclose(levels[~changed], 0.4, atol=1e-6)
    assert (got > 0.45).any()
    like = np.zeros((600, *SHAPE), np.float32)
    many = jax.random.split(jax.random.key(2), 600)
    inside, _, _ = jax.jit(_square)(many, like, np.full(600, 2, np.int32))
    corners = [tuple(np.argwhere(x[:, :, 0])[0]) for x in np.asarray(inside)]
    found, counts = np.unique(corners, axis=0, return_counts=True)
    assert len(found) == 3 * 4  # everywhere that it fits, as often
    assert counts.min() > 25
    assert (np.asarray(inside).sum((1, 2, 3)) == 4).all()


# --- Sequences -----------------------------------------------------------------------

# AutoAttack's versions: (name, steps, restarts, targets, gradients averaged).
SEQUENCES = {
    ("standard", "linf"): [
        ("apgd-ce", 100, 1, 0, 1),
        ("apgd-t", 100, 1, 9, 1),
        ("fab-t", 100, 1, 9, None),
        ("square", 5000, 1, 0, None),
    ],
    ("plus", "l2"): [
        ("apgd-ce", 100, 5, 0, 1),
        ("apgd-dlr", 100, 5, 0, 1),
        ("fab", 100, 5, 0, None),
        ("square", 5000, 1, 0, None),
        ("apgd-t", 100, 1, 9, 1),
        ("fab-t", 100, 1, 9, None),
    ],
    ("rand", "linf"): [("apgd-ce", 100, 1, 0, 20), ("apgd-dlr", 100, 1, 0, 20)],
    ("standard", "l1"): [
        ("apgd-ce", 100, 5, 0, 1),
        ("apgd-t", 100, 1, 5, 1),
        ("fab-t", 100, 1, 9, None),
        ("square", 5000, 1, 0, None),
    ],
}


@pytest.mark.parametrize("version", SEQUENCES, ids="-".join)
def test_versions_are_autoattack_s(version):
    found = []
    for stage in sequence.make_stages(*version):
        attack = stage.attack
        steps = getattr(attack, "iterations", None) or getattr(attack, "queries", None)
        eot = getattr(attack, "eot", None)
        found.append(
            (stage.name, steps or attack.steps, stage.restarts, stage.targets, eot)
        )
        assert attack.norm == version[1]
        if isinstance(attack, APGD):
            assert attack.rho == 0.75
            assert attack.shrink == (version[1] == "l1")
        if isinstance(attack, FAB):
            assert (attack.alpha_max, attack.eta, attack.beta) == (0.1, 1.05, 0.9)
            assert attack.targeted == (stage.name == "fab-t")
        if isinstance(attack, Square):
            assert (attack.p_init, attack.rescale) == (0.8, False)
    assert found == SEQUENCES[version]
    losses = {"apgd-ce": "ce", "apgd-dlr": "dlr", "apgd-t": "dlr-targeted"}
    for stage in sequence.make_stages(*version):
        assert getattr(stage.attack, "loss", None) == losses.get(stage.name)


def test_rounds_are_targets_by_rank_each_so_often():
    stage = rounds.Stage("x", None, targets=9, restarts=2, noise="again")
    assert list(stage.rounds(4)) == [
        (rank, noise) for rank in (1, 2, 3) for noise in (0.0, 1.0)
    ]
    alone = rounds.Stage("x", None, restarts=3, noise="never")
    assert list(alone.rounds(4)) == [(0, 0.0)] * 3
    assert list(rounds.Stage("x", None).rounds(4)) == [(0, 1.0)]


def test_every_round_of_every_point_and_attack_draws_for_itself(monkeypatch):
    """The keys, targets and noise that an attack is given."""
    seen = {}
    logits = np.array([[5.0, 1, 4, 3], [0, 9.0, 2, 1]], np.float32)

    def run(engine, attack, queue, images, points_of, judge, tick):
        for number in range(queue.rounds):
            points = points_of(np.arange(2), np.full(2, number))
            for row in range(2):
                key = jax.random.key_data(points.keys[row]).tobytes()
                seen[attack, row, number] = key, int(points.targets[row])

    monkeypatch.setattr(rounds.slots, "run", run)
    images, labels = np.zeros((2, *SHAPE), np.float32), np.array([0, 1])
    task = rounds.Task(jax.random.key(3), images, labels, "linf", 0.1, logits)
    for name in ("one", "other"):
        stage = rounds.Stage(name, name, targets=3, restarts=2)
        rounds.run_stage(None, stage, task, np.ones(2, bool), images)
    assert len({key for key, _ in seen.values()}) == len(seen) == 2 * 2 * 6
    for row, ranked in enumerate(([2, 3, 1], [2, 3, 0])):
        targets = [seen["one", row, number][1] for number in range(6)]
        assert targets == np.repeat(ranked, 2).tolist()


def test_random_directions_have_the_distribution_of_autoattack():
    keys = jax.random.split(jax.random.key(0), 300)
    like = np.zeros((300, 4, 4, 3), np.float32)
    direction = jax.jit(norms.random_direction, static_argnums=2)
    inside_of = jax.jit(norms.random_inside, static_argnums=3)
    radii = np.full(300, 0.2, np.float32)
    cube = np.asarray(direction(keys, like, "linf"))
    np.testing.assert_allclose(np.abs(cube).max((1, 2, 3)), 1, rtol=1e-5)
    assert np.abs(cube).mean() == pytest.approx(0.5, abs=0.03)  # uniform, stretched
    ball = np.asarray(direction(keys, like, "l2")) * np.sqrt(48)
    assert np.mean(ball**4) == pytest.approx(3, rel=0.1)  # Gaussian
    inside = np.asarray(inside_of(keys, like + 0.5, radii, "linf"))
    assert (inside - 0.5).std() == pytest.approx(0.2 / np.sqrt(3), rel=0.03)
    away = np.asarray(inside_of(keys, like + 0.5, radii, "l2")) - 0.5
    lengths = np.sqrt(np.square(away).sum((1, 2, 3)))
    assert lengths.mean() == pytest.approx(0.1, rel=0.1)
    assert lengths.max() <= 0.2 + 1e-6


def test_square_raises_doubts_beyond_a_fifth_of_a_percent():
    before = np.ones(1000, bool)
    for gained, doubts in ((1, 0), (3, 1)):
        after = np.arange(1000) >= gained
        assert len(checks.check_square(before, after)) == doubts


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e-25, 1e-33])
def test_the_steepest_way_is_of_norm_one_however_small_a_gradient(rng, scale):
    grad = np.float32(rng.normal(size=(3, 4, 4, 3)))
    grad[2] = 0
    way = np.asarray(norms.steepest(jnp.asarray(grad * np.float32(scale)), "l2"))
    wanted = (
        grad
        / np.maximum(np.linalg.norm(grad.reshape(3, -1), axis=1), 1e-9)[
            :, None, None, None
        ]
    )
    np.testing.assert_allclose(way, wanted, rtol=1e-4, atol=1e-6)
    signs = norms.steepest(jnp.asarray(grad), "linf")
    np.testing.assert_array_equal(signs, np.sign(grad))


def test_without_a_limit_fab_counts_nothing_as_near_before_it_found_something(key):
    weights = jnp.asarray([[1.0, -1.0]] * 12)
    net = lambda x: (x - 0.5).reshape(len(x), -1) @ weights
    images = jnp.full((2, 2, 2, 3), 0.6).at[1].set(0.4)
    for given in ({}, {"targeted": True, "targets": 1}):
        found = attacks.fab(
            key, net, images, jnp.array([0, 1]), eps=math.inf, steps=10, **given
        )
        assert not found.robust.any()
    start = FAB("l2", False, 1).init(
        core.Points(
            images=images,
            labels=jnp.zeros(2, int),
            targets=jnp.ones(2, int),
            eps=jnp.full(2, jnp.inf),
            noise=jnp.ones(2),
            keys=jax.random.split(key, 2),
        )
    )
    away = np.asarray(start.images - images).reshape(2, -1)
    assert (np.linalg.norm(away, axis=1) <= 0.5 + 1e-6).all()


@pytest.mark.parametrize("given", [{"targeted": True}, {"restarts": 2}])
def test_the_nearest_is_looked_for_in_one_round(key, given):
    images, labels = jnp.full((2, 4, 4, 3), 0.5), jnp.zeros(2, int)
    with pytest.raises(ValueError, match="nearest is True, which goes on in one round"):
        attacks.fab(
            key, lambda x: x[:, 0, 0], images, labels, eps=1.0, nearest=True, **given
        )


def test_a_class_that_is_left_out_hides_no_stochastic_function(rng):
    once = rng.normal(size=(6, 4))
    again = once + 0.05 * rng.normal(size=once.shape)
    out = np.full((6, 1), -np.inf)
    for answers, said in (([once, again], 1), ([once, once], 0)):
        with_out = [np.concatenate([a, out], axis=1) for a in answers]
        assert len(checks.check_function(answers, rand=False)) == said
        found = checks.check_function(with_out, rand=False)
        assert len([line for line in found if "differently" in line]) == said
