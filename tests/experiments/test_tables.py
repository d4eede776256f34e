"""The tables: which runs, what they cost, that they go on, and what is shown."""

import json
import re

import pytest
from PIL import Image

from apr_jax import config as config_lib
from apr_jax import job, models, presets
from apr_jax.augment import AUGMENTS
from apr_jax.corruptions import CORRUPTIONS
from apr_jax.errors import ConfigError, Diverged
from apr_jax.evaluate import corruption
from apr_jax.report import published
from apr_jax.runs import records as records_lib
from apr_jax.runs.records import Record
from apr_jax.train import plan as plan_lib
from experiments import lab as lab_lib
from experiments.tables import __main__ as tables
from experiments.tables import catalogue, page, plan
from experiments.tables import cells as cells_lib
from experiments.tables.catalogue import TABLES
from experiments.tables.rows import ROWS, canonical, row_of
from tests import toy


def test_published_means_are_those_of_the_paper():
    # The last row of Table 1 and the means of Table 2, of what is printed there.
    rows = published.table_1()
    four = catalogue._NETWORKS
    for row, cifar10, cifar100 in (
        ("standard", 29.0, 55.6),
        ("apr_p", 19.7, 46.6),
        ("augmix", 12.5, 38.3),
        ("apr_sp", 10.0, 33.9),
    ):
        for name, mean in (("cifar10", cifar10), ("cifar100", cifar100)):
            got = sum(rows[row][f"{name} {network}"] for network in four) / 4
            assert got == pytest.approx(mean, abs=0.06)
    for row, cells in published.table_2().items():
        sets = [v for k, v in cells.items() if k not in ("accuracy", "mean")]
        # Its line for Mixup has another mean than its cells.
        assert sum(sets) / 6 == pytest.approx(cells["mean"], abs=0.11), row
    for row, cells in published.table_4().items():
        errors = [v for k, v in cells.items() if k not in ("error", "mce")]
        assert sum(errors) / 15 == pytest.approx(cells["mce"], abs=0.6), row


def test_rows_differ_in_their_method_only():
    common = {"rows": ["standard", "apr_p"], "seeds": 2, "changes": {}}
    runs = plan.runs_of(TABLES["1"], "paper", columns=["cifar100 allconv"], **common)
    assert [(r.row, r.seed) for r in runs] == [
        ("standard", 0),
        ("apr_p", 0),
        ("standard", 1),
        ("apr_p", 1),
    ]
    one, other = (dict(r.settings.to_dict()) for r in runs[:2])
    assert {k for k in one if one[k] != other[k]} == {"augment", "name"}
    assert one["optim"]["epochs"] == 200
    assert one["model"]["name"] == "allconv"
    # Two views cost twice as much.
    costs = [r.multiply_adds(50_000, 100) for r in runs]
    assert costs[1] == 2 * costs[0] == costs[3]
    adversarial = plan.runs_of(
        TABLES["1"],
        "small",
        rows=["adversarial"],
        columns=["cifar10 wrn_10_1"],
        seeds=1,
        changes={"optim.epochs": 1.0},
    )
    assert adversarial[0].settings.adversary.attack == "pgd"
    small = plan.runs_of(
        TABLES["3"],
        "small",
        rows=["apr_sp"],
        columns=["cifar10 wrn_10_1"],
        seeds=1,
        changes={},
    )
    assert small[0].settings.adversary.attack == "fgsm"
    with pytest.raises(ValueError, match="unknown row 'smear'; choose from standard"):
        plan.runs_of(
            TABLES["1"], "small", rows=["smear"], columns=["a b"], seeds=1, changes={}
        )


def test_medium_runs_are_those_of_the_quick_recipe():
    for row in ROWS:
        if row_of(row).run or row_of(row).mixes or row == "max_blur_pool":
            continue
        (run,) = asked_for(rows=[row], columns=["cifar10 airbench94"], budget="medium")
        quick = presets.cifar10_fast(row_of(row).method)
        own = {"name", "optim.epochs", "train.tensorboard", "train.watch"}
        changed = {"eval.parts", *row_of(row).changes}
        one, other = (flat(c.to_dict()) for c in (run.settings, quick))
        differs = {field for field in one if one[field] != other[field]}
        assert own <= differs <= own | changed
        config_lib.parse(run.settings.to_dict())
    (run,) = asked_for(
        rows=["apr_sp"], columns=["cifar100 airbench94"], budget="medium"
    )
    assert run.settings.data.name == "cifar100"
    assert run.settings.eval.corruption.examples == 0
    assert catalogue.columns_of(TABLES["2"], "medium") == ("cifar10 airbench94",)


