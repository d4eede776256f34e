"""Every flag of the evaluations' command lines does what it says, without measuring."""

import importlib
import pathlib
import sys
import types

import pytest
from absl import flags
from ml_collections import config_flags

from apr_jax import config as config_lib
from apr_jax import parallel, settings
from apr_jax.cli import elsewhere, measure
from apr_jax.errors import ConfigError
from apr_jax.evaluate import card, command
from apr_jax.report import page
from tests import toy

# A flag's text, and the value that it stands for.
SHARED = {
    "workdir": ("out", pathlib.Path("out")),
    "beside": ("a,b", [pathlib.Path("a"), pathlib.Path("b")]),
    "devices": ("3", 3),
    "quiet": ("true", True),
}
KEEPING = {"save_predictions": ("true", True)}
PLACES = {"data_dir": ("d", "d"), "cache_dir": ("c", "c")}
OUT = pathlib.Path("out")
# Of a network from elsewhere, in the place of a run.
FOREIGN = {
    "model": "net.py:make",
    "data": "cifar10",
    "classes": "10",
    "weights": "some.pth",
    "trust_remote_code": "true",
}


def text_of(leaf):
    """Another value of a setting, as a command line says it, and what it is."""
    if leaf.about.choices:
        chosen = leaf.about.choices[-1]
        if isinstance(leaf.value, tuple):
            return str(chosen), (chosen,)
        return chosen, chosen
    if isinstance(leaf.value, tuple):
        if leaf.kind == tuple[float, ...]:
            return "1/4,2", (0.25, 2.0)
        return ("x", ("x",)) if leaf.about.repeated else ("x,y", ("x", "y"))
    if isinstance(leaf.value, str):
        return "pgd", "pgd"
    number = leaf.value / 2 if isinstance(leaf.value, float) else leaf.value + 1
    number = number or 0.5
    return repr(number), number


@pytest.fixture
def command_line(monkeypatch):
    """Runs a command up to where it hands over what its flags say."""
    monkeypatch.setattr(flags, "FLAGS", flags.FlagValues())
    for name in ("string", "list", "float", "integer", "multi_string", "enum", "bool"):
        define = getattr(flags, f"DEFINE_{name}")
        monkeypatch.setattr(
            flags,
            f"DEFINE_{name}",
            lambda *a, define=define, **k: define(*a, **k, flag_values=flags.FLAGS),
        )
    file = config_flags.DEFINE_config_file
    monkeypatch.setattr(
        config_flags,
        "DEFINE_config_file",
        lambda *a, **k: file(*a, **k, flag_values=flags.FLAGS),
    )
    monkeypatch.setattr(measure.process, "finish", lambda work: work())
    for where, check in (
        (measure.workdir, "check_measured"),
        (measure.workdir, "check_beside"),
        (measure.workdir, "read_class_names"),
        (elsewhere, "_check"),
    ):
        monkeypatch.setattr(where, check, lambda *_, **__: None)
    opened = lambda root: (None, types.SimpleNamespace(eval=config_lib.Eval()))
    monkeypatch.setattr(measure.workdir, "open_run", opened)

    def call(name, *arguments):
        seen = []
        module = card if name == "card" else command
        monkeypatch.setattr(
            module, "run", lambda *given, **named: seen.append((given, named))
        )
        monkeypatch.setattr(
            measure.program, "run", lambda w: w(flags.FLAGS(["program", *arguments]))
        )
        monkeypatch.setattr(sys.modules["__main__"], "__doc__", None)
        measure.main(name)
        return seen[0]

    return call


def test_every_part_has_its_command():
    assert tuple(measure.PARTS) == config_lib.PARTS


@pytest.mark.parametrize("name", measure.PARTS)
def test_a_command_hands_over_all_flags(command_line, name):
    cls = measure.PARTS[name]
    leaves = list(settings.leaves(cls())) if cls else []
    wanted = {leaf.name: text_of(leaf) for leaf in leaves}
    every = SHARED | PLACES | KEEPING | wanted
    given = {flag: text for flag, (text, _) in every.items()}
    (what, by, built), named = command_line(
        name,
        "RUN",
        *(f"--{flag}={text}" for flag, text in given.items()),
    )
    by_name = importlib.import_module(f"apr_jax.evaluate.{name}").measure
    assert (what, by) == (pathlib.Path("RUN"), by_name)
    for flag, (_, value) in SHARED.items():
        assert named[flag] == value, flag
    assert named["places"] == {flag: value for flag, (_, value) in PLACES.items()}
    assert named["keeping"] == {"save_predictions": True}
    for leaf in leaves:
        assert getattr(built, leaf.name) == wanted[leaf.name][1], leaf.name
        assert getattr(built, leaf.name) != leaf.value
    known = set(flags.FLAGS) - {"help", "helpfull", "helpshort", "helpxml"}
    absl = {"flagfile", "undefok", "only_check_args"}
    known = {f for f in known if not f.startswith("config")} - absl
    assert known == {*given, *FOREIGN}


