"""Every public function has its gates: found by the names of its parameters.

A function that is added to a package is tested by being there. What it takes must be a
parameter known here, and what can't be used must raise a ``ValueError`` that names it.
"""

import functools
import importlib
import inspect
import math
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import attacks, augment, corruptions, metrics, models, ood
from apr_jax import config as config_lib
from apr_jax.errors import ArgumentError
from apr_jax.evaluate import classifier
from apr_jax.gates import answers, knobs
from apr_jax.metrics import detection
from apr_jax.models import grad_cam

COUNT, CLASSES, FEATURES = 4, 3, 5
WEIGHT = np.linspace(-1, 1, FEATURES * CLASSES).reshape(FEATURES, CLASSES)


def network(images):
    """Logits [B, 3] of the mean of each channel."""
    return 9.0 * images.mean((1, 2))


def turned(images):
    """Logits of the classes in each of two turns."""
    return jnp.stack([network(images), network(images)], axis=1)


@functools.cache
def good():
    """A value that can be used, of every parameter that has no default."""
    rng = np.random.default_rng(1)
    features = rng.random((COUNT, FEATURES)).astype(np.float32)
    train, classes = rng.random((20, FEATURES)), np.arange(20) % CLASSES
    bias = np.zeros(CLASSES)
    fitted = ood.fit(train, train @ WEIGHT, classes, weight=WEIGHT, bias=bias)
    return {
        "key": jax.random.key(0),
        "images": rng.random((COUNT, 16, 16, 3)).astype(np.float32),
        "labels": np.arange(COUNT) % CLASSES,
        "logits_fn": network,
        "surrogate_fn": network,
        "shift_logits": turned,
        "norm": "linf",
        "eps": 8 / 255,
        "logits": (features @ WEIGHT).astype(np.float32),
        "features": features,
        "fitted": fitted,
        "weight": WEIGHT,
        "bias": bias,
        "probabilities": np.full((COUNT, CLASSES), 1 / CLASSES),
        "confidence": np.linspace(0.4, 1.0, COUNT),
        "correct": np.array([True, False, True, True]),
        "other": np.array([True, True, False, True]),
        "id_scores": np.linspace(1, 2, COUNT),
        "ood_scores": np.linspace(0, 1, COUNT),
        "ood_sets": [np.linspace(0, 1, COUNT)],
        "other_id": np.linspace(1, 2, COUNT)[::-1],
        "other_sets": [np.linspace(0, 1, COUNT)[::-1]],
        "noise": False,
        "flip_probabilities": {"tilt": 0.1},
        "baseline": {"tilt": 0.2},
        "errors": dict(metrics.ALEXNET_ERROR),
        "clean_error": 0.3,
        "successes": 3,
        "n": 4,
        "won": 3,
        "lost": 1,
        "temperature": 10.0,
        "epsilon": 0.01,
        "name": "gaussian_noise",
        "severity": 1,
    }


# These are given although they may be left out.
GIVEN = {"logits", "features", "fitted", "weight", "bias"}


# --- The functions -------------------------------------------------------------------

# Aren't functions of arrays: classes, tables, and functions of names alone.
NO_ARRAYS = {"get_score"}


def public(module):
    """name -> each public function of a package."""
    found = {name: getattr(module, name) for name in module.__all__}
    return {
        name: function
        for name, function in found.items()
        if inspect.isfunction(function) and name not in NO_ARRAYS
    }


def functions():
    """ "package.name" -> every public function of these packages."""
    found = {}
    for module in (attacks, metrics, ood):
        short = module.__name__.rpartition(".")[2]
        found |= {f"{short}.{name}": f for name, f in public(module).items()}
    found |= {f"ood.SCORES.{name}": f for name, f in ood.SCORES.items()}
    for function in (detection.ood_intervals, detection.roc_curve):
        found[f"metrics.detection.{function.__name__}"] = function
    return found


def parameters(function):
    return inspect.signature(function).parameters


