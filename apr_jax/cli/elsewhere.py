"""Flags for a network from elsewhere: ``--model``, and what it is measured on."""

from collections.abc import Callable
from typing import Any

from absl import flags

from apr_jax import settings
from apr_jax.data import classes as classes_lib
from apr_jax.errors import ConfigError
from apr_jax.foreign import named
from apr_jax.gates import code_files, places


def define_flags() -> Callable[[], dict[str, Any]]:
    """Defines those of the network.

    Returns:
        A function that gives, once the command line is parsed, arguments of
        ``bring.bring``, ``model`` None where there is none. It raises ConfigError where
        flags don't go together, a package is missing, or a file isn't there.
    """
    model = flags.DEFINE_string(
        "model",
        None,
        "FILE.py[:create], which returns a function or an apr_jax.Classifier; "
        "timm:NAME, torchvision:NAME, hf:REPO or zoo:NAME.",
    )
    classes = flags.DEFINE_string(
        "classes", None, "How many classes, or a file of names, one a line."
    )
    weights = flags.DEFINE_string(
        "weights", None, "For --model LIBRARY:NAME: a file; its library's if unset."
    )
    trusted = flags.DEFINE_bool(
        "trust_remote_code", False, "For --model hf:REPO: its own code may be run."
    )
    settings.list_in_help("model", "classes", "weights", "trust_remote_code")

    def given() -> dict[str, Any]:
        if model.value is None:
            for flag in (weights, trusted):
                if flag.value:
                    raise ConfigError(f"--{flag.name} is for --model")
        else:
            _check(model.value, weights.value)
        found = {"model": model.value, "classes": _classes(classes.value)}
        if weights.value:
            found["weights"] = weights.value
        if trusted.value:
            found["trust_remote_code"] = True
        return found

    return given


def define_measured() -> Callable[[], dict[str, Any] | None]:
    """Defines those of the network and of what it is measured on.

    Returns:
        As ``define_flags``, with the data; None where no network is named.
    """
    told = define_flags()
    measured = flags.DEFINE_string(
        "data",
        None,
        "For --model: a set of TFDS such as cifar10, bundled, folder:PATH, "
        "arrays:FILE.npz or parquet:PATH.",
    )
    settings.list_in_help("data")

    def given() -> dict[str, Any] | None:
        found = told()
        if found["model"] is None:
            for flag, value in (
                ("data", measured.value),
                ("classes", found["classes"]),
            ):
                if value:
                    raise ConfigError(
                        f"--{flag} is for --model; a network of the zoo is measured on "
                        "other data as --model zoo:NAME"
                    )
            return None
        if measured.value is None:
            raise ConfigError("--model needs --data, what it is measured on")
        return found | {"source_of_data": measured.value}

    return given


def _check(model: str, weights: str | None) -> None:
    """Checks what the flags say of a network, without loading it.

    Raises:
        ConfigError: a package is missing, or a file isn't there.
    """
    if named.is_named(model):
        named.check(model)
    elif model.startswith(places.ZOO):
        places.zoo(model, "--model")
    else:
        code_files.find(model, "--model", named.others(model))
    if weights and not (path := places.local(weights, "--weights")).is_file():
        raise ConfigError(f"--weights is {str(path)!r}, which is no file")


def _classes(text: str | None) -> int | tuple[str, ...] | None:
    if text is None:
        return None
    if text.isdecimal():
        if (count := int(text)) < 2:
            raise ConfigError(f"--classes is {count}; it must be at least 2")
        return count
    return classes_lib.read_text(places.local(text, "--classes"))
