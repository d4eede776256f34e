"""Detection scores against formulas written anew, and against pytorch-ood."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import sklearn.covariance
import sklearn.metrics
import sklearn.neighbors

from apr_jax import config, ood, settings

CLASSES, FEATURES = 6, 10


@pytest.fixture(scope="module")
def sample():
    """Training and test outputs of a linear layer over clustered features."""
    rng = np.random.default_rng(5)
    weight = rng.normal(size=(FEATURES, CLASSES))
    bias = rng.normal(size=CLASSES)
    centres = 2 * rng.random((CLASSES, FEATURES))

    def draw(count, spread):
        labels = rng.integers(0, CLASSES, count)
        labels[:CLASSES] = np.arange(CLASSES)
        noise = rng.normal(size=(count, FEATURES)) * np.linspace(0.2, 1, FEATURES)
        features = np.maximum(centres[labels] + spread * noise, 0)
        return features, features @ weight + bias, labels

    train, test = draw(300, 0.5), draw(80, 1.5)
    fitted = ood.fit(*train, weight=weight, bias=bias, vim_dims=4)
    return {
        "train": train,
        "test": test,
        "weight": weight,
        "bias": bias,
        "fitted": fitted,
    }


def score(sample, name, **knobs):
    """Our score of the test examples, jitted."""
    features, logits, _ = sample["test"]
    run = jax.jit(lambda z, h, f: ood.SCORES[name](z, h, f, **knobs))
    return np.asarray(run(jnp.asarray(logits), jnp.asarray(features), sample["fitted"]))


@pytest.mark.parametrize("name", [n for n in ood.TABLE if n not in ood.OF_IMAGES])
def test_every_score_of_outputs_uses_what_it_says(sample, name):
    """Nothing else is given; a score in the table is tested by being there."""
    needs = ood.TABLE[name].needs
    assert set(needs) <= {"logits", "features", "weights", "train"}
    features, logits, _ = sample["test"]
    weights = {key: sample[key] for key in ("weight", "bias")}
    fitted = None
    if "train" in needs:
        fitted = ood.fit(*sample["train"], **(weights if "weights" in needs else {}))
    elif "weights" in needs:
        fitted = ood.Fitted(**weights)
    values = jax.jit(ood.SCORES[name])(
        jnp.asarray(logits) if "logits" in needs else None,
        jnp.asarray(features) if "features" in needs else None,
        fitted,
    )
    assert values.shape == (len(logits),)
    assert values.dtype == jnp.float32
    assert np.isfinite(values).all()


def test_every_score_has_a_name_and_a_label():
    assert tuple(ood.SCORES) == settings.choices(config.Ood, "scores")
    assert list(ood.SCORES) == list(ood.NEEDS) == list(ood.LABELS)
    assert len(set(ood.LABELS.values())) == len(ood.LABELS)
    assert ood.get_score("vim") is ood.SCORES["vim"]
    with pytest.raises(ValueError, match="unknown score 'mps'; choose from msp, max_"):
        ood.get_score("mps")


# --- Formulas ------------------------------------------------------------------------


def expected_of_logits(logits):
    p = scipy.special.softmax(logits, axis=1)
    top = -np.sort(-p, axis=1)
    return {
        "msp": np.log(p.max(1)),
        "max_logit": logits.max(1),
        "authors": logits.max(1),
        "energy": scipy.special.logsumexp(logits, axis=1),
        "entropy": -scipy.special.entr(p).sum(1),
        "gen": -np.sum((top * (1 - top)) ** 0.1, axis=1),
    }


@pytest.mark.parametrize(
    "name", ["msp", "max_logit", "authors", "energy", "entropy", "gen"]
)
def test_scores_of_logits(sample, name):
    wanted = expected_of_logits(sample["test"][1])[name]
    np.testing.assert_allclose(score(sample, name), wanted, rtol=2e-5, atol=2e-6)


def test_knobs_of_logit_scores(sample):
    logits = sample["test"][1]
    p = -np.sort(-scipy.special.softmax(logits, axis=1), axis=1)[:, :3]
    wanted = -np.sum((p * (1 - p)) ** 0.5, axis=1)
    ours = score(sample, "gen", gamma=0.5, top=3)
    np.testing.assert_allclose(ours, wanted, rtol=2e-5)
    wanted = 3 * scipy.special.logsumexp(logits / 3, axis=1)
    np.testing.assert_allclose(
        score(sample, "energy", temperature=3.0), wanted, rtol=1e-5
    )


@pytest.mark.parametrize("name", ["msp", "entropy", "gen"])
def test_sure_answers_keep_their_order(name):
    """In float32 the softmax of all of these is exactly one."""
    margins = np.arange(20, 60, 5, np.float32)
    logits = np.stack([margins, 0 * margins, 0 * margins], axis=1)
    assert (np.max(jax.jit(jax.nn.softmax)(logits), axis=1) == 1.0).all()
    values = np.asarray(jax.jit(ood.SCORES[name])(logits))
    assert np.all(np.diff(values) > 0)


def test_extreme_logits_stay_finite():
    logits = np.float32([[1e4, -1e4, 0], [0, 0, 0], [-1e4, -1e4, -1e4]])
    for name in ("msp", "max_logit", "energy", "entropy", "gen"):
        assert np.isfinite(jax.jit(ood.SCORES[name])(logits)).all(), name


def test_a_class_that_is_left_out_adds_nothing(sample):
    """A logit of -inf: the same as without the class, with finite gradients."""
    logits = np.insert(sample["test"][1], 2, -np.inf, axis=1)
    for name, wanted in expected_of_logits(sample["test"][1]).items():
        got = jax.jit(ood.SCORES[name])(np.float32(logits))
        np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-6)
        slope = jax.grad(lambda x, name=name: ood.SCORES[name](x).sum())
        assert np.isfinite(jax.jit(slope)(np.float32(logits))).all(), name
    half = jax.jit(ood.SCORES["entropy"])(np.float32([[0, 0, -np.inf]]))
    np.testing.assert_allclose(half, -0.6931472, rtol=1e-6)


def test_gen_has_a_gradient_where_probabilities_vanish():
    """Beside a sure class the others' power is infinitely steep at zero."""
    logits = np.float32([[300, 0, -300], [0, 1, 2]])
    slope = jax.jit(jax.grad(lambda x: ood.SCORES["gen"](x).sum()))(logits)
    assert np.isfinite(slope).all()
    wanted = []
    for change in np.eye(3):
        up, down = (
            expected_of_logits(np.array([[0.0, 1.0, 2.0] + s * 1e-6 * change]))["gen"]
            for s in (1, -1)
        )
        wanted.append((up - down)[0] / 2e-6)
    np.testing.assert_allclose(slope[1], wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", [n for n in ood.TABLE if n not in ood.OF_IMAGES])
def test_not_a_number_never_becomes_a_score(sample, name):
    """It must be seen, not rank an example anywhere."""
    features, logits, _ = (np.array(x) for x in sample["test"])
    features[3, 1] = logits[3, 2] = np.nan
    got = score({**sample, "test": (features, logits, None)}, name)
    np.testing.assert_array_equal(np.isnan(got), np.arange(len(got)) == 3)


def energy_of(features, weight, bias):
    return scipy.special.logsumexp(features @ weight + bias, axis=1)


def test_react(sample):
    limit = np.quantile(sample["train"][0], 0.9)
    features = np.minimum(sample["test"][0], limit)
    wanted = energy_of(features, sample["weight"], sample["bias"])
    np.testing.assert_allclose(score(sample, "react"), wanted, rtol=1e-5)


def test_dice(sample):
    contribution = sample["train"][0].mean(0)[:, None] * sample["weight"]
    kept = np.argsort(contribution.ravel())[-round(0.1 * contribution.size) :]
    weight = np.zeros_like(sample["weight"])
    weight.ravel()[kept] = sample["weight"].ravel()[kept]
    wanted = energy_of(sample["test"][0], weight, sample["bias"])
    np.testing.assert_allclose(score(sample, "dice"), wanted, rtol=1e-5)


@pytest.mark.parametrize("variant", ["s", "p", "b"])
def test_ash(sample, variant):
    wanted = []
    for row in sample["test"][0]:
        keep = np.argsort(row)[-4:]
        shaped = np.zeros_like(row)
        factor = np.exp(row.sum() / row[keep].sum()) if variant == "s" else 1.0
        shaped[keep] = row.sum() / 4 if variant == "b" else row[keep] * factor
        wanted.append(energy_of(shaped[None], sample["weight"], sample["bias"])[0])
    ours = score(sample, "ash", prune=0.6, variant=variant)
    np.testing.assert_allclose(ours, wanted, rtol=1e-4)


def test_ash_of_features_that_are_not_positive(sample):
    fitted = sample["fitted"]
    ash = jax.jit(lambda features: ood.SCORES["ash"](None, features, fitted))
    values = ash(np.zeros((2, FEATURES), np.float32))
    np.testing.assert_allclose(
        values, scipy.special.logsumexp(sample["bias"]), rtol=1e-5
    )
    assert np.isfinite(ash(-np.ones((2, FEATURES), np.float32))).all()


def distances(sample):
    """Squared Mahalanobis distance to each class, and to all of training."""
    features, _, labels = sample["train"]
    test = sample["test"][0]
    centred = features - np.stack([features[labels == c].mean(0) for c in labels])
    tied = sklearn.covariance.EmpiricalCovariance(assume_centered=True).fit(centred)
    every = sklearn.covariance.EmpiricalCovariance().fit(features)
    to_class = []
    for c in range(CLASSES):
        to_class.append(tied.mahalanobis(test - features[labels == c].mean(0)))
    return np.array(to_class).min(0), every.mahalanobis(test)


def test_mahalanobis(sample):
    nearest, _ = distances(sample)
    np.testing.assert_allclose(score(sample, "mahalanobis"), -nearest, rtol=1e-3)


def test_relative_mahalanobis(sample):
    nearest, background = distances(sample)
    ours = score(sample, "relative_mahalanobis")
    np.testing.assert_allclose(ours, background - nearest, rtol=1e-3, atol=1e-2)


def test_knn(sample):
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    search = sklearn.neighbors.NearestNeighbors().fit(unit(sample["train"][0]))
    far, _ = search.kneighbors(unit(sample["test"][0]), 7)
    np.testing.assert_allclose(score(sample, "knn", k=7), -far[:, -1], atol=2e-4)
    many = score(sample, "knn", k=10_000)
    far, _ = search.kneighbors(unit(sample["test"][0]), 300)
    np.testing.assert_allclose(many, -far[:, -1], atol=2e-4)


def test_vim(sample):
    features, logits, _ = sample["train"]
    # The logits at the origin are zero as nearly as they can be.
    origin = -np.linalg.lstsq(sample["weight"].T, sample["bias"], rcond=None)[0]
    _, _, directions = np.linalg.svd(features - origin, full_matrices=True)
    residual = lambda x: np.linalg.norm((x - origin) @ directions[4:].T, axis=1)
    alpha = logits.max(1).mean() / residual(features).mean()
    test, test_logits, _ = sample["test"]
    wanted = scipy.special.logsumexp(test_logits, axis=1) - alpha * residual(test)
    np.testing.assert_allclose(score(sample, "vim"), wanted, rtol=1e-3, atol=1e-3)


def test_a_feature_that_never_varied_does_not_decide_all(rng):
    features = rng.normal(size=(200, 5))
    features[:, 2] = 0.0
    labels = rng.integers(0, 2, 200)
    fitted = ood.fit(features, np.zeros((200, 2)), labels)
    values = ood.SCORES["mahalanobis"](None, jnp.asarray(features), fitted)
    assert np.isfinite(values).all()
    # Nor does it by a little that fires in a test image; as Lee's pseudo-inverse.
    others = [0, 1, 3, 4]
    alone = ood.fit(features[:, others], np.zeros((200, 2)), labels)
    fired = features.copy()
    fired[:, 2] = 0.01
    for name in ("mahalanobis", "relative_mahalanobis"):
        np.testing.assert_allclose(
            ood.SCORES[name](None, jnp.asarray(fired), fitted),
            ood.SCORES[name](None, jnp.asarray(features[:, others]), alone),
            rtol=1e-3,
            atol=1e-3,
        )
    nothing = ood.fit(np.zeros((4, 3)), np.zeros((4, 2)), np.arange(4) % 2)
    assert np.isfinite(ood.SCORES["mahalanobis"](None, jnp.ones((2, 3)), nothing)).all()


def test_of_fewer_examples_than_features_the_pseudo_inverse_counts(rng):
    """As Lee et al. do it, by scikit-learn's covariance."""
    features = rng.normal(size=(30, 64)) * np.geomspace(1, 0.1, 64)
    labels = np.arange(30) % 3
    fitted = ood.fit(features, np.zeros((30, 3)), labels)
    test = rng.normal(size=(9, 64))
    means = np.stack([features[labels == c].mean(0) for c in range(3)])
    found = sklearn.covariance.EmpiricalCovariance(assume_centered=True).fit(
        features - means[labels]
    )
    wanted = -np.stack([found.mahalanobis(test - mean) for mean in means]).min(0)
    got = ood.SCORES["mahalanobis"](None, jnp.asarray(test), fitted)
    np.testing.assert_allclose(got, wanted, rtol=1e-3)


def test_what_was_not_fitted_is_said(sample):
    features, logits, labels = sample["train"]
    without = ood.fit(features, logits, labels)
    inputs = jnp.asarray(logits), jnp.asarray(features)
    with pytest.raises(ValueError, match=r"'react' needs react_limit, weight, bias of"):
        ood.SCORES["react"](*inputs, without)
    with pytest.raises(ValueError, match="'knn' needs bank of training"):
        ood.SCORES["knn"](*inputs, None)
    assert ood.SCORES["mahalanobis"](*inputs, without).shape == (300,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(3, int)}, r"labels must be integers \[8\]"),
        ({"features": np.full((8, 3), np.nan)}, "24 of 24 training features are not"),
        ({"logits": np.zeros((7, 2))}, r"logits must be \[8, K\], not \[7, 2\]"),
        ({"weight": np.zeros((2, 3)), "bias": np.zeros(2)}, r"must be \[3, 2\] and"),
        ({"react_quantile": 1.5}, "react_quantile is 1.5"),
        ({"dice_sparsity": 1.0}, "dice_sparsity is 1.0"),
    ],
)
def test_bad_training_outputs_are_refused(change, message):
    good = {
        "features": np.ones((8, 3)),
        "logits": np.ones((8, 2)),
        "labels": np.zeros(8, int),
    }
    values = {**good, **change}
    first = [values.pop(name) for name in good]
    with pytest.raises(ValueError, match=message):
        ood.fit(*first, **values)


