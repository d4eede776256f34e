"""Readers of a run: all of them leave it as it is, beside a writer, and locked up."""

import argparse
import importlib
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import threading
import types

import jax
import numpy as np
import pytest

from apr_jax import config as config_lib
from apr_jax import job, models
from apr_jax.cli import cache
from apr_jax.errors import ConfigError, UserError
from apr_jax.evaluate import card, clean, command, export
from apr_jax.evaluate import classifier as classifier_lib
from apr_jax.report import compare, page, run_view
from apr_jax.runs import checkpoint, records
from apr_jax.train import init_from
from experiments.hfc import networks as hfc_networks
from experiments.paper import networks as paper_networks
from experiments.tables import missing
from experiments.tables import page as tables_page
from tests import toy
from tests.train.test_loop import PLAIN

pytestmark = pytest.mark.usefixtures("_tiny_model")

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = [
    *("config.json", "classes.json", "facts.json", "results.jsonl", "metrics.jsonl"),
    *("watch.jsonl", "held_out.jsonl", "commands.jsonl", "examples.npz"),
]
CONTENTS = {
    "empty": b"",
    "garbage": b"\xff\xfe{]garbage\n",
    "a list": b"[1, 2]\n",
    "another object": b'{"step": 1, "extra": 3}\n',
    "a folder": None,
}


def damages():
    """Each file with each contents, by default with two that change with the file."""
    for place, name in enumerate(FILES):
        for number, contents in enumerate(CONTENTS):
            seldom = (number - place) % len(CONTENTS) not in (0, 3)
            marks = [pytest.mark.slow] if seldom else []
            yield pytest.param(name, contents, marks=marks)


# Settings of each evaluation that keep it short; "noise" stands for a file of images.
SETTINGS = {
    "adversarial": config_lib.Adversarial(attack="fgsm", examples=8, steps=1, batch=8),
    "clean": None,
    "corruption": config_lib.Corruption(
        corruptions=("brightness",), severities=(1,), examples=8
    ),
    "fourier": config_lib.Fourier(parts=("phase",), examples=8),
    "shift": config_lib.Shift(shift=("same=arrays:{labelled}",)),
    "ood": config_lib.Ood(out=("noise=arrays:{noise}",), scores=("msp",), examples=8),
}
# The modules that open runs, and where this file tries them.
OPENING = {
    "apr_jax/cli/cache.py": "OTHERS",
    "apr_jax/evaluate/elsewhere.py": "tests/evaluate/test_bring.py: of the zoo",
    "apr_jax/evaluate/export.py": "OTHERS",
    "apr_jax/cli/corrupt.py": "test_an_evaluation: by from_run alone",
    "apr_jax/cli/measure.py": "test_an_evaluation, test_the_card",
    "apr_jax/evaluate/card.py": "test_the_card",
    "apr_jax/evaluate/classifier.py": "test_an_evaluation",
    "apr_jax/evaluate/command.py": "test_an_evaluation",
    "apr_jax/evaluate/transfer.py": "test_an_evaluation: by from_run alone",
    "apr_jax/report/compare.py": "OTHERS",
    "apr_jax/report/export.py": "test_the_card",
    "apr_jax/report/run_view.py": "OTHERS",
    "apr_jax/runs/checkpoint.py": "test_an_evaluation",
    "apr_jax/runs/workdir.py": "test_an_evaluation",
    "apr_jax/train/hooks.py": "a run's own",
    "apr_jax/train/init_from.py": "OTHERS, test_an_evaluation",
    "apr_jax/train/plan.py": "a run's own",
    "apr_jax/zoo/__init__.py": "tests/test_zoo.py",
    "experiments/checks/attacks.py": "test_an_evaluation: by from_run alone",
    "experiments/checks/written.py": "tests/experiments/test_written.py: records alone",
    "experiments/hfc/networks.py": "OTHERS",
    "experiments/paper/networks.py": "OTHERS",
    "experiments/tables/missing.py": "OTHERS",
    "experiments/tables/page.py": "OTHERS",
    "experiments/zoo.py": "tests/test_zoo.py",
}
OPENS = re.compile(r"\b(from_run|open_run|read_config|Reader|Checkpoints|RunDir)\(")
WRITES = ("train/plan.py", "train/hooks.py", "runs/checkpoint.py")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    toy.write_arrays(folder)
    np.save(folder / "noise.npy", np.zeros((12, 8, 8, 3), np.uint8))
    return folder


