"""The files that networks are written as, and the pixels that they take."""

import pathlib

from apr_jax.errors import ConfigError

FORMATS = ("stablehlo", "onnx")
PIXELS = ("float32", "uint8")
_SUFFIXES = {".onnx": "onnx", ".stablehlo": "stablehlo"}


def of_name(out: pathlib.Path) -> str:
    """The format that the name of a file says.

    Raises:
        ConfigError: it says none.
    """
    if out.suffix not in _SUFFIXES:
        raise ConfigError(
            f"--out is {str(out)!r}; say --to, one of {', '.join(FORMATS)}, or end the "
            f"name with {' or '.join(_SUFFIXES)}"
        )
    return _SUFFIXES[out.suffix]
