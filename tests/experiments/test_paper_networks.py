"""Figures 4 and 9 on a toy set: all that they do, in seconds."""

import pytest

from experiments.paper import figure4_bands, figure9_heads
from tests import toy
from tests.experiments import toy_lab


def run(module, tmp_path, *arguments, **knobs):
    toy.write_arrays(tmp_path)
    out, work = tmp_path / "out", tmp_path / "work"
    knobs = {"epochs": 1.0, **knobs}
    return out, toy_lab.run(module, tmp_path, out, *arguments, work=work, **knobs)


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    toy.small_experiments(monkeypatch, eval_batch=50)


@pytest.mark.slow
def test_figure_4(tmp_path):
    cells = ["amplitude_high_phase_low"]
    out, records = run(figure4_bands, tmp_path, "--only", *cells, images=32, tested=20)
    assert [r.split for r in records] == cells
    assert all(r.n == 20 and 0 <= r.value <= 1 for r in records)
    assert (out / "figure4.png").stat().st_size > 10_000
    # What is recorded isn't trained again.
    _, again = run(figure4_bands, tmp_path, "--only", *cells, images=32, tested=20)
    assert again == records


@pytest.mark.slow
def test_figure_9(tmp_path, monkeypatch):
    monkeypatch.setattr(figure9_heads, "corruptions_at_hand", lambda _: ("brightness",))
    out, records = run(
        figure9_heads,
        tmp_path,
        f"--out_set=noise=arrays:{tmp_path}",
        "--only=0.5",
        images=32,
        corrupted=10,
        unknown=20,
    )
    metrics = {"accuracy", "accuracy under 1 corruptions", "auroc, noise"}
    assert {r.metric for r in records} == metrics
    assert len({r.split for r in records}) == 12
    assert (out / "figure9.png").exists()
    value = {(r.split, r.metric): r.value for r in records}
    for metric in metrics:
        trained = value["trained, lambda 0.5", metric]
        assert value["asked, lambda 0.5", metric] == trained
