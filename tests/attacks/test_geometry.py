"""Projections and losses of the attacks, against NumPy and SciPy."""

import jax
import numpy as np
import pytest

from apr_jax.attacks import losses, norms
from apr_jax.attacks.hyperplanes import to_hyperplane

optimize = pytest.importorskip("scipy.optimize")
onto_plane = jax.jit(to_hyperplane, static_argnums=3)
project = jax.jit(norms.project, static_argnums=3)


def least_change(point, normal, value, norm):
    """The same problem as a linear program, or its dual's root for l2."""
    size = len(point)
    low, high = -point, 1 - point
    way = -np.sign(value) * np.sign(normal)
    corner = np.where(way > 0, high, np.where(way < 0, low, 0.0))
    if abs(normal @ corner) <= abs(value):
        return corner
    if norm == "l2":
        change = lambda t: np.clip(-np.sign(value) * t * normal, low, high)
        gap = lambda t: abs(normal @ change(t)) - abs(value)
        return change(optimize.brentq(gap, 0, 1e6, xtol=1e-14, rtol=1e-14))
    # Variables: d, and bounds of |d|: one for all (linf), or one each (l1).
    bounds_of = np.eye(size) if norm == "l1" else np.ones((size, 1))
    more = bounds_of.shape[1]
    found = optimize.linprog(
        np.concatenate([np.zeros(size), np.ones(more)]),
        A_ub=np.block([[np.eye(size), -bounds_of], [-np.eye(size), -bounds_of]]),
        b_ub=np.zeros(2 * size),
        A_eq=np.concatenate([normal, np.zeros(more)])[None],
        b_eq=[-value],
        bounds=[*zip(low, high, strict=True), *[(0, None)] * more],
    )
    assert found.status == 0
    return found.x[:size]


@pytest.mark.parametrize("norm", norms.NORMS)
def test_least_change_onto_a_plane(norm, rng):
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    count, size = 24, 9
    points = rng.uniform(0, 1, (count, size))
    points[:, 0] = rng.integers(0, 2, count)  # at the box already
    normals = rng.normal(size=(count, size))
    normals[:, 1] = 0.0
    values = rng.normal(0, 1.5, count)
    values[:3] = [0.0, 50.0, -50.0]  # on the plane; out of the box's reach
    found = onto_plane(*map(np.float32, (points, normals, values)), norm)
    found = np.asarray(found, np.float64)
    assert (points + found >= -1e-6).all()
    assert (points + found <= 1 + 1e-6).all()
    for i in range(count):
        wanted = least_change(points[i], normals[i], values[i], norm)
        assert normals[i] @ found[i] == pytest.approx(normals[i] @ wanted, abs=2e-5)
        assert np.linalg.norm(found[i], order) == pytest.approx(
            np.linalg.norm(wanted, order), abs=2e-5
        )


def test_a_plane_without_direction_changes_nothing():
    for norm in norms.NORMS:
        half, none = np.full((2, 5), 0.5, np.float32), np.zeros((2, 5), np.float32)
        change = onto_plane(half, none, np.array([0.0, 1.0], np.float32), norm)
        np.testing.assert_array_equal(change, np.zeros((2, 5)))


def test_the_l1_ball_within_the_box_is_met_at_the_nearest_point(rng):
    count, shape = 12, (2, 3, 2)
    origin = rng.uniform(0, 1, (count, *shape))
    moved = origin + rng.normal(0, 0.7, origin.shape)
    moved[0] = origin[0] + 0.01  # inside both, near enough
    origin[0] = np.clip(origin[0], 0.02, 0.95)
    eps = rng.uniform(0.3, 2.0, count)
    found = np.asarray(project(*map(np.float32, (moved, origin, eps)), "l1"))
    for i in range(count):
        delta = (moved[i] - origin[i]).ravel()
        room = np.where(delta > 0, 1 - origin[i].ravel(), origin[i].ravel())
        length = np.abs(delta)
        best = optimize.minimize(
            lambda m, length=length: np.square(m - length).sum(),
            np.zeros(len(delta)),
            jac=lambda m, length=length: 2 * (m - length),
            bounds=[(0, r) for r in room],
            constraints={
                "type": "ineq",
                "fun": lambda m, radius=eps[i]: radius - m.sum(),
                "jac": lambda m: -np.ones(len(m)),
            },
            options={"ftol": 1e-14, "maxiter": 500},
            method="SLSQP",
        )
        wanted = origin[i].ravel() + np.sign(delta) * best.x
        np.testing.assert_allclose(found[i].ravel(), wanted, atol=2e-4)


