"""Attacking a classifier: every example once, goes on where it stopped, is shown."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apr_jax import config as config_lib
from apr_jax import data, models, parallel
from apr_jax import network as network_lib
from apr_jax.attacks import rounds
from apr_jax.errors import ConfigError
from apr_jax.evaluate import adversarial
from apr_jax.evaluate import adversarial_state as state
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.evaluate.context import Context
from apr_jax.report.run_view import RunView
from apr_jax.report.sections import adversarial as section
from apr_jax.runs.records import Record
from tests import toy

FEW = {"steps": 6, "queries": 8}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A function that tells the toy set's shades apart, and a little more."""
    folder = tmp_path_factory.mktemp("toy")
    toy.write_arrays(folder)
    rng = np.random.default_rng(3)
    weights = jnp.asarray(rng.normal(0, 0.3, (8 * 8 * 3, toy.CLASSES)), jnp.float32)
    shades = (40 + 45 * jnp.arange(toy.CLASSES, dtype=jnp.float32)) / 255

    def logits_fn(pixels):
        flat = pixels.reshape(len(pixels), -1)
        shade = -16 * jnp.square(flat.mean(1, keepdims=True) - shades[None])
        return shade + 0.5 * jnp.tanh(0.5 * (flat - 0.5) @ weights)

    return classifier_lib.from_function(
        logits_fn, toy.config(folder), "abcd", name="shades"
    )


def found(records):
    return {(r.split, r.metric): r for r in records}


def start(network, devices=1, done=(), scratch=None, **given):
    layout = parallel.make_layout(devices)
    settings = config_lib.Adversarial(**(FEW | given))
    context = Context(layout, done=done, scratch=scratch, quiet=True)
    return adversarial.measure(network, settings, context)


def measured(network, **given):
    return list(start(network, **given))


@pytest.fixture(scope="module")
def attacked(network, tmp_path_factory):
    """Records of AutoAttack at 2/255 and 8/255, and the folder of its images."""
    scratch = tmp_path_factory.mktemp("scratch")
    radii = (2 / 255, 8 / 255)
    return measured(network, linf=radii, examples=20, scratch=scratch), scratch


def test_records_of_autoattack(network, attacked):
    eps = 8 / 255
    records, scratch = attacked
    by = found(records)
    assert len(by) == len(records) == 2 * 10
    split = "linf/0.0313725"
    names = [r.metric for r in records if r.split == split]
    assert names[:5] == [
        "clean_accuracy",
        "after_apgd-ce",
        "after_apgd-t",
        "after_fab-t",
        "after_square",
    ]
    assert names[-1] == "robust_accuracy"
    values = [by[split, name].value for name in names[:5]]
    assert values == sorted(values, reverse=True)
    robust = by[split, "robust_accuracy"]
    assert robust.value == values[-1] < values[0]
    assert robust.value <= by["linf/0.00784314", "robust_accuracy"].value
    assert robust.n == 20
    assert robust.low < robust.value < robust.high
    assert by[split, "largest_perturbation"].value == pytest.approx(eps, abs=1e-6)
    assert by[split, "nan_count"].value == 0
    assert by[split, "lowest_pixel"].value >= 0
    assert by[split, "highest_pixel"].value <= 1
    # Fewer than nine other classes: said, and part of the record.
    assert any("there are 3" in text for text in robust.extra["warnings"])

    # The images are kept, and what the records say of them is so.
    (path,) = scratch.rglob("linf_0.0313725.npz")
    with np.load(path) as stored:
        images, labels = stored["images"], stored["labels"]
    pixels = data.load(network.config.data).splits["test"].images[:20] / np.float32(255)
    assert rounds.distances(images, pixels, "linf").max() <= eps + 1e-6
    answers = np.asarray(network.predict({}, jnp.asarray(images))[0]).argmax(1)
    assert np.mean(answers == labels) == pytest.approx(robust.value)


def test_the_same_on_one_device_and_on_several(network):
    given = {"linf": (4 / 255,), "attack": "apgd-ce", "examples": 21}
    one = found(measured(network, **given, batch=21))
    several = found(measured(network, devices=3, **given, batch=9))
    assert {k: r.value for k, r in one.items() if "seconds" not in k} == pytest.approx(
        {k: r.value for k, r in several.items()}, abs=1e-6
    )