@pytest.fixture(scope="module")
def finished(home):
    """A run with all that it can have, a half-written checkpoint and a damaged one."""
    root = home / "finished"
    changes = {"train__watch": ("bands",), "train__watch_examples": 8, **PLAIN}
    config = toy.config(home, optim__epochs=2.0, **changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "tiny", toy.TinyNet)
        assert job.run(config, root, quiet=True) is None
    for lock in root.glob(".lock*"):  # or nobody would see that it is opened
        lock.unlink()
    (root / "checkpoints" / "99.orbax-checkpoint-tmp").mkdir()
    (root / "checkpoints" / "99.orbax-checkpoint-tmp" / "half").write_text("half")
    newest = max(int(p.name) for p in (root / "checkpoints").glob("[0-9]*[0-9]"))
    for file in (root / "checkpoints" / str(newest)).rglob("d/*"):
        file.write_bytes(file.read_bytes()[:-9])
    with (root / "results.jsonl").open("a") as file:
        file.write('{"job": "cut off')
    return root


def traces(root):
    """All that a look could change: names, inodes, times, rights and bytes."""
    found = {}
    for path in [root, *sorted(root.rglob("*"))]:
        facts = path.lstat()
        own = (facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_mode)
        found[str(path.relative_to(root))] = (
            *own,
            path.read_bytes() if path.is_file() else None,
        )
    return found


def settings_of(name, home):
    found = SETTINGS[name]
    if name == "ood":
        out = tuple(spec.format(noise=home / "noise.npy") for spec in found.out)
        return config_lib.Ood(out=out, scores=found.scores, examples=found.examples)
    if name == "shift":
        images = np.load(home / "noise.npy")
        labels = np.arange(len(images)) % toy.CLASSES
        np.savez(home / "labelled.npz", images=images, labels=labels)
        return config_lib.Shift(
            shift=tuple(s.format(labelled=home / "labelled.npz") for s in found.shift)
        )
    return found


# --- Nothing changes ------------------------------------------------------------------


