"""Writes what the README and the documentation say of runs anew, from their records.

    python -m experiments.checks.written
    python -m experiments.checks.written --check    # changes nothing; 1 if it would

Between "<!-- runs: NAMES -->", "<!-- runs: NAMES; QUESTIONS -->" or "<!-- runs: NAMES;
QUESTIONS; METHODS -->" and "<!-- end -->" stands a table of the runs below
``experiments/results``, or in the zoo, a column for each method that has records, of
all or of those that are named; between "<!-- = RUN QUESTION -->" and "<!-- end -->" one
number in a sentence; between "<!-- search: NAME -->" and "<!-- end -->" the runs of
``experiments.tables search`` whose records lie there, the best first; what a row had
beside its own settings stands behind an "@" in the name of its file.
"""

import argparse
import collections
import dataclasses
import functools
import pathlib
import re
import sys
from collections.abc import Sequence

import numpy as np

from apr_jax.config import CORRUPTIONS
from apr_jax.gates import places
from apr_jax.runs import records as records_lib
from apr_jax.runs import workdir
from apr_jax.runs.records import Record
from experiments.tables import page as page_lib
from experiments.tables.cells import held_out_cells

ROOT = pathlib.Path(__file__).resolve().parents[2]
RESULTS = ROOT / "experiments" / "results"
PAGES = ("README.md", "docs/results.md")
METHODS = {"standard": "standard", "apr_p": "APR-P", "apr_s": "APR-S"}
METHODS["apr_sp"] = "APR-SP"
# Of which a table names those that it is of.
OTHERS = {
    "standard_hard_labels": "standard, labels not smoothed",
    "apr_sp_hard_labels": "APR-SP, labels not smoothed",
}
_TABLE = re.compile(
    r"(<!-- runs: ([\w, ]+?)(?:; ([\w, ]+?))?(?:; ([\w, ]+?))? -->\n)"
    r".*?(<!-- end -->)",
    re.S,
)
_SEARCH = re.compile(r"(<!-- search: (\w+) -->\n).*?(<!-- end -->)", re.S)
_NUMBER = re.compile(r"(<!-- = (\w+) (\w+) -->)[^<]*(<!-- end -->)")


@dataclasses.dataclass(frozen=True)
class Question:
    """A number that is asked of runs: how it reads, and which record has it.

    Attributes:
        asked: for a reader; "{n}" becomes the number of images.
        job, metric, split: of the record.
        of: the record that says the number of images, if it isn't that one: its split.
        right: whether one less the number is shown, as accuracies are errors here.
    """

    asked: str
    job: str
    metric: str
    split: str
    of: str = ""
    right: bool = False


QUESTIONS = {
    "clean": Question("`test`", "clean", "error", "test"),
    "shifted": Question("`test_shifted`", "clean", "error", "test_shifted"),
    "mean": Question(
        "15 corruptions × 5, {n} images each",
        "corruption",
        "error",
        "mean",
        "gaussian_noise/1",
    ),
    "mean14": Question(
        "14 corruptions × 5, {n} images each",
        "corruption",
        "error",
        "mean of 14",
        "gaussian_noise/1",
    ),
    "auroc": Question(
        "AUROC, mean of nine out sets, maximum logit", "ood", "max_logit.auroc", "all"
    ),
    "c_bar": Question(
        "C-bar, 10 other corruptions × 5, {n} images each",
        "corruption",
        "error",
        "mean c_bar",
        "blue_noise_sample/1",
    ),
    "ece": Question("calibration error (ECE) on `test`", "clean", "ece", "test"),
    "cinic": Question(
        "the same classes in {n} ImageNet photographs (CINIC-10)",
        "shift",
        "error",
        "cinic10_imagenet",
    ),
    "msp": Question(
        "AUROC, mean of six out sets, maximum softmax probability",
        "ood",
        "msp.auroc",
        "all",
    ),
    "logit": Question(
        "AUROC, mean of six out sets, maximum logit", "ood", "max_logit.auroc", "all"
    ),
    "vim": Question("AUROC, mean of six out sets, ViM", "ood", "vim.auroc", "all"),
    "scaled": Question(
        "calibration error, a temperature fitted to half of `test`",
        "clean",
        "ece_scaled",
        "test",
    ),
    "linf": Question(
        "AutoAttack, {n} images, L-infinity 2/255",
        "adversarial",
        "robust_accuracy",
        "linf/0.00784314",
        right=True,
    ),
    "l2": Question(
        "AutoAttack, {n} images, L2 0.25",
        "adversarial",
        "robust_accuracy",
        "l2/0.25",
        right=True,
    ),
    "waves": Question(
        "mean over the Fourier heatmap, {n} images", "fourier", "heatmap_error", "test"
    ),
    "phase": Question(
        "phase of one class, amplitude of another: the answer follows the phase",
        "fourier",
        "follows_phase",
        "test",
    ),
    "amplitude": Question(
        "the same: it follows the amplitude",
        "fourier",
        "follows_amplitude",
        "test",
    ),
}
# Means over the corruptions of a kind, by their names in sentences.
KINDS = {
    "noise": CORRUPTIONS[:3],
    "blur": CORRUPTIONS[3:7],
    "weather": CORRUPTIONS[7:11],
    "digital": CORRUPTIONS[11:],
}


@dataclasses.dataclass(frozen=True)
class Runs:
    """Runs that differ in their method alone: ``results/NAME_METHOD``, or the zoo's."""

    what: str
    command: str
    questions: Sequence[str]