def test_a_stopped_run_goes_on(network, tmp_path, monkeypatch):
    given = {"linf": (8 / 255,), "examples": 20, "scratch": tmp_path}
    whole = measured(network, **{**given, "scratch": None})
    started = start(network, **given)
    done = []
    for record in started:
        done.append(record)
        if record.metric == "after_apgd-t":
            break
    started.close()

    ran = []
    run_stage = rounds.run_stage

    def spy(engine, stage, *rest, **options):
        ran.append(stage.name)
        return run_stage(engine, stage, *rest, **options)

    monkeypatch.setattr(rounds, "run_stage", spy)
    done = [Record(**json.loads(json.dumps(vars(r)))) for r in done]
    rest = measured(network, **given, done=done)
    assert ran == ["fab-t", "square"]
    assert [r.metric for r in done + rest] == [r.metric for r in whole]
    assert [r.value for r in done + rest] == [r.value for r in whole]
    # All there: nothing is attacked, or even looked at.
    assert measured(network, **given, done=done + rest) == []
    # Other settings are another measurement.
    monkeypatch.undo()
    more = start(network, **given | {"examples": 21, "done": done + rest})
    assert next(more).metric == whole[0].metric
    more.close()


def test_a_broken_state_is_no_obstacle(network, tmp_path, capfd):
    given = {"linf": (), "l2": (0.3,), "attack": "fgsm", "examples": 10}
    before = measured(network, **given, scratch=tmp_path)
    (path,) = tmp_path.rglob("*.npz")
    path.write_bytes(path.read_bytes()[:200])
    again = measured(network, **given, scratch=tmp_path)
    assert "can't read" in capfd.readouterr().err
    assert [r.value for r in again] == [r.value for r in before]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"linf": (8.0,)}, r"linf is 8.0, but pixels lie in .*; did you mean 8/255\?"),
        ({"linf": (0.0,)}, "linf has 0.0; it must be above 0"),
        ({"l2": (float("inf"),)}, "l2 has inf; it must be finite"),
        ({"linf": ()}, r"the radii \(none\); give at least one"),
        ({"linf": (0.1, 0.1)}, "each once"),
        (
            {"attack": "cw"},
            "attack is 'cw': unknown version 'cw'; choose from standard",
        ),
        ({"attack": "pgd", "l1": (1.0,)}, "attack is 'pgd': pgd is for linf and l2"),
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"examples": -1}, "examples is -1"),
        ({"batch": 7}, "batch is 7, which 2 devices can't share"),
    ],
)
def test_settings_that_are_refused(network, given, message):
    with pytest.raises(ConfigError, match=message):
        measured(network, devices=2, **given)


def test_more_examples_than_there_are_are_all(network):
    size = len(state.load(network, 0, None)[1])
    assert len(state.load(network, size + 1, None)[1]) == size


def test_of_a_set_in_the_order_of_its_classes_every_class_is_attacked(network):
    (split,) = data.load(network.config.data, splits=("test",)).splits.values()
    order = np.argsort(split.labels, kind="stable")
    ordered = data.ArraySplit(split.images[order], split.labels[order])
    whole = data.DataSet("toy", ("a", "b", "c", "d"), {"test": ordered}, "f")
    images, labels = state.load(network, 10, whole)
    assert set(labels) == set(split.labels)
    places = np.arange(10) * len(order) // 10
    np.testing.assert_array_equal(labels, ordered.labels[places])
    np.testing.assert_array_equal(
        images, np.float32(ordered.images[places]) / np.float32(255)
    )


def test_the_page_and_the_table(attacked):
    records, _ = attacked
    runs = [
        RunView(name="one", records=records),
        RunView(name="none"),
        RunView(name="two", records=records[:10]),
    ]
    page = section.html(runs)
    for wanted in ("L∞ up to 8/255", "APGD, targeted DLR", "data:image/png"):
        assert wanted in page
    assert "8 queries instead of 5000" in page
    assert "paper" not in page, "another network than the paper's"
    assert page.count("<svg") == 1
    shown = section.table(runs)
    assert shown is not None
    assert shown.row_count == 2 * 7
    assert section.html([RunView(name="none")]) == ""
    assert section.table([RunView(name="none")]) is None


