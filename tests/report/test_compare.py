"""Finished runs side by side, of files that are written by hand here."""

import csv
import dataclasses
import io
import json
import pathlib
import statistics
import subprocess
import sys

import numpy as np
import pytest

from apr_jax import config as config_lib
from apr_jax import metrics
from apr_jax.cli import compare as command
from apr_jax.errors import ConfigError
from apr_jax.report import compare, export
from apr_jax.runs import files, predictions, records, workdir
from apr_jax.runs.records import Record

ROOT = pathlib.Path(__file__).resolve().parents[2]
RESULTS = ROOT / "experiments" / "results"


def record(metric, value, *, job="clean", split="test", n=40, step=9, **extra):
    return Record(
        job=f"evaluate.{job}",
        data="toy" if job != "corruption" else "toy-c",
        split=split,
        metric=metric,
        value=value,
        unit="fraction",
        n=n,
        step=step,
        config_hash="?",
        code_version="1",
        seed=0,
        device="1 x cpu",
        time="2026-01-01T00:00:00+00:00",
        extra=extra,
    )


def write(root, found, *, name="toy", seed=0, method="standard"):
    root.mkdir(parents=True)
    config = config_lib.parse(
        {
            "name": name,
            "seed": seed,
            "augment": {"method": method},
            "data": {"name": "toy"},
            "model": {"name": "wrn_10_1"},
        }
    )
    run = workdir.RunDir(root)
    files.write_text(run.config, json.dumps(config_lib.to_dict(config)))
    own = config_lib.config_hash(config)
    records.append(
        run.results,
        [dataclasses.replace(r, config_hash=own, seed=seed) for r in found],
    )
    return root


@pytest.fixture
def seeds(tmp_path):
    """Three seeds of one configuration, and a run of another method."""
    errors = (0.1, 0.14, 0.12)
    roots = [
        write(tmp_path / f"s{i}", [record("error", e)], name=f"toy_s{i}", seed=i)
        for i, e in enumerate(errors)
    ]
    other = write(tmp_path / "p", [record("error", 0.07)], name="p", method="apr_p")
    return roots, other, errors


def test_seeds_are_averaged_with_their_spread(seeds):
    roots, other, errors = seeds
    columns = compare.columns(compare.open_runs([roots[0], other, *roots[1:]]))
    assert [c.name for c in columns] == ["toy", "p"]
    assert [len(c.runs) for c in columns] == [3, 1]
    (row,) = compare.rows(columns)
    averaged, single = row.cells
    assert averaged.value == pytest.approx(0.12)
    assert averaged.spread == pytest.approx(statistics.stdev(errors))
    assert (single.value, single.spread) == (0.07, None)


def test_what_is_no_seed_of_the_same_stays_alone(tmp_path):
    error = [record("error", 0.1)]
    same = [write(tmp_path / f"same{i}", error) for i in range(2)]
    later = write(tmp_path / "later", [record("error", 0.1, step=10)], seed=1)
    file = write(
        tmp_path / "file", [record("error", 0.1, weights_file="a.pth")], seed=2
    )
    columns = compare.columns(compare.open_runs([*same, later, file, same[0]]))
    assert [len(c.runs) for c in columns] == [1, 1, 1, 1]
    assert len({c.name for c in columns}) == 4


def test_columns_have_names_of_their_own(tmp_path):
    error = [record("error", 0.1)]
    roots = [
        write(tmp_path / f"{method}{seed}", error, method=method, seed=seed)
        for method in ("standard", "apr_p")
        for seed in (0, 1)
    ]
    columns = compare.columns(compare.open_runs(roots))
    assert [len(c.runs) for c in columns] == [2, 2]
    assert len({c.name for c in columns}) == 2


def test_numbers_that_were_not_measured_alike(tmp_path):
    few = {"settings": {"examples": 10, "weights": "a"}}
    attacked = lambda n, **more: record(
        "robust_accuracy", 0.3, job="adversarial", split="linf/0.03", n=n, **more
    )
    roots = [
        write(tmp_path / "a", [attacked(20)]),
        write(tmp_path / "b", [attacked(10, **few)], seed=1),
        write(tmp_path / "c", [attacked(10, **few)], method="apr_p"),
    ]
    columns = compare.columns(compare.open_runs(roots))
    table = compare.rows(columns)
    assert [len(cell.records) for cell in table[0].cells] == [1, 1]
    said = compare.otherwise(columns, table)
    assert any("not measured alike in all columns" in line for line in said)
    assert any("1 of 2 seeds" in line for line in said)