@pytest.mark.parametrize("budget", ["small", "medium", "paper"])
def test_other_sets_have_what_suits_them(budget):
    def augment_of(name, row):
        given = {"rows": [row], "columns": [f"{name} wrn_10_1"], "budget": budget}
        return asked_for(**given)[0].settings.augment

    assert augment_of("cifar100", "cutout").cutout_size == 8
    assert augment_of("cifar100", "prime").strengths == "cifar100"
    assert augment_of("cifar10", "cutout").cutout_size == 16
    assert augment_of("cifar100", "standard").flip is True
    assert augment_of("svhn_cropped", "standard").flip is False


def test_a_table_asks_for_what_its_runs_and_its_processes_need(
    tmp_path, folder, monkeypatch
):
    """Deterministic programs where a field says so, and an end for all processes."""
    called = []
    note = lambda name: lambda *_: called.append(name)
    monkeypatch.setattr(tables.parallel, "start_processes", note("start"))
    monkeypatch.setattr(tables.process, "end_with", note("end"))
    monkeypatch.setattr(tables.tuning, "use_deterministic", note("deterministic"))
    command = ["1", "--rows", "standard", "--show", "--out", str(tmp_path / "out")]
    command += ["--work", str(tmp_path / "work"), "--set_field"]
    several = ["--coordinator", "localhost:1", "--processes", "2", "--process", "0"]
    for flags, wanted in (
        (["train.deterministic=false"], []),
        (["train.deterministic=true", *several], ["start", "end", "deterministic"]),
    ):
        with pytest.raises(SystemExit):  # nothing to show yet
            tables.main([*command, *flags])
        assert called == wanted


def flat(tree, prefix=""):
    """Dotted name -> value."""
    found = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def asked_for(
    number="1", *, rows, columns=("cifar10 wrn_10_1",), seeds=1, budget="small", **more
):
    """The runs of a table; ``more`` are the fields that are changed."""
    return plan.runs_of(
        TABLES[number],
        budget,
        rows=rows,
        columns=columns,
        seeds=seeds,
        changes=more.get("changes", {}),
    )


def test_any_methods_that_go_together_are_a_row():
    (run,) = asked_for(
        rows=["patch_uniform+apr_p"],
        changes={"patch_uniform+apr_p:optim.epochs": 7.0},
    )
    assert run.name == "cifar10_wrn_10_1_apr_p+patch_uniform_s0"
    assert run.settings.augment.method == "apr_p+patch_uniform"
    assert run.settings.optim.epochs == 7
    assert row_of("patch_uniform+apr_p").label == "Patch Uniform + APR-P"
    assert row_of("apr_sp_heads").label == "apr_sp_heads"
    assert row_of("deepaugment+apr_sp") is ROWS["deepaugment+apr_sp"]
    assert row_of("apr_p+deepaugment").label == "DeepAugment + APR-P"
    with pytest.raises(ValueError, match="joins amplitude_mix and apr_p"):
        asked_for(rows=["apr_p+amplitude_mix"])
    with pytest.raises(ValueError, match="cutout twice"):
        asked_for(rows=["cutout+cutout"])


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ("apr_s+apr_p", "apr_sp"),
        ("standard+apr_p", "apr_p"),
        ("hybrid_augment_pp+hybrid_augment_pp_s", "hybrid_augment_pp_ps"),
        ("apr_sp+deepaugment", "deepaugment+apr_sp"),
        ("mixup+cutout", "cutout+mixup"),
        ("cutout+patch_gaussian", "cutout+patch_gaussian"),
        ("patch_gaussian+cutout", "patch_gaussian+cutout"),  # the order matters
    ],
)
def test_one_method_is_one_row_however_it_is_spelled(spelled, name):
    assert canonical(spelled) == canonical(name) == name