def test_every_reader_is_tried_here():
    """One that is added has to be named above, and to leave a run alone."""
    sources = [*(ROOT / "apr_jax").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")]
    text = {str(p.relative_to(ROOT)): p.read_text() for p in sources}
    assert {name for name, code in text.items() if OPENS.search(code)} == set(OPENING)
    assert set(config_lib.PARTS) == set(SETTINGS)
    writers = {name for name, code in text.items() if "Checkpoints(" in code}
    assert writers == {f"apr_jax/{name}" for name in WRITES}


@pytest.mark.parametrize("name", SETTINGS)
def test_an_evaluation(finished, home, tmp_path, name, caplog):
    """With records elsewhere it changes nothing of the run."""
    measure = importlib.import_module(f"apr_jax.evaluate.{name}").measure
    before = traces(finished)
    out = tmp_path / "out"
    command.run(finished, measure, settings_of(name, home), workdir=out, quiet=True)
    assert traces(finished) == before
    found = records.read(out / "results.jsonl")
    assert {r.job for r in found} == {f"evaluate.{name}"}
    assert "is damaged" in caplog.text
    # In the state before the damaged one, and the records say so.
    assert {r.step for r in found} == {7}


DECLARED = {
    "results.jsonl",
    "commands.jsonl",
    "report.html",
    "card.json",
    ".lock.measure",
}


def changed(before, after):
    names = {*before, *after}
    return {name for name in names if before.get(name) != after.get(name)} - {"."}


@pytest.mark.filterwarnings("ignore:.*left out line:UserWarning")
def test_the_card(finished, tmp_path):
    """It adds records to the run itself, and changes nothing else."""
    root = tmp_path / "run"
    shutil.copytree(finished, root)
    before = traces(root)
    card.run([root], {"parts": ("clean",)}, quiet=True)
    assert changed(before, traces(root)) <= DECLARED
    before = traces(root)
    measure = importlib.import_module("apr_jax.evaluate.clean").measure
    command.run(root, measure, None, quiet=True)
    assert changed(before, traces(root)) <= DECLARED


OTHERS = {
    "the page": lambda root, out: page.write(out / "page.html", [root]),
    "a comparison": lambda root, out: compare.columns(compare.open_runs([root])),
    "a list of what is cached": lambda root, out: cache.items(out, [root]),
    "a fine-tuning": lambda root, out: init_from.read_run(
        root, run_view_config(root), tuple("0123")
    ),
    "the view": lambda root, out: run_view.view(root),
    "a figure's network": lambda root, out: paper_networks.one(
        types.SimpleNamespace(options=argparse.Namespace(standard=root)), "standard"
    ),
    "an export": lambda root, out: export.run(root, out / "net.stablehlo"),
    "HFC's network": lambda root, out: hfc_networks.given(None, str(root)),
    "a table's numbers": lambda root, out: tables_page.records(root),
    "a table's speeds": lambda root, out: missing.speed_of([root]),
    "a table's search": lambda root, out: missing.measured(
        "1", run_view_config(root), root
    ),
}


def run_view_config(root):
    return classifier_lib.from_run(root).config


@pytest.mark.filterwarnings("ignore:.*left out line:UserWarning")
@pytest.mark.parametrize("name", OTHERS)
def test_another_reader(finished, tmp_path, name):
    before = traces(finished)
    OTHERS[name](finished, tmp_path)
    assert traces(finished) == before


# --- Without permission ---------------------------------------------------------------

# Root may do all; without the capabilities 1 to 3, and a new start, rights hold for it.
CHILD = f"""
import os, pathlib, sys
if os.geteuid() == 0 and "WITHOUT_RIGHTS" not in os.environ:
    import ctypes
    for number in (1, 2, 3):
        assert ctypes.CDLL(None).prctl(24, number, 0, 0, 0) == 0
    os.environ["WITHOUT_RIGHTS"] = "1"
    os.execv(sys.executable, sys.orig_argv)
sys.path.insert(0, {str(ROOT)!r})
from apr_jax import job, models, parallel, process
from apr_jax.evaluate import card, classifier, clean, command
from apr_jax.report import page
from apr_jax.runs import checkpoint
from apr_jax.train import loop
from tests import toy
from tests.train.test_loop import PLAIN
models.MODELS["tiny"] = toy.TinyNet
root, out, home = map(pathlib.Path, sys.argv[1:4])
places = {{"cache_dir": str(out / "cache")}}
work = lambda: exec(sys.argv[4], globals())
process.finish(work)
"""


@pytest.fixture
def locked(finished, tmp_path):
    """A run that its owner can't change, and another folder."""
    root, out = tmp_path / "locked", tmp_path / "out"
    shutil.copytree(finished, root)
    shutil.rmtree(root / "checkpoints" / "12")
    out.mkdir()
    for path in [*root.rglob("*"), root]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield root, out
    for path in [root, *root.rglob("*")]:
        path.chmod(stat.S_IRWXU)


def as_somebody(root, out, home, code, status=0):
    """Runs code as a user who may do what files allow, and returns what it says."""
    command_line = [sys.executable, "-c", CHILD, root, out, home, code]
    environment = dict(os.environ, JAX_PLATFORMS="cpu")
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    done = subprocess.run(
        list(map(str, command_line)),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    said = done.stdout + done.stderr
    assert done.returncode == status, said
    assert "Traceback" not in said
    return said


@pytest.mark.slow
def test_a_run_that_can_not_be_written_is_read(locked, home):
    root, out = locked
    before = traces(root)
    as_somebody(
        root,
        out,
        home,
        "command.run(root, clean.measure, None, workdir=out / 'new', places=places,"
        "quiet=True); page.write(out / 'page.html', [root])",
    )
    assert records.read(out / "new" / "results.jsonl")
    assert (out / "page.html").exists()
    assert traces(root) == before


REFUSED = {
    "an evaluation": "command.run(root, clean.measure, None, places=places)",
    "the card": "card.run([root], {'parts': ('clean',)}, places=places)",
    "training": "job.run(toy.config(home, optim__epochs=2.0, train__watch=('bands',),"
    "train__watch_examples=8, data__cache_dir=str(out / 'cache'), **PLAIN), root)",
}


@pytest.mark.slow
@pytest.mark.parametrize("what", REFUSED)
def test_what_has_to_write_says_that_it_can_not(locked, home, what):
    root, out = locked
    before = traces(root)
    said = as_somebody(root, out, home, REFUSED[what], status=2)
    assert f"workdir is {str(root)!r}, which can't be written" in said
    assert traces(root) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "part", ["7", "7/state", "7/about", "7/about/metadata", "7/state/_METADATA", "."]
)
@pytest.mark.parametrize("kind", ["Reader(ck, ", "Checkpoints(ck, keep=2, "])
def test_a_file_without_permission_is_named(finished, home, tmp_path, part, kind):
    """And is neither damaged nor absent, for readers and for training."""
    root, out = tmp_path / "shut", tmp_path / "out"
    shutil.copytree(finished, root)
    shutil.rmtree(root / "checkpoints" / "12")
    out.mkdir()
    shut = root / "checkpoints" / part
    shut.chmod(0)
    code = (
        "from apr_jax.evaluate.classifier import *; ck = root / 'checkpoints';"
        "from apr_jax.train.state import state_of;"
        "c = workdir.open_run(root)[1]; net = network.make_model(c, num_classes=4);"
        "like = jax.eval_shape(lambda: state_of(c, net));"
        f"checkpoint.{kind}owner=config_lib.config_hash(c)).restore(like)"
    )
    try:
        said = as_somebody(root, out, home, code, status=2)
    finally:
        shut.chmod(0o755)
    assert re.search(rf"can't (read|open) {re.escape(str(shut))}", said), said
    assert "Permission denied" in said
    left = {p.name for p in (root / "checkpoints").iterdir() if "tmp" not in p.name}
    assert left == {"7"}


# --- Beside a writer ------------------------------------------------------------------


def tree(step):
    values = np.arange(512, dtype=np.float32).reshape(16, 32) + step
    return {"params": {"kernel": values}, "step": np.asarray(step, np.int32)}


def read_beside_a_writer(folder, saves, keep):
    """Reads again and again while each state is saved; returns the steps read."""
    writer = checkpoint.Checkpoints(folder, keep=keep, owner="me")
    writer.save(1, tree(1))
    writer.wait()
    failed = []

    def write():
        try:
            for step in range(2, saves + 1):
                writer.save(step, tree(step))
            writer.close()
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    steps = []
    try:
        while thread.is_alive() or not steps:
            reader = checkpoint.Reader(folder, owner="me")
            step, state = reader.restore(tree(0))
            reader.close()
            jax.tree.map(np.testing.assert_array_equal, state, tree(step))
            steps.append(step)
    finally:
        thread.join()
    assert not failed
    assert steps == sorted(steps)
    assert not list(folder.glob("damaged-*"))
    assert checkpoint.Reader(folder, owner="me").steps[-1] == saves
    return steps


@pytest.mark.parametrize("keep", [1, 2])
def test_readers_beside_a_writer(tmp_path, keep, caplog):
    assert len(set(read_beside_a_writer(tmp_path / "ck", 20, keep))) > 1
    assert "damaged" not in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("keep", [1, 3])
def test_readers_beside_a_writer_for_200_saves(tmp_path, keep, caplog):
    assert len(set(read_beside_a_writer(tmp_path / "ck", 200, keep))) > 20
    assert "damaged" not in caplog.text


TRAINING = """
import pathlib, sys
from apr_jax import job, models
from apr_jax.cli import cache
from apr_jax.evaluate import export
from tests import toy
models.MODELS["tiny"] = toy.TinyNet
changes = dict(optim__epochs=34.0, checkpoint__every_steps=1, checkpoint__keep=1)
settings = toy.settings(pathlib.Path(sys.argv[1]), **changes)
job.main(settings, workdir=sys.argv[2], quiet=True)
"""


@pytest.mark.slow
def test_evaluations_beside_a_training_that_saves_every_step(home, tmp_path, caplog):
    """204 saves; the training ends well, and each evaluation finds a whole state."""
    root = tmp_path / "run"
    training = toy.start("-c", TRAINING, home, root)
    steps = []
    while training.poll() is None:
        # Names of half-written ones begin with a number, too.
        if not checkpoint.Reader(root / "checkpoints", owner="").steps and not steps:
            continue
        network = classifier_lib.from_run(root)
        leaves = jax.tree.leaves(network.variables)
        assert all(np.isfinite(leaf).all() for leaf in leaves)
        steps.append(network.step)
    assert training.returncode == 0
    assert len(set(steps)) > 5
    assert steps == sorted(steps)
    assert [p.name for p in (root / "checkpoints").iterdir()] == ["204"]
    assert "damaged" not in caplog.text


@pytest.mark.filterwarnings("ignore:.*left out line")
def test_a_run_beside_itself_and_a_wrong_one(finished, tmp_path):
    """One column; and what can't be shown is found before anything is measured."""
    root = tmp_path / "run"
    shutil.copytree(finished, root)
    page.write(tmp_path / "page.html", [root, root / ".." / "run"])
    assert f"({root})" not in (tmp_path / "page.html").read_text()
    measure = lambda *_: pytest.fail("measured")
    with pytest.raises(ConfigError, match="is not a run"):
        command.run(root, measure, None, beside=[tmp_path / "none"], quiet=True)
    with pytest.raises(ConfigError, match=r"train\.devices is -1"):
        command.run(root, measure, None, devices=-1, quiet=True)


@pytest.mark.filterwarnings("ignore:.*left out line")
@pytest.mark.parametrize(("name", "contents"), list(damages()))
def test_a_file_that_is_not_as_it_was_written_is_an_error_that_names_it(
    finished, tmp_path, name, contents
):
    """Or passed over, where what it has is not needed."""
    root = tmp_path / "run"
    shutil.copytree(finished, root)
    path = root / name
    path.unlink(missing_ok=True)
    if CONTENTS[contents] is None:
        path.mkdir()
    else:
        path.write_bytes(CONTENTS[contents])
    said = str(path)
    try:
        command.run(root, clean.measure, None, quiet=True)
    except UserError as error:
        said = str(error)
    named = str(root) in said and name in said
    assert named or "the configuration" in said
    assert "\n" not in said
