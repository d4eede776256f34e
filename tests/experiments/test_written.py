"""What README and documentation say of runs is what the records say."""

import dataclasses
import json

import pytest

from apr_jax.runs import records
from apr_jax.runs.records import Record
from experiments.checks import written

RECORD = Record(
    job="evaluate.clean",
    data="toy",
    split="test",
    metric="error",
    value=0.1234,
    unit="fraction",
    n=2000,
    step=1,
    config_hash="0",
    code_version="1",
    seed=0,
    device="cpu",
    time="2026-01-01",
    low=0.1111,
    high=0.1399,
)


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(written, "RESULTS", tmp_path)
    monkeypatch.setattr(written, "ROOT", tmp_path)
    monkeypatch.setattr(written, "PAGES", ("page.md",))
    monkeypatch.setattr(
        written,
        "RUNS",
        {"toy": written.Runs("toys", "`go`", ("clean", "mean", "linf"))},
    )
    written.found.cache_clear()
    yield tmp_path
    written.found.cache_clear()


def keep(folder, *changes):
    folder.mkdir()
    for change in changes:
        record = dataclasses.replace(RECORD, **change)
        records.append(folder / "results.jsonl", [record])


def corrupted(errors):
    """Records of the kinds' corruptions, their mean apart."""
    bare = {"job": "evaluate.corruption", "low": None, "high": None, "n": 500}
    for name, error in errors.items():
        for severity in range(1, 6):
            value = error + 0.01 * severity
            yield bare | {"split": f"{name}/{severity}", "value": value}
    yield bare | {"split": "mean", "value": 0.4321, "n": 37_500}


def test_a_table_and_a_sentence(results):
    under_attack = {
        "job": "evaluate.adversarial",
        "metric": "robust_accuracy",
        "split": "linf/0.00784314",
        "value": 0.2,
        "low": 0.15,
        "high": 0.3,
        "n": 64,
    }
    names = ("gaussian_noise", "shot_noise", "impulse_noise")
    errors = dict(zip(names, (0.2, 0.3, 0.4), strict=True))
    keep(results / "toy_standard", {"value": 0.9}, {}, *corrupted(errors), under_attack)
    keep(results / "toy_apr_s", {"value": 0.1})
    page = results / "page.md"
    page.write_text(
        "<!-- runs: toy -->\nold\n<!-- end -->\n\n"
        "Noise: <!-- = toy_standard noise -->?<!-- end --> %, "
        "clean <!-- = toy_apr_s clean --><!-- end -->.\n"
    )
    with pytest.raises(SystemExit) as end:
        written.main(["--check"])
    assert end.value.code == 1
    assert "old" in page.read_text()
    for status in ([], ["--check"]):
        with pytest.raises(SystemExit) as end:
            written.main(status)
        assert end.value.code == 0
    assert page.read_text().splitlines() == [
        "<!-- runs: toy -->",
        "| measured on | standard | APR-S |",
        "| --- | --- | --- |",
        "| `test` | 12.3 (11.1 to 14.0) | 10.0 (11.1 to 14.0) |",
        "| 15 corruptions × 5, 500 images each | 43.2 | |",
        "| AutoAttack, 64 images, L-infinity 2/255 | 80.0 (70.0 to 85.0) | |",
        "<!-- end -->",
        "",
        "Noise: <!-- = toy_standard noise -->33.0<!-- end --> %, "
        "clean <!-- = toy_apr_s clean -->10.0<!-- end -->.",
    ]


def test_a_table_of_some_methods(results):
    keep(results / "toy_standard", {})
    keep(results / "toy_standard_hard_labels", {"value": 0.11, "high": None})
    named = "<!-- runs: toy; clean; standard_hard_labels, standard -->"
    found = written.written(f"{named}\n<!-- end -->")
    assert found.splitlines() == [
        named,
        "| measured on | standard, labels not smoothed | standard |",
        "| --- | --- | --- |",
        "| `test` | 11.0 | 12.3 (11.1 to 14.0) |",
        "<!-- end -->",
    ]
    assert "not smoothed" not in written.table(["toy"])


def test_a_search_is_a_table_of_its_runs(results):
    folder = results / "search_toy"
    folder.mkdir()

    def run(method, c_bar, extra, clean, beside="", seed=0):
        means = (("mean c_bar", c_bar), ("mean extra", extra), ("clean", clean))
        bare = {"job": "evaluate.corruption", "low": None, "high": None}
        kept = [
            dataclasses.replace(RECORD, split=split, value=value, **bare)
            for split, value in (*means, ("mean", 0.9))
        ] + [dataclasses.replace(RECORD, value=clean)]
        about = {"row": method, "column": "a b", "epochs": 6.0, "cell": "c"}
        lines = [
            json.dumps(dataclasses.asdict(record) | about | {"seed": seed})
            for record in kept
        ]
        path = folder / f"cifar10_airbench94_{method}{beside}_s{seed}.jsonl"
        path.write_text("\n".join(lines) + "\n")

    run("apr_sp", 0.2, 0.1, 0.09)
    run("apr_sp+one_view", 0.1, 0.3, 0.08, "@pair_prob 0.15")
    page = results / "page.md"
    page.write_text("<!-- search: search_toy -->\n<!-- end -->\n")
    with pytest.raises(SystemExit):
        written.main([])
    # (10 * 0.2 + 4 * 0.1) / 14 and (10 * 0.1 + 4 * 0.3) / 14.
    assert page.read_text().splitlines()[1:-1] == [
        "| method | epochs | mean of the 14 | C-bar's ten | the other four | clean |",
        "| --- | --- | --- | --- | --- | --- |",
        "| APR-SP + one view, pair_prob 0.15 | 6 | 15.7 | 10.0 | 30.0 | 8.0 |",
        "| APR-SP | 6 | 17.1 | 20.0 | 10.0 | 9.0 |",
    ]
    run("apr_s", 0.1, 0.1, 0.1, seed=1)
    with pytest.raises(ValueError, match="several seeds"):
        written.main([])


def test_runs_of_different_sizes_do_not_share_a_row(results):
    for method, n in (("standard", 500), ("apr_p", 400)):
        given = [c | {"n": n} for c in corrupted({"gaussian_noise": 0.2})]
        keep(results / f"toy_{method}", *given)
    with pytest.raises(ValueError, match=r"toy, mean: .* \[400, 500\] images"):
        written.table(["toy"])


def test_the_pages_say_what_the_records_say():
    """Else: python -m experiments.checks.written."""
    with pytest.raises(SystemExit) as end:
        written.main(["--check"])
    assert end.value.code == 0
