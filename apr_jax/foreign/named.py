"""Networks by name: ``timm:NAME``, ``torchvision:NAME``, ``hf:REPO``."""

import functools
import importlib.util
import pathlib
from collections.abc import Callable
from typing import Any

from apr_jax.errors import ConfigError
from apr_jax.foreign.preprocessing import Given

LIBRARIES = ("timm", "torchvision", "hf")
# How a message goes on that asks for a file of Python.
_OTHERS = ", timm:NAME, torchvision:NAME, hf:REPO, or zoo:NAME"
# What to do with files that somebody might give instead, by their endings.
_WEIGHTS = (
    ". Weights alone need their network: FILE.py returns Classifier.from_torch(module, "
    "…) with them loaded, or of a network here apr-jax clean FILE --config NAME"
)
_DOORS = {
    ".onnx": ". ONNX: FILE.py returns apr_jax.Classifier.from_onnx(path, classes=…, …)",
    **dict.fromkeys((".pth", ".pt", ".safetensors"), _WEIGHTS),
}
# What each needs beside torchax.
_NEEDS = {
    "timm": ("torch", "timm"),
    "torchvision": ("torch", "torchvision"),
    "hf": ("torch", "timm", "huggingface_hub", "transformers"),
}


def is_named(spec: str) -> bool:
    """Whether a text names a network of one of the libraries."""
    return spec.partition(":")[0] in LIBRARIES and ":" in spec


def others(spec: str) -> str:
    """What could be written instead of a file of Python, as the end of a message."""
    return _OTHERS + _DOORS.get(pathlib.Path(spec).suffix, "")


def check(spec: str) -> None:
    """Checks a name without loading what it names.

    Raises:
        ConfigError: a package is missing, or the name is.
    """
    library, _, name = spec.partition(":")
    needed = ("torchax", *_NEEDS[library])
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"--model {spec} needs {', '.join(missing)}, not installed here: "
            'pip install "apr_jax[train,torch]" in an environment of its own'
        )
    if not name:
        raise ConfigError(f"model is {spec!r}; write {library}:NAME")


def load(
    spec: str, weights: pathlib.Path | None = None, *, trust_remote_code: bool = False
) -> Given:
    """A network of a library, with its own preprocessing.

    Args:
        spec: "timm:NAME", "torchvision:NAME" or "hf:REPO".
        weights: a file of ``torch.save`` or safetensors, read without running code;
            None: those that the library downloads.
        trust_remote_code: whether code that a repository of the hub brings may run.

    Raises:
        ConfigError: a package is missing, the network isn't there, or its weights
            don't fit.
        DataError: the file of weights can't be read.
    """
    check(spec)
    library, _, name = spec.partition(":")
    if trust_remote_code and library != "hf":
        raise ConfigError(f"--trust_remote_code is for hf:REPO, not {spec}")
    return _loader(library, trust_remote_code)(name, weights)


def _loader(library: str, trusted: bool) -> Callable[..., Given]:
    from apr_jax.foreign import of_hub, of_timm, of_torchvision

    loaders: dict[str, Any] = {
        "timm": of_timm.load,
        "torchvision": of_torchvision.load,
        "hf": functools.partial(of_hub.load, trust_remote_code=trusted),
    }
    found: Callable[..., Given] = loaders[library]
    return found
