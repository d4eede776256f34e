"""Files and folders that users name: ``~`` is their home, an address no folder."""

import argparse
import pathlib

from apr_jax.errors import ConfigError


def check(place: str, name: str) -> None:
    """Checks that a text names a file or a folder of this machine.

    Args:
        place: what was given.
        name: of the flag or field, for the message.

    Raises:
        ConfigError: it is an address such as ``gs://bucket/run``, of a user that there
            isn't (``~nobody``), or has bytes that are no UTF-8.
    """
    if "://" in place:
        raise ConfigError(
            f"{name} is {place!r}; it must be a file or folder that this machine sees. "
            "Mount what lies elsewhere, a bucket with gcsfuse for instance"
        )
    try:
        place.encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"{name} is {place!r}; names of files must be UTF-8"
        ) from None
    try:
        pathlib.Path(place).expanduser()
    except RuntimeError:
        raise ConfigError(f"{name} is {place!r}; there is no such user") from None


def local(place: str, name: str) -> pathlib.Path:
    """The path of what ``check`` lets pass, ``~`` replaced by the user's home."""
    check(place, name)
    return pathlib.Path(place).expanduser()


def argument(place: str) -> pathlib.Path:
    """``local`` as the ``type`` of a flag of ``argparse``, which names it itself."""
    try:
        return local(place, "the place")
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