def test_published_numbers_only_beside_the_same(network, capfd):
    given = {"attack": "fgsm", "linf": (8 / 255,), "examples": 10}
    (record,) = [r for r in measured(network, **given) if r.metric == "robust_accuracy"]
    assert "largest perturbation 0.03137" in capfd.readouterr().err.replace("\n", "")
    whole = {"attack": "standard", "examples": 10, "steps": 100, "queries": 5000}
    extra = {**record.extra, "settings": {**whole, "seed": 0}}
    same = Record(
        **{**vars(record), "data": "cifar10", "split": "linf/0.03137", "extra": extra}
    )
    paper = {"model": {"name": "preact_resnet18"}}
    page = section.html([RunView(name="a", records=[same], config=paper)])
    assert "45.7 %" in page
    assert "FGSM + APR-SP, paper" in page
    other = {"model": {"name": "wrn_40_2"}}
    page = section.html([RunView(name="a", records=[same], config=other)])
    assert "paper" not in page
    fewer = {**extra, "settings": {**extra["settings"], "queries": 100}}
    weak = Record(**{**vars(same), "extra": fewer})
    page = section.html([RunView(name="a", records=[weak], config=paper)])
    assert "paper" not in page


def test_weights_are_an_argument_and_part_of_the_state(network):
    """Two classifiers of one function with other weights don't share a state."""
    other = classifier_lib.Classifier(
        **{**vars(network), "variables": {"w": jnp.ones(3)}}
    )
    changed = classifier_lib.Classifier(
        **{**vars(network), "variables": {"w": jnp.zeros(3)}}
    )
    names = {classifier_lib.weights_digest(c) for c in (network, other, changed)}
    assert len(names) == 3
    assert jax.tree.leaves(other.variables)


def test_networks_in_bfloat16_are_attacked_in_float32(tmp_path, monkeypatch, key):
    monkeypatch.setitem(models.MODELS, "tiny", toy.TinyNet)
    toy.write_arrays(tmp_path)
    made = {}
    for dtype in ("float32", "bfloat16"):
        config = toy.config(tmp_path, model__dtype=dtype)
        model = network_lib.make_model(config, num_classes=4)
        variables = jax.jit(partial(model.init, train=False))(
            key, jnp.zeros((1, 8, 8, 3))
        )
        made[dtype] = classifier_lib.make(config, variables, "abcd", name="same")
    pixels = np.random.default_rng(0).random((3, 8, 8, 3), np.float32)

    def logits_of(network):
        return np.asarray(jax.jit(network.predict)(network.variables, pixels)[0])

    logits = {dtype: logits_of(network) for dtype, network in made.items()}
    assert np.abs(logits["float32"] - logits["bfloat16"]).max() > 1e-4
    wide, mark = classifier_lib.in_float32(made["bfloat16"])
    assert mark == {"dtype": "float32"}
    np.testing.assert_array_equal(logits_of(wide), logits["float32"])
    assert wide.config.model.dtype == "bfloat16"  # it is still that run
    assert classifier_lib.in_float32(made["float32"]) == (made["float32"], {})
    seen = []
    engine = adversarial.DeviceEngine

    def spy(classifier, *rest):
        seen.append(classifier)
        return engine(classifier, *rest)

    monkeypatch.setattr(adversarial, "DeviceEngine", spy)
    measured(made["bfloat16"], attack="fgsm", linf=(1 / 255,), examples=4)
    np.testing.assert_array_equal(logits_of(seen[0]), logits["float32"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_records_in_another_arithmetic_are_not_taken_up(
    tmp_path, monkeypatch, key, dtype
):
    """Those of older runs don't say; a network in float32 has had no other."""
    monkeypatch.setitem(models.MODELS, "tiny", toy.TinyNet)
    toy.write_arrays(tmp_path)
    config = toy.config(tmp_path, model__dtype=dtype)
    model = network_lib.make_model(config, num_classes=4)
    variables = jax.jit(partial(model.init, train=False))(key, jnp.zeros((1, 8, 8, 3)))
    network = classifier_lib.make(config, variables, "abcd", name="tiny")
    usual = {"attack": "fgsm", "linf": (1 / 255,), "examples": 6}
    records = measured(network, **usual, scratch=tmp_path / "scratch")
    says = {r.extra["settings"].get("dtype", "nothing") for r in records}
    assert says == {"nothing" if dtype == "float32" else "float32"}
    assert measured(network, **usual, done=records) == []
    older = []
    for record in records:
        settings = dict(record.extra["settings"])
        settings.pop("dtype", None)
        extra = {**record.extra, "settings": settings}
        older.append(dataclasses.replace(record, extra=extra))
    again = measured(network, **usual, done=older)
    assert [r.metric for r in again] == [r.metric for r in records[: len(again)]]
    assert bool(again) == (dtype == "bfloat16")
    # Nor is what an older run has kept of its images.
    context = Context(parallel.make_layout(1), scratch=tmp_path)
    then, now = (
        context.kept("{}", lambda r=r: r[0].extra["settings"]) for r in (older, records)
    )
    assert (then != now) == (dtype == "bfloat16")
