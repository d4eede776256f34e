"""The experiments on high-frequency components, on a toy set."""

import numpy as np
import pytest

from experiments import lab
from experiments.hfc import bands, examples, heuristics, kernels, labels, networks
from tests import toy
from tests.experiments import toy_lab

KNOBS = {"images": 32, "tested": 20, "epochs": 1.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("hfc")
    toy.write_arrays(path)
    return path


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    toy.small_experiments(monkeypatch, eval_batch=20)


def run(module, folder, *arguments, **knobs):
    out, work = folder / module.NAME, folder / "work"
    records = toy_lab.run(
        module, folder, out, *arguments, work=work, **{**KNOBS, **knobs}
    )
    assert next(iter(out.glob("*.png"))).stat().st_size > 5_000
    return records


@pytest.mark.slow
def test_bands_and_examples_share_a_network(folder):
    records = run(bands, folder)
    assert len(records[0].extra["rows"]) == 2
    by_split = {r.split: r.value for r in records}
    # Within 7 cycles of an image of 8 lies all of it.
    assert by_split["short training, low 7"] == by_split["short training, all"]
    weights = folder / "work" / "small" / "plain" / "checkpoints"
    before = weights.stat().st_mtime_ns
    records = run(examples, folder)
    assert weights.stat().st_mtime_ns == before
    for radius in (1, 2, 3, 4):
        shares = [
            r.value
            for r in records
            if r.split == f"radius {radius}" and r.metric.endswith(examples.OF)
        ]
        assert len(shares) == 4
        assert sum(shares) == pytest.approx(1)


def test_images_in_records_come_back(rng):
    image = rng.integers(0, 256, (5, 5, 3), np.uint8)
    text = examples.packed(255 * (image / 255.0))
    np.testing.assert_array_equal(examples.unpacked(text), image)
    beyond = examples.unpacked(examples.packed(np.full((2, 2, 3), 300.0)))
    np.testing.assert_array_equal(beyond, 255)


def test_parts_are_compared_when_half_is_learnt():
    rows = [
        {"epoch": k, "accuracy": a, "radius": [8.0], "low": [a / 2], "high": [0.1]}
        | {"examples": 20}
        for k, a in enumerate((0.1, 0.4, 0.6, 0.9))
    ]
    found = labels.when_half(rows)
    assert {name: x.value for name, x in found.items()} == {
        "epoch with half learnt": 2,
        "low part, radius 8, with half learnt": 0.3,
        "high part, radius 8, with half learnt": 0.1,
    }
    assert labels.when_half(rows[:2]) == {}


@pytest.mark.slow
def test_heuristics_kernels_and_labels(folder):
    records = run(heuristics, folder)
    assert {r.split for r in records} == set(networks.KINDS)
    records = run(kernels, folder, attacked=10, rhos=(0.0, 0.5), levels=(1, 8))
    rough = {r.split: r.value for r in records if r.metric == "roughness"}
    for kind in kernels.KINDS:
        assert rough[f"{kind}, rho 0.5"] < rough[f"{kind}, rho 0"]
        for rho in ("0", "0.5"):
            mine = {
                r.metric: r.value for r in records if r.split == f"{kind}, rho {rho}"
            }
            assert mine["accuracy under PGD, eps 8/255"] <= mine["accuracy"]
            assert len(mine) == 6
    records = run(labels, folder, epochs=2.0, batch=16)
    whole = [r for r in records if r.metric == "training accuracy"]
    assert [r.split for r in whole] == ["natural", "shuffled"]
    assert all(len(r.extra["rows"]) == 3 for r in whole)


@pytest.mark.parametrize("text", ["runs/a", "=runs/a", "a=", "a=gs://b/r"])
def test_a_run_is_given_with_its_name(text, capsys):
    assert networks.named("a=runs/b=c") == ("a", "runs/b=c")
    with pytest.raises(SystemExit):
        lab.main(bands.__name__, ["--run", text])
    assert "error: argument --run: " in capsys.readouterr().err