def call(function, **changes):
    """Calls a function with good values of all that it needs, but for some."""
    given, values = {}, good() | changes
    for name, parameter in parameters(function).items():
        needed = parameter.default is inspect.Parameter.empty or name in GIVEN
        if needed or name in changes:
            assert name in values, f"tell good() of the parameter {name!r}"
            given[name] = values[name]
    return function(**given)


def refuses(function, name, value, match):
    """Asserts that a function raises a ValueError that names the argument."""
    with pytest.raises(ValueError, match=match):
        call(function, **{name: value})


def having(*names):
    """(function, its parameter) for each parameter of one of the names."""
    return [
        pytest.param(function, name, id=f"{full}-{name}")
        for full, function in functions().items()
        for name in names
        if name in parameters(function)
    ]


NAN, INF = math.nan, math.inf
WHOLE = (0, -1, 1.5, 2.0, True, NAN, "3", None)
BAD_KNOBS = {
    "steps": WHOLE,
    "queries": WHOLE,
    "restarts": WHOLE,
    "targets": WHOLE,
    "eot": WHOLE,
    "chunk": WHOLE,
    "eps": (0.0, 1e-300, 1e-9, -0.1, NAN, -INF, True, "8/255", None, 8, 8.0, 255),
    "norm": ("l3", "Linf", 2, None),
    "loss": ("xent", None, 3),
    "attack": ("apgd", None, 3),
    "noise": (0, "no", None),
    "version": ("best", None),
    "step_size": (0.0, -0.1, NAN, INF, True),
    "rho": (-0.1, 1.1, NAN),
    "alpha_max": (-0.1, 1.1, NAN),
    "beta": (-0.1, 1.1, NAN),
    "eta": (0.0, -1.0, NAN, INF),
    "p_init": (0.0, 1.1, NAN),
    "random_start": (0, "no", None),
    "targeted": (1, "yes"),
    "nearest": (1, None),
    "shrink": (1, None),
    "rescale": (1, None),
    "bins": WHOLE,
    "bin_size": WHOLE,
    "k": WHOLE,
    "top": WHOLE,
    "points": (1, *WHOLE),
    "replicates": WHOLE,
    "convention": ("paper", None),
    "variant": ("x", None),
    "over": ("x", None),
    "temperature": (0.0, -1.0, NAN, True),
    "epsilon": (-0.1, NAN, INF),
    "gamma": (0.0, -1.0, NAN),
    "prune": (1.0, -0.1, NAN),
    "react_quantile": (0.0, 1.5, NAN),
    "dice_sparsity": (1.0, -0.1, NAN),
    "ridge": (0.0, 1.5, NAN),
    "vim_dims": (-1, FEATURES, 1.5),
    "n": WHOLE,
    "successes": (-1, 1.5, 5, True),
    "won": (-1, 1.5, True),
    "lost": (-1, 1.5, True),
}
# Parameters that say nothing of how something is computed, or are tested by others.
OTHERS = {
    "key", "images", "labels", "logits_fn", "shift_logits", "logits", "features",
    "fitted", "probabilities", "confidence", "correct", "other", "id_scores",
    "ood_scores", "errors", "clean_error", "mask", "seed", "weight", "bias", "baseline",
    "baseline_clean", "ood_sets", "other_id", "other_sets", "surrogate_fn",
    "flip_probabilities",
}  # fmt: skip


@pytest.mark.parametrize(("function", "name"), having(*BAD_KNOBS))
def test_settings_under_which_nothing_is_done(function, name):
    for value in BAD_KNOBS[name]:
        refuses(function, name, value, rf"\b{name} ")


def test_every_parameter_is_known_here():
    for full, function in functions().items():
        strange = set(parameters(function)) - set(BAD_KNOBS) - OTHERS
        assert not strange, f"{full} takes {strange}: give bad values in BAD_KNOBS"


BAD_LABELS = {
    "of another shape": np.zeros((COUNT, 1), int),
    "too few": np.zeros(COUNT - 1, int),
    "from 1": np.array([1, 2, 3, 1]),
    "below 0": np.array([0, 1, 2, -1]),
    "NaN": np.array([0, 1, 2, np.nan]),
    "floating": np.array([0.0, 1.0, 2.0, 0.0]),
    "beyond int32": np.array([0, 1, 2, 2**32 + 1]),
    "texts": np.array(["0", "1", "2", "0"]),
    "truths": np.array([True, False, True, True]),
    "a mapping": {"labels": np.zeros(COUNT, int)},
    "nothing": None,
}


