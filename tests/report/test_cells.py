"""Cells and headings of every table: each number stands where its heading says.

Records have values that tell them apart, so a column or row under another's heading
shows a number that the test did not expect there.
"""

import html.parser
import re

import numpy as np

from apr_jax.report import numbers, published, run_view
from apr_jax.report.sections import adversarial, corruption, ood
from apr_jax.report.tables import numbers as table_of_numbers
from apr_jax.runs.records import Record

CORRUPTIONS = [
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur",
    "motion_blur", "zoom_blur", "snow", "frost", "fog", "brightness", "contrast",
    "elastic_transform", "pixelate", "jpeg_compression",
]  # fmt: skip


class Tables(html.parser.HTMLParser):
    """Tables of a page as lists of rows of texts, headings included."""

    def __init__(self, text):
        super().__init__()
        self.tables, self._cell = [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._cell = tag

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._cell = None

    def handle_data(self, data):
        if self._cell:
            self.tables[-1][-1][-1] += data


def record(job, split, metric, value, unit="fraction", data="cifar10", **extra):
    return Record(
        job=job, data=data, split=split, metric=metric, value=value, unit=unit,
        n=1200, step=1, config_hash="c", code_version="v", seed=0, device="cpu",
        time="2026-01-01T00:00:00+00:00", extra=extra,
    )  # fmt: skip


def spaces(text):
    return re.sub(r"\s+", " ", text.replace("\u00a0", " ")).strip()


# --- Clean images --------------------------------------------------------------------

# Metric -> heading, unit, value of two runs.
CLEAN = {
    "accuracy": ("Accuracy ↑", "fraction", 0.91, 0.82),
    "error": ("Error ↓", "fraction", 0.09, 0.18),
    "top5": ("Top-5 accuracy ↑", "fraction", 0.995, 0.975),
    "nll": ("Log-loss (NLL) ↓", "nats", 0.31, 0.62),
    "ece": ("Calibration error (ECE) ↓", "fraction", 0.03, 0.06),
    "rms_calibration_error": ("RMS calibration error ↓", "fraction", 0.04, 0.08),
    "brier": ("Brier score ↓", "1", 0.14, 0.28),
}


def test_numbers_stand_beside_their_names_and_below_their_runs():
    runs = {
        name: [
            record("evaluate.clean", "test", metric, line[2 + i], line[1])
            for metric, line in reversed(CLEAN.items())
        ]
        for i, name in enumerate(("one", "two"))
    }
    page = table_of_numbers(list(runs), numbers.side_by_side(runs), caption="c")
    ((heads, *rows),) = Tables(page).tables
    assert [spaces(head) for head in heads[1:]] == ["one", "two"]
    found = {spaces(row[0]): [spaces(c) for c in row[1:]] for row in rows if row[1:]}
    for heading, unit, *values in CLEAN.values():
        show = lambda v, unit=unit: (
            f"{100 * v:.2f} %" if unit == "fraction" else f"{v:.3f}"
        )
        own = [cell.removesuffix(" nats") for cell in found[heading]]
        assert own == [show(v) for v in values], heading
    assert [spaces(row[0]) for row in rows if row[1:]] == [v[0] for v in CLEAN.values()]


# --- Corruptions ---------------------------------------------------------------------

MEANS = {
    "error": ("Mean error ↓", 0.21),
    "mce": ("mCE ↓", 0.32),
    "relative_mce": ("Relative mCE ↓", 0.43),
    "nll": ("Log-loss ↓", 0.54),
    "ece": ("ECE ↓", 0.065),
    "rms_calibration_error": ("RMS calibration ↓", 0.076),
}


def corrupted(scale=1.0):
    """The error of corruption i at severity s is i.s percent."""
    job = "evaluate.corruption"
    made = [
        record(job, f"{name}/{s}", "error", scale * (i + s / 10) / 100)
        for i, name in enumerate(CORRUPTIONS, 10)
        for s in range(1, 6)
    ]
    made.append(record(job, "clean", "error", 0.05))
    made += [
        record(job, "mean", metric, value, "nats" if metric == "nll" else "fraction")
        for metric, (_, value) in MEANS.items()
    ]
    made += [record(job, f"mean/{s}", "error", s / 100) for s in range(1, 6)]
    return made


def test_errors_under_corruption_stand_in_their_row_and_column():
    half = [run_view.RunView(name="half", records=corrupted(0.5))]
    runs = [run_view.RunView(name="whole", records=corrupted()), *half]
    page = corruption.html(runs)
    maps = [t for t in Tables(page).tables if t[0][0] == "Severity"]
    assert len(maps) == 3
    labels = [name.replace("_", " ") for name in CORRUPTIONS]
    for (heads, *rows), factor in zip(maps, (1.0, 0.5, -0.5), strict=True):
        assert heads[1:] == ["1", "2", "3", "4", "5", "mean"]
        assert [row[0] for row in rows] == labels
        for i, row in enumerate(rows, 10):
            wanted = [factor * (i + s) for s in (0.1, 0.2, 0.3, 0.4, 0.5, 0.3)]
            # The second errs less, so its differences have a minus.
            np.testing.assert_allclose(list(map(float, row[1:])), wanted, atol=0.051)
    table = next(t for t in Tables(page).tables if "Clean error ↓" in map(spaces, t[0]))
    heads = [spaces(head) for head in table[0]]
    row = dict(zip(heads, map(spaces, table[1]), strict=True))
    assert row["Clean error ↓"] == "5.00 %"
    assert row["Images, over all sets"] == "1,200"
    for heading, value in MEANS.values():
        percent = f"{100 * value:.2f} %"
        assert row[heading].startswith((percent, f"{value:.3f}")), heading
        assert (row[heading] == percent) == (heading != "Log-loss ↓")


def test_the_terminal_says_which_mean_is_which():
    shown = corruption.table([run_view.RunView(name="a", records=corrupted())])
    titles, values = (list(column.cells) for column in shown.columns)
    found = dict(zip((spaces(t) for t in titles), values, strict=True))
    assert found["cifar10, clean"] == "5.00 %"
    for s in range(1, 6):
        assert found[f"cifar10, severity {s}"] == f"{s:.2f} %"
    assert found["cifar10, mean"] == "21.00 %"
    assert found["cifar10, mCE ↓"] == "32.00 %"
    assert found["cifar10, Relative mCE ↓"] == "43.00 %"


# --- Attacks -------------------------------------------------------------------------

ATTACKS = {
    "clean_accuracy": ("No attack", 0.93),
    "after_apgd-ce": ("+ APGD, cross-entropy", 0.61),
    "after_apgd-dlr": ("+ APGD, DLR", 0.58),
    "after_apgd-t": ("+ APGD, targeted DLR", 0.52),
    "after_fab": ("+ FAB", 0.51),
    "after_fab-t": ("+ FAB, targeted", 0.5),
    "after_square": ("+ Square", 0.49),
    "after_pgd": ("+ PGD", 0.48),
    "after_fgsm": ("+ FGSM", 0.47),
    "robust_accuracy": ("Robust accuracy ↑", 0.46),
}


def test_accuracies_stand_beside_their_attacks():
    asked = {"attack": "standard", "steps": 100, "queries": 5000}
    made = [
        record(
            "evaluate.adversarial",
            "linf/0.03137",
            metric,
            value,
            norm="linf",
            eps=8 / 255,
            settings=asked,
            **({} if metric == "robust_accuracy" else {"order": order}),
        )
        for order, (metric, (_, value)) in enumerate(ATTACKS.items())
    ]
    runs = [run_view.RunView(name="a", records=made[::-1])]
    ((heads, *rows),) = Tables(adversarial.html(runs)).tables
    assert spaces(heads[1]) == "a"
    found = [(spaces(r[0]), spaces(r[1])) for r in rows if len(r) > 1]
    wanted = [(head, f"{100 * value:.2f} %") for head, value in ATTACKS.values()]
    assert found == wanted
    assert "cifar10, L∞ up to 8/255, AutoAttack" in adversarial.html(runs)
    terminal = adversarial.table(runs)
    names, values = (list(column.cells) for column in terminal.columns)
    pairs = [(spaces(a), b) for a, b in zip(names, values, strict=True)][1:]
    assert pairs == wanted


# --- Unknown images ------------------------------------------------------------------


def test_aurocs_stand_below_their_sets_and_beside_their_scores():
    scores = {"msp": "Maximum softmax probability", "energy": "Energy", "vim": "ViM"}
    places = {"near": "near", "cifar100": "near", "svhn": "far", "far": "far"}
    made = [
        record(
            "evaluate.ood",
            split,
            f"{score}.{metric}",
            (50 + 10 * i + j + shift) / 100,
            group=group,
            score=score,
        )
        for i, score in enumerate(scores)
        for j, (split, group) in enumerate(places.items())
        for metric, shift in (("auroc", 0.0), ("aupr_in", 0.5))
    ]
    page = ood.html([run_view.RunView(name="a", records=made)])
    table = Tables(page).tables[0]
    heads = [spaces(head).lower() for head in table[0]]
    column = {
        split: next(i for i, head in enumerate(heads) if split in head)
        for split in places
    }
    assert len(set(column.values())) == 4
    rows = {spaces(row[0]): row for row in table[1:] if len(row) == len(heads)}
    for i, label in enumerate(scores.values()):
        row = next(row for name, row in rows.items() if name.startswith(label))
        for j, split in enumerate(places):
            assert spaces(row[column[split]]) == f"{50 + 10 * i + j:.1f}", (
                label,
                split,
            )


# --- The paper's numbers -------------------------------------------------------------

TABLE_1 = """
AllConvNet 30.8 32.9 24.6 31.3 28.1 21.5 29.2 15.0 14.8 11.5
DenseNet 30.7 32.1 24.6 33.5 27.6 20.3 26.6 12.7 12.3 10.3
WRN-40-2 26.9 26.8 22.3 27.1 26.2 18.3 23.9 11.2 10.6 9.1
ResNeXt-29 27.5 28.9 22.6 29.5 27.0 18.5 24.2 10.9 11.0 9.1
AllConvNet 56.4 56.8 53.4 56.0 56.0 47.5 55.1 42.7 39.8 35.9
DenseNet 59.3 59.6 55.4 59.2 55.2 49.8 53.9 39.6 38.3 35.8
WRN-40-2 53.3 53.5 50.4 52.9 55.1 44.7 49.6 35.9 35.5 32.9
ResNeXt-29 53.4 54.6 51.4 54.1 54.4 44.2 51.3 34.9 33.7 31.0
"""
ROWS = ["Standard", "Cutout", "Mixup", "CutMix", "AT", "APR-P", "AutoAugment"]
ROWS += ["AugMix", "APR-S", "APR-SP"]


def test_the_paper_s_first_table_is_the_paper_s():
    lines = [line.split() for line in TABLE_1.split("\n") if line]
    wanted = {
        data: {name: tuple(map(float, values)) for name, *values in part}
        for data, part in (("cifar10-c", lines[:4]), ("cifar100-c", lines[4:]))
    }
    assert wanted == published.TABLE_1
    assert list(published.METHODS.values()) == ROWS


def test_the_paper_s_third_table_is_the_paper_s():
    wanted = {"": (83.3, 43.2), "apr_p": (85.3, 44.1), "apr_s": (83.5, 45.0)}
    wanted |= {"apr_sp": (84.3, 45.7)}
    found = published.table_3()
    for row, (accuracy, robust) in wanted.items():
        cells = found[row or "standard"]
        assert (cells["accuracy"], cells["robust"]) == (accuracy, robust)