@pytest.mark.parametrize("norm", norms.NORMS)
def test_projection_ends_in_ball_and_box(norm, rng):
    origin = rng.uniform(0, 1, (16, 32, 32, 3)).astype(np.float32)
    origin[:, :8] = rng.integers(0, 2, origin[:, :8].shape)
    moved = origin + rng.normal(0, 1, origin.shape).astype(np.float32)
    eps = {"linf": 8 / 255, "l2": 0.5, "l1": 12.0}[norm]
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    radii = np.full(16, eps, np.float32)
    found = np.asarray(project(moved, origin, radii, norm))
    delta = (found.astype(np.float64) - origin).reshape(16, -1)
    sizes = np.linalg.norm(delta, order, axis=1)
    assert found.min() >= 0
    assert found.max() <= 1
    assert sizes.max() <= eps + 1e-6
    if norm != "l2":  # scaled and then clipped, which shortens it
        assert sizes.min() >= eps * (1 - 1e-5)
    again = np.asarray(project(found, origin, radii, norm))
    np.testing.assert_allclose(again, found, atol=1e-6)


@pytest.mark.parametrize("norm", norms.NORMS)
def test_random_starts_are_in_the_ball_and_each_its_own(norm, key):
    keys = jax.random.split(key, 6)
    origin = np.full((6, 4, 4, 3), 0.5, np.float32)
    eps = np.linspace(0.05, 0.3, 6, dtype=np.float32)

    @jax.jit
    def draw(keys):
        inside = norms.random_inside(keys, origin, eps, norm)
        direction = norms.random_direction(keys, origin, norm)
        sizes = norms.size(inside - origin, norm), norms.size(direction, norm)
        return inside, *sizes

    inside, sizes, lengths = map(np.asarray, draw(keys))
    assert (sizes <= eps + 1e-6).all()
    assert len(np.unique(inside[:, 0, 0, 0])) == 6
    np.testing.assert_allclose(lengths, 1.0, rtol=1e-5)


@pytest.mark.parametrize("classes", [2, 3, 4, 7])
def test_losses(classes, rng):
    logits = rng.normal(size=(9, classes))
    labels = rng.integers(0, classes, 9)
    targets = (labels + 1) % classes
    ordered = -np.sort(-logits, axis=1)
    own, other = (logits[np.arange(9), c] for c in (labels, targets))
    rest = np.where(np.arange(classes) == labels[:, None], -np.inf, logits).max(1)
    dlr, targeted = rest - own, other - own
    if classes >= 3:
        dlr = dlr / (ordered[:, 0] - ordered[:, 2])
    if classes >= 4:
        targeted = targeted / (ordered[:, 0] - ordered[:, 2:4].mean(1))
    wanted = {
        "ce": np.log(np.exp(logits).sum(1)) - own,
        "margin": rest - own,
        "dlr": dlr,
        "dlr-targeted": targeted,
    }
    run = jax.jit(lambda *given: [losses.get_loss(name)(*given) for name in wanted])
    for name, found in zip(
        wanted, run(np.float32(logits), labels, targets), strict=True
    ):
        np.testing.assert_allclose(
            found, wanted[name], rtol=2e-4, atol=1e-5, err_msg=name
        )


def test_losses_without_a_class(rng):
    """Whose logit is -inf: the same values, the same gradients."""
    classes = 3  # fewer than the targeted DLR loss asks for
    logits = np.float32(rng.normal(size=(9, classes)))
    labels = rng.integers(0, classes, 9)
    targets = (labels + 1) % classes
    more = np.insert(logits, 1, -np.inf, axis=1)
    after = labels + (labels > 0), targets + (targets > 0)

    @jax.jit
    def run(logits, labels, targets):
        of = lambda name: lambda x: losses.get_loss(name)(x, labels, targets).sum()
        names = ("ce", "margin", "dlr", "dlr-targeted")
        return {name: jax.value_and_grad(of(name))(logits) for name in names}

    found = run(more, *after)
    for name, (value, slope) in run(logits, labels, targets).items():
        wider = np.insert(np.asarray(slope), 1, 0, axis=1)
        np.testing.assert_allclose(found[name][0], value, rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(found[name][1], wider, atol=1e-5, err_msg=name)


def test_the_largest_number_for_which_something_holds(rng):
    numbers = np.abs(rng.normal(size=(5, 41))).astype(np.float32)
    numbers[0, :9] = 0.0
    numbers[1] = 3.5
    numbers[2] = numbers[2] * 1e-30 + 1e-36
    for place in (0, 7, 40):
        found = jax.jit(
            lambda x, place=place: norms.largest(
                lambda least: (x < least[:, None]).sum(1) <= place, x[:, 0]
            )
        )(numbers)
        np.testing.assert_array_equal(found, np.sort(numbers, 1)[:, place])
