"""Flags of the programs that aren't evaluations: each reaches what it is for."""

import ast
import os
import pathlib
import runpy

import pytest
from absl import flags
from ml_collections import config_flags

from apr_jax import job
from apr_jax.cli import corrupt, pack
from apr_jax.data import corrupted_sets, corrupted_verify
from apr_jax.data import pack as packing

ROOT = pathlib.Path(__file__).parents[1]
ABSL = {"help", "helpfull", "helpshort", "helpxml", "flagfile", "undefok"}
# Flag of ``launch.py`` -> its text, and what the job is given by which name.
OF_TRAIN = {
    "workdir": ("out", "workdir", "out"),
    "beside": ("a,b", "beside", ["a", "b"]),
    "quiet": ("true", "quiet", True),
    "dry_run": ("true", "dry_run", True),
    "coordinator": ("host:1", "coordinator", "host:1"),
    "processes": ("3", "process_count", 3),
    "process": ("2", "process_id", 2),
    "distributed": ("true", "distributed", True),
}
OF_CORRUPT = {
    "split": "val",
    "resize": "40",
    "data_dir": "sets",
    "image_size": "36",
    "corruptions": "fog,snow",
    "sets": "c",
    "examples": "7",
    "seed": "3",
    "frost_dir": "ice",
}
CHOSEN = {"examples": 7, "seed": 3, "frost_dir": "ice"}