def test_questions_take_the_means(tmp_path):
    corrupted = [
        record("error", value, job="corruption", split=split)
        for split, value in (("fog/1", 0.1), ("mean/1", 0.2), ("mean of 2", 0.3))
    ]
    unknown = [
        record("msp.auroc", value, job="ood", split=split)
        for split, value in (("svhn", 0.9), ("near", 0.8), ("far", 0.7), ("all", 0.6))
    ]
    columns = compare.columns(
        compare.open_runs([write(tmp_path / "a", [*corrupted, *unknown])])
    )
    found = {row.question.asked: row.cells[0].value for row in compare.rows(columns)}
    assert found == {"Corrupted images": 0.3, "Unknown images": 0.6}


def test_flips_and_transfer_are_questions(tmp_path):
    flips = [
        record("flip_probability", value, job="shift", split=f"perturbation/{name}")
        for name, value in (("tilt", 0.1), ("mean", 0.2))
    ]
    moved = [
        record(
            metric,
            value,
            job="transfer",
            split=f"linf/0.03/{name}",
            settings={"surrogate": name},
        )
        for name, value in (("one", 0.6), ("two", 0.4))
        for metric in ("transfer_pgd", "transfer_accuracy")
    ]
    roots = [
        write(tmp_path / "a", [*flips, *moved]),
        write(tmp_path / "b", flips[:1], method="apr_p"),
    ]

    def found(*roots):
        table = compare.rows(compare.columns(compare.open_runs(roots)))
        return {
            (row.question.asked, row.split): [c and c.value for c in row.cells]
            for row in table
        }

    other = "Images made on another network"
    assert found(*roots) == {
        ("Perturbed sequences", "perturbation/mean"): [0.2, None],
        (other, "linf/0.03/one"): [0.6, None],
        (other, "linf/0.03/two"): [0.4, None],
    }
    assert found(roots[1]) == {("Perturbed sequences", "perturbation/tilt"): [0.1]}


def keep(root, wrong, *, data_seed=0):
    """Keeps answers to the clean images of a run."""
    run, config = workdir.open_run(root)
    labels = np.arange(40) % 4
    said = labels.copy()
    said[list(wrong)] = -1
    about = predictions.About(
        job="evaluate.clean",
        data="toy",
        split="test",
        config_hash=config_lib.config_hash(config),
        step=9,
        images=str(data_seed),
    )
    arrays = {
        "index": np.arange(40),
        "label": labels,
        "predicted": said,
        "confidence": np.ones(40),
    }
    predictions.write(run.predictions, about, arrays)


def test_differences_are_of_the_same_images(seeds):
    roots, other, _ = seeds
    keep(roots[0], range(8))
    keep(other, range(6, 9))
    columns = compare.columns(compare.open_runs([roots[0], other]))
    (found,), refused = compare.differences(columns, compare.rows(columns))
    one, two = np.ones((2, 40), bool)
    one[6:9], two[:8] = False, False
    assert found.pairs == [metrics.paired_difference(one, two)]
    assert found.value == pytest.approx(-5 / 40)
    assert refused == []
    keep(other, range(6, 9), data_seed=1)
    none, refused = compare.differences(columns, compare.rows(columns))
    assert none == []
    assert "other images of clean toy test: their fingerprints" in refused[0]


def test_seeds_are_paired_with_the_same_seeds(seeds, tmp_path):
    roots, other, _ = seeds
    more = write(
        tmp_path / "p1", [record("error", 0.05)], name="p", method="apr_p", seed=1
    )
    for place, root in enumerate([*roots, other, more]):
        keep(root, range(12 - 2 * place))
    columns = compare.columns(compare.open_runs([*roots, other, more]))
    (found,), _ = compare.differences(columns, compare.rows(columns))
    assert [pair.difference for pair in found.pairs] == pytest.approx([-6 / 40] * 2)
    assert found.spread == pytest.approx(0)