@pytest.mark.parametrize(("function", "name"), having("labels"))
def test_what_is_no_label(function, name):
    for value in BAD_LABELS.values():
        refuses(function, name, value, rf"\b{name}\b")
    with pytest.raises(ValueError, match="count from 1"):
        call(function, labels=BAD_LABELS["from 1"])


def bad_logits(good):
    """Kinds of what isn't logits, made of logits [N, K]."""
    return {
        "one axis": good[:, 0],
        "one number": good[:, :1],
        "an axis too many": good[:, :, None],
        "a tuple": (good, good),
        "a mapping": {"logits": good},
        "truths": good > 0,
        "nothing": None,
    }


@pytest.mark.parametrize(("function", "name"), having("logits", "probabilities"))
def test_what_is_no_logits(function, name):
    scores = {f: name for name, f in ood.SCORES.items()}
    if function in scores and "logits" not in ood.NEEDS[scores[function]]:
        return  # it may be None, and isn't looked at
    for value in bad_logits(good()[name]).values():
        refuses(function, name, value, "logits|probabilities")


@pytest.mark.parametrize(("function", "name"), having("logits_fn"))
def test_functions_that_give_no_logits(function, name):
    for what in bad_logits(np.zeros((1, CLASSES))):
        wrong = lambda x, what=what: bad_logits(network(x))[what]
        refuses(function, name, wrong, "the function's logits")


@pytest.mark.parametrize(("function", "name"), having("shift_logits"))
def test_functions_that_give_no_turns(function, name):
    for wrong in (network, lambda x: turned(x)[..., None], lambda x: (turned(x),)):
        refuses(function, name, wrong, "the function's logits")


@pytest.mark.parametrize(("function", "name"), having("features"))
def test_what_is_no_features(function, name):
    scores = {f: name for name, f in ood.SCORES.items()}
    if function in scores and "features" not in ood.NEEDS[scores[function]]:
        return
    some = good()[name]
    wrong = {
        "one axis": some[:, 0],
        "an axis too many": some[..., None],
        "a tuple": (some, some),
        "a mapping": {"features": some},
        "nothing": None,
    }
    if function in scores:  # the numbers that it was fitted to
        wrong |= {
            "one": some[:, :1],
            "fewer": some[:, :-1],
            "more": np.hstack([some] * 2),
        }
    for value in wrong.values():
        refuses(function, name, value, "features")


@pytest.mark.parametrize(("function", "name"), having("correct", "other", "mask"))
def test_what_is_neither_right_nor_wrong(function, name):
    for value in (
        np.array([0.0, 4.15, 1.0, 1.0]),
        np.array([0, 2, 1, 1]),
        np.array([0.0, NAN, 1.0, 1.0]),
        np.array(["True"] * COUNT),
        np.ones((COUNT, 1), bool),
        np.ones(COUNT + 1, bool),
    ):
        refuses(function, name, value, name)
    call(function, **{name: np.array([0, 1, 1, 1])})


# Any score is a confidence for ``metrics.aurc``.
UNIT = [
    case
    for case in having("probabilities", "confidence", "clean_error")
    if case.values[0] is not metrics.aurc
]


@pytest.mark.parametrize(("function", "name"), UNIT)
def test_ranges_allow_for_rounding_alone(function, name):
    value = good()[name]
    for wrong in (1.001, -0.001, NAN):
        one = np.array(value)
        one[(0,) * one.ndim] = wrong
        refuses(function, name, one, r"\[0, 1\]|not finite")
    rounded = np.array(value)
    rounded[(0,) * rounded.ndim] = 1.0000001
    whole = rounded.copy()
    whole[(0,) * rounded.ndim] = 1.0
    one, other = (call(function, **{name: x}) for x in (rounded, whole))
    np.testing.assert_equal(
        getattr(one, "__dict__", one), getattr(other, "__dict__", other)
    )