RUNS = {
    "quickstart": Runs(
        "quick start, 2.5 epochs",
        "the block at the top",
        ("clean", "shifted", "mean14"),
    ),
    "cifar10_small": Runs(
        "CIFAR-10, WRN-10-1, 12 epochs",
        "`launch.py --config configs/cifar10_small.py:METHOD`, then the card as below",
        ("clean", "mean", "auroc", "linf", "l2", "waves", "phase", "amplitude"),
    ),
    "cifar10_fast": Runs(
        "CIFAR-10, `airbench94`, 10 epochs, bfloat16",
        "`launch.py --config configs/cifar10_fast.py:METHOD`",
        ("clean", "mean"),
    ),
    "cifar10_airbench94": Runs(
        "CIFAR-10, `airbench94`, 16 epochs, bfloat16",
        "`experiments.tables 1 --budget medium`; [the zoo](zoo.md) has them",
        ("clean", "mean", "c_bar", "cinic", "ece", "msp", "phase", "amplitude"),
    ),
}


@functools.cache
def found(run: str) -> dict[tuple[str, str, str], Record]:
    """The last record of each (job, metric, split) of a run that is kept here."""
    path = RESULTS / run / "results.jsonl"
    if not path.exists():
        path = workdir.RunDir(places.ZOO_FOLDER / run).results
    kept = records_lib.read(path) if path.exists() else []
    return {(r.job.removeprefix("evaluate."), r.metric, r.split): r for r in kept}


def cell(run: str, question: Question) -> str:
    """A number in percent with its interval; "" where it wasn't measured."""
    record = found(run).get((question.job, question.metric, question.split))
    if record is None:
        return ""
    ends = [record.value]
    if record.low is not None and record.high is not None:
        ends += [record.low, record.high]
    if question.right:
        ends = [1 - end for end in (ends[0], *ends[:0:-1])]
    value, *interval = (f"{100 * end:.1f}" for end in ends)
    return f"{value} ({' to '.join(interval)})" if interval else value


def number(run: str, asked: str) -> str:
    """A number of a sentence, in percent: a question's, or that of a kind."""
    if asked in KINDS:
        splits = [f"{name}/{s}" for name in KINDS[asked] for s in range(1, 6)]
        errors = [found(run)["corruption", "error", split].value for split in splits]
        return f"{100 * np.mean(errors):.1f}"
    return cell(run, QUESTIONS[asked]).partition(" ")[0]


def table(
    names: Sequence[str], questions: Sequence[str] = (), methods: Sequence[str] = ()
) -> str:
    """Markdown: a row a question; what each run is only where there are several."""
    wanted = methods or METHODS
    methods = [m for m in wanted if any(found(f"{name}_{m}") for name in names)]
    several = len(names) > 1
    heads = ["run", "command", "measured on"] if several else ["measured on"]
    heads += [(METHODS | OTHERS)[method] for method in methods]
    lines = [heads, ["---"] * len(heads)]
    for name in names:
        what = collections.deque([RUNS[name].what, RUNS[name].command])
        for asked in questions or RUNS[name].questions:
            question = QUESTIONS[asked]
            cells = [cell(f"{name}_{method}", question) for method in methods]
            if not any(cells):
                continue
            text = question.asked
            if "{n}" in text:
                of = (question.job, question.metric, question.of or question.split)
                there = [found(f"{name}_{m}") for m in methods]
                sizes = {own[of].n for own in there if of in own}
                if len(sizes) > 1:
                    raise ValueError(f"{name}, {asked}: on {sorted(sizes)} images")
                text = text.format(n=f"{sizes.pop():,}")
            first = [what.popleft() if what else "" for _ in range(2 * several)]
            lines.append([*first, text, *cells])
    rows = (f"| {' | '.join(line)} |\n" for line in lines)
    return re.sub(r"\|  (?=\|)", "| ", "".join(rows))


def searched(name: str) -> str:
    """Markdown: the methods of a search, and their errors on held-out images."""
    rows, seeds = [], set()
    for path in (RESULTS / name).glob("*.jsonl"):
        run = page_lib.read_kept(path)
        _, at, beside = path.stem.rpartition("_s")[0].partition("@")
        label = run.label + at.replace("@", ", ") + beside
        rows.append((held_out_cells(run.records), label, f"{run.epochs:g}"))
        seeds.add(run.seed)
    if len(seeds) > 1:
        raise ValueError(f"{name} has several seeds")
    rows.sort(key=lambda row: row[0][""])
    heads = ["method", "epochs", "mean of the 14", "C-bar's ten", "the other four"]
    lines = [[*heads, "clean"], ["---"] * (len(heads) + 1)]
    for cells, label, epochs in rows:
        shown = (cells[part] for part in ("", "c_bar", "extra", "clean error"))
        lines.append([label, epochs, *(f"{100 * value:.1f}" for value in shown)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def written(text: str) -> str:
    """A page with its tables and numbers as the records have them."""
    names = lambda found: [name.strip() for name in (found or "").split(",") if name]
    parts = lambda m: (names(m[2]), names(m[3]), names(m[4]))
    text = _TABLE.sub(lambda m: m[1] + table(*parts(m)) + m[5], text)
    text = _SEARCH.sub(lambda m: m[1] + searched(m[2]) + m[3], text)
    return _NUMBER.sub(lambda m: m[1] + number(m[2], m[3]) + m[4], text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the pages, or says which of them the records contradict."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args(arguments).check
    others = []
    for page in PAGES:
        text = (ROOT / page).read_text()
        if (new := written(text)) != text:
            others.append(page)
            if not check:
                (ROOT / page).write_text(new)
    for page in others:
        print(f"{page} {'is not' if check else 'was not'} what the records say")
    sys.exit(int(check and bool(others)))


if __name__ == "__main__":
    main()