def test_what_is_asked_for_twice_is_there_once():
    runs = asked_for(
        rows=["apr_sp", "apr_s+apr_p"], columns=["cifar10 wrn_10_1"] * 2, seeds=2
    )
    assert [(run.row, run.seed) for run in runs] == [("apr_sp", 0), ("apr_sp", 1)]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"rows": ["apr_p"], "changes": {"seed": 7}}, "tells runs apart; use --seeds"),
        ({"rows": ["apr_p"], "changes": {"apr_s:seed": 7}}, "tells runs apart"),
        ({"rows": ["apr_p"], "changes": {"apr_s:optim.epochs": 1.0}}, "isn't among"),
        ({"rows": ["apr_p"], "changes": {"smear:optim.epochs": 1.0}}, "unknown row"),
        ({"rows": ["apr_p"], "changes": {"optim.epochs": "many"}}, None),
        ({"rows": ["apr_p"], "columns": ["cifar10"]}, "must be 'SET NETWORK'"),
        ({"rows": ["apr_p"], "columns": ["cifar10 wrn"]}, "unknown"),
        ({"rows": ["apr_p"], "columns": ["mnist wrn_10_1"]}, "unknown data set"),
        ({"rows": ["apr_p"], "seeds": 0}, "--seeds is 0"),
        ({"rows": ["max_blur_pool"]}, "is the network resnet50_blur"),
        ({"number": "4", "rows": ["apr_p"]}, "it is 'imagenet'"),
        ({"number": "3", "rows": ["apr_p"], "share": "1"}, "--share is '1'"),
        ({"number": "3", "rows": ["apr_p"], "share": "3/2"}, "--share is '3/2'"),
        ({"number": "3", "rows": ["apr_p", "csi"]}, "adversary.attack"),
    ],
)
def test_what_cant_be_filled_is_refused_first(asked, message, tmp_path, capsys):
    words = [
        asked.get("number", "1"),
        "--work",
        str(tmp_path),
        "--rows",
        *asked["rows"],
    ]
    words += ["--budget", "paper" if asked.get("number") == "4" else "small"]
    words += ["--columns", *asked.get("columns", ["cifar10 wrn_10_1"])]
    words += [
        "--seeds",
        str(asked.get("seeds", 1)),
        "--share",
        asked.get("share", "1/1"),
    ]
    for field, value in asked.get("changes", {}).items():
        words += ["--set_field", f"{field}={json.dumps(value)}"]
    with pytest.raises(SystemExit) as stopped:
        tables.main([*words, "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    found = capsys.readouterr().err
    assert found.startswith("error: ")
    assert (message or "many") in found
    assert not list(tmp_path.glob("fgsm/*/*")) + list(tmp_path.glob("cifar/*/*"))


def test_csi_is_shown_by_two_scores(tmp_path):
    config = {"columns": ["cifar10 wrn_10_1"], "seeds": 1, "changes": {}}
    plain, supclr, csi = (
        plan.runs_of(TABLES["2"], "small", rows=[row], **config)[0]
        for row in ("standard", "supclr", "csi")
    )
    costs = [run.multiply_adds(50_000, 10) for run in (plain, supclr, csi)]
    # Two views, or eight, and at the end only forward, of one view or four.
    assert costs[1] / costs[0] == pytest.approx((2 * 3 * 0.875 + 0.125) / 3)
    assert costs[2] == pytest.approx(4 * costs[1])
    with pytest.raises(ValueError, match="'csi_turns' has no runs"):
        plan.runs_of(TABLES["2"], "small", rows=["csi_turns"], **config)
    common = {"job": "evaluate.ood", "data": "cifar10", "unit": "fraction", "n": 1}
    records = [
        Record(
            **common,
            split=split,
            metric=f"{score}.auroc",
            value=value,
            step=1,
            config_hash="0" * 12,
            code_version="1",
            seed=0,
            device="cpu",
            time="2026-01-01T00:00:00+00:00",
        )
        for split, score, value in (
            ("svhn_cropped", "msp", 0.6),
            ("svhn_cropped", "csi", 0.7),
            ("all", "csi", 0.8),
            ("far", "csi", 0.9),
        )
    ]
    root = tmp_path / "run"
    root.mkdir()
    records_lib.append(root / "results.jsonl", records)
    page.keep(tmp_path, csi, root)
    # An older seed of other settings is not taken for one of this cell.
    older = [
        json.dumps({**json.loads(line), "seed": 1, "cell": "1" * 12, "time": "2025"})
        for line in (tmp_path / f"{csi.name}.jsonl").read_text().splitlines()
    ]
    (tmp_path / "older_s1.jsonl").write_text("\n".join(older) + "\n")
    assert page.read(tmp_path, TABLES["2"]) == {
        ("csi", "svhn"): [60.0],
        ("csi_turns", "svhn"): [70.0],
        ("csi_turns", "mean"): [80.0],
    }


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_a_method(row):
    for part in ROWS[row].method.split("+"):
        assert part in AUGMENTS


@pytest.mark.slow
def test_a_table_is_filled_and_goes_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(models.MODELS, "tiny", toy.TinyNet)
    toy.write_arrays(tmp_path)
    fields = {
        "data.source": "arrays",
        "data.name": "toy",
        "data.image_size": 8,
        "augment.crop_pad": 1,
        "optim.epochs": 1.0,
        "train.batch_size": 16,
        "eval.batch_size": 25,
        "eval.corruption.corruptions": ["brightness", "contrast"],
        "eval.corruption.examples": 20,
    }
    arguments = [
        "1",
        "--columns=cifar10 tiny",
        f"--data_dir={tmp_path}",
        f"--cache_dir={tmp_path / 'cache'}",
        f"--work={tmp_path / 'work'}",
        f"--out={tmp_path / 'out'}",
        "--quiet",
        *(f"--set_field={k}={json.dumps(v)}" for k, v in fields.items()),
    ]
    tables.main([*arguments, "--rows", "standard"])
    said = capsys.readouterr().err
    assert "1 runs are missing" in said
    kept = tmp_path / "work/cifar/small/cifar10_tiny_standard_s0/results.jsonl"
    trained = kept.stat().st_mtime_ns
    tables.main([*arguments, "--rows", "standard", "apr_p", "--seeds", "1"])
    assert kept.stat().st_mtime_ns == trained
    text = (tmp_path / "out" / "table.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(lines) == 4
    assert lines[2].startswith("| Standard | ")
    assert lines[3].startswith("| APR-P | ")
    assert "26.9" in lines[2]  # WRN-40-2, published
    html = (tmp_path / "out" / "table.html").read_text()
    assert html.count("<tr>") == 3
    # A measurement that was stopped is gone on with.
    text = kept.read_text()
    lines = text.splitlines()
    means = [line for line in lines if '"mean' in line]
    kept.write_text("\n".join(line for line in lines if line not in means) + "\n")
    tables.main([*arguments, "--rows", "standard"])
    assert "1 runs are missing" in capsys.readouterr().err
    again = kept.read_text().splitlines()
    assert len([line for line in again if '"mean' in line]) == len(means) > 0
    # Other numbers of measuring are measured; the network stays.
    fewer = '--set_field=eval.corruption.corruptions=["brightness"]'
    tables.main([*arguments, "--rows", "standard", fewer])
    assert "1 runs are missing" in capsys.readouterr().err
    tables.main([*arguments, "--rows", "standard", fewer])
    assert "nothing is missing" in capsys.readouterr().err
    # Table 2 measures the network of Table 1.
    folder = kept.parent / "checkpoints"
    saved = sorted((p, p.stat().st_mtime_ns) for p in folder.rglob("*"))
    second = ["2", *arguments[1:], f"--out_set=other=arrays:{tmp_path}"]
    tables.main([*second, f"--out={tmp_path / 'out2'}", "--rows", "standard"])
    assert saved == sorted((p, p.stat().st_mtime_ns) for p in folder.rglob("*"))
    text = (tmp_path / "out2" / "table.md").read_text()
    assert text.splitlines()[2].startswith("|  | accuracy | ")
    assert "other" in text.splitlines()[2]
    with pytest.raises(SystemExit):
        tables.main([*arguments, "--set_field=optim.epochs"])
    assert "--set_field is 'optim.epochs'" in capsys.readouterr().err
    for share in ("0/4", "5/4"):
        with pytest.raises(SystemExit):
            tables.main([*arguments, f"--share={share}"])
        assert f"--share is '{share}'; it must be 1/N to N/N" in capsys.readouterr().err


def clean_only(tmp_path):
    """Arguments for Table 1 of toy images, with the clean error alone."""
    fields = {
        "data.source": "arrays",
        "data.name": "toy",
        "data.image_size": 8,
        "augment.crop_pad": 1,
        "optim.epochs": 1.0,
        "train.batch_size": 16,
        "eval.batch_size": 25,
        "eval.parts": ["clean"],
    }
    return [
        "1",
        "--columns=cifar10 tiny",
        "--rows=standard",
        f"--data_dir={tmp_path}",
        f"--cache_dir={tmp_path / 'cache'}",
        f"--work={tmp_path / 'work'}",
        f"--out={tmp_path / 'out'}",
        "--quiet",
        *(f"--set_field={k}={json.dumps(v)}" for k, v in fields.items()),
    ]


@pytest.mark.slow
def test_seeds_train_together(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(models.MODELS, "tiny", toy.TinyNet)
    toy.write_arrays(tmp_path)
    arguments = clean_only(tmp_path)
    tables.main([*arguments, "--seeds=3", "--together=2"])
    said = capsys.readouterr().err
    assert "seeds       0, 1, together" in said
    assert "seeds       2" not in said
    row = (tmp_path / "out" / "table.md").read_text().splitlines()[4]
    assert row.startswith("| Standard |")
    assert row.count("±") == 1
    tables.main([*arguments, "--seeds=3", "--together=3"])
    assert "nothing is missing" in capsys.readouterr().err


def test_a_run_that_fails_leaves_the_others(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(models.MODELS, "tiny", toy.TinyNet)
    toy.write_arrays(tmp_path)
    run, together = job.run, []

    def fails_once(config, root, **options):
        if config.seed == 1:
            raise Diverged("the loss is nan at step 3")
        return run(config, root, **options)

    def fails(configs, roots, **options):
        together.append([config.seed for config in configs])
        raise Diverged("the loss is nan at step 3, in one of many")

    monkeypatch.setattr(job, "run", fails_once)
    monkeypatch.setattr(job, "train_seeds", fails)
    with pytest.raises(SystemExit) as end:
        tables.main([*clean_only(tmp_path), "--seeds=3", "--together=3"])
    assert end.value.code == 2
    assert together == [[0, 1, 2]]
    said = capsys.readouterr().err
    assert "each seed goes on by itself" in said
    assert "cifar10_tiny_standard_s1 failed: the loss is nan at step 3" in said
    assert "error: 1 of 3 runs failed, see above: cifar10_tiny_standard_s1" in said
    kept = {path.stem for path in (tmp_path / "out").glob("*.jsonl")}
    assert kept == {"cifar10_tiny_standard_s0", "cifar10_tiny_standard_s2"}
    assert " ± " in (tmp_path / "out" / "table.md").read_text()


def test_which_seeds_train_together():
    runs = plan.runs_of(
        TABLES["1"],
        "small",
        rows=["standard", "apr_p"],
        columns=["cifar10 wrn_10_1"],
        seeds=3,
        changes={},
    )
    named = lambda groups: [[(r.row, r.seed) for r in group] for group in groups]
    assert named(tables.grouped(runs, 2)) == [
        [("standard", 0), ("standard", 1)],
        [("apr_p", 0), ("apr_p", 1)],
        [("standard", 2)],
        [("apr_p", 2)],
    ]
    assert [len(group) for group in tables.grouped(runs, 0)] == [1] * 6  # on a CPU
    for run in runs:
        run.settings.adversary.held_out = 10
    assert [len(group) for group in tables.grouped(runs, 3)] == [1] * 6


def test_columns_are_not_taken_for_seeds(tmp_path):
    for column in ("cifar10 a", "cifar10 b"):
        line = dict.fromkeys(page._FIELDS, "")
        line |= {"row": "standard", "column": column, "seed": 0, "epochs": 1.0}
        line |= {"cell": "0" * 12}
        line |= {"job": "evaluate.clean", "metric": "accuracy", "split": "test"}
        line |= {"data": "x", "value": 0.5, "n": 1, "step": 1}
        (tmp_path / f"{column[-1]}.jsonl").write_text(json.dumps(line) + "\n")
    found = page.read(tmp_path, TABLES["2"])
    assert found == {
        ("standard", "cifar10 a accuracy"): [50.0],
        ("standard", "cifar10 b accuracy"): [50.0],
    }


def test_several_seeds_have_a_deviation():
    assert page.shown([10.0, 12.0, 14.0]) == "12.0 ± 2.0"
    assert page.shown([10.04]) == "10.0"
    assert page.shown([]) == "–"


def imagenet_runs(changes, rows):
    return plan.runs_of(
        TABLES["4"],
        "paper",
        rows=rows,
        columns=["imagenet resnet50"],
        seeds=1,
        changes=changes,
    )


def test_rows_that_mix_images_are_told_where_they_are():
    mixing = ["stylized", "deepaugment", "deepaugment+apr_sp"]
    assert [row for row in ROWS if ROWS[row].mixes] == mixing
    assert set(mixing) <= set(published.table_4()) & set(TABLES["4"].rows)
    for number in "123":
        assert not set(mixing) & set(TABLES[number].rows)
    changes = {
        "data.extra_dirs": ["EDSR", "CAE"],
        "stylized:data.extra_dirs": ["SIN"],
        "optim.epochs": 2.0,
        "standard:optim.epochs": 3.0,
    }
    standard, stylized, both = imagenet_runs(
        changes, ["standard", "stylized", "deepaugment+apr_sp"]
    )
    found = [config_lib.parse(r.settings.to_dict()) for r in (standard, stylized, both)]
    assert [c.data.extra_dirs for c in found] == [(), ("SIN",), ("EDSR", "CAE")]
    assert [c.data.extra_ratio for c in found] == [0, 1 / 2, 2 / 3]
    assert [c.augment.method for c in found] == ["standard", "standard", "apr_sp"]
    assert [c.optim.epochs for c in found] == [3, 2, 2]
    with pytest.raises(ValueError, match=r"stylised:optim\.epochs: unknown row"):
        imagenet_runs({"stylised:optim.epochs": 1.0}, ["standard"])
    for row in mixing:
        assert not plan.has_images(row, {"optim.epochs": 2.0})
        with pytest.raises(ValueError, match=f"row {re.escape(repr(row))} mixes in"):
            imagenet_runs({"standard:data.extra_dirs": ["SIN"]}, [row])


def test_images_to_mix_are_looked_for_before_anything_is_trained(tmp_path, capsys):
    """On the paper's Table 4, whose other settings are of no concern here."""
    for split in ("train", "validation"):
        (tmp_path / split / "n01440764").mkdir(parents=True)
        picture = Image.new("RGB", (8, 8))
        picture.save(tmp_path / split / "n01440764" / "0.png")
    arguments = ["4", f"--data_dir={tmp_path}", f"--work={tmp_path}", "--quiet"]
    with pytest.raises(SystemExit):
        tables.main(arguments)
    assert "which Table 4 has not" in capsys.readouterr().err
    arguments.append("--budget=paper")
    arguments += ['--set_field=data.source="folder"', f"--out={tmp_path / 'out'}"]
    where = f"--set_field=data.extra_dirs={json.dumps([str(tmp_path / 'EDSR')])}"

    def said(*more):
        with pytest.raises(SystemExit) as stopped:
            tables.main([*arguments, *more])
        assert stopped.value.code == 2
        return capsys.readouterr().err

    assert "row 'stylized' mixes in extra images" in said("--rows", "stylized")
    assert "EDSR', which isn't there" in said(where)
    (tmp_path / "EDSR" / "n01443537").mkdir(parents=True)
    assert "a class 'n01443537'; the classes of" in said(where)


def test_what_a_terminal_has_no_room_for_is_left_out(capsys, monkeypatch):
    heads = ["", "own error", "a_long_network, published", "another, published"]
    lines = [["APR-SP", "42.5 ± 0.6", "9.1", "9.3"]]
    for width, inside, said in ((60, 4, ""), (45, 3, "1 more"), (30, 2, "2 more")):
        monkeypatch.setenv("COLUMNS", str(width))
        page.show_in_terminal("A title", "A note.", heads, lines, own=2)
        text = capsys.readouterr().out
        assert text.count("9.") == inside - 2
        assert "42.5" in text
        assert said in " ".join(text.split())


def some_records(job, cells):
    return [
        Record(
            job=job,
            data="cifar10",
            split=split,
            metric=metric,
            value=value,
            unit="fraction",
            n=1,
            step=1,
            config_hash="0" * 12,
            code_version="1",
            seed=0,
            device="cpu",
            time="2026-01-01T00:00:00+00:00",
        )
        for split, metric, value in cells
    ]


def test_cells_are_of_what_the_table_names():
    robust = some_records(
        "evaluate.adversarial",
        [
            ("linf/0.0156863", "robust_accuracy", 0.4),
            ("linf/0.0313725", "robust_accuracy", 0.2),
            ("l2/0.5", "robust_accuracy", 0.5),
            ("linf/0.0313725/apgd-ce", "robust_accuracy", 0.3),
        ],
    )
    assert cells_lib.robust_cells(robust) == {"robust": 0.2}
    assert cells_lib.robust_cells(robust[2:]) == {}
    means = some_records(
        "evaluate.corruption",
        [
            ("mean of 4", "error", 0.1),
            ("mean", "error", 0.3),
            ("mean of 14", "error", 0.2),
            ("mean, severities 1 3", "error", 0.15),
            ("mean/1", "error", 0.05),
        ],
    )
    assert cells_lib.corruption_cells(means) == {"": 0.3}
    without = [record for record in means if record.split != "mean"]
    assert cells_lib.corruption_cells(without) == {"": 0.2}


def test_rows_with_hard_labels_differ_from_their_own_in_that_alone():
    rows = ["standard", "standard_hard_labels", "apr_sp", "apr_sp_hard_labels"]
    some = {"rows": rows, "columns": ["cifar10 airbench94"], "seeds": 1, "changes": {}}
    runs = plan.runs_of(TABLES["1"], "medium", **some)
    smooth, hard, *_ = (run.settings for run in runs)
    assert (smooth.augment.label_smoothing, hard.augment.label_smoothing) == (0.2, 0)
    for smooth, hard in zip(runs[::2], runs[1::2], strict=True):
        hard.settings.augment.label_smoothing = 0.2
        hard.settings.name = smooth.settings.name
        assert hard.settings.to_dict() == smooth.settings.to_dict()


def test_a_search_sees_neither_the_test_nor_the_fifteen():
    table = TABLES["search"]
    rows = {"rows": table.rows, "columns": table.columns, "seeds": 1, "changes": {}}
    for run in plan.runs_of(table, "medium", **rows):
        config = config_lib.parse(run.settings.to_dict())
        plan_lib.check_names(config)
        assert config.data.train_split == "train[:90%]"
        assert config.data.test_split == "train[90%:]"
        measured = corruption.names_of(config.eval.corruption, config.data)
        assert not {*measured} & {*CORRUPTIONS}
        assert len(measured) == 14
        assert plan.passes(run.settings) <= 6  # APR-SP's
    found = some_records(
        "evaluate.corruption",
        [("mean c_bar", "error", 0.3), ("mean extra", "error", 0.1)],
    )
    clean = some_records("evaluate.clean", [("train[90%:]", "error", 0.07)])
    cells = cells_lib.held_out_cells([*found, *clean])
    mean = cells.pop("")
    assert mean == pytest.approx((10 * 0.3 + 4 * 0.1) / 14)
    assert cells == {"c_bar": 0.3, "extra": 0.1, "clean error": 0.07}
    assert "" not in cells_lib.held_out_cells([found[0], *clean])
    consistent = (ROWS[row].changes for row in catalogue._CONSISTENT)
    weights = [changes["augment.pair_consistency"] for changes in consistent]
    assert weights == [2, 6, 12]


def test_rows_without_an_fgsm_preset_are_augmented():
    run = plan.runs_of(
        TABLES["3"],
        "paper",
        rows=["hybrid_augment_pp"],
        columns=["cifar10 preact_resnet18"],
        seeds=1,
        changes={},
    )[0]
    assert run.settings.augment.pair_prob == 0.16
    assert run.settings.eval.adversarial.examples == 0
    # As everywhere, and on another set that set's own.
    (cutmix,) = asked_for("3", rows=["cutmix"])
    assert cutmix.settings.augment.mix_prob == 0.5
    (other,) = asked_for("3", rows=["cutout"], columns=["cifar100 preact_resnet18"])
    assert other.settings.augment.cutout_size == 8
    assert other.settings.data.name == "cifar100"
    assert other.settings.data.mean == presets.STATISTICS["cifar100"][0]


def test_only_what_was_measured_as_asked_is_kept(tmp_path):
    (run,) = asked_for(rows=["apr_p"])
    config = config_lib.parse(run.settings.to_dict())
    settings = {"source": "generated", "examples": config.eval.corruption.examples}
    found = some_records("evaluate.corruption", [("mean", "error", 0.3)])
    found += some_records("evaluate.corruption", [("mean", "error", 0.1)])
    found += some_records("evaluate.corruption", [("mean", "error", 0.2)])
    for record, others in zip(
        found, ({}, {"examples": 10}, {"source": "folder"}), strict=True
    ):
        record.extra["settings"] = {**settings, **others}
    records_lib.append(tmp_path / "results.jsonl", found)
    assert [r.value for r in page.records(tmp_path)] == [0.2]
    assert [r.value for r in page.records(tmp_path, config)] == [0.3]
    page.keep(tmp_path, run, tmp_path)
    kept = (tmp_path / f"{run.name}.jsonl").read_text().splitlines()
    assert [json.loads(line)["value"] for line in kept] == [0.3]

    (run,) = asked_for("3", rows=["apr_p"])
    config = config_lib.parse(run.settings.to_dict())
    (robust,) = some_records("evaluate.adversarial", [("linf/x", "robust_accuracy", 1)])
    for norm, eps, wanted in (
        ("linf", 4 / 255, True),
        ("linf", 8 / 255, False),
        ("l2", 4 / 255, True),  # no radius of it is asked for, nor shown
    ):
        robust.extra.update(norm=norm, eps=eps)
        assert page._as_asked(robust, config.eval) == wanted


def test_rows_of_other_code_and_sets_of_other_numbers_are_shown_apart(tmp_path, capsys):
    here = lab_lib.RESULTS / "table1_small" / "cifar10_wrn_10_1_apr_p_s0.jsonl"
    lines = [json.loads(line) for line in here.read_text().splitlines()]

    def write(name, **fields):
        text = "\n".join(json.dumps({**line, **fields}) for line in lines)
        (tmp_path / f"{name}.jsonl").write_text(text + "\n")

    write("a", row="gone_method")
    with pytest.raises(ConfigError, match="has no records yet"):
        page.show("1", "small", tmp_path)
    write("b")
    page.show("1", "small", tmp_path)
    assert "or no method has that name: a\n" in capsys.readouterr().err
    text = (tmp_path / "table.md").read_text()
    assert "APR-P" in text
    assert "18.3" in text  # published
    assert "Published: Chen et al., ICCV 2021, 200 epochs" in text
    # Those of Table 3 are of CIFAR-10.
    write("b", column="svhn_cropped wrn_10_1", job="evaluate.clean", split="test")
    page.show("3", "small", tmp_path)
    text = (tmp_path / "table.md").read_text()
    assert "ublished" not in text


def test_only_csi_has_a_row_by_its_own_score(tmp_path):
    for name, value in (("csi", 0.7), ("csi+patch_gaussian", 0.9)):
        (run,) = asked_for("2", rows=[name])
        root = tmp_path / "run" / name
        root.mkdir(parents=True)
        found = some_records("evaluate.ood", [("svhn", "csi.auroc", value)])
        records_lib.append(root / "results.jsonl", found)
        page.keep(tmp_path, run, root)
    found = page.read(tmp_path, TABLES["2"])
    assert found == {("csi_turns", "svhn"): [pytest.approx(70)]}


def test_the_picture_ranks_by_what_the_table_is_of():
    columns = ["cifar10 a clean error", "cifar10 a", "cifar10 b"]
    assert TABLES["1"].shown(columns) == ("cifar10 a", "cifar10 a clean error")
    assert TABLES["1"].shown(columns[:1]) == ("", "cifar10 a clean error")
    assert TABLES["3"].shown(["accuracy", "robust"]) == ("robust", "accuracy")


@pytest.mark.parametrize(
    ("split", "mine"), [("linf/0.0156863", "4/255"), ("linf/0.0313725", "8/255")]
)
def test_the_radius_stands_at_what_is_robust(tmp_path, split, mine):
    """Within another radius than the paper's it is said that the two don't compare."""
    for path in (lab_lib.RESULTS / "table3_small").glob("*_s0.jsonl"):
        text = path.read_text().replace("linf/0.0156863", split)
        (tmp_path / path.name).write_text(text)
    page.show("3", "small", tmp_path)
    text = (tmp_path / "table.md").read_text()
    assert f"| accuracy | robust at {mine} |" in text
    assert "robust at 8/255, published" in text
    assert ("the two don't compare" in text) is (mine != "8/255")
