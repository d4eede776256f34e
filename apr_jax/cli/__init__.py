"""The command ``apr-jax``: its sub-commands, each a module of the package.

``apr-jax card RUN`` is ``python -m apr_jax.evaluate.card RUN``; ``--help`` after a
sub-command is that module's.
"""

import difflib
import runpy
import sys

import apr_jax
from apr_jax.cli import by_name

# Name -> module, what it does.
COMMANDS = {
    "train": ("apr_jax.cli.train", "train as a configuration says, measure, draw"),
    "card": ("apr_jax.evaluate.card", "measure runs by everything, on one page"),
    "clean": ("apr_jax.evaluate.clean", "accuracy and calibration"),
    "corruption": ("apr_jax.evaluate.corruption", "error under corruptions"),
    "shift": ("apr_jax.evaluate.shift", "accuracy on the same classes elsewhere"),
    "ood": ("apr_jax.evaluate.ood", "detection of what was never seen"),
    "adversarial": ("apr_jax.evaluate.adversarial", "accuracy under attacks"),
    "fourier": ("apr_jax.evaluate.fourier", "heatmaps, bands, phase and amplitude"),
    "compare": ("apr_jax.cli.compare", "finished runs side by side, as CSV and JSON"),
    "export": ("apr_jax.cli.export", "write a network as StableHLO or ONNX"),
    "cache": ("apr_jax.cli.cache", "list what is kept to save time, and remove it"),
    "corrupt": ("apr_jax.cli.corrupt", "write corrupted sets as files, or compare"),
    "pack": ("apr_jax.cli.pack", "make large images small once, to train faster"),
    "models": ("apr_jax.models", "list the networks"),
    "methods": ("apr_jax.cli.methods", "list the training methods"),
    "configs": ("apr_jax.cli.configs", "list the configurations"),
    "zoo": ("apr_jax.cli.zoo", "list the trained networks that come with it"),
}
# Those that take nothing.
_LISTS = ("models", "methods", "configs", "zoo")
# What ``pip install "apr_jax[train]"`` brings, by the names of modules.
_TRAIN = {
    "absl",
    "etils",
    "matplotlib",
    "ml_collections",
    "orbax",
    "rich",
    "sklearn",
    "tensorflow",
    "tensorflow_datasets",
}


def main() -> None:
    """Runs the sub-command that the command line names."""
    given = sys.argv[1:]
    if not given or given[0] in ("--help", "-h", "help"):
        print(_usage())
    elif given[0] == "--version":
        print(apr_jax.__version__)
    elif given[0] not in COMMANDS:
        near = difflib.get_close_matches(given[0], COMMANDS, 1)
        guess = f"did you mean {near[0]}? " if near else ""
        _fail(f"unknown command {given[0]!r}; {guess}There are {', '.join(COMMANDS)}")
    elif given[0] in _LISTS and given[1:]:
        if given[1] not in ("--help", "-h"):
            _fail(f"apr-jax {given[0]} takes no arguments, not {given[1]!r}")
        print(f"usage: apr-jax {given[0]}\n\nTo {COMMANDS[given[0]][1]}.")
    else:
        del sys.argv[1]
        sys.argv = by_name.with_files(sys.argv)
        module, _ = COMMANDS[given[0]]
        try:
            if module.startswith("apr_jax.evaluate."):
                from apr_jax.cli import measure

                measure.main(given[0])
            else:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing not in _TRAIN:
                raise
            _fail(
                f"apr-jax {given[0]} needs {missing}, which is not installed: "
                "pip install 'apr_jax[train]'"
            )


def _usage() -> str:
    lines = [f"  {name:12} {about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join(
        (
            "usage: apr-jax COMMAND [--help] [...]",
            "",
            *lines,
            "",
            f"apr_jax {apr_jax.__version__}; apr-jax COMMAND --help lists its flags.",
        )
    )


def _fail(line: str) -> None:
    print(f"error: {line}", file=sys.stderr)
    sys.exit(2)