def test_bad_knobs_are_refused(sample):
    features = jnp.asarray(sample["test"][0])
    with pytest.raises(ValueError, match="unknown variant 'x'; choose from"):
        ood.SCORES["ash"](None, features, sample["fitted"], variant="x")
    with pytest.raises(ValueError, match="prune is 1"):
        ood.SCORES["ash"](None, features, sample["fitted"], prune=1)
    with pytest.raises(ValueError, match=r"logits must be \[N, K\], not \[10\]"):
        ood.SCORES["msp"](features[0])


# --- ODIN ----------------------------------------------------------------------------


def network(weight):
    """A small smooth function of [N, 4, 4, 3] pixels."""
    return lambda x: jnp.tanh(x.reshape(len(x), -1)) @ weight


def jitted(function, weight, images, *knobs, **more):
    run = jax.jit(lambda w, x: function(network(w), x, *knobs, **more))
    return np.asarray(run(jnp.asarray(weight), jnp.asarray(images)))


def test_odin_moves_along_the_sign_of_a_numerical_gradient(rng):
    weight = rng.normal(size=(48, 5))
    images = rng.random((2, 4, 4, 3))
    temperature, step = 10.0, 0.01

    def surest(x):
        logits = np.tanh(x.reshape(len(x), -1)) @ weight / temperature
        return scipy.special.log_softmax(logits, axis=1).max(1)

    moved = jitted(ood.perturb, weight, images, temperature, step)
    for n, place in ((0, (0, 0, 0)), (0, (3, 2, 1)), (1, (1, 1, 2)), (1, (2, 3, 0))):
        change = np.zeros_like(images)
        change[(n, *place)] = 1e-5
        slope = (surest(images + change) - surest(images - change))[n]
        difference = moved[(n, *place)] - images[(n, *place)]
        assert difference == pytest.approx(step * np.sign(slope), abs=1e-6)
    ours = jitted(ood.odin, weight, images, temperature=temperature, epsilon=step)
    np.testing.assert_allclose(ours, surest(moved.astype(np.float64)), rtol=1e-5)