@pytest.mark.parametrize(
    ("function", "name"), having("id_scores", "ood_scores", "other_id")
)
def test_what_is_no_score(function, name):
    for value in ([], [[1.0]], [NAN, 1.0, 1.0, 1.0], ["a"], {"a": 1}, None):
        refuses(function, name, value, name)


@pytest.mark.parametrize(("function", "name"), having("images"))
def test_pixels_out_of_range(function, name):
    if function.__module__.startswith("apr_jax.ood"):
        return
    images = good()[name]
    for wrong in (1.001, -0.001, NAN):
        one = images.copy()
        one[0, 0, 0, 0] = wrong
        refuses(function, name, one, "images must lie in")
    rounded = images.copy()
    rounded[0, 0, 0, 0] = 1 + 1.2e-7
    if function is attacks.fgsm:
        assert call(function, images=rounded).images.max() <= 1


# --- Chunks --------------------------------------------------------------------------


def chunked():
    """ "module.name" -> every function of a key and images that works by chunks.

    Of all modules of the packages, whether they are exported or not.
    """
    found = {}
    for package in (attacks, augment, corruptions):
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not info.name.endswith("__main__"):
                module = importlib.import_module(info.name)
                found |= {
                    f"{function.__module__}.{name}".removeprefix("apr_jax."): function
                    for name, function in inspect.getmembers(module, inspect.isfunction)
                    if list(parameters(function))[:1] == ["key"]
                    and {"images", "chunk"} <= set(parameters(function))
                }
    found["corruptions.corrupt"] = corruptions.corrupt
    return found


@pytest.mark.parametrize("full", chunked())
def test_chunks(full):
    images = good()["images"]
    if not full.startswith(("attacks.", "augment.prime.")):
        images = (255 * images).astype(np.uint8)
    run = functools.partial(call, chunked()[full])
    if full.startswith("augment."):
        # Refused as it is traced: what comes before it need not be computed.
        run = lambda **given: jax.make_jaxpr(lambda: call(chunked()[full], **given))()
    for value in (0, -1, 1.5, True, NAN, "3"):
        with pytest.raises(ValueError, match="chunk"):
            run(images=images, chunk=value)


@pytest.mark.parametrize("name", [*corruptions.CORRUPTIONS])
def test_chunks_of_every_corruption(name):
    images = np.zeros((2, 16, 16, 3), np.uint8)
    with pytest.raises(
        ValueError, match="chunk is -1; it must be a whole number, 1 or"
    ):
        corruptions.corrupt(jax.random.key(0), images, name, 1, chunk=-1, frost="none")


# --- Words ---------------------------------------------------------------------------


def test_a_radius_in_grey_levels_is_seen():
    refuses(attacks.pgd, "eps", 8, r"did you mean 8/255\?")
    refuses(attacks.autoattack, "eps", 2.5, r"did you mean 2.5/255\?")
    with pytest.raises(ValueError, match="eps is inf; it must be a finite number"):
        call(attacks.square, eps=INF)


def test_a_loss_that_needs_targets_is_refused_without_them():
    refuses(attacks.pgd, "loss", "dlr-targeted", "no targets; choose from ce, dlr, mar")


def test_a_sigmoid_head_is_told_how_to_have_two_logits():
    one = lambda x: network(x)[:, :1]
    refuses(attacks.fgsm, "logits_fn", one, r"\[4, 1\].*2 classes.*\[0, z\]")


# --- Other gates ---------------------------------------------------------------------


def test_functions_that_are_measured_give_logits():
    for jit in (jax.jit, lambda f: f):
        for wrong in [*bad_logits(np.zeros((1, 3))), "other classes"]:

            def function(x, wrong=wrong):
                found = network(x)
                if wrong == "other classes":
                    return jnp.concatenate([found, found], axis=1)
                return bad_logits(found)[wrong]

            theirs = classifier.from_function(
                function, config_lib.default(), "abc", name="wrong"
            )
            predict = jit(theirs.predict)
            with pytest.raises(ValueError, match="logits of 'wrong'"):
                predict({}, good()["images"])