@pytest.fixture
def own_flags(monkeypatch):
    """Flags apart from those of the process: a module may define them once more."""
    values = flags.FlagValues()
    monkeypatch.setattr(flags, "FLAGS", values)
    for module, names in (
        (flags, ("string", "list", "float", "integer", "multi_string", "enum", "bool")),
        (config_flags, ("config_file",)),
    ):
        for name in names:
            define = getattr(module, f"DEFINE_{name}")
            monkeypatch.setattr(
                module,
                f"DEFINE_{name}",
                lambda *a, define=define, **k: define(*a, **k, flag_values=values),
            )
    return values


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_training_hands_over_all_flags(own_flags, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    program = runpy.run_module("apr_jax.cli.train")
    known = set(own_flags) - ABSL
    given = {flag: text for flag, (text, *_) in OF_TRAIN.items()}
    assert {f for f in known if not f.startswith("config")} == {
        *given,
        "print_config",
        "only_check_args",
    } & known
    arguments = [f"--{flag}={text}" for flag, text in given.items()]
    own_flags(["launch.py", f"--config={ROOT / 'configs/quickstart.py'}", *arguments])
    seen = []
    monkeypatch.setattr(job, "main", lambda config, **named: seen.append(named))
    monkeypatch.setitem(program["main"].__globals__, "check", lambda: None)
    program["main"](["launch.py"])
    assert seen == [{name: value for _, name, value in OF_TRAIN.values()}]
    own_flags(["launch.py", "--print_config"])
    program["main"](["launch.py"])
    assert len(seen) == 1
    assert "model.name = 'wrn_10_1'" in capsys.readouterr().out


@pytest.mark.parametrize("verified", [False, True], ids=["write", "verify"])
def test_corrupting_hands_over_all_flags(own_flags, monkeypatch, verified):
    seen = []
    monkeypatch.setattr(corrupted_sets, "write", lambda *a, **k: seen.append((a, k)))
    monkeypatch.setattr(
        corrupted_verify, "compare", lambda *a, **k: seen.append((a, k)) or ()
    )
    monkeypatch.setattr(corrupt.process, "use_compile_cache", seen.append)
    monkeypatch.setattr(corrupt.process, "finish", lambda work: work())
    monkeypatch.setattr(corrupt, "open_network", lambda run: f"network of {run}")
    monkeypatch.setattr(corrupt.workdir, "open_run", lambda _: None)
    given = {"data": "cifar10"} | OF_CORRUPT
    if verified:
        own = {"verify": "official", "network": "RUN"}
    else:
        own = {"out": "made", "format": "npy", "quiet": "true", "stored_as": "jpeg"}
    words = ["c", *(f"--{k}={v}" for k, v in (given | own).items())]
    monkeypatch.setattr(corrupt.program, "run", lambda work: work(own_flags(words)))
    corrupt.main()
    cached, ((described, place, names), named) = seen
    assert cached == described
    assert (described.name, described.test_split) == ("cifar10", "val")
    assert (described.image_size, described.eval_resize) == (36, 40)
    assert described.data_dir == "sets"
    assert names == ("fog", "snow")
    if verified:
        assert place == pathlib.Path("official")
        assert named == CHOSEN | {"answer": "network of RUN"}
    else:
        assert place == pathlib.Path("made")
        assert named == CHOSEN | {"form": "npy", "stored_as": "jpeg", "quiet": True}
    both = {*OF_CORRUPT, "data", "verify", "network", "out", "format", "quiet"}
    assert set(own_flags) - ABSL - {"only_check_args"} == both | {"stored_as"}


OF_PACK = {
    "out": "made",
    "name": "small",
    "splits": "train,val",
    "shorter": "99",
    "quality": "77",
    "workers": "3",
    "quiet": "true",
}


@pytest.mark.parametrize("given", [OF_PACK, {"out": "made"}], ids=["all", "none"])
def test_packing_hands_over_all_flags(own_flags, monkeypatch, capsys, given):
    seen = []
    monkeypatch.setattr(
        packing, "write", lambda *a, **k: seen.append((a, k)) or pathlib.Path("a/b/c")
    )
    splits = ("train", "val") if given is OF_PACK else ("train",)
    monkeypatch.setattr(packing, "splits_of", {pathlib.Path("a/b/c"): splits}.get)
    monkeypatch.setattr(pack.process, "finish", lambda work: work())
    own = {"data": "some_set", "data_dir": "sets", "max_broken": "5"}
    words = ["c", *(f"--{k}={v}" for k, v in (own | given).items())]
    monkeypatch.setattr(pack.program, "run", lambda work: work(own_flags(words)))
    pack.main()
    (((described, place, name), named),) = seen
    assert (described.source, described.name) == ("tfds", "some_set")
    assert (described.data_dir, described.max_broken) == ("sets", 5)
    assert place == pathlib.Path("made")
    cores = os.cpu_count()
    if given is OF_PACK:
        expected = ("small", ["train", "val"], 99, 77, 3, True)
    else:
        expected = ("some_set_256", [], 256, 90, cores, False)
    keys = ("splits", "shorter", "quality", "workers", "quiet")
    assert (name, *(named[key] for key in keys)) == expected
    assert set(own_flags) - ABSL - {"only_check_args"} == {*own, *OF_PACK}
    trained = capsys.readouterr().err
    assert "--config.data.data_dir=a --config.data.name=b " in trained
    assert ("--config.data.test_split=val" in trained) == (given is OF_PACK)


# --- Programs of argparse -------------------------------------------------------------

PROGRAMS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "experiments").rglob("*.py")
    if "--" in path.read_text()
)


def options_of(tree):
    """The options that a module defines, by calls of ``add`` or in ``OPTIONS``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            texts = node.args if name in ("add", "add_argument") else []
        elif isinstance(node, ast.Dict):
            texts = [key for key in node.keys if key is not None]
        else:
            continue
        for text in texts:
            value = getattr(text, "value", None)
            if isinstance(value, str) and value.startswith("--"):
                yield value.removeprefix("--")


def attributes_read():
    for path in (ROOT / "experiments").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                yield path.relative_to(ROOT).as_posix(), node.attr


def test_every_option_of_the_experiments_is_read():
    """By its own program; by another one where a module shares options."""
    read: dict[str, set[str]] = {}
    for path, name in attributes_read():
        read.setdefault(path, set()).add(name)
    everywhere = set().union(*read.values())
    seen = 0
    for path in PROGRAMS:
        text = (ROOT / path).read_text()
        shared = "OPTIONS" in text or path.endswith(("common.py", "contest.py"))
        there = everywhere if shared else read.get(path, set())
        for option in options_of(ast.parse(text)):
            assert option in there, f"{path}: --{option} is never read"
            seen += 1
    assert seen > 60