def test_odin_without_step_and_temperature_is_msp(rng):
    weight, images = rng.normal(size=(48, 5)), rng.random((3, 4, 4, 3))
    ours = jitted(ood.odin, weight, images, temperature=1.0, epsilon=0.0)
    plain = jitted(lambda f, x: ood.SCORES["msp"](f(x)), weight, images)
    np.testing.assert_allclose(ours, plain, rtol=1e-5)


# --- pytorch-ood ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def theirs(sample, detector):
    """name -> score of pytorch-ood on the same outputs, higher = more known."""
    import torch

    tensor = lambda x: torch.tensor(np.asarray(x), dtype=torch.float32)
    features, _, labels = sample["train"]
    train, labels = tensor(features), torch.tensor(labels)
    test, logits = tensor(sample["test"][0]), tensor(sample["test"][1])
    weight, bias = tensor(sample["weight"].T), tensor(sample["bias"])
    head = lambda z: z.reshape(len(z), -1) @ weight.T + bias
    maps = lambda: test.clone()[:, :, None, None]
    nothing = torch.nn.Identity()
    loader = [(train, labels)]

    def fitted(one):
        one.fit_features(train, labels)
        return one

    found = {
        "msp": np.log(-detector.MaxSoftmax.score(logits).numpy()),
        "max_logit": -detector.MaxLogit.score(logits).numpy(),
        "energy": -detector.EnergyBased.score(logits).numpy(),
        "entropy": -detector.Entropy.score(logits).numpy(),
        "gen": -detector.GEN.score(logits).numpy() * CLASSES,
        "mahalanobis": -fitted(detector.Mahalanobis(nothing)).predict_features(test),
        "relative_mahalanobis": -fitted(detector.RMD(nothing)).predict_features(test),
        "dice": -fitted(detector.DICE(nothing, weight, bias, 0.9)).predict_features(
            test
        ),
        "react": -detector.ReAct(
            nothing, head, threshold=float(np.quantile(features, 0.9))
        ).predict(maps()),
        "ash": -detector.ASH(nothing, head, percentile=0.6).predict(maps()),
    }
    found["knn"] = -fitted(detector.KNN(nothing, k=7)).predict_features(test)
    vim = detector.ViM(nothing, 4, weight, bias)
    vim.fit(loader)
    found["vim"] = -vim.predict(test)
    return {name: np.asarray(values, np.float64) for name, values in found.items()}