def test_the_classes_of_grad_cam():
    model = models.build("wrn_10_1", num_classes=CLASSES)
    images = good()["images"]
    variables = jax.eval_shape(
        lambda: model.init(jax.random.key(0), images, train=False)
    )
    variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), variables)
    for value in BAD_LABELS.values():
        given = {} if value is None else value
        with pytest.raises(ValueError, match="classes"):
            grad_cam.grad_cam(model, variables, images, classes=given)


def test_gates_let_traced_arrays_through_by_shape_and_type():
    seen = []

    @jax.jit
    def inside(labels, logits, features, temperature):
        seen.append(answers.labels(labels, count=COUNT, classes=CLASSES))
        answers.logits(logits, count=COUNT, classes=CLASSES)
        answers.features(features, size=FEATURES)
        return temperature * knobs.real("temperature", temperature, above=0)

    values = good()
    inside(values["labels"], values["logits"], values["features"], 2.0)
    assert len(seen) == 1
    with pytest.raises(ArgumentError, match="labels must be integers"):
        inside(values["labels"] + 0.5, values["logits"], values["features"], 2.0)
    with pytest.raises(ArgumentError, match=r"features must be \[N, 5\], not \[4, 4\]"):
        inside(values["labels"], values["logits"], values["features"][:, 1:], 2.0)


def test_a_function_without_gates_is_found(monkeypatch):
    """What is added without them fails; so does one with a parameter not known here."""

    def careless(key, logits_fn, images, labels, *, eps, norm="linf", steps=10):
        return images

    def strange(logits, labels, *, sharpness=2.0):
        return 0.0

    for module, function in ((attacks, careless), (metrics, strange)):
        name = function.__name__
        monkeypatch.setattr(module, name, function, raising=False)
        monkeypatch.setattr(module, "__all__", [*module.__all__, name])
    found = {p.values for p in having("steps", "labels", "logits_fn", "logits")}
    failed = pytest.fail.Exception
    for name, test in (
        ("steps", test_settings_under_which_nothing_is_done),
        ("labels", test_what_is_no_label),
        ("logits_fn", test_functions_that_give_no_logits),
    ):
        assert (careless, name) in found
        with pytest.raises(failed, match="DID NOT RAISE"):
            test(careless, name)
    with pytest.raises(failed, match="DID NOT RAISE"):
        test_what_is_no_logits(strange, "logits")
    with pytest.raises(AssertionError, match=r"takes \{'sharpness'\}: give"):
        test_every_parameter_is_known_here()


def test_no_setting_of_an_attack_can_be_forgotten():
    def careless(key, *, steps, haste):
        return key, steps, haste

    with pytest.raises(TypeError, match=r"careless: no rule for \['haste'\]"):
        knobs.gated({"steps": knobs.whole}, free=("key",))(careless)


# --- No answer -----------------------------------------------------------------------


def test_the_answer_is_the_first_largest_or_none():
    rows = np.array(
        [
            [0, 2, 2],
            [NAN, 9, 1],
            [1, NAN, 0],
            [INF, 0, 0],
            [-INF, -INF, 5],
            [-INF, -INF, -INF],
        ],
        np.float32,
    )
    wanted = [1, -1, -1, -1, 2, -1]
    assert answers.answer(rows).tolist() == wanted
    assert jax.jit(answers.answer)(rows).tolist() == wanted
    assert answers.answer(jnp.asarray(rows, jnp.bfloat16)).tolist() == wanted
    assert answers.not_finite(rows) == 8


@pytest.mark.parametrize("name", ["pgd", "apgd", "fab", "square"])
def test_a_network_that_answers_nothing_is_not_robust(name):
    nothing = lambda x: network(x) * NAN
    few = {"queries": 2} if name == "square" else {"steps": 2}
    result = call(getattr(attacks, name), logits_fn=nothing, **few)
    assert not result.survived["clean"].any()
    assert not result.robust.any()
    assert result.not_finite == COUNT * CLASSES
