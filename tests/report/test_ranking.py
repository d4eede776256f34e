"""Rankings under corruption: by hand, beside published numbers, and why not."""

import dataclasses
import json
import re

import pytest

from apr_jax.cli import compare as command
from apr_jax.report import export, ranked, ranking, robustbench, run_view
from apr_jax.runs.records import Record
from tests.report.test_compare import record, write

FILES = {"settings": {"source": "folder", "examples": 0}}
MADE = {"settings": {"source": "generated", "examples": 0}}


def mean(error, *, data="cifar10-c", n=robustbench.IMAGES, split="mean", **extra):
    found = record("error", error, job="corruption", split=split, n=n, **extra)
    return dataclasses.replace(found, data=data)


def entrant(name, *records):
    clean = record("accuracy", 0.9501)
    return ranking.Entrant(name, "wrn_10_1", "test", [clean, *records])


def test_published_entries_are_whole():
    for data, count, best in (("cifar10-c", 23, 92.78), ("cifar100-c", 13, 72.06)):
        found = robustbench.entries(data)
        assert len({entry.name for entry in found}) == len(found) == count
        assert max(entry.corrupted for entry in found) == best
        assert all(0 < entry.corrupted < entry.clean < 100 for entry in found)
    (standard,) = [e for e in robustbench.entries("cifar10-c") if e.name == "Standard"]
    assert standard[1:] == ("WideResNet-28-10", 94.78, 73.46, False)
    assert robustbench.entries("imagenet2012-c") == ()


@pytest.mark.parametrize(
    ("change", "together"),
    [
        ({}, True),
        ({"weights": "b"}, True),
        ({"stored_as": "jpeg"}, False),
        ({"seed": 1}, False),
        ({"frost": "b"}, False),
        ({"source": "folder", "files": "b"}, False),
    ],
)
def test_networks_are_ranked_together_on_the_same_images(change, together):
    usual = {**MADE["settings"], "stored_as": "array", "seed": 0, "frost": "a"}
    both = [
        entrant(name, mean(0.1, settings={**usual, **own}))
        for name, own in (("a", {}), ("b", change))
    ]
    assert len(ranking.rank(both)[0]) == 2 - together


def test_copies_of_published_files_are_the_same_files():
    both = [
        entrant(name, mean(0.1, settings={**FILES["settings"], "files": name}))
        for name in "ab"
    ]
    assert len(ranking.rank(both)[0]) == 1


def test_the_same_files_stand_beside_the_published_numbers():
    ours = [entrant("a", mean(0.1092, **FILES)), entrant("b", mean(0.5, **FILES))]
    (found,), left_out = ranking.rank(ours)
    assert left_out == []
    assert (found.beside, found.why_alone) == (robustbench.SOURCE, "")
    assert len(found.places) == 23 + 2
    accuracies = [place.corrupted for place in found.places]
    assert accuracies == sorted(accuracies, reverse=True)
    # 89.08 % is below AugMix's ResNeXt (89.09) and above PRIME's ResNet-18 (89.05).
    names = [place.name for place in found.places]
    at = names.index("a")
    assert names[at - 1 : at + 2] == [
        "Hendrycks2020AugMix_ResNeXt",
        "a",
        "Modas2021PRIMEResNet18",
    ]
    assert found.places[at].place == at + 1
    assert found.places[at].clean == 95.01
    assert [place.place for place in found.places[:2]] == [1, 1]  # both 92.78
    assert found.places[-1].name == "b"
    assert {p.source for p in found.places} == {"", robustbench.SOURCE}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (mean(0.1, data="cifar10-c generated", **MADE), "images were made here"),
        (mean(0.1, n=75_000, **FILES), "10,000 images a set; these of 1,000"),
        (mean(0.1, data="digits-c", **FILES), "not of digits"),
    ],
)
def test_why_others_do_not(given, why):
    (found,), _ = ranking.rank([entrant("a", given), entrant("b", given)])
    assert why in found.why_alone
    assert [(p.place, p.name) for p in found.places] == [(1, "a"), (1, "b")]


def test_only_the_same_images_are_ranked_together():
    few = mean(0.1, split="mean of 3", **FILES)
    found, left_out = ranking.rank(
        [
            entrant("a", mean(0.1, **FILES)),
            entrant("b", mean(0.2, data="cifar10-c generated", **MADE)),
            entrant("c", few),
            entrant("d"),
        ]
    )
    assert [ranking.data for ranking in found] == ["cifar10-c", "cifar10-c generated"]
    (line,) = left_out
    assert line.startswith("c has no mean over fifteen corruptions")
    assert "mean of 3 is all there is" in line


def test_page_terminal_and_document(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    roots = [
        write(tmp_path / name, [mean(error, **FILES)], name=name, seed=seed)
        for seed, (name, error) in enumerate((("first", 0.2), ("second", 0.12)))
    ]
    page, document = tmp_path / "page.html", tmp_path / "card.json"
    command.run(roots, json=document, page=page)
    said = capsys.readouterr().out
    assert "Erichson2022NoisyMix" in said
    assert "88.00 %" in said
    (found,) = json.loads(document.read_text())["ranking"]["rankings"]
    ours = [p for p in found["places"] if not p["source"]]
    assert [(p["name"], p["corrupted"]) for p in ours] == [
        ("second", 88.0),
        ("first", 80.0),
    ]
    (body,) = re.findall(f"<h2>{ranked.TITLE}</h2>(.*?)</section>", page.read_text())
    assert body.index("92.78 %") < body.index("88.00 %") < body.index("73.46 %")
    assert robustbench.SOURCE in body
    view = dataclasses.replace(
        run_view.view(roots[0]), records=[mean(0.1, data="toy-c", **FILES)]
    )
    assert ranked.html([view]) == ""  # one alone, whom nobody published beside


def test_a_card_of_nothing_is_none(tmp_path):
    root = write(tmp_path / "a", [])
    (root / "results.jsonl").unlink(missing_ok=True)
    export.write_card(tmp_path / "card.json", [root])
    assert not (tmp_path / "card.json").exists()


def test_a_network_from_elsewhere_has_no_method(tmp_path):
    found: list[Record] = [record("accuracy", 0.5, step=0)]
    root = write(tmp_path / "a", found)
    export.write_card(tmp_path / "card.json", [root])
    (run,) = json.loads((tmp_path / "card.json").read_text())["runs"]
    assert run["method"] == ""