@pytest.mark.parity
@pytest.mark.parametrize(
    "name", ["msp", "max_logit", "energy", "entropy", "react", "dice", "vim"]
)
def test_values_of_pytorch_ood(sample, theirs, name):
    np.testing.assert_allclose(score(sample, name), theirs[name], rtol=2e-3, atol=2e-3)


@pytest.mark.parity
def test_gen_of_pytorch_ood(sample, theirs):
    """It rounds probabilities up to 1e-7; in these rows there are none so small."""
    rows = scipy.special.softmax(sample["test"][1], axis=1).min(1) > 1e-6
    assert rows.sum() > 20
    np.testing.assert_allclose(
        score(sample, "gen")[rows], theirs["gen"][rows], rtol=2e-4
    )


@pytest.mark.parity
def test_ash_and_knn_of_pytorch_ood(sample, theirs):
    ours = score(sample, "ash", prune=0.6)
    np.testing.assert_allclose(ours, theirs["ash"], rtol=1e-3)
    np.testing.assert_allclose(score(sample, "knn", k=7), theirs["knn"], atol=1e-3)


@pytest.mark.parity
@pytest.mark.parametrize("name", ["mahalanobis", "relative_mahalanobis"])
def test_distances_of_pytorch_ood_up_to_their_scale(sample, theirs, name):
    """It divides neither by the number of examples nor, perhaps, by two."""
    ours = score(sample, name)
    scale = np.dot(ours, theirs[name]) / np.dot(ours, ours)
    assert scale > 0
    np.testing.assert_allclose(theirs[name] / scale, ours, rtol=5e-3, atol=0.05)


@pytest.mark.parity
def test_odin_of_pytorch_ood(rng, detector):
    import torch

    weight = rng.normal(size=(48, 5))
    images = rng.random((6, 4, 4, 3))
    kernel = torch.tensor(weight, dtype=torch.float32)
    model = lambda x: torch.tanh(x.permute(0, 2, 3, 1).reshape(len(x), -1)) @ kernel
    moved = detector.odin_preprocessing(
        model,
        torch.tensor(images.transpose(0, 3, 1, 2), dtype=torch.float32),
        criterion=torch.nn.functional.cross_entropy,
        eps=0.02,
        temperature=100,
    )
    ours = jitted(ood.perturb, weight, images, 100.0, 0.02)
    np.testing.assert_allclose(
        ours, moved.detach().numpy().transpose(0, 2, 3, 1), atol=1e-6
    )


def test_energy_has_the_unit_of_its_temperature(rng):
    logits = rng.normal(size=(5, 4)).astype(np.float32)
    got = ood.SCORES["energy"](jnp.asarray(logits), temperature=2.5)
    want = 2.5 * scipy.special.logsumexp(logits / 2.5, axis=1)
    np.testing.assert_allclose(got, want, rtol=1e-5)