@pytest.mark.parametrize("name", ["card", "ood"])
def test_a_network_from_elsewhere_stands_for_a_run(command_line, name):
    given = [f"--{flag}={text}" for flag, text in FOREIGN.items()]
    handed, named = command_line(name, *given, "--workdir=out")
    wanted = {"model": "net.py:make", "source_of_data": "cifar10", "classes": 10}
    wanted |= {"weights": "some.pth", "trust_remote_code": True}
    if name == "card":
        assert (handed[0], named["foreign"], named["out"]) == ([], wanted, OUT)
    else:
        assert (handed[0], named["workdir"]) == (wanted, OUT)


@pytest.mark.parametrize("name", FOREIGN)
def test_a_network_from_elsewhere_needs_data(command_line, name):
    given = () if name == "model" else ("RUN",)
    with pytest.raises(ConfigError, match="--model"):
        command_line("ood", *given, f"--{name}={FOREIGN[name]}")


def test_a_command_without_flags_measures_as_settings_say(command_line):
    (_, _, built), named = command_line("ood", "RUN")
    assert built == config_lib.Ood()
    assert named == {
        "values": None,
        "workdir": None,
        "places": {},
        "keeping": {},
        "beside": [],
        "devices": 0,
        "quiet": False,
    }


def test_the_card_hands_over_all_flags(command_line):
    leaves = list(settings.leaves(config_lib.Eval()))
    wanted = {leaf.name: text_of(leaf) for leaf in leaves}
    wanted |= {"page": ("p.html", pathlib.Path("p.html"))}
    shared = {flag: SHARED[flag] for flag in ("devices", "quiet")}
    given = {flag: text for flag, (text, _) in (shared | PLACES | wanted).items()}
    (roots, changes), named = command_line(
        "card",
        "ONE",
        "OTHER",
        *(f"--{flag}={text}" for flag, text in given.items()),
    )
    assert roots == [pathlib.Path("ONE"), pathlib.Path("OTHER")]
    assert named["target"] == pathlib.Path("p.html")
    assert (named["devices"], named["quiet"]) == (3, True)
    assert named["places"] == {"data_dir": "d", "cache_dir": "c"}
    for leaf in leaves:
        found = changes
        for part in leaf.name.split("."):
            found = found[part]
        assert found == wanted[leaf.name][1], leaf.name


def test_what_a_command_does_with_them(tmp_path, monkeypatch):
    """Places for the data, devices for the measurement, runs beside it on the page."""
    config = toy.config(tmp_path)
    drawn, measured = [], []
    monkeypatch.setattr(command.workdir_lib, "check_beside", lambda *_: None)
    monkeypatch.setattr(
        page, "write", lambda target, roots: drawn.append((target, roots))
    )
    network = types.SimpleNamespace(config=config, class_names=("a",))

    def opened(what, values, workdir, places):
        measured.append((what, values, workdir, places))
        return network, workdir or what

    monkeypatch.setattr(command, "_open", opened)
    monkeypatch.setattr(command.workdir_lib, "claim", lambda *_, **__: None)
    monkeypatch.setattr(
        command, "keep", lambda place, bound, context: measured.append(bound(context))
    )
    monkeypatch.setattr(parallel, "declare_cpu_devices", measured.append)
    run, out = tmp_path / "run", tmp_path / "out"
    command.run(
        run,
        lambda classifier, chosen, context: (classifier, chosen, context),
        "settings",
        workdir=out,
        places={"data_dir": "d"},
        beside=[tmp_path / "a", tmp_path / "b"],
        devices=2,
        quiet=True,
    )
    declared, (what, _, workdir, places), (classifier, chosen, context) = measured
    assert (declared, what, workdir, places) == (2, run, out, {"data_dir": "d"})
    assert (classifier, chosen) == (network, "settings")
    assert context.layout.count == 2
    assert context.quiet
    ((target, roots),) = drawn
    assert target.parent == out
    assert roots == [out, tmp_path / "a", tmp_path / "b"]
