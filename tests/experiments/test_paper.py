"""The figures of the paper: computed and drawn on a toy set, and their numbers."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from experiments import drawing, measures
from experiments.paper import (
    figure2_swap,
    figure5_tsne,
    figure6_templates,
    figure7_examples,
    figure8_gradcam,
    fourier_heatmaps,
)
from experiments.paper import networks as networks_lib
from tests import toy
from tests.experiments import toy_lab


@pytest.fixture
def run(tmp_path, monkeypatch):
    (tmp_path / "set").mkdir()
    toy.write_arrays(tmp_path / "set")

    def recipe(lab, method):
        return lab.settings(
            model__name="wrn_10_1",
            augment__method=method,
            augment__crop_pad=0,
            optim__epochs=1.0,
            train__batch_size=32,
            eval__batch_size=32,
        )

    monkeypatch.setattr(networks_lib, "recipe", recipe)

    def call(module, *extra, **knobs):
        if "--networks" in getattr(module, "OPTIONS", {}):
            extra = (*extra, f"--networks={tmp_path / 'networks'}")
        out, work = tmp_path / module.NAME, tmp_path / "work"
        records = toy_lab.run(module, tmp_path / "set", out, *extra, work=work, **knobs)
        assert list(out.glob("*.png"))
        return records

    return call


def test_templates_and_examples(run):
    records = run(figure6_templates, images=2, shown=[[0, 1], [2, 3]])
    values = {r.metric: r.value for r in records}
    assert values["largest error of the phase, arctan2"] < 0.02
    assert 0.3 < values["phases half a turn off, arctan"] < 0.7
    count = len(records)
    # Nothing is computed again.
    assert len(run(figure6_templates, images=2, shown=[[0, 1], [2, 3]])) == count


@pytest.mark.slow
def test_tsne_and_examples(run):
    records = run(figure7_examples, images=20, shown=2)
    assert all(0 < r.value < 1 for r in records)
    records = run(figure5_tsne, images=48, folds=3)
    assert {r.metric for r in records} >= {"auroc, linear", "auroc, nearest neighbours"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "knobs"),
    [
        (figure2_swap, {"pairs": 40}),
        (figure8_gradcam, {"images": 50, "severity": 1}),
        (fourier_heatmaps, {"images": 8}),
    ],
)
def test_two_networks(run, monkeypatch, module, knobs):
    if module is figure8_gradcam:
        # A network of one epoch recognises nothing; every image counts here.
        right = lambda *_: np.ones(50, bool)
        monkeypatch.setattr(module, "recognised", right)
    records = run(module, **knobs)
    assert {r.split.split(", ")[-1] for r in records} == {"standard", "apr_sp"}


def test_separation_is_chance_where_there_is_none(rng):
    features = rng.normal(size=(400, 5))
    label = np.repeat([1, 0], 200)
    groups = np.arange(400)
    made = lambda: LogisticRegression(C=0.01)
    none = figure5_tsne.separation(made(), features, label, groups, folds=4)
    assert none.low < 0.5 < none.high + 0.05
    features[:200, 2] += 3
    some = figure5_tsne.separation(made(), features, label, groups, folds=4)
    assert some.value > 0.95


def test_maps_are_compared(rng):
    maps = rng.random((6, 5, 7)).astype(np.float32)
    same = figure8_gradcam.correlations(maps, 2 * maps + 1)
    np.testing.assert_allclose(same, 1, atol=1e-5)
    other = rng.random(maps.shape)
    expected = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1]
        for a, b in zip(maps, other, strict=True)
    ]
    found = figure8_gradcam.correlations(maps, other)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not figure8_gradcam.correlations(maps, np.zeros_like(maps)).any()
    flat = figure8_gradcam.kept(maps, np.ones_like(maps))
    np.testing.assert_allclose(flat, 7 / 35)


def test_outcomes_of_a_swap():
    to_logits = lambda said: 9.0 * np.eye(4)[said]
    # Pairs: answers go with the amplitude, stay with the phase, neither, equal answers.
    a, b = np.array([0, 0, 0, 1]), np.array([1, 1, 1, 1])
    ab, ba = np.array([1, 0, 2, 1]), np.array([0, 1, 0, 1])
    logits = [to_logits(x) for x in (a, b, ab, ba)]
    found = figure2_swap._cases(logits, np.stack([a, b]))
    assert found["counts"].tolist() == [True, True, True, False]
    assert found["outcome"][:3].tolist() == [0, 1, 2]
    numbers = figure2_swap._numbers(found, 0.5)
    assert numbers["swapped"].value == pytest.approx(1 / 3)
    assert numbers["answer follows neither"].n == 3


def test_a_pair_without_an_answer_does_not_count():
    logits = np.stack([9.0 * np.eye(3)[k] for k in ([0, 0, 0], [1, 1, 2])])
    logits = [*logits, logits[1].copy(), logits[0].copy()]
    logits[0][1], logits[3][2] = np.nan, np.nan
    found = figure2_swap._cases(logits, None)
    assert found["counts"].tolist() == [True, False, True]
    assert found["outcome"].tolist()[::2] == [0, 2]
    assert measures.told(logits[3][2], "abc") == ("no answer", 0.0)
    assert measures.told(logits[3][0], "abc")[0] == "a"


def test_pictures_survive_a_record(rng):
    image = rng.integers(0, 256, (5, 4, 3), np.uint8)
    np.testing.assert_array_equal(drawing.unpack(drawing.pack(image)), image)
    again = drawing.unpack(drawing.pack(np.float32(image) / 255))
    np.testing.assert_array_equal(again, image)
