"""Programs that take flags: a mistake in these is one line and status 2."""

import difflib
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import app, flags

from apr_jax import config as config_lib
from apr_jax.cli import by_name

# What absl says of a value, or of none.
_OF_ABSL = re.compile(
    r"flag --([\w.]+)=(.*?): "
    r"(?:(.* must have a value other than None\.)|"
    r"value should be one of <(.*)>|"
    r"(invalid literal for int.*)|could not convert string to float.*)"
)


def run(work: Callable[[Sequence[str]], Any]) -> None:
    """Runs a program.

    Args:
        work: given the arguments that are no flags, the program's name first. What it
            raises as ``app.UsageError`` is a mistake in them.
    """

    def main(arguments: Sequence[str]) -> None:
        try:
            work(arguments)
        except app.UsageError as error:
            mistaken(f"{error}; --help lists the flags")

    app.run(main, flags_parser=parse)


def parse(arguments: Sequence[str]) -> list[str]:
    """Reads the flags; a mistake in them ends the program with a line and status 2.

    Returns:
        The arguments that are none, the program's name first.
    """
    try:
        left: list[str] = flags.FLAGS(by_name.with_files(arguments))
        if "config" in flags.FLAGS and (config := flags.FLAGS["config"].value):
            config.to_dict()  # a file that couldn't be read says so only now
    except BrokenPipeError:  # of --help
        raise
    except SystemExit as ended:  # absl's 1 after --help, as if something were wrong
        sys.exit(0 if ended.code == 1 else ended.code)
    except (flags.Error, OSError, AttributeError, KeyError, TypeError, ValueError) as e:
        mistaken(_mistake(arguments, e))
    return left


def mistaken(line: str) -> NoReturn:
    """Ends the program with what is wrong with its command line."""
    print(f"error: {line}", file=sys.stderr)
    sys.exit(2)


def _mistake(arguments: Sequence[str], error: Exception) -> str:
    """What is wrong with a command line that could not be read, in one line."""
    values = config_lib.flatten(config_lib.default())
    for argument in arguments:
        flag, _, value = argument.partition("=")
        name = flag.lstrip("-").removeprefix("config.")
        if not flag.startswith(("--config.", "-config.")):
            continue
        if name not in values:
            near = difflib.get_close_matches(name, values, 3)
            group = f"{name.partition('.')[0]}."
            there = [field for field in values if field.startswith(group)]
            there = there or list(dict.fromkeys(f.partition(".")[0] for f in values))
            guess = f"did you mean {' or '.join(near)}? " if near else ""
            return f"{flag}: no such field; {guess}There are {', '.join(there)}"
        if flag in str(error):
            kind = type(values[name]).__name__
            how = ", in brackets and quotes" if kind == "tuple" else ""
            return f"{flag} is {value!r}; it must be of type {kind}{how}"
    lines = [line for line in str(error).splitlines() if line.strip()]
    if "Unknown command line flag 'config'" in str(error):
        return (
            "--config isn't for this; a file of weights and its --config go to a "
            "single measurement, such as apr-jax clean or apr-jax corruption"
        )
    if said := _OF_ABSL.fullmatch(" ".join(lines)):
        name, value, missing, choices, whole = said.groups()
        if missing:
            return f"--{name} is missing"
        if choices:
            allowed = choices.replace("|", ", ")
            return f"--{name} is {value!r}; choose from {allowed}"
        kind = "a whole number" if whole else "a number"
        return f"--{name} is {value!r}; it must be {kind}"
    if isinstance(error, OSError) or any("No such file" in line for line in lines):
        given = [a for a in arguments[1:] if "config" in a.partition("=")[0]]
        return f"{' '.join(given)}: can't be read; {by_name.listed()}"
    return lines[-1].strip().removeprefix("ValueError: ") if lines else repr(error)