def test_the_command_writes_what_it_shows(seeds, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    roots, other, _ = seeds
    keep(other, range(8))
    keep(roots[0], range(4))
    before = {p: p.stat().st_mtime_ns for p in roots[0].rglob("*")}
    table, document = tmp_path / "out" / "t.csv", tmp_path / "d.json"
    command.run([other, *roots], csv=table, json=document)
    said = capsys.readouterr().out
    assert "12.00 ± 2.00 %" in said
    assert "3 seeds" in said
    assert "-10.00" in said
    assert max(map(len, said.splitlines())) <= 80
    assert {p: p.stat().st_mtime_ns for p in roots[0].rglob("*")} == before
    lines = list(csv.DictReader(io.StringIO(table.read_text())))
    assert [line["run"] for line in lines] == ["p", "toy_s0", "toy_s1", "toy_s2"]
    assert [float(line["value"]) for line in lines] == [0.07, 0.1, 0.14, 0.12]
    assert {line["architecture"] for line in lines} == {"wrn_10_1"}
    found = json.loads(document.read_text())
    assert found["schema"] == export.SCHEMA
    values = found["table"][0]["values"]["toy"]
    assert (values["value"], values["std"]) == pytest.approx((0.12, 0.02))
    assert [run["seed"] for run in found["runs"]] == [0, 0, 1, 2]
    assert found["differences"][0]["pairs"][0]["n"] == 40


def test_fields_are_robustbenchs_where_they_mean_the_same(tmp_path):
    published = {"settings": {"source": "folder", "examples": 0}}
    attack = {"settings": {"attack": "standard", "steps": 100, "queries": 5000}}
    quick = {"settings": {**attack["settings"], "steps": 20}}
    robust = lambda norm, eps, **more: record(
        "robust_accuracy",
        0.51239,
        job="adversarial",
        split=f"{norm}/{eps}",
        norm=norm,
        eps=eps,
        **more,
    )
    root = write(
        tmp_path / "a",
        [
            record("accuracy", 0.91084),
            record("accuracy", 0.5, split="other"),
            record(
                "error", 0.2, job="corruption", split="mean", n=75 * 10_000, **published
            ),
            record(
                "mce", 0.755, job="corruption", split="mean", n=75 * 10_000, **published
            ),
            robust("linf", 8 / 255, **attack),
            robust("l2", 0.5, **quick),
            robust("l1", 12.0, **attack),
        ],
    )
    (run,) = compare.open_runs([root])
    named = lambda name: dataclasses.replace(
        run.config, data=dataclasses.replace(run.config.data, name=name)
    )
    run = dataclasses.replace(run, config=named("cifar10"))
    # The records of attacks with other settings aren't current beside the newest.
    run = dataclasses.replace(run, records=records.read(run.directory.results))
    common = {
        "name": "toy",
        "dataset": "cifar10",
        "architecture": "wrn_10_1",
        "clean_acc": "91.08",
    }
    assert export.robustbench(run) == [
        common
        | {
            "threat_model": "corruptions",
            "eps": None,
            "corruptions_acc": "80.0",
            "corruptions_mce": "75.5",
            "n_ex": 10_000,
        },
        common
        | {
            "threat_model": "Linf",
            "eps": 8 / 255,
            "autoattack_acc": "51.24",
            "n_ex": 40,
        },
    ]
    generated = {"settings": {"source": "generated", "examples": 0}}
    other = [record("error", 0.2, job="corruption", split="mean", **generated)]
    assert export.robustbench(dataclasses.replace(run, records=other)) == []
    # Other images than RobustBench's: another set, or a part of them.
    unlike = dataclasses.replace(run, config=named("digits"))
    assert export.robustbench(unlike) == []
    part = [dataclasses.replace(r, n=75 * 9_999) for r in run.records]
    kept = export.robustbench(dataclasses.replace(run, records=part))
    assert {entry["threat_model"] for entry in kept} == {"Linf"}


def test_what_can_not_be_compared_is_a_line(tmp_path):
    with pytest.raises(ConfigError, match="is not a run"):
        command.run([tmp_path])
    empty = write(tmp_path / "empty", [])
    with pytest.raises(ConfigError, match="has no records"):
        command.run([empty])
    root = write(tmp_path / "a", [record("error", 0.1)])
    with pytest.raises(ConfigError, match=r"--csv is .*, which can't be written"):
        command.run([root], csv=tmp_path)


def test_results_are_compared_before_jax_is_there(tmp_path):
    program = (
        "import sys\nfrom apr_jax import cli\n"
        f"sys.argv = ['apr-jax', 'compare', {str(RESULTS / 'quickstart_standard')!r}, "
        f"{str(RESULTS / 'quickstart_apr_sp')!r}, '--csv', {str(tmp_path / 'a.csv')!r},"
        f" '--json={tmp_path / 'b.json'}']\n"
        "try:\n    cli.main()\nexcept SystemExit as end:\n"
        "    sys.exit(end.code or 'jax' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "quickstart_apr_sp" in done.stdout
    assert "Clean images" in done.stdout
    assert (tmp_path / "a.csv").read_text().startswith("run,dataset,architecture")
    assert len(json.loads((tmp_path / "b.json").read_text())["runs"]) == 2


def test_a_page_of_them(tmp_path):
    root = write(tmp_path / "a", [record("error", 0.1)])
    command.run([root, RESULTS / "quickstart_apr_sp"], page=tmp_path / "page.html")
    assert "quickstart_apr_sp" in (tmp_path / "page.html").read_text()
