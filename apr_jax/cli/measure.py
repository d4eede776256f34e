"""The command lines of the evaluations, up to where they measure.

What flags say by themselves is checked here, before JAX loads: a mistake answers at
once.
"""

import ast
import importlib
import importlib.util
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import app, flags
from ml_collections import config_flags

from apr_jax import config as config_lib
from apr_jax import process, settings
from apr_jax.cli import elsewhere, program
from apr_jax.errors import ConfigError
from apr_jax.gates import places as places_lib
from apr_jax.runs import files, workdir

# Name of a part -> the dataclass of its settings.
PARTS: dict[str, type | None] = {
    "clean": None,
    "corruption": config_lib.Corruption,
    "shift": config_lib.Shift,
    "ood": config_lib.Ood,
    "adversarial": config_lib.Adversarial,
    "fourier": config_lib.Fourier,
}
NAMES = ("card", *PARTS)


def main(name: str) -> None:
    """Runs one of ``NAMES`` as a program, ``apr_jax.evaluate.NAME``."""
    sys.modules["__main__"].__doc__ = _about(name)
    work = _card() if name == "card" else _part(name)
    program.run(work)


def _part(name: str) -> Callable[[Sequence[str]], None]:
    """Defines the flags of a part; returns what follows once they are parsed."""
    config = config_flags.DEFINE_config_file(
        "config", None, "For a file of weights: names the network and the data."
    )
    out = flags.DEFINE_string(
        "workdir", None, "Where records and report go; a run's own directory if unset."
    )
    beside = flags.DEFINE_list("beside", [], "Finished runs to show beside this one.")
    shared = _define_shared("config", "workdir", "beside")
    places = _define_places()
    only = ("save_predictions",)
    keeping = settings.define_flags(config_lib.Eval, defaults=False, only=only)
    brought = elsewhere.define_measured()
    cls = PARTS[name]
    values = settings.define_flags(cls) if cls else dict

    def work(argv: Sequence[str]) -> None:
        if len(argv) != (1 if flags.FLAGS["model"].value else 2):
            raise app.UsageError(
                "give one run directory, one file of weights, or --model FILE.py alone"
            )

        def run() -> None:
            what = brought() or places_lib.run(argv[1], "the run")
            root = places_lib.anywhere(out.value, "--workdir") if out.value else None
            others = [places_lib.run(run, "--beside") for run in beside.value]
            built = settings.build(cls(), values()) if cls else None
            given = {"places": places(), "keeping": keeping(), **shared()}
            if not isinstance(what, Mapping):
                workdir.check_measured(what, root, configured=config.value is not None)
                workdir.check_beside(root or what, others)
            measured = _module(name)
            from apr_jax.evaluate import command

            command.run(
                what,
                measured.measure,
                built,
                values=config.value,
                workdir=root,
                beside=others,
                **given,
            )

        process.finish(run)

    return work


def _card() -> Callable[[Sequence[str]], None]:
    """Defines the flags of the card; returns what follows once they are parsed."""
    target = flags.DEFINE_string(
        "page", None, "Where the page goes; report.html of the first run if unset."
    )
    out = flags.DEFINE_string(
        "workdir",
        None,
        "Where records of one network go; if unset a run's own directory, "
        "runs/zoo/NAME or, for --model, runs/MODEL_DATA.",
    )
    shared = _define_shared("page", "workdir")
    places = _define_places()
    brought = elsewhere.define_measured()
    changes = settings.define_flags(config_lib.Eval, defaults=False)

    def work(argv: Sequence[str]) -> None:
        if len(argv) < 2 and not flags.FLAGS["model"].value:
            raise app.UsageError(
                "give one run directory or several, or --model FILE.py"
            )

        def run() -> None:
            foreign = brought()
            page = places_lib.anywhere(target.value, "--page") if target.value else None
            root = places_lib.anywhere(out.value, "--workdir") if out.value else None
            roots = [places_lib.run(root, "the run") for root in argv[1:]]
            named = len({place.resolve() for place in roots})
            if root is not None and foreign is None and named > 1:
                raise ConfigError(
                    f"--workdir is {out.value!r}, where records of one network go, but "
                    f"{named} runs are named; leave it out, or measure one"
                )
            asked = changes()
            wanted = {"parts": config_lib.PARTS, **asked}
            given = {"places": places(), "foreign": foreign, **shared()}
            shown = [] if asked else list(filter(workdir.is_reduced, roots))
            if shown and len(shown) == len(roots) and foreign is None:
                _check_nothing_is_asked(argv[1], {**given["places"], **shared()})
            given["shown"] = shown
            for place in roots:
                opened, config = workdir.open_run(place)
                workdir.read_class_names(opened)
                settings.build(config.eval, wanted, "eval.")
            if foreign is not None:
                settings.build(config_lib.Eval(), wanted, "eval.")
            if page is not None:
                files.check_target(page, "--page")
            _module("card").run(roots, wanted, target=page, out=root, **given)

        process.finish(run)

    return work


def _check_nothing_is_asked(name: str, given: Mapping[str, Any]) -> None:
    """Raises ConfigError for flags of a measurement where none is made."""
    for flag in ("data_dir", "cache_dir", "devices"):
        if given.get(flag):
            raise ConfigError(
                f"--{flag} is for measuring, and of {name} the recorded card is shown; "
                f"say what to measure: --parts {','.join(PARTS)}, or some of them"
            )


def _define_shared(*listed: str) -> Callable[[], dict[str, Any]]:
    """Flags that every evaluation has; lists them and others in ``--help``."""
    devices = flags.DEFINE_integer("devices", 0, "How many; 0 as in training.")
    quiet = flags.DEFINE_bool("quiet", False, "No progress bar.")
    settings.list_in_help(*listed, "devices", "quiet")

    def given() -> dict[str, Any]:
        if devices.value < 0:
            raise ConfigError(f"--devices is {devices.value}; it must be at least 0")
        return {"devices": devices.value, "quiet": quiet.value}

    return given


def _define_places() -> Callable[[], dict[str, Any]]:
    """Flags for the places of a run's data, which may have moved since."""
    names = ("data_dir", "cache_dir")
    return settings.define_flags(config_lib.Data, defaults=False, only=names)


def _module(name: str) -> Any:
    """The module of an evaluation, which brings JAX."""
    if not flags.FLAGS["quiet"].value:
        print(f"{name}: starting", file=sys.stderr, flush=True)
    return importlib.import_module(f"apr_jax.evaluate.{name}")


def _about(name: str) -> str | None:
    """What the module of an evaluation says of itself, without running it."""
    found = importlib.util.find_spec(f"apr_jax.evaluate.{name}")
    assert found is not None
    assert found.origin is not None
    return ast.get_docstring(ast.parse(pathlib.Path(found.origin).read_text("utf-8")))
