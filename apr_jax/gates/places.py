"""Files and folders that users name: ``~`` is their home, an address a store's."""

import argparse
import pathlib

from apr_jax.errors import ConfigError
from apr_jax.gates import stores

# "zoo:NAME" is a network that comes with the package; its folder is here.
ZOO, ZOO_FOLDER = "zoo:", pathlib.Path(__file__).parents[1] / "zoo" / "networks"


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


def anywhere(place: str, name: str) -> stores.Place:
    """The path of a place that may be in a store: ``local``, or ``stores.find``."""
    return stores.find(place, name) if "://" in place else local(place, name)


def run(place: str, name: str) -> stores.Place:
    """The directory of a run, ``zoo:NAME`` among them; else as ``anywhere``.

    Raises:
        ConfigError: the zoo has no such network, or as ``anywhere``.
    """
    return zoo(place, name) if place.startswith(ZOO) else anywhere(place, name)


def zoo(place: str, name: str) -> pathlib.Path:
    """The folder of ``zoo:NAME``.

    Raises:
        ConfigError: the zoo has no such network.
    """
    names = zoo_names()
    if (wanted := place.removeprefix(ZOO)) not in names:
        raise ConfigError(f"{name} is {place!r}; the zoo has {', '.join(names)}")
    return ZOO_FOLDER / wanted


def zoo_names() -> tuple[str, ...]:
    """The names of the networks that come with the package."""
    found = ZOO_FOLDER.iterdir() if ZOO_FOLDER.is_dir() else ()
    return tuple(sorted(path.name for path in found if (path / "config.json").exists()))


def argument(place: str) -> pathlib.Path:
    """``local`` as the ``type`` of a flag of ``argparse``, which names it itself."""
    try:
        return local(place, "the place")
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
